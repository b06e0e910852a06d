"""Any broker, called off the loop: sends and reads on threads of their own, outcomes as events.

- `place` and `cancel` return at once: PENDING, or NOT_SENT where a bound is reached. What became of a send comes out of
  `drain_events` as a `SendReport`, before the broker's own news. `sends` has the rules.
- `orders`, `trades` and `positions` are one question, read in this order: whatever the order list calls ended is in the
  trades and in the positions that follow it, so that no fill falls between them. `answers` has the rules.
- The broker's own `drain_events` is called by the one who drains: by its contract it does not wait.
- It decides nothing about risk, and never repeats a send.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial

from velox_core.brokers.answers import Answers, ReadBounds
from velox_core.brokers.rate_limit import RateLimit
from velox_core.brokers.sends import Launch, Request, RequestKind, SendBounds, Sends
from velox_core.ports import (
    Broker,
    BrokerEvent,
    BrokerFill,
    BrokerOrder,
    BrokerPosition,
    Funds,
    Lease,
    OrderUpdate,
    SendOutcome,
    SendStatus,
)
from velox_core.risk.approval import ApprovedOrder

Book = tuple[list[BrokerOrder], list[BrokerFill], list[BrokerPosition]]
CLOSE_SECONDS_MAX = 6.0  # so long the end waits for answers that are still owed


class OffLoopBroker:
    """A broker behind the Broker port whose calls keep nobody waiting.

    Args:
        broker: the broker itself; its methods are called from several threads at once.
        send_bounds, read_bounds: how long, and how many.
        lease: asked before each request, on its thread; None sends without one.
        rate: how many orders and cancels may leave in a second; None for any number.
        monotonic: seconds that never go back.
        launch: begins a send; None does it on a thread.
    """

    def __init__(
        self,
        broker: Broker,
        *,
        send_bounds: SendBounds | None = None,
        read_bounds: ReadBounds | None = None,
        lease: Lease | None = None,
        rate: RateLimit | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        launch: Launch | None = None,
    ) -> None:
        bounds = read_bounds or ReadBounds()
        self.rate = rate
        self._broker = broker
        self._lease = lease
        self._sends = Sends(
            send_bounds or SendBounds(), monotonic, lambda: self._book.is_overdue, self._withholds, launch, rate
        )
        self._heard = 0
        self._symbols: dict[str, str] = {}  # of client order ids and of the broker's ids
        self._book: Answers[Book] = Answers("book", self._read_book, self._generation, bounds, monotonic)
        self._funds: Answers[Funds] = Answers("funds", broker.funds, self._generation, bounds, monotonic)

    @property
    def name(self) -> str:
        """Return the broker's name."""
        return self._broker.name

    def waiting(self) -> int:
        """Return how many requests wait or are on their way, hung ones included. Waits for nobody: it may be one behind."""
        return self._sends.depth

    def place(self, order: ApprovedOrder, now_ms: int) -> SendOutcome:
        """Have one order sent, once. PENDING until its report comes; NOT_SENT when it never will be."""
        self._symbols[order.client_order_id] = order.symbol
        kind = RequestKind.ENTRY if order.rank is None else RequestKind.EXIT
        return self._add(Request(kind, order.symbol, order.client_order_id, partial(self._broker.place, order, now_ms)))

    def cancel(self, broker_order_id: str, now_ms: int) -> SendOutcome:
        """Have a cancel asked for; the update that follows says that it happened."""
        lane = self._symbols.get(broker_order_id, broker_order_id)
        call = partial(self._broker.cancel, broker_order_id, now_ms)
        return self._add(Request(RequestKind.CANCEL, lane, broker_order_id, call))

    def withdraw(self, client_order_id: str) -> bool:
        """Keep an order that has not left yet from leaving; its report says so. False for any other, which is not touched."""
        return self._sends.withdraw(client_order_id)

    def withdraw_entries(self) -> None:
        """Keep every entry that has not left yet from leaving; their reports say so."""
        self._sends.withdraw_all(RequestKind.ENTRY)

    def withdraw_exits(self) -> None:
        """Keep every exit that has not left yet from leaving; their reports say so."""
        self._sends.withdraw_all(RequestKind.EXIT)

    def is_owed(self, client_order_id: str) -> bool:
        """Return whether the request for an order has not ended: the order may still reach the broker."""
        return self._sends.is_owed(client_order_id)

    def hurry(self, wanted: bool) -> None:
        """Say whether the one who reads trades meanwhile and can wait a moment only."""
        self._book.hurry(wanted)
        self._funds.hurry(wanted)

    def drain_events(self) -> Sequence[BrokerEvent]:
        """Return the reports on sends, then the broker's news."""
        reports = self._sends.take()
        news = self._broker.drain_events()
        if news:
            self._heard += 1
            for event in news:
                self._note_symbol(event)
        if not reports:
            return news
        for report in reports:
            if report.outcome.broker_order_id:
                self._symbols[report.outcome.broker_order_id] = self._symbols[report.client_order_id]
        return [*reports, *news]

    def orders(self) -> list[BrokerOrder]:
        """Return today's order book. Raises BrokerError, also while the broker has not answered."""
        return self._book.get()[0]

    def trades(self) -> list[BrokerFill]:
        """Return today's trades. Raises BrokerError, also while the broker has not answered."""
        return self._book.get()[1]

    def positions(self) -> list[BrokerPosition]:
        """Return net positions. Raises BrokerError, also while the broker has not answered."""
        return self._book.get()[2]

    def funds(self) -> Funds:
        """Return the account's cash. Raises BrokerError, also while the broker has not answered."""
        return self._funds.get()

    def close(self) -> bool:
        """Wait, within a bound, for the answers that are owed. Returns whether all came. The broker itself stays open."""
        answered = self._sends.wait_until_answered(CLOSE_SECONDS_MAX)
        self._book.close()
        self._funds.close()
        return answered

    def _withholds(self, is_entry: bool) -> str:
        return "" if self._lease is None else self._lease.withholds(entry=is_entry)

    def _add(self, request: Request) -> SendOutcome:
        refused = self._sends.add(request)
        if refused:
            return SendOutcome(SendStatus.NOT_SENT, "", f"not sent: {refused}")
        return SendOutcome(SendStatus.PENDING)

    def _read_book(self) -> Book:
        broker = self._broker
        orders = broker.orders()
        trades = broker.trades()
        return orders, trades, broker.positions()

    def _generation(self) -> int:
        return self._sends.generation + self._heard

    def _note_symbol(self, event: BrokerEvent) -> None:
        if isinstance(event, BrokerFill):
            self._symbols[event.broker_order_id] = event.symbol
        elif isinstance(event, OrderUpdate) and event.client_order_id in self._symbols:
            self._symbols[event.broker_order_id] = self._symbols[event.client_order_id]
