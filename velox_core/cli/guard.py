"""`velox guard`: the dead-man's switch in the foreground, with its log files and what it sees on its terminal.

- The terminal is a thread's work: the guard's loop leaves its newest view and goes on. A terminal that is stopped, closed or
  slow keeps no judgement waiting; what it missed meanwhile is told as one change.
- On a terminal the heartbeat is one line, redrawn; elsewhere it is a line each minute.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any, Final, TextIO

from velox_core.alert_setup import open_alerts
from velox_core.domain.errors import EXIT_DONE
from velox_core.domain.time import IST
from velox_core.operations.guard import watch_account
from velox_core.operations.guard_words import changes, closing_lines, heartbeat, opening_lines
from velox_core.operations.run_logs import logs_folder, open_logs
from velox_core.settings import Paths, Settings

LOOK_SECONDS: Final = 0.2
PLAIN_BEAT_SECONDS: Final = 60.0
END_SECONDS_MAX: Final = 2.0  # so long the end waits for a terminal that takes nothing
WIDTH_LEAST: Final = 20

_log: Final = logging.getLogger("velox.system")

View = Mapping[str, Any]


def guard_foreground(settings: Settings, paths: Paths) -> int:
    """Guard the account until a signal asks for the end, and return the exit code. Raises ConfigError, VeloxError."""
    logs = open_logs(settings, paths, rotates=False, is_engine=False)
    screen = GuardScreen(sys.stdout, settings, logs=str(logs_folder(settings, paths)))
    try:
        with open_alerts(settings, label="guard") as alerts:
            watch_account(settings, paths, alerts, alerts.counters, screen.show)
    finally:
        screen.end()
        losses = logs.stop()
        if losses.any:
            sys.stderr.write(f"velox: {losses}\n")
    return EXIT_DONE


class GuardScreen:
    """Tells a person what the guard sees. `show` returns at once; a thread writes.

    Args:
        stream: where to; its `isatty` decides between the redrawn heartbeat and plain lines.
        settings: whose account, and its bounds.
        logs: where the log files are.
        beat_seconds: between two plain heartbeats.
    """

    def __init__(self, stream: TextIO, settings: Settings, *, logs: str, beat_seconds: float = PLAIN_BEAT_SECONDS) -> None:
        self._stream = stream
        self._settings = settings
        self._logs = logs
        self._beat_seconds = beat_seconds
        self._fd = _descriptor(stream)  # written to directly: a thread that hangs in it holds no lock that the end needs
        self._in_place = _is_terminal(stream)
        self._newest: tuple[str, list[View]] | None = None  # replaced whole: the loop writes it, the thread reads it
        self._ends = threading.Event()
        self._known: dict[str, View] = {}
        self._state = ""
        self._next_beat = 0.0
        self._drawn = ""
        self._is_fault_told = False
        self._thread: threading.Thread | None = None

    def show(self, state: str, views: list[dict[str, object]]) -> None:
        """Leave what the guard sees now. Never waits, never raises."""
        self._newest = (state, list(views))
        if self._thread is None:
            thread = threading.Thread(target=self._write_until_end, name="guard-screen", daemon=True)
            with suppress(RuntimeError):  # the system has no thread left: the next look tries again
                thread.start()
                self._thread = thread

    def end(self) -> None:
        """Write the last words, unless nothing was ever shown; wait no longer than a bound for the terminal."""
        self._ends.set()
        if self._thread is not None:
            self._thread.join(END_SECONDS_MAX)

    def _write_until_end(self) -> None:
        try:
            for line in opening_lines(self._settings, pid=os.getpid(), logs=self._logs):
                self._line(line)
            while not self._ends.wait(LOOK_SECONDS):
                self._look()
            self._look()
            self._clear()
            for line in closing_lines(self._settings, list(self._known.values())):
                self._line(line)
        except (OSError, ValueError):  # the terminal is gone: the guard goes on without it
            return

    def _look(self) -> None:
        """Tell what is new. Raises OSError, ValueError when the terminal is gone."""
        try:
            self._tell_newest()
        except (OSError, ValueError):
            raise
        except Exception:  # the thread's outermost loop: a view that cannot be told keeps no later one from being told
            if not self._is_fault_told:
                self._is_fault_told = True
                _log.exception("the guard's screen could not show what the guard sees (later times are not told)")

    def _tell_newest(self) -> None:
        newest = self._newest
        if newest is None:
            return
        state, views = newest
        now = {str(view.get("run_id")): view for view in views}
        if state == "ENDING" and self._state != "ENDING":
            under_way = any(view.get("state") == "closing" for view in views)
            self._line(_stamped("asked to end" + ("; the closing under way gets 20 s to end first" if under_way else "")))
        for line in changes(self._known, now):
            self._line(_stamped(line))
        is_first = not self._state
        self._known, self._state = now, state
        if self._in_place:
            self._draw(_stamped(heartbeat(views)))
        elif is_first or time.monotonic() >= self._next_beat:
            self._next_beat = time.monotonic() + self._beat_seconds
            self._line(_stamped(heartbeat(views)))

    # -- the stream -------------------------------------------------------------------------------------------

    def _line(self, text: str) -> None:
        self._clear()
        self._put(text + "\n")

    def _draw(self, text: str) -> None:
        """Redraw the heartbeat, cut to the terminal's width, if it changed."""
        width = max(_width(self._stream) - 1, WIDTH_LEAST)
        shown = text if len(text) <= width else text[: width - 1] + "…"
        if shown != self._drawn:
            self._put(f"\r\x1b[2K{shown}")
            self._drawn = shown

    def _clear(self) -> None:
        if self._drawn:
            self._put("\r\x1b[2K")
            self._drawn = ""

    def _put(self, text: str) -> None:
        """Write all of a text. Raises OSError, ValueError when nobody takes it."""
        if self._fd is None:
            self._stream.write(text)
            return
        rest = text.encode("utf-8", "replace")
        while rest:
            rest = rest[os.write(self._fd, rest) :]


def _stamped(text: str) -> str:
    return f"{datetime.now(IST):%H:%M:%S} {text}"


def _descriptor(stream: TextIO) -> int | None:
    try:
        return stream.fileno()
    except (OSError, ValueError, AttributeError):
        return None


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty() and os.environ.get("TERM", "") not in ("", "dumb")
    except ValueError:
        return False


def _width(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        return 80
