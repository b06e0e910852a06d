"""end_of_day: the steps of `velox eod`, each a task run; re-runnable for a past date, and then only what is left is done.

Not flat: the reset is refused and the exit code is 4; summary, backup, archive and report are still made.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any, Final

from flows.guards import Session, failed, reason_not_to_start
from flows.parameters import Scenario, day_request, open_flow_day, run_name
from flows.policy import flow
from tasks.evening import do_steps, find_session
from tasks.report import show_summary
from tasks.retention import prune_prefect
from velox_core.operations.evening import open_evening

TOLD: Final[ContextVar[dict[str, Any] | None]] = ContextVar("told", default=None)
"""Filled with the report, for a flow of this process: a state that the API had to be asked for a second time has none."""


@flow(name="end-of-day", flow_run_name=run_name("end-of-day"))
async def end_of_day(
    config: str = "",
    date: str = "",
    data: str = "",
    scenario: Scenario = "",
    session: Session = "any",
    again: bool = False,
) -> Any:
    """Close the books of a day.

    Args:
        config: configuration file; empty is config/system_simulated.yaml.
        date: trading date, as 2024-01-15; empty is the newest in the data, today for a live broker.
        data: file or folder of one-minute bars that the day was traded on; empty is the configured one.
        scenario: synthetic data that the day was traded on, if it was.
        session: set by schedules: run on ordinary sessions only, or on special ones only; any for a run by hand.
        again: do the steps that are done already, too.
    """
    day = open_flow_day(day_request(config, date, data=data, scenario=scenario))
    ended = reason_not_to_start(day, "end_of_day", session)
    if ended is not None:
        return ended
    recorded = find_session(day)
    with open_evening(day, recorded, again=again) as work:
        done = do_steps(work)
    page = await show_summary(work, done)
    await prune_prefect(day)
    if done.failure is not None:
        return failed(done.state_name, done.failure)
    report = {**done.report, "page": page, "steps": [result.to_json() for result in done.results]}
    told = TOLD.get()
    if told is not None:
        told.update(report)
    return report


if __name__ == "__main__":
    from flows.command import run_flow

    run_flow(end_of_day)
