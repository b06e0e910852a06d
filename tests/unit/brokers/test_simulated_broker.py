"""The simulated broker's checks, cancels, positions, margin, ids and days."""

from __future__ import annotations

import pytest

from tests.unit.brokers.simulated_day import (
    CAPITAL_PAISE,
    MINUTE_MS,
    UNIVERSE,
    SimulatedDay,
    fills_of,
    flat_bar,
    instrument,
    updates_of,
)
from velox_core.brokers.simulated import SimulatedBroker
from velox_core.brokers.simulated_orders import SimulationConfig
from velox_core.domain.errors import BrokerError
from velox_core.domain.orders import OrderState, Product, Side
from velox_core.domain.time import MS_PER_DAY
from velox_core.ports import SendStatus


@pytest.mark.parametrize(
    ("details", "words"),
    [
        ({"symbol": "NOSUCH"}, "NOSUCH has no market here"),
        ({"quantity": 0}, "`quantity` 0"),
        ({"quantity": -5}, "`quantity` -5"),
        ({"quantity": 501}, "freeze quantity 500"),
        ({"tag": "A" * 21}, "21 characters"),
        ({"protection_bps": 0}, "Market orders without market protection are not allowed"),
        ({"limit_price_paise": -5}, "Invalid `price` -0.05"),
        ({"limit_price_paise": 389_002}, "not a multiple of the tick 0.05"),
        ({"limit_price_paise": 429_005}, "outside the circuit limits 3510.00 to 4290.00"),
        ({"limit_price_paise": 350_995}, "outside the circuit limits"),
    ],
)
def test_place_impossible_order_is_rejected_and_never_in_the_book(details, words):
    tcs = instrument("TCS", freeze_quantity=500, lower_band_paise=351_000, upper_band_paise=429_000)
    day = SimulatedDay(tcs=tcs)
    outcome = day.send(**{"quantity": 10} | details)
    assert outcome.status is SendStatus.REJECTED
    assert words in outcome.reason
    assert outcome.broker_order_id == ""
    assert day.broker.orders() == []
    assert day.minute(tcs=flat_bar(390_000)) == []
    assert day.broker.funds().available_paise == CAPITAL_PAISE


@pytest.mark.parametrize("details", [{"quantity": 500}, {"tag": "A" * 20}, {"limit_price_paise": 429_000}, {"quantity": 1}])
def test_place_at_the_edge_of_what_is_possible_is_accepted(details):
    tcs = instrument("TCS", freeze_quantity=500, lower_band_paise=351_000, upper_band_paise=429_000)
    day = SimulatedDay(tcs=tcs, capital_paise=10**10)
    assert day.send(**{"quantity": 10} | details).status is SendStatus.ACKNOWLEDGED


def test_place_before_any_price_is_rejected_for_market_and_accepted_for_limit():
    day = SimulatedDay(first_price_paise=0)
    assert "No last traded price" in day.send().reason
    assert day.send(limit_price_paise=389_000).status is SendStatus.ACKNOWLEDGED


def test_price_of_a_symbol_without_a_newest_bar_is_its_last_one():
    day = SimulatedDay()
    day.minute(infy=flat_bar(151_000))
    assert day.send().status is SendStatus.ACKNOWLEDGED
    assert day.broker.orders()[0].limit_price_paise == 393_900


def test_untradable_symbol_refuses_entries_and_lets_exits_out():
    day = SimulatedDay(tcs=instrument("TCS", tradable=False))
    assert day.send(Side.BUY).status is SendStatus.REJECTED
    day.broker.exchange.listings["TCS"].intraday.quantity = 10
    assert day.send(Side.SELL, 11).status is SendStatus.REJECTED
    assert day.send(Side.SELL, 10).status is SendStatus.ACKNOWLEDGED


def test_margin_refuses_one_paisa_too_much_and_shows_it_in_the_book():
    needed = -(-10 * 390_000 // 5)
    enough = SimulatedDay(capital_paise=needed)
    assert enough.send(Side.BUY, 10).status is SendStatus.ACKNOWLEDGED
    assert enough.broker.funds().available_paise == 0
    short = SimulatedDay(capital_paise=needed - 1)
    outcome = short.send(Side.BUY, 10)
    assert outcome.status is SendStatus.REJECTED
    assert outcome.reason.startswith("MarginException: Insufficient funds. Required margin is 7800.00")
    (line,) = short.broker.orders()
    assert (line.state, line.broker_order_id) == (OrderState.REJECTED, outcome.broker_order_id)
    assert short.minute(tcs=flat_bar(390_000)) == []
    assert short.broker.funds().available_paise == needed - 1


def test_margin_is_never_asked_for_an_exit_and_comes_back_with_it():
    day = SimulatedDay(capital_paise=780_000)
    day.send(Side.BUY, 10)
    day.minute(tcs=flat_bar(390_000))
    assert day.broker.funds() == day.broker.funds()
    assert day.broker.funds().margin_used_paise == 780_000
    assert day.send(Side.SELL, 10).status is SendStatus.ACKNOWLEDGED
    day.minute(tcs=flat_bar(389_000))
    assert day.broker.funds().margin_used_paise == 0
    assert day.broker.funds().available_paise == 780_000 - 10 * 1_000


def test_margin_counts_only_what_a_reversal_opens():
    day = SimulatedDay()
    day.send(Side.BUY, 10)
    day.minute(tcs=flat_bar(390_000))
    before = day.broker.funds().available_paise
    day.send(Side.SELL, 15)
    assert before - day.broker.funds().available_paise == 5 * 390_000 // 5
    day.send(Side.SELL, 2)  # the whole long is already being sold
    assert before - day.broker.funds().available_paise == 7 * 390_000 // 5


def test_delivery_needs_the_full_value_and_cannot_sell_what_is_not_there():
    day = SimulatedDay()
    outcome = day.send(Side.SELL, 1, product=Product.CNC)
    assert outcome.reason.startswith("HoldingException")
    day.send(Side.BUY, 2, product=Product.CNC)
    assert day.broker.funds().margin_used_paise == 2 * 390_000
    day.minute(tcs=flat_bar(390_000))
    assert [(line.product, line.quantity) for line in day.broker.positions()] == [(Product.CNC, 2)]
    assert day.send(Side.SELL, 2, product=Product.CNC).status is SendStatus.ACKNOWLEDGED
    assert day.held() == 0


def test_cancel_working_order_gives_margin_back_and_says_so_once():
    day = SimulatedDay()
    outcome = day.send(Side.BUY, limit_price_paise=380_000)
    answer = day.broker.cancel(outcome.broker_order_id, day.now_ms)
    assert (answer.status, answer.reason) == (SendStatus.ACKNOWLEDGED, "")
    assert [(update.state, update.filled_quantity) for update in updates_of(day.broker.drain_events())] == [
        (OrderState.CANCELLED, 0)
    ]
    assert day.broker.funds().available_paise == CAPITAL_PAISE
    assert day.minute(tcs=flat_bar(370_000)) == []
    assert day.broker.cancel(outcome.broker_order_id, day.now_ms).status is SendStatus.REJECTED
    assert day.broker.drain_events() == []


def test_cancel_after_a_part_keeps_the_part():
    day = SimulatedDay(partial_fill_probability=1.0)
    outcome = day.send(Side.BUY, 10)
    (fill,) = fills_of(day.minute(tcs=flat_bar(390_000)))
    day.broker.cancel(outcome.broker_order_id, day.now_ms)
    (update,) = updates_of(day.broker.drain_events())
    assert (update.state, update.filled_quantity) == (OrderState.CANCELLED, fill.quantity)
    assert day.held() == fill.quantity
    assert day.broker.funds().margin_used_paise == fill.quantity * 390_000 // 5


def test_cancel_filled_or_unknown_order_is_rejected():
    day = SimulatedDay()
    outcome = day.send()
    day.minute(tcs=flat_bar(390_000))
    assert "FILLED" in day.broker.cancel(outcome.broker_order_id, day.now_ms).reason
    assert day.broker.cancel("O999", day.now_ms).status is SendStatus.REJECTED
    assert day.held() == 10


def test_positions_show_turnover_net_and_last_price():
    day = SimulatedDay()
    day.send(Side.BUY, 10)
    day.minute(tcs=flat_bar(390_000))
    assert day.broker.positions()[0].bought_quantity == 10
    day.send(Side.SELL, 4)
    day.minute(tcs=(391_000, 391_500, 390_900, 391_200))
    (line,) = day.broker.positions()
    assert (line.quantity, line.bought_quantity, line.sold_quantity) == (6, 10, 4)
    assert (line.bought_paise, line.sold_paise, line.last_price_paise) == (3_900_000, 1_564_000, 391_200)
    day.send(Side.SELL, 6)
    day.minute(tcs=flat_bar(391_000))
    (line,) = day.broker.positions()
    assert (line.quantity, line.sold_quantity) == (0, 10)
    assert day.broker.funds().available_paise == CAPITAL_PAISE + 10 * 1_000


def test_ids_are_counted_and_the_same_run_twice_is_the_same():
    def run():
        day = SimulatedDay(partial_fill_probability=0.5, reject_probability=0.3, slippage_bps=3, seed=7)
        lines = []
        for minute in range(40):
            day.send(Side.BUY if minute % 2 else Side.SELL, 3)
            lines += [
                (fill.trade_id, fill.ts_ms, fill.quantity, fill.price_paise)
                for fill in fills_of(day.minute(tcs=flat_bar(390_000)))
            ]
        return lines, [(line.broker_order_id, line.state, line.reason) for line in day.broker.orders()]

    trades, orders = run()
    assert (trades, orders) == run()
    assert [identity for identity, *_ in trades] == [f"T{number}" for number in range(1, len(trades) + 1)]
    states = {state for _, state, _ in orders}
    assert {OrderState.FILLED, OrderState.REJECTED} <= states
    assert 3 < sum(state is OrderState.REJECTED for _, state, _ in orders) < 25


def test_seeded_rejection_holds_no_margin_and_reads_like_a_brokers():
    day = SimulatedDay(reject_probability=1.0)
    outcome = day.send()
    assert outcome.status is SendStatus.REJECTED
    assert outcome.reason.startswith("RMS:Rule:")
    assert day.broker.funds().available_paise == CAPITAL_PAISE
    assert day.minute(tcs=flat_bar(390_000)) == []


def test_new_date_lets_orders_lapse_empties_the_book_and_keeps_positions():
    day = SimulatedDay()
    day.send(Side.BUY, 10)
    day.minute(tcs=flat_bar(390_000))
    day.send(Side.SELL, 10, limit_price_paise=400_000)
    day.now_ms += MS_PER_DAY - MINUTE_MS
    (update,) = updates_of(day.minute(tcs=(410_000, 411_000, 409_000, 410_000)))
    assert (update.state, update.reason) == (OrderState.CANCELLED, "DAY validity ended")
    assert day.held() == 10
    assert day.broker.orders() == []
    assert day.broker.trades() == []
    (line,) = day.broker.positions()
    assert (line.bought_quantity, line.sold_quantity) == (0, 0)


def test_carry_overnight_lets_an_order_fill_at_the_next_dates_open():
    day = SimulatedDay(carry_overnight=True)
    day.send(Side.BUY, 10)
    day.now_ms += MS_PER_DAY - MINUTE_MS
    (fill,) = fills_of(day.minute(tcs=flat_bar(390_500)))
    assert fill.price_paise == 390_500
    assert day.now_ms - MINUTE_MS <= fill.ts_ms <= day.now_ms


def test_drain_returns_each_event_once_and_lists_of_its_own():
    day = SimulatedDay()
    assert day.broker.drain_events() == []
    day.broker.drain_events().append("not the broker's")
    day.send()
    assert len(day.minute(tcs=flat_bar(390_000))) == 1
    assert day.broker.drain_events() == []


def test_foreign_order_fills_without_a_tag_and_counts_in_the_position():
    day = SimulatedDay()
    identity = day.broker.desk.place_foreign("TCS", Side.SELL, 4, day.now_ms)
    (fill,) = fills_of(day.minute(tcs=flat_bar(390_000)))
    assert (fill.client_order_id, fill.broker_order_id) == ("", identity)
    assert day.held() == -4
    assert day.broker.orders()[0].tag == ""


def test_foreign_trade_happens_at_once_and_a_refused_one_says_why():
    day = SimulatedDay()
    day.broker.desk.trade_foreign("INFY", Side.BUY, 2, day.now_ms, price_paise=150_500)
    assert [fill.price_paise for fill in fills_of(day.broker.drain_events())] == [150_500]
    assert day.held("INFY") == 2
    with pytest.raises(BrokerError, match="Insufficient funds"):
        day.broker.desk.trade_foreign("TCS", Side.BUY, 10_000, day.now_ms)
    with pytest.raises(BrokerError, match="no market here"):
        day.broker.desk.place_foreign("NOSUCH", Side.BUY, 1, day.now_ms)
    assert day.held() == 0


def test_order_cancelled_by_hand_is_announced_under_our_tag():
    day = SimulatedDay()
    outcome = day.send(limit_price_paise=380_000)
    day.broker.desk.cancel_foreign(outcome.broker_order_id, day.now_ms)
    (update,) = updates_of(day.broker.drain_events())
    assert (update.state, update.reason) == (OrderState.CANCELLED, "cancelled by hand")
    with pytest.raises(BrokerError, match="not working"):
        day.broker.desk.cancel_foreign(outcome.broker_order_id, day.now_ms)


def test_square_off_by_the_broker_closes_intraday_in_slices_and_leaves_delivery():
    day = SimulatedDay(tcs=instrument("TCS", freeze_quantity=4), capital_paise=10**9)
    for _ in range(3):
        day.send(Side.BUY, 3)
    day.send(Side.BUY, 2, product=Product.CNC)
    day.send(Side.SELL, 5, symbol="INFY")
    day.minute(tcs=flat_bar(390_000), infy=flat_bar(150_000))
    resting = day.send(Side.BUY, 1, limit_price_paise=380_000)
    closed = day.broker.desk.square_off_by_broker(day.now_ms)
    assert len(closed) == 4  # 4 + 4 + 1 TCS, 5 INFY
    assert (day.held("TCS"), day.held("INFY")) == (0, 0)
    assert [line.quantity for line in day.broker.positions() if line.product is Product.CNC] == [2]
    states = {line.broker_order_id: line.state for line in day.broker.orders()}
    assert states[resting.broker_order_id] is OrderState.CANCELLED
    assert all(fill.client_order_id == "" for fill in fills_of(day.broker.drain_events())[:4])


@pytest.mark.parametrize(
    ("name", "value"),
    [("slippage_bps", -1), ("latency_ms", -1), ("capital_paise", -1), ("reject_probability", 1.1), ("margin_multiplier", 0)],
)
def test_config_out_of_range_is_refused_by_name(name, value):
    with pytest.raises(ValueError, match=name):
        SimulationConfig(**{"capital_paise": 1} | {name: value})


def test_universe_symbol_without_an_instrument_stops_the_start():
    with pytest.raises(KeyError, match="INFY"):
        SimulatedBroker(UNIVERSE, instruments={"TCS": instrument("TCS")}, config=SimulationConfig(capital_paise=1))


def test_name_is_simulated():
    assert SimulatedDay().broker.name == "simulated"
