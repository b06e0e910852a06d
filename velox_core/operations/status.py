"""Where a run shows itself: finding the run folders of an account and reading their `status.json`.

- Reads only. A file that is missing, torn or of another shape is "no status", never an exception.
- A run is told from an older one in the same folder by its process id and the wall time it wrote.
- Money is paise; `wall_ms` is the machine's clock, `engine_ms` the engine's.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Final

STATUS_FILE: Final = "status.json"
SUMMARY_FILE: Final = "summary.json"
ENDED_STATES: Final = frozenset({"DONE", "FAILED"})


@dataclass(frozen=True, slots=True)
class Status:
    """What the engine last said about itself. `body` is the status as published; the properties read it safely."""

    folder: Path
    body: Mapping[str, Any]

    def text(self, key: str) -> str:
        """Return a text value, '' when it is missing."""
        value = self.body.get(key)
        return value if isinstance(value, str) else ""

    def number(self, key: str) -> int:
        """Return an int value, 0 when it is missing."""
        value = self.body.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else 0

    def flag(self, key: str) -> bool:
        """Return whether a value is true."""
        return self.body.get(key) is True

    @property
    def state(self) -> str:
        """Return STARTING, RUNNING, STOPPING, FLATTENING, DONE or FAILED."""
        return self.text("state")

    @property
    def doing(self) -> str:
        """Return in words what the engine does: the phase of its day while it runs, else its state."""
        phase = self.text("phase").lower()
        if self.state == "RUNNING" and phase:
            return f"running, {phase}"
        return {"DONE": "ended", "FLATTENING": "closing everything"}.get(self.state, self.state.lower())

    @property
    def closing(self) -> Mapping[str, Any]:
        """Return the closing from outside that ended after the engine's last word; empty for none (`with_closing`)."""
        value = self.body.get("closing")
        return value if isinstance(value, Mapping) else {}

    @property
    def ended(self) -> bool:
        """Return whether the engine said its last word."""
        return self.state in ENDED_STATES

    @property
    def run_id(self) -> str:
        """Return the run id; '' for an account's real day."""
        return self.text("run_id")

    @property
    def progress(self) -> float:
        """Return how much of the session is over, 0 to 1."""
        value = self.body.get("progress")
        return min(1.0, max(0.0, float(value))) if isinstance(value, int | float) else 0.0

    @property
    def positions(self) -> list[Mapping[str, Any]]:
        """Return the open positions as published."""
        return self.rows("positions")

    def rows(self, key: str) -> list[Mapping[str, Any]]:
        """Return a list of objects, empty when it is missing."""
        value = self.body.get(key)
        return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def account_folders(var: Path, *, broker_type: str, account: str) -> list[Path]:
    """Return every folder that a run of an account may have, the real day's first, then replays by name."""
    replays = var / "replay" / account
    folders = [var / broker_type / account]
    if replays.is_dir():
        folders.extend(sorted(path for path in replays.iterdir() if path.is_dir()))
    return folders


def read_status(folder: Path) -> Status | None:
    """Return the status in a run's folder, or None when there is none that can be read."""
    body = _read_object(folder / STATUS_FILE)
    return None if body is None else Status(folder, body)


def read_summary(folder: Path) -> dict[str, Any] | None:
    """Return the summary that the end of day or the run wrote into a folder, or None."""
    return _read_object(folder / SUMMARY_FILE)


def status_of_process(folders: list[Path], *, pid: int, since_wall_ms: int) -> Status | None:
    """Return the status that a process wrote after a moment, or None when it has written none yet."""
    for folder in folders:
        status = read_status(folder)
        if status is not None and status.number("pid") == pid and status.number("wall_ms") >= since_wall_ms:
            return status
    return None


class ProcessStatus:
    """The newest status of one process; the folder that it writes to is looked for until it was found.

    Args:
        folders: returns where it may be.
        pid: the process; `since_wall_ms` tells it from an older one of the same number.
    """

    def __init__(self, folders: Callable[[], list[Path]], *, pid: int, since_wall_ms: int) -> None:
        self._folders = folders
        self._pid = pid
        self._since_wall_ms = since_wall_ms
        self._folder: Path | None = None

    def __call__(self) -> Status | None:
        """Return the status, None while there is none."""
        folders = self._folders() if self._folder is None else [self._folder]
        found = status_of_process(folders, pid=self._pid, since_wall_ms=self._since_wall_ms)
        if found is not None:
            self._folder = found.folder
        return found


def newest_status(folders: list[Path], *, on: date | None = None) -> Status | None:
    """Return the status that was written last, of one trading date or of any; None when there is none."""
    found = [status for folder in folders if (status := read_status(folder)) is not None]
    if on is not None:
        found = [status for status in found if status.text("trading_date") == on.isoformat()]
    return max(found, key=lambda status: status.number("wall_ms"), default=None)


def _read_object(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def age_seconds(status: Status) -> float:
    """Return how long ago a status was written, by the machine's clock."""
    return max(0.0, time.time() - status.number("wall_ms") / 1_000)
