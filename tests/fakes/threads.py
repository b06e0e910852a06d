"""The end of what a test let go on: no thread of it is to meet what the next test does."""

from __future__ import annotations

import threading

JOIN_SECONDS_MAX = 240.0


def join_named(name: str) -> None:
    """Wait until no thread of this name runs any more."""
    for thread in threading.enumerate():
        if thread.name == name:
            thread.join(JOIN_SECONDS_MAX)
            assert not thread.is_alive(), f"the thread {name} goes on"
