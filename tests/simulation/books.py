"""The day's money from scratch: cash, shares and charges made from trades alone, in none of the engine's ways.

- P&L is what was received less what was paid, plus what is held at its mark: no average cost, no realised part.
- Charges of an order come from the components of its whole traded value; a trade without an order is charged alone.
- The charges of closing are the schedule's rates applied here once more, each component rounded up.
"""

from __future__ import annotations

from collections.abc import Mapping

from velox_core.domain.charges import BILLION, ChargeSchedule
from velox_core.domain.orders import Side


class Books:
    """Money and shares of a list of trades, each counted once."""

    def __init__(self, schedule: ChargeSchedule) -> None:
        self.shares: dict[str, int] = {}
        self.cash_paise = 0
        self.charges_paise = 0
        self.charged: dict[str, int] = {}  # by trade id
        self._schedule = schedule
        self._by_tag: dict[str, tuple[int, int]] = {}  # traded value and charges of each order

    def take(self, trade_id: str, tag: str, symbol: str, side: Side, quantity: int, price_paise: int, *, alone: bool) -> None:
        """Count one trade. `alone`: it is charged as an order of its own."""
        if trade_id in self.charged:
            return
        value = quantity * price_paise
        self.cash_paise -= side.sign * value
        self.shares[symbol] = self.shares.get(symbol, 0) + side.sign * quantity
        value_before, charged_before = self._by_tag.get(tag, (0, 0))
        if alone:
            added = self._schedule.breakdown(side, value).total
        else:
            added = self._schedule.breakdown(side, value_before + value).total - charged_before
        self._by_tag[tag] = (value_before + value, charged_before + added)
        self.charged[trade_id] = added
        self.charges_paise += added

    def loss_paise(self, marks_paise: Mapping[str, int]) -> int:
        """Return the loss of the day at these marks, the charges of closing included."""
        loss = self.charges_paise - self.cash_paise
        for symbol, shares in self.shares.items():
            if shares:
                value = shares * marks_paise[symbol]
                loss += self._closing_paise(Side.SELL if shares > 0 else Side.BUY, abs(value)) - value
        return loss

    def _closing_paise(self, side: Side, value_paise: int) -> int:
        rates = self._schedule
        brokerage = min(_up(value_paise * rates.brokerage_ppb), rates.brokerage_cap_paise) + rates.brokerage_flat_paise
        exchange, sebi = _up(value_paise * rates.exchange_ppb), _up(value_paise * rates.sebi_ppb)
        gst = _up((brokerage + exchange + sebi * rates.sebi_in_gst) * rates.gst_ppb)
        stt = _up(value_paise * (rates.stt_buy_ppb if side is Side.BUY else rates.stt_sell_ppb))
        stamp = _up(value_paise * rates.stamp_buy_ppb) if side is Side.BUY else 0
        return brokerage + exchange + sebi + gst + stt + stamp


def _up(billionths: int) -> int:
    return -(-billionths // BILLION)
