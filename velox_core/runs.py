"""The run folders of an account's replays: which run a request belongs to, and how far each one is.

- A replay of a date is run 1, 2, 3, … of that date: `var/replay/<account>/<date>-<n>/`, with its own journal, broker
  book, halt file and control files.
- A run that was begun and never ended is taken up again; so is one that ended halted until its end of day closed it
  (a halt is not escaped by starting again). Anything else makes the next number.
- `run.json` says how far a run is; it is replaced atomically. A torn or missing one counts as begun.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from velox_core.domain.errors import ConfigError
from velox_core.domain.scope import Scope

JOURNAL_DATABASE: Final = "journal.db"  # in the run's folder, where no server is configured

STATE_FILE = "run.json"


class RunState(StrEnum):
    """How far a run is."""

    NEW = "NEW"
    BEGUN = "BEGUN"
    ENDED = "ENDED"
    ENDED_HALTED = "ENDED_HALTED"
    ENDED_NOT_FLAT = "ENDED_NOT_FLAT"
    CLOSED = "CLOSED"


TAKEN_UP_AGAIN = frozenset({RunState.BEGUN, RunState.ENDED_HALTED, RunState.ENDED_NOT_FLAT})


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFolder:
    """One run: its scope, its folder, and the state it was found in."""

    scope: Scope
    folder: Path
    state: RunState

    @property
    def run_id(self) -> str:
        """Return the run id, such as '2024-01-15-1'."""
        return self.scope.run_id


def choose_run(var: Path, account_scope: Scope, stem: str, *, fresh: bool = False, run_id: str | None = None) -> RunFolder:
    """Return the run that a request belongs to; nothing is created.

    Args:
        var: the var folder.
        account_scope: the account, without a run id.
        stem: what is replayed: the date, with the scenario's name for synthetic days.
        fresh: take the next number whatever state the last one is in.
        run_id: exactly this run, as an earlier step of the same day decided; it must belong to `stem`.
    Raises: ConfigError when `run_id` belongs to another date or scenario.
    """
    if run_id is not None:
        if not run_id.startswith(f"{stem}-") or not run_id.removeprefix(f"{stem}-").isdigit():
            raise ConfigError(f"run {run_id} is not a run of {stem}; its id is {stem}-<number>")
        return run_folder(var, account_scope, run_id)
    numbers = existing_numbers(var, account_scope, stem)
    if numbers and not fresh:
        last = run_folder(var, account_scope, f"{stem}-{numbers[-1]}")
        if last.state in TAKEN_UP_AGAIN:
            return last
    return run_folder(var, account_scope, f"{stem}-{numbers[-1] + 1 if numbers else 1}")


def existing_numbers(var: Path, account_scope: Scope, stem: str) -> list[int]:
    """Return the numbers of the runs of a stem, ascending."""
    parent = var / Scope(broker_type=account_scope.broker_type, account=account_scope.account, run_id="x").folder
    prefix = f"{stem}-"
    names = [path.name for path in parent.parent.glob(f"{prefix}*")] if parent.parent.is_dir() else []
    tails = (name.removeprefix(prefix) for name in names)
    return sorted(int(tail) for tail in tails if tail.isascii() and tail.isdigit())


def run_folder(var: Path, account_scope: Scope, run_id: str) -> RunFolder:
    """Return one run by its id, existing or not."""
    scope = Scope(broker_type=account_scope.broker_type, account=account_scope.account, run_id=run_id)
    folder = var / scope.folder
    return RunFolder(scope=scope, folder=folder, state=read_state(folder))


def read_state(folder: Path) -> RunState:
    """Return how far the run in a folder is."""
    try:
        return RunState(json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))["state"])
    except FileNotFoundError:
        return RunState.BEGUN if (folder / "journal.db").exists() else RunState.NEW
    except (OSError, ValueError, KeyError, TypeError):
        return RunState.BEGUN


def write_state(folder: Path, state: RunState) -> None:
    """Say how far a run is. Raises OSError when the disk does not take it."""
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{STATE_FILE}.part"
    part.write_text(json.dumps({"state": state.value}), encoding="utf-8")
    os.replace(part, folder / STATE_FILE)
