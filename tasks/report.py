"""The session's report in the UI: one page with its equity curve, beside the file that the end of day has written.

- What fails about page or UI costs a picture, never the day: its exit code is decided by the account being flat.
"""

from __future__ import annotations

from tasks.artifacts import SESSION, picture_markdown, publish_markdown
from tasks.summary import summary_logger
from velox_core.operations.eod_steps import Evening
from velox_core.operations.evening import EveningOutcome, page_of
from velox_core.operations.session_sections import report_markdown
from velox_core.operations.view import headline

CURVE_TITLE = "P&L of the day after charges, and against the loss limit"


async def show_summary(work: Evening, done: EveningOutcome) -> str:
    """Publish the report in the UI, unless that was done before; returns where its page lies, '' when it could not be drawn."""
    page, settings = page_of(work), work.day.settings
    if work.made is None:
        if page is None and done.report:
            summary_logger().error("the report's page could not be drawn")
            await publish_markdown(SESSION, settings, report_markdown(done.report), headline(done.report))
        return "" if page is None else str(page)
    picture = picture_markdown(work.made.picture, CURVE_TITLE)
    await publish_markdown(SESSION, settings, work.made.markdown_with(picture), headline(done.report))
    return "" if page is None else str(page)
