"""The feed that plays one past date, minute by minute; `load` reads it from files.

- `ReplayFeed` only delivers: pacing waits and never changes content. A row is due at a fixed moment after the first,
  so that slow rows do not push later ones back.
"""

from __future__ import annotations

from collections.abc import Callable

from velox_core.domain.market.bars import DayColumns, MinuteRow
from velox_core.feeds.pacing import MovableClock, Pacing

__all__ = ["MovableClock", "ReplayFeed"]


class ReplayFeed:
    """Plays a day, minute by minute, at a speed.

    Args:
        day: the rows.
        clock: moved to each row's time as the row is delivered.
        speed: minutes of the day per minute of waiting; 1.0 is true time, 0.0 does not wait at all.
        wait: sleeps for some seconds and may return early; None sleeps.
    Raises: ConfigError for a speed that is negative or not finite.
    """

    __slots__ = ("_clock", "_count", "_day", "_index", "_pacing", "_rows")

    def __init__(self, day: DayColumns, clock: MovableClock, speed: float, wait: Callable[[float], None] | None = None) -> None:
        self._day = day
        self._rows = day.rows
        self._count = len(day.rows)
        self._clock = clock
        self._pacing = Pacing(clock, speed, wait)
        self._index = 0

    @property
    def day(self) -> DayColumns:
        """Return the day that is played."""
        return self._day

    @property
    def universe(self) -> tuple[str, ...]:
        """Return the symbols, in column order."""
        return self._day.universe

    @property
    def ended(self) -> bool:
        """Return whether every row was delivered."""
        return self._index >= self._count

    @property
    def remaining_rows(self) -> int:
        """Return how many rows are still to come."""
        return self._count - self._index

    def next_row(self, wait_seconds: float) -> MinuteRow | None:
        """Return the next minute and move the clock to it; None when it is not due within `wait_seconds`, or at the end."""
        index = self._index
        if index >= self._count:
            return None
        row = self._rows[index]
        if self._pacing.is_on and not self._pacing.became_due(row.ts_ms, wait_seconds):
            return None
        self._index = index + 1
        self._clock.advance_to(row.ts_ms)
        return row

    def hasten(self) -> None:
        """Stop pacing: what is left comes at once."""
        self._pacing.is_on = False
