"""Charges: each component, rounding, estimates that are never too low, and the book of dated rates."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from datetime import date
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from velox_core.domain.charges import (
    BILLION,
    NO_CAP_PAISE,
    BrokerTerms,
    ChargeBook,
    ChargeSchedule,
    DatedRate,
    RateName,
)
from velox_core.domain.errors import ConfigError, InvariantError
from velox_core.domain.orders import Product, Side

DAY = date(2024, 1, 15)
ZERODHA_MIS = ChargeSchedule(
    label="test",
    brokerage_ppb=300_000,
    brokerage_cap_paise=2_000,
    stt_sell_ppb=250_000,
    exchange_ppb=33_500,
    sebi_ppb=1_000,
    stamp_buy_ppb=30_000,
    gst_ppb=180_000_000,
)
RATES = st.integers(0, 2_000_000)
SCHEDULES = st.builds(
    ChargeSchedule,
    label=st.just("any"),
    brokerage_ppb=RATES,
    brokerage_cap_paise=st.sampled_from([0, 2_000, NO_CAP_PAISE]),
    brokerage_flat_paise=st.sampled_from([0, 1, 2_000]),
    stt_buy_ppb=RATES,
    stt_sell_ppb=RATES,
    exchange_ppb=RATES,
    sebi_ppb=RATES,
    stamp_buy_ppb=RATES,
    gst_ppb=st.sampled_from([0, 180_000_000, 1_000_000_000]),
    sebi_in_gst=st.sampled_from([0, 1]),
)
VALUES = st.integers(0, 10**12)


@given(SCHEDULES, st.sampled_from(Side), VALUES)
def test_order_charges_any_order_is_the_sum_of_its_breakdown(schedule: ChargeSchedule, side: Side, value: int) -> None:
    assert schedule.order_charges_paise(side, value) == schedule.breakdown(side, value).total


@given(SCHEDULES, VALUES)
def test_round_trip_charges_are_those_of_both_orders(schedule: ChargeSchedule, value: int) -> None:
    both = schedule.order_charges_paise(Side.BUY, value) + schedule.order_charges_paise(Side.SELL, value)
    assert schedule.round_trip_charges_paise(value) == both


@given(SCHEDULES, st.sampled_from(Side), VALUES)
def test_closing_estimate_any_order_is_never_below_and_at_most_a_few_paise_above(
    schedule: ChargeSchedule, side: Side, value: int
) -> None:
    due = schedule.order_charges_paise(side, value)
    assert due <= schedule.closing_estimate_paise(side, value) <= due + 10


@given(SCHEDULES, st.sampled_from(Side), st.integers(1, 10**12))
def test_closing_bound_any_order_is_never_below_the_estimate(schedule: ChargeSchedule, side: Side, value: int) -> None:
    bound = -(-value * schedule.closing_rate_ppb // BILLION) + schedule.closing_fixed_paise
    assert schedule.closing_estimate_paise(side, value) <= bound


@given(SCHEDULES, st.sampled_from(Side), VALUES, VALUES)
def test_order_charges_growing_order_never_costs_less(schedule: ChargeSchedule, side: Side, value: int, more: int) -> None:
    assert schedule.order_charges_paise(side, value + more) >= schedule.order_charges_paise(side, value)


@given(SCHEDULES, st.lists(st.tuples(st.sampled_from(Side), VALUES), max_size=8))
def test_contract_note_any_legs_agree_with_exact_within_rounding(
    schedule: ChargeSchedule, legs: list[tuple[Side, int]]
) -> None:
    note, exact = schedule.contract_note(legs), schedule.exact(legs)
    assert abs(note.brokerage - exact.brokerage * 100) <= len(legs)
    assert abs(note.stt - exact.stt * 100) <= 50
    assert abs(note.stamp - exact.stamp * 100) <= 50
    assert abs(note.exchange - exact.exchange * 100) <= 1
    assert abs(note.sebi - exact.sebi * 100) <= 1
    assert abs(note.gst - exact.gst * 100) <= 1 + len(legs)
    assert note.stt % 100 == note.stamp % 100 == 0
    assert note.total == note.brokerage + note.stt + note.exchange + note.sebi + note.gst + note.stamp


def test_breakdown_sell_pays_stt_and_no_stamp() -> None:
    sold = ZERODHA_MIS.breakdown(Side.SELL, 39_600_000)
    assert (sold.brokerage, sold.stt, sold.exchange, sold.sebi, sold.gst, sold.stamp) == (2_000, 9_900, 1_327, 40, 606, 0)
    assert sold.total == ZERODHA_MIS.order_charges_paise(Side.SELL, 39_600_000) == 13_873


def test_breakdown_buy_pays_stamp_and_no_stt() -> None:
    bought = ZERODHA_MIS.breakdown(Side.BUY, 39_020_000)
    assert (bought.brokerage, bought.stt, bought.exchange, bought.sebi, bought.gst, bought.stamp) == (
        2_000,
        0,
        1_307,
        39,
        602,
        1_171,
    )


@pytest.mark.parametrize(
    ("value", "brokerage"), [(1, 0), (1_666, 0), (1_667, 1), (6_664_999, 1_999), (6_665_000, 2_000), (10**9, 2_000)]
)
def test_breakdown_brokerage_rounds_half_up_and_stops_at_the_cap(value: int, brokerage: int) -> None:
    assert ZERODHA_MIS.breakdown(Side.BUY, value).brokerage == brokerage


def test_schedule_flat_brokerage_is_per_executed_order() -> None:
    delivery = ChargeSchedule(label="delivery", brokerage_flat_paise=2_000, gst_ppb=180_000_000)
    assert delivery.order_charges_paise(Side.BUY, 1) == 2_360
    assert delivery.contract_note([(Side.BUY, 100), (Side.SELL, 100), (Side.SELL, 0)]).brokerage == 4_000
    assert delivery.exact([(Side.BUY, 100), (Side.SELL, 0)]).brokerage == Decimal(20)


@pytest.mark.parametrize("side", Side)
def test_schedule_nothing_traded_costs_nothing(side: Side) -> None:
    delivery = ChargeSchedule(label="delivery", brokerage_flat_paise=2_000)
    assert delivery.order_charges_paise(side, 0) == 0
    assert delivery.closing_estimate_paise(side, 0) == 0
    assert delivery.breakdown(side, 0).total == 0
    assert delivery.contract_note([(side, 0)]).total == 0
    assert delivery.contract_note([]).total == 0
    assert delivery.exact([]).total == 0


def test_schedule_negative_value_is_a_bug() -> None:
    for charge in (ZERODHA_MIS.order_charges_paise, ZERODHA_MIS.breakdown, ZERODHA_MIS.closing_estimate_paise):
        with pytest.raises(InvariantError, match="negative"):
            charge(Side.BUY, -1)
    for note in (ZERODHA_MIS.contract_note, ZERODHA_MIS.exact):
        with pytest.raises(InvariantError, match="negative"):
            note([(Side.BUY, 100), (Side.SELL, -1)])


@pytest.mark.parametrize(
    ("bps", "value", "charges"), [(3, 150_000, 45), (3, 1_667, 1), (3, 1_666, 0), (0, 150_000, 0), (10, 10**12, 10**9)]
)
def test_schedule_flat_bps_is_one_rate_on_both_sides(bps: int, value: int, charges: int) -> None:
    flat = ChargeSchedule.flat(bps=bps)
    assert flat.order_charges_paise(Side.BUY, value) == flat.order_charges_paise(Side.SELL, value) == charges
    assert flat.label == f"flat {bps} bps"


def test_schedule_does_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        ZERODHA_MIS.brokerage_ppb = 0  # type: ignore[misc]


# --- the book ---


def terms(first_date: date, brokerage_ppb: int) -> BrokerTerms:
    return BrokerTerms(
        first_date=first_date,
        brokerage_ppb=brokerage_ppb,
        brokerage_cap_paise=2_000,
        brokerage_flat_paise=0,
        sebi_in_gst=1,
        stamp_step_paise=0,
        depository_paise=1_534,
        square_off_paise=5_000,
    )


def book() -> ChargeBook:
    rates = {
        name: (DatedRate(first_date=date(2024, 1, 1), rate_ppb=index), DatedRate(first_date=DAY, rate_ppb=100 + index))
        for index, name in enumerate(RateName)
    }
    return ChargeBook(
        rates=rates,
        terms={"broker": {Product.MIS: (terms(date(2024, 1, 1), 7), terms(DAY, 8)), Product.CNC: (terms(DAY, 9),)}},
    )


@pytest.mark.parametrize(("on", "added", "brokerage"), [(date(2024, 1, 1), 0, 7), (date(2024, 1, 14), 0, 7), (DAY, 100, 8)])
def test_charge_book_rates_hold_until_the_next_row(on: date, added: int, brokerage: int) -> None:
    schedule = book().schedule("broker", Product.MIS, on)
    positions = {name: index + added for index, name in enumerate(RateName)}
    assert schedule.exchange_ppb == positions[RateName.EXCHANGE] + positions[RateName.IPFT]
    assert schedule.sebi_ppb == positions[RateName.SEBI]
    assert schedule.gst_ppb == positions[RateName.GST]
    assert (schedule.stt_buy_ppb, schedule.stt_sell_ppb) == (positions[RateName.STT_MIS_BUY], positions[RateName.STT_MIS_SELL])
    assert schedule.stamp_buy_ppb == positions[RateName.STAMP_MIS]
    assert schedule.brokerage_ppb == brokerage
    assert (schedule.depository_paise, schedule.square_off_paise) == (1_534, 5_000)


def test_charge_book_delivery_takes_the_delivery_rates() -> None:
    schedule = book().schedule("broker", Product.CNC, DAY)
    positions = {name: index + 100 for index, name in enumerate(RateName)}
    assert (schedule.stt_buy_ppb, schedule.stt_sell_ppb) == (positions[RateName.STT_CNC_BUY], positions[RateName.STT_CNC_SELL])
    assert schedule.stamp_buy_ppb == positions[RateName.STAMP_CNC]
    assert schedule.label == "broker CNC 2024-01-15"


def test_charge_book_same_question_gives_the_same_schedule() -> None:
    rates = book()
    assert rates.schedule("broker", Product.MIS, DAY) is rates.schedule("broker", Product.MIS, DAY)
    assert rates.brokers == ("broker",)


@pytest.mark.parametrize(
    ("broker", "product", "on", "message"),
    [
        ("nobody", Product.MIS, DAY, "no charges for broker 'nobody'; it knows broker"),
        ("broker", Product.CNC, date(2024, 1, 14), "no charges of broker CNC on 2024-01-14"),
        ("broker", Product.MIS, date(2023, 12, 31), "no charges of broker MIS on 2023-12-31"),
    ],
)
def test_charge_book_unknown_broker_or_date_is_refused(broker: str, product: Product, on: date, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        book().schedule(broker, product, on)


def test_charge_book_missing_series_is_refused() -> None:
    bare = ChargeBook(rates={}, terms={"broker": {Product.MIS: (terms(DAY, 1),)}})
    with pytest.raises(ConfigError, match=r"no rate 'stt_mis_buy_percent' on 2024-01-15"):
        bare.schedule("broker", Product.MIS, DAY)


@pytest.mark.parametrize(("step_paise", "stamp"), [(0, "0.2247"), (1, "0.22"), (100, "0"), (10, "0.2")])
def test_exact_stamp_is_rounded_only_to_the_step_of_its_source(step_paise: int, stamp: str) -> None:
    schedule = ChargeSchedule(label="api", stamp_buy_ppb=150_000, stamp_step_paise=step_paise)
    assert schedule.exact([(Side.BUY, 149_800)]).stamp == Decimal(stamp)
