"""A strategy that buys its first symbol and holds it, and asks for its second one each minute from when a test wants it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from velox_core.domain.market.bars import MinuteRow
from velox_core.domain.orders import Side, Signal, SignalKind
from velox_core.strategies.base import ParameterSpec, Strategy, StrategySession


class HoldAndAsk(Strategy):
    """Enters the first symbol once. While the file `asks_when` is there, it wants the second one in every minute."""

    parameter_specs = (ParameterSpec(name="asks_when", default="", help="the file that a test makes"),)

    def start_session(self, session: StrategySession) -> None:
        self.session = session
        self.has_entered = False

    def on_minute(self, ts_ms: int, row: MinuteRow, positions: Sequence[int]) -> list[Signal]:
        first, second = self.session.columns[:2]
        signals = []
        if not self.has_entered and row.closes[first] and not positions[first]:
            self.has_entered = True
            signals.append(self.signal(first))
        if not positions[second] and Path(str(self.parameters["asks_when"])).exists():
            signals.append(self.signal(second))
        return signals

    def signal(self, column: int) -> Signal:
        return Signal(self.strategy_id, self.session.universe[column], Side.BUY, 1, SignalKind.ENTRY, "held by a test")
