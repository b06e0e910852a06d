"""intraday: start the engine as a process of its own, relay what it says, and end as it ends.

- The engine is not this flow: it lives in its own session and trades on when this flow dies.
- A cancel asks the engine to stop and waits for it as long as Prefect allows; the engine finishes on its own.
"""

from __future__ import annotations

import asyncio
from typing import Any

from prefect import flow

from flows.guards import reason_not_to_start
from flows.parameters import day_request, open_flow_day, run_name
from tasks.session import ask_to_stop, launch_engine, need_day_pass, read_session, relay

STOP_REASON = "the intraday flow was cancelled"


@flow(name="intraday", flow_run_name=run_name("intraday"), retries=0, persist_result=False)
async def intraday(
    config: str | None = None,
    date: str | None = None,
    speed: float | None = None,
    data: str | None = None,
    scenario: str | None = None,
) -> Any:
    """Trade one day.

    Args:
        config: configuration file; the default is config/system_simulated.yaml.
        date: trading date, as 2024-01-15; the default is the newest in the data, today for a live broker.
        speed: seconds of the session per second: 1.0 is true time, 0 does not wait; the default is the configuration's.
        data: file or folder of one-minute bars instead of the configured one.
        scenario: synthetic data instead of a file: calm or crash.
    """
    day = open_flow_day(day_request(config, date, speed=speed, data=data, scenario=scenario))
    ended = reason_not_to_start(day, "intraday")
    if ended is not None:
        return ended
    need_day_pass(day)
    engine = launch_engine(day)
    try:
        await relay(day, engine)
    except asyncio.CancelledError:
        await ask_to_stop(engine, STOP_REASON)
        raise
    return read_session(engine)


if __name__ == "__main__":
    from flows.command import run_flow

    run_flow(intraday)
