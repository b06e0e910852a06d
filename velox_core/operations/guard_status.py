"""What the guard of an account shows of itself: whether one runs, how old its last word is, what it watches.

- Reads a lock and a file, with every store down. The kernel's lock says whether a guard runs; the file says what it does.
- A guard that runs and has said nothing for `SILENT_SECONDS` is SILENT: it was stopped, or it hangs.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from velox_core.control import GUARD_FILE
from velox_core.domain.errors import VeloxError
from velox_core.domain.scope import Scope
from velox_core.engine_lock import LockView
from velox_core.operations.hints import velox
from velox_core.operations.json_file import read_json
from velox_core.settings import Paths, Settings

GUARD_LOCK: Final = "guard.lock"
SILENT_SECONDS: Final = 10.0


class GuardState(StrEnum):
    """Whether a guard watches the account. OFF: the configuration wants none."""

    RUNNING = "RUNNING"
    SILENT = "SILENT"
    ABSENT = "ABSENT"
    OFF = "OFF"


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardLife:
    """A guard seen from outside. `age_seconds` is that of its last word by the machine's clock, -1 for none."""

    state: GuardState
    pid: int
    age_seconds: float
    watching: tuple[str, ...]
    start: str

    @property
    def sentence(self) -> str:
        """Return the state in one sentence, with what to do."""
        if self.state is GuardState.OFF:
            return "guard: switched off (system.guard.enabled)"
        if self.state is GuardState.ABSENT:
            last = f", the last one was there {self.age_seconds:.0f} s ago" if self.age_seconds >= 0 else ""
            return f"guard: ABSENT{last}. Start it: {self.start}"
        runs = f"watches {', '.join(self.watching)}" if self.watching else "no run to watch"
        if self.state is GuardState.SILENT:
            silent = f"guard: SILENT for {self.age_seconds:.0f} s (process {self.pid})"
            return f"{silent}. Stopped or hanging? End it and start it again"
        return f"guard: alive (process {self.pid}), {runs}, last word {self.age_seconds:.0f} s ago"

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "state": self.state.value,
            "pid": self.pid,
            "age_seconds": round(self.age_seconds, 1),
            "watching": list(self.watching),
            "message": self.sentence,
        }


def guard_folder(settings: Settings, paths: Paths) -> Path:
    """Return where the guard of an account keeps its lock and its file: the account's own folder."""
    return paths.var / Scope(broker_type=settings.broker.type.value, account=settings.account).folder


def guard_life(settings: Settings, paths: Paths) -> GuardLife:
    """Look at the account's guard. Never raises: a lock that cannot be looked at is no guard."""
    folder = guard_folder(settings, paths)
    body = read_json(folder / GUARD_FILE)
    wall_ms = body.get("wall_ms")
    age = max(time.time() - wall_ms / 1_000, 0.0) if isinstance(wall_ms, int) else -1.0
    try:
        holder = LockView(folder / GUARD_LOCK).holder()
    except VeloxError:
        holder = None
    if not settings.guard.enabled:
        state = GuardState.OFF
    elif holder is None:
        state = GuardState.ABSENT
    else:
        state = GuardState.RUNNING if 0 <= age <= SILENT_SECONDS else GuardState.SILENT
    watching = body.get("watching")
    return GuardLife(
        state=state,
        pid=0 if holder is None else holder.pid,
        age_seconds=age,
        watching=tuple(str(run) for run in watching) if isinstance(watching, list) else (),
        start=velox("guard", settings=settings),
    )
