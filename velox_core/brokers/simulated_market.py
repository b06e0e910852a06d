"""The feed as the simulated broker's market: each minute reaches the broker before the engine sees it.

- Orders that were sent after minute t meet minute t+1 here, so no decision ever trades on the bar that caused it.
- When the inner feed has ended, each call settles what is still open: MARKET orders at the last price, others cancelled.
- On ticks it trades at each tick; the minutes built from them are for strategies and trade nothing.
- It passes everything else through and adds nothing.
"""

from __future__ import annotations

from typing import Protocol

from velox_core.domain.market.bars import MarketEvent, MinuteRow, TickBatch
from velox_core.ports import Clock, MarketFeed


class RowTaker(Protocol):
    """The side of the simulated broker that faces the market."""

    def on_row(self, row: MinuteRow, now_ms: int) -> None:
        """Take one minute."""
        ...

    def on_ticks(self, batch: TickBatch, now_ms: int) -> None:
        """Take the ticks of one moment."""
        ...

    def settle(self, now_ms: int) -> None:
        """End the market data."""
        ...


class SimulatedMarket:
    """A MarketFeed that shows each event to the simulated broker first. `on_ticks`: only ticks trade, minutes do not."""

    __slots__ = ("_broker", "_clock", "_feed", "_on_ticks")

    def __init__(self, feed: MarketFeed, broker: RowTaker, clock: Clock, *, on_ticks: bool = False) -> None:
        self._feed = feed
        self._broker = broker
        self._clock = clock
        self._on_ticks = on_ticks

    @property
    def universe(self) -> tuple[str, ...]:
        """Return the symbols, in column order."""
        return self._feed.universe

    @property
    def ended(self) -> bool:
        """Return whether nothing further will come."""
        return self._feed.ended

    def next_row(self, wait_seconds: float) -> MarketEvent | None:
        """Return what the feed has next, after the broker has traded on it; settle when the feed has ended."""
        event = self._feed.next_row(wait_seconds)
        if event is None:
            if self._feed.ended:
                self._broker.settle(self._clock.now_ms())
        elif isinstance(event, TickBatch):
            self._broker.on_ticks(event, self._clock.now_ms())
        elif not self._on_ticks:
            self._broker.on_row(event, self._clock.now_ms())
        return event

    def hasten(self) -> None:
        """Stop pacing."""
        self._feed.hasten()
