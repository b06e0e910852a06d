"""What an end of day has done: one record in the run's folder, step by step, so that a second one does only the rest.

- It is bound to the run, its date and the last word about it: an engine that traded on, or a closing from outside, after a step
  was done makes every step due again.
- It is written after each step, durably and whole. A step whose word could not be written is done again: each can be repeated.
- A record that is torn, or another run's, says that nothing is done.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from velox_core.closing_record import read_closing
from velox_core.operations.json_file import read_json, write_json
from velox_core.operations.recorded import RecordedRun
from velox_core.operations.status import read_status

RECORD_FILE: Final = "eod.json"


class StepState(StrEnum):
    """How a step ended.

    UNVERIFIED: done as far as it can be: what it would compare with can no longer be had. REFUSED: it must not be done yet.
    BLOCKED: a step that it depends on is not done. ALREADY_DONE: an earlier end of day did it.
    """

    DONE = "DONE"
    ALREADY_DONE = "ALREADY_DONE"
    UNVERIFIED = "UNVERIFIED"
    REFUSED = "REFUSED"
    FAILED = "FAILED"
    BLOCKED = "BLOCKED"


IS_DONE: Final = frozenset({StepState.DONE, StepState.ALREADY_DONE, StepState.UNVERIFIED})


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """One step: how it ended, that in words, and its figures as JSON values. `wall_ms`: when, by the machine's clock."""

    step: str
    state: StepState
    text: str
    data: Mapping[str, Any] = field(default_factory=dict)
    wall_ms: int = 0

    @property
    def is_done(self) -> bool:
        """Return whether what depends on it may go on."""
        return self.state in IS_DONE

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "step": self.step,
            "state": self.state.value,
            "text": self.text,
            "wall_ms": self.wall_ms,
            "data": dict(self.data),
        }


class EodRecord:
    """The record of one run. Raises VeloxError from `keep` when the disk does not take it."""

    def __init__(self, recorded: RecordedRun) -> None:
        self._path = recorded.folder / RECORD_FILE
        self._bound = {
            "run_id": recorded.run.run_id,
            "trading_date": recorded.trading_date.isoformat(),
            "last_word": last_word(recorded.folder),
        }
        self._steps = _steps(read_json(self._path), self._bound)

    def step(self, name: str) -> StepResult | None:
        """Return what is on record of a step, None for nothing."""
        return self._steps.get(name)

    def keep(self, result: StepResult) -> None:
        """Put a step on record."""
        self._steps[result.step] = result
        steps = {name: step.to_json() for name, step in self._steps.items()}
        write_json(self._path, {**self._bound, "steps": steps})


def last_word(folder: Path) -> dict[str, int]:
    """Return who spoke last about a run, and when: its engine, and a closing from outside."""
    status, closing = read_status(folder), read_closing(folder)
    return {
        "engine_pid": 0 if status is None else status.number("pid"),
        "engine_wall_ms": 0 if status is None else status.number("wall_ms"),
        "closing_wall_ms": 0 if closing is None else closing.wall_ms,
    }


def done_steps(folder: Path) -> dict[str, StepResult]:
    """Return the steps on record in a run's folder, whatever has been said of the run since."""
    body = read_json(folder / RECORD_FILE)
    return _steps(body, {name: body.get(name) for name in ("run_id", "trading_date", "last_word")})


def _steps(body: Mapping[str, Any], bound: Mapping[str, Any]) -> dict[str, StepResult]:
    if any(body.get(name) != value for name, value in bound.items()):
        return {}
    kept = body.get("steps")
    found = {}
    for name, step in kept.items() if isinstance(kept, Mapping) else ():
        try:
            found[str(name)] = StepResult(
                step=str(name),
                state=StepState(step["state"]),
                text=str(step["text"]),
                data=dict(step["data"]),
                wall_ms=int(step["wall_ms"]),
            )
        except (KeyError, ValueError, TypeError):
            continue
    return found
