"""A strategy that buys one share of every symbol in the first minutes and holds it."""

from __future__ import annotations

from collections.abc import Sequence

from velox_core.domain.market.bars import MinuteRow
from velox_core.domain.orders import Side, Signal, SignalKind
from velox_core.strategies.base import Strategy, StrategySession


class BuyAndHold(Strategy):
    """Enters what it does not hold and has not entered yet."""

    def start_session(self, session: StrategySession) -> None:
        self.session = session
        self.entered: set[int] = set()

    def on_minute(self, ts_ms: int, row: MinuteRow, positions: Sequence[int]) -> list[Signal]:
        wanted = [c for c in self.session.columns if row.closes[c] and not positions[c] and c not in self.entered]
        self.entered.update(wanted)
        return [self.signal(self.session.universe[column]) for column in wanted]

    def signal(self, symbol: str) -> Signal:
        return Signal(self.strategy_id, symbol, Side.BUY, 1, SignalKind.ENTRY, "hold")
