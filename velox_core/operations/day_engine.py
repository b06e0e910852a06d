"""What there is of a day's engine: it works, it starts, it ended, it died, or there has been none.

- A living engine is the holder of the run's kernel lock (host, process id, start), never a guess from a status or an id.
- It can be watched once it publishes: then its status names the very process that has the lock.
- An engine that a watcher started holds an inherited lock from its first moment to its last: so it is known before it has
  taken its run, and while it writes its report.
- How an engine ended is its own last word (`end.json`); without one of its process it died without a word.
- Reads folders and locks only, and takes none.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from velox_core.domain.errors import VeloxError
from velox_core.domain.halts import active_halts
from velox_core.domain.scope import Scope
from velox_core.engine_lock import ENGINE_LOCK, LockView
from velox_core.halt_file import HALT_FILE, JsonLinesHaltFile
from velox_core.operations.closing import with_closing
from velox_core.operations.day import Day
from velox_core.operations.engine_end import EngineEnd, moment, read_end
from velox_core.operations.processes import lives
from velox_core.operations.status import Status, read_status
from velox_core.operations.watch import WatchEnd, start_lock, unseen_watches, watches_of
from velox_core.ports import LockHolder
from velox_core.runs import RunState, existing_numbers, read_state, run_folder
from velox_core.settings import Paths, Settings


class Stage(StrEnum):
    """How far a day's engine is.

    NONE: no run is under way, one may be begun. SPEAKS: it works and can be watched. SILENT: a process has the run or is
    being started, and has not spoken yet. UNFINISHED: its run has to be taken up again by another engine. HALTED, ENDED:
    the day's session is over, flat.
    """

    NONE = "NONE"
    SPEAKS = "SPEAKS"
    SILENT = "SILENT"
    UNFINISHED = "UNFINISHED"
    HALTED = "HALTED"
    ENDED = "ENDED"


@dataclass(frozen=True, slots=True, kw_only=True)
class DayEngine:
    """What was found. `folder` is the run's; `holder` the process, None when nobody knows which; `text` says it for people."""

    stage: Stage
    text: str
    folder: Path | None = None
    holder: LockHolder | None = None

    @property
    def run_id(self) -> str:
        """Return the run, '' when none is known."""
        return "" if self.folder is None else self.folder.name


def look(day: Day) -> DayEngine:
    """Find the engine of a day. Raises VeloxError when the kernel does not say who has a lock, or another host has it."""
    folders = run_folders(day)
    for folder in reversed(folders):
        holder = LockView(folder / ENGINE_LOCK).holder()
        if holder is not None:
            return _held(folder, holder)
    starting = LockView(start_lock(day.account_folder, day.run_stem)).holder()
    if starting is not None:
        known = starting if lives(starting) else None
        who = f"process {known.pid}" if known is not None else "a process"
        return DayEngine(stage=Stage.SILENT, text=f"{who} is the day's engine, starting or writing its report", holder=known)
    return DayEngine(stage=Stage.NONE, text="no run of the day is begun") if not folders else _unheld(day, folders[-1])


def run_folders(day: Day) -> list[Path]:
    """Return the folders of the day's runs, the newest last; a live day has one, its account's."""
    if day.wall_clock:
        return [day.account_folder]
    numbers = existing_numbers(day.paths.var, day.account, day.run_stem)
    return [run_folder(day.paths.var, day.account, f"{day.run_stem}-{number}").folder for number in numbers]


def _held(folder: Path, holder: LockHolder) -> DayEngine:
    if holder.host and holder.host != socket.gethostname():
        raise VeloxError(
            f"run {folder.name} is being traded on host {holder.host} (process {holder.pid}): an account has one host. "
            "Start the flow there, or stop that engine with velox stop there"
        )
    status = read_status(folder)
    if status is not None and _speaker(status) == holder:
        text = f"the engine of run {folder.name}, process {holder.pid}"
        return DayEngine(stage=Stage.SPEAKS, text=text, folder=folder, holder=holder)
    text = f"process {holder.pid} has run {folder.name} and has not spoken yet"
    return DayEngine(stage=Stage.SILENT, text=text, folder=folder, holder=holder if lives(holder) else None)


def _unheld(day: Day, folder: Path) -> DayEngine:
    status, state = read_status(folder), read_state(folder)
    if status is not None and lives(_speaker(status)):
        text = f"process {status.number('pid')} has ended run {folder.name} and writes its report"
        return DayEngine(stage=Stage.SILENT, text=text, folder=folder, holder=_speaker(status))
    if state is RunState.NEW or (state is RunState.CLOSED and not day.wall_clock) or _is_of_another_day(day, status, state):
        return DayEngine(stage=Stage.NONE, text="no run of the day is under way")
    return DayEngine(stage=_stage(folder, state, status), text=how_it_ended(folder), folder=folder)


def _is_of_another_day(day: Day, status: Status | None, state: RunState) -> bool:
    """Return whether what ended in a live account's one folder ended on another date.

    What did not end, or ended halted, is today's business whatever its date.
    """
    if not day.wall_clock or status is None or state not in (RunState.ENDED, RunState.CLOSED):
        return False
    return status.text("trading_date") not in ("", day.trading_date.isoformat())


def _stage(folder: Path, state: RunState, status: Status | None) -> Stage:
    if state in (RunState.ENDED, RunState.CLOSED):
        return Stage.ENDED
    closed = {} if status is None else with_closing(status).closing
    is_flat = state is RunState.ENDED_HALTED or closed.get("flat") is True
    if is_flat and active_halts(JsonLinesHaltFile(folder / HALT_FILE).records()):
        return Stage.HALTED
    return Stage.UNFINISHED


def how_it_ended(folder: Path) -> str:
    """Return how the newest engine of a run ended, for people; '' while it works, and when none has ever spoken."""
    status, end = read_status(folder), own_end(folder)
    if status is None:
        return "" if end is None else f"the engine of run {folder.name} (process {end.pid}) {end.text}"
    if end is None and lives(_speaker(status)):
        return ""
    return f"the engine of run {folder.name} (process {status.number('pid')}) {_ended(status, end)}"


def watch_lines(settings: Settings, paths: Paths, folder: Path) -> list[str]:
    """Return who watches a run's engine, or which flow runs could not see it through and how it ended; empty for none."""
    account = paths.var / Scope(broker_type=settings.broker.type.value, account=settings.account).folder
    status = read_status(folder)
    stem = folder.name.rpartition("-")[0] if folder != account else "" if status is None else status.text("trading_date")
    watches = watches_of(account, stem)
    if watches and watches[-1].ended is WatchEnd.WATCHING:
        return [watches[-1].sentence]
    unseen = [watch for watch in unseen_watches(account, stem) if watch.run_id in ("", folder.name)]
    if not unseen:
        return []
    ended = how_it_ended(folder) or "the engine works on; the next intraday run attaches to it"
    return [*(watch.sentence for watch in unseen), ended]


def own_end(folder: Path) -> EngineEnd | None:
    """Return the last word of the engine that spoke last in a run's folder, None when it left none."""
    status, end = read_status(folder), read_end(folder)
    return end if end is not None and (status is None or end.is_of(_speaker(status))) else None


def _ended(status: Status, end: EngineEnd | None) -> str:
    since = with_closing(status).closing
    closed = f"; since then {since.get('message', '')}" if since else ""
    if end is not None:
        return end.text + closed
    if status.ended:
        return f"came to its end ({status.state}) at {moment(status.number('wall_ms'))} and died before its last word{closed}"
    names = ", ".join(f"{position.get('quantity', '?')} {position.get('symbol', '?')}" for position in status.positions)
    held = "" if closed else f", with {names or 'nothing'} open by its last status"
    return f"died without a word, last heard of at {moment(status.number('wall_ms'))}{held}{closed}"


def _speaker(status: Status) -> LockHolder:
    """Return the process that wrote a status. Of an older version's, which names no start, nobody is."""
    return LockHolder(host=socket.gethostname(), pid=status.number("pid"), started=status.text("started"))
