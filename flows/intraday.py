"""intraday: start the day's engine as a process of its own or attach to it, relay what it says, and end as it ends.

- The engine is not this flow: it lives in its own session and trades on when this flow dies. The next run attaches.
- One living run watches a day: another one ends at once in a named state.
- A cancel asks the engine to stop and waits for it as long as Prefect allows; the engine finishes on its own. A signal that
  ends this process without a cancel leaves the engine trading.
"""

from __future__ import annotations

import asyncio
from typing import Any

from prefect.exceptions import TerminationSignal
from prefect.states import Cancelled

from flows.guards import ENGINE_DIED, Session, already_running, failed, reason_not_to_start, reason_not_to_trade
from flows.parameters import Scenario, day_request, open_flow_day, run_name
from flows.policy import flow
from tasks.session import (
    FlowCancelled,
    ask_to_stop,
    earlier_watches,
    find_engine,
    launch_engine,
    leave_engine_or_stop,
    read_session,
    relay,
    watch_day,
    watcher_of,
    why_no_pass,
)
from velox_core.operations.day import Day
from velox_core.operations.engine_process import EngineDied
from velox_core.operations.engine_standby import dismiss_engine
from velox_core.operations.watch import DayWatch

STOP_REASON = "the intraday flow was cancelled"


@flow(name="intraday", flow_run_name=run_name("intraday"))
async def intraday(
    config: str = "",
    date: str = "",
    speed: float | None = None,
    data: str = "",
    scenario: Scenario = "",
    *,
    session: Session = "any",
    again: bool = False,
) -> Any:
    """Trade one day.

    Args:
        config: configuration file; empty is config/system_simulated.yaml.
        date: trading date, as 2024-01-15; empty is the newest in the data, today for a live broker.
        speed: seconds of the session per second: 1.0 is true time, 0 does not wait; the default is the configuration's.
        data: file or folder of one-minute bars; empty is the configured one.
        scenario: synthetic data instead of a file.
        session: set by schedules: run on ordinary sessions only, or on special ones only; any for a run by hand.
        again: trade a replay's date once more although its run has ended; a live day is never traded again.
    """
    day = open_flow_day(day_request(config, date, speed=speed, data=data, scenario=scenario))
    if day.wall_clock:
        dismiss_engine()
    ended = reason_not_to_start(day, "intraday", session)
    if ended is not None:
        return ended
    watch = watch_day(day)
    if watch is None:
        return already_running(day, watcher_of(day))
    try:
        return await _watch(day, watch, again=again)
    except (asyncio.CancelledError, TerminationSignal):
        await leave_engine_or_stop(day, watch, STOP_REASON)
        raise
    except FlowCancelled:
        await ask_to_stop(day, watch, STOP_REASON)
        return Cancelled(message=STOP_REASON)
    except EngineDied as died:
        return failed(ENGINE_DIED, died)
    finally:
        watch.close()


async def _watch(day: Day, watch: DayWatch, *, again: bool) -> Any:
    found = await find_engine(day, watch)
    no_pass = why_no_pass(day)
    ended = reason_not_to_trade(day, found, no_pass, earlier=earlier_watches(watch), again=again)
    if ended is not None:
        return ended
    engine = launch_engine(day, found, watch, no_pass)
    dismiss_engine()  # one that waited and was not asked: nobody will
    await relay(day, engine, watch)
    return read_session(day, engine, watch)


if __name__ == "__main__":
    from flows.command import run_flow

    run_flow(intraday)
