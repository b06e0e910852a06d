"""Positions: average cost, partial closes, shorts and trades through zero, exact to the paisa."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from velox_core.domain.positions import Position

START_CASH_PAISE = 100_000_000
TRADES = st.lists(
    st.tuples(
        st.integers(-5_000, 5_000).filter(bool),
        st.integers(1, 10_000_000),
    ),
    max_size=40,
)


@given(TRADES)
def test_position_any_trade_path_keeps_cash_and_inventory_equal_to_start_and_realised(trades: list[tuple[int, int]]) -> None:
    position = Position("TCS")
    cash = START_CASH_PAISE
    realised = 0
    for quantity, price in trades:
        realised += position.apply(quantity, price)
        cash -= quantity * price
        assert cash + position.cost_paise == START_CASH_PAISE + realised
        assert position.realised_paise == realised
        assert (position.cost_paise == 0) == (position.quantity == 0)
        assert position.quantity * position.cost_paise >= 0
    assert position.quantity == sum(quantity for quantity, _ in trades)


@given(TRADES, st.integers(1, 10_000_000))
def test_position_closed_at_a_price_realises_its_open_pnl(trades: list[tuple[int, int]], price: int) -> None:
    position = Position("TCS")
    for quantity, traded in trades:
        position.apply(quantity, traded)
    expected = position.open_pnl_paise(price)
    if position.quantity:
        assert position.apply(-position.quantity, price) == expected
    else:
        assert expected == 0
    assert (position.quantity, position.cost_paise, position.average_price_paise) == (0, 0, 0)


@given(TRADES, st.integers(1, 4_000), st.integers(1, 10_000_000))
def test_position_mirrored_trades_realise_the_opposite(trades: list[tuple[int, int]], quantity: int, price: int) -> None:
    long, short = Position("TCS"), Position("TCS")
    for signed, traded in [*trades, (quantity, price)]:
        assert long.apply(signed, traded) == -short.apply(-signed, traded)
    assert long.cost_paise == -short.cost_paise
    assert long.average_price_paise == short.average_price_paise


@pytest.mark.parametrize(
    ("trades", "quantity", "cost", "average", "realised"),
    [
        ([(10, 10_000)], 10, 100_000, 10_000, 0),
        ([(10, 10_000), (10, 10_100)], 20, 201_000, 10_050, 0),
        ([(10, 10_000), (-4, 10_500)], 6, 60_000, 10_000, 2_000),
        ([(10, 10_000), (-10, 9_900)], 0, 0, 0, -1_000),
        ([(-10, 10_000), (4, 9_000)], -6, -60_000, 10_000, 4_000),
        ([(-10, 10_000), (10, 10_100)], 0, 0, 0, -1_000),
        ([(10, 10_000), (-15, 11_000)], -5, -55_000, 11_000, 10_000),
        ([(-10, 10_000), (15, 9_000)], 5, 45_000, 9_000, 10_000),
        ([(3, 10_001), (-1, 10_001)], 2, 20_002, 10_001, 0),
        ([(1, 100), (1, 100), (1, 101), (-1, 100)], 2, 201, 101, 0),
    ],
)
def test_position_worked_path_has_exact_cost_and_pnl(
    trades: list[tuple[int, int]], quantity: int, cost: int, average: int, realised: int
) -> None:
    position = Position("TCS", "sma")
    for signed, price in trades:
        position.apply(signed, price)
    assert (position.quantity, position.cost_paise, position.average_price_paise) == (quantity, cost, average)
    assert position.realised_paise == realised
    assert (position.symbol, position.strategy_id) == ("TCS", "sma")


def test_position_open_pnl_of_a_short_gains_when_the_price_falls() -> None:
    position = Position("TCS")
    position.apply(-10, 10_000)
    assert position.open_pnl_paise(9_900) == 1_000
    assert position.open_pnl_paise(10_100) == -1_000
    assert position.realised_paise == 0
