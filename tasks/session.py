"""The trading session seen from a flow: watch it, find or start its engine, relay it, stop it.

- One living flow process watches a day's engine; whether it lives is known by a kernel lock, not by Prefect's states.
- An engine that works is attached to, whoever started it. Only when there is none is one started.
- A stop that is asked for before the engine can be reached starts no engine, or waits for the engine's process.
- Relaying never stops the day: a UI that does not answer costs a progress line, nothing else.
- Only a cancel stops the engine: a signal that ends this process, without one, leaves it trading.
- The wait after a cancel is shorter than the time Prefect leaves a cancelled process.
"""

from __future__ import annotations

import asyncio
import os
from typing import Final
from uuid import UUID

import prefect.runtime

from tasks.artifacts import move_progress, start_progress
from tasks.events import emit_end, emit_news
from tasks.own_state import OwnState, was_cancelled
from tasks.policy import once
from tasks.summary import summary_logger, worth_telling
from velox_core.domain.errors import VeloxError
from velox_core.engine_lock import ProcessLock, own_holder
from velox_core.logs import LOG_FILES
from velox_core.operations.day import Day
from velox_core.operations.day_engine import DayEngine, Stage, how_it_ended, look, watch_lines
from velox_core.operations.day_pass import check_day_pass
from velox_core.operations.engine_process import EngineProcess, EngineRequest, engine_failure, start_engine
from velox_core.operations.engine_unit import engine_unit, start_unit
from velox_core.operations.handover import leave_engine, stop_wanted
from velox_core.operations.log_tail import LogTail
from velox_core.operations.recorded import RecordedRun
from velox_core.operations.run_logs import logs_folder
from velox_core.operations.status import Status
from velox_core.operations.view import progress_line
from velox_core.operations.watch import DayWatch, WatchEnd, start_lock, take_watch, watches_of
from velox_core.ports import LockHolder

POLL_SECONDS: Final = 0.25
REPLAY_POLL_SECONDS: Final = 0.05
REPLAY_LINE_SECONDS: Final = 5.0
LIVE_LINE_SECONDS: Final = 60.0
LOG_LINES_MAX: Final = 200
CANCEL_WAIT_SECONDS: Final = 25.0  # Prefect kills a cancelled process after 30 s
STATE_WAIT_SECONDS: Final = 20.0  # of it: so long a busy API may take to say whether somebody cancelled
SPEAK_SECONDS_MAX: Final = 120.0  # so long a process may have the day's run without a word
STOP_REASON: Final = "Ctrl-C in velox day"


class FlowCancelled(Exception):
    """Somebody cancelled this flow run, and Prefect's own notice of it did not come."""


def watch_day(day: Day) -> DayWatch | None:
    """Become the watcher of the day's engine, or None when another living process is."""
    run = prefect.runtime.flow_run
    return take_watch(day.account_folder, day.run_stem, flow_run=str(run.name), flow_run_id=str(run.id))


def watcher_of(day: Day) -> str:
    """Return who watches the day's engine, for people."""
    watches = watches_of(day.account_folder, day.run_stem)
    return watches[-1].sentence if watches else "by a process that left no name"


@once("find-engine")
async def find_engine(day: Day, watch: DayWatch) -> DayEngine:
    """Find the day's engine; one that has not spoken yet is waited for, within a bound."""
    clock = asyncio.get_running_loop().time
    until = clock() + SPEAK_SECONDS_MAX
    while True:
        found = look(day)
        if found.holder is not None:
            watch.watches_over(found.holder)
        if found.stage is not Stage.SILENT:
            return found
        if clock() >= until:
            raise VeloxError(
                f"{found.text}, for {SPEAK_SECONDS_MAX:.0f} s: nothing was started. It hangs? Look at it with velox status; "
                "velox run --take-over ends it and takes the run"
            )
        await asyncio.sleep(POLL_SECONDS)


def why_no_pass(day: Day) -> str:
    """Return why the day may not be traded with this configuration, '' when it may."""
    return check_day_pass(day.settings, day.paths, day.trading_date)


def earlier_watches(watch: DayWatch) -> str:
    """Return which flow runs before this one could not see the day through, '' for none."""
    return "; ".join(earlier.sentence for earlier in watch.unseen)


@once("launch-engine")
def launch_engine(day: Day, found: DayEngine, watch: DayWatch, no_pass: str) -> EngineProcess:
    """Attach to the engine that was found, else start one, unless the day was asked to end before."""
    logger = summary_logger()
    for earlier in watch.unseen:
        logger.warning("%s; the engine went on", earlier.sentence)
    if found.stage is Stage.SPEAKS and found.holder is not None:
        logger.info("attached to %s", found.text)
        leave_engine(day.paths, found.holder.pid)
        return EngineProcess(found.holder, day.settings, day.paths, folder=found.folder)
    if stop_wanted(day.paths):
        raise VeloxError(f"the day was ended ({STOP_REASON}) before its engine was started: nothing was traded")
    if found.stage is Stage.UNFINISHED:
        exits = f"; there is no valid day pass, so it makes no entry ({no_pass})" if no_pass else ""
        logger.warning("%s; another engine takes the run up again%s", found.text, exits)
    watch.is_starting = True
    engine = _start(day, no_pass)
    watch.watches_over(engine.holder)
    logger.info("engine started as process %s%s", engine.pid, f", output in {engine.output}" if engine.output else "")
    return engine


def _start(day: Day, no_pass: str) -> EngineProcess:
    request = EngineRequest(
        config=day.settings.source,
        trading_date=day.trading_date,
        speed=day.request.speed,
        data=day.request.data,
        scenario=day.request.scenario,
        exits_only=no_pass,
    )
    if engine_unit(os.environ):
        engine = start_unit(day.settings, day.paths, day.account_folder, request, os.environ)
        leave_engine(day.paths, engine.pid)
        return engine
    lock = ProcessLock(start_lock(day.account_folder, day.run_stem))
    try:
        if not lock.take():
            raise VeloxError("another process is starting the day's engine: nothing was started; start intraday again")
        return start_engine(day.settings, day.paths, request, os.environ, lock, is_replay=not day.wall_clock)
    finally:
        lock.close()


async def relay(day: Day, engine: EngineProcess, watch: DayWatch) -> None:
    """Show in the flow run's log and progress bar what the engine says, until it ends.

    Raises: FlowCancelled when the API says that somebody cancelled this run.
    """
    logger = summary_logger()
    logs = logs_folder(day.settings, day.paths)
    tail = LogTail(logs / name for name in LOG_FILES.values())
    artifact = await start_progress(day.settings, day.label)
    every, poll = (LIVE_LINE_SECONDS, POLL_SECONDS) if day.wall_clock else (REPLAY_LINE_SECONDS, REPLAY_POLL_SECONDS)
    clock = asyncio.get_running_loop().time
    due = clock() + 1.0
    handed_on, own, before = False, OwnState(), None
    try:
        while not engine.has_ended():
            await asyncio.sleep(poll)
            if own.cancelled():
                raise FlowCancelled
            before = _tell_news(day, engine, before)
            handed_on = handed_on or hand_stop_on(day, engine)
            watch.seen(engine.run_folder.name if engine.run_folder is not None else "")
            if clock() >= due:
                due = clock() + every
                await _tell(engine, tail, artifact)
    finally:
        await own.close()
    _tell_news(day, engine, before)
    await _tell(engine, tail, artifact)
    if tail.skipped_lines:
        logger.info("%s more log lines are in %s", tail.skipped_lines, logs)
    if watch.trouble:
        logger.warning("that this flow watches the engine could not be noted: %s", watch.trouble)


def hand_stop_on(day: Day, engine: EngineProcess) -> bool:
    """Hand a stop that came before the engine could be reached to it. Returns whether that was done; else try again."""
    if not stop_wanted(day.paths):
        return False
    try:
        engine.request_stop(by="velox day", reason=STOP_REASON)
    except VeloxError as error:
        summary_logger().error("the stop request could not be left: %s", error)
        return False
    return True


def _tell_news(day: Day, engine: EngineProcess, before: Status | None) -> Status | None:
    """Tell what changed since the status before, and return the newest one."""
    now = engine.status()
    if now is not None and now != before:
        for line in emit_news(day, before, now):
            summary_logger().info(line)
    return before if now is None else now


async def _tell(engine: EngineProcess, tail: LogTail, artifact: UUID | None) -> None:
    logger = summary_logger()
    for line in worth_telling(tail.new_lines(LOG_LINES_MAX)):
        logger.info(line)
    status = engine.status()
    if status is None:
        return
    logger.info(progress_line(status))
    await move_progress(artifact, status.progress, progress_line(status))


async def leave_engine_or_stop(day: Day, watch: DayWatch, reason: str) -> None:
    """Do what the end of this process means: ask the engine to stop when the run was cancelled, else let it trade on."""
    clock = asyncio.get_running_loop().time
    until = clock() + CANCEL_WAIT_SECONDS
    if await was_cancelled(STATE_WAIT_SECONDS):
        await ask_to_stop(day, watch, reason, wait_seconds=max(0.0, until - clock()))
        return
    watch.end(WatchEnd.ENDED_BEFORE)
    summary_logger().warning(
        "this process is ended and the run was not cancelled: the engine trades on. The next intraday run attaches to it; "
        "velox stop asks it to stop"
    )


async def ask_to_stop(day: Day, watch: DayWatch, reason: str, *, wait_seconds: float = CANCEL_WAIT_SECONDS) -> None:
    """Ask the watched engine to stop and wait for its end within a bound; what is left, it finishes on its own."""
    watch.end(WatchEnd.CANCELLED)
    logger = summary_logger()
    clock = asyncio.get_running_loop().time
    until = clock() + wait_seconds
    try:
        process = await _engine_to_stop(day, watch, wait_seconds)
        if process is None:
            logger.info("there is no engine to stop: nothing was started")
            return
        watch.watches_over(process)
        engine = EngineProcess(process, day.settings, day.paths)
        engine.request_stop(by="intraday flow", reason=reason)
    except VeloxError as error:
        logger.error("the engine was not asked to stop: %s. Ask it: velox stop", error)
        return
    ended = await asyncio.to_thread(engine.wait, max(0.0, until - clock()))
    word = how_it_ended(engine.run_folder) if ended and engine.run_folder is not None else ""
    logger.info("%s", word or f"process {engine.pid} still stops on its own")
    if ended:
        watch.end(WatchEnd.SAW_THE_END)


async def _engine_to_stop(day: Day, watch: DayWatch, seconds: float) -> LockHolder | None:
    """Return the engine to stop, None when there is none and none comes.

    A cancel may come while the engine's start is under way: whoever was started is known when it has its run, so it is
    waited for. Raises VeloxError when it is not known in time.
    """
    clock = asyncio.get_running_loop().time
    until = clock() + seconds
    while watch.engine is None or watch.engine == own_holder():
        found = look(day)
        if found.holder is not None and found.holder != own_holder():
            return found.holder
        if found.stage is not Stage.SILENT and not watch.is_starting:
            return None
        if clock() >= until:
            raise VeloxError(f"one may just be starting, and it was not found within {seconds:.0f} s")
        await asyncio.sleep(POLL_SECONDS)
    return watch.engine


@once("session-result")
def read_session(day: Day, engine: EngineProcess, watch: DayWatch) -> str:
    """Return the run's id, or raise what the engine's end stands for."""
    watch.end(WatchEnd.SAW_THE_END)
    outcome = engine.outcome()
    emit_end(day, engine.status(), outcome.exit_code, cause=outcome.cause)
    failure = engine_failure(outcome)
    if failure is not None:
        raise failure
    return engine.run_folder.name if engine.run_folder is not None else ""


def untold(day: Day, session: RecordedRun) -> list[str]:
    """Return what no flow run could tell: which could not see the run through, and how its engine ended then."""
    return watch_lines(day.settings, day.paths, session.folder)
