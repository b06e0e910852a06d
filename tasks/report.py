"""The session's report: kept beside the run, as a page with charts, and shown in the UI.

- What fails about page or UI costs a picture, never the day: its exit code is decided by the account being flat.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import httpx
from prefect import get_run_logger
from prefect.artifacts import acreate_image_artifact, acreate_markdown_artifact
from prefect.exceptions import PrefectException

from tasks.policy import once
from velox_core.operations import eod, session_report
from velox_core.operations.day import Day
from velox_core.operations.recorded import RecordedRun
from velox_core.operations.session_sections import report_markdown
from velox_core.operations.view import headline

ARTIFACT_KEY = "session-summary"
CURVE_KEY = "session-equity"


@once("keep-summary")
def keep_summary(day: Day, session: RecordedRun, proof: eod.FlatProof) -> dict[str, Any]:
    """Compute the report from the journal and keep it."""
    return eod.keep_summary(day, session, proof)


@once("draw-report")
def draw_report(day: Day, session: RecordedRun) -> tuple[session_report.SessionReport, bytes]:
    """Write the report's page, and draw its equity curve for the UI."""
    made = session_report.make_report(day.settings, day.paths, session)
    return made, session_report.equity_picture(made, day.paths)


async def show_summary(day: Day, session: RecordedRun, report: Mapping[str, Any]) -> str:
    """Publish the report in the UI and return where its page lies, '' when it could not be drawn."""
    logger = get_run_logger()
    state: Any = draw_report(day, session, return_state=True)
    if not state.is_completed():
        logger.error("the report's page could not be drawn: %s", state.message)
        await acreate_markdown_artifact(key=ARTIFACT_KEY, markdown=report_markdown(report), description=headline(report))
        return ""
    made, picture = await state.aresult()
    await acreate_markdown_artifact(key=ARTIFACT_KEY, markdown=made.markdown, description=headline(report))
    uri = f"data:image/png;base64,{base64.b64encode(picture).decode('ascii')}"
    try:
        await acreate_image_artifact(image_url=uri, key=CURVE_KEY, description=headline(report))
    except (PrefectException, httpx.HTTPError) as error:
        logger.warning("the UI did not take the equity curve: %s", error)
    return str(made.page)
