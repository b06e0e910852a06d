"""An account from outside its engine: settings and a run become the ports of a flattening. For commands and the guard.

- Light on purpose: no SQL, no Redis, no Prefect and no feed is imported here; what a person waits for is the first request.
- The account's engine is known by the kernel lock that it holds and by the status that it writes; a closer that is no engine
  leaves a sign of life of its own in the run's folder while it works (`flatten-<pid>.json`).
- Engine time goes on where the run was: from the newest time that its status or its broker's book knows, in real seconds.
- What earlier processes of the run sent is read from its emergency files and its journal before the first send.
- What is sent is written to an emergency file of this process, synced before it leaves; `operations.flatten` has it imported.
- Live brokers are not reachable from here yet: they are refused with what to do.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import Final

import orjson

from velox_core.brokers.book import newest_ms
from velox_core.brokers.charges import load_charges
from velox_core.brokers.paced import PacedBroker, PacedLock
from velox_core.brokers.rate_limit import RateLimit
from velox_core.calendar import load_instruments
from velox_core.closing_progress import read_progress
from velox_core.control import STATUS_FILE, FileControl
from velox_core.domain.errors import CalendarError, ConfigError, JournalUnavailable, VeloxError
from velox_core.domain.events import Body, EventKind, JournalEvent
from velox_core.domain.halts import HaltKind, HaltRecord
from velox_core.domain.market.ticks import Instrument, SecurityClass
from velox_core.domain.orders import EPOCHS_PER_DATE_MAX, Actor, Product
from velox_core.domain.time import MS_PER_SECOND, ist_midnight_ms
from velox_core.engine_lock import CLOSER_LOCK, ENGINE_LOCK, CloserLockFile, LockView, end_holder
from velox_core.flatten_ports import BOUND_MS, EngineWord, FlattenPorts, FlattenRules
from velox_core.flattening import Flattener
from velox_core.halt_file import HALT_FILE, JsonLinesHaltFile
from velox_core.journal.file import FileJournal
from velox_core.journal.recall import recall_run
from velox_core.ledger.memory import MemoryLedger
from velox_core.ports import Alerts, Broker, LockHolder
from velox_core.runs import JOURNAL_DATABASE, STATE_FILE, RunFolder
from velox_core.settings import BrokerType, Settings
from velox_core.simulated_account import BROKER_BOOK, SimulatedAccount, simulation_config
from velox_core.take_over import ACKNOWLEDGED_KEY, TakeOverPorts, TakeOverResult, take_over

LIVE_REFUSED: Final = (
    "this version closes positions of the simulated broker only. Nothing was done: close the positions in the broker's app, "
    "and cancel what works there"
)
TAKE_OVER_ACKNOWLEDGE_SECONDS: Final = 3.0  # a living engine looks for halts twice a second
SIGN_OF_LIFE_SECONDS_MAX: Final = 15.0
SIGN_INTERVAL_SECONDS: Final = 1.0
SEQUENCES_PER_PROCESS: Final = 1_000  # orders of one process; ids of processes that begin in one epoch stay apart
_SLOT_SECONDS: Final = 9  # of the wall's day, so that a day has fewer of them than there are epochs


class OutsideClock:
    """Engine time of a run that nobody drives: it goes on in real seconds from the newest time that is known."""

    def __init__(self, start_ms: int, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._start_ms = start_ms
        self._started = monotonic()

    def now_ms(self) -> int:
        """Return engine time in epoch milliseconds."""
        return self._start_ms + int((self._monotonic() - self._started) * MS_PER_SECOND)

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return self._monotonic()

    def reach(self, known_ms: int) -> None:
        """Go on from a time that is known to have been reached, unless it is behind."""
        self._start_ms += max(known_ms - self.now_ms(), 0)


class OutsideJournal:
    """What this process does, in a file of its own that is made when it is needed. Reads nothing back.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._waiting: list[tuple[EventKind, int, Body]] = []
        self._file: FileJournal | None = None

    def append(self, kind: EventKind, ts_ms: int, body: Body) -> None:
        """Add one event."""
        self._waiting.append((kind, ts_ms, body))

    def commit(self) -> None:
        """Make everything durable. Raises JournalUnavailable; the events stay, in order."""
        if not self._waiting and self._file is None:
            return
        if self._file is None:
            self._file = FileJournal(self.path, fsync=True)
        for kind, ts_ms, body in self._waiting:
            self._file.append(kind, ts_ms, body)
        self._waiting.clear()
        self._file.commit()

    def events(self, kinds: Iterable[EventKind] | None = None) -> Iterator[JournalEvent]:
        """Raise JournalUnavailable: what the run's journal holds is not read here."""
        raise JournalUnavailable("this process reads no journal")

    def newest_halt(self) -> int:
        """Raise JournalUnavailable, as `events` does."""
        raise JournalUnavailable("this process reads no journal")

    def close(self) -> None:
        """Let the file go, so that it can be imported."""
        file, self._file = self._file, None
        if file is not None:
            file.close()


class SignOfLife:
    """That a closer which is no engine works: a file that it writes while it does."""

    def __init__(self, folder: Path, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._path = folder / f"flatten-{os.getpid()}.json"
        self._monotonic = monotonic
        self._next = 0.0

    def give(self, facts: Mapping[str, object]) -> None:
        """Write it, at most once a second. Never raises."""
        if self._monotonic() >= self._next:
            self._next = self._monotonic() + SIGN_INTERVAL_SECONDS
            with suppress(OSError, TypeError):
                part = self._path.with_suffix(".part")
                part.write_bytes(orjson.dumps({"pid": os.getpid(), "wall_ms": time.time_ns() // 1_000_000, **facts}))
                part.replace(self._path)

    def end(self) -> None:
        """Remove it. Never raises."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)


def living_closers(folder: Path) -> set[int]:
    """Return the ids of the closers of a run that gave a sign of life a moment ago."""
    living = set()
    for path in folder.glob("flatten-*.json"):
        with suppress(OSError, ValueError, KeyError, TypeError):
            body = orjson.loads(path.read_bytes())
            if time.time() - int(body["wall_ms"]) / 1_000 <= SIGN_OF_LIFE_SECONDS_MAX:
                living.add(int(body["pid"]))
    return living


class RunEngine:
    """The engine of one run, seen from outside: `EngineWatch`.

    Args:
        folder: the run's folder.
        request_seconds: the longest that a request of a killed process may still be on its way.
    """

    def __init__(self, folder: Path, *, request_seconds: float) -> None:
        self.killed: tuple[int, ...] = ()
        self._folder = folder
        self._request_seconds = request_seconds
        self._status = FileControl(folder)
        self._engine = LockView(folder / ENGINE_LOCK)
        self._closer = LockView(folder / CLOSER_LOCK)

    def runs(self) -> bool:
        """Return whether a process has the engine's lock; one that cannot be seen does not."""
        with suppress(VeloxError):
            return self._engine.holder() is not None
        return False

    def look(self, halt_id: str) -> EngineWord:
        """Return what the engine says now. Raises VeloxError when its lock cannot be seen."""
        holder = self._engine.holder()
        if holder is None:
            return EngineWord(runs=False)
        status = self._status.status() or {}
        if status.get("pid") != holder.pid:
            return EngineWord(runs=True, pid=holder.pid)  # it has said nothing yet; what is there is an earlier process'
        acknowledged = status.get(ACKNOWLEDGED_KEY)
        return EngineWord(
            runs=True,
            pid=holder.pid,
            acknowledges=isinstance(acknowledged, list) and halt_id in acknowledged,
            says_flat=not status.get("positions") and status.get("live_orders") == 0,
            beat=status.get("wall_ms"),
            progress=read_progress(status),
        )

    def take_over(self, halt: HaltRecord, *, stalled_pid: int = 0) -> bool:
        """Free the run's locks, by a halt of its own: an engine that acknowledged the first one may hang all the same."""
        asked = HaltRecord(
            halt_id=f"{halt.halt_id}-T{time.time_ns() // 1_000_000}",
            kind=HaltKind.FAULT,
            trading_date=halt.trading_date,
            reason=f"take-over: {halt.reason}",
            by=halt.by,
            at_ms=halt.at_ms,
        )
        ports = TakeOverPorts(
            locks=(self._engine, self._closer),
            latch=self._latch,
            statuses=lambda: self._statuses(asked.halt_id),
            end_holder=end_holder,
            monotonic=time.monotonic,
            sleep=time.sleep,
        )
        done = take_over(
            ports,
            asked,
            request_seconds=self._request_seconds,
            acknowledge_seconds=TAKE_OVER_ACKNOWLEDGE_SECONDS,
            stalled_pid=stalled_pid,
        )
        self.killed = done.killed
        return done.result is not TakeOverResult.ANSWERS

    def closer_hangs(self) -> bool:
        """Return whether whoever has the closer's lock has given no sign of life for long."""
        try:
            holder = self._closer.holder()
        except VeloxError:
            return False  # nobody can be ended who cannot be seen
        return holder is not None and not self._lives(holder)

    def _lives(self, holder: LockHolder) -> bool:
        if holder.pid in living_closers(self._folder):
            return True
        status = self._status.status() or {}
        wall_ms = status.get("wall_ms")
        is_recent = isinstance(wall_ms, int) and time.time() - wall_ms / 1_000 <= SIGN_OF_LIFE_SECONDS_MAX
        return status.get("pid") == holder.pid and is_recent

    def _latch(self, halt: HaltRecord) -> list[str]:
        """Write the halt of a take-over to the halt file, or return why not.

        It is only the question whether the process lives: the flattening has latched its own halt where it could, and one
        that cannot even be asked on a full disk must not hang with positions open.
        """
        try:
            JsonLinesHaltFile(self._folder / HALT_FILE).append(halt)
        except VeloxError as error:
            return [f"the halt file: {error}"]
        return []

    def _statuses(self, halt_id: str) -> Iterator[Mapping[str, object]]:
        """Return the engine's status, and for each closer that lives that it acknowledges: it closes under any halt."""
        status = self._status.status()
        if status is not None:
            yield status
        for pid in living_closers(self._folder):
            yield {"pid": pid, ACKNOWLEDGED_KEY: [halt_id]}


@dataclass(frozen=True, slots=True, kw_only=True)
class OutsideRequest:
    """Who flattens what, and why.

    Attributes:
        run, trading_date: which run.
        reason, by, halt_id, kind: of the halt; the id is new.
        actor: whose letter the orders carry.
        latches: halt stores beside the files, tried before anything is sent.
        bound_ms: real time after which it is NOT_FLAT.
    """

    run: RunFolder
    trading_date: date
    reason: str
    by: str
    halt_id: str
    actor: Actor = Actor.COMMAND_LINE
    kind: HaltKind = HaltKind.MANUAL
    latches: Mapping[str, Callable[[HaltRecord], None]]
    bound_ms: int = BOUND_MS


@dataclass(frozen=True, slots=True, kw_only=True)
class Outside:
    """A flattening ready to be stepped. `journal.path` is what is to be imported once `journal` is closed.

    `account` is the run's broker as it was opened here, None where the caller brought one; `clock` is engine time for a caller
    that has none of its own; `sign` is to be given at each step.
    """

    flattener: Flattener
    clock: OutsideClock
    account: SimulatedAccount | None
    engine: RunEngine
    journal: OutsideJournal
    sign: SignOfLife


def refuse_live(settings: Settings) -> None:
    """Raise ConfigError for a broker that cannot be closed from here."""
    if settings.broker.type is not BrokerType.SIMULATED:
        raise ConfigError(f"{settings.source}: broker type {settings.broker.type.value}: {LIVE_REFUSED}")


def outside_account(settings: Settings, run: RunFolder, on: date) -> tuple[SimulatedAccount, OutsideClock, RunEngine]:
    """Return a run's broker, engine time and engine as another process sees them; nothing is opened before it is asked.

    Raises: ConfigError for a live broker, or rules that cannot be read.
    """
    refuse_live(settings)
    status = FileControl(run.folder)
    engine = RunEngine(run.folder, request_seconds=0.0)  # the simulated broker is in the engine's process
    known = (status.status() or {}).get("engine_ms")
    start_ms = max(known if isinstance(known, int) else 0, newest_ms(run.folder / BROKER_BOOK))  # a guard may have closed since
    clock = OutsideClock(start_ms or ist_midnight_ms(on))
    broker = SimulatedAccount(
        run.folder / BROKER_BOOK,
        config=simulation_config(settings),
        instrument=_instruments(settings, on),
        prices=lambda: _last_prices(status.status() or {}),
        clock=clock.now_ms,
        reached=clock.reach,
        engine_runs=engine.runs,
    )
    return broker, clock, engine


@contextmanager
def open_outside(
    settings: Settings, request: OutsideRequest, alerts: Alerts, *, broker: Broker | None = None
) -> Iterator[Outside]:
    """Open a flattening of a run. Closes its files after.

    Args:
        settings, request: what is flattened, and why.
        alerts: who is told.
        broker: the account's, where the caller has its own session of it; it stays open.
    Raises: ConfigError for a live broker; VeloxError when the closer's lock cannot be made.
    """
    run, on = request.run, request.trading_date
    account, clock, engine = outside_account(settings, run, on)
    journal = OutsideJournal(run.folder / f"emergency-{request.halt_id}.jsonl")
    sign = SignOfLife(run.folder)
    closer_lock = CloserLockFile(run.folder / CLOSER_LOCK)
    instrument = _instruments(settings, on)
    journal_url = settings.stores.journal.url or f"sqlite:///{run.folder / JOURNAL_DATABASE}"
    rate = RateLimit(settings.engine.orders_per_second)
    paced = PacedBroker(
        broker or account, rate, is_beside_an_engine=engine.runs, waiting=lambda: sign.give({"state": "CLOSING"})
    )
    try:
        ports = FlattenPorts(
            broker=paced,
            journal=journal,
            ledger=MemoryLedger(),
            halt_file=JsonLinesHaltFile(run.folder / HALT_FILE),
            latches=request.latches,
            alerts=alerts,
            closer_lock=PacedLock(closer_lock, rate, always=True),
            monotonic=clock.monotonic,
            engine=engine,
            instrument=instrument,
            recall=partial(
                recall_run, run.folder, journal_url, run.scope.key, trading_date=on, begun=(STATE_FILE, STATUS_FILE)
            ),
        )
        rules = FlattenRules(
            trading_date=on,
            limits=settings.risk.limits,
            schedule=load_charges(settings.charges_path).schedule(settings.broker.type.value, Product.MIS, on),
            actor=request.actor,
            epoch=1 + int(time.time()) // _SLOT_SECONDS % (EPOCHS_PER_DATE_MAX - 1),
            first_sequence=1 + os.getpid() % (EPOCHS_PER_DATE_MAX - 1) * SEQUENCES_PER_PROCESS,
            halt_id=request.halt_id,
            kind=request.kind,
            reason=request.reason,
            by=request.by,
            bound_ms=request.bound_ms,
            close_foreign=settings.engine.close_foreign,
        )
        yield Outside(
            flattener=Flattener(ports, rules),
            clock=clock,
            account=account if broker is None else None,
            engine=engine,
            journal=journal,
            sign=sign,
        )
    finally:
        sign.end()
        journal.close()
        account.close()
        closer_lock.close()


def _instruments(settings: Settings, on: date) -> Callable[[str, int], Instrument]:
    """Return what is known of a symbol on a date, given a price. Without a rule it has the smallest tick: an exit can do."""
    book = load_instruments(settings.calendar_path)

    def instrument(symbol: str, price_paise: int) -> Instrument:
        with suppress(CalendarError, ValueError):
            return book.instrument(symbol, on, price_paise)
        return Instrument(symbol=symbol, security_class=SecurityClass.CASH, tick_paise=1)

    return instrument


def _last_prices(status: Mapping[str, object]) -> dict[str, int]:
    """Return the newest prices of what an engine last said that it held."""
    positions = status.get("positions")
    prices = {}
    for line in positions if isinstance(positions, list) else ():
        if isinstance(line, dict) and isinstance(line.get("last_paise"), int):
            prices[str(line.get("symbol"))] = int(line["last_paise"])
    return prices
