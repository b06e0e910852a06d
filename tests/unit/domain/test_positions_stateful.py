"""A position under any sequence of trades: money is neither made nor lost by the bookkeeping, not even half a paisa."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from velox_core.domain.positions import Position

PRICES = st.integers(1, 10_000_000)
SHARES = st.integers(1, 5_000)


class PositionMachine(RuleBasedStateMachine):
    """Keeps the cash by hand, and the exact average cost as a fraction."""

    def __init__(self) -> None:
        super().__init__()
        self.position = Position("AAA")
        self.cash_paise = 0
        self.held = 0
        self.average = Fraction(0)
        self.rounding = Fraction(0)  # the most that rounding may have moved the cost by, since the position was opened

    def trade(self, shares: int, price_paise: int) -> None:
        """Book one trade, and follow it by the plain rules of average cost."""
        before = self.position.realised_paise
        realised = self.position.apply(shares, price_paise)
        assert self.position.realised_paise == before + realised
        self.cash_paise -= shares * price_paise
        held, after = self.held, self.held + shares
        if held * shares >= 0:
            assert realised == 0, "a trade that closes nothing realised something"
            self.average = (abs(held) * self.average + abs(shares) * price_paise) / abs(after)
        elif held * after < 0:
            self.average, self.rounding = Fraction(price_paise), Fraction(0)
        elif after == 0:
            self.average, self.rounding = Fraction(0), Fraction(0)
        else:
            self.rounding += Fraction(1, 2)
        self.held = after

    @rule(shares=SHARES, price=PRICES, buys=st.booleans())
    def trade_anything(self, shares: int, price: int, buys: bool) -> None:
        self.trade(shares if buys else -shares, price)

    @precondition(lambda self: self.held)
    @rule(shares=SHARES, price=PRICES)
    def close_a_part(self, shares: int, price: int) -> None:
        shares = min(shares, abs(self.held))
        self.trade(-shares if self.held > 0 else shares, price)

    @precondition(lambda self: self.held)
    @rule(price=PRICES)
    def close_all(self, price: int) -> None:
        self.trade(-self.held, price)
        assert (self.position.quantity, self.position.cost_paise) == (0, 0)
        assert self.position.realised_paise == self.cash_paise, "flat, and what was realised is not the cash"

    @precondition(lambda self: self.held)
    @rule(beyond=SHARES, price=PRICES)
    def reverse(self, beyond: int, price: int) -> None:
        self.trade(-self.held - (beyond if self.held > 0 else -beyond), price)
        assert self.position.cost_paise == self.position.quantity * price, "what a reversal opened costs its own price"

    @invariant()
    def cash_and_inventory_at_cost_are_what_was_realised(self) -> None:
        assert self.position.quantity == self.held
        assert self.cash_paise + self.position.cost_paise == self.position.realised_paise

    @invariant()
    def cost_is_the_average_cost_but_for_the_rounding_of_partial_closes(self) -> None:
        assert abs(self.position.cost_paise - self.held * self.average) <= self.rounding

    @invariant()
    def total_at_any_price_is_cash_and_inventory_at_that_price(self) -> None:
        for price in (1, 99_995, 10_000_000):
            total = self.position.realised_paise + self.position.open_pnl_paise(price)
            assert total == self.cash_paise + self.held * price


TestPosition = PositionMachine.TestCase
TestPosition.settings = settings(max_examples=80, stateful_step_count=30, deadline=None, derandomize=True)
