from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.fakes.rig import NOW_MS, Rig, entry_signal, make_instrument, make_limits
from velox_core.domain.errors import JournalUnavailable
from velox_core.domain.orders import ExitRank, Order, OrderState, OrderType, Side
from velox_core.exit_door import ENTRY_CANCEL_MS_MAX, FOREIGN_MS_MAX, REJECTIONS_BEFORE_ALARM, WORKING_MS_MAX
from velox_core.ports import SendStatus
from velox_core.risk.approval import ApprovedOrder

S = OrderState


def exits(rig: Rig) -> list[ApprovedOrder]:
    return [order for order in rig.broker.placed if order.rank is not None]


def lot(quantity: int) -> Rig:
    return Rig(make_limits(fixed_lot_size=quantity))


def last_id(rig: Rig) -> str:
    return list(rig.broker.book)[-1]


def live_exit(rig: Rig) -> Order:
    return rig.orders.live_orders("AAA", entries=False)[0]


@pytest.mark.parametrize(("side", "closing"), [(Side.BUY, Side.SELL), (Side.SELL, Side.BUY)])
def test_goal_sends_one_reduce_only_order_and_ends_when_flat(side: Side, closing: Side) -> None:
    rig = lot(3)
    rig.hold("AAA", side)
    rig.door.want("AAA", ExitRank.STOP, "stop reached")
    for _ in range(3):
        rig.door.work(NOW_MS)
    assert [(o.side, o.quantity, o.rank, o.order_type) for o in exits(rig)] == [(closing, 3, ExitRank.STOP, OrderType.MARKET)]
    rig.broker.fill(last_id(rig), 3, 10_000)
    rig.orders.poll(NOW_MS)
    rig.door.work(NOW_MS)
    assert rig.door.goals == {}
    assert rig.quantity() == 0


def test_goal_for_what_is_not_held_ends_at_once() -> None:
    rig = Rig()
    rig.door.want("AAA", ExitRank.EMERGENCY, "nothing there")
    rig.door.work(NOW_MS)
    assert rig.door.goals == {}
    assert rig.broker.placed == []


def test_want_keeps_the_stronger_goal() -> None:
    rig = Rig()
    rig.door.want("AAA", ExitRank.STOP, "stop")
    rig.door.want("AAA", ExitRank.TARGET, "target")
    rig.door.want("AAA", ExitRank.STOP, "again")
    assert (rig.door.goals["AAA"].rank, rig.door.goals["AAA"].reason) == (ExitRank.STOP, "stop")
    rig.door.want("AAA", ExitRank.EMERGENCY, "now")
    assert (rig.door.goals["AAA"].rank, rig.door.goals["AAA"].reason) == (ExitRank.EMERGENCY, "now")


def test_want_all_takes_positions_and_entries_on_their_way() -> None:
    rig = Rig()
    rig.hold("AAA")
    rig.enter(entry_signal("BBB"))
    rig.door.want_all(ExitRank.SQUARE_OFF, "time")
    assert set(rig.door.goals) == {"AAA", "BBB"}


@pytest.mark.parametrize(
    "trouble",
    [
        lambda rig: rig.emergency.load(),
        lambda rig: setattr(rig.ledger, "down", True),
        lambda rig: setattr(rig.journal, "error", JournalUnavailable("disk full")),
        lambda rig: setattr(rig.risk.readiness, "armed", False),
        lambda rig: setattr(rig.risk.readiness, "feed_ts_ms", 0),
        lambda rig: setattr(rig.broker, "failing", {"orders", "trades", "positions", "funds"}),
        lambda rig: rig.instruments.clear(),
    ],
    ids=["halt", "ledger", "journal", "not armed", "stale", "reads", "unknown instrument"],
)
def test_exit_leaves_with_everything_else_down(trouble: Callable[[Rig], None]) -> None:
    rig = Rig()
    rig.hold()
    trouble(rig)
    rig.door.want("AAA", ExitRank.STOP, "stop")
    rig.door.work(NOW_MS)
    assert len(exits(rig)) == 1
    rig.broker.fill(last_id(rig), 1, 10_000)
    rig.orders.poll(NOW_MS)
    assert rig.quantity() == 0


# -- entries first -------------------------------------------------------------------------------------------------


def test_exit_first_cancels_what_is_left_of_the_entry() -> None:
    rig = lot(3)
    entry = rig.enter()
    rig.broker.fill("B1", 1, 10_000)
    rig.orders.poll(NOW_MS)
    rig.door.want("AAA", ExitRank.STOP, "stop")
    rig.door.work(NOW_MS)
    assert rig.broker.cancels == ["B1"]
    assert entry.state is S.CANCELLED
    assert [o.quantity for o in exits(rig)] == [1]


def test_exit_waits_for_the_cancel_only_so_long_and_closes_the_rest_later() -> None:
    rig = lot(3)
    rig.enter()
    rig.broker.fill("B1", 1, 10_000)
    rig.orders.poll(NOW_MS)
    rig.broker.cancel_answers.extend([SendStatus.UNKNOWN] * 10)
    rig.door.want("AAA", ExitRank.STOP, "stop")
    for after_ms in range(0, ENTRY_CANCEL_MS_MAX, 1_000):
        rig.door.work(NOW_MS + after_ms)
    assert exits(rig) == []
    rig.door.work(NOW_MS + ENTRY_CANCEL_MS_MAX)
    assert [o.quantity for o in exits(rig)] == [1]
    rig.broker.fill("B1", 2, 10_000)
    rig.orders.poll(NOW_MS)
    rig.door.work(NOW_MS + ENTRY_CANCEL_MS_MAX + 1_000)
    assert [o.quantity for o in exits(rig)] == [1, 2]
    for order_id in list(rig.broker.book)[1:]:
        rig.broker.fill(order_id, rig.broker.book[order_id].quantity, 10_000)
    rig.orders.poll(NOW_MS)
    rig.door.work(NOW_MS + 20_000)
    assert (rig.quantity(), rig.door.goals) == (0, {})


def test_goal_with_an_entry_that_never_traded_ends_with_its_cancel() -> None:
    rig = Rig()
    rig.enter()
    rig.door.want("AAA", ExitRank.SQUARE_OFF, "time")
    rig.door.work(NOW_MS)
    assert rig.door.goals == {}
    assert exits(rig) == []


def test_goal_with_an_unknown_entry_stands_until_it_is_explained() -> None:
    rig = Rig()
    rig.broker.answers.append(rig.broker.LOST)
    rig.enter()
    rig.door.want("AAA", ExitRank.EMERGENCY, "halt")
    for after_ms in range(0, 20_000, 1_000):
        rig.door.work(NOW_MS + after_ms)
    assert (rig.broker.cancels, exits(rig), list(rig.door.goals)) == ([], [], ["AAA"])
    rig.broker.fill("B1", 1, 10_000)
    rig.orders.poll(NOW_MS)
    rig.door.work(NOW_MS + 20_000)
    assert [o.quantity for o in exits(rig)] == [1]


# -- what counts as working ----------------------------------------------------------------------------------------


def test_stronger_goal_does_not_send_beside_a_young_marketable_exit() -> None:
    rig = Rig()
    rig.hold()
    rig.door.want("AAA", ExitRank.TARGET, "target")
    rig.door.work(NOW_MS)
    rig.door.want("AAA", ExitRank.EMERGENCY, "halt")
    rig.door.work(NOW_MS + WORKING_MS_MAX)
    assert len(exits(rig)) == 1
    assert rig.broker.cancels == []


def test_exit_older_than_the_bound_is_cancelled_and_replaced() -> None:
    rig = Rig()
    rig.hold()
    rig.door.want("AAA", ExitRank.STOP, "stop")
    rig.door.work(NOW_MS)
    rig.door.work(NOW_MS + WORKING_MS_MAX + 1)
    assert rig.broker.cancels == [list(rig.broker.book)[1]]
    assert [o.quantity for o in exits(rig)] == [1, 1]
    assert len(rig.orders.live) == 1


def test_replacement_waits_until_the_cancel_is_confirmed() -> None:
    rig = Rig()
    rig.hold()
    rig.door.want("AAA", ExitRank.STOP, "stop")
    rig.door.work(NOW_MS)
    rig.broker.cancel_answers.extend([SendStatus.UNKNOWN, SendStatus.UNKNOWN])
    late_ms = NOW_MS + WORKING_MS_MAX + 1
    rig.door.work(late_ms)
    rig.door.work(late_ms + 1_000)
    assert len(exits(rig)) == 1
    rig.door.work(late_ms + 2_000)
    assert len(exits(rig)) == 2


def test_cancel_that_comes_too_late_does_not_close_twice() -> None:
    rig = Rig()
    rig.hold()
    rig.door.want("AAA", ExitRank.STOP, "stop")
    rig.door.work(NOW_MS)
    rig.broker.cancel_answers.append(SendStatus.REJECTED)
    rig.broker.fill(last_id(rig), 1, 10_000)
    rig.door.work(NOW_MS + WORKING_MS_MAX + 1)
    assert len(exits(rig)) == 1
    rig.door.work(NOW_MS + WORKING_MS_MAX + 2)
    assert (rig.quantity(), rig.door.goals) == (0, {})


@pytest.mark.parametrize(
    ("limit_paise", "rank", "replaced"),
    [
        (9_900, ExitRank.TARGET, False),
        (10_000, ExitRank.TARGET, False),
        (10_005, ExitRank.TARGET, True),
        (9_900, ExitRank.STOP, True),
        (9_900, ExitRank.EMERGENCY, True),
        (11_000, ExitRank.EMERGENCY, True),
    ],
)
def test_limit_counts_as_working_while_it_is_marketable_and_no_stronger_goal_stands(
    limit_paise: int, rank: ExitRank, replaced: bool
) -> None:
    rig = Rig()
    rig.hold(price_paise=10_000)
    rig.exit_now(rank=ExitRank.TARGET, limit_price_paise=limit_paise)
    rig.door.want("AAA", rank, "goal")
    rig.door.work(NOW_MS)
    assert bool(rig.broker.cancels) is replaced
    assert [o.order_type for o in exits(rig)] == [OrderType.LIMIT, OrderType.MARKET][: 1 + replaced]


@pytest.mark.parametrize(("limit_paise", "replaced"), [(9_500, False), (9_505, True)])
def test_limit_at_the_band_keeps_its_place_in_the_queue(limit_paise: int, replaced: bool) -> None:
    rig = Rig()
    rig.hold(price_paise=9_505)
    rig.instruments["AAA"] = make_instrument("AAA", lower_band_paise=9_500, upper_band_paise=10_500)
    rig.exit_now(rank=ExitRank.STOP, limit_price_paise=limit_paise)
    rig.door.want("AAA", ExitRank.STOP, "stop")
    rig.door.work(NOW_MS + WORKING_MS_MAX + 1)
    assert bool(rig.broker.cancels) is replaced
    assert len(exits(rig)) == 1 + replaced


def test_unknown_exit_counts_as_working_and_is_not_replaced_here() -> None:
    rig = Rig()
    rig.hold()
    rig.broker.answers.append(SendStatus.UNKNOWN)
    rig.door.want("AAA", ExitRank.EMERGENCY, "halt")
    for after_ms in range(0, 300_000, 5_000):
        rig.door.work(NOW_MS + after_ms)
    assert len(exits(rig)) == 1


def test_part_filled_exit_is_not_topped_up_while_its_rest_works() -> None:
    rig = lot(3)
    rig.hold()
    rig.door.want("AAA", ExitRank.STOP, "stop")
    rig.door.work(NOW_MS)
    rig.broker.fill(last_id(rig), 2, 10_000)
    rig.orders.poll(NOW_MS)
    rig.door.work(NOW_MS + 5_000)
    assert len(exits(rig)) == 1


def test_exit_that_is_cancelled_by_the_exchange_is_sent_again_for_the_rest() -> None:
    rig = lot(3)
    rig.hold()
    rig.door.want("AAA", ExitRank.STOP, "stop")
    rig.door.work(NOW_MS)
    rig.broker.fill(last_id(rig), 2, 10_000)
    rig.broker.end(last_id(rig), S.CANCELLED)
    rig.orders.poll(NOW_MS)
    rig.door.work(NOW_MS + 1_000)
    assert [o.quantity for o in exits(rig)] == [3, 1]


# -- never a reversal ----------------------------------------------------------------------------------------------


def test_exit_still_working_when_somebody_else_closed_is_cancelled() -> None:
    rig = Rig()
    rig.hold()
    rig.door.want("AAA", ExitRank.STOP, "stop")
    rig.door.work(NOW_MS)
    exit_id = last_id(rig)
    rig.broker.foreign("AAA", Side.SELL, 1, 10_000)
    rig.orders.poll(NOW_MS)
    rig.door.work(NOW_MS + 1_000)
    assert rig.broker.cancels == [exit_id]
    assert (rig.orders.live, rig.door.goals) == ({}, {})


def test_exit_for_more_than_is_left_is_cancelled_before_a_smaller_one_leaves() -> None:
    rig = lot(3)
    rig.hold()
    rig.door.want("AAA", ExitRank.STOP, "stop")
    rig.door.work(NOW_MS)
    rig.broker.foreign("AAA", Side.SELL, 2, 10_000)
    rig.orders.poll(NOW_MS)
    rig.broker.cancel_answers.append(SendStatus.UNKNOWN)
    rig.door.work(NOW_MS + 1_000)
    assert len(exits(rig)) == 1
    rig.door.work(NOW_MS + 2_000)
    assert [o.quantity for o in exits(rig)] == [3, 1]
    assert live_exit(rig).quantity == 1


def test_exit_of_the_wrong_side_does_not_count_as_working() -> None:
    rig = Rig()
    rig.hold()
    rig.door.want("AAA", ExitRank.STOP, "stop")
    rig.door.work(NOW_MS)
    rig.broker.foreign("AAA", Side.SELL, 2, 10_000)
    rig.orders.poll(NOW_MS)
    rig.door.work(NOW_MS + 1_000)
    assert rig.quantity() == -1
    assert [(o.side, o.quantity) for o in exits(rig)] == [(Side.SELL, 1), (Side.BUY, 1)]
    assert live_exit(rig).side is Side.BUY


def test_exit_is_sliced_to_the_freeze_quantity() -> None:
    rig = Rig(make_limits(fixed_lot_size=5, max_position_size_paise=10**9), freeze_quantity=2)
    rig.hold()
    rig.door.want("AAA", ExitRank.STOP, "stop")
    for after_ms in range(0, 5_000, 1_000):
        rig.door.work(NOW_MS + after_ms)
    assert [o.quantity for o in exits(rig)] == [2, 2, 1]


# -- rejections ----------------------------------------------------------------------------------------------------


def test_rejected_exit_is_tried_again_once_a_second_and_as_a_limit_after_two() -> None:
    rig = Rig()
    rig.hold(price_paise=10_000)
    rig.broker.answers.extend([SendStatus.REJECTED] * 3)
    rig.door.want("AAA", ExitRank.STOP, "stop")
    for after_ms in range(0, 4_000, 250):
        rig.door.work(NOW_MS + after_ms)
    assert [(o.order_type, o.limit_price_paise) for o in exits(rig)] == [
        (OrderType.MARKET, 0),
        (OrderType.MARKET, 0),
        (OrderType.LIMIT, 9_900),
        (OrderType.LIMIT, 9_900),
    ]
    assert rig.orders.live_orders("AAA", entries=False)[0].state is S.OPEN


@pytest.mark.parametrize(
    ("side", "bands", "limit"),
    [
        (Side.BUY, {}, 9_900),
        (Side.BUY, {"lower_band_paise": 9_950, "upper_band_paise": 11_000}, 9_950),
        (Side.SELL, {}, 10_100),
        (Side.SELL, {"lower_band_paise": 9_000, "upper_band_paise": 10_050}, 10_050),
    ],
)
def test_limit_after_rejections_stays_within_protection_and_band(side: Side, bands: dict[str, int], limit: int) -> None:
    rig = Rig()
    rig.hold("AAA", side)
    rig.instruments["AAA"] = make_instrument("AAA", **bands)
    rig.broker.answers.extend([SendStatus.REJECTED] * 2)
    rig.door.want("AAA", ExitRank.STOP, "stop")
    for after_ms in (0, 1_000, 2_000):
        rig.door.work(NOW_MS + after_ms)
    assert exits(rig)[-1].limit_price_paise == limit


def test_rejections_alarm_once_and_trying_goes_on() -> None:
    rig = Rig()
    rig.hold()
    rig.broker.answers.extend([SendStatus.REJECTED] * 8)
    rig.door.want("AAA", ExitRank.STOP, "stop")
    for after_ms in range(0, (REJECTIONS_BEFORE_ALARM + 3) * 1_000, 1_000):
        rig.door.work(NOW_MS + after_ms)
    assert rig.alerts.titles == ["AAA cannot be closed"]
    assert len(exits(rig)) == 8


def test_rejected_exit_of_a_symbol_outside_the_universe_stays_a_market_order() -> None:
    rig = Rig()
    rig.broker.foreign("ZZZ", Side.BUY, 1, 500)
    rig.orders.poll(NOW_MS)
    rig.broker.answers.extend([SendStatus.REJECTED] * 3)
    rig.door.want("ZZZ", ExitRank.SQUARE_OFF, "time")
    for after_ms in range(0, 4_000, 1_000):
        rig.door.work(NOW_MS + after_ms)
    assert {o.order_type for o in exits(rig)} == {OrderType.MARKET}


def test_limit_without_a_mark_is_not_invented() -> None:
    rig = Rig()
    rig.hold()
    rig.broker.answers.extend([SendStatus.REJECTED] * 2)
    rig.day_loss.open_marks[0].mark_paise = 0
    rig.door.want("AAA", ExitRank.STOP, "stop")
    for after_ms in range(0, 3_000, 1_000):
        rig.door.work(NOW_MS + after_ms)
    assert {o.order_type for o in exits(rig)} == {OrderType.MARKET}


# -- after the hard stop -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("now_ms", "reads"), [(NOW_MS - 1, 0), (NOW_MS, 1)])
def test_hard_stop_asks_the_book_before_a_send(now_ms: int, reads: int) -> None:
    rig = Rig()
    rig.hold(now_ms=NOW_MS - 1)
    rig.door.hard_stop_ms = NOW_MS
    rig.door.want("AAA", ExitRank.SQUARE_OFF, "time")
    rig.door.work(now_ms)
    assert rig.broker.reads.count("orders") == reads
    assert len(exits(rig)) == 1


def test_hard_stop_with_a_foreign_order_working_sends_nothing_until_it_is_gone() -> None:
    rig = Rig()
    rig.hold()
    rig.door.hard_stop_ms = NOW_MS
    foreign_id = rig.broker.foreign("AAA", Side.SELL, 1, 0, works=True)
    rig.door.want("AAA", ExitRank.SQUARE_OFF, "time")
    rig.door.work(NOW_MS)
    rig.door.work(NOW_MS + 500)
    assert exits(rig) == []
    assert rig.broker.reads.count("orders") == 1
    rig.broker.end(foreign_id, S.CANCELLED, told=False)
    rig.door.work(NOW_MS + 1_000)
    assert len(exits(rig)) == 1


@pytest.mark.parametrize("failing", ["", "orders"])
def test_exit_that_an_unknown_order_blocks_for_long_is_told_to_a_person_once(failing: str) -> None:
    rig = Rig()
    rig.hold()
    rig.door.hard_stop_ms = NOW_MS
    rig.broker.foreign("AAA", Side.SELL, 1, 0, works=True)
    rig.broker.failing = {failing} - {""}
    rig.door.want("AAA", ExitRank.SQUARE_OFF, "time")
    for after_ms in range(0, FOREIGN_MS_MAX, 1_000):
        rig.door.work(NOW_MS + after_ms)
    assert rig.alerts.titles == []
    for after_ms in range(FOREIGN_MS_MAX, FOREIGN_MS_MAX * 3, 1_000):
        rig.door.work(NOW_MS + after_ms)
    assert rig.alerts.titles == ["AAA is not being closed by us"]
    assert (exits(rig), rig.broker.cancels) == ([], [])


def test_hard_stop_with_the_brokers_own_close_in_the_trades_sends_nothing() -> None:
    rig = Rig()
    rig.hold()
    rig.door.hard_stop_ms = NOW_MS
    rig.broker.foreign("AAA", Side.SELL, 1, 10_000, told=False)
    rig.door.want("AAA", ExitRank.SQUARE_OFF, "time")
    rig.door.work(NOW_MS)
    rig.door.work(NOW_MS + 1_000)
    assert (exits(rig), rig.quantity(), rig.door.goals) == ([], 0, {})


@pytest.mark.parametrize("failing", ["orders", "trades"])
def test_hard_stop_with_an_unreadable_book_sends_nothing(failing: str) -> None:
    rig = Rig()
    rig.hold()
    rig.door.hard_stop_ms = NOW_MS
    rig.broker.failing = {failing}
    rig.door.want("AAA", ExitRank.SQUARE_OFF, "time")
    rig.door.work(NOW_MS)
    assert exits(rig) == []
    rig.broker.failing = set()
    rig.door.work(NOW_MS + 1_000)
    assert len(exits(rig)) == 1
