"""At which bar and price the simulated broker fills, and when it does not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.brokers.simulated_day import MINUTE_MS, SimulatedDay, fills_of, flat_bar, instrument, updates_of
from velox_core.brokers.faults import Fault, FaultKind, FaultPlan
from velox_core.domain.orders import OrderState, Side
from velox_core.ports import SendStatus


def only_fill(events):
    (fill,) = fills_of(events)
    return fill


def test_market_order_fills_at_the_next_bars_open_not_at_the_bar_that_caused_it():
    day = SimulatedDay(first_price_paise=390_000)
    sent_ms = day.now_ms
    outcome = day.send(Side.BUY, 10)
    assert outcome.status is SendStatus.ACKNOWLEDGED
    assert day.broker.drain_events() == []
    fill = only_fill(day.minute(tcs=(390_500, 391_000, 390_000, 390_800)))
    assert (fill.price_paise, fill.quantity, fill.side) == (390_500, 10, Side.BUY)
    assert fill.ts_ms == sent_ms + 100
    assert fill.broker_order_id == outcome.broker_order_id
    assert day.held() == 10


def test_market_order_without_a_bar_waits_for_the_symbols_next_bar():
    day = SimulatedDay()
    day.send()
    assert day.minute(infy=flat_bar(150_000)) == []
    assert day.held() == 0
    fill = only_fill(day.minute(tcs=flat_bar(390_100)))
    assert fill.price_paise == 390_100
    assert day.now_ms - MINUTE_MS <= fill.ts_ms <= day.now_ms


@pytest.mark.parametrize(
    ("side", "bps", "ticks", "price"),
    [
        (Side.BUY, 2, 0, 390_080),  # 78 paise, up to the tick of 5
        (Side.SELL, 2, 0, 389_920),
        (Side.BUY, 0, 3, 390_015),
        (Side.SELL, 0, 3, 389_985),
        (Side.BUY, 2, 1, 390_085),
        (Side.BUY, 500, 0, 393_900),  # bounded by the protection of 100 bps
        (Side.SELL, 500, 0, 386_100),
    ],
)
def test_slippage_is_against_us_on_the_tick_and_inside_the_protection(side, bps, ticks, price):
    day = SimulatedDay(slippage_bps=bps, slippage_ticks=ticks)
    day.send(side)
    assert only_fill(day.minute(tcs=flat_bar(390_000))).price_paise == price


def test_open_off_the_tick_is_rounded_away_from_us():
    day = SimulatedDay()
    day.send(Side.BUY, 1)
    day.send(Side.SELL, 1)
    buy, sell = fills_of(day.minute(tcs=flat_bar(390_002)))
    assert (buy.price_paise, sell.price_paise) == (390_005, 390_000)


def test_market_order_with_the_open_beyond_its_protection_rests_as_a_limit_at_the_bound():
    day = SimulatedDay()
    outcome = day.send(Side.BUY)
    assert day.minute(tcs=(394_000, 395_000, 393_900, 394_500)) == []
    (line,) = day.broker.orders()
    assert (line.limit_price_paise, line.state) == (393_900, OrderState.OPEN)
    fill = only_fill(day.minute(tcs=(394_200, 394_300, 393_000, 393_500)))
    assert (fill.price_paise, fill.broker_order_id) == (393_900, outcome.broker_order_id)


def test_market_order_with_the_open_exactly_at_the_bound_fills():
    day = SimulatedDay()
    day.send(Side.SELL)
    assert only_fill(day.minute(tcs=(386_100, 386_500, 386_000, 386_200))).price_paise == 386_100


@pytest.mark.parametrize(
    ("side", "bar", "price"),
    [
        (Side.BUY, (390_000, 391_000, 389_005, 390_000), 0),  # above the limit all minute
        (Side.BUY, (390_000, 391_000, 389_000, 390_000), 0),  # a touch is not through
        (Side.BUY, (390_000, 391_000, 388_995, 390_000), 389_000),
        (Side.BUY, (388_500, 391_000, 388_500, 390_000), 388_500),  # better open
        (Side.SELL, (388_000, 388_995, 387_000, 388_000), 0),
        (Side.SELL, (388_000, 389_000, 387_000, 388_000), 0),
        (Side.SELL, (388_000, 389_005, 387_000, 388_000), 389_000),
        (Side.SELL, (389_500, 389_900, 387_000, 388_000), 389_500),
    ],
)
def test_limit_order_fills_only_when_the_bar_trades_through_it(side, bar, price):
    day = SimulatedDay()
    day.send(side, limit_price_paise=389_000)
    fills = fills_of(day.minute(tcs=bar))
    assert [fill.price_paise for fill in fills] == ([price] if price else [])
    assert day.held() == (10 * side.sign if price else 0)


def test_marketable_limit_never_slips_past_its_limit():
    day = SimulatedDay(slippage_bps=100)
    day.send(Side.BUY, limit_price_paise=390_100)
    assert only_fill(day.minute(tcs=flat_bar(390_000))).price_paise == 390_100


def test_order_slower_than_a_minute_misses_the_bar_that_ends_before_it_arrives():
    day = SimulatedDay(latency_ms=61_000)
    day.send()
    assert day.minute(tcs=flat_bar(390_000)) == []
    fill = only_fill(day.minute(tcs=(391_000, 391_500, 390_900, 391_200)))
    assert fill.ts_ms == day.now_ms - 2 * MINUTE_MS + 61_000
    assert fill.price_paise == 391_000  # it arrived one second after the bar began


def test_order_that_arrives_inside_a_bar_gets_its_close_never_an_earlier_price():
    day = SimulatedDay()
    day.now_ms += 30_000
    day.send(Side.BUY)
    day.send(Side.BUY, limit_price_paise=389_000)
    day.now_ms -= 30_000
    fills = fills_of(day.minute(tcs=(389_000, 392_000, 388_000, 391_500)))
    assert [fill.price_paise for fill in fills] == [391_500]


@pytest.mark.parametrize(("after_ms", "price"), [(0, 389_000), (4_800, 389_000), (120_000, 391_500), (240_000, 391_500)])
def test_order_inside_a_longer_bar_gets_its_close_never_an_earlier_price(after_ms, price):
    day = SimulatedDay(bar_minutes=5)
    begun_ms = day.now_ms
    day.now_ms = begun_ms + after_ms
    day.send(Side.BUY)
    day.now_ms = begun_ms + 4 * MINUTE_MS
    fill = only_fill(day.minute(tcs=(389_000, 392_000, 388_000, 391_500)))
    assert (fill.price_paise, fill.ts_ms) == (price, begun_ms + after_ms + 100)


@pytest.mark.parametrize(
    ("side", "price", "fills"),
    [(Side.BUY, 429_000, 0), (Side.SELL, 429_000, 1), (Side.BUY, 351_000, 1), (Side.SELL, 351_000, 0)],
)
def test_symbol_standing_at_its_band_does_not_fill_on_the_locked_side(side, price, fills):
    day = SimulatedDay(tcs=instrument("TCS", lower_band_paise=351_000, upper_band_paise=429_000), first_price_paise=price)
    day.send(side)
    assert len(fills_of(day.minute(tcs=flat_bar(price)))) == fills
    assert day.held() == fills * 10 * side.sign


def test_symbol_that_leaves_its_band_within_the_bar_fills():
    day = SimulatedDay(tcs=instrument("TCS", lower_band_paise=351_000, upper_band_paise=429_000), first_price_paise=351_000)
    day.send(Side.SELL)
    assert day.minute(tcs=flat_bar(351_000)) == []
    assert only_fill(day.minute(tcs=(351_000, 351_100, 351_000, 351_100))).price_paise == 351_000


def test_protection_bound_stays_inside_the_band():
    day = SimulatedDay(tcs=instrument("TCS", lower_band_paise=389_000, upper_band_paise=391_000))
    day.send(Side.BUY)
    day.send(Side.SELL)
    assert [line.limit_price_paise for line in day.broker.orders()] == [391_000, 389_000]


def test_scripted_circuit_lock_holds_one_side_for_its_window_and_is_recorded():
    plan = FaultPlan(script=[Fault(kind=FaultKind.LOCKED, symbol="TCS", side=Side.SELL)])
    day = SimulatedDay(faults=plan)
    day.send(Side.SELL, 4)
    day.send(Side.BUY, 3)
    assert [fill.side for fill in fills_of(day.minute(tcs=flat_bar(390_000)))] == [Side.BUY]
    assert plan.count(FaultKind.LOCKED) == 1
    day.broker.settle(day.now_ms)
    assert [line.state for line in day.broker.orders()] == [OrderState.CANCELLED, OrderState.FILLED]
    assert day.held() == 3


def test_partial_fill_takes_the_rest_at_the_next_bar_and_says_so():
    day = SimulatedDay(partial_fill_probability=1.0)
    outcome = day.send(Side.BUY, 10)
    first = day.minute(tcs=flat_bar(390_000))
    part = only_fill(first).quantity
    assert 0 < part < 10
    assert [(update.state, update.filled_quantity) for update in updates_of(first)] == [(OrderState.PARTIALLY_FILLED, part)]
    assert day.broker.orders()[0].filled_quantity == part
    rest = only_fill(day.minute(tcs=flat_bar(391_000)))
    assert (rest.quantity, rest.price_paise, rest.broker_order_id) == (10 - part, 391_000, outcome.broker_order_id)
    assert day.held() == 10
    assert day.broker.orders()[0].state is OrderState.FILLED


def test_order_of_one_share_never_fills_in_parts():
    day = SimulatedDay(partial_fill_probability=1.0)
    day.send(Side.BUY, 1)
    assert only_fill(day.minute(tcs=flat_bar(390_000))).quantity == 1


def test_settle_fills_market_orders_at_the_last_price_and_cancels_limits():
    day = SimulatedDay(slippage_ticks=2)
    day.send(Side.BUY, 7)
    day.send(Side.SELL, 5, limit_price_paise=390_100)
    day.broker.settle(day.now_ms)
    events = day.broker.drain_events()
    fill = only_fill(events)
    assert (fill.price_paise, fill.quantity, fill.ts_ms) == (390_010, 7, day.now_ms)
    assert [update.state for update in updates_of(events)] == [OrderState.CANCELLED]
    day.broker.settle(day.now_ms)
    assert day.broker.drain_events() == []


def test_settle_does_not_fill_beyond_the_protection():
    day = SimulatedDay()
    day.send(Side.BUY)
    day.minute(tcs=(395_000, 396_000, 394_900, 395_500))
    day.broker.settle(day.now_ms)
    assert [line.state for line in day.broker.orders()] == [OrderState.CANCELLED]
    assert day.held() == 0


def test_nothing_pending_a_row_changes_nothing():
    day = SimulatedDay()
    assert day.minute(tcs=flat_bar(391_000)) == []
    assert day.broker.orders() == []
    assert day.broker.positions() == []
    assert day.broker.trades() == []


@given(
    side=st.sampled_from(list(Side)),
    open_=st.integers(50_000, 500_000),
    up=st.integers(0, 5_000),
    down=st.integers(0, 5_000),
    limit=st.integers(10_000, 100_000),
    bps=st.integers(0, 100),
    ticks=st.integers(0, 5),
)
def test_fill_is_never_better_than_the_open_nor_worse_than_the_limit(side, open_, up, down, limit, bps, ticks):
    day = SimulatedDay(slippage_bps=bps, slippage_ticks=ticks, capital_paise=10**12)
    limit_paise = limit * 5
    day.send(side, limit_price_paise=limit_paise)
    for fill in fills_of(day.minute(tcs=(open_, open_ + up, open_ - down, open_))):
        worse_than_open = (fill.price_paise - open_) * side.sign
        assert fill.price_paise % 5 == 0
        assert (limit_paise - fill.price_paise) * side.sign >= 0
        assert worse_than_open >= 0 or fill.price_paise == limit_paise
