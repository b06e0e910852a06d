"""The stores of one run: lock, journal, ledger, lease and broker book, each with what it falls back to.

- The engine's lock is a must: without it no engine runs. Everything else may be down, and the engine is then reduce-only.
- A journal that goes away later has an emergency file behind it: what it cannot take is there before an exit leaves.
- A journal that cannot be opened is replaced by an emergency file beside it: what is sent is still written first, the
  engine finds itself halted (a journal that cannot be read means halted) and closes what the broker holds.
- Whatever an emergency file holds that the journal does not know is imported by the next start. As long as that fails,
  the journal counts as one that cannot be read.
- Without a ledger there is no lease; the epoch is then one above every epoch that the journal knows.
- A run is taken up with the data it was begun on, or not at all; with another configuration it is taken up for exits only.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from velox_core.domain.errors import ConfigError, IntentRefused, JournalUnavailable, LedgerUnavailable, VeloxError
from velox_core.domain.events import Body, EventKind, JournalEvent
from velox_core.engine_lock import CLOSER_LOCK as CLOSER_LOCK
from velox_core.engine_lock import ENGINE_LOCK as ENGINE_LOCK
from velox_core.engine_lock import CloserLockFile, EngineLock
from velox_core.journal.database import open_database
from velox_core.journal.fallback import FallbackJournal
from velox_core.journal.file import FileJournal
from velox_core.journal.imports import import_emergency_file, outside_files
from velox_core.journal.queries import HighWater, JournalReader
from velox_core.journal.run import RunIdentity
from velox_core.journal.sql import SqlJournal
from velox_core.lease import NEVER, REQUEST_SECONDS_MAX, HeldLease, LeasedCloser, seconds_since_boot
from velox_core.ledger.redis import RedisLedger
from velox_core.ports import Alerts, CloserLock, Journal
from velox_core.redis_server import EmbeddedRedis
from velox_core.runs import JOURNAL_DATABASE, RunFolder, RunState, read_state
from velox_core.settings import BrokerType, Paths, Settings

EMERGENCY_FILE = "emergency.jsonl"
LEASE_TRIES_MAX = 4  # at the start, each bounded by the ledger's own time-out
UNREADABLE_EPOCH_FROM = 9_000  # epochs of engines that know neither ledger nor journal; leases count up from 1

_log = logging.getLogger("velox.system")


class EmergencyJournal:
    """What the engine writes when its journal cannot be opened: a file, imported when the journal is back."""

    def __init__(self, path: Path, cause: JournalUnavailable) -> None:
        self._file = FileJournal(path, fsync=True)
        self._cause = cause

    def append(self, kind: EventKind, ts_ms: int, body: Body) -> None:
        """Add one event."""
        self._file.append(kind, ts_ms, body)

    def commit(self) -> None:
        """Make it durable. Raises JournalUnavailable."""
        self._file.commit()

    def events(self, kinds: Iterable[EventKind] | None = None) -> Iterator[JournalEvent]:
        """Raise JournalUnavailable: what happened before cannot be read."""
        raise self._cause

    def newest_halt(self) -> int:
        """Raise JournalUnavailable."""
        raise self._cause

    def close(self) -> None:
        """Close the file."""
        self._file.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStores:
    """The open stores of a run. `exits_only` says why no entry may be made, '' when it may; `records` is the SQL journal."""

    journal: Journal
    records: SqlJournal | None
    ledger: RedisLedger
    closer_lock: CloserLock
    lease: HeldLease
    epoch: int
    exits_only: str


def journal_url(settings: Settings, run: RunFolder) -> str:
    """Return the run's journal: the configured server, or SQLite in the run's folder."""
    return settings.stores.journal.url or f"sqlite:///{run.folder / JOURNAL_DATABASE}"


def redis_url(settings: Settings, paths: Paths) -> str:
    """Return the ledger's server, starting the embedded one when none is configured. Raises VeloxError."""
    return settings.stores.redis.url or EmbeddedRedis(paths.var / "redis").start()


def open_stores(
    settings: Settings, paths: Paths, run: RunFolder, identity: RunIdentity, stack: ExitStack, alerts: Alerts
) -> RunStores:
    """Open the stores of a run; `stack` closes them.

    Raises: VeloxError when another process trades the run, or did since it was chosen; ConfigError when the run was begun on
        other data.
    """
    lock = EngineLock(run.folder / ENGINE_LOCK)
    stack.callback(lock.release)
    _check_still_as_chosen(run)
    is_simulated = settings.broker.type is BrokerType.SIMULATED  # its requests end with the process
    closer_lock = CloserLockFile(run.folder / CLOSER_LOCK, request_seconds=0.0 if is_simulated else REQUEST_SECONDS_MAX)
    stack.callback(closer_lock.close)
    known, exits_only = _what_was_begun(settings, run, identity)
    journal, records = _open_journal(settings, run, identity, stack, alerts)
    try:
        server = redis_url(settings, paths)
    except VeloxError as error:
        _log.error("[LEDGER] %s", error)
        server = f"unix://{paths.var / 'redis' / 'absent.sock'}"
    ledger = RedisLedger(server, run.scope.key, identity.trading_date, version_floor=known.version, epoch_floor=known.epoch)
    stack.callback(ledger.close)
    asked = seconds_since_boot()
    epoch, is_leased = _lease(ledger, known.epoch + 1, stack)
    lease = HeldLease(ledger, epoch, confirmed=asked if is_leased else NEVER)
    return RunStores(
        journal=journal,
        records=records,
        ledger=ledger,
        closer_lock=LeasedCloser(closer_lock, lease) if is_leased else closer_lock,
        lease=lease,
        epoch=epoch,
        exits_only=exits_only,
    )


def _check_still_as_chosen(run: RunFolder) -> None:
    """Raise VeloxError when another process began or traded the run between the choice of its number and the lock.

    Two that start at the same moment choose the same number. The lock has one winner while that trades; whoever comes to the
    lock after it has ended would trade into an ended run.
    """
    found = read_state(run.folder)
    if found is not run.state:
        did = "begun" if found is RunState.BEGUN else "traded"  # one that died as it began has a journal and traded nothing
        raise VeloxError(
            f"run {run.run_id} was {did} by another process since this one chose it: nothing was started here. Look at it "
            "with velox status, and start again"
        )


def _what_was_begun(settings: Settings, run: RunFolder, identity: RunIdentity) -> tuple[HighWater, str]:
    """Return what the journal knows of the scope, and why a run begun differently may only exit."""
    if settings.stores.journal.url is None and not (run.folder / JOURNAL_DATABASE).exists():
        return HighWater(version=0, epoch=0), ""
    try:
        open_database(journal_url(settings, run)).dispose()  # an older journal is migrated, and then read
        reader = JournalReader(journal_url(settings, run))
        try:
            known = reader.high_water(run.scope.key, identity.trading_date)
            begun = reader.latest_run(identity.trading_date, scope_key=run.scope.key)
        finally:
            reader.close()
    except JournalUnavailable as error:
        return HighWater(version=0, epoch=UNREADABLE_EPOCH_FROM), f"the journal cannot be read: {error}"
    if begun is None:
        return known, ""
    if begun.data_source != identity.data_source:
        raise ConfigError(
            f"run {run.run_id} was begun on {begun.data_source}, this is {identity.data_source}: finish it with the data "
            "it was begun on, or begin another run with --fresh"
        )
    if begun.config_hash != identity.config_hash:
        return known, "the configuration changed since this run was begun"
    return known, ""


def _open_journal(
    settings: Settings, run: RunFolder, identity: RunIdentity, stack: ExitStack, alerts: Alerts
) -> tuple[Journal, SqlJournal | None]:
    emergency = run.folder / EMERGENCY_FILE
    try:
        journal = SqlJournal(journal_url(settings, run), identity)
    except JournalUnavailable as error:
        _log.critical("[JOURNAL] cannot be opened: %s; exits only, written to %s", error, emergency)
        instead = EmergencyJournal(emergency, error)
        stack.callback(instead.close)
        return instead, None
    stack.callback(journal.close)
    not_imported = None
    for path in (emergency, *outside_files(run.folder)):
        not_imported = _import(path, journal) or not_imported
    fallback = FallbackJournal(journal, emergency, alerts, not_imported=not_imported)
    stack.callback(fallback.close)
    return fallback, journal


def _import(path: Path, journal: SqlJournal) -> JournalUnavailable | None:
    """Import one emergency file, if it is there. Returns why it could not be."""
    try:
        count = import_emergency_file(path, journal)
        if count:
            _log.warning("[JOURNAL] %s events imported from %s", count, path)
    except IntentRefused as error:
        _log.error("[JOURNAL] imported from %s but for an intent: %s", path, error)
    except JournalUnavailable as error:
        _log.critical("[JOURNAL] %s could not be imported: %s; exits only", path, error)
        return error
    return None


def _lease(ledger: RedisLedger, epoch_without_lease: int, stack: ExitStack) -> tuple[int, bool]:
    """Become the one engine of the scope on any host. Another host's lease is a VeloxError; a ledger that is down is not.

    One that answers late is asked again: what is missed here is missed for the day. Asking twice does no harm, this host then
    has a later epoch. Returns the epoch, and whether the ledger gave a lease for it.
    """
    for tries_left in reversed(range(LEASE_TRIES_MAX)):
        try:
            epoch = ledger.acquire_lease(socket.gethostname())
        except LedgerUnavailable as error:
            if not tries_left:
                _log.error("[LEDGER] no lease: %s; exits only", error)
            continue
        stack.callback(_release, ledger, epoch)
        return epoch, True
    return epoch_without_lease, False


def _release(ledger: RedisLedger, epoch: int) -> None:
    with suppress(LedgerUnavailable):
        ledger.release_lease(epoch)
