"""Questions about other processes of this machine."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Final

import psutil

from velox_core.engine_lock import process_start
from velox_core.ports import LockHolder

CLOCK_STEP_MS: Final = 60_000  # what the machine's clock may have been set back meanwhile


def wrote_it(pid: int, wall_ms: int) -> bool:
    """Return whether the process that wrote something at a moment (epoch ms) still runs.

    A process that began later has only been given the same number.
    """
    if not is_alive(pid):
        return False
    try:
        began_ms = psutil.Process(pid).create_time() * 1_000
    except psutil.Error:
        return is_alive(pid)
    return began_ms <= wall_ms + CLOCK_STEP_MS


def lives(holder: LockHolder) -> bool:
    """Return whether that very process runs on this host; a later one with its id is another."""
    is_here = holder.host == socket.gethostname() and bool(holder.started)
    return is_here and is_alive(holder.pid) and process_start(holder.pid) == holder.started


def is_alive(pid: int) -> bool:
    """Return whether a process with this id runs (a zombie does not)."""
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):  # gone meanwhile; or there is no /proc, and the signal was deliverable
        return not Path("/proc/self").exists()
    except OSError:
        return True  # it cannot be read: the signal was deliverable
    return not state or state[0] != "Z"
