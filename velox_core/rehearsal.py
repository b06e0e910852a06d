"""A day of a configuration in memory: every rule of the engine, no store, no server, nothing left behind.

- What many replays ask for (what to expect of a strategy, what a scenario does): the same engine, gate, charges and simulated
  broker as a run, on a ledger in memory and a journal in a scratch folder that is removed.
- It cannot see an account: no halt, run or book of one is read or written.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from velox_core.bootstrap import RunRequest, day_instruments, prepare, session_plan
from velox_core.brokers.charges import load_charges
from velox_core.brokers.simulated import SimulatedBroker
from velox_core.brokers.simulated_market import SimulatedMarket
from velox_core.clock import ReplayClock
from velox_core.domain.events import JournalEvent
from velox_core.domain.orders import Product
from velox_core.engine.assembly import EnginePorts, EngineRules, assemble
from velox_core.engine.parts import SessionResult
from velox_core.engine.strategy_watch import watch_strategies
from velox_core.engine_lock import SoleCloser
from velox_core.feeds.replay import ReplayFeed
from velox_core.halt_file import HALT_FILE, JsonLinesHaltFile
from velox_core.journal.file import FileJournal
from velox_core.ledger.memory import MemoryLedger
from velox_core.ports import BrokerPosition, ControlRequest, Severity
from velox_core.settings import Paths, Settings
from velox_core.simulated_account import simulation_config
from velox_core.strategy_loading import hosted_strategies

_JOURNAL_FILE = "journal.jsonl"
_WRITE_EVERY_EVENTS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """One day that was rehearsed: its events, oldest first, how it ended, and what the broker still held.

    `alerts` are the titles of what a person would have been told.
    """

    events: Sequence[JournalEvent]
    result: SessionResult
    positions: Sequence[BrokerPosition]
    alerts: Sequence[str]
    source: str
    synthetic: bool


class _Told:
    """Keeps the titles of alerts."""

    def __init__(self) -> None:
        self.titles: list[str] = []

    def send(self, severity: Severity, title: str, text: str) -> None:
        """Keep one."""
        self.titles.append(title)


class _NoControl:
    """No requests, no viewer."""

    def poll(self) -> ControlRequest | None:
        """Return None."""
        return None

    def publish(self, status: object) -> None:
        """Show it to nobody."""


def rehearse(settings: Settings, request: RunRequest) -> Rehearsal:
    """Run one day as fast as possible and return what happened. Raises ConfigError, DataError, CalendarError."""
    with tempfile.TemporaryDirectory(prefix="velox-rehearsal-") as scratch:
        folder = Path(scratch)
        replay = prepare(settings, Paths(var=folder / "var", logs=folder / "logs"), request)
        instruments = day_instruments(replay)
        plan = session_plan(settings, replay, instruments)
        hosts = hosted_strategies(settings, replay.day.universe)
        charges = load_charges(settings.charges_path)
        schedule = charges.schedule(settings.broker.type.value, Product.MIS, replay.day.trading_date)
        clock, ledger, told = ReplayClock(plan.open_ms), MemoryLedger(), _Told()
        broker = SimulatedBroker(replay.day.universe, instruments=instruments, config=simulation_config(settings), book=None)
        journal = FileJournal(folder / _JOURNAL_FILE, write_every_events=_WRITE_EVERY_EVENTS)
        try:
            engine = assemble(
                plan,
                EnginePorts(
                    clock=clock,
                    feed=SimulatedMarket(ReplayFeed(replay.day, clock, 0.0), broker, clock),
                    broker=broker,
                    journal=journal,
                    ledger=ledger,
                    halt_file=JsonLinesHaltFile(folder / HALT_FILE),
                    control=_NoControl(),
                    alerts=told,
                    closer_lock=SoleCloser(),
                ),
                EngineRules(
                    limits=settings.risk.limits,
                    schedule=schedule,
                    instruments=instruments,
                    strategies=hosts,
                    epoch=ledger.acquire_lease("rehearsal"),
                    close_foreign=settings.engine.close_foreign,
                ),
            )
            engine.risk_manager.readiness.armed = True
            with watch_strategies(hosts):
                result = engine.session(plan).run()
            journal.flush()
            return Rehearsal(
                events=list(journal.events()),
                result=result,
                positions=[position for position in broker.positions() if position.quantity],
                alerts=told.titles,
                source=replay.day.source,
                synthetic=replay.day.synthetic,
            )
        finally:
            journal.close()
            broker.close()
