"""The two sides of a reconcile: what this system has written, and what the broker says.

- Our side is made from the journal alone (`own_books`), so that anybody can make it beside a running engine or without one.
- The broker's side is what three reads answered; whoever reads decides what a failed read means (never "flat").
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from velox_core.domain.events import Body, EventKind, JournalEvent
from velox_core.domain.orders import NOT_PLACED, ExitRank, Order, OrderState, OrderType, Product, Side
from velox_core.ports import BrokerFill, BrokerOrder, BrokerPosition

BOOK_KINDS = (EventKind.INTENT, EventKind.ORDER, EventKind.FILL, EventKind.LOCK, EventKind.UNLOCK)


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnTrade:
    """One trade as we booked it; `signed_quantity` is positive when bought."""

    client_order_id: str
    symbol: str
    signed_quantity: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnBooks:
    """What this system knows.

    Attributes:
        orders: every order with its newest state, by client order id.
        positions: signed shares by symbol; flat ones may be left out.
        trades: by the broker's trade id; None where only the broker's list says which there are.
        locks: symbol to the reasons for which it is locked.
        not_placed: ids of the orders that were given up as not placed.
    """

    orders: Mapping[str, Order]
    positions: Mapping[str, int]
    trades: Mapping[str, OwnTrade] | None
    locks: Mapping[str, Sequence[str]]
    not_placed: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerBooks:
    """What the broker says: its order book, trades and net positions of the day."""

    orders: Sequence[BrokerOrder]
    trades: Sequence[BrokerFill]
    positions: Sequence[BrokerPosition]


def order_from(body: Body, ts_ms: int) -> Order:
    """Return the order of an INTENT event. Raises KeyError, ValueError for a damaged one."""
    rank = body["rank"]
    return Order(
        client_order_id=str(body["client_order_id"]),
        strategy_id=str(body["strategy"]),
        symbol=str(body["symbol"]),
        side=Side(str(body["side"])),
        quantity=whole_number(body, "quantity"),
        order_type=OrderType(str(body["order_type"])),
        limit_price_paise=whole_number(body, "limit_price"),
        product=Product(str(body["product"])),
        rank=ExitRank(rank) if isinstance(rank, int) else None,
        created_ms=ts_ms,
        reason=str(body["reason"]),
        stop_paise=whole_number(body, "stop"),
        target_paise=whole_number(body, "target"),
    )


def whole_number(body: Body, key: str) -> int:
    """Return a number of an event's body. Raises ValueError when it is none."""
    value = body[key]
    if not isinstance(value, int):
        raise ValueError(f"journal event with {key} {value!r} where a number is due")
    return value


def was_given_up(body: Body) -> bool:
    """Return whether an ORDER event ends its order as not placed."""
    return str(body["reason"]).startswith(NOT_PLACED)


def own_books(events: Iterable[JournalEvent]) -> OwnBooks:
    """Return our side from a run's events, oldest first. Raises ValueError for a damaged event."""
    orders: dict[str, Order] = {}
    positions: dict[str, int] = {}
    trades: dict[str, OwnTrade] = {}
    locks: dict[str, list[str]] = {}
    given_up: set[str] = set()
    for event in events:
        body = event.body
        if event.kind is EventKind.INTENT:
            order = order_from(body, event.ts_ms)
            order.state = OrderState.UNKNOWN  # an intent without any answer may have reached the broker
            orders[order.client_order_id] = order
        elif event.kind is EventKind.ORDER:
            _take_state(orders, given_up, body)
        elif event.kind is EventKind.FILL:
            _take_fill(orders, positions, trades, body)
        elif event.kind is EventKind.LOCK:
            reasons = locks.setdefault(str(body["symbol"]), [])
            if body["reason"] not in reasons:
                reasons.append(str(body["reason"]))
        elif event.kind is EventKind.UNLOCK and body["reason"] in locks.get(str(body["symbol"]), []):
            locks[str(body["symbol"])].remove(str(body["reason"]))
    return OwnBooks(
        orders=orders,
        positions={symbol: held for symbol, held in positions.items() if held},
        trades=trades,
        locks={symbol: reasons for symbol, reasons in locks.items() if reasons},
        not_placed=frozenset(given_up),
    )


def _take_state(orders: Mapping[str, Order], given_up: set[str], body: Body) -> None:
    order = orders.get(str(body["client_order_id"]))
    if order is not None:
        order.state = OrderState(str(body["state"]))
        order.broker_order_id = str(body["broker_order_id"])
        if was_given_up(body):
            given_up.add(order.client_order_id)


def _take_fill(orders: Mapping[str, Order], positions: dict[str, int], trades: dict[str, OwnTrade], body: Body) -> None:
    trade_id, symbol = str(body["trade_id"]), str(body["symbol"])
    if trade_id in trades:
        return
    quantity = whole_number(body, "quantity")
    signed = Side(str(body["side"])).sign * quantity
    trades[trade_id] = OwnTrade(client_order_id=str(body["client_order_id"]), symbol=symbol, signed_quantity=signed)
    positions[symbol] = positions.get(symbol, 0) + signed
    order = orders.get(str(body["client_order_id"]))
    if order is not None:
        order.filled_quantity += quantity
