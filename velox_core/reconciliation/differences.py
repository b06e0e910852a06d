"""The table of differences: one row for each thing on which the two sides do not agree, with what explains it.

- A row is explained by the broker's own trades and order ends, or it is not; what is not locks its symbol.
- A trade by hand, or of another program, is explained: it is the account's, it counts, and its symbol stays locked.
- The broker's own square-off is told from a trade by hand by its time: it closes, after the hard stop.
- Only the day's product is judged; the owner's holdings are nobody's business here.
- A lock of a difference that is gone is taken back only where trades or an order's end explain why it is gone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from velox_core.domain.money import rupees_text
from velox_core.domain.orders import TERMINAL_STATES, Order, OrderState, Product, unknown_lock
from velox_core.domain.positions import ADOPTED_TRADE
from velox_core.ports import BrokerFill, BrokerOrder
from velox_core.reconciliation.books import BrokerBooks, OwnBooks

NEVER_MS = 1 << 60
UNEXPLAINED = "unexplained "
_POSITION_LOCK = re.compile(r"unexplained position: the broker holds (-?\d+), the journal (-?\d+)")
_ORDER_LOCK = re.compile(r"unexplained order (\S+):")
_OWN_TAG = re.compile(r"\d{6}[EGC]\d{11}")
_FOUND = "found in the broker's positions when everything was closed, and booked so that it was closed too"
_UNANSWERED = (OrderState.INTENT, OrderState.SUBMITTING, OrderState.UNKNOWN)


class DifferenceKind(StrEnum):
    """What differs."""

    FOREIGN_TRADE = "FOREIGN_TRADE"  # by hand, or of another program
    BROKER_SQUARE_OFF = "BROKER_SQUARE_OFF"
    MISSING_FILL = "MISSING_FILL"  # the broker's trade of an order of ours that we have not booked
    EXTRA_FILL = "EXTRA_FILL"  # booked here, not in the broker's list
    PARTIAL_FILL = "PARTIAL_FILL"  # the order filled further there than here
    FOREIGN_ORDER = "FOREIGN_ORDER"  # works at the broker, made elsewhere
    ORPHAN_ORDER = "ORPHAN_ORDER"  # carries a tag of this system, and the journal has no intent of it
    ORDER_MISSING = "ORDER_MISSING"  # live here, not in the broker's book
    ORDER_STATE = "ORDER_STATE"  # live on one side, ended on the other
    LATE_ORDER = "LATE_ORDER"  # given up as not placed, and there after all
    POSITION_AT_BROKER_ONLY = "POSITION_AT_BROKER_ONLY"
    POSITION_HERE_ONLY = "POSITION_HERE_ONLY"
    POSITION_DIFFERS = "POSITION_DIFFERS"


POSITION_KINDS = frozenset(
    {DifferenceKind.POSITION_AT_BROKER_ONLY, DifferenceKind.POSITION_HERE_ONLY, DifferenceKind.POSITION_DIFFERS}
)
AT_ONCE_KINDS = POSITION_KINDS | {DifferenceKind.FOREIGN_ORDER, DifferenceKind.ORPHAN_ORDER}


class Verdict(StrEnum):
    """What became of a difference."""

    EXPLAINED = "EXPLAINED"
    LOCKED = "LOCKED"  # not explained, and its symbol takes no entries
    OPEN = "OPEN"  # neither


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One row.

    Attributes:
        kind, symbol: what, and in which symbol.
        subject: the order, trade or symbol it is about; with the kind it names the row from one look to the next.
        ours, theirs: both sides in words.
        explanation: what explains it, '' when nothing does.
        lock: the reasons for which the symbol is locked already, '' for none.
        reason: for which an unexplained row locks its symbol.
    """

    kind: DifferenceKind
    symbol: str
    subject: str
    ours: str
    theirs: str
    explanation: str = ""
    lock: str = ""
    reason: str = ""

    @property
    def verdict(self) -> Verdict:
        """Return whether the row is explained, locked or open."""
        return Verdict.EXPLAINED if self.explanation else Verdict.LOCKED if self.lock else Verdict.OPEN

    @property
    def line(self) -> str:
        """Return the row in one line."""
        return f"{self.symbol}: the broker: {self.theirs}; here: {self.ours}"

    def to_json(self) -> dict[str, str]:
        """Return the row as plain values."""
        return {
            "kind": self.kind.value,
            "symbol": self.symbol,
            "subject": self.subject,
            "ours": self.ours,
            "theirs": self.theirs,
            "verdict": self.verdict.value,
            "explanation": self.explanation,
            "lock": self.lock,
        }


def position_lock(theirs: int, own: int) -> str:
    """Return the reason for which an unexplained position locks its symbol."""
    return f"{UNEXPLAINED}position: the broker holds {theirs}, the journal {own}"


def compare(
    ours: OwnBooks, theirs: BrokerBooks, *, product: Product, broker_closes_from_ms: int = NEVER_MS
) -> list[Difference]:
    """Return every difference, by symbol.

    Args:
        ours, theirs: the two sides.
        product: the day's product.
        broker_closes_from_ms: engine time from which on the broker squares off by itself.
    """
    due = _unbooked(ours, theirs, product)
    rows = [
        *_trade_rows(ours, theirs, product, broker_closes_from_ms),
        *_order_rows(ours, theirs, product, due),
        *_missing_orders(ours, theirs),
        *_position_rows(ours, theirs, product, due),
    ]
    return sorted(rows, key=lambda row: (row.symbol, row.kind.value, row.subject))


def _lock_of(ours: OwnBooks, symbol: str) -> str:
    return "; ".join(ours.locks.get(symbol, ()))


def _counts(trade: BrokerFill, ours: OwnBooks, product: Product) -> bool:
    return trade.client_order_id in ours.orders or trade.product is product


def _unbooked(ours: OwnBooks, theirs: BrokerBooks, product: Product) -> list[BrokerFill]:
    if ours.trades is None:
        return []
    return [trade for trade in theirs.trades if trade.trade_id not in ours.trades and _counts(trade, ours, product)]


def _trade_text(trade: BrokerFill) -> str:
    return f"{trade.side} {trade.quantity} @ {rupees_text(trade.price_paise)}"


def _trade_rows(ours: OwnBooks, theirs: BrokerBooks, product: Product, closes_from_ms: int) -> Iterable[Difference]:
    booked = ours.trades
    if booked is None:
        return
    for trade in theirs.trades:
        is_booked = trade.trade_id in booked
        if trade.client_order_id in ours.orders:
            if not is_booked:
                yield Difference(
                    kind=DifferenceKind.MISSING_FILL,
                    symbol=trade.symbol,
                    subject=trade.trade_id,
                    ours="not booked",
                    theirs=f"{_trade_text(trade)}, order {trade.client_order_id}",
                    explanation="a trade of an order of ours; the engine books it at its next reconcile",
                    lock=_lock_of(ours, trade.symbol),
                )
        elif trade.product is product:
            by_broker = trade.ts_ms >= closes_from_ms and not trade.client_order_id
            said = "booked, counted" if is_booked else "booked and counted at the engine's next reconcile"
            yield Difference(
                kind=DifferenceKind.BROKER_SQUARE_OFF if by_broker else DifferenceKind.FOREIGN_TRADE,
                symbol=trade.symbol,
                subject=trade.trade_id,
                ours="booked, no order of ours" if is_booked else "not booked",
                theirs=f"{_trade_text(trade)}, order {trade.broker_order_id}",
                explanation=f"{'the broker closed it' if by_broker else 'by hand or by another program'}; {said}, no entries",
                lock=_lock_of(ours, trade.symbol),
            )
    known = {trade.trade_id for trade in theirs.trades}
    for trade_id, own in booked.items():
        if trade_id not in known:
            yield Difference(
                kind=DifferenceKind.EXTRA_FILL,
                symbol=own.symbol,
                subject=trade_id,
                ours=f"{own.signed_quantity:+d}, order {own.client_order_id or 'foreign'}",
                theirs="no such trade",
                explanation=_FOUND if trade_id.startswith(ADOPTED_TRADE) else "",
                lock=_lock_of(ours, own.symbol),
            )


def _order_rows(ours: OwnBooks, theirs: BrokerBooks, product: Product, due: list[BrokerFill]) -> Iterable[Difference]:
    for line in theirs.orders:
        own = ours.orders.get(line.tag) if line.tag else None
        if own is None:
            if line.state not in TERMINAL_STATES and line.product is product:
                yield _foreign_order(ours, line)
            continue
        if own.client_order_id in ours.not_placed:
            yield _late_order(ours, own, line)
            continue
        if own.state is line.state and own.filled_quantity == line.filled_quantity:
            continue
        row = _known_order(ours, own, line, due)
        if row is not None:
            yield row


def _foreign_order(ours: OwnBooks, line: BrokerOrder) -> Difference:
    is_orphan = _OWN_TAG.fullmatch(line.tag) is not None
    text = f"{line.side} {line.quantity - line.filled_quantity} works"
    whose = f"its tag {line.tag} has no intent" if is_orphan else "not made by this system"
    return Difference(
        kind=DifferenceKind.ORPHAN_ORDER if is_orphan else DifferenceKind.FOREIGN_ORDER,
        symbol=line.symbol,
        subject=line.broker_order_id,
        ours=whose,
        theirs=f"order {line.broker_order_id}: {text}",
        lock=_lock_of(ours, line.symbol),
        reason=f"{UNEXPLAINED}order {line.broker_order_id}: {text} at the broker, {whose}",
    )


def _late_order(ours: OwnBooks, own: Order, line: BrokerOrder) -> Difference:
    is_over = line.state in TERMINAL_STATES and own.filled_quantity == line.filled_quantity
    return Difference(
        kind=DifferenceKind.LATE_ORDER,
        symbol=own.symbol,
        subject=own.client_order_id,
        ours=f"given up as not placed, {own.filled_quantity} booked",
        theirs=f"{line.state.value}, {line.filled_quantity} of {line.quantity} filled",
        explanation="it appeared late, it is over and its fills are booked; no entries for the day" if is_over else "",
        lock=_lock_of(ours, own.symbol),
        reason=unknown_lock(own),
    )


def _known_order(ours: OwnBooks, own: Order, line: BrokerOrder, due: list[BrokerFill]) -> Difference | None:
    coming = sum(trade.quantity for trade in due if trade.client_order_id == own.client_order_id)
    is_counted = own.filled_quantity + coming == line.filled_quantity
    is_over = line.state in TERMINAL_STATES
    if own.is_live is not is_over and is_counted and own.state is not OrderState.UNKNOWN and not coming:
        return None  # both live, or both over, in states that say the same
    explanation = ""
    if own.is_live and is_counted:
        found = (
            "found by its tag" if own.state is OrderState.UNKNOWN else "its fills are in the broker's list" if coming else ""
        )
        explanation = f"{found or 'it ended there'}; the engine takes it over at its next reconcile"
    elif is_over and is_counted:
        explanation = "the broker's trades explain it; the engine books them at its next reconcile"
    same_side = own.is_live is not is_over
    return Difference(
        kind=DifferenceKind.PARTIAL_FILL if same_side and own.state is not OrderState.UNKNOWN else DifferenceKind.ORDER_STATE,
        symbol=own.symbol,
        subject=own.client_order_id,
        ours=f"{own.state.value}, {own.filled_quantity} of {own.quantity} filled",
        theirs=f"{line.state.value}, {line.filled_quantity} of {line.quantity} filled",
        explanation=explanation,
        lock=_lock_of(ours, own.symbol),
        reason=f"{UNEXPLAINED}order {own.client_order_id}: the broker has it {line.state.value} with {line.filled_quantity} "
        f"filled, the journal {own.state.value} with {own.filled_quantity}",
    )


def _missing_orders(ours: OwnBooks, theirs: BrokerBooks) -> Iterable[Difference]:
    tags = {line.tag for line in theirs.orders}
    for own in ours.orders.values():
        if own.is_live and own.client_order_id not in tags:
            is_open_question = own.state in _UNANSWERED
            yield Difference(
                kind=DifferenceKind.ORDER_MISSING,
                symbol=own.symbol,
                subject=own.client_order_id,
                ours=f"{own.state.value}, {own.side} {own.open_quantity}",
                theirs="not in the book",
                lock=_lock_of(ours, own.symbol),
                reason=unknown_lock(own)
                if is_open_question
                else f"{UNEXPLAINED}order {own.client_order_id}: {own.state.value} here, not in the broker's book",
            )


def _position_rows(ours: OwnBooks, theirs: BrokerBooks, product: Product, due: list[BrokerFill]) -> Iterable[Difference]:
    held = {p.symbol: p.quantity for p in theirs.positions if p.quantity and p.product is product}
    for symbol in held.keys() | {symbol for symbol, quantity in ours.positions.items() if quantity}:
        at_broker, here = held.get(symbol, 0), ours.positions.get(symbol, 0)
        if at_broker == here:
            continue
        coming = [trade for trade in due if trade.symbol == symbol]
        is_explained = here + sum(trade.side.sign * trade.quantity for trade in coming) == at_broker
        kind = (
            DifferenceKind.POSITION_AT_BROKER_ONLY
            if not here
            else DifferenceKind.POSITION_HERE_ONLY
            if not at_broker
            else DifferenceKind.POSITION_DIFFERS
        )
        yield Difference(
            kind=kind,
            symbol=symbol,
            subject=symbol,
            ours=f"{here} shares",
            theirs=f"{at_broker} shares",
            explanation=f"by the broker's trades {', '.join(trade.trade_id for trade in coming)}" if is_explained else "",
            lock=_lock_of(ours, symbol),
            reason=position_lock(at_broker, here),
        )


def locks_explained(ours: OwnBooks, theirs: BrokerBooks, rows: Iterable[Difference]) -> Mapping[tuple[str, str], str]:
    """Return the locks of differences that are gone, as (symbol, reason), each with what explains that it is gone.

    A position's lock ends when trades that arrived since have changed our own position; an order's when the broker's book
    has it as ended, or when the order is found. A difference that went away by itself stays locked.
    """
    standing = {(row.symbol, row.reason) for row in rows if not row.explanation}
    still_differs = {row.symbol for row in rows if row.kind in POSITION_KINDS}
    lines = {line.broker_order_id: line for line in theirs.orders} | {line.tag: line for line in theirs.orders if line.tag}
    explained: dict[tuple[str, str], str] = {}
    for symbol, reasons in ours.locks.items():
        for reason in reasons:
            if (symbol, reason) in standing:
                continue
            position, order = _POSITION_LOCK.fullmatch(reason), _ORDER_LOCK.match(reason)
            if position is not None and ours.positions.get(symbol, 0) != int(position[2]):
                now = "they differ otherwise now" if symbol in still_differs else "the broker's trades explain it"
                explained[symbol, reason] = f"trades arrived since: {now}"
            elif order is not None:
                why = _order_is_over(ours, lines, order[1])
                if why:
                    explained[symbol, reason] = why
    return explained


def _order_is_over(ours: OwnBooks, lines: Mapping[str, BrokerOrder], order_id: str) -> str:
    line, own = lines.get(order_id), ours.orders.get(order_id)
    if own is not None and line is not None:
        return f"order {order_id} is {line.state.value} on both sides"
    if line is not None and line.state in TERMINAL_STATES:
        return f"order {order_id} ended at the broker: {line.state.value}"
    return ""
