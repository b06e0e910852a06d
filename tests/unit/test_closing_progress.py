"""Whether a closing gets anywhere, look by look, and what an engine says of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from velox_core.closing_progress import (
    LOOK_GAP_SECONDS_MAX,
    PROGRESS_KEY,
    STALLED_SECONDS_MAX,
    EngineProgress,
    ExitTally,
    ProgressWatch,
    read_progress,
)
from velox_core.domain.orders import ExitRank, Order, OrderState, OrderType, Product, Side
from velox_core.ports import BrokerOrder, BrokerPosition

WORD = EngineProgress(acknowledged=3, looks=7)
EXIT = BrokerOrder(
    broker_order_id="B1",
    tag="240116E00010000001",
    symbol="AAA",
    side=Side.SELL,
    quantity=10,
    filled_quantity=0,
    state=OrderState.OPEN,
    product=Product.MIS,
    limit_price_paise=0,
    placed_ms=0,
)
ENTRY = replace(EXIT, broker_order_id="B2", side=Side.BUY)


def held(*quantities: int) -> list[BrokerPosition]:
    return [
        BrokerPosition(
            symbol=symbol,
            product=Product.MIS,
            quantity=quantity,
            bought_quantity=0,
            sold_quantity=0,
            bought_paise=0,
            sold_paise=0,
            last_price_paise=0,
        )
        for symbol, quantity in zip(("AAA", "BBB"), quantities, strict=False)
    ]


def stalled_for(watch: ProgressWatch, seconds: int, *look: object) -> float:
    """Have the same be seen for some seconds more. Returns how long nothing went on."""
    start = watch._seen if watch._seen >= 0 else 100.0
    for second in range(1, seconds + 1):
        watch.see(start + second, *look)  # type: ignore[arg-type]
    return watch.stalled_seconds


@pytest.mark.parametrize(("seconds", "is_stalled"), [(29, False), (30, True), (31, True)])
def test_watch_of_a_position_that_nobody_works_stalls_at_the_bound(seconds: int, is_stalled: bool) -> None:
    watch = ProgressWatch()
    stalled_for(watch, 1, held(10), [], WORD)
    assert stalled_for(watch, seconds, held(10), [], WORD) == seconds
    assert watch.is_stalled is is_stalled
    assert STALLED_SECONDS_MAX == 30.0


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((held(10), [], WORD), (held(9), [], WORD)),
        ((held(10, -5), [], WORD), (held(10, -4), [], WORD)),
        ((held(10), [], WORD), (held(10), [EXIT], WORD)),
        ((held(10), [EXIT], WORD), (held(10), [replace(EXIT, filled_quantity=1)], WORD)),
        ((held(10), [EXIT], WORD), (held(10), [], WORD)),
        ((held(10), [ENTRY], WORD), (held(10), [], WORD)),
        ((held(10), [], WORD), (held(10), [], EngineProgress(acknowledged=4, looks=7))),
        ((held(10), [], WORD), ([], [], WORD)),
    ],
    ids=["less", "less of one", "new exit", "traded", "exit gone", "entry gone", "acknowledged", "flat"],
)
def test_watch_begins_to_count_anew_when_something_went_on(before: tuple[object, ...], after: tuple[object, ...]) -> None:
    watch = ProgressWatch()
    stalled_for(watch, 30, *before)
    assert watch.stalled_seconds == 29
    assert stalled_for(watch, 1, *after) == 0.0


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((held(10), [], WORD), (held(11), [], WORD)),
        ((held(10), [], WORD), (held(10), [ENTRY], WORD)),
        ((held(10), [], WORD), (held(10), [], EngineProgress(acknowledged=3, looks=8))),
        ((held(10, 5), [EXIT], WORD), (held(10, 5), [EXIT], EngineProgress(acknowledged=3, looks=8))),
        ((held(10), [EXIT, ENTRY], WORD), (held(10), [EXIT, ENTRY], EngineProgress(acknowledged=3, looks=8))),
        ((held(10), [EXIT], WORD), (held(10), [EXIT], WORD)),
    ],
    ids=["more", "another's entry", "only reads", "one of two queues", "an entry works", "deaf while it queues"],
)
def test_watch_goes_on_counting_when_nothing_went_on(before: tuple[object, ...], after: tuple[object, ...]) -> None:
    watch = ProgressWatch()
    stalled_for(watch, 30, *before)
    assert stalled_for(watch, 1, *after) == 30.0


def test_watch_of_exits_that_queue_beside_an_engine_that_reads_never_stalls() -> None:
    watch = ProgressWatch()
    for second in range(300):
        watch.see(float(second), held(10), [EXIT], EngineProgress(looks=second // 2))
    assert watch.stalled_seconds <= 1.0


def test_watch_counts_a_gap_between_two_looks_as_a_moment() -> None:
    watch = ProgressWatch()
    stalled_for(watch, 10, held(10), [], WORD)
    watch.see(watch._seen + 3_600.0, held(10), [], WORD)
    assert watch.stalled_seconds == 9 + LOOK_GAP_SECONDS_MAX


def make_order(number: int) -> Order:
    return Order(
        client_order_id=f"240116E0001000000{number}",
        strategy_id="s",
        symbol="AAA",
        side=Side.SELL,
        quantity=10,
        order_type=OrderType.MARKET,
        limit_price_paise=0,
        product=Product.MIS,
        rank=ExitRank.EMERGENCY,
        created_ms=1,
        reason="emergency exit",
    )


def test_tally_counts_what_was_tried_and_what_the_broker_acknowledged_once_each() -> None:
    tally, first, second, third = ExitTally(), make_order(1), make_order(2), make_order(3)
    for at_ms, order in ((10, first), (20, second), (30, third)):
        tally.sent(order, at_ms)
    expected = {"exits": 3, "last_exit_ms": 30, "acknowledged": 0, "last_acknowledged_ms": 0, "looks": 0}
    assert tally.to_status(None, 40) == expected
    first.broker_order_id, third.state = "B1", OrderState.REJECTED
    look = object()
    expected |= {"acknowledged": 1, "last_acknowledged_ms": 50, "looks": 1}
    assert tally.to_status(look, 50) == expected
    assert tally.to_status(look, 60) == expected
    second.broker_order_id, second.state = "B2", OrderState.FILLED
    assert tally.to_status(object(), 70) == expected | {"acknowledged": 2, "last_acknowledged_ms": 70, "looks": 2}


@pytest.mark.parametrize("body", [None, "x", [], {}, {"acknowledged": "3", "looks": None}])
def test_progress_of_a_status_of_another_shape_counts_as_none(body: object) -> None:
    assert read_progress({PROGRESS_KEY: body}) == EngineProgress()
    assert read_progress({}) == EngineProgress()


def test_progress_of_a_status_is_what_the_tally_wrote() -> None:
    assert read_progress({PROGRESS_KEY: {"acknowledged": 3, "looks": 7, "exits": 9}}) == WORD
