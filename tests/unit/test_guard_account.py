"""The loss as the guard computes it: the same as the engine's, from the broker's word alone; faults are no zeros."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from velox_core.domain.charges import ChargeSchedule
from velox_core.domain.orders import OrderState, Product, Side
from velox_core.domain.positions import Position
from velox_core.guard_account import LossReading, Price, carried, exposure, price_fault, read_loss
from velox_core.ports import BrokerFill, BrokerOrder, BrokerPosition
from velox_core.risk.breach import DayLoss

SCHEDULE = ChargeSchedule(
    label="capped",
    brokerage_ppb=300_000,
    brokerage_cap_paise=2_000,
    stt_sell_ppb=250_000,
    exchange_ppb=30_700,
    stamp_buy_ppb=30_000,
    gst_ppb=180_000_000,
)
NOW_MS = 1_000_000
AGE_MS_MAX = 90_000
SYMBOLS = ("AAA", "BBB", "CCC")


def fill(
    number: int, symbol: str, signed: int, price_paise: int, *, order: str = "", product: Product = Product.MIS
) -> BrokerFill:
    side = Side.BUY if signed > 0 else Side.SELL
    return BrokerFill(number, f"T{number}", "", order or f"O{number}", symbol, side, abs(signed), price_paise, product)


def position(symbol: str, quantity: int, product: Product = Product.MIS) -> BrokerPosition:
    return BrokerPosition(
        symbol=symbol, product=product, quantity=quantity, bought_quantity=0, sold_quantity=0, bought_paise=0, sold_paise=0,
        last_price_paise=0,
    )  # fmt: skip


def loss_of(
    trades: list[BrokerFill],
    prices: dict[str, Price],
    *,
    rest: dict[str, int] | None = None,
    closes: dict[str, int] | None = None,
) -> LossReading:
    return read_loss(
        trades,
        rest or {},
        prices=prices,
        previous_closes=closes or {},
        schedule=SCHEDULE,
        product=Product.MIS,
        now_ms=NOW_MS,
        price_age_ms_max=AGE_MS_MAX,
    )


@settings(max_examples=200, deadline=None)
@given(
    deals=st.lists(
        st.tuples(st.sampled_from(SYMBOLS), st.integers(-20, 20).filter(bool), st.integers(1, 5_000_000)), max_size=12
    ),
    marks=st.tuples(*[st.integers(1, 5_000_000)] * 3),
)
def test_loss_equals_the_engines_own_sum_for_any_day(deals: list[tuple[str, int, int]], marks: tuple[int, int, int]) -> None:
    engine, books = DayLoss(SCHEDULE), {symbol: Position(symbol) for symbol in SYMBOLS}
    for symbol, signed, price in deals:
        engine.realised_paise += books[symbol].apply(signed, price)
        engine.charges_paise += SCHEDULE.order_charges_paise(Side.BUY if signed > 0 else Side.SELL, abs(signed) * price)
        engine.book(SYMBOLS.index(symbol), books[symbol].quantity, books[symbol].cost_paise, price)
    engine.mark_row(list(marks))
    trades = [fill(number, *deal) for number, deal in enumerate(deals, 1)]
    found = loss_of(trades, {s: Price(paise=mark, feed_ms=NOW_MS) for s, mark in zip(SYMBOLS, marks, strict=True)})
    assert found.faults == ()
    assert found.loss_paise == engine.loss_paise
    assert (found.realised_paise, found.open_paise, found.charges_paise) == (
        engine.realised_paise,
        engine.open_paise,
        engine.charges_paise,
    )


def test_loss_charges_an_order_that_filled_in_parts_once_as_a_whole() -> None:
    parts = [fill(1, "AAA", 600, 1_000_00, order="O1"), fill(2, "AAA", 400, 1_000_00, order="O1")]
    found = loss_of(parts, {"AAA": Price(paise=1_000_00, feed_ms=NOW_MS)})
    assert found.charges_paise == SCHEDULE.order_charges_paise(Side.BUY, 1_000 * 1_000_00)


def test_loss_leaves_out_what_is_not_the_days_product() -> None:
    trades = [fill(1, "AAA", 1, 100_00), fill(2, "BBB", 5, 999_00, product=Product.CNC)]
    found = loss_of(trades, {"AAA": Price(paise=90_00, feed_ms=NOW_MS)})
    assert (found.faults, found.open_paise) == ((), -10_00)


@pytest.mark.parametrize(
    ("price", "said"),
    [
        (None, "no price"),
        (Price(paise=0, feed_ms=NOW_MS), "no price"),
        (Price(paise=math.nan, feed_ms=NOW_MS), "no number"),
        (Price(paise=math.inf, feed_ms=NOW_MS), "no number"),
        (Price(paise=-5, feed_ms=NOW_MS), "not a whole number"),
        (Price(paise=100.5, feed_ms=NOW_MS), "not a whole number"),
        (Price(paise=True, feed_ms=NOW_MS), "no number"),
        (Price(paise=100_00, feed_ms=NOW_MS - AGE_MS_MAX - 1), "90 s old"),
    ],
)
def test_loss_with_a_price_that_cannot_be_used_is_not_known_and_says_why(price: Price | None, said: str) -> None:
    prices = {} if price is None else {"AAA": price}
    found = loss_of([fill(1, "AAA", 1, 100_00)], prices)
    assert found.loss_paise is None
    assert len(found.faults) == 1
    assert found.faults[0].startswith("1 AAA: ")
    assert said in found.faults[0]


def test_price_as_old_as_the_bound_is_used_and_a_flat_symbol_needs_none() -> None:
    assert price_fault(Price(paise=100_00, feed_ms=NOW_MS - AGE_MS_MAX), NOW_MS, AGE_MS_MAX) == ""
    found = loss_of([fill(1, "AAA", 1, 100_00), fill(2, "AAA", -1, 90_00)], {})
    assert found.faults == ()
    assert found.loss_paise is not None
    assert found.loss_paise > 10_00


def test_carried_shares_cost_their_previous_close_and_without_one_the_loss_is_not_known() -> None:
    trades = [fill(1, "AAA", -1, 95_00)]
    rest = carried([position("AAA", 2), position("BBB", 7, Product.CNC), position("CCC", 0)], trades, Product.MIS)
    assert rest == {"AAA": 3}
    prices = {"AAA": Price(paise=90_00, feed_ms=NOW_MS)}
    known = loss_of(trades, prices, rest=rest, closes={"AAA": 100_00})
    assert (known.realised_paise, known.open_paise) == (-5_00, -20_00)
    unknown = loss_of(trades, prices, rest=rest)
    assert unknown.loss_paise is None
    assert "3 AAA" in unknown.faults[0]


def test_exposure_names_positions_and_working_orders_of_the_product_only() -> None:
    def line(state: OrderState, product: Product = Product.MIS) -> BrokerOrder:
        return BrokerOrder(
            broker_order_id="O1", tag="", symbol="AAA", side=Side.BUY, quantity=1, filled_quantity=0, state=state,
            product=product, limit_price_paise=0, placed_ms=0,
        )  # fmt: skip

    found = exposure(
        [line(OrderState.OPEN), line(OrderState.FILLED), line(OrderState.OPEN, Product.CNC)],
        [position("AAA", -2), position("BBB", 0), position("CCC", 9, Product.CNC)],
        Product.MIS,
    )
    assert found == ["-2 AAA", "OPEN order O1 AAA"]
    assert exposure([], [], Product.MIS) == []
