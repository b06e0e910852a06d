"""What ends a run before it does anything: a closed market, or a run that comes too late. Named states, no errors."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import prefect.runtime
from prefect.client.schemas.objects import State
from prefect.states import Cancelled, Completed

from velox_core.operations.day import Day, too_late

HOLIDAY = "Holiday"
TOO_LATE = "TooLate"


def reason_not_to_start(day: Day, flow: str) -> State[Any] | None:
    """Return the state in which a run ends at once, or None when it may go on. `flow` as in `market.lateness_minutes`."""
    if day.closed_reason:
        return Completed(name=HOLIDAY, message=f"{day.trading_date}: no session ({day.closed_reason}); nothing to do")
    late = too_late(day, flow, scheduled=prefect.runtime.flow_run.scheduled_start_time, now=datetime.now(UTC))
    return Cancelled(name=TOO_LATE, message=late) if late else None
