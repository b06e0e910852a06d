"""Instruments: prices on the tick, impossible values, and what the book knows of a stock."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from velox_core.calendar import load_instruments
from velox_core.domain.market.ticks import DerivativePeriod, Instrument, InstrumentBook, SecurityClass, TickRule, TickTable

ROOT = Path(__file__).resolve().parents[3]
TABLE = TickTable(rules=(TickRule(first_date=date(2024, 1, 1), floors_paise=(0, 25_000), ticks_paise=(1, 5)),))


def instrument(tick_paise: int = 5, **values: Any) -> Instrument:
    return Instrument(symbol="TCS", security_class=SecurityClass.CASH, tick_paise=tick_paise, **values)


@given(st.integers(0, 10**9), st.sampled_from([1, 5, 10, 50, 100, 500]))
def test_instrument_round_to_tick_any_price_is_the_nearest_on_its_side(price: int, tick: int) -> None:
    rounded = instrument(tick)
    below, above = rounded.round_to_tick(price, up=False), rounded.round_to_tick(price, up=True)
    assert below % tick == above % tick == 0
    assert price - tick < below <= price <= above < price + tick
    assert (below == above) == (price % tick == 0)


def test_instrument_is_on_tick_takes_positive_multiples_only() -> None:
    checked = instrument(5)
    assert [price for price in range(-10, 16) if checked.is_on_tick(price)] == [5, 10, 15]


@pytest.mark.parametrize(
    "values",
    [
        {"tick_paise": 0},
        {"tick_paise": -5},
        {"freeze_quantity": 0},
        {"lower_band_paise": -1},
        {"upper_band_paise": -1},
        {"lower_band_paise": 11_000, "upper_band_paise": 10_000},
    ],
)
def test_instrument_impossible_value_is_refused(values: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="TCS"):
        instrument(**values)


def test_instrument_defaults_know_no_band_and_may_trade() -> None:
    plain = instrument()
    assert (plain.exchange, plain.lower_band_paise, plain.upper_band_paise) == ("NSE", 0, 0)
    assert (plain.freeze_quantity, plain.isin, plain.tradable) == (100_000, "", True)
    assert instrument(lower_band_paise=9_000).upper_band_paise == 0


def test_instrument_book_class_follows_the_dates() -> None:
    periods = (
        DerivativePeriod(first_date=date(2024, 2, 1), last_date=date(2024, 2, 29)),
        DerivativePeriod(first_date=date(2024, 4, 1), last_date=None),
    )
    book = InstrumentBook(tick_table=TABLE, derivative_periods={"ABC": periods})
    days = [date(2024, 1, 31), date(2024, 2, 1), date(2024, 2, 29), date(2024, 3, 1), date(2024, 4, 1), date(2030, 1, 1)]
    classes = [book.security_class("ABC", day).value for day in days]
    assert classes == ["cash", "derivative", "derivative", "cash", "derivative", "derivative"]


def test_instrument_book_unknown_symbol_is_cash_with_the_tick_of_its_price() -> None:
    book = InstrumentBook(tick_table=TABLE, derivative_periods={})
    found = book.instrument("UNHEARD", date(2024, 1, 15), 24_999)
    assert (found.symbol, found.security_class, found.tick_paise) == ("UNHEARD", SecurityClass.CASH, 1)
    assert book.instrument("UNHEARD", date(2024, 1, 15), 25_000).tick_paise == 5


def test_instrument_book_of_the_project_knows_the_nifty_stocks() -> None:
    book = load_instruments(ROOT / "config" / "nse_calendar.yaml")
    assert (
        len([s for s in book.derivative_periods if book.security_class(s, date(2024, 2, 22)) is SecurityClass.DERIVATIVE]) == 50
    )
    for symbol in ("TCS", "RELIANCE", "M&M", "BAJAJ-AUTO", "IDEA", "PAYTM"):
        assert book.security_class(symbol, date(2026, 8, 18)) is SecurityClass.DERIVATIVE
    assert book.security_class("PAYTM", date(2024, 2, 1)) is SecurityClass.CASH
    tcs = book.instrument("TCS", date(2024, 1, 15), 379_325)
    assert (tcs.security_class, tcs.tick_paise) == (SecurityClass.DERIVATIVE, 5)
