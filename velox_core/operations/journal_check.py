"""The account's journals checked for changes: chains, tables beside them, and heads that were noted elsewhere.

- Heads are noted in a run's summary at its end, and in the manifest of each backup; both outlive a change of the journal.
- Emergency files, which have chains of their own, are checked too.
- Changes nothing, beside a running engine or without one, but that a journal of an older revision is migrated first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from velox_core.backup.sources import account_scope
from velox_core.domain.errors import EXIT_DONE, EXIT_OPERATING_ERROR, JournalUnavailable
from velox_core.journal.database import open_database
from velox_core.journal.file import verify_chain
from velox_core.journal.verify import RunHead, RunVerdict, head_of_day, run_heads, verify_runs
from velox_core.operations.backup_places import list_backups
from velox_core.operations.recorded import RecordedRun, recorded_runs
from velox_core.operations.status import account_folders, read_summary
from velox_core.runs import JOURNAL_DATABASE
from velox_core.settings import Paths, Settings

EMERGENCY_FILES = "emergency*.jsonl*"


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalFinding:
    """One run's journal, or one emergency file: '' or the first thing that is wrong, and the event where it is."""

    where: str
    run: str
    events: int
    digest: str
    problem: str = ""
    sequence: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        names = ("run", "events", "digest", "problem", "sequence")
        return {"ok": not self.problem, "place": self.where, **{name: getattr(self, name) for name in names}}


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalReport:
    """What was looked at, and with how many heads that were noted elsewhere it was compared."""

    findings: tuple[JournalFinding, ...]
    noted: int

    @property
    def ok(self) -> bool:
        """Return whether nothing is wrong."""
        return not any(finding.problem for finding in self.findings)

    @property
    def exit_code(self) -> int:
        """Return 0 when nothing is wrong, 1 else."""
        return EXIT_DONE if self.ok else EXIT_OPERATING_ERROR

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {"ok": self.ok, "heads_noted": self.noted, "journals": [finding.to_json() for finding in self.findings]}


def verify_journals(
    settings: Settings, paths: Paths, *, on: date | None = None, run_id: str | None = None, against: bool = True
) -> JournalReport:
    """Check the account's journals: all, those of a date, or one run's.

    Args:
        settings, paths: the account.
        on, run_id: which runs; None for all.
        against: compare with the heads in summaries and backups.
    """
    noted = _noted_heads(settings, paths) if against else []
    findings: list[JournalFinding] = []
    for url, place, folder in _journals(settings, paths, on, run_id):
        findings += _findings(url, place, _belonging(settings, noted, folder))
        findings += [_file_finding(path) for path in (sorted(folder.glob(EMERGENCY_FILES)) if folder is not None else ())]
    if on is not None:
        findings = [finding for finding in findings if not finding.run or on.isoformat() in finding.run]
    return JournalReport(findings=tuple(findings), noted=len(noted))


def day_head(settings: Settings, paths: Paths, trading_date: date) -> str:
    """Return the hash of a day's events as they stand (hex), '' without a run. Raises JournalUnavailable."""
    heads: list[RunHead] = []
    for url, _, _ in _journals(settings, paths, trading_date, None):
        _bring_to_head(url)
        heads += run_heads(url)
    return head_of_day(head for head in _of_account(settings, heads) if head.trading_date == trading_date.isoformat())


def _belonging(settings: Settings, noted: list[RunHead], folder: Path | None) -> list[RunHead]:
    """Return the heads of the runs that a journal holds: all on a server, those of its folder's scope in a file."""
    if folder is None:
        return _of_account(settings, noted)
    is_account = folder.name == settings.account and folder.parent.name == settings.broker.type.value
    return [head for head in noted if (head.run_id == "" if is_account else head.run_id == folder.name)]


def _of_account(settings: Settings, heads: list[RunHead]) -> list[RunHead]:
    key = account_scope(settings).key
    return [head for head in heads if head.scope_key == key or head.scope_key.startswith(f"{key}:")]


def _journals(settings: Settings, paths: Paths, on: date | None, run_id: str | None) -> Iterator[tuple[str, str, Path | None]]:
    """Return URL, place for people, and folder of each journal that is there."""
    server = settings.stores.journal
    if server.url is not None:
        yield server.url, str(server.display_url), None
        return
    folders = account_folders(paths.var, broker_type=settings.broker.type.value, account=settings.account)
    wanted = {recorded.folder for recorded in recorded_runs(settings, paths) if _is_wanted(recorded, on, run_id)}
    for folder in folders:
        is_account = folder == folders[0]
        if folder in wanted or (is_account and run_id is None):
            file = folder / JOURNAL_DATABASE
            if file.exists():
                yield f"sqlite:///{file}", file.relative_to(paths.var).as_posix(), folder


def _is_wanted(recorded: RecordedRun, on: date | None, run_id: str | None) -> bool:
    return (on is None or recorded.trading_date == on) and (run_id is None or recorded.run.run_id == run_id)


def _findings(url: str, place: str, noted: list[RunHead]) -> list[JournalFinding]:
    """Return what was found of a journal. `noted` are the heads that belong into it: a run of them that is gone is told."""
    try:
        _bring_to_head(url)
        verdicts = verify_runs(url, noted)
    except JournalUnavailable as error:
        return [JournalFinding(where=place, run="", events=0, digest="", problem=str(error))]
    there = {_identity(verdict.head) for verdict in verdicts}
    gone = {_identity(head): head for head in noted if _identity(head) not in there}
    return [_finding(place, verdict) for verdict in verdicts] + [
        _finding(place, RunVerdict(head=head, problem="the run, which was noted elsewhere, is missing"))
        for head in gone.values()
    ]


def _bring_to_head(url: str) -> None:
    """Migrate a journal of an older revision, as every command does that reads one; its events stay what they are."""
    open_database(url, create=False).dispose()


def _identity(head: RunHead) -> tuple[str, str, str]:
    return head.scope_key, head.trading_date, head.run_id


def _finding(place: str, verdict: RunVerdict) -> JournalFinding:
    head = verdict.head
    run = head.run_id or f"{head.trading_date} {head.scope_key}"
    return JournalFinding(
        where=place, run=run, events=head.events, digest=head.digest, problem=verdict.problem, sequence=verdict.sequence
    )


def _file_finding(path: Path) -> JournalFinding:
    try:
        broken = verify_chain(path)
    except JournalUnavailable as error:
        return JournalFinding(where=path.name, run="", events=0, digest="", problem=str(error))
    problem = "" if broken is None else f"event {broken} was edited, removed or damaged"
    return JournalFinding(where=path.name, run="", events=0, digest="", problem=problem, sequence=broken)


def _noted_heads(settings: Settings, paths: Paths) -> list[RunHead]:
    """Return what summaries and the backups that can be read say of the account's runs."""
    heads: list[RunHead] = []
    for recorded in recorded_runs(settings, paths):
        body = (read_summary(recorded.folder) or {}).get("journal_head")
        try:
            heads.append(RunHead.from_json(body) if isinstance(body, dict) else _NOTHING)
        except (KeyError, ValueError, TypeError):
            continue
    for stored in list_backups(settings, paths):
        heads += stored.manifest.heads if stored.manifest is not None else ()
    return [head for head in dict.fromkeys(heads) if head.events]


_NOTHING = RunHead(scope_key="", trading_date="", run_id="", events=0, digest="")
