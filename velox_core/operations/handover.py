"""What a flow process and the command that started it leave each other below `var/output`, under the flow's process id.

- Its checklist, what it waits for, and the process id of its engine: nobody takes another day's for it.
- The command's wish that the day ends, from before the engine can be asked; it names the flow process' start, so that a
  later process with the id does not take it for its own.
- Notes only: the journal keeps the checklist, the engine's status says how it does. The command removes them at its end.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from velox_core.engine_lock import process_start
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


def leave_waiting(paths: Paths, what: str) -> None:
    """Leave what this process waits for, in words; '' once it goes on. Raises VeloxError."""
    write_json(_note(paths, "waiting", os.getpid()), {"what": what})


def waiting_of(paths: Paths, starter_pid: int) -> str:
    """Return what a process waits for, '' while it works."""
    return str(read_json(_note(paths, "waiting", starter_pid)).get("what", ""))


def leave_engine(paths: Paths, engine_pid: int) -> None:
    """Leave which engine this process started. Raises VeloxError."""
    write_json(_note(paths, "engine", os.getpid()), {"pid": engine_pid})


def engine_of(paths: Paths, starter_pid: int) -> int:
    """Return the process id of the engine that a process started, 0 while it has started none."""
    pid = read_json(_note(paths, "engine", starter_pid)).get("pid", 0)
    return pid if isinstance(pid, int) else 0


def leave_stop(paths: Paths, starter_pid: int) -> None:
    """Ask a flow process to start no engine, and to stop the one it may just be starting. Raises VeloxError."""
    write_json(_note(paths, "stop", starter_pid), {"started": process_start(starter_pid)})


def stop_wanted(paths: Paths) -> bool:
    """Return whether this very process was asked to start no engine, or to stop it."""
    started = read_json(_note(paths, "stop", os.getpid())).get("started", "")
    return bool(started) and started == process_start(os.getpid())


def forget(paths: Paths, starter_pid: int) -> None:
    """Remove what a process left."""
    for kind in ("checklist", "waiting", "engine", "stop"):
        _note(paths, kind, starter_pid).unlink(missing_ok=True)


def _note(paths: Paths, kind: str, starter_pid: int) -> Path:
    return paths.var / "output" / f"{kind}-of-{starter_pid}.json"
