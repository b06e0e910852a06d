"""The feed as the simulated broker's market: each minute reaches the broker before the engine sees it.

- Orders that were sent after minute t meet minute t+1 here, so no decision ever trades on the bar that caused it.
- When the inner feed has ended, each call settles what is still open: MARKET orders at the last price, others cancelled.
- It passes everything else through and adds nothing.
"""

from __future__ import annotations

from typing import Protocol

from velox_core.domain.market.bars import MinuteRow
from velox_core.ports import Clock, MarketFeed


class RowTaker(Protocol):
    """The side of the simulated broker that faces the market."""

    def on_row(self, row: MinuteRow, now_ms: int) -> None:
        """Take one minute."""
        ...

    def settle(self, now_ms: int) -> None:
        """End the market data."""
        ...


class SimulatedMarket:
    """A MarketFeed that shows each row to the simulated broker first."""

    __slots__ = ("_broker", "_clock", "_feed")

    def __init__(self, feed: MarketFeed, broker: RowTaker, clock: Clock) -> None:
        self._feed = feed
        self._broker = broker
        self._clock = clock

    @property
    def universe(self) -> tuple[str, ...]:
        """Return the symbols, in column order."""
        return self._feed.universe

    @property
    def ended(self) -> bool:
        """Return whether no further row will come."""
        return self._feed.ended

    def next_row(self, wait_seconds: float) -> MinuteRow | None:
        """Return the feed's next minute, after the broker has traded on it; settle when the feed has ended."""
        row = self._feed.next_row(wait_seconds)
        if row is not None:
            self._broker.on_row(row, self._clock.now_ms())
        elif self._feed.ended:
            self._broker.settle(self._clock.now_ms())
        return row

    def hasten(self) -> None:
        """Stop pacing."""
        self._feed.hasten()
