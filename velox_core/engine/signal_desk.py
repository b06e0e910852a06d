"""What strategies ask for: entries go to the gate with a price and a cost, exits of their own positions to the exit door."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from velox_core.domain.orders import OrderIntent, Side, Signal, SignalKind
from velox_core.engine.parts import SessionParts
from velox_core.engine.plan import SessionPlan
from velox_core.engine.step import round_trip_cost_paise
from velox_core.risk.approval import ApprovedOrder
from velox_core.risk.gate import Quote
from velox_core.risk.layers import ReasonCode, Refusal

# Members by a module name: reading one off its class costs 0.09 us.
_ENTRY: Final = SignalKind.ENTRY
_BUY: Final = Side.BUY
_SELL: Final = Side.SELL


class Prices(Protocol):
    """The newest prices that the session has taken."""

    def quote(self, column: int) -> Quote | None:
        """Return the newest price of a column with its time, None without one."""
        ...


class SignalDesk:
    """Takes the signals of one session.

    Args:
        prices: what an entry is priced by.
    """

    def __init__(self, plan: SessionPlan, parts: SessionParts, prices: Prices) -> None:
        self._plan = plan
        self._parts = parts
        self._prices = prices
        self._columns = {symbol: column for column, symbol in enumerate(plan.universe)}

    def take(self, signals: Sequence[Signal], now_ms: int) -> None:
        """Take one strategy's signals of one minute, in its order, and work the exits among them."""
        for signal in signals:
            if signal.kind is _ENTRY:
                self._enter(signal, now_ms)
            else:
                self._leave(signal, now_ms)
        if self._parts.exit_door.goals:
            self._parts.exit_door.work(now_ms)

    def _enter(self, signal: Signal, now_ms: int) -> None:
        parts = self._parts
        column = self._columns[signal.symbol]
        quote = self._prices.quote(column)
        risk, orders = parts.risk_manager, parts.order_manager
        quantity = risk.limits.fixed_lot_size
        cost_paise = 0
        if quote is not None:
            spread_paise = self._plan.spread_ticks * self._plan.tick_paise[column]
            cost_paise = round_trip_cost_paise(parts.schedule, quantity, quote.price_paise, spread_paise)
        answer = risk.request_entry(
            signal,
            parts.instruments.get(signal.symbol),
            quote,
            loss_paise=orders.day_loss.loss_at_most_paise,
            cost_paise=cost_paise,
            now_ms=now_ms,
        )
        if isinstance(answer, ApprovedOrder):
            orders.submit(
                answer, OrderIntent(signal.strategy_id, signal.reason, signal.stop_paise, signal.target_paise), now_ms
            )

    def _leave(self, signal: Signal, now_ms: int) -> None:
        """Ask for the strategy's own position, or its entry on the way, to be closed. Anything else is refused."""
        parts, symbol = self._parts, signal.symbol
        position = parts.order_manager.positions.get(symbol)
        if position is not None and position.quantity:
            closing_side = _SELL if position.quantity > 0 else _BUY
            is_own = position.strategy_id == signal.strategy_id and signal.side is closing_side
        else:
            entries = parts.order_manager.live_orders(symbol, entries=True)
            is_own = any(e.strategy_id == signal.strategy_id and e.side is signal.side.opposite for e in entries)
        if is_own:
            parts.exit_door.want(symbol, signal.rank, signal.reason)
        else:
            refusal = Refusal(0, ReasonCode.NOTHING_TO_EXIT, "No open quantity to exit")
            parts.risk_manager.refuse(signal, refusal, now_ms)
