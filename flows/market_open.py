"""market_open: checklist, a person's yes where the configuration asks for it, then the day pass.

A refused item, a no or no answer fails the flow, and nothing is armed.
"""

from __future__ import annotations

from typing import Any

from flows.guards import Session, reason_not_to_start
from flows.parameters import Scenario, day_request, open_flow_day, run_name
from flows.policy import flow
from tasks.approval import ask_approval
from tasks.checklist import arm, check_all, show_checklist


@flow(name="market-open", flow_run_name=run_name("market-open"))
async def market_open(
    config: str = "",
    date: str = "",
    data: str = "",
    scenario: Scenario = "",
    session: Session = "any",
) -> Any:
    """Check that the day may be traded, and arm it.

    Args:
        config: configuration file; empty is config/system_simulated.yaml.
        date: trading date, as 2024-01-15; empty is the newest in the data, today for a live broker.
        data: file or folder of one-minute bars; empty is the configured one.
        scenario: synthetic data instead of a file.
        session: set by schedules: run on ordinary sessions only, or on special ones only; any for a run by hand.
    """
    day = open_flow_day(day_request(config, date, data=data, scenario=scenario))
    ended = reason_not_to_start(day, "market_open", session)
    if ended is not None:
        return ended
    results = await check_all(day)
    await show_checklist(day, results)
    ended = await ask_approval(day, results)
    if ended is not None:
        return ended
    return arm(day, results)


if __name__ == "__main__":
    from flows.command import run_flow

    run_flow(market_open)
