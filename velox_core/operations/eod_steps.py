"""The steps of an end of day, in their order: what each needs, what makes it due again, and what it does.

- A step is one call into the part that does it; it returns its words and figures, or raises what failed.
- What a step needs must be done: else it is BLOCKED, and the reset is REFUSED. Nothing else of the day waits for it.
- What was done anew meanwhile makes a later step due again: a summary after a new word of the broker, a page after a summary.
- Report and alert are for comfort: what fails about them is told and tried again, and costs the day nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Final

from velox_core.alert_setup import open_alerts
from velox_core.archive import Manifest, archive_date, prune_archives, prune_rotated, read_manifest
from velox_core.archive.retention import archive_folder
from velox_core.backup.faults import BackupError
from velox_core.domain.errors import VeloxError
from velox_core.domain.money import rupees_display
from velox_core.logs import LOG_FILES
from velox_core.operations import eod, session_report
from velox_core.operations.backup import BackupOutcome, backup_day, bring_rest
from velox_core.operations.day import Day
from velox_core.operations.eod_record import EodRecord, StepResult, StepState
from velox_core.operations.figure_words import figure_lines
from velox_core.operations.recorded import RecordedRun
from velox_core.operations.run_logs import archive_root, logs_folder
from velox_core.operations.status import read_summary
from velox_core.operations.view import headline
from velox_core.ports import Severity
from velox_core.simulated_account import BookGone

MEGABYTE: Final = 1_000_000


@dataclass(slots=True, kw_only=True)
class Evening:
    """One end of day under way.

    Attributes:
        day, recorded: which run.
        record: what is on record of it.
        today, wall_ms: today's date in India and the machine's clock, epoch ms.
        again: do what is done already, too.
        results: this evening's steps so far, by name.
        made: the report of this evening, once it is drawn.
    """

    day: Day
    recorded: RecordedRun
    record: EodRecord
    today: date
    wall_ms: int
    again: bool = False
    results: dict[str, StepResult] = field(default_factory=dict)
    made: session_report.SessionReport | None = None

    def done(self, name: str) -> bool:
        """Return whether a step is done, this evening or earlier."""
        result = self.results.get(name) or self.record.step(name)
        return result is not None and result.is_done


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a step says of itself."""

    text: str
    data: Mapping[str, Any] = field(default_factory=dict)
    state: StepState = StepState.DONE


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step.

    Attributes:
        needs: must be done before it.
        follows: when one of these was done anew, it is due again.
    """

    name: str
    title: str
    act: Callable[[Evening], Told]
    needs: tuple[str, ...] = ()
    follows: tuple[str, ...] = ()
    is_comfort: bool = False


def _flat(work: Evening) -> Told:
    proof = eod.prove_flat(work.day.settings, work.recorded)
    if proof.flat:
        return Told(text=proof.text, data={"flat": True})
    return Told(text=f"{proof.text}. {proof.remedy}", data={"flat": False, "said": proof.text}, state=StepState.FAILED)


def _reconcile(work: Evening) -> Told:
    try:
        found = eod.reconcile_day(work.day, work.recorded)
    except BookGone as error:
        if work.recorded.trading_date >= work.today:
            raise
        return Told(text=f"unverified: {error}", state=StepState.UNVERIFIED)
    if found.problem:
        text = f"{found.report.sentence}. {found.problem}. velox doctor --reconcile shows each"
        return Told(text=text, data=found.to_json(), state=StepState.FAILED)
    agreed = len(found.report.differences)
    words = f"{agreed} difference{'s' * (agreed != 1)}, each explained" if agreed else "orders, fills and charges agree"
    return Told(text=f"{words}; charges {rupees_display(found.charges_paise)}", data=found.to_json())


def _proof(work: Evening) -> eod.FlatProof:
    result = work.results.get("flat") or work.record.step("flat")
    if result is None:
        return eod.FlatProof(flat=False, text="it was not looked at whether the account is flat")
    said = result.data.get("said")
    return eod.FlatProof(flat=result.is_done, text="the broker says flat" if result.is_done else str(said or result.text))


def _summary(work: Evening) -> Told:
    report = eod.keep_summary(work.day, work.recorded, _proof(work))
    return Told(text=headline(report), data={"net_paise": report["net_paise"], "run_id": report["run_id"]})


def _reset(work: Evening) -> Told:
    cleared = eod.reset_day(work.day, work.recorded)
    if cleared:
        eod.keep_summary(work.day, work.recorded, _proof(work))  # its halts are cleared ones now
    text = f"halts cleared: {', '.join(cleared)}" if cleared else "no halt was active"
    return Told(text=text, data={"cleared": cleared})


def _backup(work: Evening) -> Told:
    settings, paths, on = work.day.settings, work.day.paths, work.recorded.trading_date
    made = (_brought_rest(work) if _lacks_only_places(work) else None) or backup_day(settings, paths, on)
    facts = {"name": made.name, "verified": made.good, "head": made.head, "lacking": [*made.lacking]}
    return Told(text="; ".join(made.sentences), data=facts, state=StepState.FAILED if made.exit_code else StepState.DONE)


def _lacks_only_places(work: Evening) -> bool:
    """Return whether an earlier end of day made a good backup that did not reach every place, and nothing came after it."""
    before = work.record.step("backup")
    (step,) = [step for step in STEPS if step.name == "backup"]
    anew = any(work.results[name].state is not StepState.ALREADY_DONE for name in step.follows if name in work.results)
    return before is not None and bool(before.data.get("lacking")) and not anew and not work.again


def _brought_rest(work: Evening) -> BackupOutcome | None:
    try:
        return bring_rest(work.day.settings, work.day.paths, work.recorded.trading_date)
    except BackupError:
        return None  # where it was it is no more: another one is taken


def _archive(work: Evening) -> Told:
    settings, paths = work.day.settings, work.day.paths
    made = _archive_date(work, work.recorded.trading_date)
    text = f"{made.lines} lines of {made.date}, {made.stored_size / MEGABYTE:.1f} MB in {_folder(work, made.date)}"
    if not made.whole:
        text += "; rotation may have removed earlier lines of the day: set system.logs.keep_files higher"
    before = _newest_other(work, made.date)
    if before:  # what was logged after its own end of day
        _archive_date(work, date.fromisoformat(before))
    facts = {"folder": str(_folder(work, made.date)), "lines": made.lines, "stored_size": made.stored_size, "whole": made.whole}
    return Told(text=text, data={**facts, "live": str(logs_folder(settings, paths))})


def _archive_date(work: Evening, on: date) -> Manifest:
    settings, paths = work.day.settings, work.day.paths
    return archive_date(
        logs_folder(settings, paths),
        archive_folder(archive_root(paths), on, settings.environment),
        on,
        LOG_FILES.values(),
        keep_files=settings.logs.keep_files,
        wall_ms=work.wall_ms,
    )


def _folder(work: Evening, on: str) -> Any:
    return archive_folder(archive_root(work.day.paths), date.fromisoformat(on), work.day.settings.environment)


def _newest_other(work: Evening, on: str) -> str:
    """Return the date whose archive was made last, beside one; '' for none."""
    found = []
    for path in archive_root(work.day.paths).glob(f"*/{work.day.settings.environment}/manifest.json"):
        try:
            manifest = read_manifest(path.parent)
        except VeloxError:
            continue  # retention tells of it
        if manifest is not None and manifest.date != on:
            found.append((manifest.archived_wall_ms, manifest.date))
    return max(found, default=(0, ""))[1]


def _retention(work: Evening) -> Told:
    settings, paths = work.day.settings, work.day.paths
    root, environment, logs = archive_root(paths), settings.environment, settings.logs
    source = logs_folder(settings, paths)
    try:
        rotated = prune_rotated(source, root, environment, LOG_FILES.values(), keep_days=logs.keep_days, wall_ms=work.wall_ms)
        archives = prune_archives(
            root,
            environment,
            keep_days=logs.archive_days,
            bytes_max=logs.archive_megabytes * MEGABYTE,
            wall_ms=work.wall_ms,
        )
    except OSError as error:
        raise VeloxError(f"old logs cannot be removed: {error}. Make {source} and {root} writable") from error
    removed, kept = [*rotated.removed, *archives.removed], [*rotated.kept, *archives.kept]
    freed = (rotated.freed + archives.freed) / MEGABYTE
    text = f"{len(removed)} removed, {freed:.1f} MB freed" if removed else "nothing is due"
    return Told(text="; ".join([text, *kept]), data={"removed": removed, "kept": kept})


def _report(work: Evening) -> Told:
    work.made = session_report.make_report(work.day.settings, work.day.paths, work.recorded)
    return Told(text=str(work.made.page), data={"page": str(work.made.page)})


def _alert(work: Evening) -> Told:
    states = {name: result.state.value for name, result in work.results.items()}
    undone = [result for result in work.results.values() if not result.is_done]
    flat = work.done("flat")
    severity = Severity.INFO if not undone else Severity.WARNING if flat else Severity.CRITICAL
    report = read_summary(work.recorded.folder) or {}
    on = work.recorded.trading_date
    title = f"End of day {on}: {'NOT FLAT' if not flat else 'done' if not undone else 'not complete'}"
    text = [headline(report) if report else "", *figure_lines(report)]
    text += [f"{result.step} {result.state.value}: {result.text}" for result in undone]
    with open_alerts(work.day.settings, label=f"end of day {work.recorded.run.run_id}") as alerts:
        alerts.send(severity, title, "\n".join(line for line in text if line))
    return Told(text=title, data={"steps": states})


STEPS: Final[tuple[Step, ...]] = (
    Step(name="flat", title="Proved flat at the broker", act=_flat),
    Step(name="reconcile", title="Compared with the broker's book", act=_reconcile),
    Step(name="summary", title="Daily summary", act=_summary, follows=("flat",)),
    Step(name="reset", title="Emergency state reset", act=_reset, needs=("flat", "reconcile"), follows=("flat",)),
    Step(name="backup", title="Databases backed up", act=_backup, follows=("summary", "reset")),
    Step(name="archive", title="Logs archived", act=_archive),
    Step(name="retention", title="Old logs removed", act=_retention, needs=("archive",), follows=("archive",)),
    Step(name="report", title="Report", act=_report, needs=("summary",), follows=("summary", "reset"), is_comfort=True),
    Step(name="alert", title="Told", act=_alert, is_comfort=True),
)
STEP_NAMES: Final = tuple(step.name for step in STEPS)
