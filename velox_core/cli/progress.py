"""Showing a running engine: a live screen on a terminal, a plain line now and then anywhere else.

- Reads the engine's published status; it never talks to the engine and never slows it.
- On a terminal the screen is redrawn in place; in a pipe, a log or with --plain a line is written when something changed,
  at most one every few seconds.
- A status that cannot be drawn costs the picture, never the day.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from rich.console import Console, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from velox_core.cli.live_view import live_screen
from velox_core.operations.status import Status, age_seconds
from velox_core.operations.view import progress_line

REDRAW_SECONDS: Final = 0.2
PLAIN_LINE_SECONDS: Final = 5.0
END_SECONDS_MAX: Final = 2.0  # so long the end waits for a look that is under way

_log: Final = logging.getLogger("velox.system")


class RunView:
    """Shows the status that `read` returns until it is closed.

    Args:
        console: where to show; its `is_terminal` decides between the live and the plain form.
        read: returns the newest status, or None while there is none.
        note: says what happens while there is none.
        plain: lines even on a terminal.
        hint: a line at the bottom of the screen.
    """

    def __init__(
        self,
        console: Console,
        read: Callable[[], Status | None],
        *,
        note: Callable[[], str],
        plain: bool = False,
        hint: str = "",
    ) -> None:
        self._console = console
        self._read = read
        self._note = note
        self._hint = hint
        self._spinner = Spinner("line")
        self._stop = threading.Event()
        is_live = console.is_terminal and not plain
        self._live = Live(console=console, auto_refresh=False, transient=True) if is_live else None
        self._thread = threading.Thread(target=self._watch, name="run-view", daemon=True)
        self._last_line = ""
        self._last_at = 0.0
        self._is_fault_told = False

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join(timeout=END_SECONDS_MAX)
        if self._live is not None:
            self._live.stop()
        else:
            self._plain(self._read(), last=True)

    def _watch(self) -> None:
        while not self._stop.wait(REDRAW_SECONDS):
            try:
                self._look()
            except Exception:  # the thread's outermost loop: the next status may be one that can be drawn
                if not self._is_fault_told:
                    self._is_fault_told = True
                    _log.info("the run could not be shown (later times are not told)", exc_info=True)

    def _look(self) -> None:
        status = self._read()
        if self._stop.is_set():  # it took so long that the end was shown already
            return
        if self._live is not None:
            self._live.update(self.picture(status), refresh=True)
        else:
            self._plain(status, last=False)

    def _plain(self, status: Status | None, *, last: bool) -> None:
        now = time.monotonic()
        line = self._note() if status is None else progress_line(status)
        if line != self._last_line and (last or now - self._last_at >= PLAIN_LINE_SECONDS):
            self._last_at, self._last_line = now, line
            self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def picture(self, status: Status | None) -> RenderableType:
        """Return the screen of a status; what is waited for while there is none."""
        if status is None:
            self._spinner.update(text=Text(self._note(), style="dim", no_wrap=True, overflow="ellipsis"))
            return self._spinner
        size = self._console.size
        return live_screen(status, age_seconds=age_seconds(status), width=size.width, height=size.height, hint=self._hint)
