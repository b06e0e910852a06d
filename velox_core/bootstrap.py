"""The composition root: settings become adapters, adapters become an engine, and the engine runs one day.

- The only module that knows which broker, feed, ledger and journal there are.
- A replay lives in a world of its own (`Scope` with a run id): it can neither write nor clear an account's halt.
- Live trading is not reachable from here yet: a live broker type is refused with what is missing.
- A store that is down leaves the engine reduce-only; only bad configuration or data stops it from starting.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path

from velox_core.alert_setup import open_alerts
from velox_core.brokers.book import SqliteBook
from velox_core.brokers.charges import load_charges
from velox_core.brokers.off_loop import OffLoopBroker
from velox_core.brokers.paced import engines_lock
from velox_core.brokers.rate_limit import RateLimit
from velox_core.brokers.simulated import SimulatedBroker
from velox_core.brokers.simulated_market import SimulatedMarket
from velox_core.calendar import MarketRules, load_market_rules
from velox_core.clock import ReplayClock, WallClock
from velox_core.control import GUARD_FILE, CombinedControl, FileControl, LedgerControl, NamedControl, process_folder
from velox_core.domain.errors import (
    EXIT_DONE,
    EXIT_NOT_FLAT,
    EXIT_OPERATING_ERROR,
    ConfigError,
    DataError,
    JournalUnavailable,
)
from velox_core.domain.events import EventKind
from velox_core.domain.market.bars import DayColumns
from velox_core.domain.market.sessions import SessionDay, trading_window
from velox_core.domain.market.ticks import Instrument
from velox_core.domain.money import rupees_text
from velox_core.domain.orders import Product
from velox_core.domain.scope import Scope
from velox_core.domain.time import MS_PER_SECOND
from velox_core.engine.assembly import Engine, EnginePorts, EngineRules, assemble
from velox_core.engine.guard_presence import GuardPresence
from velox_core.engine.parts import SessionResult
from velox_core.engine.plan import OnStop, SessionPlan
from velox_core.engine.strategy_watch import watch_strategies
from velox_core.engine_lock import own_holder
from velox_core.feeds.load import load_day
from velox_core.feeds.synthetic import default_symbols, synthetic_day
from velox_core.feeds.tick_replay import replay_feed
from velox_core.guard import beat_key
from velox_core.halt_file import HALT_FILE, JsonLinesHaltFile
from velox_core.journal.run import RunIdentity
from velox_core.metrics_setup import open_metrics
from velox_core.ports import Alerts, Broker, Journal, Lease, Severity
from velox_core.redis_server import EmbeddedRedis
from velox_core.run_stores import RunStores, open_stores
from velox_core.runs import RunFolder, RunState, choose_run, write_state
from velox_core.settings import BrokerType, Paths, Settings
from velox_core.simulated_account import BROKER_BOOK, simulation_config
from velox_core.stop_signals import StopSignals, stop_signals
from velox_core.strategy_loading import hosted_strategies

RECONCILE_SECONDS = 30.0
FAST_HEARTBEAT_SECONDS = 0.2  # a day at full speed takes seconds: its viewer wants to see it move

_log = logging.getLogger("velox.system")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """What a person asked for; None leaves it to the settings.

    Attributes:
        date: the trading date.
        speed: engine seconds per wall second, 0.0 for as fast as possible.
        data: a file or folder of bars.
        scenario: synthetic bars instead of data.
        fresh: begin a new run although an unfinished one of the same date could be taken up.
        run_id: exactly this run, as an earlier step of the same day decided.
        exits_only: why no entry may be made, '' when entries are as the stores and the gate say.
    """

    date: date
    speed: float | None = None
    data: Path | None = None
    scenario: str | None = None
    fresh: bool = False
    run_id: str | None = None
    exits_only: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionOutcome:
    """How a run ended. `exit_code` is the process' own; `facts` is what a report says beside the journal."""

    run: RunFolder
    result: SessionResult
    flat: bool
    halted: bool
    exit_code: int
    facts: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayDay:
    """A replay ready to run: what, where and by which rules. Of `data` and `scenario` one says where its bars are from."""

    day: DayColumns
    session: SessionDay
    rules: MarketRules
    run: RunFolder
    speed: float
    data: Path | None = None
    scenario: str | None = None


def load_rules(settings: Settings) -> MarketRules:
    """Read calendar, tick sizes and instruments. Raises CalendarError."""
    return load_market_rules(settings.calendar_path)


def prepare(settings: Settings, paths: Paths, request: RunRequest) -> ReplayDay:
    """Load what a replay needs and decide its run. Raises ConfigError, DataError, CalendarError."""
    if settings.broker.type is not BrokerType.SIMULATED:
        raise ConfigError(
            f"{settings.source}: broker type {settings.broker.type.value} cannot be run yet: this version trades on the "
            "simulated broker only. Set system.broker.type to simulated"
        )
    rules = load_rules(settings)
    on = request.date
    session = rules.calendar.session(on)
    if session is None:
        raise DataError(f"{on} is no trading day: {rules.calendar.closed_reason(on)}; choose another --date")
    scenario = request.scenario or (None if request.data else settings.feed.scenario)
    path = None if scenario else request.data or settings.feed.path
    if scenario:
        symbols = settings.feed.symbols or default_symbols(scenario, settings.feed.scenario_symbols)
        day = synthetic_day(on, symbols, scenario, session, seed=settings.simulation.seed)
    else:
        if path is None:
            raise ConfigError(f"{settings.source}: no feed.path and no scenario; give --data PATH or --scenario NAME")
        day = load_day(
            path,
            on,
            rules.calendar,
            symbols=settings.feed.symbols,
            options=settings.feed.reading,
            security_class=rules.instruments.security_class,
            tick_table=rules.tick_table,
        )
    stem = f"{on}-{scenario}" if scenario else f"{on}"
    account = Scope(broker_type="simulated", account=settings.account)
    run = choose_run(paths.var, account, stem, fresh=request.fresh, run_id=request.run_id)
    speed = settings.feed.speed if request.speed is None else request.speed
    return ReplayDay(day=day, session=session, rules=rules, run=run, speed=speed, data=path, scenario=scenario)


def session_plan(settings: Settings, replay: ReplayDay, instruments: dict[str, Instrument]) -> SessionPlan:
    """Return the day's plan: the earliest end of any class in the universe rules. Raises ConfigError."""
    market = settings.market
    try:
        windows = [
            trading_window(
                replay.session,
                security_class,
                entry_until=market.entry_until,
                flat_by=market.flat_by,
                hard_stop=market.hard_stop,
                margin_ms=market.margin_seconds * MS_PER_SECOND,
            )
            for security_class in {instrument.security_class for instrument in instruments.values()}
        ]
    except ValueError as error:
        raise ConfigError(f"{settings.source}: market: {error}") from error
    day = replay.day
    return SessionPlan(
        trading_date=day.trading_date,
        universe=day.universe,
        open_ms=min(window.entries_from_ms for window in windows),
        entries_from_ms=max(window.entries_from_ms for window in windows),
        entry_until_ms=min(window.entry_until_ms for window in windows),
        flat_by_ms=min(window.flat_by_ms for window in windows),
        hard_stop_ms=min(window.hard_stop_ms for window in windows),
        tick_paise=tuple(instruments[symbol].tick_paise for symbol in day.universe),
        on_stop=OnStop(settings.engine.on_stop.value),
        heartbeat_seconds=min(settings.engine.heartbeat_seconds, 0.5)
        if replay.speed != 1.0
        else settings.engine.heartbeat_seconds,
        reconcile_seconds=RECONCILE_SECONDS,
        source=day.source,
        granularity=day.granularity,
        synthetic=day.synthetic,
        on_ticks=day.ticks is not None,
    )


def day_instruments(replay: ReplayDay) -> dict[str, Instrument]:
    """Return the universe's instruments as of the date. Without a previous close the first price stands in for it."""
    day = replay.day
    first_prices = [0] * len(day.universe)
    for row in day.rows:
        for column, price in enumerate(row.opens):
            if price and not first_prices[column]:
                first_prices[column] = price
        if all(first_prices):
            break
    closes = day.previous_close_paise or (0,) * len(day.universe)
    bands = day.bands_paise or ((0, 0),) * len(day.universe)
    instruments = {}
    for column, symbol in enumerate(day.universe):
        known = replay.rules.instruments.instrument(symbol, day.trading_date, closes[column] or first_prices[column])
        instruments[symbol] = replace(known, lower_band_paise=bands[column][0], upper_band_paise=bands[column][1])
    return instruments


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenRun:
    """A run with its stores open and its engine joined, caught up and reconciled, but not yet armed."""

    settings: Settings
    replay: ReplayDay
    plan: SessionPlan
    engine: Engine
    stores: RunStores

    @property
    def journal(self) -> Journal:
        """Return the run's journal."""
        return self.stores.journal

    @property
    def run(self) -> RunFolder:
        """Return the run's folder and scope."""
        return self.replay.run


@contextmanager
def open_run(settings: Settings, paths: Paths, request: RunRequest) -> Iterator[OpenRun]:
    """Open one run: load its day, open its stores, take the lease, and catch the engine up. Closes everything after.

    Raises: ConfigError, DataError, CalendarError for what cannot be run; VeloxError when another engine trades the run.
    """
    replay = prepare(settings, paths, request)
    instruments = day_instruments(replay)
    plan = session_plan(settings, replay, instruments)
    hosts = hosted_strategies(settings, replay.day.universe)
    on = replay.day.trading_date
    schedule = load_charges(settings.charges_path).schedule(settings.broker.type.value, Product.MIS, on)
    run = replay.run
    run.folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        alerts = stack.enter_context(open_alerts(settings, label=f"replay {run.run_id}"))
        identity = run_identity(settings, replay)
        stores = open_stores(settings, paths, run, identity, stack, alerts)
        metrics = stack.enter_context(open_metrics(settings, identity, run.scope, stores.journal, alerts))
        stores = replace(stores, journal=metrics.journal)
        clock = ReplayClock(plan.open_ms)
        simulated = SimulatedBroker(
            replay.day.universe,
            instruments=instruments,
            config=simulation_config(settings, replay.day.bar_minutes),
            book=SqliteBook(run.folder / BROKER_BOOK),
        )
        stack.callback(simulated.close)
        off_loop = _off_loop(settings, replay, simulated, stores.lease, stack)
        if off_loop is not None:
            metrics.watch_sends(off_loop.waiting)
        to_process = FileControl(process_folder(paths.var, own_holder()))
        control = CombinedControl(LedgerControl(stores.ledger), FileControl(run.folder), to_process)
        control.forget_requests()
        engine = assemble(
            plan,
            EnginePorts(
                clock=clock,
                feed=SimulatedMarket(replay_feed(replay.day, clock, replay.speed), simulated, clock, on_ticks=plan.on_ticks),
                broker=off_loop or simulated,
                sends=off_loop,
                lease=stores.lease,
                journal=stores.journal,
                ledger=stores.ledger,
                halt_file=JsonLinesHaltFile(run.folder / HALT_FILE),
                control=NamedControl(
                    metrics.control(control), published_facts(settings, replay), alerts.counters, metrics.counters
                ),
                alerts=alerts,
                closer_lock=engines_lock(stores.closer_lock, off_loop.rate if off_loop else None),
                revive=None if settings.stores.redis.url else EmbeddedRedis(paths.var / "redis").start,
                guard=guard_presence(settings, paths, replay.speed, alerts),
            ),
            EngineRules(
                limits=settings.risk.limits,
                schedule=schedule,
                instruments=instruments,
                strategies=hosts,
                epoch=stores.epoch,
                close_foreign=settings.engine.close_foreign,
            ),
        )
        exits_only = request.exits_only or stores.exits_only
        if exits_only:
            engine.risk_manager.readiness.stopping = f"exits only: {exits_only}"
        yield OpenRun(settings=settings, replay=replay, plan=plan, engine=engine, stores=stores)


def guard_presence(settings: Settings, paths: Paths, speed: float, alerts: Alerts) -> GuardPresence | None:
    """Return the account's guard as its engine sees it; None where none is wanted, or at full speed, which none watches."""
    if not settings.guard.enabled or speed <= 0:
        return None
    account = Scope(broker_type=settings.broker.type.value, account=settings.account)
    file = FileControl(paths.var / account.folder, status_file=GUARD_FILE)

    def newest_beat() -> object:
        status = file.status()
        return None if status is None else beat_key(status)

    return GuardPresence(newest_beat, alerts, silent_seconds=settings.guard.heartbeat_timeout_seconds)


def _off_loop(settings: Settings, replay: ReplayDay, broker: Broker, lease: Lease, stack: ExitStack) -> OffLoopBroker | None:
    """Return the broker called off the loop, where that is wanted. At full speed minutes would pass before an answer comes."""
    if not settings.engine.sends_off_loop:
        return None
    if replay.speed <= 0:
        _log.warning("[SESSION] engine.sends_off_loop needs a paced run (--speed 1.0): sends are inline at full speed")
        return None
    off_loop = OffLoopBroker(broker, rate=RateLimit(settings.engine.orders_per_second), lease=lease)
    stack.callback(off_loop.close)
    return off_loop


def run_engine(settings: Settings, paths: Paths, request: RunRequest, signals: StopSignals | None = None) -> SessionOutcome:
    """Run one day in this process, from the first minute (or where an earlier process stopped) to flat.

    `signals` are the caller's, who reports under them too; without any they are this run's own.
    Raises: what `open_run` raises; nothing once trading has begun.
    """
    if signals is None:
        with stop_signals() as own:
            return run_engine(settings, paths, request, own)
    with open_run(settings, paths, request) as opened:
        opened.engine.risk_manager.readiness.armed = True  # a simulated run arms itself
        return _trade(opened, signals)


def run_identity(settings: Settings, replay: ReplayDay) -> RunIdentity:
    """Return how the journal names the run."""
    return RunIdentity(
        scope_key=replay.run.scope.key,
        trading_date=replay.day.trading_date,
        run_id=replay.run.run_id,
        mode="replay",
        config_hash=settings.config_hash,
        data_source=replay.day.source,
        started_wall_ms=WallClock().now_ms(),
    )


def published_facts(settings: Settings, replay: ReplayDay) -> dict[str, object]:
    """Return what every status of a run says beside the engine's own words: what a guard needs to watch the run."""
    return {
        "run_id": replay.run.run_id,
        "started": own_holder().started,  # with the process id, which process speaks
        "speed": replay.speed,  # engine seconds per second; 0.0 is as fast as possible
        "data": "" if replay.data is None else str(replay.data.resolve()),
        "scenario": replay.scenario or "",
        "config_hash": settings.config_hash,
    }


def _trade(opened: OpenRun, signals: StopSignals) -> SessionOutcome:
    run, plan, engine, journal = opened.run, opened.plan, opened.engine, opened.journal
    write_state(run.folder, RunState.BEGUN)
    journal.append(EventKind.SESSION, plan.open_ms, {"phase": "OPENED", "epoch": opened.stores.epoch, "pid": os.getpid()})
    if (day := opened.replay.day).drops:
        counts = {"dropped": day.rows_by_rule(kept=False), "noted": day.rows_by_rule(kept=True)}
        journal.append(EventKind.SESSION, plan.open_ms, {"phase": "DATA", **counts})
    session = engine.session(replace(plan, resume_after_ms=engine.resumed_ms))
    _log.info(
        "[SESSION] %s run %s on %s%s, %s bars, loss limit %s, pid %s", plan.trading_date, run.run_id, plan.source,
        " (SYNTHETIC)" if plan.synthetic else "", opened.replay.day.bar_count,
        rupees_text(opened.settings.risk.limits.loss_limit_paise), os.getpid(),
    )  # fmt: skip
    for drop in opened.replay.day.drops:
        _log.warning("[DATA] %s: %s, rows: %s, e.g. %s", plan.source, drop.rule, drop.count, drop.shown)
    signals.tell(session.request_stop)
    with watch_strategies(engine.rules.strategies):
        result = session.run()
    exposure = engine.emergency.broker_exposure()
    flat = result.flat and exposure == []
    held = bool(result.stopped) and plan.on_stop is OnStop.HOLD
    if not flat:
        _tell_not_flat(engine, "; ".join(exposure or ["its book could not be read"]), held=held)
    state = RunState.ENDED_NOT_FLAT if not flat else RunState.ENDED_HALTED if result.halted else RunState.ENDED
    exit_code = EXIT_NOT_FLAT if not (flat or held) else EXIT_OPERATING_ERROR if result.fault else EXIT_DONE
    write_state(run.folder, RunState.BEGUN if held else state)
    journal.append(EventKind.SESSION, plan.open_ms, {"phase": "CLOSED", "exit_code": exit_code, "flat": flat})
    engine.order_manager.commit_journal()
    _end_run(opened, state)
    return SessionOutcome(
        run=run,
        result=result,
        flat=flat,
        halted=result.halted,
        exit_code=exit_code,
        facts=_facts(opened, result, flat=flat, exit_code=exit_code),
    )


def _tell_not_flat(engine: Engine, left: str, *, held: bool) -> None:
    if held:
        text = f"on_stop is hold: {left} at the broker, and no engine watches it. velox run takes the run up again."
        _log.warning("[SESSION] stopped, positions are KEPT. %s", text)
        engine.ports.alerts.send(Severity.WARNING, "Stopped, positions are kept", text)
    else:
        _log.error("[SESSION] NOT FLAT at the broker: %s", left)
        engine.ports.alerts.send(
            Severity.CRITICAL, "NOT FLAT, and the engine has ended", f"At the broker: {left}. Close it by hand."
        )


def _end_run(opened: OpenRun, state: RunState) -> None:
    records = opened.stores.records
    if records is None:
        return
    try:
        records.finish(state.value)
    except JournalUnavailable as error:
        _log.error("[JOURNAL] how the run ended could not be noted: %s", error)


def _facts(opened: OpenRun, result: SessionResult, *, flat: bool, exit_code: int) -> dict[str, object]:
    """Return what a report says beside the journal."""
    settings, plan, day = opened.settings, opened.plan, opened.replay.day
    return {
        "trading_date": plan.trading_date.isoformat(),
        "run_id": opened.run.run_id,
        "environment": settings.environment,
        "broker": settings.broker.type.value,
        "account": settings.account,
        "config_hash": settings.config_hash,
        "loss_limit_paise": settings.risk.limits.loss_limit_paise,
        "synthetic": plan.synthetic,
        "source": plan.source,
        "granularity": plan.granularity,
        "bars": day.bar_count,
        "ticks": day.tick_count,
        "dropped_rows": day.rows_by_rule(kept=False),
        "data_quality": day.quality_json(),
        "flat": flat,
        "halted": result.halted,
        "stopped": result.stopped,
        "fault": result.fault,
        "exit_code": exit_code,
    }
