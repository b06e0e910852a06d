"""The loss of the day, marked now, and whether it reached the limit.

- Loss = -(realised + open P&L at the mark) + charges due + charges of closing everything now, rounded up.
- Each fill and each price changes it in O(1); nothing re-bases it during the day.
- `reaches` answers exactly. It first asks the O(1) upper bound `loss_at_most_paise`, so that the exact sum over the
  open positions is only built when the answer could be yes. The gate's seventh layer uses the bound itself.
- A position without a usable price keeps its last mark; that the mark is old is for the gate and the engine to judge.
"""

from __future__ import annotations

from operator import mul

from velox_core.domain.charges import BILLION, ChargeSchedule
from velox_core.domain.orders import Side

DENSE_SHARE = 8  # with an open position in at least one of so many columns, a row is marked by sums over all columns


class OpenMark:
    """One open position in the sum: signed shares, signed cost and the last mark, in paise."""

    __slots__ = ("cost_paise", "mark_paise", "quantity")

    def __init__(self, quantity: int, cost_paise: int, mark_paise: int) -> None:
        self.quantity = quantity
        self.cost_paise = cost_paise
        self.mark_paise = mark_paise


class DayLoss:
    """The running sum. Columns are indexes into the feed's universe; symbols outside it get negative ones.

    Args:
        schedule: charges of the broker, product and date.
    """

    __slots__ = (
        "_closing_fixed_paise",
        "_closing_rate_ppb",
        "_cost_paise",
        "_is_dense",
        "_open_marks",
        "_quantities",
        "_shorts",
        "_unwritten_row",
        "charges_paise",
        "gross_paise",
        "open_paise",
        "realised_paise",
        "schedule",
    )

    def __init__(self, schedule: ChargeSchedule) -> None:
        self.schedule = schedule
        self._closing_rate_ppb = schedule.closing_rate_ppb
        self._closing_fixed_paise = schedule.closing_fixed_paise
        self.realised_paise = 0
        self.charges_paise = 0
        self.open_paise = 0
        self.gross_paise = 0
        self._open_marks: dict[int, OpenMark] = {}
        self._quantities: list[int] = []  # signed shares by column, as far as any column was ever held
        self._cost_paise = 0  # of all open positions
        self._shorts = 0  # how many of them are short
        self._is_dense = False
        self._unwritten_row: list[int] | None = None  # the newest row, while the marks do not have it yet

    @property
    def open_marks(self) -> dict[int, OpenMark]:
        """Return the open positions by column, their marks up to date. Not to be changed by the caller."""
        row = self._unwritten_row
        if row is not None:
            self._unwritten_row = None
            for column, held in self._open_marks.items():
                held.mark_paise = row[column]
        return self._open_marks

    @property
    def is_open(self) -> bool:
        """Return whether any position is open."""
        return bool(self._open_marks)

    def book(self, column: int, quantity: int, cost_paise: int, price_paise: int) -> None:
        """Set a column's position after a fill; flat removes it. `price_paise` is the mark until the next price."""
        marks = self._open_marks if self._unwritten_row is None else self.open_marks
        old = marks.pop(column, None)
        if old is not None:
            held, mark_paise = old.quantity, old.mark_paise
            self.open_paise -= held * mark_paise - old.cost_paise
            self.gross_paise -= abs(held) * mark_paise
            self._cost_paise -= old.cost_paise
            self._shorts -= held < 0
        if quantity:
            marks[column] = OpenMark(quantity, cost_paise, price_paise)
            self.open_paise += quantity * price_paise - cost_paise
            self.gross_paise += abs(quantity) * price_paise
            self._cost_paise += cost_paise
            self._shorts += quantity < 0
        quantities = self._quantities
        if column >= len(quantities):
            quantities += [0] * (column + 1 - len(quantities))
        if column >= 0:
            quantities[column] = quantity
        self._is_dense = len(marks) * DENSE_SHARE >= len(quantities) and min(marks, default=0) >= 0

    def mark(self, column: int, price_paise: int) -> None:
        """Take one price of one column, if it is held."""
        held = self.open_marks.get(column)
        if held is not None:
            moved = price_paise - held.mark_paise
            held.mark_paise = price_paise
            self.open_paise += held.quantity * moved
            self.gross_paise += abs(held.quantity) * moved

    def mark_row(self, prices_paise: list[int]) -> None:
        """Take one price per column; 0 means none. The row is kept and must not change afterwards.

        Where much of the universe is held and all of it has a price, the sums are made anew over all columns, which
        costs less than to look at each position; else only held columns are looked at.
        """
        if not self._open_marks:
            return
        if self._is_dense and 0 not in prices_paise:
            value_paise = sum(map(mul, self._quantities, prices_paise))
            self.open_paise = value_paise - self._cost_paise
            self.gross_paise = sum(map(mul, map(abs, self._quantities), prices_paise)) if self._shorts else value_paise
            self._unwritten_row = prices_paise
            return
        open_moved = gross_moved = 0
        for column, held in self.open_marks.items():
            price_paise = prices_paise[column] if column >= 0 else 0
            if price_paise:
                moved = held.quantity * (price_paise - held.mark_paise)
                held.mark_paise = price_paise
                open_moved += moved
                gross_moved += moved if held.quantity > 0 else -moved
        self.open_paise += open_moved
        self.gross_paise += gross_moved

    def closing_charges_paise(self) -> int:
        """Return the charges of closing every position at its mark, each rounded up."""
        total = 0
        for held in self.open_marks.values():
            side = Side.SELL if held.quantity > 0 else Side.BUY
            total += self.schedule.closing_estimate_paise(side, abs(held.quantity) * held.mark_paise)
        return total

    @property
    def loss_paise(self) -> int:
        """Return the day's loss in paise; negative is a profit."""
        return self.charges_paise - self.realised_paise - self.open_paise + self.closing_charges_paise()

    @property
    def loss_at_most_paise(self) -> int:
        """Return an upper bound on the loss, in O(1): closing charges by rate, without the cap on brokerage."""
        closing = -(-self.gross_paise * self._closing_rate_ppb // BILLION) + self._closing_fixed_paise * len(self._open_marks)
        return self.charges_paise - self.realised_paise - self.open_paise + closing

    def reaches(self, limit_paise: int) -> bool:
        """Return whether the loss is at or past a limit."""
        return self.loss_at_most_paise >= limit_paise and self.loss_paise >= limit_paise
