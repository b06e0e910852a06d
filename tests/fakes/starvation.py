"""How long processes were ready to go on and had no core to do it on: what a busy machine takes, taken out of a bound.

The kernel counts it for each thread (schedstat, second number, nanoseconds). Where it does not, nothing is taken out. Waiting
for a disk is not counted: a test that goes by this still fails on a machine whose disk stands still for seconds.
"""

from __future__ import annotations

from pathlib import Path

NS_PER_SECOND = 1e9


def seconds_without_a_core(*pids: int) -> float:
    """Return how long the threads of these processes have waited for a core so far, all together, in seconds."""
    waited = 0
    for pid in pids:
        for thread in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            try:
                waited += int(thread.read_text().split()[1])
            except (OSError, IndexError, ValueError):  # it has ended, or this kernel does not count
                continue
    return waited / NS_PER_SECOND
