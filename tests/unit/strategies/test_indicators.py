"""The indicators against naive references that keep every bar."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from velox_core.strategies.indicators import SessionVwap, WilderRsi

PRICES = st.integers(5, 5_000_000)
BARS = st.lists(st.tuples(PRICES, PRICES, PRICES, st.integers(0, 10_000_000)), min_size=1, max_size=80)


def naive_vwap(bars) -> Fraction | None:
    """Return the average over all bars so far, exactly."""
    shares = sum(volume for *_, volume in bars)
    traded = sum(Fraction(high + low + close, 3) * volume for high, low, close, volume in bars)
    return traded / shares if shares else None


def naive_rsi(closes, period) -> float | None:
    """Return Wilder's RSI of all closes so far, the averages computed from the first close on."""
    changes = [after - before for before, after in pairwise(closes)]
    if len(changes) < period:
        return None
    gain = sum(max(change, 0) for change in changes[:period]) / period
    loss = sum(max(-change, 0) for change in changes[:period]) / period
    for change in changes[period:]:
        gain = (gain * (period - 1) + max(change, 0)) / period
        loss = (loss * (period - 1) + max(-change, 0)) / period
    if loss == 0:
        return 50.0 if gain == 0 else 100.0
    return 100 - 100 / (1 + gain / loss)


@settings(deadline=None)  # exact fractions over all bars, on a machine that may be busy
@given(BARS, st.integers(0, 5_000))
def test_session_vwap_equals_the_average_over_all_bars_and_compares_exactly(bars, bps):
    vwap = SessionVwap()
    for number, (high, low, close, volume) in enumerate(bars, start=1):
        vwap.add(high, low, close, volume)
        exact = naive_vwap(bars[:number])
        if exact is None:
            assert (vwap.paise, vwap.is_below(close, bps), vwap.is_above(close, bps)) == (0, False, False)
            continue
        assert abs(vwap.paise - exact) <= Fraction(1, 2)
        for price in (close, vwap.paise, int(exact * (10_000 - bps) / 10_000)):
            assert vwap.is_below(price, bps) is (price < exact * (10_000 - bps) / 10_000)
            assert vwap.is_above(price, bps) is (price > exact * (10_000 + bps) / 10_000)


@settings(deadline=None)
@given(st.lists(PRICES, min_size=1, max_size=120), st.integers(1, 30))
def test_wilder_rsi_equals_the_one_computed_from_the_first_close_on(closes, period):
    rsi = WilderRsi(period)
    for number, close in enumerate(closes, start=1):
        value = rsi.add(close)
        naive = naive_rsi(closes[:number], period)
        if naive is None:
            assert value is None
        else:
            assert value == pytest.approx(naive, abs=1e-6)
            assert 0.0 <= value <= 100.0


def test_wilder_rsi_of_a_known_series():
    # Wilder's period 14 on 15 closes: gains 3.34, losses 1.40 in all, so 100 - 100 / (1 + 3.34 / 1.40) = 70.46
    closes = [44.34, 44.09, 44.15, 43.61, 44.33, 44.83, 45.10, 45.42, 45.84, 46.08, 45.89, 46.03, 45.61, 46.28, 46.28]
    rsi = WilderRsi(14)
    values = [rsi.add(round(close * 100)) for close in closes]
    assert values[:-1] == [None] * 14
    assert values[-1] == pytest.approx(70.46, abs=0.01)
    assert rsi.add(4600) == pytest.approx(66.25, abs=0.01)


def test_wilder_rsi_without_any_change_stands_in_the_middle_and_period_zero_is_refused():
    rsi = WilderRsi(2)
    assert [rsi.add(100) for _ in range(4)] == [None, None, 50.0, 50.0]
    with pytest.raises(ValueError, match="least is 1"):
        WilderRsi(0)
