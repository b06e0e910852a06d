"""The end of a day seen from a flow: one task run for each step, named after it; its state's name says how the step ended."""

from __future__ import annotations

import logging
from typing import Any, Final

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed
from prefect.utilities.annotations import quote

from tasks.events import emit_backup, emit_proven_flat, emit_reset
from tasks.policy import once
from tasks.session import untold
from tasks.summary import summary_logger
from velox_core.operations import eod
from velox_core.operations.day import Day
from velox_core.operations.eod import RESET_BY, RESET_REASON
from velox_core.operations.eod_record import StepResult, StepState
from velox_core.operations.eod_steps import STEPS, Evening, Step
from velox_core.operations.evening import EveningOutcome, outcome, run_step
from velox_core.operations.recorded import RecordedRun

STATE_NAMES: Final = {
    StepState.DONE: "Done",
    StepState.ALREADY_DONE: "AlreadyDone",
    StepState.UNVERIFIED: "Unverified",
    StepState.REFUSED: "Refused",
    StepState.FAILED: "Failed",
    StepState.BLOCKED: "Blocked",
}


@once("find-session")
def find_session(day: Day) -> RecordedRun:
    """Find the newest run of the day, and tell what no flow run could tell of it."""
    session = eod.find_session(day)
    for line in untold(day, session):
        summary_logger().warning(line)
    return session


@task(name="end-of-day-step", retries=0, cache_policy=NO_CACHE, persist_result=False)
def eod_step(work: Evening, step: Step) -> State[Any]:
    """Do one step. What depends on it looks at the record, so that a failed task run fails nothing else."""
    result = run_step(work, step)
    state = Completed if result.is_done else Failed
    return state(name=STATE_NAMES[result.state], message=result.text)


def do_steps(work: Evening) -> EveningOutcome:
    """Do every step, each as its own task run, also after one has failed."""
    for step in STEPS:
        named: Any = eod_step.with_options(name=step.name, task_run_name=step.name)
        named(quote(work), quote(step), return_state=True)  # see tasks.policy
        _tell(work, work.results.get(step.name))
    return outcome(work)


def _tell(work: Evening, result: StepResult | None) -> None:
    if result is None or result.state is StepState.ALREADY_DONE:
        return
    summary_logger().log(
        logging.INFO if result.is_done else logging.ERROR, "%s %s: %s", result.step, result.state.value.lower(), result.text
    )
    run_id = work.recorded.folder.name
    if result.step == "reset" and result.is_done:
        cleared = [str(halt_id) for halt_id in result.data.get("cleared", [])]
        emit_reset(work.day, cleared, reason=RESET_REASON, by=RESET_BY, run_id=run_id)
    if result.step == "backup" and "name" in result.data:
        emit_backup(work.day, str(result.data["name"]), verified=result.is_done, message=result.text)
    if result.step == "summary" and result.is_done and work.done("flat"):
        emit_proven_flat(work.day, net_paise=int(result.data["net_paise"]), run_id=run_id)
