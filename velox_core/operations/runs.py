"""Runs on record: their list, a run's report, its export.

- A run's report is computed from its journal and kept as `summary.json` in its folder and as a row in the journal.
- A journal that is gone, empty or new is an error: nothing here creates one, which would hide what was lost.
- The export is what two runs of the same day must have in common, byte for byte.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import date
from pathlib import Path
from typing import Any

from velox_core.closing_record import read_closing
from velox_core.domain.errors import JournalUnavailable, VeloxError
from velox_core.journal.database import open_database
from velox_core.journal.export import export_events
from velox_core.journal.queries import JournalReader
from velox_core.journal.records import JournalRecords
from velox_core.journal.run import RunIdentity
from velox_core.journal.sql import SqlJournal
from velox_core.journal.verify import RunHead
from velox_core.operations.expectations import EXPECTATIONS_FILE, judge
from velox_core.operations.json_file import write_json
from velox_core.operations.probes import strategy_fingerprint
from velox_core.operations.recorded import RecordedRun, recorded_runs
from velox_core.operations.report import build_report
from velox_core.operations.status import SUMMARY_FILE, read_status, read_summary
from velox_core.operations.view import headline
from velox_core.run_stores import journal_url
from velox_core.settings import Paths, Settings


def run_lines(settings: Settings, paths: Paths, *, on: date | None = None) -> list[dict[str, str]]:
    """Return id, state and result of the runs on record, the newest last."""
    lines = []
    for recorded in recorded_runs(settings, paths):
        if on is None or recorded.trading_date == on:
            summary = read_summary(recorded.folder)
            if summary is not None:
                summary = {**summary, **_closed_since(recorded.folder)}
            result = headline(summary) if summary is not None else "no summary"
            lines.append({"run_id": recorded.run.run_id, "state": recorded.run.state.value, "result": result})
    return lines


@contextmanager
def open_journal(settings: Settings, recorded: RecordedRun) -> Iterator[SqlJournal]:
    """Open the journal of a run that is on record; none is created. Raises JournalUnavailable, also when it lost the run."""
    require_begun(settings, recorded)
    identity = RunIdentity(
        scope_key=recorded.run.scope.key,
        trading_date=recorded.trading_date,
        run_id=recorded.run.run_id,
        config_hash=settings.config_hash,
    )
    journal = SqlJournal(journal_url(settings, recorded.run), identity)
    try:
        yield journal
    finally:
        journal.close()


def require_begun(settings: Settings, recorded: RecordedRun) -> None:
    """Raise JournalUnavailable unless the journal is there and knows the run: opening another would hide the loss."""
    open_database(journal_url(settings, recorded.run), create=False).dispose()  # an older journal is migrated, and then read
    reader = JournalReader(journal_url(settings, recorded.run))
    try:
        begun = reader.latest_run(recorded.trading_date, scope_key=recorded.run.scope.key)
    finally:
        reader.close()
    if begun is None:
        raise JournalUnavailable(
            f"the journal of run {recorded.run.run_id} is new or another's: it does not know the run, so what was recorded is "
            "not in it. Restore a backup of it; what is open says the broker, and the next `velox run` asks it"
        )


def write_report(settings: Settings, recorded: RecordedRun, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Compute a run's report and keep it. Raises JournalUnavailable, VeloxError."""
    with open_journal(settings, recorded) as journal:
        report = build_report(journal.events(), {**facts, "fingerprint": strategy_fingerprint(settings)})
        run_key = journal.run_key
        report["journal_head"] = _head(recorded, *journal.tail()).to_json()
    expectations = judge(settings, recorded.folder.parent / EXPECTATIONS_FILE, report)
    report["expectations"] = [row.to_json() for row in expectations]
    records = JournalRecords(journal_url(settings, recorded.run))
    try:
        records.save_session_summary(run_key, _summary_row(report))
    finally:
        records.close()
    write_json(recorded.folder / SUMMARY_FILE, report)
    return report


def _head(recorded: RecordedRun, events: int, digest: str) -> RunHead:
    """Return how far the run's hash chain goes, to be noted outside the journal."""
    return RunHead(
        scope_key=recorded.run.scope.key,
        trading_date=recorded.trading_date.isoformat(),
        run_id=recorded.run.run_id,
        events=events,
        digest=digest,
    )


def _summary_row(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return the headline columns of the journal's summary table, with the whole report beside them."""
    same = ("net_paise", "realised_paise", "charges_paise", "worst_loss_paise", "flat")
    return {
        **{name: report[name] for name in same},
        "trades": report["trade_count"],
        "approved": report["decisions"]["approved"],
        "refused": report["decisions"]["refused"],
        "halted": bool(report["halts"]),
        "report": dict(report),
    }


def load_report(settings: Settings, recorded: RecordedRun) -> dict[str, Any]:
    """Return a run's report: the one on record, else one computed from the journal of a run that did not end itself.

    A closing from outside that ended after it is in the journal and not in the report on record: it is computed anew, and
    `closed` says what the closing came to.
    """
    kept = read_summary(recorded.folder)
    closed = _closed_since(recorded.folder)
    if kept is not None and not closed:
        return kept
    facts = unfinished_facts(settings, recorded) if kept is None else kept
    try:
        with open_journal(settings, recorded) as journal:
            return {**build_report(journal.events(), facts), **closed}
    except JournalUnavailable:
        if kept is None:
            raise
        return {**kept, **closed}


def _closed_since(folder: Path) -> dict[str, Any]:
    """Return the closing that ended after the engine's last word and the report on record, {} for none."""
    record, status = read_closing(folder), read_status(folder)
    if record is None or (status is not None and not record.is_newer_than(status.number("pid"), status.number("wall_ms"))):
        return {}
    with suppress(OSError):
        if (folder / SUMMARY_FILE).stat().st_mtime * 1_000 > record.wall_ms:
            return {}
    return {"closed": record.to_json()}


def unfinished_facts(settings: Settings, recorded: RecordedRun) -> dict[str, Any]:
    """Return the facts of a run that wrote no summary, as far as its status tells them."""
    status = read_status(recorded.folder)
    return {
        "trading_date": recorded.trading_date.isoformat(),
        "run_id": recorded.run.run_id,
        "environment": settings.environment,
        "broker": settings.broker.type.value,
        "account": settings.account,
        "config_hash": settings.config_hash,
        "loss_limit_paise": settings.risk.limits.loss_limit_paise,
        "synthetic": status is not None and status.flag("synthetic"),
        "source": status.text("source") if status is not None else "",
        "exit_code": None,
    }


def export_run(settings: Settings, recorded: RecordedRun, file: Path) -> int:
    """Write a run's journal as JSON Lines and return the number of lines. Raises JournalUnavailable, VeloxError."""
    with open_journal(settings, recorded) as journal:
        content = export_events(journal.events())
    scratch = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        scratch.write_bytes(content)
        scratch.replace(file)
    except OSError as error:
        raise VeloxError(f"{file} cannot be written: {error.strerror}. Name a folder that exists and is yours.") from error
    return content.count(b"\n")
