"""The feed that plays one past date, minute by minute; `load` reads it from files.

- `ReplayFeed` only delivers: pacing waits and never changes content. A row is due at a fixed moment after the first,
  so that slow rows do not push later ones back.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Protocol

from velox_core.domain.errors import ConfigError
from velox_core.domain.market.bars import DayColumns, MinuteRow
from velox_core.domain.time import MS_PER_SECOND
from velox_core.feeds.load import available_dates, load_day

__all__ = ["MovableClock", "ReplayFeed", "available_dates", "load_day"]

_EARLY_SECONDS_MAX = 0.001


class MovableClock(Protocol):
    """The replay's clock, as the feed uses it."""

    def advance_to(self, ts_ms: int) -> None:
        """Move engine time forward, epoch ms."""
        ...

    def monotonic(self) -> float:
        """Return real seconds that never go back."""
        ...


class ReplayFeed:
    """Plays a day, minute by minute, at a speed.

    Args:
        day: the rows.
        clock: moved to each row's time as the row is delivered.
        speed: minutes of the day per minute of waiting; 1.0 is true time, 0.0 does not wait at all.
        wait: sleeps for some seconds and may return early; None sleeps.
    Raises: ConfigError for a speed that is negative or not finite.
    """

    __slots__ = ("_clock", "_count", "_day", "_first_due", "_index", "_paced", "_rows", "_speed", "_wait")

    def __init__(self, day: DayColumns, clock: MovableClock, speed: float, wait: Callable[[float], None] | None = None) -> None:
        if not math.isfinite(speed) or speed < 0:
            raise ConfigError(f"replay speed {speed!r} is not possible; give a positive number, or 'max'")
        self._day = day
        self._rows = day.rows
        self._count = len(day.rows)
        self._clock = clock
        self._speed = speed
        self._wait: Callable[[float], None] = time.sleep if wait is None else wait
        self._paced = speed > 0
        self._first_due: float | None = None
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
        if self._paced and not self._became_due(row.ts_ms, wait_seconds):
            return None
        self._index = index + 1
        self._clock.advance_to(row.ts_ms)
        return row

    def hasten(self) -> None:
        """Stop pacing: what is left comes at once."""
        self._paced = False

    def _became_due(self, ts_ms: int, wait_seconds: float) -> bool:
        """Wait for a row's moment, at most `wait_seconds`. The first row is due at once."""
        clock = self._clock
        if self._first_due is None:
            self._first_due = clock.monotonic()
        due = self._first_due + (ts_ms - self._rows[0].ts_ms) / (MS_PER_SECOND * self._speed)
        remaining = due - clock.monotonic()
        if remaining <= 0:
            return True
        pause_seconds = min(remaining, wait_seconds)
        if pause_seconds > 0:
            self._wait(pause_seconds)
        return not self._paced or due - clock.monotonic() < _EARLY_SECONDS_MAX
