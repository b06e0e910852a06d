"""How old the last breach evaluation gets while the broker hangs on every call: the loop must not wait for it.

    python -m benchmarks.breach_age --json

- The real engine, real threads and the real clock: 50 positions are opened through the gate, then every call of the broker
  (place, cancel, order list, trades, positions) hangs until the end. Ticks go on at a steady rate, the books are compared
  every five seconds. Half-way the prices fall, the loss limit is reached, and 50 exits are asked for.
- Orders and their events are journaled in SQLite, durable before each send; the status goes to its file each second.
- The age at any moment is the time since the loss was last judged. Its distribution over time follows from the gaps
  between two judgements: `breach_age_p999_ms` is the age that is exceeded for a thousandth of the time.
- At the end the broker answers again: each order is to be there once, and everything is to be closed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

if __package__ in (None, ""):  # run as a file: its folder is on the path, the project is not
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.replay import MemoryHaltFile, SilentAlerts
from velox_core.brokers.off_loop import OffLoopBroker
from velox_core.brokers.rate_limit import RateLimit
from velox_core.clock import WallClock
from velox_core.control import FileControl
from velox_core.domain.charges import ChargeSchedule
from velox_core.domain.market.bars import MinuteRow
from velox_core.domain.market.ticks import Instrument, SecurityClass
from velox_core.domain.orders import OrderState, Product, Side, Signal, SignalKind
from velox_core.domain.time import MS_PER_MINUTE, MS_PER_SECOND, ist_date
from velox_core.engine.assembly import Engine, EnginePorts, EngineRules, assemble
from velox_core.engine.parts import SessionResult
from velox_core.engine.plan import SessionPlan
from velox_core.engine.strategy_host import HostedStrategy
from velox_core.engine_lock import SoleCloser
from velox_core.journal.run import RunIdentity
from velox_core.journal.sql import SqlJournal
from velox_core.ledger.memory import MemoryLedger
from velox_core.ports import BrokerFill, BrokerOrder, BrokerPosition, Funds, MarketFeed, OrderUpdate, SendOutcome, SendStatus
from velox_core.risk.approval import ApprovedOrder
from velox_core.risk.limits import RiskLimits
from velox_core.strategies.base import Strategy, StrategySession

PRICE_PAISE = 100_000
FALLEN_PAISE = 90_000
WARM_SECONDS = 4.0
DAY_MS = 60 * MS_PER_MINUTE  # long enough for any run
LIMITS = RiskLimits(
    max_daily_loss_paise=200_000,
    max_daily_loss_bps=10_000,
    initial_capital_paise=1_000_000_000,
    fixed_lot_size=1,
    dedup_window_ms=3_600_000,
    max_position_size_paise=1_000_000,
    max_positions_per_strategy=1_000,
    max_total_positions=1_000,
    orders_per_second_max=1_000,
)


class HangingBroker:
    """Fills every order at once, until it hangs: then no call returns before it is let go."""

    name = "hanging"

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.hangs = False
        self._go = threading.Event()
        self._lock = threading.Lock()
        self._book: list[BrokerOrder] = []
        self._trades: list[BrokerFill] = []
        self._news: list[BrokerFill | OrderUpdate] = []
        self.drained: list[BrokerFill | OrderUpdate] = []

    def hang(self) -> None:
        """Answer nothing from now on."""
        self.hangs = True

    def let_go(self) -> None:
        """Answer everything, late."""
        self.hangs = False
        self._go.set()

    def place(self, order: ApprovedOrder, now_ms: int) -> SendOutcome:
        """Fill an order."""
        with self._lock:
            self.sent.append(order.client_order_id)
        self._wait()
        return self.fill(order, now_ms)

    def fill(self, order: ApprovedOrder, now_ms: int, *, of_quantity: int = 0) -> SendOutcome:
        """Book an order as traded, or some shares of it: the rest works on."""
        filled = of_quantity or order.quantity
        state = OrderState.FILLED if filled == order.quantity else OrderState.PARTIALLY_FILLED
        with self._lock:
            broker_order_id = f"B{len(self._book) + 1}"
            self._book.append(
                BrokerOrder(
                    broker_order_id=broker_order_id,
                    tag=order.client_order_id,
                    symbol=order.symbol,
                    side=order.side,
                    quantity=order.quantity,
                    filled_quantity=filled,
                    state=state,
                    product=order.product,
                    limit_price_paise=0,
                    placed_ms=now_ms,
                )
            )
            fill = BrokerFill(
                now_ms, f"T{len(self._book)}", order.client_order_id, broker_order_id, order.symbol, order.side, filled,
                PRICE_PAISE,
            )  # fmt: skip
            self._trades.append(fill)
            self._news.append(fill)
        return SendOutcome(SendStatus.ACKNOWLEDGED, broker_order_id)

    def cancel(self, broker_order_id: str, now_ms: int) -> SendOutcome:
        """Refuse: everything is filled."""
        self._wait()
        return SendOutcome(SendStatus.REJECTED, broker_order_id, "filled")

    def drain_events(self) -> list[BrokerFill | OrderUpdate]:
        """Return the fills since the last call; this does not wait for anything outside."""
        news, self._news = self._news, []
        self.drained.extend(news)
        return news

    def orders(self) -> list[BrokerOrder]:
        """Return the order list."""
        self._wait()
        return list(self._book)

    def trades(self) -> list[BrokerFill]:
        """Return the trades."""
        self._wait()
        return list(self._trades)

    def positions(self) -> list[BrokerPosition]:
        """Return the net positions."""
        self._wait()
        held: dict[str, int] = {}
        for trade in self._trades:
            held[trade.symbol] = held.get(trade.symbol, 0) + trade.side.sign * trade.quantity
        return [
            BrokerPosition(
                symbol=symbol,
                product=Product.MIS,
                quantity=quantity,
                bought_quantity=0,
                sold_quantity=0,
                bought_paise=0,
                sold_paise=0,
                last_price_paise=PRICE_PAISE,
            )
            for symbol, quantity in held.items()
        ]

    def funds(self) -> Funds:
        """Return much."""
        self._wait()
        return Funds(available_paise=10**12, margin_used_paise=0)

    def _wait(self) -> None:
        if self.hangs:
            self._go.wait()


class TickFeed:
    """One symbol's price after the other at a steady rate, on the real clock, and the script of the broker's troubles."""

    def __init__(self, universe: tuple[str, ...], broker: HangingBroker, rate: float, seconds: float) -> None:
        self.universe = universe
        self.broker = broker
        self._period = 1.0 / rate
        self._count = int((WARM_SECONDS + seconds) * rate)
        self._hangs_from = int(WARM_SECONDS * rate)
        self._falls_from = int((WARM_SECONDS + seconds / 2) * rate)
        self._number = 0
        self._began = time.monotonic()

    @property
    def ended(self) -> bool:
        """Return whether the last tick was delivered."""
        return self._number >= self._count

    def next_row(self, wait_seconds: float) -> MinuteRow | None:
        """Return the next tick when it is due."""
        if self.ended:
            self.broker.let_go()
            time.sleep(min(wait_seconds, 0.05))
            return None
        pause = self._began + self._number * self._period - time.monotonic()
        if pause > 0:
            time.sleep(min(pause, wait_seconds))
            if pause > wait_seconds:
                return None
        if self._number == self._hangs_from:
            self.broker.hang()
        price = PRICE_PAISE if self._number < self._falls_from else FALLEN_PAISE
        prices = [0] * len(self.universe)
        prices[self._number % len(self.universe)] = price
        self._number += 1
        return MinuteRow(int(time.time() * MS_PER_SECOND), prices, prices, prices, prices, prices)

    def hasten(self) -> None:
        """Go on as before: it is a live feed."""


class Probe(Strategy):
    """Buys each symbol once, and notes when it is called: that is right after the loss was judged."""

    def __init__(self, broker: HangingBroker) -> None:
        super().__init__("probe", {})
        self.judged: list[float] = []
        self._broker = broker
        self._wanted: list[str] = []

    def start_session(self, session: StrategySession) -> None:
        """Take the day's symbols."""
        self._wanted = list(session.universe)

    def on_minute(self, ts_ms: int, row: MinuteRow, positions: Sequence[int]) -> list[Signal]:
        """Ask for the entry of the symbol that ticked."""
        if self._broker.hangs:
            self.judged.append(time.monotonic())
        column = next(number for number, price in enumerate(row.closes) if price)
        symbol = f"S{column:03d}"
        if symbol not in self._wanted:
            return []
        self._wanted.remove(symbol)
        return [Signal(self.strategy_id, symbol, Side.BUY, 1, SignalKind.ENTRY, "in")]


def age_exceeded_for(gaps: list[float], share: float) -> float:
    """Return the age, in seconds, that is exceeded for this share of the time. An age grows through each gap from 0."""
    total = sum(gaps)
    low, high = 0.0, max(gaps)
    for _ in range(60):
        middle = (low + high) / 2
        if sum(gap - middle for gap in gaps if gap > middle) > share * total:
            low = middle
        else:
            high = middle
    return high


def build(
    folder: Path,
    broker: HangingBroker,
    feed: MarketFeed,
    probe: Probe,
    rate: RateLimit | None = None,
    limits: RiskLimits = LIMITS,
) -> tuple[Engine, SessionPlan]:
    """Join an engine over the broker, called off the loop."""
    clock, ledger = WallClock(), MemoryLedger()
    now_ms = clock.now_ms()
    universe = feed.universe
    plan = SessionPlan(
        trading_date=ist_date(now_ms),
        universe=universe,
        open_ms=now_ms,
        entries_from_ms=now_ms,
        entry_until_ms=now_ms + DAY_MS,
        flat_by_ms=now_ms + DAY_MS,
        hard_stop_ms=now_ms + DAY_MS,
        tick_paise=(5,) * len(universe),
        reconcile_seconds=5.0,
    )
    run = RunIdentity(
        scope_key="benchmark",
        trading_date=plan.trading_date,
        run_id="breach-age",
        mode="benchmark",
        config_hash="0" * 64,
        data_source="ticks",
        started_wall_ms=now_ms,
    )
    off_loop = OffLoopBroker(broker, rate=rate)
    ports = EnginePorts(
        clock=clock,
        feed=feed,
        broker=off_loop,
        sends=off_loop,
        journal=SqlJournal(f"sqlite:///{folder / 'journal.db'}", run),
        ledger=ledger,
        halt_file=MemoryHaltFile(),
        control=FileControl(folder),
        alerts=SilentAlerts(),
        closer_lock=SoleCloser(),
    )
    rules = EngineRules(
        limits=limits,
        schedule=ChargeSchedule.flat(bps=3),
        instruments={s: Instrument(symbol=s, security_class=SecurityClass.CASH, tick_paise=5) for s in universe},
        strategies=(HostedStrategy(probe, tuple(range(len(universe))), universe),),
        epoch=ledger.acquire_lease("benchmark"),
    )
    engine = assemble(plan, ports, rules)
    engine.risk_manager.readiness.armed = True
    return engine, plan


def measure(positions: int, rate: float, seconds: float) -> dict[str, object]:
    """Run once and return the figures."""
    universe = tuple(f"S{number:03d}" for number in range(positions))
    broker = HangingBroker()
    probe = Probe(broker)
    with tempfile.TemporaryDirectory() as folder:
        feed = TickFeed(universe, broker, rate, seconds)
        engine, plan = build(Path(folder), broker, feed, probe)
        result = engine.session(plan).run()
        threads = threading.active_count()
        engine.ports.journal.close()  # type: ignore[attr-defined]  # it is the SQL journal
    return figures(probe.judged, broker, engine, result) | {
        "positions": positions,
        "ticks_per_s": rate,
        "seconds": seconds,
        "threads_at_the_end": threads,
        "python": sys.version.split()[0],
    }


def figures(judged: list[float], broker: HangingBroker, engine: Engine, result: SessionResult) -> dict[str, object]:
    """Return the ages in ms, and whether each order went out once and all is closed."""
    gaps = [later - earlier for earlier, later in pairwise(judged)]
    orders = engine.order_manager.orders
    return {
        "evaluations": len(judged),
        "breach_age_p50_ms": round(age_exceeded_for(gaps, 0.5) * MS_PER_SECOND, 2),
        "breach_age_p99_ms": round(age_exceeded_for(gaps, 0.01) * MS_PER_SECOND, 2),
        "breach_age_p999_ms": round(age_exceeded_for(gaps, 0.001) * MS_PER_SECOND, 2),
        "breach_age_max_ms": round(max(gaps) * MS_PER_SECOND, 2),
        "orders": len(orders),
        "sent_twice": len(broker.sent) - len(set(broker.sent)),
        "halted": result.halted,
        "flat_when_answered": result.flat,
        "fault": result.fault,
    }


def main() -> None:
    """Run once and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--positions", type=int, default=50)
    parser.add_argument("--rate", type=float, default=100.0, help="ticks per second")
    parser.add_argument("--seconds", type=float, default=20.0, help="with the broker hung")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found = measure(arguments.positions, arguments.rate, arguments.seconds)
    if arguments.json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            print(f"{name:>20}  {value}")


if __name__ == "__main__":
    main()
