"""Making a session's report: from the run's journal and the day's prices to a page below `var/reports`.

- The report is computed from the journal each time it is asked for; the page is replaced as a whole.
- Prices that cannot be had any more leave a report without price charts and slippage, and it says why.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any, Final

from velox_core.bootstrap import RunRequest, prepare
from velox_core.domain.errors import VeloxError
from velox_core.operations.journal_bodies import int_of
from velox_core.operations.recorded import RecordedRun
from velox_core.operations.runs import load_report, open_journal
from velox_core.operations.session_page import report_page
from velox_core.operations.session_sections import report_markdown
from velox_core.operations.session_story import Prices, Story, build_story, day_prices
from velox_core.operations.status import read_status
from velox_core.settings import Paths, Settings

SYMBOL_CHARTS_MAX: Final = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionReport:
    """A report in its forms. `report` is the JSON object, `story` what it tells beside it."""

    report: dict[str, Any]
    story: Story
    page: Path

    @property
    def markdown(self) -> str:
        """Return it as markdown, with where the page lies."""
        return self.markdown_with("")

    def markdown_with(self, picture: str) -> str:
        """Return it as markdown with its equity curve, which is given as an image in markdown."""
        return report_markdown(self.report, self.story, page=str(self.page), picture=picture)


def page_path(settings: Settings, paths: Paths, recorded: RecordedRun) -> Path:
    """Return where a run's page lies."""
    return paths.var / "reports" / settings.account / f"{recorded.run.run_id}.html"


def make_report(settings: Settings, paths: Paths, recorded: RecordedRun, *, output: Path | None = None) -> SessionReport:
    """Compute a run's report and write its page, to `output` or to `page_path`.

    Raises: JournalUnavailable; VeloxError when the page cannot be written.
    """
    report, story = tell_session(settings, paths, recorded)
    page = output or page_path(settings, paths, recorded)
    _write(page, draw_page(report, story, scratch_folder(paths)))
    return SessionReport(report=report, story=story, page=page)


def tell_session(settings: Settings, paths: Paths, recorded: RecordedRun) -> tuple[dict[str, Any], Story]:
    """Return a run's report and story. Raises JournalUnavailable, VeloxError."""
    report = load_report(settings, recorded)
    with open_journal(settings, recorded) as journal:
        events = list(journal.events())
    prices, no_prices = _prices(settings, paths, recorded, report)
    return report, build_story(events, prices, no_prices=no_prices)


def scratch_folder(paths: Paths) -> Path:
    """Return the folder for the font list of the charts."""
    return paths.var / "matplotlib"


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


def get_ready_to_draw(paths: Paths) -> Thread:
    """Begin to import the drawing library beside what goes on, and return the thread that does it.

    It never fails: what is wrong with the library is told by whoever draws.
    """

    def prepare() -> None:
        from velox_core.operations.charts import get_ready

        with contextlib.suppress(ImportError, OSError, ValueError):
            get_ready(scratch_folder(paths))

    thread = Thread(target=prepare, name="get-ready-to-draw", daemon=True)
    thread.start()
    return thread


def equity_picture(made: SessionReport, paths: Paths) -> bytes:
    """Return the equity curve as a PNG."""
    from velox_core.operations.charts import equity_png  # matplotlib, only when something is drawn

    return equity_png(made.story, int_of(made.report, "loss_limit_paise"), scratch_folder(paths))


def _most_traded(story: Story) -> list[str]:
    """Return the traded symbols that have prices, those with most fills first."""
    fills = {symbol: sum(fill.symbol == symbol for fill in story.fills) for symbol in story.prices}
    return sorted(fills, key=lambda symbol: (-fills[symbol], symbol))


def _prices(
    settings: Settings, paths: Paths, recorded: RecordedRun, report: Mapping[str, Any]
) -> tuple[dict[str, Prices], str]:
    """Return the day's minutes, and why there are none."""
    status = read_status(recorded.folder)
    if status is None:
        return {}, "the run does not say any more which data it was on"
    data, scenario = status.text("data"), status.text("scenario")
    request = RunRequest(
        date=recorded.trading_date,
        data=Path(data) if data else None,
        scenario=scenario or None,
        run_id=recorded.run.run_id,
    )
    try:
        day = prepare(settings, paths, request).day
    except VeloxError as error:
        return {}, f"the day's prices cannot be read ({error})"
    if day.source != report.get("source"):
        return {}, f"the data is {day.source} now, the run was on {report.get('source')}"
    return day_prices(day), ""


def _write(page: Path, text: str) -> None:
    scratch = page.with_name(f".{page.name}.{os.getpid()}")
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
        scratch.write_text(text, encoding="utf-8")
        scratch.replace(page)
    except OSError as error:
        raise VeloxError(f"{page} cannot be written: {error.strerror}. Check the disk, or name another --output.") from error
