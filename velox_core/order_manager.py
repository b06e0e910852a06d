"""OrderManager: journal the intent, send once, record what the broker says.

- The intent is durable before the request leaves. An entry whose intent cannot be made durable is not sent; an exit is
  sent all the same, and its events stay in the journal's buffer until the journal answers.
- The last thing before a request leaves is a look at the lease (`lease`): a process that was stopped meanwhile sends nothing.
- A POST is never repeated. An unclear answer is UNKNOWN: the symbol is locked and `order_recovery` looks for the tag.
- A fill counts once, by the broker's trade id. Positions, charges and P&L come from fills alone.
- An order is terminal only when its fills are all here: the broker's word "filled" without the trades waits for them.
- An exit that traded past the position is marked as overshot, so that what it opened is closed at once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from velox_core.broker_reads import RecentTrades, Tradeless, answer_of
from velox_core.domain.charges import ChargeSchedule
from velox_core.domain.errors import InvariantError
from velox_core.domain.events import EventKind
from velox_core.domain.money import rupees_text
from velox_core.domain.order_events import fill_body, intent_body, order_body, order_of
from velox_core.domain.orders import NOT_PLACED, TERMINAL_STATES, Order, OrderIntent, OrderState, Product, unknown_lock
from velox_core.domain.positions import ADOPTED_TRADE, FOREIGN, Position
from velox_core.durable_journal import DurableJournal
from velox_core.inline_sends import InlineSends
from velox_core.ports import (
    Broker,
    BrokerFill,
    BrokerOrder,
    Journal,
    Lease,
    OrderUpdate,
    SendOutcome,
    SendQueue,
    SendReport,
    SendStatus,
)
from velox_core.risk.approval import ApprovedOrder
from velox_core.risk.breach import DayLoss
from velox_core.risk.ledger import OpenPosition
from velox_core.risk_manager import RiskManager

CANCEL_INTERVAL_MS = 1_000  # an order is asked to be cancelled at most this often

_log = logging.getLogger("velox.orders")

# Members by a module name: reading one off its class costs 0.09 us, and every order passes here.
_INTENT, _ORDER, _FILL = EventKind.INTENT, EventKind.ORDER, EventKind.FILL
_SUBMITTING, _OPEN, _UNKNOWN, _FILLED = OrderState.SUBMITTING, OrderState.OPEN, OrderState.UNKNOWN, OrderState.FILLED
_ACKNOWLEDGED = SendStatus.ACKNOWLEDGED
_NOT_TAKEN = {SendStatus.REJECTED: OrderState.REJECTED, SendStatus.NOT_SENT: OrderState.CANCELLED}


class OrderManager:
    """All orders and positions of one engine.

    Args:
        broker, journal: the outside.
        risk_manager: told of every fill and of every claim that is resolved.
        day_loss: the running P&L; fills change it here.
        columns: symbol to column of the feed's universe, for the P&L sum.
        schedule: charges of the broker, product and date.
        on_position: called with the symbol whenever its position or its live orders changed.
        sends: where a broker called off the loop keeps what has not left; None when sends are inline.
        lease: asked before each request; None sends without one, as in a world with one process.
    """

    def __init__(
        self,
        *,
        broker: Broker,
        journal: Journal,
        risk_manager: RiskManager,
        day_loss: DayLoss,
        columns: Mapping[str, int],
        schedule: ChargeSchedule,
        on_position: Callable[[str], None] | None = None,
        sends: SendQueue | None = None,
        lease: Lease | None = None,
    ) -> None:
        self.orders: dict[str, Order] = {}
        self.live: dict[str, Order] = {}
        self.positions: dict[str, Position] = {}
        self.overshot: set[str] = set()  # symbols whose position an exit opened
        self.not_placed: dict[str, Order] = {}  # given up as not placed; their tags stay watched
        self.found_late: set[str] = set()  # those of them that appeared, ended and are booked
        self.unresolved_exits: dict[str, str] = {}  # UNKNOWN, and not replaced a second time: what a person has to know
        self.day_loss = day_loss
        self.tradeless, self.recent_trades = Tradeless(), RecentTrades()
        self.fill_count, self.last_trade_ms = 0, dict[str, int]()  # of a symbol, anybody's: when it was booked
        self._broker, self.sends = broker, sends or InlineSends()
        self._lease = lease
        self._journal = journal
        self._risk = risk_manager
        self._durable = DurableJournal(journal, risk_manager.faults, risk_manager.readiness)
        self._columns = dict(columns)
        self._schedule = schedule
        self.on_position = on_position
        self.is_adopted: Callable[[BrokerFill], bool] = lambda fill: False  # whether it is booked with what was adopted
        self._trade_ids: set[str] = set()
        self._awaiting_fills: dict[str, tuple[OrderState, int, str]] = {}  # state, filled quantity, reason
        self._cancel_asked_ms: dict[str, int] = {}

    # -- sending ----------------------------------------------------------------------------------------------

    def submit(self, approved: ApprovedOrder, intent: OrderIntent, now_ms: int) -> Order:
        """Journal the intent, send the order once and record the answer. Returns the order, whatever became of it.

        Raises: InvariantError for an order without approval, or submitted before; nothing is sent then.
        """
        if type(approved) is not ApprovedOrder or approved.client_order_id in self.orders:
            raise InvariantError(f"order {approved.client_order_id} is not approved or is submitted a second time")
        order = order_of(approved, intent, now_ms)
        self.orders[order.client_order_id] = self.live[order.client_order_id] = order
        self._journal.append(_INTENT, now_ms, intent_body(order, self._risk.snapshot.version))
        kept_back = self._durable.commit_intent(order, now_ms)
        if kept_back is None:
            order.move_to(_SUBMITTING, now_ms)
            lease = self._lease
            withheld = "" if lease is None else lease.withholds(entry=order.rank is None)
            outcome = SendOutcome(SendStatus.NOT_SENT, "", withheld) if withheld else self._broker.place(approved, now_ms)
            self._record_outcome(order, outcome, now_ms)
        elif kept_back.is_foreign_id:
            order.move_to(OrderState.CANCELLED, now_ms)  # not journaled: under this id the journal knows another order
            self._forget(order)
        else:
            self._end(order, OrderState.CANCELLED, now_ms, kept_back.reason, free=kept_back.frees_slot)
        return order

    def _record_outcome(self, order: Order, outcome: SendOutcome, now_ms: int) -> None:
        if outcome.status is _ACKNOWLEDGED:
            order.broker_order_id = outcome.broker_order_id
            if order.state is _SUBMITTING:
                self._move(order, _OPEN, now_ms, "")
        elif outcome.status in _NOT_TAKEN:
            self._end(order, _NOT_TAKEN[outcome.status], now_ms, outcome.reason)
        elif outcome.status is not SendStatus.PENDING:
            self._move(order, OrderState.UNKNOWN, now_ms, outcome.reason)
            self._risk.lock(order.symbol, unknown_lock(order), now_ms)
        if order.rank is None and self.on_position is not None:
            self.on_position(order.symbol)

    def doubt_submitting(self, now_ms: int) -> None:
        """Take sends without an answer for UNKNOWN: they may be in the market. What has not left is withdrawn first."""
        for order in list(self.live.values()):
            if order.state is OrderState.SUBMITTING and not self.sends.withdraw(order.client_order_id):
                self._record_outcome(order, SendOutcome(SendStatus.UNKNOWN, "", "the send broke off"), now_ms)

    def cancel(self, order: Order, reason: str, now_ms: int) -> None:
        """Ask the broker to cancel, if it was not asked a moment ago. The order stays live until the broker says it is not."""
        order_id = order.client_order_id
        if order.state is _SUBMITTING:
            self.sends.withdraw(order_id)
        if not order.broker_order_id or now_ms - self._cancel_asked_ms.get(order_id, -CANCEL_INTERVAL_MS) < CANCEL_INTERVAL_MS:
            return
        self._cancel_asked_ms[order_id] = now_ms
        outcome = self.send_cancel(order.broker_order_id, now_ms)
        _log.info(
            "[ORDER] cancel %s %s: %s %s", order_id, reason, outcome.status, outcome.reason, extra={"engine_ms": now_ms},
        )  # fmt: skip

    def send_cancel(self, broker_order_id: str, now_ms: int) -> SendOutcome:
        """Ask the broker to cancel an order of anybody, unless the lease forbids it."""
        withheld = "" if self._lease is None else self._lease.withholds(entry=False)
        return SendOutcome(SendStatus.NOT_SENT, "", withheld) if withheld else self._broker.cancel(broker_order_id, now_ms)

    def commit_journal(self) -> bool:
        """Make what was appended durable. Returns False, and has entries refused, when the journal does not answer."""
        return self._durable.commit()

    # -- receiving --------------------------------------------------------------------------------------------

    def poll(self, now_ms: int) -> int:
        """Take the broker's news. Returns how many pieces there were."""
        events = self._broker.drain_events()
        for event in events:
            if isinstance(event, BrokerFill):
                self.apply_fill(event, now_ms)
            elif isinstance(event, OrderUpdate):
                self.apply_update(event, now_ms)
            else:
                self.apply_report(event, now_ms)
        if events:
            self.commit_journal()
        return len(events)

    def apply_report(self, report: SendReport, now_ms: int) -> None:
        """Take the answer to a send that was PENDING, late or not. What the book or a fill said meanwhile is further."""
        order, outcome = self.orders.get(report.client_order_id), report.outcome
        if order is None:
            return
        if order.state is _SUBMITTING or (order.state is _UNKNOWN and outcome.status in _NOT_TAKEN):
            self._record_outcome(order, outcome, now_ms)
        elif outcome.status is _ACKNOWLEDGED:
            self.apply_update(OrderUpdate(now_ms, order.client_order_id, outcome.broker_order_id, _OPEN, 0), now_ms)

    def apply_update(self, update: OrderUpdate, now_ms: int) -> None:
        """Take one order update. Late, repeated and out-of-order ones change nothing that is already further."""
        order = self.orders.get(update.client_order_id)
        if order is None:
            return
        if not order.is_live:
            self._take_late(order, update, now_ms)
            return
        if update.broker_order_id:
            order.broker_order_id = update.broker_order_id
        if not 0 <= update.filled_quantity <= order.quantity:
            self._risk.lock(order.symbol, f"broker reports {update.filled_quantity} of {order.quantity} shares filled", now_ms)
            return
        state = update.state
        if state in TERMINAL_STATES:
            due = order.quantity if state is OrderState.FILLED else update.filled_quantity
            if order.filled_quantity < due:
                self._awaiting_fills[order.client_order_id] = (state, due, update.reason)
                self.fetch_trades(now_ms)
            else:
                self._end(order, state, now_ms, update.reason)
        elif order.state is OrderState.SUBMITTING or order.state is OrderState.UNKNOWN:
            self._explained(order, now_ms)
            self._move(order, OrderState.PARTIALLY_FILLED if order.filled_quantity else OrderState.OPEN, now_ms, "")

    def _take_late(self, order: Order, update: OrderUpdate, now_ms: int) -> None:
        """Cancel an order that was given up as not placed and works after all; any other late word changes nothing."""
        if order.state is OrderState.CANCELLED and not order.broker_order_id and update.broker_order_id:
            order.broker_order_id = update.broker_order_id
            if update.state not in TERMINAL_STATES:
                self.cancel(order, "it was given up as not placed", now_ms)

    def apply_fill(self, fill: BrokerFill, now_ms: int) -> None:
        """Book one trade, once."""
        if fill.trade_id in self._trade_ids or ADOPTED_TRADE + fill.client_order_id in self._trade_ids:
            return  # booked, or part of what was booked without its trades (`unheard_ends`)
        self._trade_ids.add(fill.trade_id)
        order = self.orders.get(fill.client_order_id)
        if order is None and self.is_adopted(fill):
            return
        if order is None:
            self._risk.lock(fill.symbol, "an order that this system did not make traded", now_ms, alert=True)
            if fill.product is not self._risk.product:
                return  # the owner's holdings are neither counted nor ever closed
        self._book(fill, order, now_ms)

    def _book(self, fill: BrokerFill, order: Order | None, now_ms: int) -> None:
        symbol, quantity, price_paise = fill.symbol, fill.quantity, fill.price_paise
        strategy_id = FOREIGN if order is None else order.strategy_id
        position = self.positions.get(symbol)
        if position is None:
            position = self.positions[symbol] = Position(symbol)
        held_before = position.quantity
        realised_paise = position.apply(fill.side.sign * quantity, price_paise)
        held = position.quantity
        charges_paise = self._charge(order, fill)
        loss = self.day_loss
        loss.realised_paise += realised_paise
        loss.charges_paise += charges_paise
        self._mark(symbol, held, position.cost_paise, price_paise)
        if held and (held_before == 0 or (held_before > 0) != (held > 0)):
            position.open_by(order, fill.ts_ms)
        if held or self.overshot:
            self._note_overshoot(position, order, fill, now_ms)
        self.fill_count += 1
        if not fill.trade_id.startswith(ADOPTED_TRADE):
            self.last_trade_ms[symbol] = max(fill.ts_ms, now_ms)  # heard of late, it is as fresh as one of now
            self.recent_trades.note(symbol, fill.ts_ms, fill.side.sign * quantity)
        self._journal.append(_FILL, fill.ts_ms, fill_body(fill, strategy_id, charges_paise, realised_paise, position))
        entry_ended = order is not None and self._advance(order, fill) and order.rank is None
        self._risk.record_fill(
            fill.trade_id,
            symbol=symbol,
            position=OpenPosition(symbol, position.strategy_id, held, position.cost_paise, position.opened_ms)
            if held
            else None,
            resolved_claim=fill.client_order_id if entry_ended else None,
            realised_paise=loss.realised_paise,
            charges_paise=loss.charges_paise,
        )
        if _log.isEnabledFor(logging.INFO):
            _log.info(
                "[FILL] %s %s %s %s @ %s, position %s, order %s", fill.trade_id, fill.side.value, quantity, symbol,
                rupees_text(price_paise), held, fill.client_order_id or "foreign", extra={"engine_ms": now_ms},
            )  # fmt: skip
        if self.on_position is not None:
            self.on_position(symbol)

    def _note_overshoot(self, position: Position, order: Order | None, fill: BrokerFill, now_ms: int) -> None:
        if not position.quantity:
            self.overshot.discard(position.symbol)
        elif order is not None and position.is_opened_by_exit(order, fill.side):
            self.overshot.add(position.symbol)
            self._risk.lock(position.symbol, f"exit {order.client_order_id} traded past the position", now_ms, alert=True)

    def _charge(self, order: Order | None, fill: BrokerFill) -> int:
        """Return the charges this fill adds: of the whole executed order so far, less what it was charged already."""
        if order is None:  # what was found in the positions has no order at all: it was charged when it was traded
            return self._schedule.order_charges_paise(fill.side, fill.quantity * fill.price_paise) * bool(fill.broker_order_id)
        order.filled_value_paise += fill.quantity * fill.price_paise
        charged_paise = order.charges_paise
        order.charges_paise = self._schedule.order_charges_paise(order.side, order.filled_value_paise)
        return order.charges_paise - charged_paise

    def _advance(self, order: Order, fill: BrokerFill) -> bool:
        """Move an order on after a fill. Returns whether it is terminal now."""
        order.filled_quantity += fill.quantity
        if not order.is_live:
            self._risk.lock(order.symbol, f"late fill {fill.trade_id} on the ended order {order.client_order_id}", fill.ts_ms)
            return False
        if not order.broker_order_id:
            order.broker_order_id = fill.broker_order_id
        if order.filled_quantity >= order.quantity:
            if order.filled_quantity > order.quantity:
                self._risk.lock(
                    order.symbol,
                    f"order {order.client_order_id} filled {order.filled_quantity} of {order.quantity}",
                    fill.ts_ms,
                )
            if order.state is _UNKNOWN:
                self._explained(order, fill.ts_ms)
            self._move(order, _FILLED, fill.ts_ms, "")
            self._forget(order)
            return True
        self._explained(order, fill.ts_ms)
        self._move(order, OrderState.PARTIALLY_FILLED, fill.ts_ms, "")
        ended = self._awaiting_fills.get(order.client_order_id)
        if ended is None or order.filled_quantity < ended[1]:
            return False
        self._end(order, ended[0], fill.ts_ms, ended[2], free=False)
        return True

    def _move(self, order: Order, state: OrderState, at_ms: int, reason: str) -> None:
        order.move_to(state, at_ms)
        self._journal.append(_ORDER, at_ms, order_body(order, reason))
        if _log.isEnabledFor(logging.INFO):
            _log.info(
                "[ORDER] %s %s %s %s %s: %s%s", order.client_order_id, order.strategy_id or "foreign", order.side.value,
                order.quantity, order.symbol, state.value, f" - {reason}" if reason else "", extra={"engine_ms": at_ms},
            )  # fmt: skip

    def _end(self, order: Order, state: OrderState, at_ms: int, reason: str, *, free: bool = True) -> None:
        if state is OrderState.REJECTED and order.filled_quantity:
            state = OrderState.CANCELLED  # the broker rejected the rest; what traded, traded
        self._explained(order, at_ms)
        self._move(order, state, at_ms, reason)
        self._forget(order)
        if free and order.is_entry:
            self._risk.resolve_claim(order.client_order_id)
        if self.on_position is not None:
            self.on_position(order.symbol)

    def _forget(self, order: Order) -> None:
        order_id = order.client_order_id
        self.live.pop(order_id, None)
        self._awaiting_fills.pop(order_id, None)
        self._cancel_asked_ms.pop(order_id, None)

    def _explained(self, order: Order, now_ms: int) -> None:
        if order.state is _UNKNOWN:
            self.unresolved_exits.pop(order.client_order_id, None)
            self._risk.unlock(order.symbol, unknown_lock(order), now_ms)

    def _mark(self, symbol: str, held: int, cost_paise: int, price_paise: int) -> None:
        column = self._column(symbol)
        if self._risk.unexplained:
            rest = self._risk.unexplained.get(symbol)
            if rest is not None:
                held, cost_paise = held + rest.quantity, cost_paise + rest.cost_paise
        self.day_loss.book(column, held, cost_paise, price_paise)
        if column < 0:
            self._risk.faults.note_unmarked(symbol, held)

    def _column(self, symbol: str) -> int:
        return self._columns.setdefault(symbol, -1 - len(self._columns))

    # -- reading the book -------------------------------------------------------------------------------------

    def fetch_trades(self, now_ms: int) -> bool:
        """Book every trade of the broker's list that is not booked yet. Returns False when the broker did not answer."""
        trades = answer_of(self._broker.trades, "trade list", now_ms)
        self.tradeless.note(now_ms, answered=trades is not None)
        for trade in trades or ():
            self.apply_fill(trade, now_ms)
        return trades is not None

    def read_book(self, now_ms: int) -> list[BrokerOrder] | None:
        """Return the broker's order book, its trades booked, and never use a tag in it again. None: no answer."""
        book = self.read_orders(now_ms)  # before its trades: what it calls ended is booked then, and not closed a second time
        return book if self.fetch_trades(now_ms) else None

    def read_orders(self, now_ms: int) -> list[BrokerOrder] | None:
        """Return the broker's order book without its trades, and never use a tag in it again. None: no answer."""
        book = answer_of(self._broker.orders, "order book", now_ms)
        self._risk.continue_after(line.tag for line in book or ())
        return book

    def read_position(self, symbol: str, now_ms: int) -> int | None:
        """Return the broker's signed net position of a symbol in the day's product. None: no answer."""
        positions, product = answer_of(self._broker.positions, "positions", now_ms), self._risk.product
        return None if positions is None else sum(p.quantity for p in positions if (p.symbol, p.product) == (symbol, product))

    def note_doubtful_exits(self, order_ids: str) -> None:
        """Refuse all entries while these exits are UNKNOWN ('': none): what they may still open would have no slot."""
        self._risk.readiness.doubtful_exits = order_ids

    def fetch_order_ends(self, now_ms: int) -> bool:
        """Bring every live order up to the broker's order book. Returns False when the broker did not answer."""
        book = self.read_book(now_ms)
        if book is not None:
            self.apply_book(book, now_ms)
        return book is not None

    def apply_book(self, book: list[BrokerOrder], now_ms: int) -> None:
        """Bring every live order up to what the broker's order book says of it."""
        for line in book:
            order = self.live.get(line.tag) if line.tag else None
            if order is not None:
                self.apply_update(
                    OrderUpdate(line.placed_ms, line.tag, line.broker_order_id, line.state, line.filled_quantity, line.reason),
                    now_ms,
                )

    def settle_not_placed(self, order: Order, now_ms: int) -> None:
        """End an UNKNOWN order that never reached the book. Its symbol stays locked for the day; the tag stays known."""
        self._risk.lock(order.symbol, unknown_lock(order), now_ms)
        self.unresolved_exits.pop(order.client_order_id, None)
        self._move(order, OrderState.CANCELLED, now_ms, f"{NOT_PLACED}: not in the broker's book")
        self._forget(order)
        self.not_placed[order.client_order_id] = order
        if self.on_position is not None:
            self.on_position(order.symbol)

    def settle_late(self, order: Order) -> None:
        """End the watch for an order that was given up: it appeared, is over and booked. Its slot is free, its symbol not."""
        self.found_late.add(order.client_order_id)
        self._risk.resolve_claim(order.client_order_id)

    def count_unexplained(self, symbol: str, rest: OpenPosition | None, price_paise: int) -> None:
        """Count in slots and loss what the broker holds beyond our books (None: nothing any more), marked at a price."""
        position = self.positions.get(symbol)
        held, cost_paise = (position.quantity, position.cost_paise) if position is not None else (0, 0)
        self._risk.count_unexplained(symbol, rest, is_held=held != 0)
        self._mark(symbol, held, cost_paise, price_paise)

    # -- views ------------------------------------------------------------------------------------------------

    @property
    def product(self) -> Product:
        """Return the day's product."""
        return self._risk.product

    def mark_of(self, symbol: str) -> int:
        """Return the last mark of a held symbol in paise, 0 when it is not held."""
        held = self.day_loss.open_marks.get(self._column(symbol))
        return 0 if held is None else held.mark_paise

    def open_positions(self) -> list[Position]:
        """Return the positions that are not flat, in the order in which their symbols were first traded."""
        return [position for position in self.positions.values() if position.quantity]

    def live_orders(self, symbol: str, *, entries: bool) -> list[Order]:
        """Return the symbol's live entries, or its live exits."""
        return [order for order in self.live.values() if order.symbol == symbol and (order.rank is None) is entries]

    def is_flat(self) -> bool:
        """Return whether, by our own books, nothing is held and nothing is live. The broker has the last word."""
        return not self.live and not any(position.quantity for position in self.positions.values())

    # -- resuming ---------------------------------------------------------------------------------------------

    def restore(self, order: Order, *, given_up: bool = False) -> None:
        """Take back an order read from the journal, before any fill of it is restored. `given_up`: as not placed."""
        self.orders[order.client_order_id] = order
        if order.is_live:
            self.live[order.client_order_id] = order
        elif given_up:
            self.not_placed[order.client_order_id] = order

    def restore_fill(self, fill: BrokerFill, *, charges_paise: int) -> None:
        """Take back a fill read from the journal, once: books it without journaling it again.

        What it realised is worked out anew: an engine that could not read the journal may have noted it out of order.
        """
        if fill.trade_id in self._trade_ids:
            return
        self._trade_ids.add(fill.trade_id)
        order = self.orders.get(fill.client_order_id)
        position = self.positions.setdefault(fill.symbol, Position(fill.symbol))
        held_before = position.quantity
        self.day_loss.realised_paise += position.apply(fill.side.sign * fill.quantity, fill.price_paise)
        if position.quantity and (held_before == 0 or (held_before > 0) != (position.quantity > 0)):
            position.open_by(order, fill.ts_ms)
        if order is not None:
            order.filled_quantity += fill.quantity
            order.filled_value_paise += fill.quantity * fill.price_paise
            order.charges_paise += charges_paise
        self.fill_count += 1
        self.last_trade_ms[fill.symbol] = fill.ts_ms
        self.recent_trades.note(fill.symbol, fill.ts_ms, fill.side.sign * fill.quantity)
        self.day_loss.charges_paise += charges_paise
        self._mark(fill.symbol, position.quantity, position.cost_paise, fill.price_paise)
