"""A day's market as a second process follows it, at an engine time that it is told: prices, and fills where it must make them.

- Following shows prices to this process' broker and fills nothing: the engine of the run makes the market.
- Making gives each minute to the broker, once and in order, from where the engine had come; the book's write lock
  sees to it that an order fills in one process only.
- Past the last minute MARKET orders fill at the last price, as they do at the end of the run itself.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence

from velox_core.brokers.simulated import SimulatedBroker
from velox_core.domain.market.bars import DayColumns, MarketEvent, TickBatch
from velox_core.domain.time import MS_PER_MINUTE
from velox_core.guard_account import Price


class FollowedMarket:
    """The minutes of a day, or its ticks where it has them, up to the engine time last told.

    Args:
        day: the same data as the run's.
        broker: this process' own session at the simulated broker.
    """

    def __init__(self, day: DayColumns, broker: SimulatedBroker) -> None:
        self._universe = day.universe
        self._events: Sequence[MarketEvent] = day.rows if day.ticks is None else day.ticks
        self._times_ms = [event.ts_ms for event in self._events]
        self._broker = broker
        self._shown = 0  # rows that are in the prices
        self._made = -1  # rows that the broker has had from here; -1 while the engine makes the market
        self._closes = [0] * len(day.universe)
        self._heard_ms: list[int] = []  # of each column's newest tick, else of the first of all; empty on a day of bars

    def follow(self, now_ms: int) -> None:
        """Take the prices up to an engine time, epoch ms; a time before the last one goes back to it."""
        count = bisect_right(self._times_ms, now_ms)
        if count < self._shown:
            self._shown, self._closes = 0, [0] * len(self._universe)
            self._heard_ms = []
        for event in self._events[self._shown : count]:
            if isinstance(event, TickBatch):
                if not self._heard_ms:
                    self._heard_ms = [event.ts_ms] * len(self._universe)
                for column, price in zip(event.columns, event.prices, strict=True):
                    self._closes[column] = price
                    self._heard_ms[column] = event.ts_ms
            else:
                self._closes = [close or known for close, known in zip(event.closes, self._closes, strict=True)]
        self._shown = count
        self._broker.quote(self._closes, self._heard_ms)

    def make(self, now_ms: int, after_ms: int) -> None:
        """Give the broker the minutes after `after_ms` (at the first call; later on after the last) up to `now_ms`."""
        if self._made < 0:
            self._made = bisect_right(self._times_ms, after_ms)
        count = bisect_right(self._times_ms, now_ms)
        for event in self._events[self._made : count]:
            if isinstance(event, TickBatch):
                self._broker.on_ticks(event, event.ts_ms)
            else:
                self._broker.on_row(event, event.ts_ms)
        self._made = max(self._made, count)
        if count == len(self._events) and (not count or now_ms > self._times_ms[-1] + MS_PER_MINUTE):
            self._broker.settle(now_ms)

    def prices(self) -> Mapping[str, Price]:
        """Return the newest close of each symbol that has one, with the time of the newest minute of all."""
        feed_ms = self._times_ms[self._shown - 1] if self._shown else 0
        return {
            symbol: Price(paise=close, feed_ms=feed_ms)
            for symbol, close in zip(self._universe, self._closes, strict=True)
            if close
        }
