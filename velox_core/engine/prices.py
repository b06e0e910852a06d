"""What a session knows of prices, from minutes or from ticks: marks, protective prices reached, quotes for entries.

- On minutes a mark is a close, and within one bar a stop counts before a target.
- On ticks each tick of what is held is a mark; the breach is judged, and stop and target held against it, before the next
  tick is looked at. So the first tick at which the loss reaches the limit is the one that triggers, even among the ticks
  of one moment. Minutes built from ticks mark nothing.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from velox_core.domain.market.bars import MarketEvent, MinuteRow, TickBatch
from velox_core.domain.positions import Position
from velox_core.engine.parts import SessionParts
from velox_core.engine.plan import SessionPlan
from velox_core.engine.step import protective_exit, protective_tick_exit
from velox_core.risk.gate import Quote

PRICE_ROWS_KEPT: Final = 3
_NEVER_PAISE: Final = 1 << 60


class SessionPrices:
    """The newest prices of one session, and what they reach.

    Attributes:
        protected: symbols whose position has a stop or target; a set that keeps its order, so that exits leave in the same
            one every time. `protect` keeps it.
        ticks_taken: how many ticks came.
    """

    def __init__(self, plan: SessionPlan, parts: SessionParts) -> None:
        self.protected: dict[str, None] = {}
        self.ticks_taken = 0
        self._on_ticks = plan.on_ticks
        self._universe = plan.universe
        self._columns = {symbol: column for column, symbol in enumerate(plan.universe)}
        self._parts = parts
        self._recent: deque[MinuteRow] = deque(maxlen=PRICE_ROWS_KEPT)
        self._floors = [0] * len(plan.universe)  # at or below it a tick reaches a stop or target
        self._ceilings = [_NEVER_PAISE] * len(plan.universe)  # at or above it
        self._newest = [0] * len(plan.universe)  # of ticks, paise
        self._newest_ms = [0] * len(plan.universe)

    def protect(self, symbol: str, position: Position | None) -> None:
        """Take the stop and target of a symbol of the universe as they are now; None or a flat position has neither."""
        column = self._columns[symbol]
        floor, ceiling = 0, _NEVER_PAISE
        if position is not None and position.quantity and (position.stop_paise or position.target_paise):
            self.protected[symbol] = None
            if position.quantity > 0:
                floor, ceiling = position.stop_paise, position.target_paise or _NEVER_PAISE
            else:
                floor, ceiling = position.target_paise, position.stop_paise or _NEVER_PAISE
        elif self.protected:
            self.protected.pop(symbol, None)
        self._floors[column], self._ceilings[column] = floor, ceiling

    def quote(self, column: int) -> Quote | None:
        """Return the newest price of a column: its newest tick, or a close among the last rows."""
        if self._on_ticks:
            price_paise = self._newest[column]
            return Quote(price_paise, self._newest_ms[column]) if price_paise else None
        for row in reversed(self._recent):
            price_paise = row.closes[column]
            if price_paise:
                return Quote(price_paise, row.ts_ms)
        return None

    def take_row(self, row: MinuteRow, now_ms: int) -> None:
        """Mark a minute's closes, judge the loss, and ask for what reached a stop or target to be closed."""
        parts = self._parts
        self._recent.append(row)
        parts.order_manager.day_loss.mark_row(row.closes)
        parts.emergency.check(now_ms)
        if self.protected:
            positions = parts.order_manager.positions
            for symbol in self.protected:
                hit = protective_exit(positions[symbol], row, self._columns[symbol])
                if hit is not None:
                    parts.exit_door.want(symbol, hit[0], hit[1])

    def take_ticks(self, batch: TickBatch, now_ms: int) -> None:
        """Mark each tick of what is held, judge the loss, and hold stop and target against it, tick by tick."""
        parts = self._parts
        emergency, loss = parts.emergency, parts.order_manager.day_loss
        newest, newest_ms, ts_ms = self._newest, self._newest_ms, batch.ts_ms
        floors, ceilings, held = self._floors, self._ceilings, loss.open_marks
        self.ticks_taken += len(batch.columns)
        for column, price_paise in zip(batch.columns, batch.prices, strict=True):
            newest[column] = price_paise
            newest_ms[column] = ts_ms
            if (
                column in held
                and loss.mark(column, price_paise)
                and loss.loss_at_most_paise >= emergency.warnings.next_paise
                and not emergency.closing
            ):
                emergency.check(now_ms)
            if price_paise <= floors[column] or price_paise >= ceilings[column]:
                self._reached(column, price_paise)
        emergency.check(now_ms)  # once a moment also without a breach: a closing goes on

    def _reached(self, column: int, price_paise: int) -> None:
        symbol = self._universe[column]
        position = self._parts.order_manager.positions.get(symbol)
        hit = None if position is None else protective_tick_exit(position, price_paise)
        if hit is not None:
            self._parts.exit_door.want(symbol, hit[0], hit[1])

    def mark_only(self, event: MarketEvent) -> None:
        """Take prices that nothing is decided on any more: what an earlier process traded on, or what comes while closing."""
        loss = self._parts.order_manager.day_loss
        if isinstance(event, TickBatch):
            for column, price_paise in zip(event.columns, event.prices, strict=True):
                self._newest[column] = price_paise
                self._newest_ms[column] = event.ts_ms
                loss.mark(column, price_paise)
        elif not self._on_ticks:
            self._recent.append(event)
            loss.mark_row(event.closes)
