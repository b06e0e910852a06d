"""Flattening seen from a flow: one process, started and followed. What becomes of the flow changes nothing about it."""

from __future__ import annotations

import asyncio
import os
from typing import Any, Final

import httpx
from prefect import get_run_logger
from prefect.artifacts import acreate_markdown_artifact
from prefect.exceptions import PrefectException

from tasks.policy import once
from velox_core.operations.flatten_process import FlattenCommand, report_markdown, start_flatten
from velox_core.settings import Paths

POLL_SECONDS: Final = 0.25
ARTIFACT_KEY: Final = "flatten-report"


@once("flatten")
async def flatten(paths: Paths, command: FlattenCommand) -> dict[str, Any]:
    """Start `velox flatten`, relay what it tells, keep its report as an artifact, and fail when it is not FLAT."""
    logger = get_run_logger()
    process = start_flatten(paths, command, os.environ)
    logger.info("velox flatten runs as process %s; it goes on whatever becomes of this flow: %s", process.pid, process.told)
    while process.exit_code() is None:
        await asyncio.sleep(POLL_SECONDS)
        for sentence in process.news():
            logger.warning(sentence)
    for sentence in process.news():
        logger.warning(sentence)
    report = process.report()
    if report:
        try:
            markdown = report_markdown(report)
            await acreate_markdown_artifact(key=ARTIFACT_KEY, markdown=markdown, description=str(report.get("message", "")))
        except (PrefectException, httpx.HTTPError) as error:
            logger.warning("the report could not be shown: %s", error)
    failure = process.failure()
    if failure is not None:
        raise failure
    return report
