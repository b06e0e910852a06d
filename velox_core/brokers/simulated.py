"""The simulated broker: `ports.Broker` over a simulated exchange, with its own book file and its own bad days.

- `SimulatedMarket` gives it each minute before the engine sees it (`on_row`); what was sent before fills there.
- With a book, each accepted order, cancel and row of fills is in the file before the answer or the event comes out;
  reopening goes on where the file ends. A book that does not answer makes sends UNKNOWN, reads a BrokerError, and
  leaves a row unmatched until the next one, as a broker that is down would.
- With a fault plan, calls fail and updates go astray as the plan says. The book stays right: what a faulty update
  says is wrong, what `orders`, `trades` and `positions` say is not.
- A complete fill is announced by its `BrokerFill`; an `OrderUpdate` comes for what fills cannot say (a part, a cancel, a
  late rejection), and with a fault plan for completion too, as chatty brokers do.
- With neither book nor plan it is for one thread and fast; else a lock makes calls from several threads safe.
- It decides nothing about risk: every check here is one that a broker makes.
"""

from __future__ import annotations

import heapq
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from velox_core.brokers.faults import Fault, FaultKind, FaultPlan
from velox_core.brokers.simulated_desk import BrokerDesk
from velox_core.brokers.simulated_exchange import SimulatedExchange
from velox_core.brokers.simulated_orders import SimulatedOrder, SimulationConfig
from velox_core.domain.errors import BrokerError
from velox_core.domain.market.bars import MinuteRow, TickBatch
from velox_core.domain.market.ticks import Instrument
from velox_core.domain.orders import TERMINAL_STATES, OrderState
from velox_core.ports import BrokerFill, BrokerOrder, BrokerPosition, Funds, OrderUpdate, SendOutcome, SendStatus
from velox_core.risk.approval import ApprovedOrder

if TYPE_CHECKING:  # a replay without a book need not load SQLite
    from velox_core.brokers.book import SqliteBook

Event = OrderUpdate | BrokerFill
_ACKNOWLEDGED: Final = SendStatus.ACKNOWLEDGED
_REJECTED: Final = SendStatus.REJECTED
_UNKNOWN: Final = SendStatus.UNKNOWN
_ORDER_REJECTED: Final = OrderState.REJECTED
_NOT_ACCEPTED = frozenset({FaultKind.TIMEOUT_BEFORE, FaultKind.SERVER_ERROR})
_REPLY_LOST = frozenset({FaultKind.TIMEOUT_AFTER, FaultKind.TORN_REPLY, FaultKind.APPEARS_LATE})
_RMS_REASON = "RMS:Rule: Order blocked by risk management (injected)."


class SimulatedBroker:
    """One simulated account, live behind the Broker port."""

    def __init__(
        self,
        universe: tuple[str, ...],
        *,
        instruments: Mapping[str, Instrument],
        config: SimulationConfig,
        book: SqliteBook | None = None,
        faults: FaultPlan | None = None,
    ) -> None:
        """Open the account.

        Args:
            universe: symbols in the column order of every row.
            instruments: at least one for each symbol of the universe.
            config: how the exchange behaves.
            book: where it is kept; None keeps it in memory.
            faults: what goes wrong; None for nothing.
        Raises: BrokerError for a book that cannot be read; KeyError for a symbol without an instrument.
        """
        self._universe = universe
        self._instruments = instruments
        self._config = config
        self._book = book
        self._faults = faults
        self._lock = threading.RLock()
        self._stale = False
        self._now_ms = 0
        self._queue: list[Event] = []
        self._held: list[tuple[int, int, Event]] = []  # late events: due, number, event
        self._held_number = 0
        self._direct = book is None and faults is None
        self.exchange = SimulatedExchange(universe, instruments, config)
        self.exchange.says_completion = faults is not None
        if book is not None:
            book.restore(self.exchange)

    @property
    def name(self) -> str:
        """Return 'simulated'."""
        return "simulated"

    @property
    def desk(self) -> BrokerDesk:
        """Return the other hands on this account, for tests and drills: manual trades, the broker's own square-off."""
        return BrokerDesk(self)

    def on_row(self, row: MinuteRow, now_ms: int) -> None:
        """Take a minute of the market, and fill what it fills."""
        exchange = self.exchange
        closes = row.closes
        if 0 in closes:
            closes = [close or known for close, known in zip(closes, exchange.closes, strict=True)]
        exchange.closes = closes
        exchange.recent.append(row)
        if self._direct:
            if exchange.working:
                exchange.trade(row)
            return
        with self._lock:
            self._trade(row, now_ms)

    def on_ticks(self, batch: TickBatch, now_ms: int) -> None:
        """Take the ticks of one moment, and fill what they fill."""
        exchange = self.exchange
        closes, heard_ms, ts_ms = exchange.closes, exchange.heard_ms, batch.ts_ms
        if not heard_ms:
            heard_ms = exchange.heard_ms = [ts_ms] * len(closes)
        for column, price in zip(batch.columns, batch.prices, strict=True):
            closes[column] = price
            heard_ms[column] = ts_ms
        if self._direct:
            if exchange.working:
                exchange.trade_ticks(batch)
            return
        with self._lock:
            self._trade(batch, now_ms)

    def _trade(self, event: MinuteRow | TickBatch, now_ms: int) -> None:
        self.advance(now_ms)
        self._refresh_if_possible()
        if not self.exchange.working:
            return
        try:
            with self.operation(now_ms):
                if self._faults is not None:
                    self.exchange.locked = self._faults.locked_sides(event.ts_ms)
                if isinstance(event, TickBatch):
                    self.exchange.trade_ticks(event)
                else:
                    self.exchange.trade(event)
        except BrokerError:
            self._stale = True  # nothing traded; the orders wait for an event that the book can take

    def quote(self, closes: Sequence[int], heard_ms: Sequence[int] = ()) -> None:
        """Take the newest prices in column order, and fill nothing: another process makes the market.

        Args:
            closes: paise, 0 for none.
            heard_ms: where the day is one of ticks, when each column traded last, epoch ms.
        """
        with self._lock:
            self.exchange.closes = list(closes)
            if heard_ms:
                self.exchange.heard_ms = list(heard_ms)

    def settle(self, now_ms: int) -> None:
        """End the market data: MARKET orders fill at the last known price, other orders are cancelled.

        Orders of a locked symbol, and MARKET orders whose price ran beyond their protection, are cancelled too.
        While the book cannot be written the orders stay as they are; the next call tries again.
        """
        if self._direct:
            if self.exchange.working:
                self.exchange.settle(now_ms)
            return
        with suppress(BrokerError), self.operation(now_ms):
            self.exchange.settle(now_ms)

    def advance(self, now_ms: int) -> None:
        """Let engine time pass: late events come due, late orders become visible. Every call with a time does this."""
        with self._lock:
            if now_ms > self._now_ms:
                self._now_ms = now_ms
            while self._held and self._held[0][0] <= self._now_ms:
                self._queue.append(heapq.heappop(self._held)[2])

    def place(self, order: ApprovedOrder, now_ms: int) -> SendOutcome:
        """Send one order, once."""
        if not self._direct:
            return self._place_guarded(order, now_ms)
        accepted = self.exchange.accept(order, now_ms)
        if isinstance(accepted, str):
            return SendOutcome(_REJECTED, "", accepted)
        if accepted.state is _ORDER_REJECTED:
            return SendOutcome(_REJECTED, accepted.broker_order_id, accepted.reason)
        return SendOutcome(_ACKNOWLEDGED, accepted.broker_order_id)

    def cancel(self, broker_order_id: str, now_ms: int) -> SendOutcome:
        """Ask for a cancel; the update that follows says that it happened."""
        if self._direct:
            return self._cancel(broker_order_id, now_ms, None)
        with self._lock:
            self.advance(now_ms)
            try:
                with self.operation(now_ms):
                    found = self.exchange.orders.get(broker_order_id)
                    fault = None
                    if self._faults is not None and found is not None and self._is_cancellable(found):
                        fault = self._faults.on_cancel(found.listing.symbol, found.side, now_ms, broker_order_id)
                    return self._cancel(broker_order_id, now_ms, fault)
            except BrokerError as error:
                return SendOutcome(_UNKNOWN, broker_order_id, str(error))

    def drain_events(self) -> list[Event]:
        """Return what happened since the last call, in the order in which it became known."""
        if self._direct:
            events = self.exchange.events
            if not events:
                return []
            self.exchange.events = []
            return events
        with self._lock:
            self.advance(self._now_ms)
            events, self._queue = self._queue, []
            return events

    def orders(self) -> list[BrokerOrder]:
        """Return today's order book. Raises BrokerError."""
        with self._reading("orders"):
            return [_line(order) for order in self.exchange.orders.values() if order.visible_ms <= self._now_ms]

    def trades(self) -> list[BrokerFill]:
        """Return today's trades. Raises BrokerError."""
        with self._reading("trades"):
            return list(self.exchange.trades)

    def positions(self) -> list[BrokerPosition]:
        """Return the net positions, flat ones included once traded today. Raises BrokerError."""
        with self._reading("positions"):
            return [
                BrokerPosition(
                    symbol=position.symbol,
                    product=position.product,
                    quantity=position.quantity,
                    bought_quantity=position.turnover.bought_quantity,
                    sold_quantity=position.turnover.sold_quantity,
                    bought_paise=position.turnover.bought_paise,
                    sold_paise=position.turnover.sold_paise,
                    last_price_paise=self.exchange.last_price_paise(self.exchange.listing(position.symbol)),
                )
                for position in self.exchange.positions()
            ]

    def funds(self) -> Funds:
        """Return the account's cash before charges. Raises BrokerError."""
        with self._reading("funds"):
            exchange = self.exchange
            return Funds(
                available_paise=exchange.available_paise,
                margin_used_paise=exchange.margin_used_paise(),
            )

    def close(self) -> None:
        """Close the book file."""
        if self._book is not None:
            self._book.close()

    @contextmanager
    def operation(self, now_ms: int) -> Iterator[SimulatedExchange]:
        """Change the exchange in one transaction of the book; events come out after it. Raises BrokerError."""
        with self._lock:
            self.advance(now_ms)
            if self._book is None:
                yield self.exchange
            else:
                if self._book.begin() or self._stale:
                    self._stale = True
                    self._reload(self._book)
                self._stale = True  # until the transaction is through
                try:
                    yield self.exchange
                    self._book.commit(self.exchange)
                    self._stale = False
                finally:
                    self._book.roll_back()
            if not self._direct:
                self._deliver(now_ms)

    def _place_guarded(self, order: ApprovedOrder, now_ms: int) -> SendOutcome:
        with self._lock:
            self.advance(now_ms)
            fault = self._faults.on_place(order.symbol, order.side, now_ms) if self._faults is not None else None
            if fault is not None and fault.kind in _NOT_ACCEPTED:
                return SendOutcome(_UNKNOWN, "", f"{fault.kind} (injected)")
            try:
                with self.operation(now_ms) as exchange:
                    accepted = exchange.accept(order, now_ms)
                    if fault is not None:
                        return self._spoil_placed(accepted, fault, now_ms)
            except BrokerError as error:
                return SendOutcome(_UNKNOWN, "", str(error))
            return SendOutcome(_REJECTED, "", accepted) if isinstance(accepted, str) else _outcome(accepted)

    def _spoil_placed(self, accepted: SimulatedOrder | str, fault: Fault, now_ms: int) -> SendOutcome:
        kind = fault.kind
        if isinstance(accepted, str) or accepted.state is _ORDER_REJECTED:
            if kind in _REPLY_LOST:
                return SendOutcome(_UNKNOWN, "", f"{kind} (injected)")
            self._without_effect()
            return SendOutcome(_REJECTED, "", accepted) if isinstance(accepted, str) else _outcome(accepted)
        latency_ms = self._config.latency_ms
        if kind is FaultKind.APPEARS_LATE:
            accepted.visible_ms = now_ms + fault.delay_ms
            accepted.arrives_ms = accepted.visible_ms + latency_ms
        elif kind is FaultKind.REJECT:
            self.exchange.withdraw(accepted, _ORDER_REJECTED, _RMS_REASON)
        elif kind is FaultKind.REJECT_LATE:
            self.exchange.reject_late(accepted, now_ms + latency_ms, _RMS_REASON)
            return SendOutcome(_ACKNOWLEDGED, accepted.broker_order_id)
        elif kind is FaultKind.PARTIAL:
            accepted.first_part = accepted.quantity // 2
            if not accepted.first_part:
                self._without_effect()
        return SendOutcome(_UNKNOWN, "", f"{kind} (injected)") if kind in _REPLY_LOST else _outcome(accepted)

    def _cancel(self, broker_order_id: str, now_ms: int, fault: Fault | None) -> SendOutcome:
        exchange = self.exchange
        order = exchange.orders.get(broker_order_id)
        if order is None or order.visible_ms > self._now_ms:
            return SendOutcome(_REJECTED, broker_order_id, f"OrderException: Couldn't find the order {broker_order_id!r}.")
        if order.state in TERMINAL_STATES:
            return SendOutcome(
                _REJECTED, broker_order_id, f"OrderException: Order cannot be cancelled as it is {order.state.value}."
            )
        if fault is not None and fault.kind is FaultKind.CANCEL_LOST:
            return SendOutcome(_UNKNOWN, broker_order_id, f"{fault.kind} (injected)")
        if fault is not None and fault.kind is FaultKind.CANCEL_TOO_LATE:
            exchange.complete(order, exchange.remaining_price_paise(order), now_ms)
            return SendOutcome(_REJECTED, broker_order_id, "OrderException: Order cannot be cancelled as it is FILLED.")
        exchange.cancel(order, now_ms, "cancelled on request")
        if fault is not None:
            return SendOutcome(_UNKNOWN, broker_order_id, f"{fault.kind} (injected)")
        return SendOutcome(_ACKNOWLEDGED, broker_order_id)

    def _is_cancellable(self, order: SimulatedOrder) -> bool:
        return order.state not in TERMINAL_STATES and order.visible_ms <= self._now_ms

    @contextmanager
    def _reading(self, what: str) -> Iterator[None]:
        if self._direct:
            yield
            return
        with self._lock:
            if self._faults is not None and self._faults.on_read(what, self._now_ms) is not None:
                raise BrokerError(f"the simulated broker did not answer the read of {what} (injected); it can be repeated")
            self._refresh()
            yield

    def _refresh(self) -> None:
        """Read the book again when another process wrote it, or when our own last write failed."""
        if self._book is not None and (self._book.changed_elsewhere() or self._stale):
            self._stale = True
            self._reload(self._book)
            self._stale = False

    def _refresh_if_possible(self) -> None:
        try:
            self._refresh()
        except BrokerError:
            self._stale = True

    def _reload(self, book: SqliteBook) -> None:
        fresh = SimulatedExchange(self._universe, self._instruments, self._config)
        fresh.says_completion = self.exchange.says_completion
        fresh.closes = self.exchange.closes
        fresh.recent, fresh.heard_ms = self.exchange.recent, self.exchange.heard_ms
        fresh.locked = self.exchange.locked
        book.restore(fresh)
        self.exchange = fresh

    def _without_effect(self) -> None:
        if self._faults is not None:
            self._faults.without_effect()

    def _deliver(self, now_ms: int) -> None:
        """Move the exchange's events to the queue, through the plan, one order's change at a time."""
        events, self.exchange.events = self.exchange.events, []
        if self._faults is None:
            self._queue += events
            return
        start = 0
        for end in range(1, len(events) + 1):
            if end == len(events) or events[end].broker_order_id != events[start].broker_order_id:
                self._deliver_change(events[start:end], self._faults, now_ms)
                start = end

    def _deliver_change(self, change: list[Event], faults: FaultPlan, now_ms: int) -> None:
        broker_order_id = change[0].broker_order_id
        order = self.exchange.orders.get(broker_order_id)
        fault = None
        if order is not None:
            fault = faults.on_delivery(order.listing.symbol, order.side, now_ms, broker_order_id)
        if fault is None:
            self._queue += change
        elif fault.kind is FaultKind.UPDATE_LATE:
            for event in change:
                self._held_number += 1
                heapq.heappush(self._held, (now_ms + fault.delay_ms, self._held_number, event))
        else:
            spoiled = _spoiled(change, fault.kind)
            if spoiled is None:
                faults.without_effect()
            self._queue += change if spoiled is None else spoiled


def _outcome(order: SimulatedOrder) -> SendOutcome:
    if order.state is _ORDER_REJECTED:
        return SendOutcome(_REJECTED, order.broker_order_id, order.reason)
    return SendOutcome(_ACKNOWLEDGED, order.broker_order_id)


def _line(order: SimulatedOrder) -> BrokerOrder:
    return BrokerOrder(
        broker_order_id=order.broker_order_id,
        tag=order.tag,
        symbol=order.listing.symbol,
        side=order.side,
        quantity=order.quantity,
        filled_quantity=order.filled_quantity,
        state=order.state,
        product=order.position.product,
        limit_price_paise=order.limit_price_paise,
        placed_ms=order.placed_ms,
        reason=order.reason,
    )


def _spoiled(change: list[Event], kind: FaultKind) -> list[Event] | None:
    """Return what arrives instead of a change, or None when this kind cannot spoil it."""
    updates = [event for event in change if isinstance(event, OrderUpdate)]
    fills = [event for event in change if isinstance(event, BrokerFill)]
    if kind is FaultKind.UPDATE_LOST:
        return []
    if kind is FaultKind.UPDATE_DUPLICATED and updates:
        return [*change, *updates]
    if kind is FaultKind.FILL_DUPLICATED and fills:
        return [*change, *fills]
    if kind is FaultKind.UPDATES_SWAPPED and len(change) > 1:
        return change[::-1]
    if kind is FaultKind.QUANTITY_WRONG and updates:
        return [_with_wrong_quantity(event) if isinstance(event, OrderUpdate) else event for event in change]
    return None


def _with_wrong_quantity(update: OrderUpdate) -> OrderUpdate:
    return OrderUpdate(
        update.ts_ms, update.client_order_id, update.broker_order_id, update.state, update.filled_quantity + 1, update.reason
    )
