"""The end of the day before: what the market open says when it never ran, or left a step undone.

- It is a warning, on record with the checklist: a halt that stands refuses the day on its own (`earlier_halts`).
- The day before is the newest earlier date that was traded; of its runs the newest counts.
- Reads folders only.
"""

from __future__ import annotations

from datetime import date

from velox_core.operations.checklist import ItemResult, Verdict
from velox_core.operations.eod_record import done_steps
from velox_core.operations.hints import velox
from velox_core.operations.recorded import DATE_LENGTH, RecordedRun, recorded_runs
from velox_core.runs import RunState
from velox_core.settings import Paths, Settings

ITEM = "earlier_end_of_day"
TITLE = "End of the day before"


def unended_day(settings: Settings, paths: Paths, trading_date: date) -> ItemResult | None:
    """Return the line that warns of an earlier date's end of day, None when there is nothing to say."""
    earlier = [run for run in recorded_runs(settings, paths) if run.trading_date < trading_date]
    if not earlier:
        return None
    newest = max(run.trading_date for run in earlier)
    run = [run for run in earlier if run.trading_date == newest][-1]
    undone = [f"{step.step} {step.state.value.lower()}" for step in done_steps(run.folder).values() if not step.is_done]
    if run.run.state is RunState.CLOSED and not undone:
        return None
    if undone:
        measured = f"the end of day of {newest} (run {run.run.run_id}) is not complete: {', '.join(undone)}"
    else:
        measured = f"the end of day of {newest} (run {run.run.run_id}) never ran: no summary, backup or archive of it"
    return ItemResult(
        item=ITEM, title=TITLE, verdict=Verdict.WARNED, measured=measured, advice=f"run it: {eod_command(settings, run)}"
    )


def eod_command(settings: Settings, recorded: RecordedRun) -> str:
    """Return the command line of a run's end of day."""
    stem = recorded.folder.name.rpartition("-")[0]
    scenario = stem[DATE_LENGTH + 1 :]
    return velox("eod", "--date", stem[:DATE_LENGTH], *(["--scenario", scenario] if scenario else []), settings=settings)
