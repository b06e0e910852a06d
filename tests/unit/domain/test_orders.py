"""Orders: the complete table of transitions, what is live, and client order ids."""

from __future__ import annotations

import itertools
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from velox_core.domain.errors import InvariantError
from velox_core.domain.orders import (
    CLIENT_ORDER_ID_LENGTH_MAX,
    TERMINAL_STATES,
    TRANSITIONS,
    Actor,
    ExitRank,
    Order,
    OrderState,
    OrderType,
    Product,
    Side,
    Signal,
    SignalKind,
    client_order_id,
    client_order_id_prefix,
)

ALLOWED = {
    "INTENT": "SUBMITTING CANCELLED",
    "SUBMITTING": "OPEN PARTIALLY_FILLED FILLED CANCELLED REJECTED UNKNOWN",
    "OPEN": "PARTIALLY_FILLED FILLED CANCELLED REJECTED UNKNOWN",
    "PARTIALLY_FILLED": "PARTIALLY_FILLED FILLED CANCELLED UNKNOWN",
    "UNKNOWN": "OPEN PARTIALLY_FILLED FILLED CANCELLED REJECTED",
    "FILLED": "",
    "CANCELLED": "",
    "REJECTED": "",
}
PAIRS = list(itertools.product(OrderState, OrderState))


def order(rank: ExitRank | None = None) -> Order:
    return Order(
        client_order_id="240115E00010000001",
        strategy_id="sma",
        symbol="TCS",
        side=Side.BUY,
        quantity=10,
        order_type=OrderType.MARKET,
        limit_price_paise=0,
        product=Product.MIS,
        rank=rank,
        created_ms=1_000,
        reason="fast above slow",
    )


def test_transitions_table_names_every_state() -> None:
    assert set(TRANSITIONS) == set(OrderState)
    assert {state.value for state in OrderState} == set(ALLOWED)
    assert {state for state in OrderState if not TRANSITIONS[state]} == TERMINAL_STATES


@pytest.mark.parametrize(("before", "after"), PAIRS, ids=lambda state: str(state.value))
def test_order_move_to_follows_the_table(before: OrderState, after: OrderState) -> None:
    moved = order()
    moved.state = before
    if after.value in ALLOWED[before.value].split():
        moved.move_to(after, 2_000)
        assert (moved.state, moved.updated_ms) == (after, 2_000)
    else:
        with pytest.raises(InvariantError, match=f"240115E00010000001: {before} -> {after} "):
            moved.move_to(after, 2_000)
        assert (moved.state, moved.updated_ms) == (before, 1_000)


@pytest.mark.parametrize("state", OrderState)
def test_order_is_live_until_a_terminal_state(state: OrderState) -> None:
    checked = order()
    checked.state = state
    assert checked.is_live == (state not in {OrderState.FILLED, OrderState.CANCELLED, OrderState.REJECTED})


def test_order_new_has_nothing_filled() -> None:
    fresh = order()
    assert fresh.state is OrderState.INTENT
    assert (fresh.filled_quantity, fresh.filled_value_paise, fresh.charges_paise, fresh.broker_order_id) == (0, 0, 0, "")
    assert fresh.updated_ms == fresh.created_ms == 1_000
    fresh.filled_quantity = 4
    assert fresh.open_quantity == 6


def test_order_is_entry_without_a_rank_only() -> None:
    assert order().is_entry
    assert not any(order(rank).is_entry for rank in ExitRank)


def test_side_opposite_and_sign_mirror_each_other() -> None:
    assert (Side.BUY.opposite, Side.SELL.opposite) == (Side.SELL, Side.BUY)
    assert (Side.BUY.sign, Side.SELL.sign) == (1, -1)


def test_exit_rank_orders_urgency() -> None:
    assert ExitRank.TARGET < ExitRank.STOP < ExitRank.SQUARE_OFF < ExitRank.EMERGENCY


def test_signal_defaults_have_no_stop_no_target_and_the_weakest_rank() -> None:
    signal = Signal("sma", "TCS", Side.SELL, 5, SignalKind.EXIT, "fast below slow")
    assert (signal.stop_paise, signal.target_paise, signal.rank) == (0, 0, ExitRank.TARGET)
    assert (signal.strategy_id, signal.symbol, signal.side, signal.quantity) == ("sma", "TCS", Side.SELL, 5)
    assert (signal.kind, signal.reason) == (SignalKind.EXIT, "fast below slow")


def test_client_order_id_fits_every_broker() -> None:
    longest = client_order_id(client_order_id_prefix("240115", Actor.GUARD, 9_999), 9_999_999)
    assert longest == "240115G99999999999"
    assert len(longest) <= CLIENT_ORDER_ID_LENGTH_MAX
    assert longest.isascii()
    assert longest.isalnum()
    assert longest == longest.upper()


def test_client_order_id_differs_by_actor_epoch_and_sequence() -> None:
    ids = {
        client_order_id(client_order_id_prefix("240115", actor, epoch), sequence)
        for actor in Actor
        for epoch in (1, 11, 111)
        for sequence in (1, 11, 111)
    }
    assert len(ids) == len(Actor) * 9


@pytest.mark.parametrize("sequence", [0, -1, 10_000_000])
def test_client_order_id_sequence_out_of_range_is_a_bug(sequence: int) -> None:
    with pytest.raises(InvariantError, match="sequence"):
        client_order_id("240115E0001", sequence)


HOLDERS = st.tuples(st.dates(date(2024, 1, 1), date(2099, 12, 31)), st.sampled_from(Actor), st.integers(0, 9_999))


@given(st.integers(1, 10**6), HOLDERS, HOLDERS, st.integers(1, 9_999_999), st.integers(1, 9_999_999))
def test_client_order_ids_of_two_dates_actors_or_epochs_never_collide(
    first_epoch: int, one: tuple[date, Actor, int], other: tuple[date, Actor, int], first: int, second: int
) -> None:
    def made(holder: tuple[date, Actor, int], sequence: int) -> str:
        return client_order_id(client_order_id_prefix(f"{holder[0]:%y%m%d}", holder[1], first_epoch + holder[2]), sequence)

    ids = (made(one, first), made(other, second))
    assert (ids[0] == ids[1]) is ((one, first) == (other, second))
    assert max(map(len, ids)) <= CLIENT_ORDER_ID_LENGTH_MAX


@pytest.mark.parametrize(
    ("yymmdd", "epoch"), [("240115", 0), ("240115", -1), ("24011", 1), ("2024115", 1), ("24-115", 1), ("24011²", 1)]
)
def test_client_order_id_prefix_out_of_range_is_a_bug(yymmdd: str, epoch: int) -> None:
    with pytest.raises(InvariantError, match="out of range"):
        client_order_id_prefix(yymmdd, Actor.ENGINE, epoch)
