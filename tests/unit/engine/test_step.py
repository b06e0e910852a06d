from __future__ import annotations

import pytest

from tests.fakes.session import row
from velox_core.domain.charges import ChargeSchedule
from velox_core.domain.orders import ExitRank
from velox_core.domain.positions import Position
from velox_core.engine.step import protective_exit, round_trip_cost_paise


def held(quantity: int, *, stop: int = 0, target: int = 0) -> Position:
    position = Position("AAA")
    if quantity:
        position.apply(quantity, 10_000)
    position.stop_paise, position.target_paise = stop, target
    return position


@pytest.mark.parametrize(
    ("quantity", "stop", "target", "low", "high", "expected"),
    [
        (1, 9_900, 10_100, 9_905, 10_095, None),
        (1, 9_900, 10_100, 9_900, 10_095, ExitRank.STOP),
        (1, 9_900, 10_100, 9_895, 10_095, ExitRank.STOP),
        (1, 9_900, 10_100, 9_905, 10_100, ExitRank.TARGET),
        (1, 9_900, 10_100, 9_905, 10_105, ExitRank.TARGET),
        (1, 9_900, 10_100, 9_900, 10_100, ExitRank.STOP),
        (1, 0, 0, 1, 99_999, None),
        (-1, 10_100, 9_900, 9_905, 10_095, None),
        (-1, 10_100, 9_900, 9_905, 10_100, ExitRank.STOP),
        (-1, 10_100, 9_900, 9_900, 10_095, ExitRank.TARGET),
        (-1, 10_100, 9_900, 9_895, 10_105, ExitRank.STOP),
        (-1, 0, 0, 1, 99_999, None),
        (0, 9_900, 10_100, 1, 99_999, None),
    ],
)
def test_protective_exit_by_the_minutes_range(
    quantity: int, stop: int, target: int, low: int, high: int, expected: ExitRank | None
) -> None:
    hit = protective_exit(held(quantity, stop=stop, target=target), row(1, 10_000, low=low, high=high), 0)
    assert (None if hit is None else hit[0]) is expected
    if hit is not None:
        price_paise = stop if hit[0] is ExitRank.STOP else target
        assert hit[1] == f"{hit[0].name.lower()} {price_paise / 100:.2f} reached"


def test_protective_exit_without_a_bar_is_none() -> None:
    assert protective_exit(held(1, stop=99_999), row(1), 0) is None


def test_round_trip_cost_is_both_orders_and_the_spread() -> None:
    assert round_trip_cost_paise(ChargeSchedule.flat(bps=10), 3, 10_000, 5) == 30 + 30 + 15
    assert round_trip_cost_paise(ChargeSchedule(label="free"), 3, 10_000, 0) == 0
