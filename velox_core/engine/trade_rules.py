"""The trade rules of one strategy, kept by the engine: trailing stop, time stop, cool-down, entries per symbol and day.

- What they go by is durable or comes again: the position and when it was opened, the day's orders and fills (journal), and the
  day's minutes, which a restarted engine is given once more. So an engine that was restarted knows what the first one knew
  (ADR 0034).
- A trailing stop moves the position's stop after a bar, and the engine's protective exits watch it from the next price on; a
  bar never raises the stop that it is judged by. It moves towards the price only, and never away from the entry's own stop.
- A time stop is an exit of the strategy's, with the rank of a stop. No rule ever keeps an exit from leaving.
- An entry that a re-entry rule forbids is refused and journaled, with code REENTRY_RULE.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Protocol

from velox_core.domain.market.bars import MinuteRow
from velox_core.domain.orders import ExitRank, Order, Side, Signal, SignalKind
from velox_core.domain.positions import Position
from velox_core.domain.time import MS_PER_MINUTE
from velox_core.risk.layers import ReasonCode, Refusal
from velox_core.strategies.rules import TradeRuleValues


class Books(Protocol):
    """What the rules read of the order manager."""

    @property
    def orders(self) -> Mapping[str, Order]:
        """Return all orders of the engine, oldest first."""
        ...

    @property
    def positions(self) -> Mapping[str, Position]:
        """Return the positions by symbol."""
        ...

    @property
    def last_trade_ms(self) -> Mapping[str, int]:
        """Return when each symbol last traded, epoch ms."""
        ...

    @property
    def on_position(self) -> Callable[[str], None] | None:
        """Return what is to be called when a position's stop moved."""
        ...


class TradeRules:
    """The rules of one strategy over its columns.

    Args:
        strategy_id: whose positions and orders count.
        values: the rules.
        columns, universe, tick_paise: the strategy's columns, and symbols and tick sizes by column.
        books: the order manager.
        refuse: journals a signal that is refused, at an engine time.
        quiet_until_ms: minutes up to here were already decided on by an earlier process; nothing of them is journaled.
        day_starts_ms: orders from before it are of another day.
    """

    def __init__(
        self,
        strategy_id: str,
        values: TradeRuleValues,
        *,
        columns: Sequence[int],
        universe: Sequence[str],
        tick_paise: Sequence[int],
        books: Books,
        refuse: Callable[[Signal, Refusal, int], None],
        quiet_until_ms: int,
        day_starts_ms: int,
    ) -> None:
        self._strategy_id = strategy_id
        self._values = values
        self._symbols = [(column, universe[column], tick_paise[column]) for column in columns]
        self._books = books
        self._refuse = refuse
        self._quiet_until_ms = quiet_until_ms
        self._day_starts_ms = day_starts_ms
        self._best: dict[str, tuple[int, int]] = {}  # symbol: when its position was opened, and the best price since, paise
        self._orders_seen = 0
        self._entries: dict[str, list[Order]] = {}  # this strategy's entries of the day, by symbol

    def apply(self, ts_ms: int, row: MinuteRow, held: Sequence[int], signals: Sequence[Signal]) -> Sequence[Signal]:
        """Move stops, add what time is up for, and leave out entries that may not be.

        Args:
            ts_ms: the end of the minute.
            row: the minute.
            held: the strategy's net shares by column.
            signals: what the strategy said to it.
        """
        due: list[Signal] = []
        for column, symbol, tick in self._symbols:
            if held[column]:
                self._watch(symbol, column, tick, row, due)
        if signals and (self._values.cooldown_ms or self._values.entries_per_symbol_max):
            signals = [signal for signal in signals if self._is_allowed(signal, ts_ms)]
        return [*due, *signals] if due else signals

    # -- positions --------------------------------------------------------------------------------------------

    def _watch(self, symbol: str, column: int, tick: int, row: MinuteRow, due: list[Signal]) -> None:
        position = self._books.positions.get(symbol)
        if position is None or not position.quantity or position.strategy_id != self._strategy_id:
            return  # an entry on its way
        if row.ts_ms <= position.opened_ms:
            return  # a minute from before it
        values = self._values
        if values.trailing_bps and row.closes[column]:
            self._trail(position, row.highs[column] if position.quantity > 0 else row.lows[column], tick)
        if values.time_stop_ms and row.ts_ms - position.opened_ms >= values.time_stop_ms:
            side = Side.SELL if position.quantity > 0 else Side.BUY
            reason = f"time stop: held {values.time_stop_ms // MS_PER_MINUTE} minutes"
            due.append(
                Signal(
                    self._strategy_id,
                    symbol,
                    side,
                    abs(position.quantity),
                    SignalKind.EXIT,
                    reason,
                    rank=ExitRank.STOP,
                )
            )

    def _trail(self, position: Position, reached_paise: int, tick: int) -> None:
        """Let the stop follow the best price since the entry, which counts from the position's average."""
        is_long = position.quantity > 0
        opened_ms, best = self._best.get(position.symbol, (0, 0))
        if opened_ms != position.opened_ms:
            best = position.average_price_paise
        best = max(best, reached_paise) if is_long else min(best, reached_paise)
        self._best[position.symbol] = (position.opened_ms, best)
        distance = max(best * self._values.trailing_bps // 10_000, tick)
        stop = (best - distance) // tick * tick if is_long else -(-(best + distance) // tick) * tick
        before = position.stop_paise
        if stop > 0 and (not before or (stop > before if is_long else stop < before)):
            position.stop_paise = stop
            position.is_trailing = True
            if self._books.on_position is not None:
                self._books.on_position(position.symbol)

    # -- entries ----------------------------------------------------------------------------------------------

    def _is_allowed(self, signal: Signal, ts_ms: int) -> bool:
        if signal.kind is not SignalKind.ENTRY:
            return True
        text = self._forbidden(signal.symbol, ts_ms)
        if text and ts_ms > self._quiet_until_ms:
            self._refuse(signal, Refusal(0, ReasonCode.REENTRY_RULE, text), ts_ms)
        return not text

    def _forbidden(self, symbol: str, ts_ms: int) -> str:
        """Return why an entry in a symbol may not be, '' when it may."""
        self._take_orders()
        values = self._values
        entries = [order for order in self._entries.get(symbol, ()) if order.filled_quantity or order.is_live]
        if values.entries_per_symbol_max and len(entries) >= values.entries_per_symbol_max:
            return f"Re-entry: {len(entries)} entries today, {values.entries_per_symbol_max} are allowed"
        if values.cooldown_ms and any(order.filled_quantity for order in entries):
            # a trade counts from the end of its minute: an engine that was restarted knows it by its own time only
            traded_ms = -(-self._books.last_trade_ms.get(symbol, 0) // MS_PER_MINUTE) * MS_PER_MINUTE
            if ts_ms - traded_ms < values.cooldown_ms:
                minutes = values.cooldown_ms // MS_PER_MINUTE
                return f"Re-entry: last trade {(ts_ms - traded_ms) // 1_000} s ago, the cool-down is {minutes} minutes"
        return ""

    def _take_orders(self) -> None:
        """Take the entries made since the last look."""
        orders = self._books.orders
        for order in islice(orders.values(), self._orders_seen, None):
            if order.rank is None and order.strategy_id == self._strategy_id and order.created_ms >= self._day_starts_ms:
                self._entries.setdefault(order.symbol, []).append(order)
        self._orders_seen = len(orders)
