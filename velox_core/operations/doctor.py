"""`velox doctor`: what a run leans on, looked at and not touched: journal, broker's book, Redis, engine, disk, clock.

- Everything is looked at, also after something has failed; nothing is started, migrated or repaired.
- An embedded Redis that does not run is in order while no engine needs it.
- Whether journal and broker agree is the reconcile's question (`velox_core.operations.reconcile`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from velox_core.backup.destinations import FREE_BYTES_MINIMUM
from velox_core.domain.errors import EXIT_DONE, EXIT_OPERATING_ERROR, VeloxError
from velox_core.engine_lock import LockView
from velox_core.journal.queries import JournalReader
from velox_core.operations.closing import with_closing
from velox_core.operations.dead_engine import dead_engine
from velox_core.operations.probes import probe_redis_url
from velox_core.operations.recorded import RecordedRun
from velox_core.operations.status import age_seconds, read_status
from velox_core.redis_server import EmbeddedRedis
from velox_core.run_stores import ENGINE_LOCK, journal_url
from velox_core.settings import Paths, Settings
from velox_core.simulated_account import read_broker_books

CLOCK_BEHIND_SECONDS_MAX: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DoctorFinding:
    """One thing that was looked at. `advice` says what to do when it is not `ok`."""

    item: str
    ok: bool
    measured: str
    advice: str = ""

    def to_json(self) -> dict[str, str | bool]:
        """Return plain values."""
        return {"item": self.item, "ok": self.ok, "measured": self.measured, "advice": self.advice}


def exit_code_of(findings: Sequence[DoctorFinding]) -> int:
    """Return 1 when anything is not in order, else 0."""
    return EXIT_DONE if all(finding.ok for finding in findings) else EXIT_OPERATING_ERROR


def examine(settings: Settings, paths: Paths, recorded: RecordedRun) -> list[DoctorFinding]:
    """Look at everything a run leans on."""
    return [
        _looked_at("journal", lambda: _journal(settings, recorded)),
        _looked_at("broker's book", lambda: _book(settings, recorded)),
        _redis(settings, paths),
        _looked_at("engine", lambda: _engine(settings, recorded.folder)),
        _disk(recorded.folder),
        _clock(recorded.folder),
    ]


def _looked_at(item: str, look: Callable[[], DoctorFinding]) -> DoctorFinding:
    try:
        return look()
    except VeloxError as error:
        return DoctorFinding(item=item, ok=False, measured=str(error), advice="see the runbook; exits still work without it")


def _journal(settings: Settings, recorded: RecordedRun) -> DoctorFinding:
    reader = JournalReader(journal_url(settings, recorded.run))
    try:
        run = reader.latest_run(recorded.trading_date, scope_key=recorded.run.scope.key)
        if run is None or run.run_key is None:
            return DoctorFinding(
                item="journal", ok=False, measured="it does not know the run", advice="name another with --run"
            )
        broken = reader.verify_chain(run.run_key)
        events = reader.events(run.run_key)
    finally:
        reader.close()
    if broken is not None:
        text = f"the hash chain is broken at event {broken} of {len(events)}"
        return DoctorFinding(item="journal", ok=False, measured=text, advice="it was changed by hand: restore a backup")
    head = f", head {events[-1].sequence} {events[-1].digest[:12]}" if events else ""
    return DoctorFinding(item="journal", ok=True, measured=f"{len(events)} events, the hash chain holds{head}")


def _book(settings: Settings, recorded: RecordedRun) -> DoctorFinding:
    books = read_broker_books(settings, recorded.run)
    held = sum(1 for position in books.positions if position.quantity)
    measured = f"{len(books.orders)} orders, {len(books.trades)} trades, {held} open positions"
    return DoctorFinding(item="broker's book", ok=True, measured=measured)


def _redis(settings: Settings, paths: Paths) -> DoctorFinding:
    configured = settings.stores.redis
    url, shown = configured.url, str(configured.display_url)
    if url is None:
        server = EmbeddedRedis(paths.var / "redis")
        if not server.is_running():
            return DoctorFinding(item="Redis", ok=True, measured="the embedded server does not run; an engine starts it")
        url, shown = server.url, "embedded server"
    probe = probe_redis_url(url, shown=shown, advice="start it, or see its log; the ledger is rebuilt when it is back")
    return DoctorFinding(item="Redis", ok=probe.ok, measured=probe.measured, advice=probe.advice)


def _engine(settings: Settings, folder: Path) -> DoctorFinding:
    """Say who holds the run's lock, and whether what it last said is fresh. Raises VeloxError for a lock it may not read."""
    holder = LockView(folder / ENGINE_LOCK).holder()
    status = read_status(folder)
    said = "" if status is None else f", last heard of {age_seconds(status):.0f} s ago: {status.doing}"
    if status is not None and (closing := with_closing(status).closing):
        said += f"; {closing['message']}"
    if holder is not None:
        who = f"process {holder.pid}" if holder.pid else "a process that its lock does not name"
        return DoctorFinding(item="engine", ok=True, measured=f"{who} holds the run{said}")
    dead = dead_engine(settings, status)
    advice = "" if dead is None else f"it DIED; take the run up: {dead.take_up}" if dead.closed else dead.sentence
    return DoctorFinding(item="engine", ok=dead is None, measured=f"nobody holds the run{said}", advice=advice)


def _disk(folder: Path) -> DoctorFinding:
    space = os.statvfs(folder)
    free = space.f_bavail * space.f_frsize
    advice = "free some space: without it no entry is made"
    return DoctorFinding(item="disk", ok=free >= FREE_BYTES_MINIMUM, measured=f"{free / 1e9:.1f} GB free", advice=advice)


def _clock(folder: Path) -> DoctorFinding:
    """Say whether this clock is behind what the engine last wrote by it: then it was set back."""
    status = read_status(folder)
    behind_seconds = 0.0 if status is None else status.number("wall_ms") / 1_000 - time.time()
    ok = behind_seconds <= CLOCK_BEHIND_SECONDS_MAX
    measured = "not behind what the engine wrote by it" if ok else f"{behind_seconds:.1f} s behind what the engine wrote by it"
    return DoctorFinding(item="clock", ok=ok, measured=measured, advice="set the clock by NTP, then restart the engine")
