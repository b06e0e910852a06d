"""The composition of a guard: one run of the simulated broker, opened beside its engine, with sessions of its own.

- Its own connection to the broker's book, its own market data (the run's, anchored to the engine's time), its own connection
  to the ledger. Nothing is shared with the engine but what both would share with a real broker.
- Nothing is created: no server is started, no journal made, and a run without a broker's book is not opened.
- What a run trades is read from its status: date, data or scenario, speed. By which limits it is judged is this process' own
  configuration.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, closing, suppress
from datetime import date
from pathlib import Path

from velox_core.bootstrap import BOOK_READ_AT_MS, RunRequest, day_instruments, prepare, session_plan, simulation_config
from velox_core.brokers.book import SqliteBook
from velox_core.brokers.charges import load_charges
from velox_core.brokers.followed_market import FollowedMarket
from velox_core.brokers.simulated import SimulatedBroker
from velox_core.control import FileControl, LedgerControl
from velox_core.domain.errors import BrokerError, DataError, VeloxError
from velox_core.domain.halts import active_halts
from velox_core.domain.orders import Product
from velox_core.domain.time import MS_PER_SECOND
from velox_core.engine.plan import SessionPlan
from velox_core.engine_lock import LockView
from velox_core.guard import GUARD_NAME, GuardRules, Verdict, loss_trigger_paise
from velox_core.guard_watch import Flattener, GuardedAccount
from velox_core.halt_file import HALT_FILE, JsonLinesHaltFile
from velox_core.ledger.redis import RedisLedger
from velox_core.ports import Alerts
from velox_core.redis_server import EmbeddedRedis
from velox_core.run_stores import ENGINE_LOCK
from velox_core.runs import RunState, read_state
from velox_core.settings import Paths, Settings, StopPolicy

PAUSE_SECONDS_MAX = 5.0
BROKER_BOOK = "broker.db"


def ledger_server(settings: Settings, paths: Paths) -> str:
    """Return the ledger's server as it is, running or not."""
    return settings.stores.redis.url or EmbeddedRedis(paths.var / "redis").url


def guard_rules(settings: Settings, plan: SessionPlan) -> GuardRules:
    """Return by what a day is judged."""
    guard, limits = settings.guard, settings.risk.limits
    return GuardRules(
        heartbeat_timeout_seconds=guard.heartbeat_timeout_seconds,
        act_seconds=guard.act_seconds,
        pause_seconds_max=min(PAUSE_SECONDS_MAX, guard.heartbeat_timeout_seconds / 2),
        loss_limit_paise=limits.loss_limit_paise,
        loss_trigger_paise=loss_trigger_paise(limits.loss_limit_paise, guard.loss_margin_bps),
        late_ms=plan.flat_by_ms + guard.flat_by_margin_seconds * MS_PER_SECOND,
        price_age_ms_max=limits.mark_age_ms_max,
    )


def guarded_run(
    settings: Settings, paths: Paths, folder: Path, status: Mapping[str, object], alerts: Alerts, stack: ExitStack
) -> GuardedAccount:
    """Open a run as its guard needs it; `stack` closes it.

    Args:
        folder: the run's.
        status: what the engine published last; it names the data.
        alerts: told what a person must know.
    Raises: BrokerError without a book; ConfigError, DataError, CalendarError when the run's day cannot be loaded.
    """
    request = _request(folder, status)
    replay = prepare(settings, paths, request)
    instruments = day_instruments(replay)
    plan = session_plan(settings, replay, instruments)
    day, run = replay.day, replay.run
    book = folder / BROKER_BOOK
    if not book.is_file():
        raise BrokerError(f"run {folder.name} has no broker's book ({book}) yet")
    broker = SimulatedBroker(day.universe, instruments=instruments, config=simulation_config(settings), book=SqliteBook(book))
    stack.callback(broker.close)
    broker.advance(BOOK_READ_AT_MS)
    ledger = stack.enter_context(closing(RedisLedger(ledger_server(settings, paths), run.scope.key, day.trading_date)))
    by_ledger = LedgerControl(ledger)

    def heard_by_ledger() -> Mapping[str, object] | None:
        with suppress(VeloxError):
            return by_ledger.status()
        return None

    return GuardedAccount(
        name=run.run_id,
        speed=replay.speed,
        rules=guard_rules(settings, plan),
        routes=(heard_by_ledger, FileControl(folder).status),
        book=broker,
        feed=FollowedMarket(day, broker),
        schedule=load_charges(settings.charges_path).schedule(settings.broker.type.value, Product.MIS, day.trading_date),
        product=Product.MIS,
        previous_closes=dict(zip(day.universe, day.previous_close_paise, strict=False)),
        holds=lambda newest: _holds(settings, folder, newest),
        unfinished=lambda: _is_unfinished(folder),
        flattener=lambda verdict, now_ms: _flattener(settings, paths, folder, verdict),
        alerts=alerts,
    )


def _flattener(settings: Settings, paths: Paths, folder: Path, verdict: Verdict) -> Flattener:
    raise VeloxError("not joined yet")


def _request(folder: Path, status: Mapping[str, object]) -> RunRequest:
    """Return the request that a run was begun with, by its status. Raises DataError when it does not say."""
    speed, data, scenario = status.get("speed"), status.get("data"), status.get("scenario")
    try:
        on = date.fromisoformat(str(status.get("trading_date")))
    except ValueError as error:
        raise DataError(f"the status of run {folder.name} names no date: {error}") from error
    if not isinstance(speed, int | float) or not (data or scenario):
        raise DataError(f"the status of run {folder.name} does not say what it trades on; this guard cannot follow it")
    return RunRequest(
        date=on,
        speed=float(speed),
        data=Path(str(data)) if data else None,
        scenario=str(scenario) if scenario else None,
        run_id=folder.name,
    )


def _holds(settings: Settings, folder: Path, status: Mapping[str, object]) -> bool:
    """Return whether an engine ended by itself and was to keep its positions."""
    ended = status.get("state") == "DONE" and settings.engine.on_stop is StopPolicy.HOLD
    return ended and read_state(folder) is RunState.BEGUN


def _is_unfinished(folder: Path) -> bool:
    """Return whether a guard's halt stands while no process has the run. What cannot be looked at is not."""
    try:
        if LockView(folder / ENGINE_LOCK).holder() is not None:
            return False
    except VeloxError:
        return False
    return any(halt.by == GUARD_NAME for halt in active_halts(JsonLinesHaltFile(folder / HALT_FILE).records()))
