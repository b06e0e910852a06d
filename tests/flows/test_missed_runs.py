"""A machine that was off for three days."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prefect import get_client
from prefect.flow_engine import run_flow
from prefect.states import Scheduled

from flows.end_of_day import end_of_day
from flows.intraday import intraday
from flows.market_open import market_open


def named(state: Any) -> str:
    return f"{state.type.value} {state.name}"


@pytest.mark.slow
@pytest.mark.anyio
async def test_after_three_days_off_the_missed_runs_do_nothing_and_one_by_hand_runs(var: Path, config: Path) -> None:
    """Each missed run of three days and of the morning comes when the machine is back; all at once, as Prefect starts them."""
    now = datetime.now(UTC)
    missed = [now - timedelta(days=days) for days in (3, 2, 1)] + [now - timedelta(hours=5)]
    flows = {market_open: missed, intraday: missed, end_of_day: missed[:3]}  # the day's own end is not late yet
    async with get_client() as client:
        for flow, times in flows.items():
            for due in times:
                run = await client.create_flow_run(
                    flow, parameters={"config": str(config)}, state=Scheduled(scheduled_time=due)
                )
                state: Any = await run_flow(flow, flow_run=run, parameters=run.parameters, return_type="state")
                assert named(state) == "CANCELLED TooLate"
    assert not (var / "output").exists()
    assert not (var / "replay").exists()
    assert not (var / "simulated").exists()
    by_hand = await intraday(config=str(config), return_state=True)
    assert named(by_hand) == "FAILED NoDayPass"  # not too late: it is the pass that it has not got
