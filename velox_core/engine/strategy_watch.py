"""A bound on one call of a strategy: a call that does not come back is broken off, and the strategy disabled.

- A thread of its own looks every quarter of a second whether the same call is still under way. After `CALL_SECONDS_MAX` it
  signals the main thread; the handler raises StrategyOverrun there, inside the strategy's code and nowhere else: it looks at
  `is_called` and at the frame that it interrupts, and runs between two instructions of the main thread (ADR 0035).
- Nothing is done per bar: the host counts its calls, and that is all.
- Looks are counted, not seconds: a process that was stopped for a minute has not overrun anything.
- What it cannot break off: a call that stays inside C code (a huge computation of a library), and a strategy that swallows
  every exception. The loop's heartbeat stands still then, and the guard takes over. It works where the engine has the main
  thread, as every engine of the command line has.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Final

from velox_core.engine.strategy_host import HostedStrategy

CALL_SECONDS_MAX: Final = 2.0
LOOK_SECONDS: Final = 0.25
_SIGNAL: Final = signal.SIGALRM

_log = logging.getLogger("velox.system")


class StrategyOverrun(BaseException):
    """A strategy's call took too long. Not an Exception, so that a strategy's own `except Exception` lets it through."""


class _Watch:
    """Looks at the hosts from its thread, and raises in the main one."""

    def __init__(self, hosts: Sequence[HostedStrategy], seconds_max: float, main_thread: int) -> None:
        self._hosts = hosts
        self._looks_max = max(1, round(seconds_max / LOOK_SECONDS))
        self._seconds_max = seconds_max
        self._main_thread = main_thread
        self._overrun: tuple[HostedStrategy, int] | None = None
        self._ended = threading.Event()

    def look(self) -> None:
        """Look until the session ends."""
        seen: tuple[HostedStrategy | None, int] = (None, 0)
        looks = 0
        while not self._ended.wait(LOOK_SECONDS):
            host = next((host for host in self._hosts if host.is_called), None)
            now = (host, 0 if host is None else host.calls)
            looks = looks + 1 if host is not None and now == seen else 0
            seen = now
            if host is not None and looks >= self._looks_max:
                self._overrun = (host, host.calls)
                signal.pthread_kill(self._main_thread, _SIGNAL)  # also wakes a call that sleeps

    def on_signal(self, _number: int, frame: FrameType | None) -> None:
        """Break off the call that overran, if it still is under way. Runs in the main thread."""
        found, self._overrun = self._overrun, None
        in_host = frame is None or frame.f_code in (HostedStrategy.on_minute.__code__, HostedStrategy.start.__code__)
        if found is not None and found[0].is_called and found[0].calls == found[1] and not in_host:
            raise StrategyOverrun(f"a call took longer than {self._seconds_max:g} s and was broken off")

    def end(self) -> None:
        """Look no more."""
        self._ended.set()


@contextmanager
def watch_strategies(hosts: Sequence[HostedStrategy], *, seconds_max: float = CALL_SECONDS_MAX) -> Iterator[None]:
    """Bound every call of the hosts' strategies while entered. Off the main thread there is no bound; the log says so."""
    if threading.current_thread() is not threading.main_thread():
        _log.warning("[STRATEGY] the engine has not the main thread: a strategy that hangs is not broken off")
        yield
        return
    watch = _Watch(hosts, seconds_max, threading.get_ident())
    before = signal.signal(_SIGNAL, watch.on_signal)
    thread = threading.Thread(target=watch.look, name="strategy-watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        watch.end()
        thread.join()
        signal.signal(_SIGNAL, before)
