"""The account as its guard sees it: what is open, and the day's loss, from the broker's word and the guard's own prices.

- The loss is computed by `risk.breach` and `domain.charges`, from the broker's trades; no book of the engine is read.
- A price that is missing, not finite or old is a fault, and no loss is known then: never a zero.
- Shares that no trade of the day explains are carried ones: they cost their previous close.
- Pure: values in, values out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from velox_core.domain.charges import ChargeSchedule
from velox_core.domain.orders import TERMINAL_STATES, Product, Side
from velox_core.domain.positions import Position
from velox_core.domain.time import MS_PER_SECOND
from velox_core.ports import BrokerFill, BrokerOrder, BrokerPosition
from velox_core.risk.breach import DayLoss


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """The newest price of a symbol, paise, and the time of the feed it is from (epoch ms of engine time)."""

    paise: float
    feed_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LossReading:
    """The day's loss by the guard's own computation. `loss_paise` None: not known, for the `faults`."""

    loss_paise: int | None
    faults: tuple[str, ...]
    realised_paise: int
    open_paise: int
    charges_paise: int


def exposure(orders: Iterable[BrokerOrder], positions: Iterable[BrokerPosition], product: Product) -> list[str]:
    """Return what the broker holds and works of a product, as text. Empty: flat."""
    held = [f"{p.quantity} {p.symbol}" for p in positions if p.quantity and p.product is product]
    working = [o for o in orders if o.state not in TERMINAL_STATES and o.product is product]
    return held + [f"{o.state.value} order {o.broker_order_id} {o.symbol}" for o in working]


def carried(positions: Iterable[BrokerPosition], trades: Iterable[BrokerFill], product: Product) -> dict[str, int]:
    """Return the signed shares by symbol that the day's trades do not explain."""
    rest = {p.symbol: p.quantity for p in positions if p.product is product}
    for trade in trades:
        if trade.product is product:
            rest[trade.symbol] = rest.get(trade.symbol, 0) - trade.side.sign * trade.quantity
    return {symbol: quantity for symbol, quantity in rest.items() if quantity}


def read_loss(
    trades: Iterable[BrokerFill],
    carried_quantities: Mapping[str, int],
    *,
    prices: Mapping[str, Price],
    previous_closes: Mapping[str, int],
    schedule: ChargeSchedule,
    product: Product,
    now_ms: int,
    price_age_ms_max: int,
) -> LossReading:
    """Compute the loss of the day from the broker's word alone.

    Args:
        trades: the broker's trades of the day.
        carried_quantities: signed shares by symbol beyond those trades; they cost their previous close.
        prices: the guard's own, by symbol.
        previous_closes: paise by symbol; 0 or missing is not known.
        schedule: charges of the broker, product and date.
        product: whose trades count.
        now_ms: engine time; with `price_age_ms_max` it judges the age of the feed.
    """
    positions: dict[str, Position] = {}
    day, faults = DayLoss(schedule), []
    values: dict[str, tuple[Side, int]] = {}
    for symbol, quantity in carried_quantities.items():
        close_paise = previous_closes.get(symbol, 0)
        if close_paise <= 0:
            faults.append(f"{quantity} {symbol} are held that no trade of today explains, at an unknown cost")
        positions.setdefault(symbol, Position(symbol)).apply(quantity, max(close_paise, 0))
    for trade in sorted((trade for trade in trades if trade.product is product), key=lambda trade: trade.ts_ms):
        position = positions.setdefault(trade.symbol, Position(trade.symbol))
        day.realised_paise += position.apply(trade.side.sign * trade.quantity, trade.price_paise)
        value_paise = values.get(trade.broker_order_id, (trade.side, 0))[1]
        values[trade.broker_order_id] = (trade.side, value_paise + trade.quantity * trade.price_paise)
    day.charges_paise = sum(schedule.order_charges_paise(side, value_paise) for side, value_paise in values.values())
    for column, position in enumerate(positions.values()):
        if position.quantity:
            fault = price_fault(prices.get(position.symbol), now_ms, price_age_ms_max)
            if fault:
                faults.append(f"{position.quantity} {position.symbol}: {fault}")
            else:
                day.book(column, position.quantity, position.cost_paise, int(prices[position.symbol].paise))
    return LossReading(
        loss_paise=None if faults else day.loss_paise,
        faults=tuple(faults),
        realised_paise=day.realised_paise,
        open_paise=day.open_paise,
        charges_paise=day.charges_paise,
    )


def price_fault(price: Price | None, now_ms: int, age_ms_max: int) -> str:
    """Return why a price cannot be used, '' when it can."""
    if price is None or (isinstance(price.paise, int | float) and price.paise == 0):
        return "no price"
    if isinstance(price.paise, bool) or not isinstance(price.paise, int | float) or not math.isfinite(price.paise):
        return f"the price {price.paise!r} is no number"
    if price.paise < 1 or price.paise != int(price.paise):
        return f"the price {price.paise!r} is not a whole number of paise"
    age_ms = now_ms - price.feed_ms
    return f"the newest price is {age_ms // MS_PER_SECOND} s old" if age_ms > age_ms_max else ""
