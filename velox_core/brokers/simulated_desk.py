"""The other hands on a simulated account, for tests and drills: its owner's, in the broker's app, and the broker's own.

- Nothing here is on the Broker port: no part of the engine can reach it.
- What it does is in the same book and comes out as the same events, with no tag of ours.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from velox_core.brokers.simulated_exchange import SimulatedExchange
from velox_core.brokers.simulated_orders import ManualOrder, SimulatedOrder
from velox_core.domain.errors import BrokerError
from velox_core.domain.orders import Product, Side


class DeskBroker(Protocol):
    """What the desk needs of the simulated broker: the exchange, inside one transaction."""

    def operation(self, now_ms: int) -> AbstractContextManager[SimulatedExchange]:
        """Open one transaction."""
        ...


class BrokerDesk:
    """Manual trades and the broker's interventions on one simulated account."""

    def __init__(self, broker: DeskBroker) -> None:
        self._broker = broker

    def place_foreign(
        self,
        symbol: str,
        side: Side,
        quantity: int,
        now_ms: int,
        *,
        limit_price_paise: int = 0,
        product: Product = Product.MIS,
        tag: str = "",
    ) -> str:
        """Place an order by hand; it trades as any other. Return its broker order id.

        Args:
            limit_price_paise: 0 for MARKET.
            tag: a tag of another program, or ''.
        Raises: BrokerError when the broker refuses it.
        """
        order = ManualOrder(symbol, side, quantity, limit_price_paise=limit_price_paise, product=product, tag=tag)
        with self._broker.operation(now_ms) as exchange:
            return _accepted(exchange, order, now_ms).broker_order_id

    def trade_foreign(
        self, symbol: str, side: Side, quantity: int, now_ms: int, *, price_paise: int = 0, product: Product = Product.MIS
    ) -> str:
        """Trade by hand and at once, at `price_paise` or the last known price. Return the broker order id.

        Raises: BrokerError when the broker refuses it.
        """
        with self._broker.operation(now_ms) as exchange:
            order = _accepted(exchange, ManualOrder(symbol, side, quantity, product=product), now_ms)
            exchange.complete(order, price_paise or exchange.last_price_paise(order.listing), now_ms)
            return order.broker_order_id

    def cancel_foreign(self, broker_order_id: str, now_ms: int) -> None:
        """Cancel any working order by hand, ours included. Raises BrokerError when it is not working."""
        with self._broker.operation(now_ms) as exchange:
            order = exchange.orders.get(broker_order_id)
            if order is None or order not in exchange.working:
                raise BrokerError(f"order {broker_order_id!r} is not working; see the book")
            exchange.cancel(order, now_ms, "cancelled by hand")

    def square_off_by_broker(self, now_ms: int) -> list[str]:
        """Do what brokers do at their cut-off: cancel all intraday orders, close all intraday positions at the last price.

        Returns: the broker order ids of the closing orders, untagged.
        """
        with self._broker.operation(now_ms) as exchange:
            for working in list(exchange.working):
                if working.position.product is Product.MIS:
                    exchange.cancel(working, now_ms, "MIS orders are cancelled at the broker's square-off time")
            closed = []
            for position in exchange.positions():
                listing = exchange.listings[position.symbol]
                if position.quantity and position.product is Product.MIS and listing.column >= 0:
                    side = Side.SELL if position.quantity > 0 else Side.BUY
                    for quantity in _slices(abs(position.quantity), listing.freeze_quantity):
                        order = _accepted(exchange, ManualOrder(position.symbol, side, quantity), now_ms)
                        exchange.complete(order, exchange.last_price_paise(listing), now_ms)
                        closed.append(order.broker_order_id)
            return closed


def _accepted(exchange: SimulatedExchange, request: ManualOrder, now_ms: int) -> SimulatedOrder:
    accepted = exchange.accept(request, now_ms)
    if isinstance(accepted, str):
        raise BrokerError(f"the simulated broker refuses a manual order: {accepted}")
    if accepted not in exchange.working:
        raise BrokerError(f"the simulated broker refuses a manual order: {accepted.reason}")
    return accepted


def _slices(quantity: int, most: int) -> list[int]:
    whole, rest = divmod(quantity, most)
    return [most] * whole + ([rest] if rest else [])
