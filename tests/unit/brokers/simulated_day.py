"""A small simulated market for tests: two symbols, minutes made by hand, orders in one line."""

from __future__ import annotations

from datetime import date, time
from itertools import count

from velox_core.brokers.book import SqliteBook
from velox_core.brokers.faults import FaultPlan
from velox_core.brokers.simulated import SimulatedBroker
from velox_core.brokers.simulated_orders import SimulationConfig
from velox_core.domain.market.bars import MinuteRow
from velox_core.domain.market.ticks import Instrument, SecurityClass
from velox_core.domain.orders import ExitRank, OrderType, Product, Side
from velox_core.domain.time import ist_ms
from velox_core.ports import BrokerFill, OrderUpdate, SendOutcome
from velox_core.risk.approval import ApprovedOrder, approve

DAY = date(2024, 1, 15)
UNIVERSE = ("TCS", "INFY")
START_MS = ist_ms(DAY, time(10, 0))
MINUTE_MS = 60_000
CAPITAL_PAISE = 10_000_000

Quad = tuple[int, int, int, int]


def flat_bar(price_paise: int) -> Quad:
    """Return a bar whose four prices are one."""
    return (price_paise, price_paise, price_paise, price_paise)


def instrument(symbol: str, **changes: int | bool) -> Instrument:
    return Instrument(symbol=symbol, security_class=SecurityClass.CASH, tick_paise=5, **changes)  # type: ignore[arg-type]


class SimulatedDay:
    """A broker, and the minutes that pass it by."""

    def __init__(
        self,
        *,
        book: SqliteBook | None = None,
        faults: FaultPlan | None = None,
        tcs: Instrument | None = None,
        first_price_paise: int = 390_000,
        **config: int | float | bool,
    ) -> None:
        settings: dict[str, int | float | bool] = {"capital_paise": CAPITAL_PAISE, "latency_ms": 100} | config
        self.instruments = {"TCS": tcs or instrument("TCS"), "INFY": instrument("INFY")}
        self.config = SimulationConfig(**settings)  # type: ignore[arg-type]
        self.broker = SimulatedBroker(UNIVERSE, instruments=self.instruments, config=self.config, book=book, faults=faults)
        self.now_ms = START_MS - MINUTE_MS
        self._tags = count(1)
        if first_price_paise:
            self.minute(tcs=flat_bar(first_price_paise), infy=flat_bar(150_000))

    def minute(self, *, tcs: Quad | None = None, infy: Quad | None = None) -> list[OrderUpdate | BrokerFill]:
        """Let one minute pass and return what the broker says about it."""
        self.pass_minute(tcs=tcs, infy=infy)
        return self.broker.drain_events()

    def pass_minute(self, *, tcs: Quad | None = None, infy: Quad | None = None) -> None:
        """Let one minute pass; what the broker has to say waits."""
        self.now_ms += MINUTE_MS
        bars = [bar or (0, 0, 0, 0) for bar in (tcs, infy)]
        opens, highs, lows, closes = (list(column) for column in zip(*bars, strict=True))
        self.broker.on_row(MinuteRow(self.now_ms, opens, highs, lows, closes, [100, 100]), self.now_ms)

    def order(
        self,
        side: Side = Side.BUY,
        quantity: int = 10,
        *,
        symbol: str = "TCS",
        limit_price_paise: int = 0,
        product: Product = Product.MIS,
        protection_bps: int = 100,
        tag: str | None = None,
        rank: ExitRank | None = None,
    ) -> ApprovedOrder:
        return approve(
            client_order_id=f"240115E0001{next(self._tags):07d}" if tag is None else tag,
            symbol=symbol,
            side=side,
            quantity=quantity,
            order_type=OrderType.LIMIT if limit_price_paise else OrderType.MARKET,
            limit_price_paise=limit_price_paise,
            product=product,
            rank=rank,
            protection_bps=protection_bps,
        )

    def send(self, side: Side = Side.BUY, quantity: int = 10, **details: object) -> SendOutcome:
        """Place an order now."""
        return self.broker.place(self.order(side, quantity, **details), self.now_ms)  # type: ignore[arg-type]

    def held(self, symbol: str = "TCS") -> int:
        """Return the broker's net intraday shares of a symbol."""
        return sum(line.quantity for line in self.broker.positions() if line.symbol == symbol and line.product is Product.MIS)


def fills_of(events: list[OrderUpdate | BrokerFill]) -> list[BrokerFill]:
    return [event for event in events if isinstance(event, BrokerFill)]


def updates_of(events: list[OrderUpdate | BrokerFill]) -> list[OrderUpdate]:
    return [event for event in events if isinstance(event, OrderUpdate)]
