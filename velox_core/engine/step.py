"""The pure parts of a step: which protective prices a minute or a tick reached, and what an entry would cost."""

from __future__ import annotations

from velox_core.domain.charges import ChargeSchedule
from velox_core.domain.market.bars import MinuteRow
from velox_core.domain.money import rupees_text
from velox_core.domain.orders import ExitRank
from velox_core.domain.positions import Position


def protective_exit(position: Position, row: MinuteRow, column: int) -> tuple[ExitRank, str] | None:
    """Return whether a minute reached the position's stop or target, and which.

    Within one bar the order of its prices is unknown: a stop counts before a target.
    """
    if not row.closes[column]:
        return None
    return _reached(position, row.lows[column], row.highs[column])


def protective_tick_exit(position: Position, price_paise: int) -> tuple[ExitRank, str] | None:
    """Return whether one price reached the position's stop or target, and which."""
    return _reached(position, price_paise, price_paise)


def _reached(position: Position, low: int, high: int) -> tuple[ExitRank, str] | None:
    stop, target = position.stop_paise, position.target_paise
    if position.quantity > 0:
        if stop and low <= stop:
            return ExitRank.STOP, f"{_stop_name(position)} {rupees_text(stop)} reached"
        if target and high >= target:
            return ExitRank.TARGET, f"target {rupees_text(target)} reached"
    elif position.quantity < 0:
        if stop and high >= stop:
            return ExitRank.STOP, f"{_stop_name(position)} {rupees_text(stop)} reached"
        if target and low <= target:
            return ExitRank.TARGET, f"target {rupees_text(target)} reached"
    return None


def _stop_name(position: Position) -> str:
    return "trailing stop" if position.is_trailing else "stop"


def round_trip_cost_paise(schedule: ChargeSchedule, quantity: int, price_paise: int, spread_paise: int) -> int:
    """Return what entering and leaving at this price costs: charges of both orders and the spread once."""
    return schedule.round_trip_charges_paise(quantity * price_paise) + quantity * spread_paise
