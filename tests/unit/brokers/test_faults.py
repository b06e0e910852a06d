"""What the simulated broker does wrong when a fault plan asks for it, and that its book stays right."""

from __future__ import annotations

import pytest

from tests.unit.brokers.simulated_day import MINUTE_MS, START_MS, SimulatedDay, fills_of, flat_bar, updates_of
from velox_core.brokers.faults import Fault, FaultKind, FaultPlan
from velox_core.domain.errors import BrokerError
from velox_core.domain.orders import OrderState, Side
from velox_core.ports import SendStatus


def day_with(*script: Fault, **config: int | float) -> tuple[SimulatedDay, FaultPlan]:
    plan = FaultPlan(5, script=script)
    return SimulatedDay(faults=plan, **config), plan


@pytest.mark.parametrize("kind", [FaultKind.TIMEOUT_BEFORE, FaultKind.SERVER_ERROR])
def test_send_lost_before_acceptance_is_unknown_and_never_exists(kind):
    day, plan = day_with(Fault(kind=kind))
    outcome = day.send()
    assert (outcome.status, outcome.broker_order_id) == (SendStatus.UNKNOWN, "")
    assert day.broker.orders() == []
    assert day.minute(tcs=flat_bar(390_000)) == []
    assert [fault.kind for fault in plan.injected] == [kind]


@pytest.mark.parametrize("kind", [FaultKind.TIMEOUT_AFTER, FaultKind.TORN_REPLY])
def test_reply_lost_after_acceptance_is_unknown_and_the_order_trades(kind):
    day, plan = day_with(Fault(kind=kind))
    order = day.order()
    outcome = day.broker.place(order, day.now_ms)
    assert (outcome.status, outcome.broker_order_id) == (SendStatus.UNKNOWN, "")
    assert [line.tag for line in day.broker.orders()] == [order.client_order_id]
    assert [fill.client_order_id for fill in fills_of(day.minute(tcs=flat_bar(390_000)))] == [order.client_order_id]
    assert plan.injected[0].ts_ms == START_MS


def test_reply_lost_of_an_impossible_order_is_unknown_and_nothing_exists():
    day, _ = day_with(Fault(kind=FaultKind.TIMEOUT_AFTER))
    assert day.send(quantity=0).status is SendStatus.UNKNOWN
    assert day.broker.orders() == []


@pytest.mark.parametrize("kind", [FaultKind.REJECT, FaultKind.REJECT_LATE, FaultKind.PARTIAL])
def test_fault_on_an_order_that_is_refused_anyway_is_not_counted(kind):
    day, plan = day_with(Fault(kind=kind, times=2))
    assert "`quantity` 0" in day.send(quantity=0).reason
    assert "MarginException" in day.send(quantity=9_000).reason
    assert plan.injected == []


@pytest.mark.parametrize("delay_ms", [90_000, 600_000])
def test_order_that_appears_late_is_in_no_book_and_in_no_trade_before(delay_ms):
    day, _ = day_with(Fault(kind=FaultKind.APPEARS_LATE, delay_ms=delay_ms))
    sent_ms = day.now_ms
    assert day.send().status is SendStatus.UNKNOWN
    while day.now_ms < sent_ms + delay_ms:
        assert day.broker.orders() == []
        assert day.broker.cancel("O1", day.now_ms).status is SendStatus.REJECTED
        assert day.broker.trades() == []
        day.minute(infy=flat_bar(150_000))
    assert [line.broker_order_id for line in day.broker.orders()] == ["O1"]
    assert day.broker.cancel("O1", day.now_ms).status is SendStatus.ACKNOWLEDGED


def test_order_that_appears_late_trades_after_it_arrived():
    day, _ = day_with(Fault(kind=FaultKind.APPEARS_LATE, delay_ms=90_000))
    sent_ms = day.now_ms
    day.send()
    assert day.minute(tcs=flat_bar(390_000)) == []
    (fill,) = fills_of(day.minute(tcs=(390_000, 395_000, 380_000, 391_000)))
    assert fill.ts_ms == sent_ms + 90_100
    assert fill.price_paise == 391_000  # the bar's close: its open was before the order
    assert len(day.broker.orders()) == 1


def test_reject_is_in_the_book_with_a_reason_and_holds_nothing():
    day, _ = day_with(Fault(kind=FaultKind.REJECT))
    outcome = day.send()
    assert outcome.status is SendStatus.REJECTED
    assert outcome.reason.startswith("RMS:")
    assert day.broker.orders()[0].state is OrderState.REJECTED
    assert day.broker.funds().margin_used_paise == 0
    assert day.minute(tcs=flat_bar(390_000)) == []


def test_late_reject_is_acknowledged_first():
    day, _ = day_with(Fault(kind=FaultKind.REJECT_LATE))
    assert day.send().status is SendStatus.ACKNOWLEDGED
    (update,) = updates_of(day.broker.drain_events())
    assert (update.state, update.ts_ms) == (OrderState.REJECTED, day.now_ms + 100)
    assert day.minute(tcs=flat_bar(390_000)) == []


def test_partial_fill_takes_half_first_and_is_no_fault_for_one_share():
    day, plan = day_with(Fault(kind=FaultKind.PARTIAL, times=2))
    day.send(Side.BUY, 10)
    day.send(Side.BUY, 1)
    assert sorted(fill.quantity for fill in fills_of(day.minute(tcs=flat_bar(390_000)))) == [1, 5]
    assert [fill.quantity for fill in fills_of(day.minute(tcs=flat_bar(390_000)))] == [5]
    assert plan.count(FaultKind.PARTIAL) == 1


def test_cancel_lost_leaves_the_order_working():
    day, _ = day_with(Fault(kind=FaultKind.CANCEL_LOST))
    identity = day.send(limit_price_paise=380_000).broker_order_id
    assert day.broker.cancel(identity, day.now_ms).status is SendStatus.UNKNOWN
    assert day.broker.orders()[0].state is OrderState.OPEN
    assert day.broker.drain_events() == []
    assert day.broker.cancel(identity, day.now_ms).status is SendStatus.ACKNOWLEDGED


def test_cancel_unknown_has_cancelled():
    day, _ = day_with(Fault(kind=FaultKind.CANCEL_UNKNOWN))
    identity = day.send(limit_price_paise=380_000).broker_order_id
    assert day.broker.cancel(identity, day.now_ms).status is SendStatus.UNKNOWN
    assert day.broker.orders()[0].state is OrderState.CANCELLED


def test_cancel_too_late_is_rejected_because_the_order_filled_inside_its_limit():
    day, _ = day_with(Fault(kind=FaultKind.CANCEL_TOO_LATE))
    identity = day.send(limit_price_paise=380_000).broker_order_id
    outcome = day.broker.cancel(identity, day.now_ms)
    assert outcome.status is SendStatus.REJECTED
    (fill,) = fills_of(day.broker.drain_events())
    assert (fill.price_paise, fill.broker_order_id) == (380_000, identity)
    assert day.held() == 10


def test_cancel_of_a_finished_order_uses_up_no_fault():
    day, plan = day_with(Fault(kind=FaultKind.CANCEL_LOST))
    identity = day.send().broker_order_id
    day.minute(tcs=flat_bar(390_000))
    assert day.broker.cancel(identity, day.now_ms).status is SendStatus.REJECTED
    assert plan.injected == []


def test_completion_is_announced_by_an_update_too_when_a_plan_is_there():
    day, _ = day_with()
    day.send()
    events = day.minute(tcs=flat_bar(390_000))
    assert [type(event).__name__ for event in events] == ["BrokerFill", "OrderUpdate"]
    assert (updates_of(events)[0].state, updates_of(events)[0].filled_quantity) == (OrderState.FILLED, 10)


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        (FaultKind.UPDATE_DUPLICATED, ["T1", 10, 10]),
        (FaultKind.FILL_DUPLICATED, ["T1", 10, "T1"]),
        (FaultKind.UPDATES_SWAPPED, [10, "T1"]),
        (FaultKind.QUANTITY_WRONG, ["T1", 11]),
        (FaultKind.UPDATE_LOST, []),
    ],
)
def test_delivery_fault_spoils_what_is_announced_and_never_the_book(kind, shape):
    day, plan = day_with(Fault(kind=kind))
    day.send()
    events = day.minute(tcs=flat_bar(390_000))
    assert [event.filled_quantity if event in updates_of(events) else event.trade_id for event in events] == shape
    assert [fill.trade_id for fill in day.broker.trades()] == ["T1"]
    assert (day.broker.orders()[0].filled_quantity, day.held()) == (10, 10)
    assert [fault.kind for fault in plan.injected] == [kind]


def test_late_update_comes_when_its_time_has_come_and_after_newer_ones():
    day, _ = day_with(Fault(kind=FaultKind.UPDATE_LATE, delay_ms=90_000))
    day.send(tag="FIRST")
    assert day.minute(tcs=flat_bar(390_000)) == []
    day.send(tag="SECOND")
    assert [fill.client_order_id for fill in fills_of(day.minute(tcs=flat_bar(390_000)))] == ["SECOND"]
    day.broker.advance(day.now_ms + 29_999)
    assert day.broker.drain_events() == []
    day.broker.advance(day.now_ms + 30_000)
    assert [fill.client_order_id for fill in fills_of(day.broker.drain_events())] == ["FIRST"]


@pytest.mark.parametrize("read", ["orders", "trades", "positions", "funds"])
def test_read_fails_within_its_window_only(read):
    window = (START_MS + MINUTE_MS, START_MS + 3 * MINUTE_MS)
    day, plan = day_with(Fault(kind=FaultKind.READ_FAILED, symbol=read, times=9, from_ms=window[0], until_ms=window[1]))
    for minute in range(5):
        failing = window[0] <= day.now_ms < window[1]
        if failing:
            with pytest.raises(BrokerError, match=read):
                getattr(day.broker, read)()
        else:
            getattr(day.broker, read)()
        assert plan.count(FaultKind.READ_FAILED) == min(minute, 2)
        day.minute(tcs=flat_bar(390_000))


def test_scripted_fault_takes_the_nth_matching_call_of_its_symbol_and_side():
    day, plan = day_with(Fault(kind=FaultKind.SERVER_ERROR, symbol="INFY", side=Side.SELL, nth=2, times=2))
    statuses = [
        day.send(side, 1, symbol=symbol).status
        for symbol, side in (
            ("TCS", Side.SELL),
            ("INFY", Side.SELL),
            ("INFY", Side.BUY),
            ("INFY", Side.SELL),
            ("INFY", Side.SELL),
            ("INFY", Side.SELL),
        )
    ]
    ok, unknown = SendStatus.ACKNOWLEDGED, SendStatus.UNKNOWN
    assert statuses == [ok, ok, ok, unknown, unknown, ok]
    assert {fault.subject for fault in plan.injected} == {"INFY"}


def test_same_seed_injects_the_same_faults_and_another_seed_others():
    def injected(seed: int) -> list[object]:
        plan = FaultPlan.seeded(seed, intensity=0.8)
        day = SimulatedDay(faults=plan, seed=seed)
        for minute in range(30):
            identity = day.send(Side.BUY if minute % 2 else Side.SELL, 4, limit_price_paise=390_000).broker_order_id
            day.minute(tcs=flat_bar(390_000 + minute * 5))
            day.broker.cancel(identity, day.now_ms)
        return list(plan.injected)

    assert injected(3) == injected(3)
    assert injected(3) != injected(4)
    assert injected(3)


def test_half_failing_broker_fails_about_half_of_all_calls():
    plan = FaultPlan.half_failing(9)
    day = SimulatedDay(faults=plan, capital_paise=10**12)
    statuses = [day.send(Side.BUY, 1).status for _ in range(400)]
    assert 150 < sum(status is SendStatus.UNKNOWN for status in statuses) < 250
    failed = 0
    for _ in range(200):
        try:
            day.broker.positions()
        except BrokerError:
            failed += 1
    assert 70 < failed < 130
    assert plan.count(FaultKind.READ_FAILED) == failed


def test_plan_prints_its_seed_rates_and_script():
    plan = FaultPlan(77, script=[Fault(kind=FaultKind.REJECT, symbol="TCS", nth=3)], rates={FaultKind.UPDATE_LOST: 0.25})
    assert str(plan) == "FaultPlan(seed=77, rates=[UPDATE_LOST 0.250], script=[REJECT TCS #3])"
    assert repr(plan) == str(plan)


@pytest.mark.parametrize(
    "details",
    [
        {"rates": {FaultKind.REJECT: 1.5}},
        {"rates": {FaultKind.REJECT: -0.1}},
        {"rates": {FaultKind.REJECT: 0.6, FaultKind.TORN_REPLY: 0.6}},
        {"rates": {FaultKind.LOCKED: 0.1}},
        {"delays_ms": ()},
        {"delays_ms": (-1,)},
    ],
)
def test_impossible_plan_is_refused(details):
    with pytest.raises(ValueError, match=r"fault|lock"):
        FaultPlan(1, **details)
