"""A service as a process in a session of its own: started, watched, asked to end, killed after a bound.

- Who lives is asked of a kernel lock that the process itself holds; one that somebody else started is found that way too.
- What it prints goes to a file below `var/output`.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from velox_core.domain.errors import VeloxError
from velox_core.engine_lock import LockView, end_holder, process_start
from velox_core.operations.engine_process import output_file
from velox_core.ports import EndOfHolder, LockHolder
from velox_core.settings import Paths

KILL_SECONDS: Final = 5.0


class ServiceProcess:
    """One process of a service.

    Args:
        name: of its output's file, and in messages.
        lock: the kernel lock that it holds while it lives.
        paths: where its output goes.
        end_seconds: how long it may take to end after SIGTERM, before it is killed.
    """

    def __init__(self, name: str, lock: Path, paths: Paths, *, end_seconds: float) -> None:
        self.output = ""
        self._name = name
        self._lock = LockView(lock)
        self._paths = paths
        self._end_seconds = end_seconds
        self._child: subprocess.Popen[bytes] | None = None

    def life(self) -> LockHolder | None:
        """Return the process that was started here, else who has the lock. Raises VeloxError."""
        if self._child is not None and self._child.poll() is None:
            return holder_of(self._child.pid)
        return self._lock.holder()

    def holder(self) -> LockHolder | None:
        """Return who has the lock. Raises VeloxError."""
        return self._lock.holder()

    def start(self, arguments: Sequence[str], environ: Mapping[str, str]) -> None:
        """Start Python with these arguments. Raises VeloxError."""
        output = output_file(self._paths, self._name)
        try:
            with output.open("ab") as sink:
                self._child = subprocess.Popen(
                    [sys.executable, *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=sink,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    env=dict(environ),
                )
        except OSError as error:
            raise VeloxError(f"the {self._name} cannot be started: {error}") from error
        self.output = str(output)

    def exit_code(self) -> int | None:
        """Return how the process that was started here ended, None while it lives or when there was none."""
        return None if self._child is None else self._child.poll()

    def end(self, holder: LockHolder) -> str:
        """Ask it to end, and kill it after the bound. Raises VeloxError when it is not ended."""
        asked = end_holder(holder, self._end_seconds, by=signal.SIGTERM)
        if asked in (EndOfHolder.KILLED, EndOfHolder.GONE):
            return f"ended, process {holder.pid}"
        if asked is EndOfHolder.SURVIVED and end_holder(holder, KILL_SECONDS) in (EndOfHolder.KILLED, EndOfHolder.GONE):
            return f"did not end within {self._end_seconds:g} s and was killed, process {holder.pid}"
        raise VeloxError(f"process {holder.pid} could not be ended: look at it with ps")

    def kill(self, holder: LockHolder) -> None:
        """Kill it, as one that hangs: it would not hear that it is asked to end. Raises VeloxError when it stays."""
        if end_holder(holder, KILL_SECONDS) not in (EndOfHolder.KILLED, EndOfHolder.GONE):
            raise VeloxError(f"process {holder.pid} hangs and could not be killed: look at it with ps")


def holder_of(pid: int) -> LockHolder:
    """Return a process of this machine as the holder of a lock."""
    return LockHolder(host=socket.gethostname(), pid=pid, started=process_start(pid))
