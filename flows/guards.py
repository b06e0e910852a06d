"""What ends a run before it does anything, in a named state that a person understands: what, where, and what to do.

- COMPLETED is harmless: there is nothing to do here. CANCELLED: it must not be done now, and nothing is wrong. FAILED needs
  a person.
- A run that comes later than `market.lateness_minutes` after its time does nothing, whatever missed runs come with it. A run
  started by hand is due when it is asked for. The emergency flatten has no such guard.
- A schedule says which sessions it is for: the one of every weekday, or the one of special sessions, so that no day is run
  twice; the calendar decides on the date of the schedule.
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any, Final, Literal

import prefect.runtime
from prefect.client.schemas.objects import State
from prefect.states import Cancelled, Completed, Failed

from velox_core.domain.errors import HaltedError, VeloxError
from velox_core.domain.time import IST
from velox_core.operations.day import Day, closed_on, session_over, special_on, too_late
from velox_core.operations.day_engine import DayEngine, Stage
from velox_core.operations.hints import velox

HOLIDAY: Final = "Holiday"
SPECIAL_SESSION: Final = "SpecialSession"
NO_SPECIAL_SESSION: Final = "NoSpecialSession"
ALREADY_RUNNING: Final = "AlreadyRunning"
ALREADY_ENDED: Final = "AlreadyEnded"
TOO_LATE: Final = "TooLate"
SESSION_OVER: Final = "SessionOver"
NO_DAY_PASS: Final = "NoDayPass"
HALTED: Final = "Halted"
ENGINE_DIED: Final = "EngineDied"

Session = Literal["any", "ordinary", "special"]


def reason_not_to_start(day: Day, flow: str, session: Session = "any") -> State[Any] | None:
    """Return the state in which a run ends at once, or None when it may go on.

    Args:
        day: the day.
        flow: 'market_open', 'intraday' or 'end_of_day', as in `market.lateness_minutes`.
        session: which sessions the run's schedule is for; 'any' for a run that no schedule started.
    """
    return judge(day, flow, session, scheduled=prefect.runtime.flow_run.scheduled_start_time, now=datetime.now(UTC))


def judge(day: Day, flow: str, session: Session, *, scheduled: datetime | None, now: datetime) -> State[Any] | None:
    """Return what `reason_not_to_start` returns, at a moment and for a time at which the run was due, both aware."""
    late = too_late(day, flow, scheduled=scheduled, now=now)
    if late:
        return Cancelled(name=TOO_LATE, message=late)
    closed = _closed(day, session, (scheduled or now).astimezone(IST).date())
    if closed is not None:
        return closed
    over = session_over(day, now) if flow == "intraday" else ""
    return Cancelled(name=SESSION_OVER, message=over) if over else None


def _closed(day: Day, session: Session, due: date) -> State[Any] | None:
    """Return why there is no session for this run's schedule, else None. A date that was asked for is judged, else the due."""
    on = day.trading_date if session == "any" or day.request.date is not None or day.wall_clock else due
    reason = day.closed_reason if on == day.trading_date else closed_on(day, on)
    if reason:
        return Completed(name=HOLIDAY, message=f"{on}: no session ({reason}); nothing to do")
    special = special_on(day, on)
    if session == "ordinary" and special:
        text = f"{on} is a special session ({special}): the schedule of special sessions runs it, this one does nothing"
        return Completed(name=SPECIAL_SESSION, message=text)
    if session == "special" and not special:
        text = f"{on} is an ordinary session: the schedule of every weekday runs it, this one does nothing"
        return Completed(name=NO_SPECIAL_SESSION, message=text)
    return None


def already_running(day: Day, watcher: str) -> State[Any]:
    """Return the state of a run that finds the day watched by a living flow run. `watcher` says by which."""
    message = (
        f"the engine of {day.label} is watched already: {watcher}. Nothing was started. Follow that run, or see "
        f"{velox('status', settings=day.settings)}"
    )
    return Completed(name=ALREADY_RUNNING, message=message)


def reason_not_to_trade(day: Day, found: DayEngine, no_pass: str, *, earlier: str, again: bool) -> State[Any] | None:
    """Return the state in which an intraday run ends without starting an engine, or None when it attaches or starts one.

    Args:
        day: the day.
        found: what there is of the day's engine.
        no_pass: why there is no valid day pass, '' when there is one.
        earlier: which earlier flow runs could not see the day through, '' for none.
        again: a replay whose run has ended may be traded once more.
    """
    told = f"{found.text}{f' ({earlier})' if earlier else ''}"
    match found.stage:
        case Stage.HALTED:
            reset = velox("reset", "--run", found.run_id, "--reason", "...", "--by", "NAME", settings=day.settings)
            return failed(
                HALTED, HaltedError(f"trading is halted and flat: {told}. Run end_of_day, or clear the halt: {reset}")
            )
        case Stage.ENDED if not (again and not day.wall_clock):
            message = f"the session is over: {told}. Nothing was started. Run end_of_day to close its books"
            return Completed(name=ALREADY_ENDED, message=message)
        case Stage.SPEAKS | Stage.SILENT | Stage.UNFINISHED:
            return None
        case Stage.NONE | Stage.ENDED:
            return failed(NO_DAY_PASS, HaltedError(no_pass)) if no_pass else None


def failed(name: str, error: VeloxError) -> State[Any]:
    """Return a failed state of a name; whoever asks for its result gets the error."""
    return Failed(name=name, message=str(error), data=error)
