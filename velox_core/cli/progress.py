"""Showing a running engine: a live line on a terminal, a plain line now and then anywhere else.

- Reads the engine's published status; it never talks to the engine and never slows it.
- On a terminal the line is redrawn in place; in a pipe or a log a line is written when something changed, at most one
  every few seconds.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from velox_core.cli.tables import loss_bar, money_style
from velox_core.domain.time import ist_clock_text
from velox_core.operations.status import Status
from velox_core.operations.view import loss_share, progress_line, signed_rupees

REDRAW_SECONDS: Final = 0.2
PLAIN_LINE_SECONDS: Final = 5.0
BAR_WIDTH: Final = 16  # both lines fit 80 columns


class RunView:
    """Shows the status that `read` returns until it is closed.

    Args:
        console: where to show; its `is_terminal` decides between the live and the plain form.
        read: returns the newest status, or None while there is none.
        note: says what happens while there is none.
    """

    def __init__(self, console: Console, read: Callable[[], Status | None], *, note: Callable[[], str]) -> None:
        self._console = console
        self._read = read
        self._note = note
        self._spinner = Spinner("line")
        self._stop = threading.Event()
        self._live = Live(console=console, refresh_per_second=5, transient=True) if console.is_terminal else None
        self._thread = threading.Thread(target=self._watch, name="run-view", daemon=True)
        self._last_line = ""
        self._last_at = 0.0

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join(timeout=2.0)
        if self._live is not None:
            self._live.stop()
        else:
            self._plain(last=True)

    def _watch(self) -> None:
        while not self._stop.wait(REDRAW_SECONDS):
            if self._live is not None:
                self._live.update(self._picture(self._read()))
            else:
                self._plain(last=False)

    def _plain(self, *, last: bool) -> None:
        now, status = time.monotonic(), self._read()
        line = self._note() if status is None else progress_line(status)
        if line != self._last_line and (last or now - self._last_at >= PLAIN_LINE_SECONDS):
            self._last_at, self._last_line = now, line
            self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def _picture(self, status: Status | None) -> RenderableType:
        """Return two lines that fit a narrow terminal: how far the day is, and where it stands against its limit."""
        if status is None:
            self._spinner.update(text=Text(self._note(), style="dim", no_wrap=True, overflow="ellipsis"))
            return self._spinner
        clock = ist_clock_text(status.number("engine_ms")) if status.number("engine_ms") else "--:--:--"
        net = status.number("net_paise")
        day, money = Table.grid(padding=(0, 2)), Table.grid(padding=(0, 2))
        day.add_row(
            Text(clock, style="bold"),
            ProgressBar(total=1.0, completed=status.progress, width=BAR_WIDTH),
            f"{status.progress * 100:.0f} %",
            status.doing,
            Text("synthetic data", style="yellow") if status.flag("synthetic") else "",
        )
        money.add_row(
            Text(f"net {signed_rupees(net)}", style=f"bold {money_style(net)}".strip()),
            loss_bar(loss_share(status), width=BAR_WIDTH),
            f"{len(status.positions)} open, {status.number('orders')} orders",
        )
        halted = [_one_line(f"HALTED: {status.text('halt_reason')}")] if status.flag("halted") else []
        return Group(day, money, *halted)


def _one_line(text: str) -> Text:
    return Text(text, style="bold red", no_wrap=True, overflow="ellipsis")
