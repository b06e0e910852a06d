"""The feed that plays a day of ticks: batches as they were stamped, and each minute as it ends, built from them.

- A minute comes at its end, before the ticks that are stamped with that moment: nobody decides on a tick that is still to come.
- Pacing waits and never changes content.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from velox_core.domain.market.bars import DayColumns, MinuteRow, TickBatch
from velox_core.domain.market.minutes import MinuteBuilder
from velox_core.feeds.pacing import MovableClock, Pacing
from velox_core.feeds.replay import ReplayFeed


class TickReplayFeed:
    """Plays ticks at a speed.

    Args:
        universe: symbols in column order.
        ticks: batches, oldest first.
        clock: moved to each event's time as it is delivered.
        speed: seconds of the day per second of waiting; 0.0 does not wait at all.
        wait: sleeps for some seconds and may return early; None sleeps.
    Raises: ConfigError for a speed that is negative or not finite.
    """

    __slots__ = ("_builder", "_clock", "_count", "_index", "_pacing", "_ticks", "_universe")

    def __init__(
        self,
        universe: tuple[str, ...],
        ticks: Sequence[TickBatch],
        clock: MovableClock,
        speed: float,
        wait: Callable[[float], None] | None = None,
    ) -> None:
        self._universe = universe
        self._ticks = ticks
        self._count = len(ticks)
        self._clock = clock
        self._pacing = Pacing(clock, speed, wait)
        self._builder = MinuteBuilder(len(universe))
        self._index = 0

    @property
    def universe(self) -> tuple[str, ...]:
        """Return the symbols, in column order."""
        return self._universe

    @property
    def ended(self) -> bool:
        """Return whether every tick, and the last minute, was delivered."""
        return self._index >= self._count and not self._builder.end_ms

    def next_row(self, wait_seconds: float) -> MinuteRow | TickBatch | None:
        """Return the next ticks, or the minute that ended before them; None when it is not due within `wait_seconds`."""
        index, builder = self._index, self._builder
        batch = self._ticks[index] if index < self._count else None
        end_ms = builder.end_ms
        if end_ms and (batch is None or batch.ts_ms >= end_ms):
            if self._pacing.is_on and not self._pacing.became_due(end_ms, wait_seconds):
                return None
            self._clock.advance_to(end_ms)
            return builder.finish()
        if batch is None or (self._pacing.is_on and not self._pacing.became_due(batch.ts_ms, wait_seconds)):
            return None
        self._index = index + 1
        self._clock.advance_to(batch.ts_ms)
        builder.take(batch)
        return batch

    def hasten(self) -> None:
        """Stop pacing: what is left comes at once."""
        self._pacing.is_on = False


def replay_feed(day: DayColumns, clock: MovableClock, speed: float) -> ReplayFeed | TickReplayFeed:
    """Return the feed that plays a day: its ticks, where it has them. Raises ConfigError for an impossible speed."""
    if day.ticks is None:
        return ReplayFeed(day, clock, speed)
    return TickReplayFeed(day.universe, day.ticks, clock, speed)
