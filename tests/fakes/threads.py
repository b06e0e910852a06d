"""Threads of tests: the end of what one let go on, so that it meets nothing of the next; and a system that has none left."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

JOIN_SECONDS_MAX = 240.0


def join_named(name: str) -> None:
    """Wait until no thread of this name runs any more."""
    for thread in threading.enumerate():
        if thread.name == name:
            thread.join(JOIN_SECONDS_MAX)
            assert not thread.is_alive(), f"the thread {name} goes on"


@contextmanager
def no_thread_left(name: str) -> Iterator[None]:
    """Refuse to start threads of a name, as a system does that has none left."""
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == name:
            raise RuntimeError("can't start new thread")
        start(thread)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        yield
