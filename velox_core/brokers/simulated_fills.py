"""At what price a bar fills an order. Pure: bar and order in, price out.

- The next bar's open, worse by the slippage, on the tick away from us, never past the order's limit or the band.
- A MARKET order is a LIMIT order at its protection bound: an open beyond the bound leaves it resting there.
- A resting order fills at its limit only when the bar trades through it; a touch may have been somebody else's.
- A symbol whose whole bar stands at its band has nobody on the other side: it does not fill on the locked side.
- On ticks it is the first tick of the symbol after the order has arrived, worse by the same slippage; an order that rests
  since an earlier tick fills at its limit, and only by a tick beyond it.
- An order that arrives well inside a bar never gets a price from before its arrival: it takes the bar's close.
"""

from __future__ import annotations

from typing import Final

from velox_core.brokers.simulated_orders import Listing, SimulatedOrder
from velox_core.domain.market.bars import MinuteRow
from velox_core.domain.time import MS_PER_MINUTE

OPEN_GRACE_MS: Final = 5_000  # an order that arrives this soon after a bar began still trades at its open


def fill_price_paise(
    order: SimulatedOrder, row: MinuteRow, slippage_bps: int, slippage_ticks: int, bar_ms: int = MS_PER_MINUTE
) -> int:
    """Return the price at which the row's bar fills the order, in paise, or 0 when it does not.

    Args:
        order: a working order of a symbol whose bar is in the row.
        row: the minute; the order has arrived by its end.
        slippage_bps, slippage_ticks: how much worse than the bar's price a marketable fill is.
        bar_ms: the length of the row's bars.
    """
    listing = order.listing
    column = listing.column
    whole_bar = order.arrives_ms <= row.ts_ms - bar_ms + OPEN_GRACE_MS
    price = row.opens[column] if whole_bar else row.closes[column]
    limit = order.limit_price_paise  # inside the bands, or the order was not accepted
    tick = listing.tick_paise
    slip = slippage_ticks * tick - (-price * slippage_bps // 10_000)
    if order.is_buy:
        if row.lows[column] >= listing.upper_paise:
            return 0
        if price <= limit:
            worse = -(-(price + slip) // tick) * tick
            return worse if worse < limit else limit
        return limit if whole_bar and row.lows[column] < limit else 0
    if row.highs[column] <= listing.lower_paise:
        return 0
    if price >= limit:
        worse = (price - slip) // tick * tick
        return worse if worse > limit else limit
    return limit if whole_bar and row.highs[column] > limit else 0


def tick_fill_price_paise(order: SimulatedOrder, price_paise: int, slippage_bps: int, slippage_ticks: int) -> int:
    """Return the price at which one tick fills an order that has arrived, in paise, or 0 when it does not.

    Args:
        order: a working order of the tick's symbol; `has_rested` says whether an earlier tick left it where it is.
        price_paise: the tick.
        slippage_bps, slippage_ticks: how much worse than the tick a marketable fill is.
    """
    listing = order.listing
    limit = order.limit_price_paise  # inside the bands, or the order was not accepted
    if order.is_buy:
        if price_paise >= listing.upper_paise or price_paise > limit:
            return 0
    elif price_paise <= listing.lower_paise or price_paise < limit:
        return 0
    if order.has_rested:
        return limit if price_paise != limit else 0
    tick = listing.tick_paise
    slip = slippage_ticks * tick - (-price_paise * slippage_bps // 10_000)
    if order.is_buy:
        worse = -(-(price_paise + slip) // tick) * tick
        return worse if worse < limit else limit
    worse = (price_paise - slip) // tick * tick
    return worse if worse > limit else limit


def protection_limit_paise(listing: Listing, price_paise: int, is_buy: bool, protection_bps: int) -> int:
    """Return the worst price of a MARKET order: `protection_bps` around the price, rounded to the tick towards it.

    Never beyond the band. Source: Kite market protection (zerodha webnotes 2026; reference/brokers.md section 1.2).
    """
    tick = listing.tick_paise
    if is_buy:
        bound = price_paise * (10_000 + protection_bps) // 10_000 // tick * tick
        return bound if bound < listing.upper_paise else listing.upper_paise
    bound = -(-price_paise * (10_000 - protection_bps) // 10_000)
    bound = -(-bound // tick) * tick
    least = listing.lower_paise or tick
    return bound if bound > least else least
