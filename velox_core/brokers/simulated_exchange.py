"""The simulated market and the account in it: accepts, matches, keeps positions and margin. In memory, deterministic.

- Orders queue in arrival order; each row of bars fills what it can (`simulated_fills` says at what price).
- Margin of an intraday position is its cost / multiplier; working orders hold back the margin of what they would open.
- Refusals read as a broker's would. What never reaches the book (bad input) has no order id; what the risk management
  refuses has one, and stays in the book as REJECTED.
- Ids come from counters; partial fills and seeded rejections from the order's number. No clock, no random state.
- It knows no faults and no files: `simulated` puts those around it. Charges are not booked here: funds are gross.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Final

from velox_core.brokers.simulated_fills import fill_price_paise, protection_limit_paise, tick_fill_price_paise
from velox_core.brokers.simulated_orders import (
    AccountPosition,
    Listing,
    OrderRequest,
    SimulatedOrder,
    SimulationConfig,
    Turnover,
)
from velox_core.domain.market.bars import MinuteRow, TickBatch
from velox_core.domain.market.ticks import Instrument, SecurityClass
from velox_core.domain.money import rupees_text
from velox_core.domain.orders import CLIENT_ORDER_ID_LENGTH_MAX, OrderState, OrderType, Product, Side
from velox_core.domain.time import MS_PER_DAY, MS_PER_MINUTE, ist_date, ist_midnight_ms
from velox_core.ports import BrokerFill, OrderUpdate

NEVER_MS: Final = 1 << 60
QUIET_MINUTES_MAX: Final = (
    15  # a symbol without a bar or tick for so long at the end of the data is halted, and has no last price
)
_MASK: Final = (1 << 64) - 1
_BUY: Final = Side.BUY
_MARKET: Final = OrderType.MARKET
_MIS: Final = Product.MIS
_FILLED: Final = OrderState.FILLED
_PARTIALLY_FILLED: Final = OrderState.PARTIALLY_FILLED
_CANCELLED: Final = OrderState.CANCELLED
_REJECTED: Final = OrderState.REJECTED

MARKET_WITHOUT_PROTECTION = (
    "InputException: Market orders without market protection are not allowed via API. "
    "Please set market protection or use a Limit order."
)


class SimulatedExchange:
    """One account at a simulated exchange."""

    __slots__ = (
        "_reject_below",
        "_seeded",
        "_split_below",
        "_turnover_of",
        "available_paise",
        "closes",
        "config",
        "day_end_ms",
        "events",
        "fresh_trades",
        "heard_ms",
        "latency_ms",
        "listings",
        "locked",
        "order_sequence",
        "orders",
        "recent",
        "says_completion",
        "strangers",
        "touched",
        "trade_sequence",
        "trades",
        "working",
    )

    def __init__(self, universe: tuple[str, ...], instruments: Mapping[str, Instrument], config: SimulationConfig) -> None:
        """Open an empty account. Raises KeyError for a symbol of the universe without an instrument."""
        self.config = config
        multiplier = config.margin_multiplier
        self.listings = {symbol: Listing(instruments[symbol], column, multiplier) for column, symbol in enumerate(universe)}
        self.strangers: dict[str, Listing] = {}  # symbols of the book that the universe lacks
        self.latency_ms = config.latency_ms
        self.closes = [0] * len(universe)  # the newest close of each column that had one
        self.recent: deque[MinuteRow] = deque(maxlen=QUIET_MINUTES_MAX)
        self.heard_ms: list[int] = []  # the newest tick of each column, else the first tick of all; empty on a day of bars
        self.orders: dict[str, SimulatedOrder] = {}
        self.working: list[SimulatedOrder] = []
        self.trades: list[BrokerFill] = []
        self.events: list[OrderUpdate | BrokerFill] = []
        self.touched: dict[str, SimulatedOrder] | None = None  # orders a book has yet to write; None without a book
        self.fresh_trades: list[BrokerFill] = []  # trades a book has yet to write
        self.locked: frozenset[tuple[str, Side]] = frozenset()  # sides that find nobody, beside the bands
        self.says_completion = False
        self.order_sequence = 0
        self.trade_sequence = 0
        self.available_paise = config.capital_paise
        self.day_end_ms = NEVER_MS if config.carry_overnight else 0
        self._reject_below = int(config.reject_probability * (1 << 32))
        self._split_below = int(config.partial_fill_probability * (1 << 32))
        self._seeded = bool(self._reject_below or self._split_below)
        self._turnover_of = 0  # how many trades are in the positions' turnover

    def accept(self, request: OrderRequest, now_ms: int) -> SimulatedOrder | str:
        """Take an order into the book.

        Args:
            request: the order.
            now_ms: when it was sent.
        Returns: the order, OPEN or REJECTED; or the broker's refusal, when it never becomes an order.
        """
        if now_ms >= self.day_end_ms:
            self.start_day(now_ms)
        listing = self.listings.get(request.symbol)
        if listing is None:
            return f"InputException: {request.symbol} has no market here; check the symbol, and that the feed carries it"
        price = self.closes[listing.column] or listing.recorded_price_paise
        limit = request.limit_price_paise
        quantity = request.quantity
        is_buy = request.side is _BUY
        if request.order_type is _MARKET:
            bound_bps = request.protection_bps
            sound = price > 0 and bound_bps > 0
            limit = protection_limit_paise(listing, price, is_buy, bound_bps)
        else:
            sound = limit > 0 and not limit % listing.tick_paise and listing.lower_paise <= limit <= listing.upper_paise
            price = limit
        if (
            not sound
            or not 0 < quantity <= listing.freeze_quantity
            or len(request.client_order_id) > CLIENT_ORDER_ID_LENGTH_MAX
            or (not listing.tradable and self._opens(request, listing))
        ):
            return self._input_refusal(request, listing)
        position = listing.intraday if request.product is _MIS else listing.delivery
        self.order_sequence += 1
        order_id = f"O{self.order_sequence}"
        self.orders[order_id] = order = SimulatedOrder(order_id, request, listing, position, limit, now_ms)
        order.arrives_ms = now_ms + self.latency_ms
        if self.touched is not None:
            self.touched[order_id] = order
        before = position.quantity + position.buying_quantity if is_buy else position.selling_quantity - position.quantity
        after = before + quantity
        if after > 0:
            refusal = self._reserve(order, quantity if before >= 0 else after, price)
            if refusal:
                return self._refused(order, refusal)
        if self._seeded and not self._draw(order):
            return order
        if is_buy:
            position.buying_quantity += quantity
        else:
            position.selling_quantity += quantity
        self.working.append(order)
        return order

    def _reserve(self, order: SimulatedOrder, opening_quantity: int, price_paise: int) -> str:
        """Hold back the margin of what the order would open; return the risk management's refusal, or ''."""
        position = order.position
        required = -(-opening_quantity * price_paise // position.multiplier)
        if required > self.available_paise:
            return (
                f"MarginException: Insufficient funds. Required margin is {rupees_text(required)} "
                f"but available margin is {rupees_text(self.available_paise)}."
            )
        if position.product is not _MIS and not order.is_buy:
            return "HoldingException: Insufficient stock holdings to sell for delivery."
        order.margin_paise = required
        self.available_paise -= required
        return ""

    def _draw(self, order: SimulatedOrder) -> bool:
        """Decide by seed whether the order is rejected, or fills in parts; return whether it works."""
        if self._chance(1) < self._reject_below:
            self._release(order)
            reason = f"RMS:Rule: Order for {order.listing.symbol} blocked by risk management (simulated rejection)."
            self._refused(order, reason)
            return False
        if order.quantity > 1 and self._chance(2) < self._split_below:
            order.first_part = 1 + self._chance(3) % (order.quantity - 1)
        return True

    def trade(self, row: MinuteRow) -> None:
        """Fill what the row's bars fill."""
        if row.ts_ms > self.day_end_ms:
            self.start_day(row.ts_ms)
        working = self.working
        self.working = resting = []
        closes = row.closes
        ts_ms = row.ts_ms
        slippage_bps = self.config.slippage_bps
        slippage_ticks = self.config.slippage_ticks
        bar_ms = self.config.bar_minutes * MS_PER_MINUTE
        for order in working:
            if order.arrives_ms > ts_ms or not closes[order.listing.column] or (self.locked and self._is_locked(order)):
                resting.append(order)
                continue
            price = fill_price_paise(order, row, slippage_bps, slippage_ticks, bar_ms)
            if not price:
                resting.append(order)
                continue
            quantity = order.quantity - order.filled_quantity
            if order.first_part and not order.filled_quantity:
                quantity = order.first_part
            begun_ms = ts_ms - bar_ms
            self.execute(order, price, quantity, order.arrives_ms if order.arrives_ms > begun_ms else begun_ms)
            if order.state is not _FILLED:
                resting.append(order)

    def trade_ticks(self, batch: TickBatch) -> None:
        """Fill what the ticks of one moment fill."""
        ts_ms = batch.ts_ms
        if ts_ms > self.day_end_ms:
            self.start_day(ts_ms)
        working = self.working
        self.working = resting = []
        columns, config = batch.columns, self.config
        for order in working:
            column = order.listing.column
            if order.arrives_ms > ts_ms or column not in columns or (self.locked and self._is_locked(order)):
                resting.append(order)
                continue
            tick = batch.prices[columns.index(column)]
            price = tick_fill_price_paise(order, tick, config.slippage_bps, config.slippage_ticks)
            if price:
                quantity = order.quantity - order.filled_quantity
                if order.first_part and not order.filled_quantity:
                    quantity = order.first_part
                self.execute(order, price, quantity, ts_ms)
            order.has_rested = not price
            if order.state is not _FILLED:
                resting.append(order)

    def execute(self, order: SimulatedOrder, price_paise: int, quantity: int, ts_ms: int) -> None:
        """Book one trade of a working order: position, margin, trade, events. The caller keeps `working`."""
        position = order.position
        open_before = order.quantity - order.filled_quantity
        order.filled_quantity += quantity
        if order.is_buy:
            position.buying_quantity -= quantity
            freed = position.apply(quantity, price_paise)
        else:
            position.selling_quantity -= quantity
            freed = position.apply(-quantity, price_paise)
        if order.margin_paise:
            released = order.margin_paise * quantity // open_before
            order.margin_paise -= released
            freed += released
        margin = -(-abs(position.cost_paise) // position.multiplier)
        self.available_paise += freed + position.margin_paise - margin
        position.margin_paise = margin
        self.trade_sequence = number = self.trade_sequence + 1
        fill = BrokerFill(
            ts_ms,
            f"T{number}",
            order.tag,
            order.broker_order_id,
            position.symbol,
            order.side,
            quantity,
            price_paise,
            position.product,
        )
        self.trades.append(fill)
        self.events.append(fill)
        if quantity == open_before:
            order.state = _FILLED
            if self.says_completion:
                self._announce(order, ts_ms)
        else:
            order.state = _PARTIALLY_FILLED
            self._announce(order, ts_ms)
        if self.touched is not None:
            self.touched[order.broker_order_id] = order
            self.fresh_trades.append(fill)

    def cancel(self, order: SimulatedOrder, ts_ms: int, reason: str) -> None:
        """Take a working order out of the market."""
        self.withdraw(order, _CANCELLED, reason)
        self._announce(order, ts_ms)

    def reject_late(self, order: SimulatedOrder, ts_ms: int, reason: str) -> None:
        """Refuse an order that was acknowledged, as a risk management does a moment later."""
        self.withdraw(order, _REJECTED, reason)
        self._announce(order, ts_ms)

    def withdraw(self, order: SimulatedOrder, state: OrderState, reason: str) -> None:
        """End a working order without announcing it, and give back what it held."""
        self.working.remove(order)
        rest = order.quantity - order.filled_quantity
        if order.is_buy:
            order.position.buying_quantity -= rest
        else:
            order.position.selling_quantity -= rest
        self._release(order)
        order.state = state
        order.reason = reason
        if self.touched is not None:
            self.touched[order.broker_order_id] = order

    def complete(self, order: SimulatedOrder, price_paise: int, ts_ms: int) -> None:
        """Fill what is left of a working order at a price, at once."""
        self.working.remove(order)
        self.execute(order, price_paise, order.quantity - order.filled_quantity, ts_ms)

    def settle(self, now_ms: int) -> None:
        """End the market data: MARKET orders fill at the last price if they can, everything else is cancelled.

        A symbol that has not traded for `QUIET_MINUTES_MAX` has nobody to trade with.
        """
        last = [self.last_price_paise(listing) for listing in self.listings.values()]
        standing = MinuteRow(now_ms + MS_PER_MINUTE, last, last, last, last, [0] * len(last))
        config = self.config
        for order in list(self.working):
            price = 0
            if order.is_market and not (self.locked and self._is_locked(order)) and not self._is_quiet(order.listing):
                price = fill_price_paise(order, standing, config.slippage_bps, config.slippage_ticks)
            if price:
                self.complete(order, price, max(now_ms, order.placed_ms))
            else:
                self.cancel(order, now_ms, "the market data ended before it could trade")

    def _is_quiet(self, listing: Listing) -> bool:
        if heard_ms := self.heard_ms:
            return listing.column >= 0 and max(heard_ms) - heard_ms[listing.column] >= QUIET_MINUTES_MAX * MS_PER_MINUTE
        rows = self.recent
        return bool(rows) and listing.column >= 0 and not any(row.closes[listing.column] for row in rows)

    def start_day(self, now_ms: int) -> None:
        """Begin a new trading date: orders of the day before lapse, book and turnover start empty, positions stay."""
        ended_ms = self.day_end_ms
        self.day_end_ms = ist_midnight_ms(ist_date(now_ms)) + MS_PER_DAY
        for order in list(self.working):
            self.cancel(order, ended_ms, "DAY validity ended")
        if not ended_ms:
            return
        self.orders.clear()
        self.trades.clear()
        self._turnover_of = 0
        for position in self.all_positions():
            position.turnover = Turnover()

    def last_price_paise(self, listing: Listing) -> int:
        """Return the newest close of a symbol, else the price its book recorded, else 0."""
        newest = self.closes[listing.column] if listing.column >= 0 else 0
        return newest or listing.recorded_price_paise

    def remaining_price_paise(self, order: SimulatedOrder) -> int:
        """Return at what price an order fills that the market just reached: the last price, never past its limit."""
        last = self.last_price_paise(order.listing) or order.limit_price_paise
        return min(last, order.limit_price_paise) if order.is_buy else max(last, order.limit_price_paise)

    def listing(self, symbol: str) -> Listing:
        """Return a symbol of the universe or of the book; one that is in neither is adopted."""
        return self.listings.get(symbol) or self.strangers.get(symbol) or self._adopt(symbol)

    def _adopt(self, symbol: str) -> Listing:
        """Keep a symbol that has a position in the book but no market here: shown, never traded."""
        unknown = Instrument(symbol=symbol, security_class=SecurityClass.CASH, tick_paise=1, tradable=False)
        self.strangers[symbol] = listing = Listing(unknown, -1, self.config.margin_multiplier)
        return listing

    def all_positions(self) -> list[AccountPosition]:
        """Return every position, empty ones too: universe first, then symbols without a market here."""
        listings = (*self.listings.values(), *self.strangers.values())
        return [position for listing in listings for position in (listing.intraday, listing.delivery)]

    def positions(self) -> list[AccountPosition]:
        """Return the positions held or traded today, their turnover up to date."""
        for fill in self.trades[self._turnover_of :]:
            turnover = self.orders[fill.broker_order_id].position.turnover
            if fill.side is _BUY:
                turnover.bought_quantity += fill.quantity
                turnover.bought_paise += fill.quantity * fill.price_paise
            else:
                turnover.sold_quantity += fill.quantity
                turnover.sold_paise += fill.quantity * fill.price_paise
        self._turnover_of = len(self.trades)
        return [
            position
            for position in self.all_positions()
            if position.quantity or position.turnover.bought_quantity or position.turnover.sold_quantity
        ]

    def margin_used_paise(self) -> int:
        """Return what positions and working orders hold of the account's cash."""
        return sum(position.margin_paise for position in self.all_positions()) + sum(
            order.margin_paise for order in self.working
        )

    def recount(self) -> None:
        """Recompute the available cash from positions and orders, after they came from a book."""
        realised = sum(position.realised_paise for position in self.all_positions())
        self.available_paise = self.config.capital_paise + realised - self.margin_used_paise()

    def _announce(self, order: SimulatedOrder, ts_ms: int) -> None:
        self.events.append(
            OrderUpdate(ts_ms, order.tag, order.broker_order_id, order.state, order.filled_quantity, order.reason)
        )

    def _release(self, order: SimulatedOrder) -> None:
        self.available_paise += order.margin_paise
        order.margin_paise = 0

    def _is_locked(self, order: SimulatedOrder) -> bool:
        return (order.listing.symbol, order.side) in self.locked

    def _chance(self, salt: int) -> int:
        """Return 32 pseudo-random bits that depend on seed, order number and salt alone (splitmix64, Steele et al. 2014)."""
        mixed = (self.config.seed * 0x9E3779B97F4A7C15 + self.order_sequence * 0xD1B54A32D192ED03 + salt) & _MASK
        mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
        return (mixed ^ (mixed >> 31)) >> 32

    @staticmethod
    def _refused(order: SimulatedOrder, reason: str) -> SimulatedOrder:
        order.state = _REJECTED
        order.reason = reason
        return order

    @staticmethod
    def _opens(request: OrderRequest, listing: Listing) -> bool:
        held = (listing.intraday if request.product is _MIS else listing.delivery).quantity
        return request.quantity > (-held if request.side is _BUY else held)

    def _input_refusal(self, request: OrderRequest, listing: Listing) -> str:
        symbol = request.symbol
        limit = request.limit_price_paise
        if not listing.tradable and self._opens(request, listing):
            return f"InputException: New positions in {symbol} are not allowed."
        if request.quantity <= 0:
            return f"InputException: Invalid `quantity` {request.quantity}: it must be at least 1."
        if request.quantity > listing.freeze_quantity:
            return f"17070: The quantity {request.quantity} is above the freeze quantity {listing.freeze_quantity} of {symbol}."
        if len(request.client_order_id) > CLIENT_ORDER_ID_LENGTH_MAX:
            return f"InputException: Invalid `tag`: it has {len(request.client_order_id)} characters, at most 20 are allowed."
        if request.order_type is _MARKET:
            if request.protection_bps <= 0:
                return MARKET_WITHOUT_PROTECTION
            return f"RMS:Rule: No last traded price for {symbol} yet; a market order needs one."
        if limit <= 0:
            return f"InputException: Invalid `price` {rupees_text(limit)}."
        if limit % listing.tick_paise:
            tick = rupees_text(listing.tick_paise)
            return f"InputException: Invalid `price` {rupees_text(limit)} of {symbol}: not a multiple of the tick {tick}."
        return (
            f"InputException: The price {rupees_text(limit)} of {symbol} is outside the circuit limits "
            f"{rupees_text(listing.lower_paise)} to {rupees_text(listing.upper_paise)}."
        )
