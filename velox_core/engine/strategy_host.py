"""The strategies of an engine: called once a minute, each with its own positions, each contained.

- A strategy is foreign code: whatever it raises disables it for the day, and its positions are closed; the others go on.
- What it returns is checked before it is used: a list of Signals, not too many, only its own symbols, only values of the
  right type, a quantity above 0, a reason that a person can read. Anything else disables it.
- A call that does not come back is broken off by `strategy_watch`, which goes by `calls` and `is_called`.
- The engine's trade rules (`trade_rules`), where the strategy has some, come after its own word.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Sequence
from typing import Final

from velox_core.domain.market.bars import MinuteRow
from velox_core.domain.orders import ExitRank, Side, Signal, SignalKind
from velox_core.engine.trade_rules import TradeRules
from velox_core.strategies.base import Strategy, StrategySession
from velox_core.strategies.rules import TradeRuleValues

SIGNALS_MAX: Final = 1_000  # of one strategy and minute
REASON_LENGTH_MAX: Final = 200
ERROR_LENGTH_MAX: Final = 500
TRACEBACK_LENGTH_MAX: Final = 8_000
NO_RULES: Final = TradeRuleValues()
_LISTS: Final = (list, tuple)

_log = logging.getLogger("velox.system")


class HostedStrategy:
    """One strategy with its net shares by column, entries on their way included, and why it is disabled ('' = it is not).

    `rule_values` is what its trade rules are to be; `rules` keeps them once the engine is joined. `calls` counts the calls
    of the strategy and `is_called` says that one is under way: what a watch goes by.
    """

    __slots__ = (
        "calls",
        "columns",
        "disabled",
        "is_called",
        "positions",
        "rule_values",
        "rules",
        "strategy",
        "strategy_id",
        "symbols",
    )

    def __init__(
        self,
        strategy: Strategy,
        columns: tuple[int, ...],
        universe: tuple[str, ...],
        rule_values: TradeRuleValues = NO_RULES,
    ) -> None:
        self.strategy = strategy
        self.strategy_id = strategy.strategy_id
        self.columns = columns
        self.symbols = frozenset(universe[column] for column in columns)
        self.positions = [0] * len(universe)
        self.disabled = ""
        self.rule_values = rule_values
        self.rules: TradeRules | None = None
        self.calls = 0
        self.is_called = False

    def start(self, session: StrategySession) -> None:
        """Begin a day. An exception disables the strategy."""
        try:
            self.calls += 1
            self.is_called = True
            self.strategy.start_session(session)
            self.is_called = False
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # foreign code: contained here, reported by the caller
            self._disable(error)

    def on_minute(self, ts_ms: int, row: MinuteRow) -> Sequence[Signal] | None:
        """Return the strategy's signals, or None when an exception, or an answer that is not signals, disabled it."""
        try:
            self.calls += 1
            self.is_called = True
            signals: Sequence[Signal] = self.strategy.on_minute(ts_ms, row, self.positions)
            if signals:
                self._check(signals)
            elif signals is None:
                raise TypeError("on_minute returned None where a list of Signals is due")
            self.is_called = False
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # foreign code: contained here, reported by the caller
            self._disable(error)
            return None
        return signals if self.rules is None else self.rules.apply(ts_ms, row, self.positions, signals)

    def _check(self, signals: object) -> None:
        if not isinstance(signals, _LISTS):
            raise TypeError(f"on_minute returned {type(signals).__name__} where a list of Signals is due")
        if len(signals) > SIGNALS_MAX:
            raise ValueError(f"on_minute returned {len(signals)} signals; at most {SIGNALS_MAX} are taken")
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
            if signal.quantity < 1:
                raise ValueError(f"signal for {signal.symbol} with quantity {signal.quantity}; the least is 1")
            reason = signal.reason
            if type(reason) is not str or len(reason) > REASON_LENGTH_MAX or not reason.isprintable():
                raise ValueError(
                    f"signal for {signal.symbol} with a reason that is no line of at most {REASON_LENGTH_MAX} printable letters"
                )

    def _disable(self, error: BaseException) -> None:
        self.is_called = False
        self.disabled = _in_words(error)
        _log.error("[STRATEGY] %s is disabled for the day: %s\n%s", self.strategy_id, self.disabled, _traceback(error))


def _in_words(error: BaseException) -> str:
    """Return what an exception of foreign code says, in one line that log, journal and alert can hold, whatever its text is."""
    try:
        text = str(error)
    except Exception:  # its __str__ is foreign code too
        text = "(its text cannot be made)"
    line = f"{type(error).__name__}: {text}"[:ERROR_LENGTH_MAX].encode("utf-8", "backslashreplace").decode()
    return "".join(letter if letter.isprintable() else " " for letter in line)


def _traceback(error: BaseException) -> str:
    """Return an exception's traceback as text that a log can hold, its end where it is long."""
    try:
        text = "".join(traceback.format_exception(error))
    except Exception:  # it asks the exception for its text
        return "(its traceback cannot be made)"
    return text[-TRACEBACK_LENGTH_MAX:].encode("utf-8", "backslashreplace").decode()
