"""Flattening seen from a flow: one process, started and followed. What becomes of the flow changes nothing about it."""

from __future__ import annotations

import asyncio
import os
from typing import Any, Final

from tasks.artifacts import FLATTEN, publish_markdown
from tasks.policy import once
from tasks.summary import summary_logger
from velox_core.operations.flatten_process import FlattenCommand, report_markdown, start_flatten
from velox_core.settings import Paths, Settings

POLL_SECONDS: Final = 0.25


@once("flatten")
async def flatten(settings: Settings, paths: Paths, command: FlattenCommand) -> dict[str, Any]:
    """Start `velox flatten`, relay what it tells, keep its report as an artifact, and fail when it is not FLAT."""
    logger = summary_logger()
    process = start_flatten(paths, command, os.environ)
    logger.info("velox flatten runs as process %s; it goes on whatever becomes of this flow: %s", process.pid, process.told)
    told: list[str] = []
    while True:
        ended = process.exit_code() is not None
        for sentence in process.news():
            told.append(sentence)
            logger.warning(sentence)
        if ended:
            break
        await asyncio.sleep(POLL_SECONDS)
    report = process.report()
    if report:
        await publish_markdown(FLATTEN, settings, report_markdown(report, told), str(report.get("message", "")))
    failure = process.failure()
    if failure is not None:
        raise failure
    return report
