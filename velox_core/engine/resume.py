"""Taking a run up again: our own books from the journal, then the broker's word, then the ledger.

- The journal gives back every order and every fill; the broker's trades that it lacks are booked once.
- What still differs (`velox_core.reconciliation`) is unexplained: its symbol is locked and a person is told. A position that
  the broker holds beyond ours takes a slot and counts in the loss. What trades explain later is unlocked, with the reason.
- An order that was given up as not placed stays so: its tag is watched, its claim and its symbol's lock stay.
- The ledger is rebuilt when its positions or claims are not those that journal and broker now say.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

from velox_core.domain.errors import BrokerError
from velox_core.domain.events import Body, EventKind, JournalEvent
from velox_core.domain.orders import Order, OrderState, Side, unknown_lock
from velox_core.domain.positions import FOREIGN
from velox_core.order_manager import OrderManager
from velox_core.ports import Alerts, Broker, BrokerFill, BrokerPosition, Severity
from velox_core.reconciliation.books import BrokerBooks, OwnBooks, order_from, was_given_up, whole_number
from velox_core.reconciliation.differences import (
    AT_ONCE_KINDS,
    POSITION_KINDS,
    Difference,
    DifferenceKind,
    compare,
    locks_explained,
)
from velox_core.risk.ledger import Claim, DedupKey, OpenPosition, RiskSnapshot
from velox_core.risk.sizing import worst_price_paise
from velox_core.risk_manager import RiskManager

RESUME_KINDS = (EventKind.INTENT, EventKind.ORDER, EventKind.FILL, EventKind.LOCK, EventKind.UNLOCK, EventKind.MARK)

_log = logging.getLogger("velox.system")


def restore(events: Iterable[JournalEvent], order_manager: OrderManager, risk_manager: RiskManager) -> int:
    """Take back orders, fills and locks from a run's journal. Returns the newest engine time seen, 0 for a fresh run."""
    newest_ms = 0
    last_state: dict[str, Body] = {}
    counted: dict[str, Body] = {}  # unexplained positions
    pending: list[JournalEvent] = []
    orders: dict[str, Order] = {}
    for event in events:
        newest_ms = max(newest_ms, event.ts_ms)
        body = event.body
        if event.kind is EventKind.INTENT:
            order = order_from(body, event.ts_ms)
            orders[order.client_order_id] = order
        elif event.kind is EventKind.ORDER:
            last_state[str(body["client_order_id"])] = body
        elif event.kind is EventKind.FILL:
            pending.append(event)
        elif event.kind is EventKind.LOCK:
            risk_manager.note_lock(str(body["symbol"]), str(body["reason"]))
            if "quantity" in body:
                counted[str(body["symbol"])] = body
        elif event.kind is EventKind.UNLOCK:
            risk_manager.note_unlock(str(body["symbol"]), str(body["reason"]))
            if counted.get(str(body["symbol"]), {}).get("reason") == body["reason"]:
                del counted[str(body["symbol"])]
    risk_manager.continue_after(orders)
    for order_id, order in orders.items():
        known = last_state.get(order_id)
        # An intent without any answer may have reached the broker: UNKNOWN until the book says.
        order.state = OrderState(str(known["state"])) if known is not None else OrderState.UNKNOWN
        order.broker_order_id = str(known["broker_order_id"]) if known is not None else ""
        order_manager.restore(order, given_up=known is not None and was_given_up(known))
        # The last because closers outside the engine journal no locks; one that is there is not locked twice.
        if known is None or order.state is OrderState.UNKNOWN or was_given_up(known):
            risk_manager.lock(order.symbol, unknown_lock(order), newest_ms)
    for event in pending:
        body = event.body
        order_manager.restore_fill(
            BrokerFill(
                event.ts_ms,
                str(body["trade_id"]),
                str(body["client_order_id"]),
                "",
                str(body["symbol"]),
                Side(str(body["side"])),
                whole_number(body, "quantity"),
                whole_number(body, "price"),
            ),
            charges_paise=whole_number(body, "charges"),
        )
        _restore_over_exit(str(body["symbol"]), str(body["client_order_id"]), Side(str(body["side"])), order_manager)
    _restore_unexplained(counted, order_manager)
    return newest_ms


def disabled_strategies(events: Iterable[JournalEvent]) -> dict[str, str]:
    """Return the strategies that this run disabled, with why: they stay so for the day."""
    return {
        str(event.body["strategy"]): str(event.body["reason"]) for event in events if event.kind is EventKind.STRATEGY_DISABLED
    }


def worst_marked_loss_paise(events: Iterable[JournalEvent]) -> int:
    """Return the worst loss of the day by its marks, paise, without the charges of closing; 0 when no mark is a loss."""
    marks = (event.body for event in events if event.kind is EventKind.MARK)
    losses = (whole_number(m, "charges") - whole_number(m, "realised") - whole_number(m, "open") for m in marks)
    return max(losses, default=0)


def _restore_over_exit(symbol: str, order_id: str, side: Side, order_manager: OrderManager) -> None:
    """Know again, after a fill was taken back, whether what it left is a position that an exit opened."""
    position = order_manager.positions[symbol]
    if position.is_opened_by_exit(order_manager.orders.get(order_id), side):
        order_manager.overshot.add(symbol)
    elif not position.quantity:
        order_manager.overshot.discard(symbol)


def _restore_unexplained(counted: Mapping[str, Body], order_manager: OrderManager) -> None:
    """Count again what an earlier process found unexplained, at the cost it was first seen at: nothing re-bases it."""
    for symbol, body in counted.items():
        rest = OpenPosition(symbol, FOREIGN, whole_number(body, "quantity"), whole_number(body, "cost"), 0)
        order_manager.count_unexplained(symbol, rest, order_manager.mark_of(symbol) or whole_number(body, "price"))


def reconcile(
    broker: Broker,
    order_manager: OrderManager,
    risk_manager: RiskManager,
    alerts: Alerts,
    now_ms: int,
    *,
    working: frozenset[str] = frozenset(),
    only_new: bool = False,
    seen: frozenset[str] = frozenset(),
) -> list[Difference]:
    """Bring our books up to the broker's and lock what stays unexplained.

    Args:
        broker, order_manager, risk_manager, alerts: whose books, and who is told.
        now_ms: engine time.
        working: symbols whose positions are not compared, because an order of ours may be filling right now.
        only_new: tell of differences that are not told yet; without it of all.
        seen: reasons of the differences of the last comparison. Of two views of one order, one may be older: they lock
            when they differ twice.
    Returns: the differences that stay, empty when both sides agree.
    Raises: BrokerError when the broker's book cannot be read.
    """
    book = order_manager.read_book(now_ms)
    if book is None:
        raise BrokerError("the broker's book could not be read for the reconcile; entries stay refused until it can")
    order_manager.apply_book(book, now_ms)
    theirs = BrokerBooks(orders=book, trades=(), positions=broker.positions())
    ours = _own_books(order_manager, risk_manager)
    rows = [
        row
        for row in compare(ours, theirs, product=risk_manager.product)
        if not (row.explanation or _is_watched(row, ours) or (row.kind in POSITION_KINDS and row.symbol in working))
    ]
    for (symbol, reason), why in locks_explained(ours, theirs, rows).items():
        if symbol not in working:
            risk_manager.unlock(symbol, reason, now_ms, why=why)
    facts = _count_positions(rows, theirs, order_manager, risk_manager, working, now_ms)
    to_tell = []
    for row in rows:
        is_new = False
        if row.reason and (row.kind in AT_ONCE_KINDS or row.reason in seen):
            is_new = risk_manager.lock(
                row.symbol, row.reason, now_ms, facts=facts.get(row.symbol) if row.kind in POSITION_KINDS else None
            )
        if is_new or not only_new:
            to_tell.append(row.line)
            _log.error("[RECONCILE] %s %s", row.kind.value, row.line, extra={"engine_ms": now_ms})
    if to_tell:
        alerts.send(Severity.CRITICAL, "Our books and the broker's differ", "; ".join(to_tell))
    return rows


def _is_watched(row: Difference, ours: OwnBooks) -> bool:
    """Return whether a row is about an order that order recovery looks for, or that is being sent now."""
    if row.kind is DifferenceKind.ORDER_MISSING:
        return ours.orders[row.subject].state in (OrderState.INTENT, OrderState.SUBMITTING, OrderState.UNKNOWN)
    return row.kind is DifferenceKind.LATE_ORDER


def _own_books(order_manager: OrderManager, risk_manager: RiskManager) -> OwnBooks:
    """Return our side as the engine has it. Its trades are the broker's: they were booked a moment ago."""
    return OwnBooks(
        orders=order_manager.orders,
        positions={p.symbol: p.quantity for p in order_manager.open_positions()},
        trades=None,
        locks=risk_manager.lock_reasons,
        not_placed=frozenset(order_manager.not_placed),
    )


def _count_positions(
    rows: Iterable[Difference],
    theirs: BrokerBooks,
    order_manager: OrderManager,
    risk_manager: RiskManager,
    working: frozenset[str],
    now_ms: int,
) -> dict[str, Body]:
    """Count what the broker holds beyond ours in slots and loss. Returns by symbol what the journal is to keep of it."""
    facts: dict[str, Body] = {}
    unpriced: dict[str, int] = {}
    lines = {p.symbol: p for p in theirs.positions if p.product is risk_manager.product}
    differing = {row.symbol: row for row in rows if row.kind in POSITION_KINDS}
    for symbol in set(risk_manager.unexplained) - differing.keys() - working:
        order_manager.count_unexplained(symbol, None, order_manager.mark_of(symbol))
    for symbol in differing:
        line = lines.get(symbol)
        position = order_manager.positions.get(symbol)
        own = position.quantity if position is not None else 0
        counted = risk_manager.unexplained.get(symbol)
        price_paise = order_manager.mark_of(symbol) or (line.last_price_paise if line is not None else 0)
        if line is None or not line.quantity:  # what only we hold goes on counting as ours
            if counted is not None:
                order_manager.count_unexplained(symbol, None, price_paise)
        elif not price_paise:
            unpriced[symbol] = line.quantity - own
        elif counted is None or line.quantity - own != counted.quantity:
            rest = _rest(line, own, counted, price_paise, now_ms)
            order_manager.count_unexplained(symbol, rest, price_paise)
            facts[symbol] = {"quantity": rest.quantity, "cost": rest.cost_paise, "price": price_paise}
    risk_manager.faults.note_unpriced(unpriced)
    return facts


def _rest(line: BrokerPosition, own: int, counted: OpenPosition | None, price_paise: int, now_ms: int) -> OpenPosition:
    """Return what the broker holds beyond ours, at the day's turnover where that makes it up, else at the price first seen.

    What was counted before keeps its cost; only what is new since comes at the price of now.
    """
    quantity = line.quantity - own
    if counted is None and not own and line.bought_quantity - line.sold_quantity == quantity:
        return OpenPosition(line.symbol, FOREIGN, quantity, line.bought_paise - line.sold_paise, now_ms)
    known = counted or OpenPosition(line.symbol, FOREIGN, 0, 0, now_ms)
    cost_paise = known.cost_paise + (quantity - known.quantity) * price_paise
    return OpenPosition(line.symbol, FOREIGN, quantity, cost_paise, known.opened_ms)


def align_ledger(order_manager: OrderManager, risk_manager: RiskManager) -> bool:
    """Rebuild the ledger when it differs from our reconciled books. Returns whether it was. Raises LedgerUnavailable."""
    known = risk_manager.snapshot
    positions = {
        p.symbol: OpenPosition(p.symbol, p.strategy_id, p.quantity, p.cost_paise, p.opened_ms)
        for p in order_manager.open_positions()
    }
    for symbol, rest in risk_manager.unexplained.items():
        positions.setdefault(symbol, rest)
    claims: dict[str, Claim] = {}
    last_entry_ms: dict[DedupKey, int] = dict(known.last_entry_ms)
    for order in order_manager.orders.values():
        if order.is_entry:
            key = (order.strategy_id, order.symbol, order.side)
            last_entry_ms[key] = max(last_entry_ms.get(key, 0), order.created_ms)
            given_up = order.client_order_id in order_manager.not_placed
            if order.is_live or (given_up and order.client_order_id not in order_manager.found_late):
                claims[order.client_order_id] = _claim_of(order, known, risk_manager)
    loss = order_manager.day_loss
    same = (
        not risk_manager.readiness.ledger_fault
        and {s: (p.quantity, p.strategy_id) for s, p in known.positions.items()}
        == {s: (p.quantity, p.strategy_id) for s, p in positions.items()}
        and set(known.claims) == set(claims)
        and known.realised_paise == loss.realised_paise
        and known.charges_paise == loss.charges_paise
    )
    if same:
        return False
    risk_manager.rebuild_ledger(
        RiskSnapshot(
            version=known.version,
            epoch=known.epoch,
            generation=known.generation,
            halts=known.halts,
            claims=claims,
            positions=positions,
            last_entry_ms=last_entry_ms,
            realised_paise=loss.realised_paise,
            charges_paise=loss.charges_paise,
        )
    )
    return True


def _claim_of(order: Order, known: RiskSnapshot, risk_manager: RiskManager) -> Claim:
    kept = known.claims.get(order.client_order_id)
    if kept is not None:
        return kept
    limits = risk_manager.limits
    price_paise = order.limit_price_paise or worst_price_paise(
        limits.max_position_size_paise // max(order.quantity, 1), limits.protection_bps
    )
    return Claim(
        order.client_order_id,
        order.strategy_id,
        order.symbol,
        order.side,
        order.quantity,
        order.quantity * price_paise,
        order.created_ms,
    )
