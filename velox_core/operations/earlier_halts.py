"""Halts of earlier dates that nobody ended: what keeps a day from being opened until the end of day of that date has run.

- Asked of the newest earlier date of the account that has a run; its end of day, or a person's reset, clears what stands.
- The halt file and the journal are read, whichever are there: a halt that one of them holds counts, a clear in any ends it.
- A halt never ends by itself, and a new date is no reason to forget one.
"""

from __future__ import annotations

import shlex
from datetime import date

from velox_core.domain.errors import JournalUnavailable
from velox_core.domain.halts import HaltRecord, active_halts
from velox_core.halt_file import HALT_FILE, JsonLinesHaltFile
from velox_core.operations.checklist import ItemResult, Verdict
from velox_core.operations.hints import program
from velox_core.operations.recorded import DATE_LENGTH, RecordedRun, recorded_runs
from velox_core.runs import RunState
from velox_core.settings import Paths, Settings

ITEM = "earlier_halt"


def earlier_halt(settings: Settings, paths: Paths, trading_date: date) -> ItemResult | None:
    """Return the line that refuses a date because of an earlier one's halt, None when none stands."""
    runs = [run for run in recorded_runs(settings, paths) if run.trading_date < trading_date]
    newest = max((run.trading_date for run in runs), default=None)
    halted = {
        run.run.run_id: (run, halts)
        for run in runs
        if run.trading_date == newest and run.run.state is not RunState.CLOSED and (halts := standing_halts(settings, run))
    }
    if not halted:
        return None
    run, halts = list(halted.values())[-1]
    why = "; ".join(f"{halt.halt_id}: {halt.reason}" for halt in halts)
    return ItemResult(
        item=ITEM,
        title="Halts of an earlier day",
        verdict=Verdict.FAILED,
        measured=f"run {run.run.run_id} of {run.trading_date} is halted ({why}), and its end of day never ran",
        advice=f"run it: {_end_of_day(settings, run)}; it clears the halt once flat; then open the market again",
    )


def standing_halts(settings: Settings, recorded: RecordedRun) -> tuple[HaltRecord, ...]:
    """Return the active halts of a run, by its halt file and its journal."""
    records = JsonLinesHaltFile(recorded.folder / HALT_FILE).records()
    if settings.stores.journal.url is not None or (recorded.folder / "journal.db").exists():
        from velox_core.journal.queries import JournalReader
        from velox_core.run_stores import journal_url

        try:
            reader = JournalReader(journal_url(settings, recorded.run))
            try:
                records += reader.halts(recorded.run.scope.key)
            finally:
                reader.close()
        except JournalUnavailable:
            pass  # the halt file alone then says what stands; the engine of that run takes an unreadable journal for a halt
    return active_halts(records)


def _end_of_day(settings: Settings, recorded: RecordedRun) -> str:
    stem = recorded.folder.name.rpartition("-")[0]
    arguments = ["-m", "flows.end_of_day", "--config", str(settings.source), "--date", stem[:DATE_LENGTH]]
    scenario = stem[DATE_LENGTH + 1 :]
    return " ".join([program("python"), *map(shlex.quote, [*arguments, *(["--scenario", scenario] if scenario else [])])])
