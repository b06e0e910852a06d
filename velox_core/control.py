"""The control channel of the engine: requests in, status out, by the ledger and by files.

- `CombinedControl` asks the ledger first and the folder as well, so a stop arrives while either of them works.
- A stop comes before whatever else waits; of the others the newest counts.
- A request has an id and is taken once, whichever way it comes, and however often it is sent.
- A request may be meant for one process, from its first moment on, before anybody knows which run it will trade: it waits
  in a folder that bears the process' id and start, and is never forgotten as an earlier engine's.
- Nothing here raises to the engine: a channel that fails is a channel without news.
- Cheap when nothing is there: one `stat` of a folder, and the ledger at most twice a second.
"""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from velox_core.domain.errors import VeloxError
from velox_core.ports import Control, ControlRequest, LockHolder, RiskLedger

LEDGER_POLL_SECONDS = 0.5
STOP, RESET = "stop", "reset"
REQUEST_MARK, TAKEN_MARK, STATUS_MARK, GUARD_MARK = "control_request", "control_taken", "status", "guard"
STATUS_FILE, GUARD_FILE = "status.json", "guard.json"
_QUIET_NS = 100_000_000  # a folder changed less than this ago may change again within its clock's resolution
_TAKEN_IDS_MAX = 64


class IdentifiedRequest(ControlRequest):
    """A request as it travels, with the id that makes it unique and the wall clock time of asking."""

    __slots__ = ("asked_wall_ms",)

    def __init__(self, action: str, by: str, reason: str, request_id: str, asked_wall_ms: int) -> None:
        super().__init__(action, by, reason, request_id)
        self.asked_wall_ms = asked_wall_ms


def new_request(action: str, *, by: str, reason: str, wall_ms: int | None = None) -> IdentifiedRequest:
    """Return a request with an id of its own. `wall_ms` is now unless it is given."""
    asked_wall_ms = time.time_ns() // 1_000_000 if wall_ms is None else wall_ms
    return IdentifiedRequest(action, by, reason, uuid.uuid4().hex, asked_wall_ms)


def open_control(folder: Path, ledger: RiskLedger | None) -> CombinedControl:
    """Return the channel of a scope: its folder, and its ledger where there is a shared one."""
    return CombinedControl(None if ledger is None else LedgerControl(ledger), FileControl(folder))


def process_folder(var: Path, holder: LockHolder) -> Path:
    """Return where requests for one process wait, whatever it runs; a later process with its id has another folder."""
    began = holder.started.rpartition(":")[2] or "unknown"
    return var / "output" / f"engine-{holder.pid}-{began}"


class FileControl:
    """Requests as files in `<folder>/control/`, the status as `<folder>/status.json`.

    Args:
        folder: the scope's folder.
        status_file: the status' name, for a process that is not the scope's engine.
        wall_ns: the wall clock in nanoseconds, as the file system counts.
    """

    def __init__(self, folder: Path, *, status_file: str = STATUS_FILE, wall_ns: Callable[[], int] = time.time_ns) -> None:
        self._requests = folder / "control"
        self._status = folder / status_file
        self._wall_ns = wall_ns
        self._seen_mtime_ns = -1

    def poll(self) -> IdentifiedRequest | None:
        """Take all waiting requests and return the foremost, or None. Never raises."""
        try:
            changed_ns = os.stat(self._requests).st_mtime_ns
        except OSError:
            return None
        if changed_ns == self._seen_mtime_ns:
            return None
        taken: list[IdentifiedRequest] = []
        with contextlib.suppress(OSError):
            for path in sorted(self._requests.glob("*.json")):
                request = _taken(path)
                if request is not None:
                    taken.append(request)
            changed_ns = os.stat(self._requests).st_mtime_ns
        self._seen_mtime_ns = changed_ns if self._wall_ns() - changed_ns > _QUIET_NS else -1
        return _foremost(taken)

    def publish(self, status: Mapping[str, object]) -> None:
        """Replace the status file. Never raises."""
        with contextlib.suppress(OSError, TypeError):
            _replace(self._status, orjson.dumps(dict(status)))

    def request(self, request: IdentifiedRequest) -> None:
        """Leave a request for the engine. Raises VeloxError."""
        name = f"{request.asked_wall_ms:015d}-{request.request_id}.json"
        try:
            _replace(self._requests / name, _encoded(request))
        except OSError as error:
            raise VeloxError(f"cannot leave a request in {self._requests}: {error.strerror}: correct its rights") from error

    def status(self) -> dict[str, Any] | None:
        """Return the status that was published last, or None."""
        try:
            found = orjson.loads(self._status.read_bytes())
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def forget_requests(self) -> None:
        """Take and drop what an earlier engine left undone. Never raises."""
        self.poll()


class LedgerControl:
    """Requests and status as marks of the ledger.

    Args:
        ledger: the scope's ledger.
        status_mark: the status' name, for a process that is not the scope's engine.
        poll_seconds: `poll` asks the ledger at most this often.
        monotonic: seconds that never go back.
    """

    def __init__(
        self,
        ledger: RiskLedger,
        *,
        status_mark: str = STATUS_MARK,
        poll_seconds: float = LEDGER_POLL_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ledger = ledger
        self._status_mark = status_mark
        self._poll_seconds = poll_seconds
        self._monotonic = monotonic
        self._next_poll = 0.0
        self._taken_id: str | None = None

    def poll(self) -> IdentifiedRequest | None:
        """Return the newest request that was not yet taken, or None. Never raises."""
        now = self._monotonic()
        if now < self._next_poll:
            return None
        self._next_poll = now + self._poll_seconds
        try:
            if self._taken_id is None:
                self._taken_id = self._ledger.get_mark(TAKEN_MARK) or ""
            text = self._ledger.get_mark(REQUEST_MARK)
            request = None if text is None else _decoded(text.encode())
            if request is None or request.request_id == self._taken_id:
                return None
        except VeloxError:
            return None
        self._taken_id = request.request_id
        with contextlib.suppress(VeloxError):  # taken all the same; a restarted engine would take it once more
            self._ledger.put_mark(TAKEN_MARK, request.request_id)
        return request

    def publish(self, status: Mapping[str, object]) -> None:
        """Publish the status beside the ledger's version. Never raises."""
        with contextlib.suppress(VeloxError, TypeError):
            self._ledger.put_mark(self._status_mark, orjson.dumps(dict(status)).decode())

    def request(self, request: IdentifiedRequest) -> None:
        """Leave a request for the engine. Raises LedgerUnavailable."""
        self._ledger.put_mark(REQUEST_MARK, _encoded(request).decode())

    def status(self) -> dict[str, Any] | None:
        """Return the status that was published last, or None. Raises LedgerUnavailable."""
        text = self._ledger.get_mark(self._status_mark)
        try:
            found = None if text is None else orjson.loads(text)
        except ValueError:
            return None
        return found if isinstance(found, dict) else None

    def forget_requests(self) -> None:
        """Take and drop what an earlier engine left undone. Never raises."""
        self._next_poll = 0.0
        self.poll()


class CombinedControl:
    """Both channels as one: a request is sent both ways and taken once.

    Args:
        ledger: the ledger's channel, or None where there is no shared ledger (a replay).
        file: the folder's channel.
        process: what is asked of this very process (`process_folder`); only requests come this way.
    """

    def __init__(self, ledger: LedgerControl | None, file: FileControl, process: FileControl | None = None) -> None:
        self._ledger = ledger
        self._file = file
        self._process = process
        self._taken: list[str] = []

    def poll(self) -> IdentifiedRequest | None:
        """Return the newest request that was not yet taken, or None. Never raises."""
        by_ledger = None if self._ledger is None else self._ledger.poll()
        by_file = (self._file.poll(), None if self._process is None else self._process.poll())
        fresh = [found for found in (by_ledger, *by_file) if found is not None and found.request_id not in self._taken]
        self._taken = [*self._taken[2 - _TAKEN_IDS_MAX :], *(request.request_id for request in fresh)]
        return _foremost(fresh)

    def publish(self, status: Mapping[str, object]) -> None:
        """Show the status both ways. Never raises."""
        if self._ledger is not None:
            self._ledger.publish(status)
        self._file.publish(status)

    def request(self, request: IdentifiedRequest) -> None:
        """Leave a request both ways. Raises VeloxError when neither works."""
        failed: list[VeloxError] = []
        for channel in (self._ledger, self._file):
            if channel is None:
                continue
            try:
                channel.request(request)
            except VeloxError as error:
                failed.append(error)
        if len(failed) == (1 if self._ledger is None else 2):
            raise VeloxError("; ".join(str(error) for error in failed))

    def status(self) -> dict[str, Any] | None:
        """Return the status that was published last: from the ledger, else from the file; None for none."""
        found = None
        if self._ledger is not None:
            with contextlib.suppress(VeloxError):
                found = self._ledger.status()
        return self._file.status() if found is None else found

    def forget_requests(self) -> None:
        """Take and drop what an earlier engine left undone. Never raises."""
        if self._ledger is not None:
            self._ledger.forget_requests()
        self._file.forget_requests()


class NamedControl:
    """A control channel whose status says which process and run it is of.

    Each status is numbered (`beat`), so that a new one is told from an old one without comparing clocks; `wall_ms` is
    when it was written, by the machine's clock.

    Args:
        control: the channel.
        facts: what each status says of its run.
        alerts, metrics: how alerts and metrics fared so far.
    """

    def __init__(
        self,
        control: Control,
        facts: Mapping[str, object],
        alerts: Callable[[], dict[str, object]] = lambda: {},
        metrics: Callable[[], dict[str, object]] = lambda: {},
    ) -> None:
        self._control = control
        self._facts = {**facts, "pid": os.getpid()}
        self._alerts = alerts
        self._metrics = metrics
        self._beat = 0

    def poll(self) -> ControlRequest | None:
        """Return the newest request."""
        return self._control.poll()

    def publish(self, status: Mapping[str, object]) -> None:
        """Publish the status with its origin."""
        self._beat += 1
        origin = {**self._facts, "beat": self._beat, "wall_ms": time.time_ns() // 1_000_000}
        self._control.publish({**status, **origin, "alerts": self._alerts(), "metrics": self._metrics()})


def _foremost(requests: Sequence[IdentifiedRequest]) -> IdentifiedRequest | None:
    """Return the newest stop, else the newest request: what was asked meanwhile must not hide a stop."""
    return max(requests, key=lambda request: (request.action == STOP, request.asked_wall_ms), default=None)


def _encoded(request: IdentifiedRequest) -> bytes:
    return orjson.dumps(
        {
            "action": request.action,
            "by": request.by,
            "reason": request.reason,
            "request_id": request.request_id,
            "asked_wall_ms": request.asked_wall_ms,
        }
    )


def _decoded(content: bytes) -> IdentifiedRequest | None:
    """Read a request; None for what is none."""
    try:
        body = orjson.loads(content)
        action, request_id = str(body["action"]), str(body["request_id"])
        return IdentifiedRequest(action, str(body["by"]), str(body["reason"]), request_id, int(body["asked_wall_ms"]))
    except (ValueError, KeyError, TypeError):
        return None


def _taken(path: Path) -> IdentifiedRequest | None:
    """Read a request file and remove it; whoever removes it has taken it. None when somebody was faster."""
    try:
        content = path.read_bytes()
        path.unlink()
    except FileNotFoundError:
        return None
    return _decoded(content)


def _replace(path: Path, content: bytes) -> None:
    """Write a file at once: readers see the old one or the new one. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_bytes(content)
    fresh.replace(path)
