"""What the simulated exchange keeps: its settings, listings, orders and positions.

- Money and prices are int paise, quantities shares, times epoch milliseconds.
- Orders and positions are slotted and mutable: they are made and changed on the hot path. Nothing here prices anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from velox_core.domain.market.ticks import Instrument
from velox_core.domain.orders import OrderState, OrderType, Product, Side
from velox_core.domain.positions import Position

NO_BAND_PAISE: Final = 1 << 60


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationConfig:
    """How the simulated exchange behaves.

    Attributes:
        capital_paise: cash of the account at the start.
        seed: decides partial fills and rejections, by order number, so that a reopened book goes on the same way.
        slippage_bps: a marketable fill is this much worse than the bar's price, in hundredths of a percent.
        slippage_ticks: and this many ticks worse on top.
        latency_ms: from the send to the exchange.
        partial_fill_probability: share of the orders of 2 shares or more that fill in two parts, 0 to 1.
        reject_probability: share of the orders that the broker's risk management refuses, 0 to 1.
        margin_multiplier: value of MIS positions per rupee of margin.
        bar_minutes: the length of the bars that fill orders.
        carry_overnight: orders and the day's turnover live on past midnight (many days run as one); else orders
            are for the day.
    """

    capital_paise: int
    seed: int = 1
    slippage_bps: int = 0
    slippage_ticks: int = 0
    latency_ms: int = 100
    partial_fill_probability: float = 0.0
    reject_probability: float = 0.0
    margin_multiplier: int = 5
    carry_overnight: bool = False
    bar_minutes: int = 1

    def __post_init__(self) -> None:
        """Raise ValueError for a setting that makes no sense, naming it."""
        for name in ("capital_paise", "slippage_bps", "slippage_ticks", "latency_ms"):
            if getattr(self, name) < 0:
                raise ValueError(f"simulation {name} is {getattr(self, name)}; it must not be negative")
        for name in ("partial_fill_probability", "reject_probability"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"simulation {name} is {getattr(self, name)}; it must be from 0 to 1")
        if self.bar_minutes < 1:
            raise ValueError(f"simulation bar_minutes is {self.bar_minutes}; the least is 1")
        if self.margin_multiplier < 1:
            raise ValueError(f"simulation margin_multiplier is {self.margin_multiplier}; the least is 1 (full value)")


class OrderRequest(Protocol):
    """What the exchange reads of an order: an ApprovedOrder, or a manual one typed into the broker's app."""

    @property
    def client_order_id(self) -> str:
        """Return the tag, '' for a manual order."""
        ...

    @property
    def symbol(self) -> str:
        """Return the exchange symbol."""
        ...

    @property
    def side(self) -> Side:
        """Return the side."""
        ...

    @property
    def quantity(self) -> int:
        """Return the shares."""
        ...

    @property
    def order_type(self) -> OrderType:
        """Return MARKET or LIMIT."""
        ...

    @property
    def limit_price_paise(self) -> int:
        """Return the limit, 0 for MARKET."""
        ...

    @property
    def product(self) -> Product:
        """Return the product."""
        ...

    @property
    def protection_bps(self) -> int:
        """Return the market protection of a MARKET order."""
        ...


class AccountPosition(Position):
    """One symbol and product of the account: net position, what working orders would add to it, its margin."""

    __slots__ = ("buying_quantity", "margin_paise", "multiplier", "product", "selling_quantity", "turnover")

    def __init__(self, symbol: str, product: Product, multiplier: int) -> None:
        super().__init__(symbol)
        self.product = product
        self.multiplier = multiplier
        self.buying_quantity = 0
        self.selling_quantity = 0
        self.margin_paise = 0
        self.turnover = Turnover()


class Turnover:
    """What one position traded today: shares and paise by side."""

    __slots__ = ("bought_paise", "bought_quantity", "sold_paise", "sold_quantity")

    def __init__(self) -> None:
        self.bought_paise = 0
        self.bought_quantity = 0
        self.sold_paise = 0
        self.sold_quantity = 0


class Listing:
    """One symbol at the exchange. Bands are widened to 0 and 2**60 where the instrument knows none."""

    __slots__ = (
        "column",
        "delivery",
        "freeze_quantity",
        "intraday",
        "lower_paise",
        "recorded_price_paise",
        "symbol",
        "tick_paise",
        "tradable",
        "upper_paise",
    )

    def __init__(self, instrument: Instrument, column: int, margin_multiplier: int) -> None:
        self.symbol = instrument.symbol
        self.column = column
        self.tick_paise = instrument.tick_paise
        self.lower_paise = instrument.lower_band_paise
        self.upper_paise = instrument.upper_band_paise or NO_BAND_PAISE
        self.freeze_quantity = instrument.freeze_quantity
        self.tradable = instrument.tradable
        self.recorded_price_paise = 0
        self.intraday = AccountPosition(instrument.symbol, Product.MIS, margin_multiplier)
        self.delivery = AccountPosition(instrument.symbol, Product.CNC, 1)


class SimulatedOrder:
    """One line of the simulated book.

    `arrives_ms` is when the exchange has it; `visible_ms` is when the broker's book shows it (0 at once, later for an
    order that got stuck on its way). `first_part` is the quantity of its first fill, 0 for all. `has_rested`: a tick came
    after it had arrived and left it in the book. `margin_paise` is what the account holds back for its unfilled part. A
    MARKET order carries its protection bound as the limit.
    """

    __slots__ = (
        "arrives_ms",
        "broker_order_id",
        "filled_quantity",
        "first_part",
        "has_rested",
        "is_buy",
        "is_market",
        "limit_price_paise",
        "listing",
        "margin_paise",
        "placed_ms",
        "position",
        "quantity",
        "reason",
        "side",
        "state",
        "tag",
        "visible_ms",
    )

    def __init__(
        self,
        broker_order_id: str,
        request: OrderRequest,
        listing: Listing,
        position: AccountPosition,
        limit_price_paise: int,
        placed_ms: int,
    ) -> None:
        self.broker_order_id = broker_order_id
        self.tag = request.client_order_id
        self.listing = listing
        self.position = position
        self.side = side = request.side
        self.is_buy = side is _BUY
        self.quantity = request.quantity
        self.is_market = request.order_type is _MARKET
        self.limit_price_paise = limit_price_paise
        self.placed_ms = placed_ms
        self.arrives_ms = placed_ms
        self.visible_ms = self.filled_quantity = self.first_part = self.margin_paise = 0
        self.has_rested = False
        self.state = _OPEN
        self.reason = ""


_BUY: Final = Side.BUY
_MARKET: Final = OrderType.MARKET
_OPEN: Final = OrderState.OPEN


class ManualOrder:
    """An order that did not come from this system: typed into the broker's app, or the broker's own square-off."""

    __slots__ = (
        "client_order_id",
        "limit_price_paise",
        "order_type",
        "product",
        "protection_bps",
        "quantity",
        "side",
        "symbol",
    )

    def __init__(
        self,
        symbol: str,
        side: Side,
        quantity: int,
        *,
        limit_price_paise: int = 0,
        product: Product = Product.MIS,
        tag: str = "",
        protection_bps: int = 500,
    ) -> None:
        self.client_order_id = tag
        self.symbol = symbol
        self.side = side
        self.quantity = quantity
        self.order_type = OrderType.LIMIT if limit_price_paise else OrderType.MARKET
        self.limit_price_paise = limit_price_paise
        self.product = product
        self.protection_bps = protection_bps
