"""The loss of the day, marked now, and whether it reached the limit.

- Loss = -(realised + open P&L at the mark) + charges due + charges of closing everything now, rounded up.
- Each fill and each price changes it in O(1); nothing re-bases it during the day.
- `reaches` answers exactly. It first asks the O(1) upper bound `loss_at_most_paise`, so that the exact sum over the
  open positions is only built when the answer could be yes. The gate's seventh layer uses the bound itself.
- A position without a usable price keeps its last mark; that the mark is old is for the gate and the engine to judge.
"""

from __future__ import annotations

from velox_core.domain.charges import BILLION, ChargeSchedule
from velox_core.domain.orders import Side


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
        "charges_paise",
        "gross_paise",
        "open_marks",
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
        self.open_marks: dict[int, OpenMark] = {}

    def book(self, column: int, quantity: int, cost_paise: int, price_paise: int) -> None:
        """Set a column's position after a fill; flat removes it. `price_paise` is the mark until the next price."""
        old = self.open_marks.pop(column, None)
        if old is not None:
            self.open_paise -= old.quantity * old.mark_paise - old.cost_paise
            self.gross_paise -= abs(old.quantity) * old.mark_paise
        if quantity:
            self.open_marks[column] = OpenMark(quantity, cost_paise, price_paise)
            self.open_paise += quantity * price_paise - cost_paise
            self.gross_paise += abs(quantity) * price_paise

    def mark(self, column: int, price_paise: int) -> bool:
        """Take one price of one column, if it is held. Returns whether that changed the loss."""
        held = self.open_marks.get(column)
        if held is None:
            return False
        moved = price_paise - held.mark_paise
        if not moved:
            return False
        held.mark_paise = price_paise
        quantity = held.quantity
        self.open_paise += quantity * moved
        self.gross_paise += (quantity if quantity > 0 else -quantity) * moved
        return True

    def mark_row(self, prices_paise: list[int]) -> None:
        """Take one price per column; 0 means none. Only held columns are looked at."""
        moved_paise = of_shorts_paise = 0
        for column, held in self.open_marks.items():
            price_paise = prices_paise[column] if column >= 0 else 0
            if price_paise:
                quantity = held.quantity
                moved = quantity * (price_paise - held.mark_paise)
                held.mark_paise = price_paise
                moved_paise += moved
                if quantity < 0:
                    of_shorts_paise += moved
        self.open_paise += moved_paise
        self.gross_paise += moved_paise - 2 * of_shorts_paise

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
        closing = -(-self.gross_paise * self._closing_rate_ppb // BILLION) + self._closing_fixed_paise * len(self.open_marks)
        return self.charges_paise - self.realised_paise - self.open_paise + closing

    def reaches(self, limit_paise: int) -> bool:
        """Return whether the loss is at or past a limit."""
        return self.loss_at_most_paise >= limit_paise and self.loss_paise >= limit_paise
