"""Runs on record: finding one, its report, its export.

- A run's report is computed from its journal and kept as `summary.json` in its folder and as a row in the journal.
- The newest run of a date is the one with the highest number among the newest of its scenarios, by its last change.
- The export is what two runs of the same day must have in common, byte for byte.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Final

from velox_core.domain.errors import VeloxError
from velox_core.domain.scope import Scope
from velox_core.journal.export import export_events
from velox_core.journal.records import JournalRecords
from velox_core.journal.run import RunIdentity
from velox_core.journal.sql import SqlJournal
from velox_core.operations.hints import velox
from velox_core.operations.json_file import write_json
from velox_core.operations.probes import strategy_fingerprint
from velox_core.operations.report import build_report
from velox_core.operations.status import SUMMARY_FILE, read_status, read_summary
from velox_core.operations.view import headline
from velox_core.run_stores import journal_url
from velox_core.runs import RunFolder, run_folder
from velox_core.settings import BrokerType, Paths, Settings

DATE_LENGTH: Final = len("2024-01-15")


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedRun:
    """One run that was begun."""

    run: RunFolder
    trading_date: date

    @property
    def folder(self) -> Path:
        """Return where the run's files lie."""
        return self.run.folder


def recorded_runs(settings: Settings, paths: Paths) -> list[RecordedRun]:
    """Return the account's replays, the one that changed last at the end."""
    account = Scope(broker_type=BrokerType.SIMULATED.value, account=settings.account)
    parent = (paths.var / Scope(broker_type=account.broker_type, account=account.account, run_id="x").folder).parent
    found = []
    for folder in sorted(parent.iterdir()) if parent.is_dir() else []:
        try:
            trading_date = date.fromisoformat(folder.name[:DATE_LENGTH])
            run = run_folder(paths.var, account, folder.name)
        except ValueError:
            continue
        if folder.is_dir():
            found.append(RecordedRun(run=run, trading_date=trading_date))
    return sorted(found, key=_changed_at)


def _changed_at(recorded: RecordedRun) -> tuple[int, str]:
    status = read_status(recorded.folder)
    return (status.number("wall_ms") if status is not None else 0, recorded.folder.name)


def run_lines(settings: Settings, paths: Paths, *, on: date | None = None) -> list[dict[str, str]]:
    """Return id, state and result of the runs on record, the newest last."""
    lines = []
    for recorded in recorded_runs(settings, paths):
        if on is None or recorded.trading_date == on:
            summary = read_summary(recorded.folder)
            result = headline(summary) if summary is not None else "no summary"
            lines.append({"run_id": recorded.run.run_id, "state": recorded.run.state.value, "result": result})
    return lines


def find_run(
    settings: Settings, paths: Paths, *, on: date | None = None, stem: str | None = None, run_id: str | None = None
) -> RecordedRun:
    """Return the newest run: of a date, of a stem (date, with the scenario's name for synthetic days), or the one named.

    Raises: VeloxError when there is none, naming the dates that there are.
    """
    runs = recorded_runs(settings, paths)
    wanted = [
        recorded
        for recorded in runs
        if (on is None or recorded.trading_date == on)
        and (stem is None or recorded.folder.name.rpartition("-")[0] == stem)
        and (run_id is None or recorded.run.run_id == run_id)
    ]
    if wanted:
        return wanted[-1]
    dates = sorted({recorded.trading_date.isoformat() for recorded in runs})
    known = f"on record are {', '.join(dates[-10:])}" if dates else "nothing is on record yet"
    if run_id is not None:
        raise VeloxError(
            f"no run {run_id} below {paths.var}: {known}. The ids: {velox('summary', '--list', settings=settings)}"
        )
    again = velox("day", "--date", "YYYY-MM-DD", settings=settings)
    raise VeloxError(f"no run of {stem or on or 'any date'} below {paths.var}: {known}. Run one: {again}")


@contextmanager
def open_journal(settings: Settings, recorded: RecordedRun) -> Iterator[SqlJournal]:
    """Open the journal of a run that is on record. Raises JournalUnavailable."""
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


def write_report(settings: Settings, recorded: RecordedRun, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Compute a run's report and keep it. Raises JournalUnavailable, VeloxError."""
    with open_journal(settings, recorded) as journal:
        report = build_report(journal.events(), {**facts, "fingerprint": strategy_fingerprint(settings)})
        run_key = journal.run_key
    records = JournalRecords(journal_url(settings, recorded.run))
    try:
        records.save_session_summary(run_key, _summary_row(report))
    finally:
        records.close()
    write_json(recorded.folder / SUMMARY_FILE, report)
    return report


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
    """Return a run's report: the one on record, else one computed from the journal of a run that did not end itself."""
    kept = read_summary(recorded.folder)
    if kept is not None:
        return kept
    with open_journal(settings, recorded) as journal:
        return build_report(journal.events(), unfinished_facts(settings, recorded))


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
