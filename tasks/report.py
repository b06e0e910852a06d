"""The session's report: kept beside the run, and shown in the UI."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefect.artifacts import acreate_markdown_artifact

from tasks.policy import once
from velox_core.operations import eod
from velox_core.operations.day import Day
from velox_core.operations.recorded import RecordedRun
from velox_core.operations.view import headline, report_markdown

ARTIFACT_KEY = "session-summary"


@once("keep-summary")
def keep_summary(day: Day, session: RecordedRun, proof: eod.FlatProof) -> dict[str, Any]:
    """Compute the report from the journal and keep it."""
    return eod.keep_summary(day, session, proof)


async def show_summary(report: Mapping[str, Any]) -> None:
    """Publish the report as markdown in the UI."""
    await acreate_markdown_artifact(key=ARTIFACT_KEY, markdown=report_markdown(report), description=headline(report))
