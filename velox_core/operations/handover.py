"""What a flow process leaves below `var/output` for the command that started it, under the flow's process id.

- Its checklist, and the process id of its engine: nobody takes another day's for it.
- Notes only: the journal keeps the checklist, the engine's status says how it does. The command removes them at its end.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from velox_core.operations.checklist import ItemResult, Verdict
from velox_core.operations.json_file import read_json, write_json
from velox_core.settings import Paths


def leave_checklist(paths: Paths, results: Sequence[ItemResult]) -> None:
    """Leave this process's checklist. Raises VeloxError."""
    write_json(_note(paths, "checklist", os.getpid()), {"items": [result.to_json() for result in results]})


def checklist_of(paths: Paths, starter_pid: int) -> list[ItemResult]:
    """Return the checklist that a process has run, empty while it has not."""
    lines = read_json(_note(paths, "checklist", starter_pid)).get("items", [])
    return [ItemResult(**{**line, "verdict": Verdict(line["verdict"])}) for line in lines]


def leave_engine(paths: Paths, engine_pid: int) -> None:
    """Leave which engine this process started. Raises VeloxError."""
    write_json(_note(paths, "engine", os.getpid()), {"pid": engine_pid})


def engine_of(paths: Paths, starter_pid: int) -> int:
    """Return the process id of the engine that a process started, 0 while it has started none."""
    pid = read_json(_note(paths, "engine", starter_pid)).get("pid", 0)
    return pid if isinstance(pid, int) else 0


def forget(paths: Paths, starter_pid: int) -> None:
    """Remove what a process left."""
    for kind in ("checklist", "engine"):
        _note(paths, kind, starter_pid).unlink(missing_ok=True)


def _note(paths: Paths, kind: str, starter_pid: int) -> Path:
    return paths.var / "output" / f"{kind}-of-{starter_pid}.json"
