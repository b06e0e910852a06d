from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from velox_core.domain.events import EventKind, JournalEvent
from velox_core.domain.order_events import intent_body, order_body
from velox_core.domain.orders import ExitRank, Order, OrderState, OrderType, Product, Side, unknown_lock
from velox_core.ports import BrokerFill, BrokerOrder, BrokerPosition
from velox_core.reconciliation.books import BrokerBooks, OwnBooks, OwnTrade, own_books
from velox_core.reconciliation.differences import (
    Difference,
    Verdict,
    compare,
    locks_explained,
    position_lock,
)
from velox_core.reconciliation.differences import DifferenceKind as Kind

S = OrderState
TAG = "240116E00010000001"
OTHER_TAG = "240116G00020000007"


def order(
    state: OrderState = S.OPEN, *, filled: int = 0, quantity: int = 2, tag: str = TAG, rank: ExitRank | None = None
) -> Order:
    made = Order(
        client_order_id=tag,
        strategy_id="alpha",
        symbol="AAA",
        side=Side.BUY,
        quantity=quantity,
        order_type=OrderType.MARKET,
        limit_price_paise=0,
        product=Product.MIS,
        rank=rank,
        created_ms=1,
        reason="test",
    )
    made.state, made.filled_quantity, made.broker_order_id = state, filled, "B1"
    return made


def line(
    state: OrderState = S.OPEN,
    *,
    tag: str = TAG,
    filled: int = 0,
    symbol: str = "AAA",
    order_id: str = "B1",
    product: Product = Product.MIS,
) -> BrokerOrder:
    return BrokerOrder(
        broker_order_id=order_id,
        tag=tag,
        symbol=symbol,
        side=Side.BUY,
        quantity=2,
        filled_quantity=filled,
        state=state,
        product=product,
        limit_price_paise=0,
        placed_ms=1,
    )


def trade(trade_id: str = "T1", quantity: int = 2, *, tag: str = TAG, symbol: str = "AAA", **changes: Any) -> BrokerFill:
    values: dict[str, Any] = {"side": Side.BUY, "product": Product.MIS, "ts_ms": 5} | changes
    return BrokerFill(values["ts_ms"], trade_id, tag, "B1", symbol, values["side"], quantity, 10_000, values["product"])


def position(quantity: int, symbol: str = "AAA", product: Product = Product.MIS) -> BrokerPosition:
    return BrokerPosition(
        symbol=symbol,
        product=product,
        quantity=quantity,
        bought_quantity=0,
        sold_quantity=0,
        bought_paise=0,
        sold_paise=0,
        last_price_paise=0,
    )


def ours(
    *orders: Order,
    held: dict[str, int] | None = None,
    trades: dict[str, OwnTrade] | None = None,
    locks: dict[str, list[str]] | None = None,
    given_up: Sequence[str] = (),
) -> OwnBooks:
    return OwnBooks(
        orders={o.client_order_id: o for o in orders},
        positions=held or {},
        trades={} if trades is None else trades,
        locks=locks or {},
        not_placed=frozenset(given_up),
    )


def theirs(*lines: BrokerOrder, trades: Sequence[BrokerFill] = (), held: Sequence[BrokerPosition] = ()) -> BrokerBooks:
    return BrokerBooks(orders=lines, trades=trades, positions=held)


def rows_of(own: OwnBooks, broker: BrokerBooks, **changes: Any) -> list[Difference]:
    return compare(own, broker, product=Product.MIS, **changes)


def booked(quantity: int = 2, tag: str = TAG) -> dict[str, OwnTrade]:
    return {"T1": OwnTrade(client_order_id=tag, symbol="AAA", signed_quantity=quantity)}


EXPLAINED, LOCKED, OPEN = Verdict.EXPLAINED, Verdict.LOCKED, Verdict.OPEN
HAND = {"AAA": ["an order that this system did not make traded"]}
TABLE: dict[str, tuple[OwnBooks, BrokerBooks, list[tuple[Kind, Verdict]]]] = {
    "both agree": (
        ours(order(S.FILLED, filled=2), held={"AAA": 2}, trades=booked()),
        theirs(line(S.FILLED, filled=2), trades=[trade()], held=[position(2)]),
        [],
    ),
    "both work on the same order": (ours(order()), theirs(line()), []),
    "manual trade that is booked": (
        ours(held={"AAA": 2}, trades=booked(tag=""), locks=HAND),
        theirs(trades=[trade(tag="")], held=[position(2)]),
        [(Kind.FOREIGN_TRADE, EXPLAINED)],
    ),
    "manual trade that nobody booked yet": (
        ours(),
        theirs(trades=[trade(tag="")], held=[position(2)]),
        [(Kind.FOREIGN_TRADE, EXPLAINED), (Kind.POSITION_AT_BROKER_ONLY, EXPLAINED)],
    ),
    "trade of the owner's holdings": (ours(), theirs(trades=[trade(tag="", product=Product.CNC)]), []),
    "the broker's own square-off": (
        ours(order(S.FILLED, filled=2), held={"AAA": 2}, trades=booked()),
        theirs(
            line(S.FILLED, filled=2),
            trades=[trade(), trade("T2", tag="", side=Side.SELL, ts_ms=100)],
        ),
        [(Kind.BROKER_SQUARE_OFF, EXPLAINED), (Kind.POSITION_HERE_ONLY, EXPLAINED)],
    ),
    "missing fill": (
        ours(order()),
        theirs(line(S.FILLED, filled=2), trades=[trade()], held=[position(2)]),
        [(Kind.MISSING_FILL, EXPLAINED), (Kind.ORDER_STATE, EXPLAINED), (Kind.POSITION_AT_BROKER_ONLY, EXPLAINED)],
    ),
    "partial fill whose trade is there": (
        ours(order()),
        theirs(line(S.PARTIALLY_FILLED, filled=1), trades=[trade(quantity=1)], held=[position(1)]),
        [(Kind.MISSING_FILL, EXPLAINED), (Kind.PARTIAL_FILL, EXPLAINED), (Kind.POSITION_AT_BROKER_ONLY, EXPLAINED)],
    ),
    "partial fill that no trade explains": (
        ours(order()),
        theirs(line(S.PARTIALLY_FILLED, filled=1), held=[position(1)]),
        [(Kind.PARTIAL_FILL, OPEN), (Kind.POSITION_AT_BROKER_ONLY, OPEN)],
    ),
    "fill that only we have": (
        ours(order(S.FILLED, filled=2), held={"AAA": 2}, trades=booked()),
        theirs(line(S.FILLED, filled=2), held=[position(2)]),
        [(Kind.EXTRA_FILL, OPEN)],
    ),
    "order made elsewhere works": (ours(), theirs(line(tag="")), [(Kind.FOREIGN_ORDER, OPEN)]),
    "order of another program works": (ours(), theirs(line(tag="robot-7")), [(Kind.FOREIGN_ORDER, OPEN)]),
    "order made elsewhere is over": (ours(), theirs(line(S.CANCELLED, tag="")), []),
    "order of the holdings works": (ours(), theirs(line(tag="", product=Product.CNC)), []),
    "orphan order with a tag of ours": (ours(), theirs(line(tag=OTHER_TAG)), [(Kind.ORPHAN_ORDER, OPEN)]),
    "order of ours that the book has not": (ours(order()), theirs(), [(Kind.ORDER_MISSING, OPEN)]),
    "unknown order that the book has not": (
        ours(order(S.UNKNOWN), locks={"AAA": [unknown_lock(order())]}),
        theirs(),
        [(Kind.ORDER_MISSING, LOCKED)],
    ),
    "unknown order that the book has": (ours(order(S.UNKNOWN)), theirs(line()), [(Kind.ORDER_STATE, EXPLAINED)]),
    "order that ended there": (ours(order()), theirs(line(S.CANCELLED)), [(Kind.ORDER_STATE, EXPLAINED)]),
    "order that ended here works there": (ours(order(S.CANCELLED)), theirs(line()), [(Kind.ORDER_STATE, OPEN)]),
    "given-up order works after all": (
        ours(order(S.CANCELLED), given_up=[TAG], locks={"AAA": [unknown_lock(order())]}),
        theirs(line()),
        [(Kind.LATE_ORDER, LOCKED)],
    ),
    "given-up order appeared and is over": (
        ours(order(S.CANCELLED), given_up=[TAG]),
        theirs(line(S.CANCELLED)),
        [(Kind.LATE_ORDER, EXPLAINED)],
    ),
    "position that only the broker has": (ours(), theirs(held=[position(3)]), [(Kind.POSITION_AT_BROKER_ONLY, OPEN)]),
    "position that only we have": (ours(held={"AAA": 2}), theirs(), [(Kind.POSITION_HERE_ONLY, OPEN)]),
    "positions that differ": (
        ours(held={"AAA": 2}, locks={"AAA": [position_lock(-1, 2)]}),
        theirs(held=[position(-1)]),
        [(Kind.POSITION_DIFFERS, LOCKED)],
    ),
    "holdings of the owner": (ours(), theirs(held=[position(50, product=Product.CNC)]), []),
}


@pytest.mark.parametrize("case", TABLE)
def test_compare_each_kind_of_difference_is_explained_locked_or_open(case: str) -> None:
    own, broker, expected = TABLE[case]
    found = rows_of(own, broker, broker_closes_from_ms=100)
    assert [(row.kind, row.verdict) for row in found] == expected
    assert all(row.symbol == "AAA" and row.ours and row.theirs for row in found)
    assert all(row.reason or row.kind is Kind.EXTRA_FILL for row in found if not row.explanation)


def test_compare_table_reaches_every_kind_and_verdict() -> None:
    reached = [pair for _, _, expected in TABLE.values() for pair in expected]
    assert {kind for kind, _ in reached} == set(Kind)
    assert {verdict for _, verdict in reached} == set(Verdict)


def test_compare_of_many_symbols_is_sorted_by_symbol() -> None:
    rows = rows_of(ours(held={"CCC": 1}), theirs(held=[position(1, "BBB"), position(1, "AAA")]))
    assert [row.symbol for row in rows] == ["AAA", "BBB", "CCC"]


GONE: dict[str, tuple[str, dict[str, int], BrokerBooks, str]] = {
    "trades made up the position": (
        position_lock(2, 0),
        {"AAA": 2},
        theirs(held=[position(2)]),
        "trades arrived since: the broker's trades explain it",
    ),
    "trades arrived and it differs otherwise": (
        position_lock(3, 0),
        {"AAA": 2},
        theirs(held=[position(3)]),
        "trades arrived since: they differ otherwise now",
    ),
    "it went away by itself": (position_lock(2, 0), {}, theirs(), ""),
    "it still differs": (position_lock(2, 0), {}, theirs(held=[position(2)]), ""),
    "the foreign order ended": (
        "unexplained order B7: works",
        {},
        theirs(line(S.CANCELLED, tag="", order_id="B7")),
        "order B7 ended at the broker: CANCELLED",
    ),
    "the foreign order left the book": ("unexplained order B7: works", {}, theirs(), ""),
    "the missing order is found": (
        f"unexplained order {TAG}: OPEN here",
        {},
        theirs(line()),
        f"order {TAG} is OPEN on both sides",
    ),
    "a lock of another kind": ("exit X traded past the position", {}, theirs(), ""),
}


@pytest.mark.parametrize("case", GONE)
def test_locks_explained_are_those_whose_end_something_explains(case: str) -> None:
    reason, held, broker, why = GONE[case]
    own = ours(order(), held=held, locks={"AAA": [reason]})
    explained = locks_explained(own, broker, rows_of(own, broker))
    assert explained == ({("AAA", reason): why} if why else {})


# -- our side from the journal -----------------------------------------------------------------------------------------


def events(*bodies: tuple[EventKind, Any]) -> list[JournalEvent]:
    return [JournalEvent(number, number, kind, body, "") for number, (kind, body) in enumerate(bodies, 1)]


def fill_event(trade_id: str = "T1", quantity: int = 2, tag: str = TAG) -> tuple[EventKind, Any]:
    body = {"trade_id": trade_id, "client_order_id": tag, "symbol": "AAA", "side": "BUY", "quantity": quantity}
    return EventKind.FILL, body


def state_event(state: OrderState, reason: str = "") -> tuple[EventKind, Any]:
    return EventKind.ORDER, order_body(order(state), reason)


INTENT = (EventKind.INTENT, intent_body(order(), 1))


def lock_event(kind: EventKind, reason: str) -> tuple[EventKind, Any]:
    return kind, {"symbol": "AAA", "reason": reason}


JOURNALS: dict[str, tuple[list[JournalEvent], Callable[[OwnBooks], object], object]] = {
    "intent without an answer": (events(INTENT), lambda books: books.orders[TAG].state, S.UNKNOWN),
    "newest state": (events(INTENT, state_event(S.OPEN)), lambda books: books.orders[TAG].state, S.OPEN),
    "given up": (events(INTENT, state_event(S.CANCELLED, "NOT_PLACED: no")), lambda books: books.not_placed, {TAG}),
    "fill once": (events(INTENT, fill_event(), fill_event()), lambda books: dict(books.positions), {"AAA": 2}),
    "foreign fill": (events(fill_event(tag="")), lambda books: books.trades["T1"].client_order_id, ""),  # type: ignore[index]
    "lock once": (
        events(lock_event(EventKind.LOCK, "x"), lock_event(EventKind.LOCK, "x")),
        lambda books: dict(books.locks),
        {"AAA": ["x"]},
    ),
    "lock taken back": (
        events(lock_event(EventKind.LOCK, "x"), lock_event(EventKind.UNLOCK, "x"), lock_event(EventKind.UNLOCK, "y")),
        lambda books: dict(books.locks),
        {},
    ),
}


@pytest.mark.parametrize("case", JOURNALS)
def test_own_books_are_what_the_journal_says(case: str) -> None:
    written, look, expected = JOURNALS[case]
    assert look(own_books(written)) == expected


def test_own_books_of_a_damaged_fill_are_refused() -> None:
    with pytest.raises(ValueError, match="quantity 'many'"):
        own_books(events(INTENT, (EventKind.FILL, {**fill_event()[1], "quantity": "many"})))
