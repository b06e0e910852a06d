"""How an order begins, and how it is told to the journal: the bodies of INTENT, ORDER and FILL events (see `events`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from velox_core.domain.events import Body
from velox_core.domain.orders import Order, OrderIntent
from velox_core.domain.positions import Position

if TYPE_CHECKING:
    from velox_core.ports import BrokerFill
    from velox_core.risk.approval import ApprovedOrder


def order_of(approved: ApprovedOrder, intent: OrderIntent, now_ms: int) -> Order:
    """Return the order that an approved order begins as, at an engine time."""
    return Order(
        client_order_id=approved.client_order_id,
        strategy_id=intent.strategy_id,
        symbol=approved.symbol,
        side=approved.side,
        quantity=approved.quantity,
        order_type=approved.order_type,
        limit_price_paise=approved.limit_price_paise,
        product=approved.product,
        rank=approved.rank,
        created_ms=now_ms,
        reason=intent.reason,
        stop_paise=intent.stop_paise,
        target_paise=intent.target_paise,
    )


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


def fill_body(fill: BrokerFill, strategy_id: str, charges_paise: int, realised_paise: int, position: Position) -> Body:
    """Return the body of the event of one trade, with the position that it left."""
    return {
        "trade_id": fill.trade_id,
        "client_order_id": fill.client_order_id,
        "strategy": strategy_id,
        "symbol": fill.symbol,
        "side": fill.side,
        "quantity": fill.quantity,
        "price": fill.price_paise,
        "charges": charges_paise,
        "realised": realised_paise,
        "position": position.quantity,
        "cost": position.cost_paise,
    }
