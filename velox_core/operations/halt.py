"""Halting a run from outside its engine, and what halts stand.

- The record goes to the halt file, the ledger and the journal, whichever answer; each is tried whatever became of the others.
  The file comes first: it needs a disk only, and a running engine looks at it twice a second. What the other two need is
  imported after that, which may take a second.
- A halt's id has a random part, so that no store need be read to know that it was never used.
- A running engine acknowledges the id in its status; without one the record waits for the next engine of the run.
- Nothing here starts a server or creates a journal: what is not there is named as not reached.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

from velox_core.domain.errors import EXIT_DONE, EXIT_OPERATING_ERROR, ConfigError, JournalUnavailable, VeloxError
from velox_core.domain.events import EventKind
from velox_core.domain.halts import HaltKind, HaltRecord, active_halts, named_ids
from velox_core.halt_file import HALT_FILE, JsonLinesHaltFile
from velox_core.operations.dead_engine import take_over_command
from velox_core.operations.processes import is_alive, wrote_it
from velox_core.operations.recorded import RecordedRun, find_run
from velox_core.operations.status import Status, read_status
from velox_core.operations.stop import running_engine
from velox_core.redis_server import EmbeddedRedis
from velox_core.runs import RunState
from velox_core.settings import Paths, Settings

POLL_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class HaltOutcome:
    """What came of a halt. `missing` are the stores that did not take it, with why; `pid` is the engine's, 0 for none.

    `take_over` is the command for an engine that does not answer.
    """

    run_id: str
    halt_id: str
    missing: dict[str, str]
    pid: int
    acknowledged: bool
    exit_code: int
    take_over: str = ""

    @property
    def sentences(self) -> list[str]:
        """Return what happened, for people."""
        if len(self.missing) == len(_STORES):
            first = f"run {self.run_id} is NOT halted: no store took the record"
        elif not self.pid:
            first = f"run {self.run_id} is halted ({self.halt_id}); no engine runs, the next one makes no entries"
        elif self.acknowledged:
            first = f"run {self.run_id} is halted ({self.halt_id}): its engine makes no entries and keeps what is open"
        else:
            first = (
                f"the halt {self.halt_id} of run {self.run_id} is written, but engine {self.pid} did not acknowledge it. "
                f"It hangs? {self.take_over}"
            )
        return [first, *(f"not reached: the {store}: {why}" for store, why in self.missing.items())]

    def to_json(self) -> dict[str, Any]:
        """Return the outcome as JSON values."""
        return {
            "run": self.run_id,
            "halt_id": self.halt_id,
            "written": [store for store in _STORES if store not in self.missing],
            "not_written": self.missing,
            "engine_pid": self.pid,
            "acknowledged": self.acknowledged,
            "exit_code": self.exit_code,
            "message": self.sentences[0],
        }


def request_halt(
    settings: Settings,
    paths: Paths,
    *,
    reason: str,
    by: str,
    on: date | None = None,
    run_id: str | None = None,
    wait_seconds: float,
) -> HaltOutcome:
    """Stop a run's entries and keep its positions, until a reset; wait for the engine's acknowledgement within a bound.

    Raises: ConfigError without a reason or a name; VeloxError when there is no such run, or it is over.
    """
    refuse_nameless(reason=reason, by=by)
    try:
        recorded = chosen_run(settings, paths, on=on, run_id=run_id)
    except VeloxError as error:
        raise VeloxError(f"{error}. Nothing was halted") from error
    status = engine_status(recorded)
    state = recorded.run.state
    if status is None and state in (RunState.ENDED, RunState.CLOSED):
        raise VeloxError(f"run {recorded.run.run_id} is over ({state.value}) and no engine trades it: there is nothing to halt")
    record = HaltRecord(
        halt_id=f"{recorded.trading_date:%Y%m%d}-{HaltKind.MANUAL.value}-{uuid.uuid4().hex[:12]}",
        kind=HaltKind.MANUAL,
        trading_date=recorded.trading_date,
        reason=reason,
        by=by,
        at_ms=_engine_ms(recorded),
        keeps_positions=True,
    )
    missing = write_everywhere(settings, paths, recorded, record)
    pid = 0 if status is None else status.number("pid")
    written = len(missing) < len(_STORES)
    acknowledged = written and pid > 0 and _await_acknowledgement(recorded, record.halt_id, pid, wait_seconds)
    if acknowledged and "journal" in missing and _journal_has(settings, recorded, record):
        del missing["journal"]  # the engine wrote it
    done = written and (acknowledged or not pid)
    return HaltOutcome(
        run_id=recorded.run.run_id,
        halt_id=record.halt_id,
        missing=missing,
        pid=pid,
        acknowledged=acknowledged,
        exit_code=EXIT_DONE if done else EXIT_OPERATING_ERROR,
        take_over="" if status is None else take_over_command(settings, status),
    )


def refuse_nameless(*, reason: str, by: str) -> None:
    """Raise ConfigError for a record that would not say why, or by whom."""
    for option, text in (("--reason", reason), ("--by", by)):
        if not text.strip():
            raise ConfigError(f"{option} is empty: the record must say why it was made, and by whom")


def chosen_run(settings: Settings, paths: Paths, *, on: date | None, run_id: str | None) -> RecordedRun:
    """Return the run that is named, the newest of a date, else the one that an engine trades, else the newest.

    Raises: VeloxError when there is none.
    """
    if on is None and run_id is None:
        running = running_engine(settings, paths)
        run_id = None if running is None else running.folder.name
    return find_run(settings, paths, on=on, run_id=run_id, advise_to_run=False)


def engine_status(recorded: RecordedRun) -> Status | None:
    """Return the status of the run's engine, None when none runs."""
    status = read_status(recorded.folder)
    if status is None or status.ended or not wrote_it(status.number("pid"), status.number("wall_ms")):
        return None
    return status


def _engine_ms(recorded: RecordedRun) -> int:
    """Return the engine time that the run has reached, the wall time when it has not said."""
    status = read_status(recorded.folder)
    reached_ms = 0 if status is None else status.number("engine_ms")
    return reached_ms or time.time_ns() // 1_000_000


def write_everywhere(settings: Settings, paths: Paths, recorded: RecordedRun, record: HaltRecord) -> dict[str, str]:
    """Write a latch to every store that answers. Returns the stores that did not take it, with why."""
    missing = {}
    for store, write in _STORES.items():
        try:
            write(settings, paths, recorded, record)
        except VeloxError as error:
            missing[store] = str(error)
    return missing


def _to_halt_file(_settings: Settings, _paths: Paths, recorded: RecordedRun, record: HaltRecord) -> None:
    JsonLinesHaltFile(recorded.folder / HALT_FILE).append(record)


def _to_ledger(settings: Settings, paths: Paths, recorded: RecordedRun, record: HaltRecord) -> None:
    from velox_core.ledger.redis import RedisLedger

    server = settings.stores.redis.url or EmbeddedRedis(paths.var / "redis").url
    ledger = RedisLedger(server, recorded.run.scope.key, recorded.trading_date)
    try:
        ledger.latch_halt(record)
    finally:
        ledger.close()


def _to_journal(settings: Settings, _paths: Paths, recorded: RecordedRun, record: HaltRecord) -> None:
    from velox_core.journal.queries import JournalReader
    from velox_core.operations.runs import open_journal
    from velox_core.run_stores import journal_url

    reader = JournalReader(journal_url(settings, recorded.run))
    try:
        if reader.latest_run(recorded.trading_date, scope_key=recorded.run.scope.key) is None:
            raise JournalUnavailable(f"it does not know run {recorded.run.run_id}")
        if record in reader.halts(recorded.run.scope.key):
            return  # the engine was faster
    finally:
        reader.close()
    with open_journal(settings, recorded) as journal:
        journal.append(EventKind.HALT, record.at_ms, dict(record.to_body()))
        journal.commit()


_STORES: Final[dict[str, Callable[[Settings, Paths, RecordedRun, HaltRecord], None]]] = {
    "halt file": _to_halt_file,
    "ledger": _to_ledger,
    "journal": _to_journal,
}


def _await_acknowledgement(recorded: RecordedRun, halt_id: str, pid: int, wait_seconds: float) -> bool:
    """Return whether the engine showed the id within the bound."""
    until = time.monotonic() + wait_seconds
    while True:
        status = read_status(recorded.folder)
        known = [] if status is None or status.number("pid") != pid else status.body.get("acknowledged_halts")
        if isinstance(known, list) and halt_id in known:
            return True
        if time.monotonic() >= until or not is_alive(pid):
            return False
        time.sleep(POLL_SECONDS)


def _journal_has(settings: Settings, recorded: RecordedRun, record: HaltRecord) -> bool:
    from velox_core.journal.queries import JournalReader
    from velox_core.run_stores import journal_url

    try:
        reader = JournalReader(journal_url(settings, recorded.run))
        try:
            return record in reader.halts(recorded.run.scope.key)
        finally:
            reader.close()
    except JournalUnavailable:
        return False


def with_standing_halts(status: Status, *, alive: bool) -> Status:
    """Return a status that shows every active halt: those the engine heeds, and those that the halt file holds.

    Of an engine that is gone, what the halt file cleared since is left out.
    """
    records = JsonLinesHaltFile(status.folder / HALT_FILE).records()
    shown = status.body.get("halts")
    heeded = [halt for halt in shown if isinstance(halt, dict)] if isinstance(shown, list) else []
    if not alive:
        ended = named_ids(record for record in records if record.clears)
        heeded = [halt for halt in heeded if halt.get("halt_id") not in ended]
    known = {halt.get("halt_id") for halt in heeded}
    halts = [*heeded, *(halt.to_body() for halt in active_halts(records) if halt.halt_id not in known)]
    return Status(folder=status.folder, body={**status.body, "halts": halts, "halted": bool(halts)})
