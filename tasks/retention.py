"""Old flow runs leave Prefect's database at the end of a day: a bounded number, in batches, within a bounded time.

- Only runs of VELOX's own flows that have ended longer ago than `system.retention.prefect_days`; with a run go its task
  runs, its logs and its artifacts, but of each artifact's history the newest stays.
- A run that has not ended is never removed, however old; how many of those there are is told.
- Nothing that trades needs these records. A server that does not answer costs a line in the log, never the end of day.
- Events are not touched: the server removes its own after a week (PREFECT_SERVER_EVENTS_RETENTION_PERIOD).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import httpx
from prefect import get_client
from prefect.artifacts import acreate_markdown_artifact
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import (
    ArtifactCollectionFilter,
    ArtifactCollectionFilterFlowRunId,
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterEndTime,
    FlowRunFilterStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
    LogFilter,
    LogFilterFlowRunId,
)
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound, PrefectException
from prefect.settings import get_current_settings

from tasks.policy import once
from tasks.summary import summary_logger
from velox_core.operations.day import Day
from velox_core.operations.prefect_database import DatabaseSize, database_file, database_size

OUR_FLOWS: Final = ("market-open", "intraday", "end-of-day", "trading-day", "emergency-flatten", "alert")
ENDED: Final = [StateType.COMPLETED, StateType.FAILED, StateType.CRASHED, StateType.CANCELLED]
NOT_ENDED: Final = [StateType.RUNNING, StateType.PENDING, StateType.PAUSED, StateType.CANCELLING]
BATCH_RUNS: Final = 50
RUNS_MAX: Final = 1_000
ARTIFACTS_MAX: Final = 200  # as many as the server tells at once
SECONDS_MAX: Final = 30.0
LOGS_GONE_SECONDS: Final = 3.0
LOGS_POLL_SECONDS: Final = 0.1
ARTIFACT_KEY: Final = "prefect-retention"


@dataclass(slots=True, kw_only=True)
class Pruned:
    """What was removed so far, and what was found: counts; `is_complete` says that nothing old is left."""

    runs: int = 0
    artifacts: int = 0
    stuck: int = 0
    is_complete: bool = False


@once("prune-prefect")
async def prune_prefect(day: Day) -> str:
    """Remove old flow runs and tell what became of it; returns the sentence. Never fails the end of day."""
    days, before = day.settings.retention.prefect_days, _size()
    pruned, trouble = Pruned(), ""
    try:
        async with asyncio.timeout(SECONDS_MAX), get_client() as client:
            await prune(client, pruned, before=datetime.now(UTC) - timedelta(days=days))
    except TimeoutError:
        trouble = f"not all within {SECONDS_MAX:.0f} s, the rest next time"
    except (PrefectException, httpx.HTTPError, OSError, RuntimeError) as error:
        trouble = f"the server does not answer ({type(error).__name__}), the rest next time"
    told = _sentence(pruned, days, before, _size(), trouble)
    logger = summary_logger()
    (logger.warning if trouble or pruned.stuck else logger.info)(told)
    if not trouble:
        try:
            async with asyncio.timeout(SECONDS_MAX):
                await acreate_markdown_artifact(key=ARTIFACT_KEY, markdown=told, description="Prefect's own records")
        except (TimeoutError, PrefectException, httpx.HTTPError) as error:
            logger.warning("the UI did not take the line on retention: %s", type(error).__name__)
    return told


async def prune(client: PrefectClient, pruned: Pruned, *, before: datetime) -> None:
    """Remove what ended before a moment, oldest first, batch by batch; `pruned` counts along, so a break loses nothing.

    Raises: what the client raises.
    """
    ours = FlowFilter(name=FlowFilterName(any_=list(OUR_FLOWS)))
    old = FlowRunFilter(state=_state(ENDED), end_time=FlowRunFilterEndTime.model_validate({"before_": before}))
    stuck = FlowRunFilter(state=_state(NOT_ENDED), start_time=FlowRunFilterStartTime.model_validate({"before_": before}))
    pruned.stuck = len(await client.read_flow_runs(flow_filter=ours, flow_run_filter=stuck, limit=BATCH_RUNS))
    while pruned.runs < RUNS_MAX:
        batch = await client.read_flow_runs(
            flow_filter=ours, flow_run_filter=old, limit=BATCH_RUNS, sort=FlowRunSort.EXPECTED_START_TIME_ASC
        )
        if not batch:
            pruned.is_complete = True
            return
        ids = [run.id for run in batch]
        pruned.artifacts += await _delete_artifacts(client, ids)
        for run_id in ids:
            try:
                await client.delete_flow_run(run_id)
            except ObjectNotFound:
                continue  # somebody else removed it
            pruned.runs += 1
        await _wait_for_logs(client, ids)


async def _delete_artifacts(client: PrefectClient, run_ids: list[UUID]) -> int:
    """Remove the runs' artifacts but each key's newest; returns how many were removed."""
    of_runs = ArtifactCollectionFilter(flow_run_id=ArtifactCollectionFilterFlowRunId(any_=run_ids))
    newest = {found.latest_id for found in await client.read_latest_artifacts(artifact_filter=of_runs)}
    count = 0
    for run_id in run_ids:
        of_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run_id]))
        for artifact in await client.read_artifacts(artifact_filter=of_run, limit=ARTIFACTS_MAX):
            if artifact.id not in newest:
                await client.delete_artifact(artifact.id)
                count += 1
    return count


async def _wait_for_logs(client: PrefectClient, run_ids: list[UUID]) -> None:
    """Wait a little for the server to remove the logs: it does so after its answer, and an embedded one ends with us."""
    of_runs = LogFilter(flow_run_id=LogFilterFlowRunId(any_=run_ids))
    until = asyncio.get_running_loop().time() + LOGS_GONE_SECONDS
    while await client.read_logs(log_filter=of_runs, limit=1):
        if asyncio.get_running_loop().time() > until:
            return
        await asyncio.sleep(LOGS_POLL_SECONDS)


def _state(types: Sequence[StateType]) -> FlowRunFilterState:
    return FlowRunFilterState(type=FlowRunFilterStateType(any_=list(types)))


def _size() -> DatabaseSize | None:
    """Return how large the database of this machine's server is, None when that cannot be seen from here."""
    url: Any = get_current_settings().server.database.connection_url
    path = None if url is None else database_file(url.get_secret_value())
    return None if path is None else database_size(path)


def _sentence(pruned: Pruned, days: int, before: DatabaseSize | None, after: DatabaseSize | None, trouble: str) -> str:
    parts = [f"Prefect's records: {pruned.runs} runs older than {days} days removed, with {pruned.artifacts} artifacts"]
    if trouble:
        parts.append(trouble)
    elif not pruned.is_complete:
        parts.append(f"{RUNS_MAX} at a time, the rest next time")
    if pruned.stuck:
        parts.append(f"{pruned.stuck} older runs have not ended as far as Prefect knows, and are kept: delete them in the UI")
    if before is None or after is None:
        parts.append("the size of the database cannot be seen from here")
    else:
        parts.append(f"database before: {before}; now: {after} (free space is used again, the file does not shrink)")
    return "; ".join(parts)
