"""What a session works with, and how it ended: values, joined by the composition root and read by it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from velox_core.domain.charges import ChargeSchedule
from velox_core.domain.market.ticks import Instrument
from velox_core.emergency_exit_manager import EmergencyExitManager
from velox_core.engine.guard_presence import GuardPresence
from velox_core.engine.strategy_host import HostedStrategy
from velox_core.exit_door import ExitDoor
from velox_core.order_manager import OrderManager
from velox_core.order_recovery import OrderRecovery
from velox_core.ports import Alerts, Broker, Clock, Control, Journal, MarketFeed, SendQueue
from velox_core.risk_manager import RiskManager


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionParts:
    """Everything a session works with, joined by the composition root."""

    clock: Clock
    feed: MarketFeed
    journal: Journal
    control: Control
    alerts: Alerts
    risk_manager: RiskManager
    order_manager: OrderManager
    order_recovery: OrderRecovery
    exit_door: ExitDoor
    emergency: EmergencyExitManager
    strategies: Sequence[HostedStrategy]
    instruments: dict[str, Instrument]
    schedule: ChargeSchedule
    broker: Broker | None = None  # to reconcile with during the session; None when the plan does not ask for it
    revive: Callable[[], object] | None = None  # starts the ledger's own server again; None when it is not ours
    sends: SendQueue | None = None  # of a broker that is called off the loop
    guard: GuardPresence | None = None  # where a guard is to watch the run


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionResult:
    """How a session ended. `fault` is '' or what broke.

    `flat` is by our own books; the caller asks the broker. A closing that was not proven, or that broke, is not flat.
    """

    flat: bool
    halted: bool
    stopped: str
    fault: str
    rows: int
