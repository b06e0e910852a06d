"""The trading session seen from a flow: needs a pass, starts the engine, relays it, stops it, and proves the account flat.

- A stop that is asked for before the engine can be reached starts no engine, or is handed to it as soon as it publishes.
- Relaying never stops the day: a UI that does not answer costs a progress line, nothing else.
- The wait after a cancel is shorter than the time Prefect leaves a cancelled process.
"""

from __future__ import annotations

import asyncio
import os
from typing import Final
from uuid import UUID

import httpx
from prefect import get_run_logger
from prefect.artifacts import acreate_progress_artifact, aupdate_progress_artifact
from prefect.exceptions import PrefectException

from tasks.events import emit_reset
from tasks.policy import once
from velox_core.domain.errors import EXIT_OPERATING_ERROR, HaltedError, NotFlatError, VeloxError
from velox_core.logs import LOG_FILES
from velox_core.operations import eod
from velox_core.operations.day import Day
from velox_core.operations.day_pass import check_day_pass
from velox_core.operations.engine_process import EngineProcess, EngineRequest, engine_failure, start_engine
from velox_core.operations.handover import stop_wanted
from velox_core.operations.log_tail import LogTail
from velox_core.operations.recorded import RecordedRun
from velox_core.operations.run_logs import logs_folder
from velox_core.operations.stop import request_engine_stop
from velox_core.operations.view import progress_line

POLL_SECONDS: Final = 0.25
REPLAY_LINE_SECONDS: Final = 5.0
LIVE_LINE_SECONDS: Final = 60.0
LOG_LINES_MAX: Final = 200
CANCEL_WAIT_SECONDS: Final = 25.0  # Prefect kills a cancelled process after 30 s
STOP_REASON: Final = "Ctrl-C in velox day"
PROGRESS_KEY: Final = "intraday-progress"


@once("need-day-pass")
def need_day_pass(day: Day) -> None:
    """Refuse to go on without the day's pass for this configuration."""
    reason = check_day_pass(day.settings, day.paths, day.trading_date)
    if reason:
        raise HaltedError(reason)


@once("launch-engine")
def launch_engine(day: Day) -> EngineProcess:
    """Start the engine in a session of its own, unless the day was asked to end before."""
    if stop_wanted(day.paths):
        raise VeloxError(f"the day was ended ({STOP_REASON}) before its engine was started: nothing was traded")
    request = EngineRequest(
        config=day.settings.source,
        trading_date=day.trading_date,
        speed=day.request.speed,
        data=day.request.data,
        scenario=day.request.scenario,
    )
    return start_engine(day.settings, day.paths, request, os.environ)


async def relay(day: Day, engine: EngineProcess) -> None:
    """Show in the flow run's log and progress bar what the engine says, until it ends."""
    logger = get_run_logger()
    logger.info("engine started as process %s, output in %s", engine.pid, engine.output)
    logs = logs_folder(day.settings, day.paths)
    tail = LogTail(logs / name for name in LOG_FILES.values())
    artifact = await _start_progress(day)
    every = LIVE_LINE_SECONDS if day.wall_clock else REPLAY_LINE_SECONDS
    clock = asyncio.get_running_loop().time
    due = clock() + 1.0
    handed_on = False
    while engine.exit_code() is None:
        await asyncio.sleep(POLL_SECONDS)
        handed_on = handed_on or hand_stop_on(day, engine)
        if clock() >= due:
            due = clock() + every
            await _tell(engine, tail, artifact)
    await _tell(engine, tail, artifact)
    if tail.skipped_lines:
        logger.info("%s more log lines are in %s", tail.skipped_lines, logs)


def hand_stop_on(day: Day, engine: EngineProcess) -> bool:
    """Hand a stop that came before the engine could be reached to it. Returns whether that was done; else try again."""
    if not stop_wanted(day.paths) or engine.run_folder is None:
        return False
    try:
        request_engine_stop(engine.run_folder, by="velox day", reason=STOP_REASON)
    except VeloxError as error:
        get_run_logger().error("the stop request could not be left: %s", error)
        return False
    return True


async def _tell(engine: EngineProcess, tail: LogTail, artifact: UUID | None) -> None:
    logger = get_run_logger()
    for line in tail.new_lines(LOG_LINES_MAX):
        logger.info(line)
    status = engine.status()
    if status is None:
        return
    logger.info(progress_line(status))
    if artifact is not None:
        try:
            await aupdate_progress_artifact(
                artifact, progress=round(status.progress * 100, 1), description=progress_line(status)
            )
        except (PrefectException, httpx.HTTPError) as error:
            logger.warning("the progress bar could not be moved: %s", error)


async def _start_progress(day: Day) -> UUID | None:
    try:
        return await acreate_progress_artifact(progress=0.0, key=PROGRESS_KEY, description=day.label)
    except (PrefectException, httpx.HTTPError) as error:
        get_run_logger().warning("there is no progress bar: %s", error)
        return None


async def ask_to_stop(engine: EngineProcess, reason: str) -> None:
    """Ask the engine to stop and wait for its end within a bound; what is left, it finishes on its own."""
    logger = get_run_logger()
    if engine.run_folder is None:
        logger.error("the engine has not said where it runs; velox stop reaches it once it has")
        return
    try:
        request_engine_stop(engine.run_folder, by="intraday flow", reason=reason)
    except VeloxError as error:
        logger.error("the stop request could not be left: %s", error)
        return
    code = await asyncio.to_thread(engine.wait, CANCEL_WAIT_SECONDS)
    logger.info("engine still stops on its own" if code is None else f"engine ended with exit code {code}")


@once("session-result")
def read_session(engine: EngineProcess) -> str:
    """Return the run's id, or raise what the engine's exit code stands for."""
    code = engine.wait(CANCEL_WAIT_SECONDS)
    failure = engine_failure(EXIT_OPERATING_ERROR if code is None else code, engine.cause())
    if failure is not None:
        raise failure
    return engine.run_folder.name if engine.run_folder is not None else ""


@once("find-session")
def find_session(day: Day) -> RecordedRun:
    """Find the newest run of the day."""
    return eod.find_session(day)


@once("close-day")
def close_day(day: Day, session: RecordedRun) -> eod.FlatProof:
    """Ask the broker what it holds, and clear the date's halts when it says flat. What fails here becomes 'not flat'."""
    logger = get_run_logger()
    try:
        proof, cleared = eod.close_day(day, session)
    except VeloxError as error:
        logger.error("the day could not be closed: %s", error)
        return eod.not_closed(error)
    logger.info("%s; halts cleared: %s", proof.text, ", ".join(cleared) or "none")
    emit_reset(day, cleared, reason=eod.RESET_REASON, by=eod.RESET_BY, run_id=session.folder.name)
    return proof


@once("require-flat")
def require_flat(proof: eod.FlatProof) -> None:
    """Fail the day when the broker does not say flat."""
    if not proof.flat:
        raise NotFlatError(f"the day is not over: {proof.text}. The emergency state was not reset. {proof.remedy}")
