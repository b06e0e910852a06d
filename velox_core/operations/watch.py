"""Who watches the engine of a day: one living process at a time, by a kernel lock; and who did before, on record.

- The lock dies with its holder: that a watcher lives is never read from an orchestrator's states.
- The record says since when and by which flow run a day was watched, and how each watch ended. A watch without an end
  whose process let go of the lock was killed; when it was last heard of is on record too.
- Records are notes for people. One that cannot be written stops nobody from watching.
- `<var>/<broker type>/<account>/watch/<stem>.lock` and `.json`; `.engine` is the lock that an engine inherits from the
  watcher that starts it, and holds from its very first moment until its process is gone.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Self

from velox_core.domain.errors import VeloxError
from velox_core.engine_lock import LockView, ProcessLock
from velox_core.operations.engine_end import moment
from velox_core.operations.json_file import read_json, write_json
from velox_core.ports import LockHolder

WATCHES_KEPT_MAX: Final = 50
START_LOCKS: Final = "watch/*.engine"  # of all days, below the account's folder
SEEN_SECONDS: Final = 5.0  # so often a watcher that lives says so


class WatchEnd(StrEnum):
    """How one watch ended. WATCHING: it has not, or its process was killed."""

    WATCHING = "WATCHING"
    SAW_THE_END = "SAW THE END"
    CANCELLED = "CANCELLED"
    ENDED_BEFORE = "ENDED"  # by a signal: its worker or its machine was stopped
    FAILED = "FAILED"
    KILLED = "KILLED"
    STARTED_NOTHING = "STARTED NOTHING"  # there was no engine to watch


_SEEN_THROUGH: Final = frozenset({WatchEnd.SAW_THE_END, WatchEnd.WATCHING, WatchEnd.STARTED_NOTHING})


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """One watch over a day's engine. Moments are epoch ms of the machine's clock; 0 and '' are not known."""

    flow_run: str
    flow_run_id: str = ""
    pid: int
    engine_pid: int = 0
    run_id: str = ""
    from_wall_ms: int
    seen_wall_ms: int
    ended: WatchEnd = WatchEnd.WATCHING

    @classmethod
    def of_body(cls, body: Mapping[str, Any]) -> Self | None:
        """Return the watch in a JSON object, None when it is not one."""
        try:
            values = {field.name: body[field.name] for field in fields(cls)}
            return cls(**{**values, "ended": WatchEnd(values["ended"])})
        except (KeyError, ValueError, TypeError):
            return None

    @property
    def sentence(self) -> str:
        """Return what became of it, for people."""
        name, at = f"the flow run {self.flow_run!r} (process {self.pid})", moment(self.seen_wall_ms)
        match self.ended:
            case WatchEnd.WATCHING:
                return f"{name} watches it, last heard of at {at}"
            case WatchEnd.KILLED:
                return f"{name} was killed, last heard of at {at}"
            case WatchEnd.SAW_THE_END:
                return f"{name} saw its end at {at}"
            case _:
                return f"{name} was {self.ended.lower()} at {at}"


class DayWatch:
    """This process as the watcher of a day, until `close`. Made by `take_watch`."""

    def __init__(self, lock: ProcessLock, record: Path, watches: list[Watch], own: Watch) -> None:
        self._lock = lock
        self._record = record
        self._earlier = watches
        self._own = own
        self._next_seen = 0.0
        self.engine: LockHolder | None = None  # the engine that is watched, from the moment it is known
        self.is_starting = False  # an engine is being started, or was: one may be there that is not known yet
        self.trouble = ""  # why the record could not be written
        self._write()

    @property
    def unseen(self) -> list[Watch]:
        """Return the watches before this one that could not see the day through, the oldest first."""
        return _not_seen_through(self._earlier)

    def watches_over(self, engine: LockHolder) -> None:
        """Note which engine is watched."""
        self.engine = engine
        self._note(engine_pid=engine.pid)

    def seen(self, run_id: str) -> None:
        """Note that this watcher lives, at most every `SEEN_SECONDS`."""
        if time.monotonic() >= self._next_seen or run_id != self._own.run_id:
            self._next_seen = time.monotonic() + SEEN_SECONDS
            self._note(run_id=run_id)

    def end(self, ended: WatchEnd) -> None:
        """Note how this watch ended; a watch that saw its engine's end stays so."""
        if self._own.ended is not WatchEnd.SAW_THE_END:
            self._note(ended=ended)

    def close(self) -> None:
        """Let others watch. A watch over an engine that was not ended before failed."""
        if self._own.ended is WatchEnd.WATCHING:
            self.end(WatchEnd.STARTED_NOTHING if self.engine is None else WatchEnd.FAILED)
        self._lock.close()

    def _note(self, **changes: Any) -> None:
        self._own = replace(self._own, seen_wall_ms=_wall_ms(), **changes)
        self._write()

    def _write(self) -> None:
        kept = [*self._earlier, self._own][-WATCHES_KEPT_MAX:]
        try:
            write_json(self._record, {"watches": [asdict(watch) for watch in kept]})
        except VeloxError as error:
            self.trouble = str(error)


def take_watch(account_folder: Path, stem: str, *, flow_run: str, flow_run_id: str = "") -> DayWatch | None:
    """Become the watcher of a day; None when another process is and lives. Raises VeloxError when no lock can be made.

    Args:
        account_folder: the account's own folder below `var`.
        stem: the date, with the scenario of a synthetic day.
        flow_run: the name of the flow run that watches, for people.
        flow_run_id: its id.
    """
    lock = ProcessLock(_file(account_folder, stem, "lock"))
    if not lock.take():
        lock.close()
        return None
    record = _file(account_folder, stem, "json")
    earlier = [replace(watch, ended=WatchEnd.KILLED) if watch.ended is WatchEnd.WATCHING else watch for watch in _read(record)]
    now_ms = _wall_ms()
    own = Watch(flow_run=flow_run, flow_run_id=flow_run_id, pid=os.getpid(), from_wall_ms=now_ms, seen_wall_ms=now_ms)
    return DayWatch(lock, record, earlier, own)


def watches_of(account_folder: Path, stem: str) -> list[Watch]:
    """Return the watches of a day as they stand, the oldest first: one whose process is gone counts as killed."""
    watches = _read(_file(account_folder, stem, "json"))
    if is_watched(account_folder, stem):
        return watches
    return [replace(watch, ended=WatchEnd.KILLED) if watch.ended is WatchEnd.WATCHING else watch for watch in watches]


def is_watched(account_folder: Path, stem: str) -> bool:
    """Return whether a living process watches the day. Raises VeloxError when the kernel does not say."""
    return LockView(_file(account_folder, stem, "lock")).holder() is not None


def unseen_watches(account_folder: Path, stem: str) -> list[Watch]:
    """Return the watches that could not see the day through, since the last that did; none while it is watched."""
    watches = watches_of(account_folder, stem)
    return [] if watches and watches[-1].ended is WatchEnd.WATCHING else _not_seen_through(watches)


def start_lock(account_folder: Path, stem: str) -> Path:
    """Return the lock that a day's engine inherits from the watcher that starts it."""
    return _file(account_folder, stem, "engine")


def _not_seen_through(watches: list[Watch]) -> list[Watch]:
    last = max((number for number, watch in enumerate(watches) if watch.ended is WatchEnd.SAW_THE_END), default=-1)
    return [watch for watch in watches[last + 1 :] if watch.ended not in _SEEN_THROUGH and watch.engine_pid]


def _read(record: Path) -> list[Watch]:
    bodies = read_json(record).get("watches", [])
    found = [Watch.of_body(body) for body in bodies if isinstance(body, Mapping)] if isinstance(bodies, list) else []
    return [watch for watch in found if watch is not None]


def _file(account_folder: Path, stem: str, kind: str) -> Path:
    return account_folder / "watch" / f"{stem}.{kind}"


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000
