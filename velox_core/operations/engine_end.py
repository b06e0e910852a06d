"""An engine's last word: `end.json` in its run's folder, written durably by the engine's own process when all is done.

- It outlives whoever started the engine: a watcher that is not its parent cannot be told its exit code by the kernel.
- It names its process by id and start. No record of a process that is gone means that it died without a word, never that
  it ended well.
- Only a process that had the run's engine lock writes one: whoever was turned away says nothing about the run.
- An exit code and a report are the engine's own; what is open since then says a closing from outside (`closing`).
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from velox_core.control import process_folder
from velox_core.domain.errors import EXIT_OPERATING_ERROR, VeloxError
from velox_core.domain.time import ist_datetime
from velox_core.engine_lock import ENGINE_LOCK, last_holder, own_holder
from velox_core.operations.json_file import read_json, write_json
from velox_core.ports import LockHolder

END_FILE: Final = "end.json"

_log: Final = logging.getLogger("velox.system")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineEnd:
    """How one engine ended, as it said itself. `wall_ms` is the machine's clock; `message` is '' or why it failed."""

    pid: int
    started: str
    host: str
    run_id: str
    exit_code: int
    flat: bool
    halted: bool
    stopped: str
    fault: str
    message: str
    wall_ms: int

    @classmethod
    def of_body(cls, body: Mapping[str, Any]) -> Self | None:
        """Return the record in a JSON object, None when it is not one."""
        try:
            found = cls(**{field.name: body[field.name] for field in fields(cls)})
        except KeyError:
            return None
        is_whole = all(isinstance(getattr(found, name), int) for name in ("pid", "exit_code", "wall_ms", "flat"))
        return found if is_whole else None

    def is_of(self, holder: LockHolder) -> bool:
        """Return whether this very process wrote it."""
        return (self.host, self.pid, self.started) == (holder.host, holder.pid, holder.started)

    @property
    def text(self) -> str:
        """Return it in words: 'ended FLAT with exit code 0 at 2024-01-15 15:10:02'."""
        state = "FLAT" if self.flat else "NOT FLAT"
        why = "; ".join(part for part in (self.stopped, self.fault, self.message) if part)
        ended = f"ended {state}{' and halted' if self.halted else ''} with exit code {self.exit_code} at {moment(self.wall_ms)}"
        return f"{ended} ({why})" if why else ended


def moment(wall_ms: int) -> str:
    """Return a moment of the machine's clock for people, in India's time: '2024-01-15 15:10:02'."""
    return f"{ist_datetime(wall_ms):%Y-%m-%d %H:%M:%S}" if wall_ms else "an unknown time"


def read_end(folder: Path) -> EngineEnd | None:
    """Return the last word in a run's folder, None when there is none that is whole."""
    return EngineEnd.of_body(read_json(folder / END_FILE))


class LastWord:
    """What this engine will have said when its process ends. `said` tells it of a session that came to its end.

    Entered around the engine, it is written when that fails; one that ends well writes it with its exit code (`write`).
    `folders` returns those that its run may have.
    """

    def __init__(self, var: Path, folders: Callable[[], list[Path]]) -> None:
        self._var = var
        self._folders = folders
        self._folder: Path | None = None
        self._body: dict[str, Any] = {"run_id": "", "flat": False, "halted": False, "stopped": "", "fault": ""}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if isinstance(error, VeloxError):
            self.write(error.exit_code, str(error))
        elif error is not None:
            self.write(EXIT_OPERATING_ERROR, f"{type(error).__name__}: {error}")

    def said(self, folder: Path, **body: object) -> None:
        """Keep how the session ended: run_id, flat, halted, stopped, fault."""
        self._folder = folder
        self._body |= body

    def write(self, exit_code: int, message: str = "") -> None:
        """Write the record. A disk that does not take it changes nothing about the exit code, and is told."""
        own = own_holder()
        folder = self._folder or _folder_of(own, self._folders())
        shutil.rmtree(process_folder(self._var, own), ignore_errors=True)
        if folder is None:
            return
        body = {"run_id": folder.name, **{key: value for key, value in self._body.items() if value != ""}}
        told = {"stopped": "", "fault": "", **body, "exit_code": exit_code, "message": message, **_process(own)}
        try:
            write_json(folder / END_FILE, {**told, "wall_ms": time.time_ns() // 1_000_000})
        except VeloxError as error:
            _log.error("[SESSION] how the engine ended could not be noted: %s", error)


def _process(holder: LockHolder) -> dict[str, object]:
    return {name: value for name, value in asdict(holder).items() if name in ("pid", "started", "host")}


def _folder_of(holder: LockHolder, folders: list[Path]) -> Path | None:
    """Return the folder of the run whose engine lock this process had last."""
    for folder in reversed(folders):
        if last_holder(folder / ENGINE_LOCK) == holder:
            return folder
    return None
