"""How an order is told to the journal: the bodies of INTENT and ORDER events (see `velox_core.domain.events`)."""

from __future__ import annotations

from velox_core.domain.events import Body
from velox_core.domain.orders import Order


def intent_body(order: Order, ledger_version: int) -> Body:
    """Return the body of the event that is durable before the order is sent."""
    return {
        "client_order_id": order.client_order_id,
        "strategy": order.strategy_id,
        "symbol": order.symbol,
        "side": order.side,
        "quantity": order.quantity,
        "order_type": order.order_type,
        "limit_price": order.limit_price_paise,
        "product": order.product,
        "role": "ENTRY" if order.rank is None else "EXIT",
        "rank": None if order.rank is None else int(order.rank),
        "reason": order.reason,
        "stop": order.stop_paise,
        "target": order.target_paise,
        "ledger_version": ledger_version,
    }


def order_body(order: Order, reason: str) -> Body:
    """Return the body of the event for the state that the order is in now."""
    return {
        "client_order_id": order.client_order_id,
        "state": order.state,
        "broker_order_id": order.broker_order_id,
        "filled": order.filled_quantity,
        "reason": reason,
    }
