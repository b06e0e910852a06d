"""One rate for everybody who closes an account: engine, guard and flatten, one after the other and beside each other."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from tests.fakes.broker import FakeBroker
from tests.fakes.outside import FakeCloserLock
from velox_core.brokers.paced import BROKER_ORDERS_PER_SECOND, PacedBroker, PacedLock, engines_lock
from velox_core.brokers.rate_limit import ARRIVAL_SECONDS_MAX, WINDOW_SECONDS, RateLimit
from velox_core.ports import CloserHold, SendOutcome, SendStatus


class Account:
    """An account at a broker that notes when requests arrive, with seconds that pass only in here."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now = 100.0
        self.engine_runs = False
        self.arrivals: list[float] = []
        self.signs = 0
        self.status = SendStatus.ACKNOWLEDGED

    def closer(self, per_second: int, lock: FakeCloserLock) -> tuple[PacedBroker, PacedLock]:
        """Return the way to the broker of a new process that closes from outside, and its lock."""
        rate = RateLimit(per_second)
        broker = FakeBroker()
        broker.cancel = self._arrive  # type: ignore[method-assign]
        paced = PacedBroker(
            broker,
            rate,
            is_beside_an_engine=lambda: self.engine_runs,
            waiting=self._sign,
            monotonic=lambda: self.now,
            sleep=self.pass_time,
        )
        return paced, PacedLock(lock, rate, always=True, monotonic=lambda: self.now)

    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    def busiest_second(self) -> int:
        return max(sum(first <= other < first + WINDOW_SECONDS - 1e-9 for other in self.arrivals) for first in self.arrivals)

    def engine_sends(self, rate: RateLimit, count: int, *, is_entry: bool) -> None:
        """Let an engine send, as fast as its own rate allows."""
        for _ in range(count):
            while (wait := rate.wait_seconds(self.now, is_entry=is_entry)) > 0:
                self.now += wait
            departure = rate.leave(self.now)
            self._arrive("", 0)
            rate.answered(departure, self.now)

    def _arrive(self, broker_order_id: str, now_ms: int) -> SendOutcome:
        self.arrivals.append(self.now + self.random.uniform(0.0, ARRIVAL_SECONDS_MAX))
        self.now = max(self.now, self.arrivals[-1])
        return SendOutcome(self.status)

    def _sign(self) -> None:
        self.signs += 1


@pytest.mark.parametrize("per_second", [1, 3, 8])
@pytest.mark.parametrize("seed", range(20))
def test_engine_then_closers_after_each_other_never_pass_the_limit_together(seed: int, per_second: int) -> None:
    account = Account(seed)
    engine = RateLimit(per_second)
    account.engine_sends(engine, account.random.randrange(30), is_entry=True)
    account.engine_sends(engine, account.random.randrange(1, 30), is_entry=False)
    for _ in range(4):  # each is killed, and the next one has the lock in the same instant
        broker, lock = account.closer(per_second, FakeCloserLock(CloserHold.FRESH))
        assert lock.take() is CloserHold.FRESH
        for _ in range(account.random.randrange(1, 30)):
            broker.cancel("B1", 0)
    assert account.busiest_second() <= per_second
    assert account.busiest_second() == per_second


def test_closer_uses_the_whole_limit_once_the_second_before_it_is_over() -> None:
    account = Account(1)
    broker, lock = account.closer(8, FakeCloserLock(CloserHold.FRESH))
    began = account.now
    lock.take()
    for _ in range(8):
        broker.cancel("B1", 0)
    assert account.arrivals[0] - began >= ARRIVAL_SECONDS_MAX + WINDOW_SECONDS
    assert account.now - began <= 8 * ARRIVAL_SECONDS_MAX + ARRIVAL_SECONDS_MAX + WINDOW_SECONDS
    assert account.signs > 0


@pytest.mark.parametrize(("per_second", "left"), [(8, 2), (9, 1), (10, 1), (3, 3), (5, 5)])
def test_closer_beside_an_engine_has_what_the_brokers_limit_leaves(per_second: int, left: int) -> None:
    account = Account(2)
    account.engine_runs = True
    broker, _ = account.closer(per_second, FakeCloserLock(CloserHold.UNBROKEN))
    for _ in range(20):
        broker.cancel("B1", 0)
    assert account.busiest_second() == left
    assert per_second == BROKER_ORDERS_PER_SECOND or left + per_second <= BROKER_ORDERS_PER_SECOND


def test_request_that_is_not_answered_holds_its_place_as_long_as_it_may_travel() -> None:
    account = Account(3)
    account.status = SendStatus.UNKNOWN
    broker, _ = account.closer(1, FakeCloserLock(CloserHold.UNBROKEN))
    broker.cancel("B1", 0)
    left = account.now
    broker.cancel("B2", 0)
    assert account.arrivals[1] - account.arrivals[0] >= WINDOW_SECONDS
    assert account.now > left


@pytest.mark.parametrize(
    ("holds", "waits"),
    [
        ([CloserHold.FRESH], False),
        ([CloserHold.UNBROKEN], False),
        ([CloserHold.ELSEWHERE, CloserHold.FRESH], True),
        ([CloserHold.ELSEWHERE, CloserHold.UNBROKEN], False),
        ([CloserHold.ELSEWHERE], False),
    ],
)
def test_engine_counts_the_second_of_a_closer_that_it_waited_for(holds: list[CloserHold], waits: bool) -> None:
    lock, rate = FakeCloserLock(CloserHold.FRESH), RateLimit(8)
    paced = PacedLock(lock, rate, always=False, monotonic=lambda: 10.0)
    for hold in holds:
        lock.hold = hold
        assert paced.take() is hold
    assert (rate.wait_seconds(10.0, is_entry=False) > 0) is waits


def test_engine_without_a_rate_has_the_lock_itself() -> None:
    lock = FakeCloserLock(CloserHold.FRESH)
    assert engines_lock(lock, None) is lock
    assert isinstance(engines_lock(lock, RateLimit(8)), PacedLock)


READS: list[Callable[[PacedBroker], object]] = [
    lambda broker: broker.orders(),
    lambda broker: broker.trades(),
    lambda broker: broker.positions(),
    lambda broker: broker.drain_events(),
]


@pytest.mark.parametrize("read", READS)
def test_reads_wait_for_no_place(read: Callable[[PacedBroker], object]) -> None:
    account = Account(4)
    broker, lock = account.closer(1, FakeCloserLock(CloserHold.FRESH))
    lock.take()
    before = account.now
    assert list(read(broker)) == []  # type: ignore[call-overload]
    assert account.now == before
