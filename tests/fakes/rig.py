"""The order path put together over fakes: one place for limits, instruments and the steps that most tests begin with."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Any

from tests.fakes.broker import FakeBroker
from tests.fakes.outside import FakeAlerts, FakeClock, FakeCloserLock
from tests.fakes.stores import FakeHaltFile, FakeJournal, FakeLedger
from velox_core.brokers.off_loop import OffLoopBroker
from velox_core.closer import Closer
from velox_core.domain.charges import ChargeSchedule
from velox_core.domain.market.ticks import Instrument, SecurityClass
from velox_core.domain.orders import ExitRank, Order, OrderIntent, Side, Signal, SignalKind
from velox_core.domain.time import ist_midnight_ms
from velox_core.emergency_exit_manager import EmergencyExitManager
from velox_core.exit_door import ExitDoor
from velox_core.lease import HeldLease
from velox_core.order_manager import OrderManager
from velox_core.order_recovery import OrderRecovery
from velox_core.risk.approval import ApprovedOrder
from velox_core.risk.breach import DayLoss
from velox_core.risk.gate import ExitRequest, Quote
from velox_core.risk.layers import Refusal
from velox_core.risk.limits import RiskLimits
from velox_core.risk_manager import RiskManager

DAY = date(2024, 1, 16)
OPEN_MS = ist_midnight_ms(DAY) + (9 * 60 + 15) * 60_000
NOW_MS = OPEN_MS + 10 * 60_000
PREFIX = "240116E0001"
UNIVERSE = ("AAA", "BBB", "CCC", "DDD", "EEE")
FREE = ChargeSchedule(label="free")


def make_limits(**changes: Any) -> RiskLimits:
    """Return wide limits with some of them changed: loss 2000 rupees, lot 1, 5 s window, 3 positions each, 5 in all."""
    values: dict[str, Any] = {
        "max_daily_loss_paise": 200_000,
        "max_daily_loss_bps": 10_000,
        "initial_capital_paise": 10_000_000,
        "fixed_lot_size": 1,
        "dedup_window_ms": 5_000,
        "max_position_size_paise": 10_000_000,
        "max_positions_per_strategy": 3,
        "max_total_positions": 5,
    }
    return RiskLimits(**(values | changes))


def make_instrument(symbol: str = "AAA", **changes: Any) -> Instrument:
    """Return a cash stock with a tick of 5 paise and no band."""
    values: dict[str, Any] = {"symbol": symbol, "security_class": SecurityClass.CASH, "tick_paise": 5}
    return Instrument(**(values | changes))


def entry_signal(
    symbol: str = "AAA", side: Side = Side.BUY, *, strategy: str = "alpha", quantity: int = 1, stop: int = 0, target: int = 0
) -> Signal:
    """Return an entry signal."""
    return Signal(strategy, symbol, side, quantity, SignalKind.ENTRY, "test entry", stop_paise=stop, target_paise=target)


def exit_signal(
    symbol: str = "AAA", side: Side = Side.SELL, *, strategy: str = "alpha", rank: ExitRank = ExitRank.TARGET
) -> Signal:
    """Return an exit signal."""
    return Signal(strategy, symbol, side, 1, SignalKind.EXIT, "test exit", rank=rank)


class Rig:
    """A risk manager, order manager, exit door, emergency exit manager and recovery over fakes, armed and ready."""

    def __init__(
        self,
        limits: RiskLimits | None = None,
        schedule: ChargeSchedule = FREE,
        wrap: Callable[[FakeBroker], OffLoopBroker] | None = None,
        *,
        broker: FakeBroker | None = None,
        ledger: FakeLedger | None = None,
        host: str = "rig",
        **instrument_changes: Any,
    ) -> None:
        """Put it together. `wrap` has the broker called off the loop; broker and ledger may be shared by hosts."""
        self.limits = limits or make_limits()
        self.schedule = schedule
        self.broker = FakeBroker() if broker is None else broker
        self.broker.now_ms = NOW_MS
        self.clock = FakeClock(NOW_MS)  # moved by hand
        self.off_loop = wrap(self.broker) if wrap is not None else None
        self.port = self.off_loop or self.broker
        self.journal = FakeJournal()
        self.ledger = FakeLedger() if ledger is None else ledger
        self.epoch = self.ledger.acquire_lease(host)
        self.prefix = f"240116E{self.epoch:04d}"
        self.lease: HeldLease | None = None
        self.halt_file = FakeHaltFile()
        self.alerts = FakeAlerts()
        self.closer_lock = FakeCloserLock()
        self.instruments = {symbol: make_instrument(symbol, **instrument_changes) for symbol in UNIVERSE}
        self.restart()

    def restart(self) -> None:
        """Begin again with empty books on the same stores and broker, as a new process does."""
        self.risk = RiskManager(
            limits=self.limits,
            ledger=self.ledger,
            journal=self.journal,
            id_prefix=self.prefix,
            epoch=self.epoch,
            alerts=self.alerts,
            lease=self.lease,
        )
        self.day_loss = DayLoss(self.schedule)
        self.orders = OrderManager(
            broker=self.port,
            sends=self.off_loop,
            journal=self.journal,
            risk_manager=self.risk,
            day_loss=self.day_loss,
            columns={symbol: column for column, symbol in enumerate(UNIVERSE)},
            schedule=self.schedule,
            lease=self.lease,
        )
        self.closer = Closer(
            lock=self.closer_lock,
            order_manager=self.orders,
            risk_manager=self.risk,
            journal=self.journal,
            alerts=self.alerts,
            name=self.prefix,
        )
        self.door = ExitDoor(
            risk_manager=self.risk,
            order_manager=self.orders,
            instruments=self.instruments,
            alerts=self.alerts,
            closer=self.closer,
        )
        self.recovery = OrderRecovery(self.orders, self.alerts)
        self.emergency = EmergencyExitManager(
            trading_date=DAY,
            risk_manager=self.risk,
            order_manager=self.orders,
            exit_door=self.door,
            broker=self.port,
            journal=self.journal,
            halt_file=self.halt_file,
            alerts=self.alerts,
            clock=self.clock,
        )
        self.risk.open_ledger()
        self.arm(NOW_MS)

    def arm(self, feed_ts_ms: int) -> None:
        """Let entries pass the preconditions of the day."""
        readiness = self.risk.readiness
        readiness.armed = True
        readiness.entries_from_ms = OPEN_MS
        readiness.entry_until_ms = OPEN_MS + 6 * 3_600_000
        readiness.feed_ts_ms = feed_ts_ms

    def ask(self, signal: Signal | None = None, now_ms: int = NOW_MS, **changes: Any) -> ApprovedOrder | Refusal:
        """Ask the gate for an entry at 100 rupees with a fresh price."""
        signal = signal or entry_signal()
        values: dict[str, Any] = {
            "instrument": self.instruments.get(signal.symbol),
            "quote": Quote(10_000, now_ms),
            "loss_paise": 0,
            "cost_paise": 0,
        } | changes
        self.risk.readiness.feed_ts_ms = max(self.risk.readiness.feed_ts_ms, now_ms)
        return self.risk.request_entry(
            signal,
            values["instrument"],
            values["quote"],
            loss_paise=values["loss_paise"],
            cost_paise=values["cost_paise"],
            now_ms=now_ms,
        )

    def enter(self, signal: Signal | None = None, now_ms: int = NOW_MS, **changes: Any) -> Order:
        """Get an entry approved and submit it."""
        signal = signal or entry_signal()
        approved = self.ask(signal, now_ms, **changes)
        if isinstance(approved, Refusal):
            raise AssertionError(f"refused: {approved.code} {approved.text}")
        intent = OrderIntent(signal.strategy_id, signal.reason, signal.stop_paise, signal.target_paise)
        return self.orders.submit(approved, intent, now_ms)

    def hold(
        self,
        symbol: str = "AAA",
        side: Side = Side.BUY,
        *,
        price_paise: int = 10_000,
        strategy: str = "alpha",
        now_ms: int = NOW_MS,
    ) -> Order:
        """Enter and fill at once."""
        order = self.enter(entry_signal(symbol, side, strategy=strategy), now_ms)
        self.broker.fill(order.broker_order_id, order.quantity, price_paise)
        self.orders.poll(now_ms)
        return order

    def exit_now(
        self, symbol: str = "AAA", rank: ExitRank = ExitRank.STOP, now_ms: int = NOW_MS, limit_price_paise: int = 0
    ) -> Order:
        """Send one exit for the whole position, past the door's own bookkeeping."""
        position = self.orders.positions[symbol]
        approved = self.risk.request_exit(
            ExitRequest(
                strategy_id=position.strategy_id,
                symbol=symbol,
                side=Side.SELL if position.quantity > 0 else Side.BUY,
                open_quantity=abs(position.quantity),
                working_quantity=0,
                working_rank=None,
                rank=rank,
                reason="test exit",
                limit_price_paise=limit_price_paise,
            ),
            now_ms,
        )
        if isinstance(approved, Refusal):
            raise AssertionError(f"refused: {approved.code} {approved.text}")
        return self.orders.submit(approved, OrderIntent(position.strategy_id, "test exit"), now_ms)

    def quantity(self, symbol: str = "AAA") -> int:
        """Return our own net position."""
        position = self.orders.positions.get(symbol)
        return 0 if position is None else position.quantity
