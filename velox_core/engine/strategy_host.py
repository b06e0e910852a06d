"""The strategies of an engine: called once a minute, each with its own positions, each contained.

- A strategy is foreign code: whatever it raises disables it for the day, and its positions are closed; the others go on.
- What it returns is checked before it is used: only Signals, only its own symbols, only values of the right type.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from velox_core.domain.market.bars import MinuteRow
from velox_core.domain.orders import ExitRank, Side, Signal, SignalKind
from velox_core.strategies.base import Strategy, StrategySession

_log = logging.getLogger("velox.system")


class HostedStrategy:
    """One strategy with its net shares by column, entries on their way included, and why it is disabled ('' = it is not)."""

    __slots__ = ("columns", "disabled", "positions", "strategy", "strategy_id", "symbols")

    def __init__(self, strategy: Strategy, columns: tuple[int, ...], universe: tuple[str, ...]) -> None:
        self.strategy = strategy
        self.strategy_id = strategy.strategy_id
        self.columns = columns
        self.symbols = frozenset(universe[column] for column in columns)
        self.positions = [0] * len(universe)
        self.disabled = ""

    def start(self, session: StrategySession) -> None:
        """Begin a day. An exception disables the strategy."""
        try:
            self.strategy.start_session(session)
        except (Exception, SystemExit) as error:  # foreign code: contained here, reported by the caller
            self._disable(error)

    def on_minute(self, ts_ms: int, row: MinuteRow) -> Sequence[Signal] | None:
        """Return the strategy's signals, or None when an exception, or an answer that is not signals, disabled it."""
        try:
            signals = self.strategy.on_minute(ts_ms, row, self.positions)
            if signals:
                self._check(signals)
            elif signals is None:
                raise TypeError("on_minute returned None where a list of Signals is due")
        except (Exception, SystemExit) as error:  # foreign code: contained here, reported by the caller
            self._disable(error)
            return None
        return signals

    def _check(self, signals: Sequence[Signal]) -> None:
        for signal in signals:
            if type(signal) is not Signal:
                raise TypeError(f"on_minute returned {type(signal).__name__} where Signals are due")
            if signal.strategy_id != self.strategy_id or signal.symbol not in self.symbols:
                raise ValueError(f"signal of {signal.strategy_id} for {signal.symbol}, which is not its own")
            if not (
                type(signal.quantity) is type(signal.stop_paise) is type(signal.target_paise) is int
                and type(signal.side) is Side
                and type(signal.kind) is SignalKind
                and type(signal.rank) is ExitRank
            ):
                numbers = (signal.quantity, signal.stop_paise, signal.target_paise)
                enums = (type(signal.side), type(signal.kind), type(signal.rank))
                raise TypeError(
                    f"signal for {signal.symbol} with quantity, stop and target {numbers} of {enums}: ints and enums are due"
                )

    def _disable(self, error: BaseException) -> None:
        self.disabled = f"{type(error).__name__}: {error}"
        _log.error("[STRATEGY] %s is disabled for the day", self.strategy.strategy_id, exc_info=error)
