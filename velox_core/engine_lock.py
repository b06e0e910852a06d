"""One engine for each scope on this host: a kernel lock that dies with its process.

- The lease keeps hosts apart and hands out epochs; this lock keeps the processes of one host apart, ledger up or down.
- Whoever holds it knows that any earlier engine of the scope on this host is dead, and may take its lease at once.
- The file names its holder for people; only the lock counts.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

from velox_core.domain.errors import VeloxError


class EngineLock:
    """The lock of one scope, held until `release` or the end of the process.

    Raises: VeloxError when another process holds it, naming that process, or when the file cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise VeloxError(f"{path} cannot be made: {error.strerror}; make the folder writable, or set VELOX__VAR") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._file, 64, 0).decode(errors="replace").strip()
            os.close(self._file)
            raise VeloxError(
                f"run {path.parent.name} is being traded by process {holder or 'unknown'}: see `velox status`, "
                "end it with `velox stop --reason ...`, or begin another run with --fresh"
            ) from error
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Give the lock back."""
        with contextlib.suppress(OSError):
            os.close(self._file)
