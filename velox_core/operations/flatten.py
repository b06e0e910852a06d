"""Closing everything of a run from outside its engine: `velox flatten`.

- Works with Prefect, Redis and the journal down or absent; what is slow to import comes after the first look at the broker.
- A signal does not end it: what was begun is brought to FLAT, or to its bound.
- At the end what was done is imported into the run's journal, if that answers; else by the run's next engine.
- What it came to stays in the run's folder (`flatten.json`), for status and reports.
"""

from __future__ import annotations

import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any, Final

from velox_core.alert_setup import open_alerts
from velox_core.closing_record import FLATTEN, leave_closing
from velox_core.domain.errors import ConfigError, VeloxError
from velox_core.domain.halts import HaltKind, HaltRecord
from velox_core.domain.money import rupees_text
from velox_core.flat_proof import FlattenResult, FlattenState
from velox_core.operations.recorded import RecordedRun, find_run, recorded_runs
from velox_core.operations.run_logs import open_logs
from velox_core.outside import Outside, OutsideRequest, RunEngine, open_outside, refuse_live
from velox_core.settings import Paths, Settings
from velox_core.simulated_account import BROKER_BOOK
from velox_core.stop_signals import handled_by

BOUND_SECONDS: Final = 180.0
STEP_SECONDS: Final = 0.1

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class FlattenReport:
    """What came of it. `first_request` is monotonic seconds, None when the broker was never asked; `not_imported` says why."""

    run_id: str
    result: FlattenResult
    first_request: float | None
    not_imported: str

    @property
    def exit_code(self) -> int:
        """Return 0 for FLAT, 4 for anything else."""
        return self.result.exit_code

    @property
    def sentences(self) -> list[str]:
        """Return the end, for people."""
        result = self.result
        loss = "" if result.loss_paise is None else f"; the day's P&L is {rupees_text(-result.loss_paise)}"
        where = "" if result.halt_stands else " nowhere"
        if result.state is FlattenState.FLAT:
            first = (
                f"FLAT: run {self.run_id} holds nothing and works nothing, the broker says so{loss}. Halted: {result.halt_id}"
            )
        else:
            first = (
                f"NOT FLAT: {result.reason}. The halt {result.halt_id} stands{where}. Flatten again, or close the rest in the "
                "broker's app"
            )
        notes = [f"not reached: the {store}" for store in result.not_latched]
        if result.not_recalled:
            notes.append(f"what earlier processes sent was not all known: {result.not_recalled}. Look at the broker's orders")
        if self.not_imported:
            notes.append(f"not in the journal yet, the run's next engine brings it in: {self.not_imported}")
        return [first, *notes]

    def to_json(self) -> dict[str, Any]:
        """Return the outcome as JSON values."""
        return {
            "run": self.run_id,
            **self.result.to_json(),
            "first_request_monotonic": self.first_request,
            "not_imported": self.not_imported,
            "message": self.sentences[0],
        }


def run_to_flatten(settings: Settings, paths: Paths, *, on: date | None, run_id: str | None) -> RecordedRun:
    """Return the run that is named, the newest of a date, else the one that an engine has, else the newest.

    Raises: ConfigError for a live broker; VeloxError when there is none.
    """
    refuse_live(settings)
    if on is None and run_id is None:
        for recorded in reversed(recorded_runs(settings, paths)):
            if RunEngine(recorded.folder, request_seconds=0.0).runs():
                return recorded
    try:
        recorded = find_run(settings, paths, on=on, run_id=run_id, advise_to_run=False)
    except VeloxError as error:
        raise VeloxError(f"{error}. Nothing was flattened") from error
    book = recorded.folder / BROKER_BOOK
    if not book.is_file() and not RunEngine(recorded.folder, request_seconds=0.0).runs():
        raise VeloxError(
            f"run {recorded.run.run_id} never reached its broker: {book} is not there, and no engine runs. Nothing was "
            "flattened; if the file was moved, put it back"
        )
    return recorded


def flatten_run(
    settings: Settings,
    paths: Paths,
    recorded: RecordedRun,
    *,
    reason: str,
    by: str,
    tell: Tell,
    bound_seconds: float = BOUND_SECONDS,
) -> FlattenReport:
    """Halt a run and close everything of it, whether its engine lives, hangs, is dead or never was.

    Args:
        settings, paths, recorded: which run.
        reason, by: of the halt.
        tell: called with each sentence of progress and with the result; an OSError,
            ValueError or RuntimeError of it changes nothing.
        bound_seconds: after which it ends as not flat.
    Raises: ConfigError without a reason or a name; VeloxError when nothing could be begun.
    """
    for option, text in (("--reason", reason), ("--by", by)):
        if not text.strip():
            raise ConfigError(f"{option} is empty: the record must say why it was made, and by whom")
    request = OutsideRequest(
        run=recorded.run,
        trading_date=recorded.trading_date,
        reason=reason,
        by=by,
        halt_id=f"{recorded.trading_date:%Y%m%d}-{HaltKind.MANUAL.value}-{uuid.uuid4().hex[:12]}",
        latches={"ledger": lambda record: _to_ledger(settings, paths, recorded, record)},
        bound_ms=int(bound_seconds * 1_000),
    )
    tell = _whatever_hears(tell)
    with _logs(settings, paths, tell), _not_interrupted(tell):
        with (
            open_alerts(settings, label=f"flatten {recorded.run.run_id}") as alerts,
            open_outside(settings, request, alerts) as outside,
        ):
            result = _step_to_the_end(outside, tell)
        report = FlattenReport(
            run_id=recorded.run.run_id,
            result=result,
            first_request=None if outside.account is None else outside.account.first_request,
            not_imported="",
        )
        leave_closing(recorded.folder, result, run_id=report.run_id, tool=FLATTEN, by=by)
        tell(report.sentences[0])
        tell("writing it to the journal...")  # its libraries take seconds to import
        report = replace(report, not_imported=bring_in(settings, recorded, outside.journal.path))
        if report.not_imported:
            leave_closing(recorded.folder, result, run_id=report.run_id, tool=FLATTEN, by=by, not_imported=report.not_imported)
    return report


def _whatever_hears(tell: Tell) -> Tell:
    """Return `tell` without its failures: output that goes away, fills up or is closed must not leave positions open."""

    def say(sentence: str) -> None:
        with suppress(OSError, ValueError, RuntimeError):  # RuntimeError: a signal came while the stream was written to
            tell(sentence)

    return say


def _step_to_the_end(outside: Outside, tell: Tell) -> FlattenResult:
    flattener = outside.flattener
    while not flattener.ended:
        state = flattener.step(outside.clock.now_ms())
        for sentence in flattener.news():
            tell(sentence)
        outside.sign.give({"state": state.value})
        if not flattener.ended:
            time.sleep(STEP_SECONDS)
    return flattener.result()


def _to_ledger(settings: Settings, paths: Paths, recorded: RecordedRun, record: HaltRecord) -> None:
    """Write the halt to Redis. Raises VeloxError, LedgerUnavailable; starts no server."""
    from velox_core.ledger.redis import RedisLedger
    from velox_core.redis_server import EmbeddedRedis

    server = settings.stores.redis.url or EmbeddedRedis(paths.var / "redis").url
    ledger = RedisLedger(server, recorded.run.scope.key, recorded.trading_date)
    try:
        ledger.latch_halt(record)
    finally:
        ledger.close()


def bring_in(settings: Settings, recorded: RecordedRun, emergency_file: Path) -> str:
    """Import what a closer outside the engine did into the run's journal. Returns why it is not there, '' when it is.

    The file must be closed by its writer. The run's next engine imports what stays.
    """
    from velox_core.journal.imports import import_emergency_file
    from velox_core.operations.runs import open_journal

    try:
        with open_journal(settings, recorded) as journal:
            import_emergency_file(emergency_file, journal)
    except VeloxError as error:
        return str(error)
    return ""


@contextmanager
def _logs(settings: Settings, paths: Paths, tell: Tell) -> Iterator[None]:
    """Write the log files, if they can be written: an emergency does not wait for a disk."""
    try:
        logs = open_logs(settings, paths, is_engine=False)
    except (VeloxError, OSError) as error:
        tell(f"no log is written: {error}")
        yield
        return
    try:
        yield
    finally:
        with suppress(OSError, ValueError):
            logs.stop()


@contextmanager
def _not_interrupted(tell: Tell) -> Iterator[None]:
    """Have signals say that it goes on, and ignore them afterwards: the exit code says whether it is flat. Main thread only."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def go_on(number: int, frame: object) -> None:
        tell(f"{signal.Signals(number).name}: closing goes on; it ends by itself")

    with handled_by(go_on, until_exit=True):
        yield
