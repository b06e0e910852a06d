"""The session's report: kept beside the run, as a page with charts, and shown in the UI as one page with its equity curve.

- What fails about page or UI costs a picture, never the day: its exit code is decided by the account being flat.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.artifacts import SESSION, picture_markdown, publish_markdown
from tasks.events import emit_proven_flat
from tasks.policy import once
from tasks.summary import summary_logger
from velox_core.operations import eod, session_report
from velox_core.operations.day import Day
from velox_core.operations.recorded import RecordedRun
from velox_core.operations.session_sections import report_markdown
from velox_core.operations.view import headline

CURVE_TITLE = "P&L of the day after charges, and against the loss limit"


@once("keep-summary")
def keep_summary(day: Day, session: RecordedRun, proof: eod.FlatProof) -> dict[str, Any]:
    """Compute the report from the journal and keep it."""
    report = eod.keep_summary(day, session, proof)
    if proof.flat:
        emit_proven_flat(day, net_paise=int(report["net_paise"]), run_id=session.folder.name)
    return report


@once("draw-report")
def draw_report(day: Day, session: RecordedRun) -> tuple[session_report.SessionReport, bytes]:
    """Write the report's page, and draw its equity curve for the UI."""
    made = session_report.make_report(day.settings, day.paths, session)
    return made, session_report.equity_picture(made, day.paths)


async def show_summary(day: Day, session: RecordedRun, report: Mapping[str, Any]) -> str:
    """Publish the report in the UI and return where its page lies, '' when it could not be drawn."""
    state: Any = draw_report(day, session, return_state=True)
    if not state.is_completed():
        summary_logger().error("the report's page could not be drawn: %s", state.message)
        await publish_markdown(SESSION, day.settings, report_markdown(report), headline(report))
        return ""
    made, picture = await state.aresult()
    markdown = made.markdown_with(picture_markdown(picture, CURVE_TITLE))
    await publish_markdown(SESSION, day.settings, markdown, headline(report))
    return str(made.page)
