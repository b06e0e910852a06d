"""Halts of earlier dates that nobody ended: what keeps a day from being opened until the end of day of that date has run.

- Asked of every earlier run of the account that no end of day closed: another day in between ends no halt. A run's end of
  day, or a person's reset, clears what stands.
- The halt file and the journal are read, whichever are there: a halt that one of them holds counts, a clear in any ends it.
- A journal that cannot be read may hold a halt, so it counts as one.
- A halt never ends by itself, and a new date is no reason to forget one.
"""

from __future__ import annotations

from datetime import date

from velox_core.domain.errors import JournalUnavailable
from velox_core.domain.halts import HaltKind, HaltRecord, active_halts
from velox_core.halt_file import HALT_FILE, JsonLinesHaltFile
from velox_core.operations.checklist import ItemResult, Verdict
from velox_core.operations.hints import velox
from velox_core.operations.recorded import RecordedRun, recorded_runs
from velox_core.operations.unended_day import eod_command
from velox_core.runs import RunState
from velox_core.settings import Paths, Settings

ITEM = "earlier_halt"
TITLE = "Halts of an earlier day"
RUNS_MAX = 500  # earlier runs without an end of day whose stores are read before the market opens
UNREADABLE_HALT_ID = "JOURNAL-UNREADABLE"


def earlier_halt(settings: Settings, paths: Paths, trading_date: date) -> ItemResult | None:
    """Return the line that refuses a date because of an earlier one's halt, None when none stands."""
    runs = [run for run in recorded_runs(settings, paths) if run.trading_date < trading_date]
    unended = sorted((run for run in runs if run.run.state is not RunState.CLOSED), key=lambda run: run.trading_date)
    for run in reversed(unended[-RUNS_MAX:]):
        if halts := standing_halts(settings, run):
            return _refusal(settings, run, halts)
    if len(unended) <= RUNS_MAX:
        return None
    first = unended[0]
    return ItemResult(
        item=ITEM,
        title=TITLE,
        verdict=Verdict.FAILED,
        measured=f"{len(unended)} runs of earlier days have no end of day, of which {RUNS_MAX} are looked at: a halt may stand",
        advice=f"end them, oldest first: {eod_command(settings, first)}; or move old run folders out of {first.folder.parent}",
    )


def _refusal(settings: Settings, run: RecordedRun, halts: tuple[HaltRecord, ...]) -> ItemResult:
    why = "; ".join(f"{halt.halt_id}: {halt.reason}" for halt in halts)
    reset = velox("reset", "--run", run.run.run_id, "--reason", "...", "--by", "...", settings=settings)
    advice = (
        f"run it: {eod_command(settings, run)}; it clears the halt once flat (where another run of its date followed: "
        f"{reset}); then open the market again"
    )
    if any(halt.halt_id == UNREADABLE_HALT_ID for halt in halts):
        advice = (
            f"make the journal readable: start its database, or restore {run.folder / 'journal.db'}; where it is lost for "
            f"good, prove the account flat at the broker and move {run.folder} out of {run.folder.parent}; else {advice}"
        )
    return ItemResult(
        item=ITEM,
        title=TITLE,
        verdict=Verdict.FAILED,
        measured=f"run {run.run.run_id} of {run.trading_date} is halted ({why}), and its end of day never ran",
        advice=advice,
    )


def standing_halts(settings: Settings, recorded: RecordedRun) -> tuple[HaltRecord, ...]:
    """Return the active halts of a run, by its halt file and its journal; one more when the journal cannot be read."""
    records = JsonLinesHaltFile(recorded.folder / HALT_FILE).records()
    if settings.stores.journal.url is None and not (recorded.folder / "journal.db").exists():
        return active_halts(records)
    from velox_core.journal.queries import JournalReader
    from velox_core.run_stores import journal_url

    try:
        reader = JournalReader(journal_url(settings, recorded.run))
        try:
            records += reader.halts(recorded.run.scope.key)
        finally:
            reader.close()
    except JournalUnavailable as error:
        return (*active_halts(records), _unreadable(recorded, error))
    return active_halts(records)


def _unreadable(recorded: RecordedRun, error: JournalUnavailable) -> HaltRecord:
    return HaltRecord(
        halt_id=UNREADABLE_HALT_ID,
        kind=HaltKind.FAULT,
        trading_date=recorded.trading_date,
        reason=f"its journal cannot be read, and may hold a halt ({error})",
        by="market open",
        at_ms=0,
    )
