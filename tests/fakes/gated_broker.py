"""A broker in front of another one, whose calls hang for as long as the test wants, on whatever thread they come."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from typing import TypeVar

from velox_core.ports import Broker, BrokerEvent, BrokerFill, BrokerOrder, BrokerPosition, Funds, SendOutcome
from velox_core.risk.approval import ApprovedOrder

WAIT_SECONDS_MAX = 240.0
Result = TypeVar("Result")


class GatedBroker:
    """Passes calls on, one at a time, once their gate is open.

    Attributes:
        shut: names of calls that hang: `place`, `cancel`, `orders`, `trades`, `positions`, `funds`, or `place AAA`.
        begun, done: how many calls of each name came in and got through.
        most_at_once: the most calls of `place` and `cancel` that were in here together, by symbol or order id.
    """

    name = "fake"

    def __init__(self, broker: Broker) -> None:
        self.inner = broker
        self.shut: set[str] = set()
        self.begun: Counter[str] = Counter()
        self.done: Counter[str] = Counter()
        self.order_of_sends: list[str] = []
        self.threads: set[int] = set()
        self.most_at_once: Counter[str] = Counter()
        self._inside: Counter[str] = Counter()
        self._changed = threading.Condition()

    def open(self, *names: str) -> None:
        """Let calls of these names through; without names, all."""
        with self._changed:
            self.shut = self.shut - set(names) if names else set()
            self._changed.notify_all()

    def wait_begun(self, name: str, count: int = 1) -> None:
        """Wait until so many calls of a name have come in."""
        self._wait(lambda: self.begun[name] >= count, f"{count} calls of {name}")

    def wait_done(self, name: str, count: int = 1) -> None:
        """Wait until so many calls of a name have got through."""
        self._wait(lambda: self.done[name] >= count, f"{count} answers to {name}")

    def place(self, order: ApprovedOrder, now_ms: int) -> SendOutcome:
        self.order_of_sends.append(order.client_order_id)
        return self._pass("place", lambda: self.inner.place(order, now_ms), order.symbol)

    def cancel(self, broker_order_id: str, now_ms: int) -> SendOutcome:
        self.order_of_sends.append(f"cancel {broker_order_id}")
        return self._pass("cancel", lambda: self.inner.cancel(broker_order_id, now_ms), broker_order_id)

    def drain_events(self) -> list[BrokerEvent]:
        with self._changed:
            return list(self.inner.drain_events())

    def orders(self) -> list[BrokerOrder]:
        return self._pass("orders", self.inner.orders)

    def trades(self) -> list[BrokerFill]:
        return self._pass("trades", self.inner.trades)

    def positions(self) -> list[BrokerPosition]:
        return self._pass("positions", self.inner.positions)

    def funds(self) -> Funds:
        return self._pass("funds", self.inner.funds)

    def _pass(self, name: str, call: Callable[[], Result], detail: str = "") -> Result:
        with self._changed:
            self.threads.add(threading.get_ident())
            self.begun[name] += 1
            if detail:
                self._inside[detail] += 1
                self.most_at_once[detail] = max(self.most_at_once[detail], self._inside[detail])
            self._changed.notify_all()
            self._changed.wait_for(lambda: not {name, f"{name} {detail}"} & self.shut, WAIT_SECONDS_MAX)
            try:
                return call()
            finally:
                if detail:
                    self._inside[detail] -= 1
                self.done[name] += 1
                self._changed.notify_all()

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        with self._changed:
            if not self._changed.wait_for(condition, WAIT_SECONDS_MAX):
                raise AssertionError(f"{what} never came")
