"""The order manager over a broker that is called off the loop: PENDING sends, reports, late answers, withdrawals."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from tests.fakes.gated_broker import GatedBroker
from tests.fakes.outside import FakeClock
from tests.fakes.rig import DAY, NOW_MS, Rig, entry_signal
from velox_core.brokers.answers import ReadBounds
from velox_core.brokers.off_loop import OffLoopBroker
from velox_core.brokers.sends import SendBounds
from velox_core.domain.events import EventKind
from velox_core.domain.halts import HaltKind, HaltRecord
from velox_core.domain.orders import ExitRank, Order, OrderState, unknown_lock
from velox_core.lease import SEND_AGE_SECONDS_MAX, HeldLease, LeasedCloser
from velox_core.ports import SendStatus

S = OrderState


class OffLoop:
    """A rig over a gated broker off the loop."""

    def __init__(self, **bounds: float) -> None:
        self.clock = FakeClock()
        self.rig = Rig(wrap=self._wrap)

    def _wrap(self, broker: object) -> OffLoopBroker:
        self.gate = GatedBroker(broker)  # type: ignore[arg-type]
        reads = ReadBounds(hurried_seconds=0.0)
        off_loop = OffLoopBroker(self.gate, send_bounds=SendBounds(), read_bounds=reads, monotonic=self.clock.monotonic)
        off_loop.hurry(True)
        return off_loop

    def until(self, condition: Callable[[], bool]) -> None:
        """Poll until it is so."""
        deadline = time.monotonic() + 120
        while not condition():
            assert time.monotonic() < deadline, "it never came to that"
            self.rig.orders.poll(NOW_MS)
            time.sleep(0.001)

    def overdue(self) -> None:
        """Let the time-out of everything in flight pass."""
        self.gate.wait_begun("place")
        self.clock.seconds += 5.0
        self.rig.orders.poll(NOW_MS)


@pytest.fixture
def off() -> Iterator[OffLoop]:
    made = OffLoop()
    yield made
    made.gate.open()
    assert made.rig.off_loop is not None
    made.rig.off_loop.close()


def journaled(rig: Rig, order: Order) -> list[str]:
    return [str(b["state"]) for b in rig.journal.bodies(EventKind.ORDER) if b["client_order_id"] == order.client_order_id]


def test_pending_order_is_submitting_with_its_intent_durable_and_opens_with_its_report(off: OffLoop) -> None:
    off.gate.shut.add("place")
    order = off.rig.enter()
    assert (order.state, order.broker_order_id) == (S.SUBMITTING, "")
    assert [b["client_order_id"] for b in off.rig.journal.bodies(EventKind.INTENT)] == [order.client_order_id]
    assert list(off.rig.ledger.inner.snapshot().claims) == [order.client_order_id]
    assert off.rig.risk.locks == {}
    off.gate.open()
    off.until(lambda: order.state is S.OPEN)
    assert (order.broker_order_id, journaled(off.rig, order)) == ("B1", ["OPEN"])


def test_rejection_off_the_loop_frees_the_slot(off: OffLoop) -> None:
    off.rig.broker.answers.append(SendStatus.REJECTED)
    order = off.rig.enter()
    off.until(lambda: order.state is S.REJECTED)
    assert off.rig.ledger.inner.snapshot().claims == {}
    assert off.rig.orders.live == {}


def test_overdue_order_is_unknown_and_locks_its_symbol_and_its_late_answer_opens_it(off: OffLoop) -> None:
    off.gate.shut.add("place")
    order = off.rig.enter()
    off.overdue()
    assert order.state is S.UNKNOWN
    assert off.rig.risk.locks == {"AAA": unknown_lock(order)}
    off.gate.open()
    off.until(lambda: order.state is S.OPEN)
    assert off.rig.risk.locks == {}
    assert (len(off.rig.broker.placed), journaled(off.rig, order)) == (1, ["UNKNOWN", "OPEN"])


def test_late_rejection_ends_an_unknown_order_and_frees_its_symbol(off: OffLoop) -> None:
    off.gate.shut.add("place")
    off.rig.broker.answers.append(SendStatus.REJECTED)
    order = off.rig.enter()
    off.overdue()
    off.gate.open()
    off.until(lambda: order.state is S.REJECTED)
    assert off.rig.risk.locks == {}
    assert off.rig.ledger.inner.snapshot().claims == {}


def test_late_acknowledgement_of_an_order_given_up_as_not_placed_is_cancelled(off: OffLoop) -> None:
    off.gate.shut.add("place")
    order = off.rig.enter()
    off.overdue()
    off.rig.orders.settle_not_placed(order, NOW_MS)
    off.gate.open()
    off.until(lambda: off.rig.broker.cancels == ["B1"])
    assert order.state is S.CANCELLED
    assert off.rig.risk.locks == {"AAA": unknown_lock(order)}


def test_fill_that_comes_before_the_report_is_booked_once_and_the_report_changes_nothing(off: OffLoop) -> None:
    order = off.rig.enter()
    off.gate.wait_done("place")
    off.rig.broker.fill("B1", 1, 10_000)
    off.rig.orders.apply_fill(off.rig.broker.trade_list[0], NOW_MS)
    assert order.state is S.FILLED
    off.rig.orders.poll(NOW_MS)
    assert (order.state, off.rig.quantity(), off.rig.orders.fill_count) == (S.FILLED, 1, 1)
    assert off.rig.risk.locks == {}


def test_cancel_of_an_entry_that_waits_to_leave_withdraws_it(off: OffLoop) -> None:
    off.gate.shut.add("place")
    fillers = [off.rig.enter(entry_signal(symbol, strategy=symbol)) for symbol in ("AAA", "BBB", "CCC", "DDD")]
    waiting = off.rig.enter(entry_signal("EEE", strategy="EEE"))
    off.gate.wait_begun("place", 4)
    off.rig.door.want_all(ExitRank.EMERGENCY, "halt")
    off.rig.door.work(NOW_MS)
    assert (waiting.state, journaled(off.rig, waiting)) == (S.CANCELLED, ["CANCELLED"])
    assert [order.state for order in fillers] == [S.SUBMITTING] * 4
    off.gate.open()
    off.until(lambda: len(off.rig.broker.cancels) == 4 or bool(off.rig.door.work(NOW_MS)))
    assert waiting.client_order_id not in off.gate.order_of_sends
    assert len(off.rig.broker.placed) == 4


def waiting_entry(off: OffLoop) -> Order:
    """Return an entry that waits to leave behind four that are in flight."""
    off.gate.shut.add("place")
    for symbol in ("AAA", "BBB", "CCC", "DDD"):
        off.rig.enter(entry_signal(symbol, strategy=symbol))
    waiting = off.rig.enter(entry_signal("EEE", strategy="EEE"))
    off.gate.wait_begun("place", 4)
    return waiting


def stays_unsent(off: OffLoop, order: Order) -> None:
    """Let everything in flight through and see that an order never left."""
    off.gate.open()
    off.until(lambda: order.state is S.CANCELLED)
    assert off.rig.off_loop is not None
    assert off.rig.off_loop.close()
    assert order.client_order_id not in off.gate.order_of_sends
    assert order.client_order_id not in off.rig.ledger.inner.snapshot().claims


@pytest.mark.parametrize("keeps_positions", [True, False])
def test_halt_from_outside_withdraws_an_entry_that_waits_to_leave(off: OffLoop, keeps_positions: bool) -> None:
    waiting = waiting_entry(off)
    halt = HaltRecord(
        halt_id="H1", kind=HaltKind.MANUAL, trading_date=DAY, reason="x", by="me", at_ms=NOW_MS, keeps_positions=keeps_positions
    )
    off.rig.halt_file.append(halt)
    assert off.rig.emergency.take_up(NOW_MS)
    stays_unsent(off, waiting)
    assert off.rig.emergency.closing is not keeps_positions


def test_own_halt_withdraws_an_entry_that_waits_to_leave_before_the_halt_is_written(
    off: OffLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = waiting_entry(off)

    def write_while_the_broker_answers(record: HaltRecord) -> None:
        off.gate.open()
        assert off.rig.off_loop is not None
        assert off.rig.off_loop.close()

    monkeypatch.setattr(off.rig.halt_file, "append", write_while_the_broker_answers)
    off.rig.emergency.fault("test", NOW_MS)
    stays_unsent(off, waiting)


def test_fault_withdraws_what_waits_to_leave_and_doubts_what_has_left_only(off: OffLoop) -> None:
    waiting = waiting_entry(off)
    in_flight = [order for order in off.rig.orders.live.values() if order is not waiting]
    off.rig.orders.doubt_submitting(NOW_MS)
    assert [order.state for order in in_flight] == [S.UNKNOWN] * 4
    off.rig.emergency.fault("engine failure", NOW_MS)
    stays_unsent(off, waiting)
    assert journaled(off.rig, waiting) == ["CANCELLED"]
    assert "EEE" not in off.rig.risk.locks


def test_entry_that_found_no_way_out_is_cancelled_and_its_slot_is_free(off: OffLoop) -> None:
    off.gate.shut.add("place")
    for symbol in ("AAA", "BBB", "CCC", "DDD"):
        off.rig.enter(entry_signal(symbol, strategy=symbol))
    waiting = off.rig.enter(entry_signal("EEE", strategy="EEE"))
    off.gate.wait_begun("place", 4)
    off.clock.seconds += 1.0
    off.rig.orders.poll(NOW_MS)
    assert waiting.state is S.CANCELLED
    assert waiting.client_order_id not in off.rig.ledger.inner.snapshot().claims
    assert len(off.rig.ledger.inner.snapshot().claims) == 4


def test_exit_sent_off_the_loop_counts_as_working_until_it_is_answered(off: OffLoop) -> None:
    off.rig.enter()
    off.until(lambda: off.rig.orders.orders[next(iter(off.rig.orders.orders))].state is S.OPEN)
    off.rig.broker.fill("B1", 1, 10_000)
    off.until(lambda: off.rig.quantity() == 1)
    off.gate.shut.add("place")
    off.rig.door.want("AAA", ExitRank.STOP, "stop")
    for second in range(4):
        off.rig.door.work(NOW_MS + second * 1_000)
    off.gate.wait_begun("place", 2)
    assert len(off.gate.order_of_sends) == 2
    off.gate.open()
    off.until(lambda: len(off.rig.broker.placed) == 2)
    off.rig.broker.fill("B2", 1, 10_000)
    off.until(off.rig.orders.is_flat)


def exit_of_a_held_position(off: OffLoop, *, behind_a_cancel: bool) -> Order:
    """Return an exit that waits behind a cancel that hangs, or one that hangs itself."""
    entry = off.rig.enter()
    off.until(lambda: bool(entry.broker_order_id))
    off.rig.broker.fill("B1", 1, 10_000)
    off.until(lambda: off.rig.quantity() == 1)
    off.gate.shut.update({"place", "cancel"})
    assert off.rig.off_loop is not None
    if behind_a_cancel:
        off.rig.off_loop.cancel("B1", NOW_MS)
        off.gate.wait_begun("cancel")
    off.rig.door.want("AAA", ExitRank.STOP, "stop")
    off.rig.door.work(NOW_MS)
    (made,) = [order for order in off.rig.orders.live.values() if order.rank is not None]
    assert made.state is S.SUBMITTING
    return made


def lose_the_lease(off: OffLoop) -> None:
    """Let another host take the lease, and this engine notice it."""
    seconds = off.clock.monotonic
    lease = HeldLease(off.rig.ledger, off.rig.epoch, confirmed=-SEND_AGE_SECONDS_MAX, seconds=seconds)
    off.rig.closer._lock = LeasedCloser(off.rig.closer_lock, lease, seconds=seconds)
    off.rig.ledger.inner.release_lease(off.rig.epoch)
    off.rig.ledger.inner.acquire_lease("another host")
    off.clock.seconds += 2.0
    off.rig.door.work(NOW_MS + 2_000)


def test_exit_that_waits_is_withdrawn_when_the_right_to_close_is_lost(off: OffLoop) -> None:
    waiting = exit_of_a_held_position(off, behind_a_cancel=True)
    lose_the_lease(off)
    off.gate.open()
    off.until(lambda: waiting.state is S.CANCELLED)
    off.rig.door.work(NOW_MS + 4_000)
    assert off.rig.off_loop is not None
    assert off.rig.off_loop.close()
    assert len(off.rig.broker.placed) == 1
    assert (off.rig.closer_lock.held, list(off.rig.door.goals)) == (False, ["AAA"])


def test_lock_is_kept_while_an_exit_is_in_flight_although_the_right_to_close_is_lost(off: OffLoop) -> None:
    hanging = exit_of_a_held_position(off, behind_a_cancel=False)
    off.gate.wait_begun("place", 2)
    lose_the_lease(off)
    assert off.rig.closer_lock.held
    off.clock.seconds += 5.0
    off.rig.orders.poll(NOW_MS)
    off.rig.door.work(NOW_MS + 4_000)
    assert (hanging.state, off.rig.closer_lock.held) == (S.UNKNOWN, True)
    off.gate.open()
    off.until(lambda: hanging.state is S.OPEN)
    off.rig.door.work(NOW_MS + 6_000)
    assert not off.rig.closer_lock.held
    assert len(off.rig.broker.placed) == 2


def test_emergency_with_a_silent_broker_is_not_flat_until_a_fresh_read_says_so(off: OffLoop) -> None:
    off.gate.shut.add("positions")
    off.rig.emergency.trigger("test", "me", NOW_MS)
    for second in range(3):
        off.rig.emergency.check(NOW_MS + second * 1_000)
    assert off.rig.emergency.closing
    assert "Emergency exit finished: FLAT" not in off.rig.alerts.titles
    off.gate.open()
    now_ms = NOW_MS + 3_000
    deadline = time.monotonic() + 120
    while off.rig.emergency.closing:
        assert time.monotonic() < deadline
        now_ms += 1_000
        off.rig.emergency.check(now_ms)
        time.sleep(0.001)
    assert "Emergency exit finished: FLAT" in off.rig.alerts.titles
