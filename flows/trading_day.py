"""trading_day: market open, intraday, end of day, in order, for a replay date or for today."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, Final

from prefect.states import Cancelled, Completed

from flows.ahead import beside, import_quietly
from flows.guards import ALREADY_RUNNING, reason_not_to_start
from flows.intraday import intraday
from flows.market_open import market_open
from flows.parameters import Scenario, day_request, open_flow_day, run_name
from flows.policy import flow
from velox_core.domain.errors import VeloxError
from velox_core.operations.day import Day
from velox_core.operations.day_engine import look
from velox_core.operations.engine_standby import dismiss_engine

END_OF_DAY: Final = "flows.end_of_day"
POLL_SECONDS: Final = 0.25


@flow(name="trading-day", flow_run_name=run_name("trading-day"))
async def trading_day(
    config: str = "",
    date: str = "",
    speed: float | None = None,
    data: str = "",
    scenario: Scenario = "",
) -> Any:
    """Run a whole trading day.

    Args:
        config: configuration file; empty is config/system_simulated.yaml.
        date: trading date, as 2024-01-15; empty is the newest in the data, today for a live broker.
        speed: seconds of the session per second: 1.0 is true time, 0 does not wait; the default is the configuration's.
        data: file or folder of one-minute bars; empty is the configured one.
        scenario: synthetic data instead of a file.
    """
    day = open_flow_day(day_request(config, date, speed=speed, data=data, scenario=scenario))
    if day.wall_clock:
        dismiss_engine()
    ended = reason_not_to_start(day, "market_open")
    if ended is not None:
        return ended
    chosen = day.trading_date.isoformat()
    await market_open(config=config, date=chosen, data=data, scenario=scenario)
    getting_ready = beside(_get_end_of_day_ready(day))
    again = not day.wall_clock  # a replay that is asked for as a whole day is a run of its own
    try:
        traded = await intraday(
            config=config, date=chosen, speed=speed, data=data, scenario=scenario, again=again, return_state=True
        )
    finally:
        getting_ready.cancel()
        dismiss_engine()
    if traded.name == ALREADY_RUNNING:
        return Completed(name=ALREADY_RUNNING, message=traded.message)  # whoever watches it closes the day
    from flows.end_of_day import TOLD, end_of_day  # it brings most of the packages: the day's start does not wait for them

    report: dict[str, Any] = {}
    TOLD.set(report)
    closed = await end_of_day(config=config, date=chosen, data=data, scenario=scenario, return_state=True)
    if traded.is_cancelled():
        return Cancelled(name=traded.name, message=traded.message)
    if not traded.is_completed():
        await traded.aresult()  # a session that failed fails the day with its own reason, after its books were closed
    return report if report and closed.is_completed() else await closed.aresult()


async def _get_end_of_day_ready(day: Day) -> None:
    """Import its packages while the engine trades; in this very thread, since another one may meet a half-made module."""
    with suppress(VeloxError, OSError):  # what is wrong with the run's folder is told by those who need it
        while look(day).holder is None:
            await asyncio.sleep(POLL_SECONDS)
    import_quietly(END_OF_DAY)


if __name__ == "__main__":
    from flows.command import run_flow

    run_flow(trading_day)
