"""The way of a live tick from the socket's thread into the loop, and the feed that the loop reads.

- The socket's thread only puts. It never waits for the loop: when TICKS_QUEUED_MAX wait, newer ticks replace each other by
  symbol, so that what the loop gets next is the newest price of each; how many were replaced is counted.
- The loop takes everything that waits at once, judges each tick by `tick_rules` as a replay does, and gets batches in
  which no symbol is twice, in the order in which the ticks came.
- A minute is delivered when a tick of a later one comes, or MINUTE_GRACE_MS after its end by the clock.
- A vendor's adapter connects, translates into paise and columns, and calls `put`; nothing else of it is on this road.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from typing import Final

from velox_core.domain.market.bars import MinuteRow, TickBatch
from velox_core.domain.market.minutes import MinuteBuilder, minute_end_ms
from velox_core.feeds.tick_rules import STAMP_AHEAD_MS_MAX, TickRule, TickSieve, TickTally
from velox_core.ports import Clock

TICKS_QUEUED_MAX: Final = 20_000  # about four seconds of the busiest feed: 500 symbols, ten ticks a second each
MINUTE_GRACE_MS: Final = 1_000  # ticks of a minute that is over may still be on their way

Tick = tuple[int, int, int, int]  # stamp (epoch ms), column, price (paise), cumulative volume (shares)


class TickInbox:
    """What the socket's thread hands over. Bounded by `ticks_max` and one tick per symbol; `put` never waits."""

    def __init__(self, ticks_max: int = TICKS_QUEUED_MAX) -> None:
        self.replaced = 0  # ticks that a newer one of their symbol took the place of
        self._ticks_max = ticks_max
        self._ticks: list[Tick] = []
        self._newest: dict[int, Tick] = {}  # behind a full queue: the newest tick of each column
        self._closed = False
        self._changed = threading.Condition()

    def put(self, ts_ms: int, column: int, price_paise: int, volume: int) -> None:
        """Add one tick. From any one thread."""
        tick = (ts_ms, column, price_paise, volume)
        with self._changed:
            if self._newest or len(self._ticks) >= self._ticks_max:
                self.replaced += self._newest.pop(column, None) is not None
                self._newest[column] = tick
            else:
                self._ticks.append(tick)
            self._changed.notify()

    def close(self) -> None:
        """Say that no tick will come any more."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    @property
    def ended(self) -> bool:
        """Return whether it is closed and empty."""
        with self._changed:
            return self._closed and not self._ticks and not self._newest

    def take(self, wait_seconds: float) -> list[Tick]:
        """Return everything that waits, oldest first; wait at most `wait_seconds` for the first of it."""
        with self._changed:
            if not self._ticks and not self._newest and not self._closed and wait_seconds > 0:
                self._changed.wait(wait_seconds)
            ticks = self._ticks
            ticks.extend(self._newest.values())
            self._ticks, self._newest = [], {}
            return ticks


class LiveTickFeed:
    """A MarketFeed over an inbox.

    Args:
        universe: symbols in column order.
        inbox: where the ticks come in.
        sieve: judges them.
        clock: says when a minute is over although no tick comes.
    Attributes:
        tally: what was refused, by rule and symbol.
    """

    def __init__(self, universe: tuple[str, ...], inbox: TickInbox, sieve: TickSieve, clock: Clock) -> None:
        self.tally = TickTally()
        self._universe = universe
        self._inbox = inbox
        self._sieve = sieve
        self._clock = clock
        self._builder = MinuteBuilder(len(universe))
        self._waiting: deque[Tick] = deque()  # judged, and not delivered yet

    @property
    def universe(self) -> tuple[str, ...]:
        """Return the symbols, in column order."""
        return self._universe

    @property
    def ended(self) -> bool:
        """Return whether no further tick or minute will come."""
        return not self._waiting and not self._builder.end_ms and self._inbox.ended

    def next_row(self, wait_seconds: float) -> MinuteRow | TickBatch | None:
        """Return the next ticks or minute, or None when `wait_seconds` passed without either."""
        if not self._waiting:
            self._judge(self._inbox.take(wait_seconds))
        builder = self._builder
        if builder.end_ms and self._is_over(builder.end_ms):
            return builder.finish()
        if not self._waiting:
            return None
        batch = self._next_batch(builder.end_ms)
        builder.take(batch)
        return batch

    def hasten(self) -> None:
        """Go on as before: a live feed has no pace to give up."""

    def _judge(self, ticks: Sequence[Tick]) -> None:
        latest_ms = self._clock.now_ms() + STAMP_AHEAD_MS_MAX if ticks else 0
        for ts_ms, column, price_paise, volume in ticks:
            ahead = ts_ms > latest_ms
            rule = TickRule.AHEAD if ahead else self._sieve.judge(column, ts_ms, price_paise, volume)
            if rule is None:
                self._waiting.append((ts_ms, column, price_paise, volume))
            else:
                symbol = self._universe[column]
                self.tally.add(rule, symbol, 1, f"{symbol} {ts_ms} {price_paise} {volume}")

    def _is_over(self, end_ms: int) -> bool:
        """Return whether the minute under construction is to be delivered now."""
        if self._waiting:
            return self._waiting[0][0] >= end_ms
        return self._inbox.ended or self._clock.now_ms() >= end_ms + MINUTE_GRACE_MS

    def _next_batch(self, end_ms: int) -> TickBatch:
        """Take ticks until a symbol comes again or a minute ends. A tick of a minute that was delivered counts for the next."""
        waiting = self._waiting
        ts_ms, column, price_paise, volume = waiting.popleft()
        batch = TickBatch(ts_ms, [column], [price_paise], [volume])
        until_ms = end_ms or minute_end_ms(ts_ms)
        taken = {column}
        while waiting and waiting[0][0] < until_ms and waiting[0][1] not in taken:
            ts_ms, column, price_paise, volume = waiting.popleft()
            taken.add(column)
            batch.ts_ms = max(batch.ts_ms, ts_ms)
            batch.columns.append(column)
            batch.prices.append(price_paise)
            batch.volumes.append(volume)
        return batch
