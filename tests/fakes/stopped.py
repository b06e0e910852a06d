"""Waiting for a process that stops itself (SIGSTOP) at a point of its work: a signal from outside comes whenever it comes."""

from __future__ import annotations

import time
from pathlib import Path

STOP_SECONDS_MAX = 240.0


def is_stopped(pid: int) -> bool:
    """Return whether SIGSTOP has stopped a process. Raises FileNotFoundError when it is gone."""
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[0] == "T"


def wait_until_stopped(pid: int) -> None:
    """Wait until SIGSTOP has stopped a process; one that ends instead is an error."""
    deadline = time.monotonic() + STOP_SECONDS_MAX
    while not is_stopped(pid):
        assert time.monotonic() < deadline, f"process {pid} never stopped"
        time.sleep(0.01)
