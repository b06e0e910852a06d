from __future__ import annotations

import dataclasses

import pytest

from tests.fakes.rig import make_limits
from velox_core.risk.sizing import entry_quantity, worst_price_paise


@pytest.mark.parametrize("lot", [1, 3, 500])
def test_entry_quantity_is_the_fixed_lot(lot: int) -> None:
    assert entry_quantity(make_limits(fixed_lot_size=lot)) == lot


@pytest.mark.parametrize(
    ("price", "bps", "worst"),
    [(10_000, 100, 10_100), (10_000, 0, 10_000), (10_001, 100, 10_102), (1, 1, 2), (390_205, 100, 394_108)],
)
def test_worst_price_is_rounded_up(price: int, bps: int, worst: int) -> None:
    assert worst_price_paise(price, bps) == worst


def test_loss_limit_is_the_smaller_of_amount_and_percentage() -> None:
    amount_rules = make_limits(max_daily_loss_paise=200_000, max_daily_loss_bps=200, initial_capital_paise=10_000_000)
    percent_rules = make_limits(max_daily_loss_paise=200_001, max_daily_loss_bps=200, initial_capital_paise=9_999_999)
    assert amount_rules.loss_limit_paise == 200_000
    assert percent_rules.loss_limit_paise == 199_999  # rounded down, above neither


def test_limits_that_are_not_configured_have_these_values() -> None:
    limits = make_limits()
    assert (limits.protection_bps, limits.band_margin_bps, limits.orders_per_second_max) == (100, 50, 8)
    assert (limits.entry_price_age_ms_max, limits.mark_age_ms_max) == (90_000, 90_000)


def test_limits_once_made_cannot_be_raised() -> None:
    limits = make_limits(max_total_positions=5)
    with pytest.raises(dataclasses.FrozenInstanceError):
        limits.max_total_positions = 6  # type: ignore[misc]
    assert limits.max_total_positions == 5
