"""Money: text and numbers in, paise inside, rupees out."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from velox_core.domain.money import (
    ceil_div,
    paise_from_rupees,
    round_half_up_div,
    rupees_decimal,
    rupees_display,
    rupees_text,
)

PAISE = st.integers(-(10**17), 10**17)


@pytest.mark.parametrize(
    ("rupees", "paise"),
    [
        ("3902.05", 390205),
        (" 3902.05\n", 390205),
        (3902.05, 390205),
        (0.1 + 0.2, 30),
        (20, 2000),
        (Decimal("20.005"), 2001),
        ("20.0049", 2000),
        ("-20.005", -2001),
        ("-0.004", 0),
        ("1e3", 100000),
        ("1e-999999", 0),
        ("0.00499999999999999999999999999999999999", 0),
        (10**15, 10**17),
    ],
)
def test_paise_from_rupees_valid_amount_rounds_half_up(rupees: str | float | Decimal, paise: int) -> None:
    assert paise_from_rupees(rupees) == paise
    assert type(paise_from_rupees(rupees)) is int


@pytest.mark.parametrize("amount", ["", "abc", "1,000", "nan", float("nan"), float("inf"), "-inf", "sNaN", True, False])
def test_paise_from_rupees_not_a_number_is_refused(amount: str | float) -> None:
    with pytest.raises(ValueError, match="amount of rupees"):
        paise_from_rupees(amount)


@pytest.mark.parametrize("amount", [10**15 + 1, "1e999999999", -(10**16), "1000000000000000.01"])
def test_paise_from_rupees_beyond_bound_is_refused(amount: int | str) -> None:
    with pytest.raises(ValueError, match="beyond"):
        paise_from_rupees(amount)


@given(PAISE)
def test_rupees_text_any_amount_reads_back_exactly(paise: int) -> None:
    assert paise_from_rupees(rupees_text(paise)) == paise
    assert paise_from_rupees(rupees_decimal(paise)) == paise


@pytest.mark.parametrize(
    ("paise", "plain", "display"),
    [
        (0, "0.00", "₹0.00"),
        (5, "0.05", "₹0.05"),
        (-5, "-0.05", "-₹0.05"),
        (-215000, "-2150.00", "-₹2,150.00"),
        (99900, "999.00", "₹999.00"),
        (10000000, "100000.00", "₹1,00,000.00"),
        (12345678900, "123456789.00", "₹12,34,56,789.00"),
    ],
)
def test_rupees_text_and_display_print_both_forms(paise: int, plain: str, display: str) -> None:
    assert rupees_text(paise) == plain
    assert rupees_display(paise) == display


@given(st.integers(-(10**20), 10**20), st.integers(1, 10**12))
def test_round_half_up_div_any_fraction_is_nearest_with_ties_away_from_zero(numerator: int, denominator: int) -> None:
    result = round_half_up_div(numerator, denominator)
    error = abs(Fraction(numerator, denominator) - result)
    assert error <= Fraction(1, 2)
    if error == Fraction(1, 2):
        assert abs(result) > abs(Fraction(numerator, denominator))
    assert round_half_up_div(-numerator, denominator) == -result


@given(st.integers(-(10**20), 10**20), st.integers(1, 10**12))
def test_ceil_div_any_fraction_is_never_below_and_less_than_one_above(numerator: int, denominator: int) -> None:
    assert 0 <= ceil_div(numerator, denominator) - Fraction(numerator, denominator) < 1
