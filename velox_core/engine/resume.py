"""Taking a run up again: our own books from the journal, then the broker's word, then the ledger.

- The journal gives back every order and every fill; the broker's trades that it lacks are booked once.
- A position that still differs from the broker's is unexplained: its symbol is locked and a person is told.
- The ledger is rebuilt when its positions or claims are not those that journal and broker now say.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from velox_core.domain.errors import BrokerError
from velox_core.domain.events import Body, EventKind, JournalEvent
from velox_core.domain.orders import ExitRank, Order, OrderState, OrderType, Product, Side
from velox_core.order_manager import OrderManager
from velox_core.ports import Alerts, Broker, BrokerFill, Severity
from velox_core.risk.ledger import Claim, DedupKey, OpenPosition, RiskSnapshot
from velox_core.risk.sizing import worst_price_paise
from velox_core.risk_manager import RiskManager

RESUME_KINDS = (EventKind.INTENT, EventKind.ORDER, EventKind.FILL, EventKind.LOCK, EventKind.UNLOCK, EventKind.MARK)

_log = logging.getLogger("velox.system")


def restore(events: Iterable[JournalEvent], order_manager: OrderManager, risk_manager: RiskManager) -> int:
    """Take back orders, fills and locks from a run's journal. Returns the newest engine time seen, 0 for a fresh run."""
    newest_ms = 0
    last_state: dict[str, Body] = {}
    pending: list[JournalEvent] = []
    orders: dict[str, Order] = {}
    for event in events:
        newest_ms = max(newest_ms, event.ts_ms)
        body = event.body
        if event.kind is EventKind.INTENT:
            order = _order_of(body, event.ts_ms)
            orders[order.client_order_id] = order
        elif event.kind is EventKind.ORDER:
            last_state[str(body["client_order_id"])] = body
        elif event.kind is EventKind.FILL:
            pending.append(event)
        elif event.kind is EventKind.LOCK:
            risk_manager.note_lock(str(body["symbol"]), str(body["reason"]))
        elif event.kind is EventKind.UNLOCK:
            risk_manager.note_unlock(str(body["symbol"]), str(body["reason"]))
    risk_manager.continue_after(orders)
    for order_id, order in orders.items():
        known = last_state.get(order_id)
        # An intent without any answer may have reached the broker: UNKNOWN until the book says.
        order.state = OrderState(str(known["state"])) if known is not None else OrderState.UNKNOWN
        order.broker_order_id = str(known["broker_order_id"]) if known is not None else ""
        order_manager.restore(order)
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
                _int(body, "quantity"),
                _int(body, "price"),
            ),
            charges_paise=_int(body, "charges"),
        )
    return newest_ms


def disabled_strategies(events: Iterable[JournalEvent]) -> dict[str, str]:
    """Return the strategies that this run disabled, with why: they stay so for the day."""
    return {
        str(event.body["strategy"]): str(event.body["reason"]) for event in events if event.kind is EventKind.STRATEGY_DISABLED
    }


def _int(body: Body, key: str) -> int:
    value = body[key]
    if not isinstance(value, int):
        raise ValueError(f"journal event with {key} {value!r} where a number is due")
    return value


def _order_of(body: Body, ts_ms: int) -> Order:
    rank = body["rank"]
    return Order(
        client_order_id=str(body["client_order_id"]),
        strategy_id=str(body["strategy"]),
        symbol=str(body["symbol"]),
        side=Side(str(body["side"])),
        quantity=_int(body, "quantity"),
        order_type=OrderType(str(body["order_type"])),
        limit_price_paise=_int(body, "limit_price"),
        product=Product(str(body["product"])),
        rank=ExitRank(rank) if isinstance(rank, int) else None,
        created_ms=ts_ms,
        reason=str(body["reason"]),
        stop_paise=_int(body, "stop"),
        target_paise=_int(body, "target"),
    )


def reconcile(
    broker: Broker,
    order_manager: OrderManager,
    risk_manager: RiskManager,
    alerts: Alerts,
    now_ms: int,
    *,
    working: frozenset[str] = frozenset(),
    only_new: bool = False,
) -> list[str]:
    """Bring our books up to the broker's and lock what stays unexplained.

    Args:
        broker, order_manager, risk_manager, alerts: whose books, and who is told.
        now_ms: engine time.
        working: symbols whose positions are not compared, because an order of ours may be filling right now.
        only_new: tell of differences that are not told yet; without it of all.
    Returns: one line per difference that stays, empty when both sides agree.
    Raises: BrokerError when the broker's book cannot be read.
    """
    if not (order_manager.fetch_trades(now_ms) and order_manager.fetch_order_ends(now_ms)):
        raise BrokerError("the broker's book could not be read for the reconcile; entries stay refused until it can")
    held = {p.symbol: p.quantity for p in broker.positions() if p.quantity and p.product is risk_manager.product}
    ours = {p.symbol: p.quantity for p in order_manager.open_positions()}
    differences, to_tell = [], []
    for symbol in sorted((held.keys() | ours.keys()) - working):
        theirs, own = held.get(symbol, 0), ours.get(symbol, 0)
        if theirs != own:
            line = f"{symbol}: the broker holds {theirs}, the journal {own}"
            differences.append(line)
            is_new = risk_manager.lock(symbol, f"unexplained position: the broker holds {theirs}, the journal {own}", now_ms)
            if is_new or not only_new:
                to_tell.append(line)
                _log.error("[RECONCILE] %s", line)
    if to_tell:
        alerts.send(Severity.CRITICAL, "Unexplained positions", "; ".join(to_tell))
    return differences


def align_ledger(order_manager: OrderManager, risk_manager: RiskManager) -> bool:
    """Rebuild the ledger when it differs from our reconciled books. Returns whether it was. Raises LedgerUnavailable."""
    known = risk_manager.snapshot
    positions = {
        p.symbol: OpenPosition(p.symbol, p.strategy_id, p.quantity, p.cost_paise, p.opened_ms)
        for p in order_manager.open_positions()
    }
    claims: dict[str, Claim] = {}
    last_entry_ms: dict[DedupKey, int] = dict(known.last_entry_ms)
    for order in order_manager.orders.values():
        if order.is_entry:
            key = (order.strategy_id, order.symbol, order.side)
            last_entry_ms[key] = max(last_entry_ms.get(key, 0), order.created_ms)
            if order.is_live:
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
