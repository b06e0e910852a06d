"""The engine as a process of its own, seen from outside: start it, watch it, ask it to stop.

- It runs in its own session: no signal, exit or orphaning of its starter reaches it, and its starter's death stops nothing.
- What it says is read from its published status; how it ended from its exit code, and by whoever is not its parent from
  its last word (`end.json`). Killed by a signal, or gone without a last word, it died; that is never success.
- A stop is left for its very process, from its first moment on; it takes it when it is able to.
- A note below `var/output` says which engine a process started, so that nobody takes another's for it.
- What it prints goes to a file below `var/output`, for the case that it cannot even start.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Final

from velox_core.control import FileControl, new_request, process_folder
from velox_core.domain.errors import EXIT_DONE, EXIT_NOT_FLAT, NotFlatError, VeloxError
from velox_core.engine_lock import ProcessLock, process_start
from velox_core.operations.day_engine import how_it_ended
from velox_core.operations.engine_end import EngineEnd, read_end
from velox_core.operations.engine_standby import order_engine
from velox_core.operations.handover import leave_engine
from velox_core.operations.log_tail import last_lines
from velox_core.operations.processes import lives
from velox_core.operations.status import Status, account_folders, read_status
from velox_core.ports import LockHolder
from velox_core.settings import Paths, Settings

OUTPUT_LINES_SHOWN: Final = 30
MESSAGE_MARK: Final = "velox: "
WAIT_POLL_SECONDS: Final = 0.1
VELOX: Final = ("-m", "velox_core.cli")


_CHILDREN: Final[dict[LockHolder, subprocess.Popen[bytes]]] = {}  # the engines started here: only this process can reap them


class EngineDied(VeloxError):
    """An engine's process is gone and left no last word: what it did last is known to the broker and the journal only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRequest:
    """What the engine is to run. Absent values are the configuration's. `speed` 0.0 means as fast as possible.

    `exits_only` says why it may make no entry, '' when it may.
    """

    config: Path
    trading_date: date
    speed: float | None = None
    data: Path | None = None
    scenario: str | None = None
    exits_only: str = ""

    def arguments(self) -> list[str]:
        """Return the command line of the engine, after the interpreter."""
        arguments = [*VELOX, "run", "--json", "--config", str(self.config), "--date", self.trading_date.isoformat()]
        if self.speed is not None:
            arguments += ["--speed", "max" if self.speed == 0.0 else repr(self.speed)]
        if self.data is not None:
            arguments += ["--data", str(self.data)]
        if self.scenario is not None:
            arguments += ["--scenario", self.scenario]
        if self.exits_only:
            arguments += ["--exits-only", self.exits_only]
        return arguments


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOutcome:
    """How an engine's process ended. `exit_code` is None when it died without a word; `cause` says why it failed, or ''."""

    exit_code: int | None
    cause: str = ""


class EngineProcess:
    """One engine, seen from outside: started here, or found at work.

    Args:
        holder: its process.
        settings, paths: whose engine.
        folder: its run's folder, None while that is not known.
        output: what it prints, None when that is not known here.
        exit_status: asks whoever else may know its exit code, None when nobody does.
    """

    def __init__(
        self,
        holder: LockHolder,
        settings: Settings,
        paths: Paths,
        *,
        folder: Path | None = None,
        output: Path | None = None,
        exit_status: Callable[[], int | None] = lambda: None,
    ) -> None:
        self.holder = holder
        self.pid = holder.pid
        self.output = output
        self._child = _CHILDREN.get(holder)
        self._settings = settings
        self._paths = paths
        self._exit_status = exit_status
        self._folder = folder

    def status(self) -> Status | None:
        """Return what the engine last published, or None while it has not."""
        folders = [self._folder] if self._folder is not None else self._folders()
        for folder in folders:
            found = read_status(folder)
            if found is not None and (found.number("pid"), found.text("started")) == (self.pid, self.holder.started):
                self._folder = folder
                return found
        return None

    @property
    def run_folder(self) -> Path | None:
        """Return the run's folder, None while the engine has not published."""
        if self._folder is None:
            self.status()
        return self._folder

    def request_stop(self, *, by: str, reason: str) -> None:
        """Ask it to stop; the request waits for it when it cannot be asked yet. Raises VeloxError when it cannot be left."""
        FileControl(process_folder(self._paths.var, self.holder)).request(new_request("stop", by=by, reason=reason))

    def has_ended(self) -> bool:
        """Return whether its process is gone."""
        return not lives(self.holder) if self._child is None else self._child.poll() is not None

    def wait(self, seconds: float) -> bool:
        """Wait for the end within a bound. Returns whether it ended."""
        until = time.monotonic() + seconds
        while not self.has_ended() and time.monotonic() < until:
            time.sleep(WAIT_POLL_SECONDS)
        return self.has_ended()

    def outcome(self) -> EngineOutcome:
        """Return how it ended: by its parent's word, else its own, else whoever else may know."""
        end = self._end()
        code = None if self._child is None else self._child.poll()
        if code is None:
            code = self._exit_status() if end is None else end.exit_code
        elif code < 0:
            signalled = f"signal {-code} ended it"
            return EngineOutcome(exit_code=None, cause=f"{signalled}; {self._died()}")
        return EngineOutcome(exit_code=code, cause=self._died() if code is None else self._cause(end))

    def _end(self) -> EngineEnd | None:
        folders = [self._folder] if self._folder is not None else self._folders()
        ends = [end for folder in folders if (end := read_end(folder)) is not None and end.is_of(self.holder)]
        return ends[-1] if ends else None

    def _died(self) -> str:
        return how_it_ended(self._folder) if self.run_folder is not None and self._folder is not None else "it had not spoken"

    def _cause(self, end: EngineEnd | None) -> str:
        """Return why the engine failed, as it said itself, '' when it said nothing: fault, halt, or its error message."""
        status = self.status()
        halted = status.text("halt_reason") if status is not None and status.flag("halted") else ""
        said = "" if end is None else end.fault or end.message
        return said or halted or ("" if self.output is None else _error_message(last_lines(self.output, OUTPUT_LINES_SHOWN)))

    def _folders(self) -> list[Path]:
        return account_folders(self._paths.var, broker_type=self._settings.broker.type.value, account=self._settings.account)


def _error_message(lines: list[str]) -> str:
    """Return the message that a command ends with, from its mark to the end; the report in JSON is none."""
    starts = [number for number, line in enumerate(lines) if line.startswith(MESSAGE_MARK)]
    return "\n".join(lines[starts[-1] :]).removeprefix(MESSAGE_MARK) if starts else ""


def start_engine(
    settings: Settings,
    paths: Paths,
    request: EngineRequest,
    environ: Mapping[str, str],
    lock: ProcessLock,
    *,
    is_replay: bool = False,
) -> EngineProcess:
    """Start the engine in a session of its own; it inherits `lock`, which then says that it lives.

    A replay's may be the process that `engine_standby` got ready. Raises: VeloxError when it cannot be started.
    """
    output = output_file(paths, f"engine-{request.trading_date.isoformat()}")
    try:
        with output.open("wb") as sink:
            process = None
            if is_replay:
                process = order_engine(request.arguments()[len(VELOX) :], environ, output=sink.fileno(), lock=lock.fileno())
            process = process or subprocess.Popen(
                [sys.executable, *request.arguments()],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=dict(environ),
                pass_fds=(lock.fileno(),),
            )
    except OSError as error:
        raise VeloxError(f"the engine cannot be started: {error}") from error
    holder = process_holder(process.pid)
    lock.name(holder)
    _CHILDREN[holder] = process
    leave_engine(paths, process.pid)
    return EngineProcess(holder, settings, paths, output=output)


def process_holder(pid: int) -> LockHolder:
    """Return a process of this host by its id and start."""
    return LockHolder(host=socket.gethostname(), pid=pid, started=process_start(pid))


def output_file(paths: Paths, name: str) -> Path:
    """Return a file below `var/output` for what this process prints; its folder exists. Raises VeloxError."""
    folder = paths.var / "output"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise VeloxError(f"{folder} cannot be made: {error}. Make it writable, or set VELOX__VAR.") from error
    return folder / f"{name}-{os.getpid()}.log"


def engine_failure(outcome: EngineOutcome) -> VeloxError | None:
    """Return the error that an engine's end stands for, None when it is done."""
    if outcome.exit_code == EXIT_DONE:
        return None
    why = f": {outcome.cause}" if outcome.cause else ""
    if outcome.exit_code is None:
        return EngineDied(f"the engine died without a word{why}. Start intraday again: it takes the run up and reconciles")
    if outcome.exit_code == EXIT_NOT_FLAT:
        return NotFlatError(f"the engine ended with open positions or working orders{why}")
    error = VeloxError(f"the engine ended with exit code {outcome.exit_code}{why}")
    error.exit_code = outcome.exit_code
    return error
