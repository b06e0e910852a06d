"""The end of a day: prove the account flat by the broker's word, keep the report, reset the emergency state.

- Flat is what the broker says. A broker that does not answer is "not flat".
- While not flat the reset is refused; the report is still made, and its exit code says not flat.
- Each step can be repeated: a second end of day finds nothing left to clear and writes the same report.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from velox_core.bootstrap import RunRequest, open_run
from velox_core.domain.errors import EXIT_DONE, EXIT_NOT_FLAT, EXIT_OPERATING_ERROR, VeloxError
from velox_core.operations.day import Day
from velox_core.operations.recorded import RecordedRun, find_run
from velox_core.operations.run_logs import open_logs
from velox_core.operations.runs import load_report, write_report
from velox_core.runs import RunState, write_state

RESET_REASON = "end of day: flat and reconciled"
RESET_BY = "end of day"
FACTS_OF_THE_RUN = (
    "trading_date",
    "run_id",
    "environment",
    "broker",
    "account",
    "config_hash",
    "loss_limit_paise",
    "synthetic",
    "source",
    "granularity",
    "bars",
    "dropped_rows",
    "ticks",
    "data_quality",
    "halted",
    "stopped",
    "fault",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FlatProof:
    """What the broker said. `text` names what is open, or why it could not be known; `remedy` says what to do then."""

    flat: bool
    text: str
    remedy: str = "velox run takes the run up again and squares it off; then run the end of day again"


def run_stem(day: Day) -> str:
    """Return what the ids of the day's runs begin with: the date, and the scenario of synthetic data."""
    return day.run_stem


def find_session(day: Day) -> RecordedRun:
    """Return the newest run of the day. Raises VeloxError when there is none."""
    return find_run(day.settings, day.paths, stem=run_stem(day))


def run_request(day: Day, recorded: RecordedRun) -> RunRequest:
    """Return the request that names exactly a run that is on record."""
    request = day.request
    return RunRequest(date=day.trading_date, data=request.data, scenario=request.scenario, run_id=recorded.run.run_id)


def close_day(day: Day, recorded: RecordedRun) -> tuple[FlatProof, list[str]]:
    """Ask the broker what it holds and, when it says flat, clear the date's halts; returns the proof and the cleared ids.

    Raises: VeloxError when a store does not take a clear record (the halt then stays).
    """
    logs = open_logs(day.settings, day.paths)
    try:
        return _close(day, recorded)
    finally:
        logs.stop()


def _close(day: Day, recorded: RecordedRun) -> tuple[FlatProof, list[str]]:
    with open_run(day.settings, day.paths, run_request(day, recorded)) as opened:
        emergency = opened.engine.emergency
        exposure = emergency.broker_exposure()
        if exposure is None:
            return FlatProof(flat=False, text="the broker does not answer, so nobody knows whether the account is flat"), []
        if exposure or not opened.engine.order_manager.is_flat():
            return FlatProof(flat=False, text=f"open are {'; '.join(exposure) or 'orders that may still trade'}"), []
        cleared = emergency.reset(RESET_REASON, RESET_BY, opened.plan.hard_stop_ms, session_over=True)
        opened.journal.commit()
    write_state(recorded.folder, RunState.CLOSED)
    return FlatProof(flat=True, text="the broker says flat"), [record.clears for record in cleared]


def not_closed(error: VeloxError) -> FlatProof:
    """Return the proof of a day whose books could not be opened or whose halts could not be cleared: nobody knows."""
    return FlatProof(
        flat=False,
        text=f"it could not be closed ({error}), so it is not proven flat",
        remedy="Mend that, then run the end of day again",
    )


def keep_summary(day: Day, recorded: RecordedRun, proof: FlatProof) -> dict[str, Any]:
    """Compute the run's report again, with the proof in it, and keep it."""
    before = load_report(day.settings, recorded)
    facts = {name: before.get(name) for name in FACTS_OF_THE_RUN}
    code = EXIT_NOT_FLAT if not proof.flat else EXIT_OPERATING_ERROR if before.get("fault") else EXIT_DONE
    report = write_report(day.settings, recorded, {**facts, "exit_code": code, "broker_says": proof.text})
    if proof.flat and not report["flat"]:
        raise VeloxError(
            f"the broker says flat, the journal of run {recorded.run.run_id} does not: {report['open_quantities']}. "
            "Do not trade on: compare the broker's book with velox summary --export"
        )
    return report
