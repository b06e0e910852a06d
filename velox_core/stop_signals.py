"""SIGINT, SIGTERM and SIGHUP ask the engine to stop, from the first step of its start to the last word of its report.

- A signal is only noted. During the start it waits for the session, which then stops before it makes an entry; while the
  session trades it is the stop that `velox stop` asks for; after it, during the proof and the report, it changes nothing.
- A second signal changes nothing at any time: it must not abort a flatten. What ends a process that hangs is
  `velox run --take-over`, which halts first.
- What ends with its process never gives the signals back: the interpreter's own end lasts a while, and one that comes then
  would kill the process instead of its exit code, which says whether the account is flat.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

STOPPING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopSignals:
    """The first signal that came, handed to whoever can stop."""

    def __init__(self) -> None:
        self._first = ""
        self._ask: Callable[[str], None] | None = None

    def note(self, number: int, frame: FrameType | None = None) -> None:
        """Take a signal. Called by the interpreter between two of its steps: it only sets what others read."""
        self._first = self._first or f"signal {signal.Signals(number).name}"
        if self._ask is not None:
            self._ask(self._first)

    def tell(self, ask: Callable[[str], None]) -> None:
        """Hand the signals to come to a session, and the one that has come already."""
        self._ask = ask
        if self._first:
            ask(self._first)


@contextmanager
def stop_signals(*, until_exit: bool = False) -> Iterator[StopSignals]:
    """Note signals instead of dying of them. Outside the main thread there are none.

    Args:
        until_exit: ignore them afterwards, because the process ends now; else the handlers are given back.
    """
    signals = StopSignals()
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return
    with handled_by(signals.note, until_exit=until_exit):
        yield signals


@contextmanager
def handled_by(handler: Callable[[int, FrameType | None], None], *, until_exit: bool) -> Iterator[None]:
    """Have the stopping signals call a handler; afterwards as `stop_signals`. Main thread only."""
    before = [(number, signal.signal(number, handler)) for number in STOPPING_SIGNALS]
    try:
        yield
    finally:
        for number, earlier in before:
            signal.signal(number, signal.SIG_IGN if until_exit else earlier)
