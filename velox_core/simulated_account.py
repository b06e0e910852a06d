"""A run's simulated account for a process that is not its engine: its book, and a market that stands still.

- With an engine the market is the engine's: nothing trades here. Without one, orders meet the last prices that are known.
- The book is opened at the first question, and again when it names a symbol that was not in it: nothing is created here.
- A book that is not there or cannot be opened answers as a broker that is down.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Final

from velox_core.brokers.book import SqliteBook
from velox_core.brokers.charges import load_charges
from velox_core.brokers.simulated import SimulatedBroker
from velox_core.brokers.simulated_orders import SimulationConfig
from velox_core.domain.charges import ChargeSchedule
from velox_core.domain.errors import BrokerError, ConfigError
from velox_core.domain.market.bars import MinuteRow
from velox_core.domain.market.ticks import Instrument
from velox_core.domain.orders import Product
from velox_core.ports import (
    BrokerEvent,
    BrokerFill,
    BrokerOrder,
    BrokerPosition,
    Funds,
    SendOutcome,
    SendStatus,
)
from velox_core.reconciliation.books import BrokerBooks
from velox_core.risk.approval import ApprovedOrder
from velox_core.runs import RunFolder
from velox_core.settings import BrokerType, Settings

BROKER_BOOK: Final = "broker.db"
BOOK_READ_AT_MS: Final = 1 << 60  # whoever reads the whole book sees orders of any time


class BookGone(BrokerError):
    """The broker's book of a run is not there: a date whose orders and trades the broker does not tell any more."""


def charge_schedule(settings: Settings, on: date) -> ChargeSchedule:
    """Return what the broker and the exchange charge for the day's product on a date. Raises ConfigError."""
    return load_charges(settings.charges_path).schedule(settings.broker.type.value, Product.MIS, on)


def simulation_config(settings: Settings, bar_minutes: int = 1) -> SimulationConfig:
    """Return the simulated broker's behaviour as configured, for bars of a length."""
    chosen = settings.simulation
    return SimulationConfig(
        seed=chosen.seed,
        capital_paise=settings.broker.capital_paise,
        slippage_bps=chosen.slippage_bps,
        slippage_ticks=chosen.slippage_ticks,
        latency_ms=chosen.latency_ms,
        partial_fill_probability=chosen.partial_fill_probability,
        reject_probability=chosen.reject_probability,
        margin_multiplier=chosen.margin_multiplier,
        bar_minutes=bar_minutes,
    )


def read_broker_books(settings: Settings, run: RunFolder) -> BrokerBooks:
    """Read a run's order book, trades and positions from its broker; nothing can be sent this way.

    Raises: BookGone when the book is not there, BrokerError when it cannot be read; ConfigError for a broker that cannot be
        read yet.
    """
    if settings.broker.type is not BrokerType.SIMULATED:
        raise ConfigError(f"{settings.source}: the book of broker type {settings.broker.type.value} cannot be read yet")
    path = run.folder / BROKER_BOOK
    if not path.is_file():
        raise BookGone(f"run {run.run_id} has no broker's book ({path}): it never reached its broker, or the file was moved")
    broker = SimulatedBroker((), instruments={}, config=simulation_config(settings), book=SqliteBook(path))
    try:
        broker.advance(BOOK_READ_AT_MS)
        return BrokerBooks(orders=broker.orders(), trades=broker.trades(), positions=broker.positions())
    finally:
        broker.close()


class SimulatedAccount:
    """`ports.Broker` over the book of a run.

    Args:
        path: the book.
        config: the simulated broker's behaviour.
        instrument: what is known of a symbol, given a price of it in paise.
        prices: newest prices in paise by symbol, where somebody knows newer ones than the book.
        clock: engine time, epoch ms.
        reached: told the newest engine time that the book knows, when it was opened.
        engine_runs: whether an engine drives the market.

    Attributes:
        first_request: monotonic seconds at which the broker was asked for the first time; None before.
    """

    name = "simulated"

    def __init__(
        self,
        path: Path,
        *,
        config: SimulationConfig,
        instrument: Callable[[str, int], Instrument],
        prices: Callable[[], Mapping[str, int]],
        clock: Callable[[], int],
        reached: Callable[[int], None],
        engine_runs: Callable[[], bool],
    ) -> None:
        self.first_request: float | None = None
        self._path = path
        self._config = config
        self._instrument = instrument
        self._prices = prices
        self._clock = clock
        self._reached = reached
        self._engine_runs = engine_runs
        self._broker: SimulatedBroker | None = None
        self._universe: tuple[str, ...] = ()

    def place(self, order: ApprovedOrder, now_ms: int) -> SendOutcome:
        """Send one order, once."""
        try:
            return self._opened().place(order, now_ms)
        except BrokerError as error:
            return SendOutcome(SendStatus.NOT_SENT, "", str(error))

    def cancel(self, broker_order_id: str, now_ms: int) -> SendOutcome:
        """Ask for a cancel."""
        try:
            return self._opened().cancel(broker_order_id, now_ms)
        except BrokerError as error:
            return SendOutcome(SendStatus.NOT_SENT, broker_order_id, str(error))

    def drain_events(self) -> Sequence[BrokerEvent]:
        """Return what happened since the last call, after the market stood still for a moment."""
        broker = self._broker
        if broker is None:
            return []
        self._stand_still(broker)
        return broker.drain_events()

    def orders(self) -> list[BrokerOrder]:
        """Return today's order book. Raises BrokerError."""
        return self._opened().orders()

    def trades(self) -> list[BrokerFill]:
        """Return today's trades. Raises BrokerError."""
        return self._opened().trades()

    def positions(self) -> list[BrokerPosition]:
        """Return the net positions. Raises BrokerError."""
        return self._opened().positions()

    def funds(self) -> Funds:
        """Return the account's cash. Raises BrokerError."""
        return self._opened().funds()

    def close(self) -> None:
        """Close the book."""
        broker, self._broker = self._broker, None
        if broker is not None:
            broker.close()

    def _opened(self) -> SimulatedBroker:
        if self.first_request is None:
            self.first_request = time.monotonic()
        if self._broker is not None and self._broker.exchange.strangers:
            self.close()
        if self._broker is None:
            self._broker = self._open()
        self._broker.advance(self._clock())
        return self._broker

    def _open(self) -> SimulatedBroker:
        if not self._path.is_file():
            raise BrokerError(f"there is no broker's book at {self._path}: the run never reached its broker, or it was moved")
        book = SqliteBook(self._path)
        try:
            prices = dict.fromkeys(book.symbols(), 0) | book.last_prices()
            self._universe = tuple(prices)
            instruments = {symbol: self._instrument(symbol, price) for symbol, price in prices.items()}
            broker = SimulatedBroker(self._universe, instruments=instruments, config=self._config, book=book)
        except BrokerError:
            book.close()
            raise
        exchange = broker.exchange
        times = [order.placed_ms for order in exchange.orders.values()] + [trade.ts_ms for trade in exchange.trades]
        self._reached(max(times, default=0))
        self._stand_still(broker)
        return broker

    def _stand_still(self, broker: SimulatedBroker) -> None:
        """Without an engine, let what works meet the last prices: a minute in which nothing moved."""
        if self._engine_runs():
            return
        now_ms, newer, exchange = self._clock(), self._prices(), broker.exchange
        last = [newer.get(symbol, 0) or exchange.last_price_paise(exchange.listing(symbol)) for symbol in self._universe]
        broker.on_row(MinuteRow(now_ms, last, last, last, last, [0] * len(last)), now_ms)
