"""Running an end of day: one process at a time, the steps in their order, and what came of them.

- A kernel lock of the account keeps a second end of day away; it ends with its process, and names who has it.
- Refused while the session is open, or an engine has the run: nothing is looked at, nothing is changed.
- A step that is on record is not done again, unless it is asked for, or what it follows was done anew.
- A step that fails, however it fails, stops what needs it and nothing else.
- Exit codes: 4 when the account is not proven flat, else 1 when a step that counts is not done, else 0.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from velox_core.domain.errors import EXIT_DONE, EXIT_NOT_FLAT, EXIT_OPERATING_ERROR, NotFlatError, VeloxError
from velox_core.domain.scope import Scope
from velox_core.domain.time import ist_clock_text
from velox_core.engine_lock import ENGINE_LOCK, CloserLockFile, LockView
from velox_core.operations.dates import market_calendar, today_ist
from velox_core.operations.day import Day
from velox_core.operations.eod_record import EodRecord, StepResult, StepState
from velox_core.operations.eod_steps import STEPS, Evening, Step
from velox_core.operations.recorded import RecordedRun
from velox_core.operations.run_logs import open_logs
from velox_core.operations.status import read_summary
from velox_core.ports import CloserHold

EOD_LOCK: Final = "eod.lock"
MS_PER_NS: Final = 1_000_000

_log = logging.getLogger("velox.system")


@dataclass(frozen=True, slots=True, kw_only=True)
class EveningOutcome:
    """What came of an end of day. `report` is the summary as kept, {} when there is none."""

    run_id: str
    trading_date: str
    results: tuple[StepResult, ...]
    report: dict[str, Any]

    @property
    def exit_code(self) -> int:
        """Return 4 when it is not proven flat, 1 when a step that counts is not done, else 0."""
        if not self._is_flat:
            return EXIT_NOT_FLAT
        comfort = {step.name for step in STEPS if step.is_comfort}
        undone = [result for result in self.results if not result.is_done and result.step not in comfort]
        return EXIT_OPERATING_ERROR if undone else EXIT_DONE

    @property
    def _is_flat(self) -> bool:
        return all(
            result.is_done and result.data.get("flat") is not False for result in self.results if result.step == "flat"
        ) and (all(result.data.get("flat") is not False for result in self.results if result.step == "reset"))

    @property
    def sentence(self) -> str:
        """Return what came of it, and what is left to do."""
        undone = [result for result in self.results if not result.is_done]
        if not undone:
            return f"end of day of run {self.run_id}: all {len(self.results)} steps are done"
        what = "; ".join(f"{result.step} {result.state.value.lower()}: {result.text}" for result in undone)
        start = "the day is not over, the account is not proven flat" if not self._is_flat else "the end of day is not complete"
        return f"{start}, run {self.run_id}: {what}. Mend that and run it again: it does only what is left"

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "run_id": self.run_id,
            "trading_date": self.trading_date,
            "exit_code": self.exit_code,
            "message": self.sentence,
            "steps": [result.to_json() for result in self.results],
            "report": self.report,
        }

    @property
    def state_name(self) -> str:
        """Return what a flow's last state is called."""
        return {EXIT_DONE: "Done", EXIT_NOT_FLAT: "NotFlat"}.get(self.exit_code, "Incomplete")

    @property
    def failure(self) -> VeloxError | None:
        """Return what a flow ends with, None when everything that counts is done."""
        match self.exit_code:
            case 0:
                return None
            case 4:
                return NotFlatError(self.sentence)
            case _:
                return VeloxError(self.sentence)


@contextmanager
def open_evening(day: Day, recorded: RecordedRun, *, again: bool = False) -> Iterator[Evening]:
    """Begin an end of day; the lock is held until it ends.

    Raises: VeloxError while the session is open, an engine has the run, or another end of day of the account runs.
    """
    wall_ms = time.time_ns() // MS_PER_NS
    _refuse_while_open(day, recorded, wall_ms)
    account = Scope(broker_type=day.settings.broker.type.value, account=day.settings.account)
    lock = CloserLockFile(day.paths.var / account.folder / EOD_LOCK)
    try:
        if lock.take() is CloserHold.ELSEWHERE:
            raise VeloxError(
                f"an end of day of account {day.settings.account} runs already: {lock.holder} has it. Wait for it, then look: "
                "a second one does only what is left"
            )
        logs = open_logs(day.settings, day.paths, rotates=False, is_engine=False)
        try:
            record = EodRecord(recorded)
            yield Evening(day=day, recorded=recorded, record=record, today=today_ist(), wall_ms=wall_ms, again=again)
        finally:
            logs.stop()
            lock.give_back()
    finally:
        lock.close()


def _refuse_while_open(day: Day, recorded: RecordedRun, wall_ms: int) -> None:
    session = market_calendar(day.settings).session(recorded.trading_date)
    if day.wall_clock and session is not None and wall_ms < session.close_ms:
        raise VeloxError(
            f"the session of {recorded.trading_date} is open until {ist_clock_text(session.close_ms)} India time, and it is "
            f"{ist_clock_text(wall_ms)} now: run the end of day after that. To close everything now: velox flatten"
        )
    holder = LockView(recorded.folder / ENGINE_LOCK).holder()
    if holder is not None:
        raise VeloxError(
            f"run {recorded.run.run_id} is being traded by process {holder.pid}: its session is open. It ends by itself, or "
            "with velox stop; then run the end of day"
        )


def run_step(work: Evening, step: Step) -> StepResult:
    """Do one step, if it is due and may be done, and put it on record. Raises nothing but what ends the process."""
    before = work.record.step(step.name)
    if before is not None and before.is_done and not _is_due(work, step, before):
        result = StepResult(
            step=step.name, state=StepState.ALREADY_DONE, text=before.text, data=before.data, wall_ms=before.wall_ms
        )
        work.results[step.name] = result
        return result
    result = _act(work, step)
    work.results[step.name] = result
    try:
        work.record.keep(result)
    except VeloxError as error:
        text = f"{result.text}; but that could not be put on record, so it will be done again: {error}"
        result = StepResult(step=step.name, state=StepState.FAILED, text=text, data=result.data, wall_ms=result.wall_ms)
        work.results[step.name] = result
    _log.log(
        logging.INFO if result.is_done else logging.ERROR,
        "[EOD] %s %s: %s",
        step.name,
        result.state.value,
        result.text,
        extra=_engine_time(work),
    )
    return result


def _engine_time(work: Evening) -> dict[str, int]:
    """Return the time of the day that its end is logged under: the close of its session, so that it is the date's own line."""
    session = market_calendar(work.day.settings).session(work.recorded.trading_date)
    return {} if session is None else {"engine_ms": session.close_ms}


def _is_due(work: Evening, step: Step, before: StepResult) -> bool:
    if work.again or any(
        work.results[name].state is not StepState.ALREADY_DONE for name in step.follows if name in work.results
    ):
        return True
    if step.name != "alert":
        return False
    told = {"steps": {name: _state_of(result) for name, result in work.results.items()}}
    return told != {"steps": {name: _plain(state) for name, state in dict(before.data.get("steps", {})).items()}}


def _state_of(result: StepResult) -> str:
    return _plain(result.state.value)


def _plain(state: str) -> str:
    return StepState.DONE.value if state == StepState.ALREADY_DONE else state


def _act(work: Evening, step: Step) -> StepResult:
    wall_ms = time.time_ns() // MS_PER_NS
    missing = [name for name in step.needs if not work.done(name)]
    if missing:
        state = StepState.REFUSED if step.name == "reset" else StepState.BLOCKED
        return StepResult(step=step.name, state=state, text=f"not before {' and '.join(missing)}", wall_ms=wall_ms)
    try:
        told = step.act(work)
    except NotFlatError as error:
        return StepResult(step=step.name, state=StepState.REFUSED, text=str(error), data={"flat": False}, wall_ms=wall_ms)
    except VeloxError as error:
        return StepResult(step=step.name, state=StepState.FAILED, text=str(error), wall_ms=wall_ms)
    except Exception as error:
        _log.exception("[EOD] %s broke", step.name)
        text = f"it broke: {type(error).__name__}: {error}; report this as a bug"
        return StepResult(step=step.name, state=StepState.FAILED, text=text, wall_ms=wall_ms)
    return StepResult(step=step.name, state=told.state, text=told.text, data=told.data, wall_ms=wall_ms)


def outcome(work: Evening) -> EveningOutcome:
    """Return what came of an end of day."""
    return EveningOutcome(
        run_id=work.recorded.run.run_id,
        trading_date=work.recorded.trading_date.isoformat(),
        results=tuple(work.results.values()),
        report=read_summary(work.recorded.folder) or {},
    )


def run_evening(day: Day, recorded: RecordedRun, *, again: bool = False) -> EveningOutcome:
    """Run a whole end of day. Raises VeloxError as `open_evening` does."""
    with open_evening(day, recorded, again=again) as work:
        for step in STEPS:
            run_step(work, step)
        return outcome(work)


def page_of(work: Evening) -> Path | None:
    """Return where the report's page lies, None when it is not drawn."""
    result = work.results.get("report")
    page = result.data.get("page") if result is not None and result.is_done else None
    return Path(str(page)) if page else None
