from __future__ import annotations

import pytest

from tests.fakes.rig import NOW_MS, Rig, entry_signal
from velox_core.domain.events import EventKind
from velox_core.domain.orders import ExitRank, Order, OrderState, Side, unknown_lock
from velox_core.inline_sends import InlineSends
from velox_core.order_recovery import (
    EXIT_REPLACE_MS_MIN,
    READ_INTERVAL_MS,
    SEARCH_MS_MAX,
    UNRESOLVED_ALERT_MS,
    WATCH_INTERVAL_MS,
)
from velox_core.ports import SendStatus, Severity
from velox_core.risk.layers import ReasonCode, Refusal

S = OrderState


def state_of(order: Order) -> OrderState:
    return order.state


def unknown_entry(rig: Rig, *, in_book: bool = False) -> Order:
    rig.broker.answers.append(rig.broker.LOST if in_book else SendStatus.UNKNOWN)
    return rig.enter()


def unknown_exit(rig: Rig, *, in_book: bool = False) -> Order:
    if not rig.quantity():
        rig.hold()
    rig.broker.answers.append(rig.broker.LOST if in_book else SendStatus.UNKNOWN)
    return rig.exit_now()


def work_until(rig: Rig, until_ms: int, *, step_ms: int = 1_000, start_ms: int = 0) -> None:
    for after_ms in range(start_ms, until_ms + 1, step_ms):
        rig.recovery.work(NOW_MS + after_ms)


def test_recovery_with_nothing_unknown_reads_nothing() -> None:
    rig = Rig()
    rig.recovery.work(NOW_MS)
    assert (rig.broker.reads, rig.recovery.watching) == ([], False)


def test_unknown_order_is_alerted_once_and_first_looked_for_after_the_interval() -> None:
    rig = Rig()
    order = unknown_entry(rig)
    work_until(rig, READ_INTERVAL_MS - 1)
    assert rig.broker.reads == []
    assert rig.alerts.titles == [f"Order {order.client_order_id} is UNKNOWN"]
    assert rig.recovery.watching
    rig.recovery.work(NOW_MS + READ_INTERVAL_MS)
    assert rig.broker.reads == ["orders", "trades"]


def test_unknown_order_in_the_book_is_adopted_with_its_fills() -> None:
    rig = Rig()
    order = unknown_entry(rig, in_book=True)
    rig.broker.fill("B1", 1, 10_000, told=False)
    work_until(rig, READ_INTERVAL_MS)
    assert (order.state, rig.quantity(), rig.risk.locks) == (S.FILLED, 1, {})
    assert len(rig.broker.placed) == 1
    work_until(rig, 4 * READ_INTERVAL_MS, start_ms=READ_INTERVAL_MS)
    assert not rig.recovery.watching


def test_unknown_order_that_rests_in_the_book_is_open_again() -> None:
    rig = Rig()
    order = unknown_entry(rig, in_book=True)
    work_until(rig, READ_INTERVAL_MS)
    assert (order.state, order.broker_order_id, rig.risk.locks) == (S.OPEN, "B1", {})


def test_unknown_order_explained_by_the_news_is_looked_for_no_longer() -> None:
    rig = Rig()
    unknown_entry(rig, in_book=True)
    rig.recovery.work(NOW_MS)
    rig.broker.fill("B1", 1, 10_000)
    rig.orders.poll(NOW_MS)
    work_until(rig, 2 * READ_INTERVAL_MS)
    assert not rig.recovery.watching
    assert rig.quantity() == 1


def test_unknown_entry_is_searched_for_120_seconds_and_never_sent_again() -> None:
    rig = Rig()
    order = unknown_entry(rig)
    work_until(rig, SEARCH_MS_MAX - 1)
    assert state_of(order) is S.UNKNOWN
    work_until(rig, SEARCH_MS_MAX, start_ms=SEARCH_MS_MAX)
    assert state_of(order) is S.CANCELLED
    assert rig.risk.locks == {"AAA": unknown_lock(order)}
    assert list(rig.ledger.inner.snapshot().claims) == [order.client_order_id]
    answer = rig.ask(entry_signal("AAA", Side.SELL, strategy="beta"), NOW_MS + SEARCH_MS_MAX)
    assert isinstance(answer, Refusal)
    assert answer.code is ReasonCode.SYMBOL_LOCKED
    assert len(rig.broker.placed) == 1
    assert "was not placed" in rig.alerts.titles[-1]


def test_unknown_exit_is_given_up_after_15_seconds_and_two_reads() -> None:
    rig = Rig()
    order = unknown_exit(rig)
    work_until(rig, EXIT_REPLACE_MS_MIN - 1)
    assert state_of(order) is S.UNKNOWN
    work_until(rig, EXIT_REPLACE_MS_MIN, start_ms=EXIT_REPLACE_MS_MIN)
    assert state_of(order) is S.CANCELLED
    assert rig.broker.reads.count("orders") == EXIT_REPLACE_MS_MIN // READ_INTERVAL_MS


class OwedSends(InlineSends):
    """Sends of which the requests in `owed` have not ended."""

    def __init__(self) -> None:
        self.owed: set[str] = set()

    def is_owed(self, client_order_id: str) -> bool:
        return client_order_id in self.owed


def owed_exit(rig: Rig) -> tuple[Order, OwedSends]:
    order = unknown_exit(rig)
    sends = OwedSends()
    sends.owed.add(order.client_order_id)
    rig.orders.sends = sends
    return order, sends


def test_unknown_exit_whose_own_request_hangs_is_given_up_after_the_full_search_only() -> None:
    rig = Rig()
    order, _ = owed_exit(rig)
    work_until(rig, SEARCH_MS_MAX - 1)
    assert state_of(order) is S.UNKNOWN
    work_until(rig, SEARCH_MS_MAX, start_ms=SEARCH_MS_MAX)
    assert state_of(order) is S.CANCELLED


def test_unknown_exit_is_given_up_two_reads_after_its_own_request_ended() -> None:
    rig = Rig()
    order, sends = owed_exit(rig)
    work_until(rig, 30_000)
    sends.owed.clear()
    until_ms = 30_000 + 3 * READ_INTERVAL_MS  # the first read may have begun before the end
    work_until(rig, until_ms - 1, start_ms=31_000)
    assert state_of(order) is S.UNKNOWN
    work_until(rig, until_ms, start_ms=until_ms)
    assert state_of(order) is S.CANCELLED


def test_unknown_exit_with_unreadable_books_is_not_given_up() -> None:
    rig = Rig()
    order = unknown_exit(rig)
    rig.broker.failing = {"orders"}
    work_until(rig, SEARCH_MS_MAX * 2)
    assert state_of(order) is S.UNKNOWN
    assert rig.broker.reads.count("orders") == SEARCH_MS_MAX * 2 // READ_INTERVAL_MS  # a failed read waits its turn too
    rig.broker.failing = set()
    work_until(rig, SEARCH_MS_MAX * 2 + READ_INTERVAL_MS, start_ms=SEARCH_MS_MAX * 2 + READ_INTERVAL_MS)
    assert state_of(order) is S.UNKNOWN  # one read is not two
    work_until(rig, SEARCH_MS_MAX * 2 + 2 * READ_INTERVAL_MS, start_ms=SEARCH_MS_MAX * 2 + 2 * READ_INTERVAL_MS)
    assert state_of(order) is S.CANCELLED


def test_unknown_exit_with_a_changed_position_waits_the_full_time() -> None:
    rig = Rig()
    order = unknown_exit(rig)
    rig.recovery.work(NOW_MS)
    rig.broker.foreign("AAA", Side.SELL, 1, 10_000)
    rig.orders.poll(NOW_MS)
    work_until(rig, SEARCH_MS_MAX - 1)
    assert state_of(order) is S.UNKNOWN
    work_until(rig, SEARCH_MS_MAX, start_ms=SEARCH_MS_MAX)
    assert state_of(order) is S.CANCELLED


def second_unknown_exit(rig: Rig) -> tuple[Order, int]:
    """Return an exit that is UNKNOWN after another was given up, and the ms after NOW_MS at which its search begins."""
    unknown_exit(rig)
    work_until(rig, EXIT_REPLACE_MS_MIN)
    return unknown_exit(rig), EXIT_REPLACE_MS_MIN + 1_000


def test_second_unknown_exit_of_a_symbol_is_never_given_up_while_the_position_is_open_and_told_each_minute() -> None:
    rig = Rig()
    second, start = second_unknown_exit(rig)
    work_until(rig, start + 4 * SEARCH_MS_MAX, start_ms=start)
    assert state_of(second) is S.UNKNOWN
    assert unknown_lock(second) in rig.risk.locks["AAA"]
    told = [(severity, text) for severity, title, text in rig.alerts.sent if "not being closed again" in title]
    assert len(told) == (4 * SEARCH_MS_MAX - EXIT_REPLACE_MS_MIN) // UNRESOLVED_ALERT_MS + 1
    assert {severity for severity, _ in told} == {Severity.CRITICAL}
    assert "We hold 1, the broker says 1" in told[0][1]
    assert list(rig.orders.unresolved_exits) == [second.client_order_id]


def test_second_unknown_exit_found_by_its_tag_is_adopted() -> None:
    rig = Rig()
    second, start = second_unknown_exit(rig)
    work_until(rig, start + SEARCH_MS_MAX, start_ms=start)
    line = rig.broker._enter(second.client_order_id, "AAA", Side.SELL, 1, NOW_MS)
    rig.broker.fill(line.broker_order_id, 1, 10_000, told=False)
    later = start + SEARCH_MS_MAX + READ_INTERVAL_MS
    work_until(rig, later, start_ms=later)
    assert (state_of(second), rig.quantity(), rig.orders.unresolved_exits) == (S.FILLED, 0, {})


def test_second_unknown_exit_is_settled_when_both_sides_are_flat_and_stays_watched() -> None:
    rig = Rig()
    second, start = second_unknown_exit(rig)
    work_until(rig, start + SEARCH_MS_MAX, start_ms=start)
    rig.broker.foreign("AAA", Side.SELL, 1, 10_000)
    later = start + SEARCH_MS_MAX + READ_INTERVAL_MS
    work_until(rig, later, start_ms=later)
    assert (state_of(second), rig.quantity(), rig.orders.unresolved_exits) == (S.CANCELLED, 0, {})
    assert second.client_order_id in rig.orders.not_placed
    assert unknown_lock(second) in rig.risk.locks["AAA"]
    assert rig.alerts.titles[-1] == f"Order {second.client_order_id} was not placed"
    line = rig.broker._enter(second.client_order_id, "AAA", Side.SELL, 1, NOW_MS)
    work_until(rig, later + WATCH_INTERVAL_MS, start_ms=later)
    assert rig.broker.cancels == [line.broker_order_id]


@pytest.mark.parametrize("why", ["unreadable", "still held"])
def test_second_unknown_exit_is_not_settled_on_our_word_alone(why: str) -> None:
    rig = Rig()
    second, start = second_unknown_exit(rig)
    rig.broker.foreign("AAA", Side.SELL, 1, 10_000)
    if why == "unreadable":
        rig.broker.failing = {"positions"}
    else:
        rig.broker.unseen = {"AAA": 1}
    work_until(rig, start + SEARCH_MS_MAX, start_ms=start)
    assert (state_of(second), rig.quantity()) == (S.UNKNOWN, 0)
    says = "cannot be read" if why == "unreadable" else "says 1"
    assert f"We hold 0, the broker {says}" in rig.orders.unresolved_exits[second.client_order_id]
    rig.broker.failing, rig.broker.unseen = set(), {}
    later = start + SEARCH_MS_MAX + READ_INTERVAL_MS
    work_until(rig, later, start_ms=later)
    assert state_of(second) is S.CANCELLED


def test_second_unknown_exit_is_not_settled_where_the_brokers_position_alone_is_flat() -> None:
    rig = Rig()
    second, start = second_unknown_exit(rig)
    rig.broker.unseen = {"AAA": -1}  # it has traded, and its trade is not listed yet
    work_until(rig, start + 2 * SEARCH_MS_MAX, start_ms=start)
    assert (state_of(second), rig.quantity()) == (S.UNKNOWN, 1)
    assert "We hold 1, the broker says 0" in rig.orders.unresolved_exits[second.client_order_id]


def test_second_unknown_exit_of_a_flat_symbol_whose_request_hangs_is_settled_after_the_full_search() -> None:
    rig = Rig()
    second, start = second_unknown_exit(rig)
    sends = OwedSends()
    sends.owed.add(second.client_order_id)
    rig.orders.sends = sends
    rig.broker.foreign("AAA", Side.SELL, 1, 10_000)
    work_until(rig, start + SEARCH_MS_MAX - 1_000, start_ms=start)
    assert state_of(second) is S.UNKNOWN
    work_until(rig, start + SEARCH_MS_MAX, start_ms=start + SEARCH_MS_MAX)
    assert state_of(second) is S.CANCELLED


def test_no_entry_is_made_while_an_exit_of_a_flat_symbol_is_unknown() -> None:
    rig = Rig()
    unknown = unknown_exit(rig)
    rig.recovery.work(NOW_MS)
    assert not isinstance(rig.ask(entry_signal("BBB")), Refusal)  # the open position holds the slot
    rig.broker.foreign("AAA", Side.SELL, 1, 10_000)
    rig.orders.poll(NOW_MS)
    rig.recovery.work(NOW_MS + 1_000)
    answer = rig.ask(entry_signal("CCC"), NOW_MS + 1_000)
    assert isinstance(answer, Refusal)
    assert (answer.code, unknown.client_order_id in answer.text) == (ReasonCode.EXIT_UNKNOWN, True)
    line = rig.broker._enter(unknown.client_order_id, "AAA", Side.SELL, 1, NOW_MS)
    rig.broker.end(line.broker_order_id, S.REJECTED)
    rig.orders.poll(NOW_MS)
    assert rig.recovery.watching  # or nobody would take the refusal back
    rig.recovery.work(NOW_MS + 2_000)
    assert not isinstance(rig.ask(entry_signal("CCC"), NOW_MS + 2_000), Refusal)


def test_order_given_up_that_appears_late_is_cancelled_and_booked() -> None:
    rig = Rig()
    order = unknown_exit(rig)
    work_until(rig, EXIT_REPLACE_MS_MIN)
    assert rig.recovery.watching
    line = rig.broker._enter(order.client_order_id, "AAA", Side.SELL, 1, NOW_MS)
    rig.broker.cancel_answers.append(SendStatus.UNKNOWN)
    later = EXIT_REPLACE_MS_MIN + WATCH_INTERVAL_MS
    work_until(rig, later, start_ms=EXIT_REPLACE_MS_MIN + 1_000)
    assert rig.broker.cancels == [line.broker_order_id]
    assert rig.alerts.titles[-1] == f"Order {order.client_order_id} appeared late"
    work_until(rig, later + WATCH_INTERVAL_MS, start_ms=later)
    assert rig.broker.cancels == [line.broker_order_id] * 2
    assert rig.alerts.titles.count(f"Order {order.client_order_id} appeared late") == 1
    work_until(rig, later + 3 * WATCH_INTERVAL_MS, start_ms=later)
    assert not rig.recovery.watching


def test_order_given_up_that_traded_late_is_booked_and_overshoots() -> None:
    rig = Rig()
    order = unknown_exit(rig)
    work_until(rig, EXIT_REPLACE_MS_MIN)
    replacement = rig.exit_now(rank=ExitRank.STOP)
    rig.broker.fill(replacement.broker_order_id, 1, 10_000)
    rig.orders.poll(NOW_MS)
    line = rig.broker._enter(order.client_order_id, "AAA", Side.SELL, 1, NOW_MS)
    rig.broker.fill(line.broker_order_id, 1, 10_000, told=False)
    work_until(rig, EXIT_REPLACE_MS_MIN + WATCH_INTERVAL_MS, start_ms=EXIT_REPLACE_MS_MIN)
    assert (rig.quantity(), rig.orders.overshot) == (-1, {"AAA"})
    assert not rig.recovery.watching
    assert rig.broker.cancels == []


def test_quiet_live_order_is_looked_up_so_that_a_lost_update_hides_nothing() -> None:
    rig = Rig()
    order = rig.enter()
    rig.broker.fill("B1", 1, 10_000, told=False)
    rig.recovery.work(NOW_MS + 4_999)
    assert rig.broker.reads == []
    rig.recovery.work(NOW_MS + 5_000)
    assert (order.state, rig.quantity()) == (S.FILLED, 1)
    assert len(rig.journal.bodies(EventKind.FILL)) == 1


def test_quiet_live_order_is_looked_up_at_most_once_per_interval() -> None:
    rig = Rig()
    rig.enter()
    work_until(rig, 20_000, step_ms=250)
    assert rig.broker.reads.count("orders") == 4
