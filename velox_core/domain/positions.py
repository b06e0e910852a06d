"""Positions at average cost, exact to the paisa.

- A position keeps its whole cost in paise, not a rounded average: closing part of it removes the rounded share
  of the cost, and what stays is exact. So, at every moment,
  cash + inventory at cost = starting cash + realised P&L (charges apart).
- A trade through zero closes the old side and opens the new one at the trade's price.
"""

from __future__ import annotations

from velox_core.domain.money import round_half_up_div
from velox_core.domain.orders import Order, Side

FOREIGN = ""  # the strategy of an order or position that this system did not make
ADOPTED_TRADE = "ADOPTED-"  # how the ids begin of trades that the broker's positions showed and no trade list did


class Position:
    """The net position of one symbol. `quantity` is signed shares, `cost_paise` signed (negative for a short).

    `is_trailing` says that `stop_paise` has followed the price since the entry, and is no longer the order's own.
    """

    __slots__ = (
        "cost_paise",
        "is_trailing",
        "opened_ms",
        "quantity",
        "realised_paise",
        "stop_paise",
        "strategy_id",
        "symbol",
        "target_paise",
    )

    def __init__(self, symbol: str, strategy_id: str = "") -> None:
        self.symbol = symbol
        self.strategy_id = strategy_id
        self.quantity = 0
        self.cost_paise = 0
        self.realised_paise = 0
        self.opened_ms = 0
        self.stop_paise = 0
        self.target_paise = 0
        self.is_trailing = False

    @property
    def average_price_paise(self) -> int:
        """Return the average cost per share in paise, rounded half up; 0 when flat."""
        return round_half_up_div(self.cost_paise, self.quantity) if self.quantity > 0 else self._short_average()

    def _short_average(self) -> int:
        return round_half_up_div(-self.cost_paise, -self.quantity) if self.quantity else 0

    def is_opened_by_exit(self, order: Order | None, side: Side) -> bool:
        """Return whether what a fill left is a position that an exit opened: it traded past what was there to close."""
        return order is not None and order.rank is not None and self.quantity != 0 and (self.quantity > 0) is (side.sign > 0)

    def open_pnl_paise(self, price_paise: int) -> int:
        """Return the P&L of closing at `price_paise`, before charges."""
        return self.quantity * price_paise - self.cost_paise

    def open_by(self, order: Order | None, opened_ms: int) -> None:
        """Give a position that a trade opened, or turned round, to the trade's order, with the order's stop and target."""
        self.opened_ms = opened_ms
        self.strategy_id = FOREIGN if order is None else order.strategy_id
        self.stop_paise = 0 if order is None else order.stop_paise
        self.target_paise = 0 if order is None else order.target_paise
        self.is_trailing = False

    def apply(self, signed_quantity: int, price_paise: int) -> int:
        """Book one trade and return the P&L it realised, in paise.

        Args:
            signed_quantity: shares, positive bought, negative sold; not 0.
            price_paise: price per share.
        """
        held = self.quantity
        if held == 0 or (held > 0) == (signed_quantity > 0):
            self.quantity = held + signed_quantity
            self.cost_paise += signed_quantity * price_paise
            return 0
        closing = -signed_quantity if abs(signed_quantity) <= abs(held) else held  # signed like `held`
        removed = self.cost_paise if closing == held else round_half_up_div(self.cost_paise * abs(closing), abs(held))
        realised = closing * price_paise - removed
        self.cost_paise -= removed
        self.quantity = held - closing
        rest = signed_quantity + closing
        if rest:
            self.quantity = rest
            self.cost_paise = rest * price_paise
        self.realised_paise += realised
        return realised
