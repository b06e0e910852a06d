"""Clearing the halts of a run: `velox reset`.

- While an engine runs, it is asked to: it alone knows its books, and two that clear and latch at once would cross.
- Without one the run is opened as an engine opens it (lock, stores, the broker's book), and closed again after the reset.
- Refused while the broker does not say flat, while a store cannot be read or does not take the clear, and for a LOSS halt
  on its own date: that one ends with the day's end of day.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any, Final

from velox_core.control import RESET, FileControl, new_request
from velox_core.domain.errors import EXIT_DONE, EXIT_NOT_FLAT, VeloxError
from velox_core.domain.halts import HaltRecord, active_halts
from velox_core.halt_file import HALT_FILE, JsonLinesHaltFile
from velox_core.operations.halt import chosen_run, engine_status, refuse_nameless
from velox_core.operations.halt_words import grouped
from velox_core.operations.processes import is_alive
from velox_core.operations.recorded import DATE_LENGTH, RecordedRun
from velox_core.operations.run_logs import open_logs
from velox_core.operations.status import read_status
from velox_core.runs import RunState, write_state
from velox_core.settings import Paths, Settings

POLL_SECONDS: Final = 0.1
RUN_AGAIN: Final = "; run the engine again"  # the advice of a refusal without an engine


@dataclass(frozen=True, slots=True, kw_only=True)
class ResetOutcome:
    """What came of a reset. `refusal` says why nothing, or not everything, was cleared; '' when it was.

    `halts` are the records that stood before, as far as the halt file had them.
    """

    run_id: str
    cleared: tuple[str, ...]
    refusal: str
    exit_code: int
    halts: tuple[HaltRecord, ...] = ()

    @property
    def sentence(self) -> str:
        """Return what happened, for people."""
        if self.refusal:
            return self.refusal
        if not self.cleared:
            return f"run {self.run_id}: no halt is active, nothing was cleared"
        count = len(self.cleared)
        return f"run {self.run_id}: {count} halt{'s' * (count != 1)} cleared, none stands any more"

    @property
    def listing(self) -> list[str]:
        """Return each halt that was cleared, and each that stands on, with what it is, why, and its ids."""
        bodies = {halt.halt_id: halt.to_body() for halt in self.halts}
        gone = [bodies[halt_id] for halt_id in self.cleared if halt_id in bodies]
        lines = [f"  cleared: {group.brief}  [{', '.join(group.ids)}]" for group in grouped(gone)]
        lines += [f"  cleared: {halt_id}" for halt_id in self.cleared if halt_id not in bodies]
        if self.refusal:
            left = [body for halt_id, body in bodies.items() if halt_id not in self.cleared]
            lines += [f"  stands: {group.line}  [{', '.join(group.ids)}]" for group in grouped(left)]
        return lines

    def to_json(self) -> dict[str, Any]:
        """Return the outcome as JSON values."""
        return {
            "run": self.run_id,
            "cleared": list(self.cleared),
            "halts": [halt.to_body() for halt in self.halts],
            "exit_code": self.exit_code,
            "message": self.sentence,
        }


def request_reset(
    settings: Settings,
    paths: Paths,
    *,
    reason: str,
    by: str,
    on: date | None = None,
    run_id: str | None = None,
    data: Path | None = None,
    wait_seconds: float,
) -> ResetOutcome:
    """Clear the active halts of a run.

    Raises: ConfigError without a reason or a name; VeloxError when there is no such run, it cannot be opened, or its
        engine does not answer within the bound.
    """
    refuse_nameless(reason=reason, by=by)
    recorded = chosen_run(settings, paths, on=on, run_id=run_id)
    status = engine_status(recorded)
    halts = active_halts(JsonLinesHaltFile(recorded.folder / HALT_FILE).records())
    if status is not None:
        outcome = _ask_engine(recorded, status.number("pid"), reason=reason, by=by, wait_seconds=wait_seconds)
        return replace(outcome, halts=halts)
    logs = open_logs(settings, paths)
    try:
        return replace(_reset(settings, paths, recorded, reason=reason, by=by, data=data), halts=halts)
    finally:
        logs.stop()


def _ask_engine(recorded: RecordedRun, pid: int, *, reason: str, by: str, wait_seconds: float) -> ResetOutcome:
    request = new_request(RESET, by=by, reason=reason)
    FileControl(recorded.folder).request(request)
    until = time.monotonic() + wait_seconds
    while time.monotonic() < until and is_alive(pid):
        status = read_status(recorded.folder)
        answer = None if status is None else status.body.get("reset")
        if isinstance(answer, dict) and answer.get("request_id") == request.request_id:
            return ResetOutcome(
                run_id=recorded.run.run_id,
                cleared=tuple(answer["cleared"]),
                refusal=while_it_runs(str(answer["message"]), int(answer["exit_code"])),
                exit_code=int(answer["exit_code"]),
            )
        time.sleep(POLL_SECONDS)
    raise VeloxError(
        f"engine {pid} of run {recorded.run.run_id} did not answer the reset within {wait_seconds:g} s; it may still carry "
        "it out: see velox status"
    )


def while_it_runs(refusal: str, exit_code: int) -> str:
    """Return an engine's refusal with what helps while it runs: not flat is what it alone mends."""
    if exit_code != EXIT_NOT_FLAT:
        return refusal
    return (
        f"{refusal.partition(RUN_AGAIN)[0]}; its engine runs and squares off in time, or now, with velox stop; then reset again"
    )


def begun_on(folder: Path) -> Path | None:
    """Return the data that a run was begun on, where its status says so."""
    status = read_status(folder)
    data = "" if status is None else status.text("data")
    return Path(data) if data else None


def _reset(settings: Settings, paths: Paths, recorded: RecordedRun, *, reason: str, by: str, data: Path | None) -> ResetOutcome:
    from velox_core.bootstrap import RunRequest, open_run  # brings the stores with it; an engine that is asked has its own
    from velox_core.operations.runs import require_begun

    if recorded.run.state is not RunState.NEW:
        require_begun(settings, recorded)  # opening the run would begin a new journal, and hide the loss
    stem = recorded.folder.name.rpartition("-")[0]
    scenario = stem[DATE_LENGTH + 1 :] or None
    request = RunRequest(
        date=recorded.trading_date,
        data=data or (begun_on(recorded.folder) if scenario is None else None),
        scenario=scenario,
        run_id=recorded.run.run_id,
    )
    with open_run(settings, paths, request) as opened:
        now_ms = max(opened.engine.resumed_ms, opened.plan.open_ms)
        try:
            cleared = opened.engine.emergency.reset(reason, by, now_ms, session_over=False)
        except VeloxError as error:
            return ResetOutcome(run_id=recorded.run.run_id, cleared=(), refusal=str(error), exit_code=error.exit_code)
    if recorded.run.state is RunState.ENDED_HALTED:
        write_state(recorded.folder, RunState.ENDED)
    return ResetOutcome(
        run_id=recorded.run.run_id,
        cleared=tuple(record.clears for record in cleared),
        refusal="",
        exit_code=EXIT_DONE,
    )
