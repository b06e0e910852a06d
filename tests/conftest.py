"""For every test: what it does to the process' signals ends with it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest

from velox_core.stop_signals import STOPPING_SIGNALS


@pytest.fixture(autouse=True)
def signals_as_before() -> Iterator[None]:
    """Give back the handlers that a command, run in this process, ignores for the rest of its own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = [(number, signal.getsignal(number)) for number in STOPPING_SIGNALS]
    yield
    for number, handler in before:
        signal.signal(number, handler)
