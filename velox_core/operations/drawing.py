"""A process that draws a report, so that the drawing library gets ready and draws beside what goes on.

- Started early, it imports the library while the first steps of an end of day are done, and draws while others are.
- It gets one job through its standard input and answers through its standard output; nothing else is shared.
- It opens nothing and decides nothing. When it ends without an answer, whoever asked draws by itself; when it hangs, it is
  killed after `DRAWING_SECONDS_MAX`.
- Its input ends with the process that started it, and then it ends, too.
"""

from __future__ import annotations

import atexit
import logging
import os
import pickle
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any, Final

from velox_core.domain.errors import VeloxError
from velox_core.logs import SYSTEM
from velox_core.operations.journal_bodies import int_of
from velox_core.operations.session_page import report_page
from velox_core.operations.session_story import Story
from velox_core.settings import Paths

DRAWING_SECONDS_MAX: Final = 120.0
END_SECONDS_MAX: Final = 5.0
SYMBOL_CHARTS_MAX: Final = 12
MODULE: Final = "velox_core.operations.drawing"

_log = logging.getLogger(SYSTEM)
_spare: Final[dict[Path, subprocess.Popen[bytes]]] = {}  # one for each scratch folder, started and not asked yet


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """A report as drawn: `page` is HTML with inline SVG, `picture` the equity curve as a PNG."""

    page: str
    picture: bytes


class Drawer:
    """The process, for one drawing.

    Args:
        scratch: a folder for the drawing library's font list.
    """

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._process: subprocess.Popen[bytes] | None = None
        self._asking: Thread | None = None
        self._answer = b""

    def get_ready(self) -> None:
        """Start it, unless that was done. A machine that cannot costs only the time that it would have saved."""
        if self._process is None:
            spare = _spare.pop(self._scratch, None)
            self._process = spare if spare is not None and spare.poll() is None else _start(self._scratch)

    @property
    def pid(self) -> int:
        """Return its process, 0 while there is none."""
        return 0 if self._process is None else self._process.pid

    def begin(self, report: Mapping[str, Any], story: Story) -> None:
        """Give it what to draw. Returns at once."""
        self.get_ready()
        job = pickle.dumps((dict(report), story))
        asking = Thread(target=self._ask, args=(job,), name="drawing", daemon=True)
        asking.start()
        self._asking = asking

    def _ask(self, job: bytes) -> None:
        if self._process is not None:
            with suppress(OSError, ValueError):  # it ended before it was asked, or was ended meanwhile
                self._answer = self._process.communicate(job)[0]

    def result(self) -> Drawing | None:
        """Return what was drawn, None when it ended without. Raises VeloxError when it took too long."""
        if self._asking is None or self._process is None:
            return None
        self._asking.join(DRAWING_SECONDS_MAX)
        if self._asking.is_alive():
            self.close()
            raise VeloxError(f"the report was not drawn within {DRAWING_SECONDS_MAX:.0f} s: draw it later with velox report")
        if self._process.returncode != 0:
            _log.warning("[REPORT] the drawing process ended with code %s: drawn without it", self._process.returncode)
            return None
        page, picture = pickle.loads(self._answer)  # from our own child alone, through its pipe
        return Drawing(page=page, picture=picture)

    def close(self) -> None:
        """End it, if it is there. It returns within a bound also when the process cannot end: that hangs in the kernel."""
        process = self._process
        if process is None:
            return
        process.kill()
        with suppress(subprocess.TimeoutExpired):
            process.wait(END_SECONDS_MAX)
        if self._asking is not None:
            self._asking.join(END_SECONDS_MAX)
            if self._asking.is_alive():
                return  # it still reads from the pipes
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()


def get_ready_ahead(scratch: Path) -> None:
    """Start the process that the next drawing of this process will use, long before it is known what to draw."""
    if scratch not in _spare:
        process = _start(scratch)
        if process is not None:
            _spare[scratch] = process
            atexit.register(_end_spare, scratch)


def _start(scratch: Path) -> subprocess.Popen[bytes] | None:
    """Return the process, None when the machine cannot start one."""
    with suppress(OSError):
        return subprocess.Popen(
            [sys.executable, "-m", MODULE, str(scratch)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # what ends its parent by the terminal does not reach it: the parent ends it
        )
    return None


def _end_spare(scratch: Path) -> None:
    process = _spare.pop(scratch, None)
    if process is not None:
        process.kill()
        with suppress(subprocess.TimeoutExpired):
            process.wait(END_SECONDS_MAX)


def scratch_folder(paths: Paths) -> Path:
    """Return the folder for the font list of the charts."""
    return scratch_below(paths.var)


def scratch_below(var: Path) -> Path:
    """Return the same by the folder of everything that is kept."""
    return var.resolve() / "matplotlib"


def draw(report: Mapping[str, Any], story: Story, scratch: Path) -> Drawing:
    """Draw a report's page and its picture."""
    page = draw_page(report, story, scratch)
    return Drawing(page=page, picture=draw_picture(report, story, scratch))


def draw_page(report: Mapping[str, Any], story: Story, scratch: Path) -> str:
    """Return the page of a report, with its charts."""
    from velox_core.operations.charts import equity_svg, symbol_svg  # matplotlib, only when something is drawn

    traded = _most_traded(story)
    shown = traded[:SYMBOL_CHARTS_MAX]
    charts = []
    for symbol in shown:
        own = [fill for fill in story.fills if fill.symbol == symbol]
        charts.append((symbol, symbol_svg(symbol, story.prices[symbol], own, scratch)))
    return report_page(
        report,
        story,
        equity=equity_svg(story, int_of(report, "loss_limit_paise"), scratch),
        symbols=charts,
        left_out=len(traded) - len(shown),
    )


def draw_picture(report: Mapping[str, Any], story: Story, scratch: Path) -> bytes:
    """Return the equity curve against the loss limit as a PNG."""
    from velox_core.operations.charts import equity_png  # matplotlib, only when something is drawn

    return equity_png(story, int_of(report, "loss_limit_paise"), scratch)


def _most_traded(story: Story) -> list[str]:
    """Return the traded symbols that have prices, those with most fills first."""
    fills = {symbol: sum(fill.symbol == symbol for fill in story.fills) for symbol in story.prices}
    return sorted(fills, key=lambda symbol: (-fills[symbol], symbol))


def main() -> None:
    """Get ready, take the job, answer."""
    from velox_core.operations.charts import get_ready  # the drawing library, in this process alone

    scratch = Path(sys.argv[1])
    get_ready(scratch)
    job = sys.stdin.buffer.read()
    if not job:
        return
    report, story = pickle.loads(job)  # from our own parent alone, through its pipe
    drawn = draw(report, story, scratch)
    sys.stdout.buffer.write(pickle.dumps((drawn.page, drawn.picture)))
    sys.stdout.buffer.flush()
    os._exit(0)  # nothing is left to put in order, and the library takes its time to be taken down


if __name__ == "__main__":
    main()
