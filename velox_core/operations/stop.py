"""Asking a running engine to stop, from outside it.

- The request is left where the engine looks at least once a second; nothing is killed.
- What becomes of positions is the engine's `on_stop`; whether it ended is read from its process and its last status.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Final

from velox_core.control import FileControl, new_request
from velox_core.domain.errors import EXIT_DONE, EXIT_OPERATING_ERROR, VeloxError
from velox_core.operations.closing import with_closing
from velox_core.operations.dead_engine import dead_engines, take_over_command
from velox_core.operations.processes import is_alive, wrote_it
from velox_core.operations.status import Status, account_folders, newest_status, read_status
from velox_core.settings import Paths, Settings

POLL_SECONDS: Final = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class StopOutcome:
    """What came of a stop request."""

    run: str
    ended: bool
    exit_code: int
    sentence: str

    def to_json(self) -> dict[str, Any]:
        """Return the outcome as JSON values."""
        return {"run": self.run, "ended": self.ended, "exit_code": self.exit_code, "message": self.sentence}


def running_engine(settings: Settings, paths: Paths, *, on: date | None = None) -> Status | None:
    """Return the status of the account's engine, of a trading date or of any; None when none runs."""
    return newest_status([status.folder for status in running_engines(settings, paths)], on=on)


def running_engines(settings: Settings, paths: Paths) -> list[Status]:
    """Return the status of each engine of the account that runs."""
    folders = account_folders(paths.var, broker_type=settings.broker.type.value, account=settings.account)
    return [
        status
        for folder in folders
        if (status := read_status(folder)) is not None
        and not status.ended
        and wrote_it(status.number("pid"), status.number("wall_ms"))
    ]


def request_engine_stop(folder: Path, *, by: str, reason: str) -> None:
    """Leave a stop request for the engine of a run's folder. Raises VeloxError when it cannot be left."""
    FileControl(folder).request(new_request("stop", by=by, reason=reason))


def _nothing_to_stop(settings: Settings, paths: Paths) -> VeloxError:
    """Return why nothing can be stopped: no engine runs, or one died, which is no reason to be calm."""
    folders = account_folders(paths.var, broker_type=settings.broker.type.value, account=settings.account)
    dead = dead_engines(settings, folders)
    text = f"no engine of account {settings.account!r} runs: there is nothing to stop"
    if not dead:
        newest = newest_status(folders)
        ended = "" if newest is None else f". The newest run, {newest.folder.name}: {_last_word(newest.folder)}"
        return VeloxError(text + ended)
    error = VeloxError("\n".join([f"no engine of account {settings.account!r} runs", *(found.sentence for found in dead)]))
    error.exit_code = max(found.exit_code for found in dead)
    return error


def _chosen_engine(settings: Settings, paths: Paths, *, on: date | None, run_id: str | None) -> Status:
    """Return the engine that is meant. Raises VeloxError when none runs, or several do and none is named."""
    running = running_engines(settings, paths)
    meant = [
        status
        for status in running
        if (on is None or status.text("trading_date") == on.isoformat()) and run_id in (None, status.folder.name)
    ]
    if len(meant) == 1:
        return meant[0]
    if not running:
        raise _nothing_to_stop(settings, paths)
    names = ", ".join(status.folder.name for status in running)
    raise VeloxError(f"engines of the runs {names} run; nothing was stopped: name one of them with --run")


def request_stop(
    settings: Settings,
    paths: Paths,
    *,
    by: str,
    reason: str,
    on: date | None = None,
    run_id: str | None = None,
    wait_seconds: float,
) -> StopOutcome:
    """Ask the account's engine to stop, and wait for its end within a bound.

    Raises: VeloxError when none runs, or several do and neither a date nor a run names one of them.
    """
    status = _chosen_engine(settings, paths, on=on, run_id=run_id)
    run, pid = status.run_id or status.folder.name, status.number("pid")
    request_engine_stop(status.folder, by=by, reason=reason)
    until = time.monotonic() + wait_seconds
    while is_alive(pid) and time.monotonic() < until:
        time.sleep(POLL_SECONDS)
    if is_alive(pid):
        code = EXIT_DONE if wait_seconds == 0 else EXIT_OPERATING_ERROR
        sentence = f"run {run} was asked to stop and has not ended yet (process {pid})"
        if wait_seconds:
            sentence += f". It hangs? {take_over_command(settings, status)}"
        return StopOutcome(run=run, ended=False, exit_code=code, sentence=sentence)
    return StopOutcome(run=run, ended=True, exit_code=EXIT_DONE, sentence=f"run {run} has stopped: {_last_word(status.folder)}")


def _last_word(folder: Path) -> str:
    """Return how a run ended and what it left open, by the newest word."""
    last = read_status(folder)
    if last is None:
        return "without a last word"
    last = with_closing(last)
    held = f", {len(last.positions)} position{'s' * (len(last.positions) != 1)} open" if last.positions else ", nothing open"
    return f"{last.state}{held}" + (f"; {last.closing['message']}" if last.closing else "")
