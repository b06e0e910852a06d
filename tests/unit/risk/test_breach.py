from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from velox_core.domain.charges import ChargeSchedule
from velox_core.domain.orders import Side
from velox_core.domain.positions import Position
from velox_core.risk.breach import DayLoss

CAPPED = ChargeSchedule(
    label="capped",
    brokerage_ppb=300_000,
    brokerage_cap_paise=2_000,
    stt_sell_ppb=250_000,
    exchange_ppb=30_700,
    sebi_ppb=1_000,
    stamp_buy_ppb=30_000,
    gst_ppb=180_000_000,
)
FLAT_FEE = ChargeSchedule(
    label="flat fee",
    brokerage_flat_paise=2_000,
    stt_buy_ppb=1_000_000,
    stt_sell_ppb=1_000_000,
    gst_ppb=180_000_000,
    sebi_in_gst=0,
)
FREE = ChargeSchedule(label="free")
SCHEDULES = (CAPPED, FLAT_FEE, FREE, ChargeSchedule.flat(bps=5))
PRICES = st.integers(5, 5_000_000)


class Books:
    """The same day kept the slow way: positions, charges and marks, added up from nothing each time."""

    def __init__(self, schedule: ChargeSchedule) -> None:
        self.schedule = schedule
        self.loss = DayLoss(schedule)
        self.positions: dict[int, Position] = {}
        self.marks: dict[int, int] = {}
        self.charges = 0

    def trade(self, column: int, signed_quantity: int, price: int) -> None:
        position = self.positions.setdefault(column, Position(str(column)))
        realised = position.apply(signed_quantity, price)
        side = Side.BUY if signed_quantity > 0 else Side.SELL
        charges = self.schedule.order_charges_paise(side, abs(signed_quantity) * price)
        self.charges += charges
        self.marks[column] = price
        self.loss.realised_paise += realised
        self.loss.charges_paise += charges
        self.loss.book(column, position.quantity, position.cost_paise, price)

    def price(self, column: int, price: int) -> None:
        self.marks[column] = price
        self.loss.mark(column, price)

    def row(self, prices: list[int]) -> None:
        for column, price in enumerate(prices):
            if price:
                self.marks[column] = price
        self.loss.mark_row(prices)

    def expected(self) -> int:
        total = self.charges
        for column, position in self.positions.items():
            total -= position.realised_paise + position.open_pnl_paise(self.marks[column])
            if position.quantity:
                side = Side.SELL if position.quantity > 0 else Side.BUY
                total += self.schedule.closing_estimate_paise(side, abs(position.quantity) * self.marks[column])
        return total


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("trade"), st.integers(0, 3), st.integers(-300, 300).filter(bool), PRICES),
        st.tuples(st.just("price"), st.integers(0, 3), st.just(0), PRICES),
        st.tuples(st.just("row"), st.lists(st.one_of(st.just(0), PRICES), min_size=4, max_size=4), st.just(0), st.just(0)),
    ),
    max_size=30,
)


@settings(max_examples=150, deadline=None)
@given(schedule=st.sampled_from(SCHEDULES), steps=STEPS, offset=st.integers(-3, 3))
def test_day_loss_after_any_path_equals_the_sum_made_from_nothing(
    schedule: ChargeSchedule, steps: list[tuple[str, int | list[int], int, int]], offset: int
) -> None:
    books = Books(schedule)
    for what, target, quantity, price in steps:
        if isinstance(target, list):
            books.row(target)
        elif what == "trade":
            books.trade(target, quantity, price)
        elif target in books.marks:
            books.price(target, price)
        exact = books.expected()
        assert books.loss.loss_paise == exact
        assert books.loss.loss_at_most_paise >= exact
        assert books.loss.reaches(exact + offset) is (offset <= 0)
        assert books.loss.open_paise == sum(p.open_pnl_paise(books.marks[c]) for c, p in books.positions.items())


def test_day_loss_with_a_symbol_outside_the_universe_marks_the_others_and_not_it() -> None:
    loss = DayLoss(FREE)
    loss.book(0, 10, 10_000, 1_000)
    loss.book(-3, 10, 10_000, 1_000)
    loss.mark_row([900])
    assert (loss.loss_paise, loss.open_marks[-3].mark_paise) == (1_000, 1_000)
    loss.book(-3, 0, 0, 1_000)
    loss.mark_row([950])
    assert (loss.loss_paise, list(loss.open_marks)) == (500, [0])


def test_day_loss_of_a_short_counts_its_size_and_not_its_sign_in_the_bound() -> None:
    loss = DayLoss(ChargeSchedule.flat(bps=100))
    loss.book(0, -10, -10_000, 1_000)
    loss.mark_row([1_100])
    assert (loss.open_paise, loss.gross_paise, loss.loss_at_most_paise >= loss.loss_paise) == (-1_000, 11_000, True)


def test_day_loss_at_the_limit_reaches_it_and_one_paisa_below_does_not() -> None:
    books = Books(CAPPED)
    books.trade(0, 10, 100_000)
    books.price(0, 99_000)
    loss = books.expected()
    assert loss > 10_000
    assert books.loss.reaches(loss - 1)
    assert books.loss.reaches(loss)
    assert not books.loss.reaches(loss + 1)


def test_day_loss_bound_alone_above_the_limit_does_not_reach_it() -> None:
    books = Books(CAPPED)
    books.trade(0, 100, 1_000_000)  # brokerage by rate would be far above its cap
    loss = books.expected()
    assert books.loss.loss_at_most_paise > loss + 1_000
    assert not books.loss.reaches(loss + 1_000)


def test_day_loss_keeps_the_last_mark_of_a_symbol_without_a_price() -> None:
    books = Books(FREE)
    books.trade(0, 10, 1_000)
    books.row([900, 0])
    books.row([0, 5])
    assert books.loss.loss_paise == 1_000
    assert books.loss.open_marks[0].mark_paise == 900


def test_day_loss_of_a_symbol_outside_the_universe_is_not_marked_by_rows() -> None:
    loss = DayLoss(FREE)
    loss.book(-3, 10, 10_000, 1_000)
    loss.mark_row([1, 2])
    assert loss.loss_paise == 0
    loss.mark(-3, 500)
    assert loss.loss_paise == 5_000


def test_day_loss_price_of_a_symbol_not_held_changes_nothing() -> None:
    loss = DayLoss(FREE)
    loss.mark(0, 1_000)
    loss.mark_row([1_000])
    assert (loss.loss_paise, loss.open_marks) == (0, {})


def test_day_loss_when_closed_forgets_the_open_part() -> None:
    books = Books(FREE)
    books.trade(0, -10, 1_000)
    books.price(0, 1_100)
    assert books.loss.loss_paise == 1_000
    books.trade(0, 10, 1_050)
    assert books.loss.loss_paise == 500
    assert (books.loss.open_paise, books.loss.gross_paise, books.loss.open_marks) == (0, 0, {})


def test_day_loss_of_several_shorts_and_a_long_in_one_row_keeps_the_size_of_each() -> None:
    loss = DayLoss(FREE)
    for column, quantity in enumerate((-10, -20, 5)):
        loss.book(column, quantity, quantity * 1_000, 1_000)
    loss.mark_row([1_100, 1_200, 1_300])
    assert loss.gross_paise == 10 * 1_100 + 20 * 1_200 + 5 * 1_300
    assert loss.open_paise == -1_000 - 4_000 + 1_500


@pytest.mark.parametrize(("quantity", "closing_paise"), [(1, 300), (-1, 100), (10, 3_000), (-10, 1_000)])
def test_day_loss_closes_a_long_by_a_sale_and_a_short_by_a_purchase(quantity: int, closing_paise: int) -> None:
    loss = DayLoss(ChargeSchedule(label="by side", stt_sell_ppb=30_000_000, stt_buy_ppb=10_000_000))
    loss.book(0, quantity, quantity * 10_000, 10_000)
    assert loss.closing_charges_paise() == closing_paise
    assert loss.loss_paise == closing_paise
