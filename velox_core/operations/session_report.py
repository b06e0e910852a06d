"""Making a session's report: from the run's journal and the day's prices to a page below `var/reports`.

- The report is computed from the journal each time it is asked for; the page is replaced as a whole.
- Prices that cannot be had any more leave a report without price charts and slippage, and it says why.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from velox_core.bootstrap import RunRequest, prepare
from velox_core.domain.errors import VeloxError
from velox_core.operations.drawing import draw
from velox_core.operations.recorded import RecordedRun
from velox_core.operations.runs import load_report, open_journal
from velox_core.operations.session_sections import report_markdown
from velox_core.operations.session_story import Prices, Story, build_story, day_prices
from velox_core.operations.status import read_status
from velox_core.settings import Paths, Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionReport:
    """A report in its forms.

    Attributes:
        report: the JSON object.
        story: what it tells beside that.
        page: where its page lies.
        picture: its equity curve as an SVG element.
    """

    report: dict[str, Any]
    story: Story
    page: Path
    picture: str

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
    drawn = draw(report, story)
    page = output or page_path(settings, paths, recorded)
    _write(page, drawn.page)
    return SessionReport(report=report, story=story, page=page, picture=drawn.picture)


def tell_session(settings: Settings, paths: Paths, recorded: RecordedRun) -> tuple[dict[str, Any], Story]:
    """Return a run's report and story. Raises JournalUnavailable, VeloxError."""
    report = load_report(settings, recorded)
    with open_journal(settings, recorded) as journal:
        events = list(journal.events())
    prices, no_prices = _prices(settings, paths, recorded, report)
    return report, build_story(events, prices, no_prices=no_prices)


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
