"""Whole days with the simulated broker called off the loop: the same decisions and fills as inline, and nothing lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from datetime import date
from pathlib import Path

import pytest

from tests.fakes.outside import FakeAlerts, FakeControl
from tests.fakes.rig import make_limits
from tests.fakes.stores import FakeHaltFile, FakeJournal
from velox_core.bootstrap import RunRequest, run_engine
from velox_core.brokers.answers import ReadBounds
from velox_core.brokers.faults import FaultPlan
from velox_core.brokers.off_loop import OffLoopBroker
from velox_core.brokers.sends import SendBounds
from velox_core.brokers.simulated import SimulatedBroker
from velox_core.brokers.simulated_market import SimulatedMarket
from velox_core.brokers.simulated_orders import SimulationConfig
from velox_core.calendar import load_market_rules
from velox_core.clock import ReplayClock
from velox_core.domain.charges import ChargeSchedule
from velox_core.domain.events import EventKind
from velox_core.domain.market.bars import DayColumns, MinuteRow
from velox_core.domain.market.ticks import Instrument, SecurityClass
from velox_core.engine.assembly import EnginePorts, EngineRules, assemble
from velox_core.engine.plan import SessionPlan
from velox_core.engine.strategy_host import HostedStrategy
from velox_core.engine_lock import SoleCloser
from velox_core.feeds.replay import ReplayFeed
from velox_core.feeds.synthetic import default_symbols, synthetic_day
from velox_core.journal.queries import JournalReader
from velox_core.ledger.memory import MemoryLedger
from velox_core.redis_server import EmbeddedRedis
from velox_core.settings import Paths, load_settings
from velox_core.strategies.opening_range import OpeningRangeBreakout
from velox_core.strategies.sma_cross import SmaCross

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "config" / "system_simulated.yaml"
DAY = date(2024, 1, 16)
MINUTE_MS = 60_000
# a busy machine is no broker that is slow: what is too old to leave, or not answered yet, would make another day of it
PATIENT_SENDS = SendBounds(answer_seconds=120.0, entry_wait_seconds=120.0, exit_wait_seconds=120.0, aside_seconds=120.0)
PATIENT_READS = ReadBounds(
    hurried_seconds=120.0, question_seconds=120.0, overdue_seconds=120.0, read_seconds=120.0, patience_seconds=120.0
)


class AnsweredFeed:
    """A market whose next minute comes only when everything that was sent before has been answered."""

    def __init__(self, market: SimulatedMarket, broker: OffLoopBroker) -> None:
        self._market = market
        self._broker = broker
        self.universe = market.universe

    @property
    def ended(self) -> bool:
        return self._market.ended

    def next_row(self, wait_seconds: float) -> MinuteRow | None:
        assert self._broker._sends.wait_until_answered(120)
        return self._market.next_row(wait_seconds)

    def hasten(self) -> None:
        self._market.hasten()


def trade(day: DayColumns, *, off_loop: bool, seed: int) -> FakeJournal:
    """Trade a day with the shipped strategies and return its journal."""
    universe = day.universe
    instruments = {s: Instrument(symbol=s, security_class=SecurityClass.CASH, tick_paise=5) for s in universe}
    config = SimulationConfig(seed=seed, capital_paise=10**12, latency_ms=50, slippage_bps=2)
    simulated = SimulatedBroker(universe, instruments=instruments, config=config, faults=FaultPlan())
    wrapped = OffLoopBroker(simulated, send_bounds=PATIENT_SENDS, read_bounds=PATIENT_READS) if off_loop else None
    first_ms, last_ms = day.rows[0].ts_ms, day.rows[-1].ts_ms
    clock, ledger, journal = ReplayClock(first_ms), MemoryLedger(), FakeJournal()
    market = SimulatedMarket(ReplayFeed(day, clock, 0.0), simulated, clock)
    plan = SessionPlan(
        trading_date=day.trading_date,
        universe=universe,
        open_ms=first_ms - MINUTE_MS,
        entries_from_ms=first_ms,
        entry_until_ms=last_ms - 30 * MINUTE_MS,
        flat_by_ms=last_ms - 20 * MINUTE_MS,
        hard_stop_ms=last_ms,
        tick_paise=(5,) * len(universe),
    )
    ports = EnginePorts(
        clock=clock,
        feed=AnsweredFeed(market, wrapped) if wrapped is not None else market,
        broker=wrapped or simulated,
        sends=wrapped,
        journal=journal,
        ledger=ledger,
        halt_file=FakeHaltFile(),
        control=FakeControl(),
        alerts=FakeAlerts(),
        closer_lock=SoleCloser(),
    )
    columns = tuple(range(len(universe)))
    strategies = (SmaCross("sma", {}), OpeningRangeBreakout("range", {}))
    rules = EngineRules(
        limits=make_limits(max_daily_loss_paise=20_000, max_position_size_paise=10**9),
        schedule=ChargeSchedule.flat(bps=3),
        instruments=instruments,
        strategies=tuple(HostedStrategy(strategy, columns, universe) for strategy in strategies),
        epoch=ledger.acquire_lease("test"),
    )
    engine = assemble(plan, ports, rules)
    engine.risk_manager.readiness.armed = True
    result = engine.session(plan).run()
    assert (result.flat, result.fault) == (True, "")
    if wrapped is not None:
        assert wrapped.close()
    return journal


def bodies(journal: FakeJournal, kind: EventKind, *without: str) -> list[dict[str, object]]:
    return [{key: value for key, value in body.items() if key not in without} for body in journal.bodies(kind)]


def by_id(items: list[dict[str, object]]) -> list[dict[str, object]]:
    return sorted(items, key=lambda body: str(body["client_order_id"]))


@pytest.mark.parametrize(("scenario", "seed"), [("crash", 1), ("crash", 2), ("calm", 3)])
def test_day_off_the_loop_decides_and_fills_as_the_same_day_inline(scenario: str, seed: int) -> None:
    session = load_market_rules(ROOT / "config" / "nse_calendar.yaml").calendar.session(DAY)
    assert session is not None
    day = synthetic_day(DAY, default_symbols(scenario), scenario, session, seed=seed)
    inline, off_loop = (trade(day, off_loop=choice, seed=seed) for choice in (False, True))
    for kind in (EventKind.INTENT, EventKind.DECISION):
        # the ledger's version is that of the moment: a fill's commit may come a step later
        assert bodies(off_loop, kind, "ledger_version") == bodies(inline, kind, "ledger_version")
    fills = by_id(bodies(inline, EventKind.FILL, "trade_id"))
    assert by_id(bodies(off_loop, EventKind.FILL, "trade_id")) == fills
    assert len(fills) > 3
    assert bodies(off_loop, EventKind.HALT) == bodies(inline, EventKind.HALT)
    ends = [sorted((str(b["client_order_id"]), str(b["state"])) for b in j.bodies(EventKind.ORDER)) for j in (inline, off_loop)]
    assert ends[0] == ends[1]


@pytest.fixture
def paths(tmp_path: Path) -> Iterator[Paths]:
    yield Paths(var=tmp_path, logs=tmp_path / "logs")
    EmbeddedRedis(tmp_path / "redis").stop()


@pytest.mark.slow
def test_paced_run_with_sends_off_the_loop_ends_flat_with_each_intent_at_the_broker_once(paths: Paths) -> None:
    settings = load_settings(CONFIG, {"VELOX__ENGINE__SENDS_OFF_LOOP": "true"})
    outcome = run_engine(settings, paths, RunRequest(date=DAY, speed=6_000.0, scenario="crash", fresh=True))
    assert (outcome.exit_code, outcome.flat, outcome.result.fault) == (0, True, "")
    with closing(JournalReader(f"sqlite:///{outcome.run.folder / 'journal.db'}")) as reader:
        run = reader.latest_run(DAY)
        assert run is not None
        assert run.run_key is not None
        assert reader.verify_chain(run.run_key) is None
        events = reader.events(run.run_key)
    intents = Counter(str(e.body["client_order_id"]) for e in events if e.kind is EventKind.INTENT)
    last = {str(e.body["client_order_id"]): str(e.body["state"]) for e in events if e.kind is EventKind.ORDER}
    assert set(intents.values()) == {1}
    assert set(last) == set(intents)
    assert set(last.values()) <= {"FILLED", "CANCELLED", "REJECTED"}


@pytest.mark.slow
def test_run_at_full_speed_sends_inline_whatever_is_configured(paths: Paths, caplog: pytest.LogCaptureFixture) -> None:
    settings = load_settings(CONFIG, {"VELOX__ENGINE__SENDS_OFF_LOOP": "true"})
    outcome = run_engine(settings, paths, RunRequest(date=DAY, speed=0.0, scenario="crash", fresh=True))
    assert outcome.flat
    assert "sends are inline at full speed" in caplog.text
