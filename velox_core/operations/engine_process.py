"""The engine as a process of its own, seen from outside: start it, watch it, ask it to stop.

- It runs in its own session: no signal, exit or orphaning of its starter reaches it, and its starter's death stops nothing.
- What it says is read from its published status; how it ended from its exit code.
- A note below `var/output` says which engine a process started, so that nobody takes another's for it.
- What it prints goes to a file below `var/output`, for the case that it cannot even start.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Final

from velox_core.domain.errors import EXIT_DONE, EXIT_NOT_FLAT, NotFlatError, VeloxError
from velox_core.operations.handover import leave_engine
from velox_core.operations.log_tail import last_lines
from velox_core.operations.status import Status, account_folders, read_summary, status_of_process
from velox_core.settings import Paths, Settings

OUTPUT_LINES_SHOWN: Final = 30
MESSAGE_MARK: Final = "velox: "


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRequest:
    """What the engine is to run. Absent values are the configuration's. `speed` 0.0 means as fast as possible."""

    config: Path
    trading_date: date
    speed: float | None = None
    data: Path | None = None
    scenario: str | None = None

    def arguments(self) -> list[str]:
        """Return the command line of the engine, after the interpreter."""
        arguments = [
            "-m",
            "velox_core.cli",
            "run",
            "--json",
            "--config",
            str(self.config),
            "--date",
            self.trading_date.isoformat(),
        ]
        if self.speed is not None:
            arguments += ["--speed", "max" if self.speed == 0.0 else repr(self.speed)]
        if self.data is not None:
            arguments += ["--data", str(self.data)]
        if self.scenario is not None:
            arguments += ["--scenario", self.scenario]
        return arguments


class EngineProcess:
    """One engine that was started here."""

    def __init__(self, process: subprocess.Popen[bytes], output: Path, settings: Settings, paths: Paths) -> None:
        self.pid = process.pid
        self.output = output
        self._process = process
        self._settings = settings
        self._paths = paths
        self._started_ms = time.time_ns() // 1_000_000
        self._folder: Path | None = None

    def status(self) -> Status | None:
        """Return what the engine last published, or None while it has not."""
        if self._folder is not None:
            folders = [self._folder]
        else:
            folders = account_folders(
                self._paths.var, broker_type=self._settings.broker.type.value, account=self._settings.account
            )
        found = status_of_process(folders, pid=self.pid, since_wall_ms=0 if self._folder else self._started_ms - 1_000)
        if found is not None:
            self._folder = found.folder
        return found

    @property
    def run_folder(self) -> Path | None:
        """Return the run's folder, None while the engine has not published."""
        if self._folder is None:
            self.status()
        return self._folder

    def exit_code(self) -> int | None:
        """Return the exit code, None while the engine runs; negative when a signal ended it."""
        return self._process.poll()

    def wait(self, seconds: float) -> int | None:
        """Wait for the end within a bound and return the exit code, None when it still runs."""
        try:
            return self._process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            return None

    def cause(self) -> str:
        """Return why the engine failed, as it said itself, '' when it said nothing: fault, halt, or its error message."""
        summary = (read_summary(self.run_folder) if self.run_folder is not None else None) or {}
        status = self.status()
        halted = status.text("halt_reason") if status is not None and status.flag("halted") else ""
        return str(summary.get("fault") or "") or halted or _error_message(last_lines(self.output, OUTPUT_LINES_SHOWN))


def _error_message(lines: list[str]) -> str:
    """Return the message that a command ends with, from its mark to the end; the report in JSON is none."""
    starts = [number for number, line in enumerate(lines) if line.startswith(MESSAGE_MARK)]
    return "\n".join(lines[starts[-1] :]).removeprefix(MESSAGE_MARK) if starts else ""


def start_engine(settings: Settings, paths: Paths, request: EngineRequest, environ: Mapping[str, str]) -> EngineProcess:
    """Start the engine in a session of its own. Raises VeloxError when it cannot be started."""
    output = output_file(paths, f"engine-{request.trading_date.isoformat()}")
    try:
        with output.open("wb") as sink:
            process = subprocess.Popen(
                [sys.executable, *request.arguments()],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=dict(environ),
            )
    except OSError as error:
        raise VeloxError(f"the engine cannot be started: {error}") from error
    leave_engine(paths, process.pid)
    return EngineProcess(process, output, settings, paths)


def output_file(paths: Paths, name: str) -> Path:
    """Return a file below `var/output` for what this process prints; its folder exists. Raises VeloxError."""
    folder = paths.var / "output"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise VeloxError(f"{folder} cannot be made: {error}. Make it writable, or set VELOX__VAR.") from error
    return folder / f"{name}-{os.getpid()}.log"


def engine_failure(exit_code: int, cause: str) -> VeloxError | None:
    """Return the error that an engine's exit code stands for, None when it is done. `cause` as `EngineProcess.cause`."""
    if exit_code == EXIT_DONE:
        return None
    why = f": {cause}" if cause else ""
    if exit_code == EXIT_NOT_FLAT:
        return NotFlatError(f"the engine ended with open positions or working orders{why}")
    ended = f"signal {-exit_code}" if exit_code < 0 else f"exit code {exit_code}"
    error = VeloxError(f"the engine ended with {ended}{why}")
    error.exit_code = exit_code if exit_code > 0 else 1
    return error
