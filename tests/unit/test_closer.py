"""One closer: nothing that closes leaves without the lock, nor blind to what another closer left in the book."""

from __future__ import annotations

import pytest

from tests.fakes.rig import NOW_MS, PREFIX, Rig, make_limits
from velox_core.closer import CLOSER_WAIT_MS_MAX
from velox_core.domain.errors import JournalUnavailable
from velox_core.domain.events import EventKind
from velox_core.domain.orders import ExitRank, OrderState, Side
from velox_core.exit_door import WORKING_MS_MAX
from velox_core.ports import CloserHold, SendStatus
from velox_core.risk.approval import ApprovedOrder


def exits(rig: Rig) -> list[ApprovedOrder]:
    return [order for order in rig.broker.placed if order.rank is not None]


def holding(lot: int = 1) -> Rig:
    rig = Rig(make_limits(fixed_lot_size=lot))
    rig.hold()
    rig.door.want("AAA", ExitRank.STOP, "stop")
    return rig


def test_exit_takes_the_lock_keeps_it_while_it_works_and_gives_it_back_after() -> None:
    rig = holding()
    rig.door.work(NOW_MS)
    assert (len(exits(rig)), rig.closer_lock.held) == (1, True)
    rig.door.work(NOW_MS + 1_000)
    assert rig.closer_lock.held
    rig.broker.fill(list(rig.broker.book)[-1], 1, 10_000)
    rig.orders.poll(NOW_MS + 2_000)
    rig.door.work(NOW_MS + 2_000)
    assert (rig.door.goals, rig.closer_lock.held, rig.closer_lock.returns) == ({}, False, 1)


def test_entry_needs_no_closer_lock() -> None:
    rig = Rig()
    rig.closer_lock.hold = CloserHold.ELSEWHERE
    rig.enter()
    assert (len(rig.broker.placed), rig.closer_lock.takes) == (1, 0)


def test_lock_is_kept_while_an_exit_is_unknown() -> None:
    rig = holding()
    rig.broker.answers.append(SendStatus.UNKNOWN)
    for after_ms in range(0, 60_000, 1_000):
        rig.door.work(NOW_MS + after_ms)
    assert (rig.closer_lock.held, rig.closer_lock.returns) == (True, 0)


def test_exit_waits_for_another_closer_with_its_goal_standing_and_tells_once() -> None:
    rig = holding()
    rig.closer_lock.hold = CloserHold.ELSEWHERE
    for after_ms in range(0, CLOSER_WAIT_MS_MAX + 1, 500):
        rig.door.work(NOW_MS + after_ms)
    assert (exits(rig), list(rig.door.goals), rig.alerts.titles) == ([], ["AAA"], [])
    for after_ms in range(CLOSER_WAIT_MS_MAX + 500, CLOSER_WAIT_MS_MAX * 3, 500):
        rig.door.work(NOW_MS + after_ms)
    assert (exits(rig), rig.alerts.titles) == ([], ["Exits wait for another closer"])
    assert "4711" in rig.alerts.sent[0][2]
    rig.closer_lock.hold = CloserHold.UNBROKEN
    rig.door.work(NOW_MS + CLOSER_WAIT_MS_MAX * 3)
    assert len(exits(rig)) == 1


def test_exit_cancels_what_is_left_of_its_entry_while_it_waits_for_the_lock() -> None:
    rig = Rig(make_limits(fixed_lot_size=3))
    rig.closer_lock.hold = CloserHold.ELSEWHERE
    rig.enter()
    rig.broker.fill("B1", 1, 10_000)
    rig.orders.poll(NOW_MS)
    rig.door.want("AAA", ExitRank.STOP, "stop")
    rig.door.work(NOW_MS)
    assert (rig.broker.cancels, exits(rig)) == (["B1"], [])


def test_lock_that_is_lost_while_an_exit_is_due_stops_the_next_one() -> None:
    rig = holding()
    rig.door.work(NOW_MS)
    rig.broker.end(list(rig.broker.book)[-1], OrderState.CANCELLED)
    rig.orders.poll(NOW_MS)
    rig.closer_lock.hold = CloserHold.ELSEWHERE
    for after_ms in range(1_000, 5_000, 1_000):
        rig.door.work(NOW_MS + after_ms)
    assert (len(exits(rig)), rig.closer_lock.held) == (1, False)


# -- after another closer ------------------------------------------------------------------------------------------


def test_fresh_lock_reads_the_book_before_the_first_exit_and_not_again() -> None:
    rig = holding()
    rig.closer_lock.hold = CloserHold.FRESH
    rig.door.work(NOW_MS)
    assert (rig.broker.reads, len(exits(rig))) == (["orders", "trades"], 1)
    rig.hold("BBB")
    rig.door.want("BBB", ExitRank.STOP, "stop")
    rig.door.work(NOW_MS + 5_000)
    assert (rig.broker.reads, len(exits(rig))) == (["orders", "trades"], 2)


def test_unbroken_lock_reads_nothing() -> None:
    rig = holding()
    rig.door.work(NOW_MS)
    assert (rig.broker.reads, len(exits(rig))) == ([], 1)


@pytest.mark.parametrize("failing", ["orders", "trades"])
def test_fresh_lock_with_an_unreadable_book_sends_nothing_and_tells(failing: str) -> None:
    rig = holding()
    rig.closer_lock.hold = CloserHold.FRESH
    rig.broker.failing = {failing}
    for after_ms in range(0, CLOSER_WAIT_MS_MAX + 2_000, 1_000):
        rig.door.work(NOW_MS + after_ms)
    assert (exits(rig), rig.alerts.titles) == ([], ["Exits wait for another closer"])
    rig.broker.failing = set()
    rig.door.work(NOW_MS + CLOSER_WAIT_MS_MAX + 2_000)
    assert len(exits(rig)) == 1


def test_position_that_another_closer_closed_is_not_closed_again() -> None:
    rig = holding()
    rig.closer_lock.hold = CloserHold.FRESH
    rig.broker.foreign("AAA", Side.SELL, 1, 10_000, told=False)
    rig.door.work(NOW_MS)
    rig.door.work(NOW_MS + 1_000)
    assert (exits(rig), rig.quantity(), rig.door.goals) == ([], 0, {})


def test_foreign_entry_is_left_alone_when_the_position_was_closed_meanwhile() -> None:
    rig = holding()
    rig.closer_lock.hold = CloserHold.FRESH
    rig.broker.foreign("AAA", Side.SELL, 1, 10_000, told=False)
    rig.broker.foreign("AAA", Side.BUY, 1, 0, works=True)
    rig.door.work(NOW_MS)
    assert (exits(rig), rig.broker.cancels, rig.quantity()) == ([], [], 0)


def test_exit_that_another_closer_left_working_counts_until_it_is_old_and_is_then_replaced() -> None:
    rig = holding(lot=3)
    rig.closer_lock.hold = CloserHold.FRESH
    left = rig.broker.foreign("AAA", Side.SELL, 2, 0, works=True)
    rig.door.work(NOW_MS)
    assert [o.quantity for o in exits(rig)] == [1]
    rig.broker.fill(list(rig.broker.book)[-1], 1, 10_000)
    rig.orders.poll(NOW_MS)
    for after_ms in range(1_000, WORKING_MS_MAX, 5_000):
        rig.door.work(NOW_MS + after_ms)
    assert (len(exits(rig)), rig.broker.cancels) == (1, [])
    rig.door.work(NOW_MS + WORKING_MS_MAX + 1)
    assert (len(exits(rig)), rig.broker.cancels) == (1, [left])
    rig.door.work(NOW_MS + WORKING_MS_MAX + 2_000)
    assert [o.quantity for o in exits(rig)] == [1, 2]


def test_exits_of_another_closer_for_more_than_is_open_are_cancelled_first() -> None:
    rig = holding()
    rig.closer_lock.hold = CloserHold.FRESH
    left = rig.broker.foreign("AAA", Side.SELL, 2, 0, works=True)
    rig.door.work(NOW_MS)
    assert (exits(rig), rig.broker.cancels) == ([], [left])
    rig.door.work(NOW_MS + 1_000)
    assert [o.quantity for o in exits(rig)] == [1]


def test_orders_of_others_in_other_symbols_are_left_alone() -> None:
    rig = holding()
    rig.closer_lock.hold = CloserHold.FRESH
    rig.broker.foreign("BBB", Side.SELL, 9, 0, works=True)
    rig.broker.foreign("AAA", Side.SELL, 9, 0, works=True)
    rig.door.work(NOW_MS)
    assert rig.broker.cancels == [rig.broker.id_of(2)]


# -- the note in the journal ---------------------------------------------------------------------------------------


def test_new_tenure_is_journaled_before_its_first_intent_and_once() -> None:
    rig = holding()
    rig.closer_lock.hold = CloserHold.FRESH
    rig.door.work(NOW_MS)
    rig.door.work(NOW_MS + 1_000)
    kinds = [e.kind for e in rig.journal.committed if e.kind in (EventKind.EXIT_PLAN, EventKind.INTENT)]
    assert kinds == [EventKind.INTENT, EventKind.EXIT_PLAN, EventKind.INTENT]
    assert rig.journal.bodies(EventKind.EXIT_PLAN) == [{"closer": PREFIX}]


def test_new_tenure_with_the_journal_down_refuses_no_exit() -> None:
    rig = holding()
    rig.closer_lock.hold = CloserHold.FRESH
    rig.journal.error = JournalUnavailable("disk full")
    rig.door.work(NOW_MS)
    assert len(exits(rig)) == 1


def test_exit_left_live_by_an_earlier_process_is_taken_up_as_a_goal() -> None:
    rig = holding()
    rig.door.work(NOW_MS)
    rig.door.goals.clear()
    rig.door.take_up()
    assert [(symbol, goal.rank) for symbol, goal in rig.door.goals.items()] == [("AAA", ExitRank.STOP)]
