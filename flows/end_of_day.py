"""end_of_day: prove flat, keep the summary, reset the emergency state, report. Re-runnable for a past date.

Not flat: the reset is refused and the exit code is 4, but summary and report are still made.
"""

from __future__ import annotations

from typing import Any

from prefect import flow

from flows.guards import Session, reason_not_to_start
from flows.parameters import Scenario, day_request, open_flow_day, run_name
from tasks.report import keep_summary, show_summary
from tasks.retention import prune_prefect
from tasks.session import close_day, find_session, require_flat


@flow(name="end-of-day", flow_run_name=run_name("end-of-day"), retries=0, persist_result=False)
async def end_of_day(
    config: str = "",
    date: str = "",
    data: str = "",
    scenario: Scenario = "",
    session: Session = "any",
) -> Any:
    """Close the books of a day.

    Args:
        config: configuration file; empty is config/system_simulated.yaml.
        date: trading date, as 2024-01-15; empty is the newest in the data, today for a live broker.
        data: file or folder of one-minute bars that the day was traded on; empty is the configured one.
        scenario: synthetic data that the day was traded on, if it was.
        session: set by schedules: run on ordinary sessions only, or on special ones only; any for a run by hand.
    """
    day = open_flow_day(day_request(config, date, data=data, scenario=scenario))
    ended = reason_not_to_start(day, "end_of_day", session)
    if ended is not None:
        return ended
    recorded = find_session(day)
    proof = close_day(day, recorded)
    report = keep_summary(day, recorded, proof)
    page = await show_summary(day, recorded, report)
    await prune_prefect(day)
    require_flat(proof)
    return {**report, "page": page}


if __name__ == "__main__":
    from flows.command import run_flow

    run_flow(end_of_day)
