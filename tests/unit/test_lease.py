"""The lease at the moment a request leaves: young, old, lost, never had, and with a ledger that does not answer."""

from __future__ import annotations

import threading
import time

import pytest

from tests.fakes.outside import FakeClock, FakeCloserLock
from tests.fakes.rig import NOW_MS, Rig
from tests.fakes.stores import FakeLedger
from velox_core.brokers.sends import SendBounds
from velox_core.domain.errors import LedgerUnavailable
from velox_core.domain.orders import OrderState
from velox_core.lease import (
    DECIDE_AGE_SECONDS_MAX,
    LEASE_SECONDS,
    NEVER,
    REQUEST_SECONDS_MAX,
    SEND_AGE_SECONDS_MAX,
    HeldLease,
    LeasedCloser,
    seconds_since_boot,
)
from velox_core.ports import CloserHold
from velox_core.risk.layers import ReasonCode, Refusal
from velox_core.risk.ledger import OpenPosition


class Account:
    """A lease in a ledger that counts the questions, and the clock that both go by."""

    def __init__(self, *, had: bool = True) -> None:
        self.clock = FakeClock()
        self.ledger = FakeLedger(monotonic=self.clock.monotonic)
        self.epoch = self.ledger.acquire_lease("a")
        self.asked = 0
        inner = self.ledger.renew_lease

        def renew_lease(epoch: int) -> bool:
            self.asked += 1
            return inner(epoch)

        self.ledger.renew_lease = renew_lease  # type: ignore[method-assign]
        confirmed = 0.0 if had else NEVER
        self.lease = HeldLease(self.ledger, self.epoch, confirmed=confirmed, seconds=self.clock.monotonic)

    def take_over(self) -> None:
        """Have another host take the lease, long after it ran out."""
        self.clock.seconds += 60.0
        self.ledger.inner.acquire_lease("b")


def test_what_leaves_has_arrived_before_another_host_can_have_the_lease() -> None:
    assert SEND_AGE_SECONDS_MAX + REQUEST_SECONDS_MAX < LEASE_SECONDS
    assert SendBounds().answer_seconds <= REQUEST_SECONDS_MAX
    assert DECIDE_AGE_SECONDS_MAX < SEND_AGE_SECONDS_MAX


@pytest.mark.parametrize("entry", [True, False])
def test_request_on_a_young_confirmation_leaves_and_asks_nothing(entry: bool) -> None:
    account = Account()
    account.ledger.down = True
    account.clock.seconds = SEND_AGE_SECONDS_MAX
    assert account.lease.withholds(entry=entry) == ""
    assert account.asked == 0


def test_entry_on_an_old_confirmation_does_not_leave_though_nobody_took_the_lease() -> None:
    account = Account()
    account.clock.seconds = SEND_AGE_SECONDS_MAX + 0.1
    assert "not confirmed for 4.1 s" in account.lease.withholds(entry=True)
    assert account.asked == 0
    assert account.lease.renew()
    assert account.lease.withholds(entry=True) == ""


def test_exit_on_an_old_confirmation_has_it_confirmed_once_and_leaves() -> None:
    account = Account()
    account.clock.seconds = SEND_AGE_SECONDS_MAX + 0.1
    assert [account.lease.withholds(entry=False) for _ in range(3)] == ["", "", ""]
    assert account.asked == 1
    assert account.lease.withholds(entry=True) == ""


def test_exit_whose_lease_was_taken_does_not_leave_any_more_whatever_the_clock_says() -> None:
    account = Account()
    account.take_over()
    assert "took the lease over" in account.lease.withholds(entry=False)
    account.clock.seconds = 0.0
    assert "took the lease over" in account.lease.withholds(entry=False)
    assert "took the lease over" in account.lease.withholds(entry=True)
    assert not account.lease.renew()
    assert (account.lease.is_lost, account.asked) == (True, 1)


def test_exit_leaves_though_the_ledger_is_down_and_an_entry_does_not() -> None:
    account = Account()
    account.clock.seconds = 1_000.0
    account.ledger.down = True
    assert account.lease.withholds(entry=False) == ""
    assert account.lease.withholds(entry=True)
    assert not account.lease.is_lost
    with pytest.raises(LedgerUnavailable):
        account.lease.renew()


def test_confirmation_counts_from_before_the_question() -> None:
    account = Account()
    inner = account.ledger.renew_lease

    def slow(epoch: int) -> bool:
        account.clock.seconds += 3.0
        return inner(epoch)

    account.ledger.renew_lease = slow  # type: ignore[method-assign]
    assert account.lease.renew()
    account.clock.seconds += SEND_AGE_SECONDS_MAX - 2.0
    assert account.lease.withholds(entry=True)


def test_engine_without_a_lease_sends_exits_and_no_entry_and_is_told_by_its_renewal() -> None:
    account = Account(had=False)
    account.ledger.inner.release_lease(account.epoch)
    assert account.lease.withholds(entry=True) == "not sent: no lease"
    assert account.lease.withholds(entry=False) == ""
    assert (account.lease.renew(), account.lease.is_lost, account.lease.is_out_of_sight) == (False, False, False)
    assert account.lease.withholds(entry=False) == ""


def test_exits_of_several_threads_ask_once() -> None:
    account = Account()
    account.clock.seconds = SEND_AGE_SECONDS_MAX + 0.1
    inner, everybody = account.ledger.renew_lease, threading.Barrier(4)

    def slow(epoch: int) -> bool:
        time.sleep(0.05)
        return inner(epoch)

    account.ledger.renew_lease = slow  # type: ignore[method-assign]
    answers: list[str] = []

    def leave() -> None:
        everybody.wait()
        answers.append(account.lease.withholds(entry=False))

    threads = [threading.Thread(target=leave) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (answers, account.asked) == ([""] * 4, 1)


def test_boot_clock_is_one_that_goes_on_in_sleep_where_the_system_has_it() -> None:
    before = seconds_since_boot()
    assert seconds_since_boot() >= before
    if hasattr(time, "CLOCK_BOOTTIME"):
        assert abs(seconds_since_boot() - time.clock_gettime(time.CLOCK_BOOTTIME)) < 60.0


# -- the risk manager and its lease --------------------------------------------------------------------------------


class LeasedRig(Rig):
    """A rig whose managers hold a lease, and the clock it goes by."""

    def restart(self) -> None:
        self.boot = FakeClock()
        self.lease = HeldLease(self.ledger, self.epoch, confirmed=0.0, seconds=self.boot.monotonic)
        super().restart()


def test_entry_is_decided_on_a_lease_renewed_just_before() -> None:
    rig = LeasedRig()
    rig.boot.seconds = 60.0
    assert rig.enter().state is OrderState.OPEN
    assert len(rig.broker.placed) == 1


def test_entry_of_an_engine_whose_lease_was_released_is_refused_before_its_claim() -> None:
    rig = LeasedRig()
    rig.ledger.inner.release_lease(rig.epoch)
    rig.boot.seconds = 60.0
    answer = rig.ask()
    assert isinstance(answer, Refusal)
    assert answer.code is ReasonCode.LEASE_LOST
    assert rig.ledger.commits == []


def test_entry_decided_while_the_lease_cannot_be_renewed_is_refused_before_its_claim() -> None:
    rig = LeasedRig()
    rig.boot.seconds = 60.0
    rig.ledger.down = True
    answer = rig.ask()
    assert isinstance(answer, Refusal)
    assert answer.code is ReasonCode.LEDGER_UNAVAILABLE
    assert rig.ledger.commits == []


def test_commit_that_meets_a_later_epoch_loses_the_lease_for_exits_too() -> None:
    rig = LeasedRig()
    rig.hold()
    rig.ledger.fenced_by = rig.epoch + 1
    rig.risk.count_unexplained("BBB", OpenPosition("BBB", "", 1, 10_000, NOW_MS), is_held=False)
    assert rig.lease is not None
    assert rig.lease.is_lost
    assert rig.exit_now().state is OrderState.CANCELLED
    assert len(rig.broker.placed) == 1


def test_commit_that_meets_an_earlier_epoch_takes_the_right_to_close_from_nobody() -> None:
    rig = LeasedRig()
    rig.hold()
    rig.ledger.fenced_by = -1
    rig.risk.count_unexplained("BBB", OpenPosition("BBB", "", 1, 10_000, NOW_MS), is_held=False)
    assert rig.risk.readiness.fenced
    assert rig.exit_now().state is OrderState.OPEN


# -- the closer's lock under a lease -------------------------------------------------------------------------------


def leased_closer(account: Account) -> tuple[LeasedCloser, FakeCloserLock]:
    lock = FakeCloserLock()
    return LeasedCloser(lock, account.lease, seconds=account.clock.monotonic), lock


def test_leased_closer_asks_nothing_while_its_lease_is_young() -> None:
    account = Account()
    closer, _ = leased_closer(account)
    account.ledger.down = True
    account.clock.seconds = SEND_AGE_SECONDS_MAX
    assert closer.take() is CloserHold.UNBROKEN
    assert account.asked == 0


def test_leased_closer_whose_lease_was_taken_during_a_pause_closes_nothing_any_more() -> None:
    account = Account()
    closer, lock = leased_closer(account)
    assert closer.take() is CloserHold.UNBROKEN
    account.take_over()
    assert closer.take() is CloserHold.ELSEWHERE
    assert (lock.held, lock.returns) == (True, 0)  # an exit may be on its way: who asks gives it back
    assert "took the lease" in closer.holder
    account.clock.seconds = 0.0
    assert closer.take() is CloserHold.ELSEWHERE


def test_leased_closer_with_a_ledger_that_is_down_closes_after_a_look_at_the_book() -> None:
    account = Account()
    closer, lock = leased_closer(account)
    account.ledger.down = True
    account.clock.seconds = LEASE_SECONDS
    assert closer.take() is CloserHold.UNBROKEN  # nobody can have taken it yet
    account.clock.seconds += 0.1
    assert closer.holder == lock.holder
    assert [closer.take() for _ in range(3)] == [CloserHold.FRESH, CloserHold.UNBROKEN, CloserHold.UNBROKEN]
    account.clock.seconds += LEASE_SECONDS + 0.1
    assert closer.take() is CloserHold.FRESH
    account.ledger.down = False
    account.clock.seconds += 60.0
    assert closer.take() is CloserHold.UNBROKEN  # confirmed: nobody had it
    closer.give_back()
    assert lock.returns == 1


def test_leased_closer_that_cannot_have_its_lock_leaves_the_look_for_later() -> None:
    account = Account()
    closer, lock = leased_closer(account)
    account.ledger.down = True
    account.clock.seconds = 60.0
    lock.hold = CloserHold.ELSEWHERE
    assert closer.take() is CloserHold.ELSEWHERE
    lock.hold = CloserHold.UNBROKEN
    assert closer.take() is CloserHold.FRESH
