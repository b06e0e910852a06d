"""The composition of a guard: one run of the simulated broker, opened beside its engine, with sessions of its own.

- Its own connection to the broker's book, its own market data (the run's, anchored to the engine's time), its own connection
  to the ledger. Nothing is shared with the engine but what both would share with a real broker.
- Nothing is created: no server is started, no journal made, and a run without a broker's book is not opened.
- What a run trades is read from its status: date, data or scenario, speed. By which limits it is judged is this process' own
  configuration.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing, suppress
from datetime import date
from functools import partial
from pathlib import Path

from velox_core.bootstrap import RunRequest, day_instruments, prepare, session_plan
from velox_core.brokers.book import SqliteBook
from velox_core.brokers.charges import load_charges
from velox_core.brokers.followed_market import FollowedMarket
from velox_core.brokers.simulated import SimulatedBroker
from velox_core.closing_record import GUARD, leave_closing
from velox_core.control import FileControl, LedgerControl
from velox_core.domain.errors import BrokerError, DataError, VeloxError
from velox_core.domain.halts import active_halts
from velox_core.domain.orders import Actor, Product
from velox_core.domain.time import MS_PER_SECOND
from velox_core.engine.plan import SessionPlan
from velox_core.engine_lock import ENGINE_LOCK, LockView
from velox_core.flat_proof import ENDED, FlattenState
from velox_core.guard import GUARD_NAME, GuardRules, Verdict, loss_trigger_paise
from velox_core.guard_watch import GuardedAccount
from velox_core.halt_file import HALT_FILE, JsonLinesHaltFile
from velox_core.ledger.redis import RedisLedger
from velox_core.outside import Outside, OutsideRequest, open_outside
from velox_core.ports import Alerts
from velox_core.redis_server import EmbeddedRedis
from velox_core.runs import RunFolder, RunState, read_state
from velox_core.settings import Paths, Settings, StopPolicy
from velox_core.simulated_account import BOOK_READ_AT_MS, BROKER_BOOK, simulation_config

PAUSE_SECONDS_MAX = 5.0

_log = logging.getLogger("velox.emergency")


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
    settings: Settings,
    paths: Paths,
    folder: Path,
    status: Mapping[str, object],
    *,
    alerts: Alerts,
    bring_in: Callable[[RunFolder, date, Path], str],
    stack: ExitStack,
) -> GuardedAccount:
    """Open a run as its guard needs it.

    Args:
        folder: the run's.
        status: what the engine published last; it names the data.
        alerts: told what a person must know.
        bring_in: imports the file of what a closing did into a run's journal; returns why it could not, '' when it did.
        stack: closes what is opened here.
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
    broker = SimulatedBroker(
        day.universe, instruments=instruments, config=simulation_config(settings, day.bar_minutes), book=SqliteBook(book)
    )
    stack.callback(broker.close)
    broker.advance(BOOK_READ_AT_MS)
    ledger = stack.enter_context(closing(RedisLedger(ledger_server(settings, paths), run.scope.key, day.trading_date)))
    by_ledger = LedgerControl(ledger)
    on = day.trading_date

    def begin(verdict: Verdict, now_ms: int) -> GuardFlattener:
        files = ExitStack()
        request = _closing_request(run, on, verdict, ledger)
        outside = files.enter_context(open_outside(settings, request, alerts, broker=broker))
        return GuardFlattener(outside, files, partial(bring_in, run, on), run)

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
        schedule=load_charges(settings.charges_path).schedule(settings.broker.type.value, Product.MIS, on),
        product=Product.MIS,
        previous_closes=dict(zip(day.universe, day.previous_close_paise, strict=False)),
        age_seconds=_age_seconds,
        holds=lambda newest: _holds(settings, folder, newest),
        unfinished=lambda: _is_unfinished(folder),
        flattener=begin,
        alerts=alerts,
    )


class GuardFlattener:
    """One closing of a run by the guard: the flattener of `velox flatten`, with a sign of life at each step.

    Args:
        outside: the flattening, open.
        stack: closes it.
        bring_in: has what was done imported into the run's journal, given the file; returns why that failed, '' when not.
        run: in whose folder it leaves what it came to.
    """

    def __init__(self, outside: Outside, stack: ExitStack, bring_in: Callable[[Path], str], run: RunFolder) -> None:
        self._outside = outside
        self._stack = stack
        self._bring_in = bring_in
        self._run = run

    def step(self, now_ms: int) -> FlattenState:
        """Go one step further at engine time `now_ms`."""
        state = self._outside.flattener.step(now_ms)
        self._outside.flattener.news()  # the flattener logs each of them by itself
        self._outside.sign.give({"state": state.value, "by": GUARD_NAME})
        if state in ENDED:
            self._leave_record()
        return state

    def close(self) -> None:
        """Close its files, and have what was done imported; what cannot be stays for the run's next engine."""
        file = self._outside.journal.path
        self._stack.close()
        problem = self._bring_in(file)
        if problem:
            _log.error("[GUARD] not in the journal yet, the next engine of the run brings it in: %s", problem)
            if self._outside.flattener.ended:
                self._leave_record(problem)

    def _leave_record(self, not_imported: str = "") -> None:
        run, result = self._run, self._outside.flattener.result()
        leave_closing(run.folder, result, run_id=run.run_id, tool=GUARD, by=GUARD_NAME, not_imported=not_imported)


def _closing_request(run: RunFolder, on: date, verdict: Verdict, ledger: RedisLedger) -> OutsideRequest:
    return OutsideRequest(
        run=run,
        trading_date=on,
        reason=verdict.text,
        by=GUARD_NAME,
        halt_id=f"{on:%Y%m%d}-{verdict.halt_kind.value}-G{uuid.uuid4().hex[:12]}",
        actor=Actor.GUARD,
        kind=verdict.halt_kind,
        latches={"ledger": ledger.latch_halt},
    )


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


def _age_seconds(status: Mapping[str, object]) -> float:
    """Return how long ago a status was written, by the machine's clock: the market of a dead engine went on meanwhile."""
    wall_ms = status.get("wall_ms")
    return max(time.time() - wall_ms / MS_PER_SECOND, 0.0) if isinstance(wall_ms, int) else 0.0


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
