"""An engine put together from its ports: the one place where gate, order manager, exit door and session are joined.

- It opens the ledger, takes back what the run's journal knows, reconciles with the broker and reads the halts, in this
  order; what fails there leaves the engine reduce-only, never unable to close.
- It knows the ports only. Which broker, feed or store is behind them is the composition root's affair.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from velox_core.adoption import Adoption
from velox_core.closer import Closer
from velox_core.domain.charges import ChargeSchedule
from velox_core.domain.errors import BrokerError, JournalUnavailable, LedgerUnavailable
from velox_core.domain.events import EventKind
from velox_core.domain.market.ticks import Instrument
from velox_core.domain.orders import Actor, client_order_id_prefix
from velox_core.emergency_exit_manager import EmergencyExitManager
from velox_core.engine.guard_presence import GuardPresence
from velox_core.engine.parts import SessionParts
from velox_core.engine.plan import SessionPlan
from velox_core.engine.resume import (
    RESUME_KINDS,
    align_ledger,
    disabled_strategies,
    reconcile,
    restore,
    worst_marked_loss_paise,
)
from velox_core.engine.session import TradingSession
from velox_core.engine.strategy_host import HostedStrategy
from velox_core.engine.trade_rules import TradeRules
from velox_core.exit_door import ExitDoor
from velox_core.order_manager import OrderManager
from velox_core.order_recovery import OrderRecovery
from velox_core.ports import (
    Alerts,
    Broker,
    Clock,
    CloserLock,
    Control,
    HaltFile,
    Journal,
    Lease,
    MarketFeed,
    RiskLedger,
    SendQueue,
    Severity,
)
from velox_core.risk.breach import DayLoss
from velox_core.risk.limits import RiskLimits
from velox_core.risk_manager import RiskManager

_log = logging.getLogger("velox.system")


@dataclass(frozen=True, slots=True, kw_only=True)
class EnginePorts:
    """The outside of one engine."""

    clock: Clock
    feed: MarketFeed
    broker: Broker
    journal: Journal
    ledger: RiskLedger
    halt_file: HaltFile
    control: Control
    alerts: Alerts
    closer_lock: CloserLock
    revive: Callable[[], object] | None = None  # starts the ledger's own server again; None when it is not ours
    sends: SendQueue | None = None  # of a broker that is called off the loop; None when sends are inline
    lease: Lease | None = None  # asked before each request; None in a world with one process
    guard: GuardPresence | None = None  # where a guard is to watch the run


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRules:
    """What one engine trades by."""

    limits: RiskLimits
    schedule: ChargeSchedule
    instruments: dict[str, Instrument]
    strategies: Sequence[HostedStrategy]
    epoch: int
    actor: Actor = Actor.ENGINE
    close_foreign: bool = True  # whether positions that this system never opened are closed with everything else


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """A joined engine. `differences` are the positions that journal and broker could not agree on."""

    risk_manager: RiskManager
    order_manager: OrderManager
    exit_door: ExitDoor
    emergency: EmergencyExitManager
    order_recovery: OrderRecovery
    ports: EnginePorts
    rules: EngineRules
    resumed_ms: int
    differences: tuple[str, ...]

    def session(self, plan: SessionPlan, feed: MarketFeed | None = None, clock: Clock | None = None) -> TradingSession:
        """Return a session of this engine over a plan; another feed and clock may be given for the next day."""
        session = TradingSession(
            plan,
            SessionParts(
                clock=clock or self.ports.clock,
                feed=feed or self.ports.feed,
                journal=self.ports.journal,
                control=self.ports.control,
                alerts=self.ports.alerts,
                risk_manager=self.risk_manager,
                order_manager=self.order_manager,
                order_recovery=self.order_recovery,
                exit_door=self.exit_door,
                emergency=self.emergency,
                strategies=self.rules.strategies,
                instruments=self.rules.instruments,
                schedule=self.rules.schedule,
                broker=self.ports.broker,
                revive=self.ports.revive,
                sends=self.ports.sends,
                guard=self.ports.guard,
            ),
        )
        self.order_manager.on_position = session.on_position
        for host in self.rules.strategies:
            host.rules = self._trade_rules(host, plan)
        return session

    def _trade_rules(self, host: HostedStrategy, plan: SessionPlan) -> TradeRules | None:
        if not host.rule_values.any:
            return None
        return TradeRules(
            host.strategy_id,
            host.rule_values,
            columns=host.columns,
            universe=plan.universe,
            tick_paise=plan.tick_paise,
            books=self.order_manager,
            refuse=self.risk_manager.refuse,
            quiet_until_ms=plan.resume_after_ms,
            day_starts_ms=plan.open_ms,
        )


def assemble(plan: SessionPlan, ports: EnginePorts, rules: EngineRules) -> Engine:
    """Join an engine and bring it up to what ledger, journal and broker know. Entries stay refused until it is armed."""
    id_prefix = client_order_id_prefix(f"{plan.trading_date:%y%m%d}", rules.actor, rules.epoch)
    risk = RiskManager(
        limits=rules.limits,
        ledger=ports.ledger,
        journal=ports.journal,
        id_prefix=id_prefix,
        epoch=rules.epoch,
        alerts=ports.alerts,
        lease=ports.lease,
    )
    orders = OrderManager(
        broker=ports.broker,
        journal=ports.journal,
        risk_manager=risk,
        day_loss=DayLoss(rules.schedule),
        columns={symbol: column for column, symbol in enumerate(plan.universe)},
        schedule=rules.schedule,
        sends=ports.sends,
        lease=ports.lease,
    )
    closer = Closer(
        lock=ports.closer_lock,
        order_manager=orders,
        risk_manager=risk,
        journal=ports.journal,
        alerts=ports.alerts,
        name=id_prefix,
    )
    door = ExitDoor(
        risk_manager=risk,
        order_manager=orders,
        instruments=rules.instruments,
        alerts=ports.alerts,
        closer=closer,
        monotonic=None if ports.sends is None else ports.clock.monotonic,
    )
    emergency = EmergencyExitManager(
        trading_date=plan.trading_date,
        risk_manager=risk,
        order_manager=orders,
        exit_door=door,
        broker=ports.broker,
        journal=ports.journal,
        halt_file=ports.halt_file,
        alerts=ports.alerts,
        clock=ports.clock,
        adoption=Adoption(broker=ports.broker, order_manager=orders, risk_manager=risk, close_foreign=rules.close_foreign),
    )
    risk.attach_emergency_exit_manager(emergency)
    resumed_ms, differences = _catch_up(ports, rules, risk, orders, door)
    with suppress(JournalUnavailable):  # then a warning is told again
        emergency.warnings.take_up(worst_marked_loss_paise(ports.journal.events((EventKind.MARK,))))
    emergency.load()
    return Engine(
        risk_manager=risk,
        order_manager=orders,
        exit_door=door,
        emergency=emergency,
        order_recovery=OrderRecovery(orders, ports.alerts),
        ports=ports,
        rules=rules,
        resumed_ms=resumed_ms,
        differences=tuple(differences),
    )


def _catch_up(
    ports: EnginePorts, rules: EngineRules, risk: RiskManager, orders: OrderManager, door: ExitDoor
) -> tuple[int, list[str]]:
    """Bring our books up to journal, broker and ledger. Returns the engine time already traded, and open differences."""
    resumed_ms, differences = 0, []
    try:
        risk.open_ledger()
    except LedgerUnavailable as error:
        risk.readiness.ledger_fault = str(error)
        _log.info("[LEDGER] not trusted yet: %s", error)
    try:
        resumed_ms = restore(ports.journal.events(RESUME_KINDS), orders, risk)
        disabled = disabled_strategies(ports.journal.events((EventKind.STRATEGY_DISABLED,)))
        for host in rules.strategies:
            host.disabled = host.disabled or disabled.get(host.strategy_id, "")
    except JournalUnavailable as error:
        risk.readiness.stopping = f"the journal could not be read at the start, exits only until a restart: {error}"
        door.orders_unknown = True
        _log.error("[JOURNAL] unavailable at the start, exits only: %s", error)
        ports.alerts.send(Severity.CRITICAL, "Journal unavailable at the start", f"Exits only until a restart: {error}")
    try:
        differences = [row.line for row in reconcile(ports.broker, orders, risk, ports.alerts, ports.clock.now_ms())]
    except BrokerError as error:
        differences = [f"the broker's book could not be read: {error}"]
        risk.readiness.stopping = f"no reconcile with the broker: {error}"
        _log.error("[RECONCILE] failed at the start: %s", error)
        ports.alerts.send(Severity.CRITICAL, "No reconcile at the start", f"Exits only until a restart: {error}")
    try:
        if align_ledger(orders, risk):
            _log.info("[LEDGER] built from journal and broker")
    except LedgerUnavailable as error:
        risk.faults.ledger_failed(error)
    orders.commit_journal()
    return resumed_ms, differences
