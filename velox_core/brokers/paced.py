"""The rate of requests where several processes close one account: each alone knows what it sent, and no second has too many.

- One process closes at a time, by the closer's lock. Whoever gets that lock from another one counts a whole second's places as
  taken from then on: what the one before sent a moment ago still counts at the broker.
- So the limit is the account's whoever closes, and none of them has to leave a part of it unused.
- Beside an engine that could not be ended a closer has what the engine's limit leaves of the broker's.
- A closer outside the engine waits for its place in the call itself: nobody else depends on its thread.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from velox_core.brokers.rate_limit import RateLimit
from velox_core.ports import (
    Broker,
    BrokerEvent,
    BrokerFill,
    BrokerOrder,
    BrokerPosition,
    CloserHold,
    CloserLock,
    Funds,
    SendOutcome,
    SendStatus,
)
from velox_core.risk.approval import ApprovedOrder

BROKER_ORDERS_PER_SECOND: Final = 10  # NSE, for an algo that is not registered, and both brokers: cancels counted
WAIT_STEP_SECONDS: Final = 0.5  # so often one who waits gives a sign of life


class PacedLock:
    """The closer's lock, with what its last holder may have sent counted as our own.

    Args:
        lock: the account's.
        rate: of this process.
        always: whether a lock that was found free counts too: a closer outside follows on an engine that needed no lock for its
            entries. An engine counts only what it saw: whoever had the lock when it last asked.
        monotonic: seconds that never go back.
    """

    def __init__(
        self, lock: CloserLock, rate: RateLimit, *, always: bool, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._lock = lock
        self._rate = rate
        self._always = always
        self._was_elsewhere = False
        self._monotonic = monotonic

    @property
    def holder(self) -> str:
        """Return who has it, for people."""
        return self._lock.holder

    def take(self) -> CloserHold:
        """Take it, if nobody else has it."""
        hold = self._lock.take()
        if hold is CloserHold.FRESH and (self._always or self._was_elsewhere):
            self._rate.fill(self._monotonic())
        self._was_elsewhere = hold is CloserHold.ELSEWHERE
        return hold

    def give_back(self) -> None:
        """Give it back."""
        self._lock.give_back()


def engines_lock(lock: CloserLock, rate: RateLimit | None) -> CloserLock:
    """Return the closer's lock as an engine takes it whose requests have a rate, if they have one."""
    return lock if rate is None else PacedLock(lock, rate, always=False)


class PacedBroker:
    """A broker called inline whose orders and cancels wait for their place in the second.

    Args:
        broker: the account's.
        rate: of this process.
        is_beside_an_engine: whether an engine has the account, asked before each request.
        waiting: called while a request waits.
        monotonic, sleep: real seconds.
    """

    def __init__(
        self,
        broker: Broker,
        rate: RateLimit,
        *,
        is_beside_an_engine: Callable[[], bool],
        waiting: Callable[[], None] = lambda: None,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._broker = broker
        self._rate = rate
        self._is_beside_an_engine = is_beside_an_engine
        self._waiting = waiting
        self._monotonic = monotonic
        self._sleep = sleep
        self._one_at_a_time = threading.Lock()

    @property
    def name(self) -> str:
        """Return the broker's name."""
        return self._broker.name

    def place(self, order: ApprovedOrder, now_ms: int) -> SendOutcome:
        """Send one order, once, as soon as it may leave."""
        return self._send(lambda: self._broker.place(order, now_ms))

    def cancel(self, broker_order_id: str, now_ms: int) -> SendOutcome:
        """Ask for a cancel as soon as it may leave."""
        return self._send(lambda: self._broker.cancel(broker_order_id, now_ms))

    def drain_events(self) -> Sequence[BrokerEvent]:
        """Return the broker's news."""
        return self._broker.drain_events()

    def orders(self) -> list[BrokerOrder]:
        """Return today's order book. Raises BrokerError."""
        return self._broker.orders()

    def trades(self) -> list[BrokerFill]:
        """Return today's trades. Raises BrokerError."""
        return self._broker.trades()

    def positions(self) -> list[BrokerPosition]:
        """Return net positions. Raises BrokerError."""
        return self._broker.positions()

    def funds(self) -> Funds:
        """Return the account's cash. Raises BrokerError."""
        return self._broker.funds()

    def _send(self, call: Callable[[], SendOutcome]) -> SendOutcome:
        with self._one_at_a_time:
            while (seconds := self._rate.wait_seconds(self._monotonic(), is_entry=False, places=self._places())) > 0:
                self._waiting()
                self._sleep(min(seconds, WAIT_STEP_SECONDS))
            departure = self._rate.leave(self._monotonic())
        outcome = call()
        if outcome.status is not SendStatus.UNKNOWN:
            self._rate.answered(departure, self._monotonic())
        return outcome

    def _places(self) -> int:
        whole = self._rate.per_second
        if not self._is_beside_an_engine():
            return whole
        return max(min(BROKER_ORDERS_PER_SECOND - whole, whole), 1)
