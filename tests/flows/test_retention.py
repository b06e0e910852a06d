"""Old runs leave Prefect's database, and nothing else does."""

from __future__ import annotations

import asyncio
import importlib
import os
import pkgutil
import socket
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prefect import Flow, flow, get_client
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import ArtifactCreate, LogCreate
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey, LogFilter, LogFilterFlowRunId
from prefect.exceptions import ObjectNotFound
from prefect.states import Completed, Running

import flows
from flows.market_open import market_open
from tasks import retention
from tasks.retention import OUR_FLOWS, Pruned, prune, prune_prefect
from velox_core.operations.day import DayRequest, open_day

pytestmark = [pytest.mark.slow, pytest.mark.anyio]
KEY = "kept-history"


@flow(name="of-somebody-else")
async def of_somebody_else() -> None:
    """A flow on the same server that is none of ours."""


@flow(name="end-of-day")
async def evening(config: str) -> str:
    return await prune_prefect(open_day(DayRequest(config=Path(config), date=date(2024, 1, 15)), os.environ))


@pytest.fixture
async def client() -> AsyncIterator[PrefectClient]:
    async with get_client() as opened:
        yield opened


async def make(client: PrefectClient, of: Any, state: Any) -> Any:
    run = await client.create_flow_run(of, state=state)
    at = datetime.now(UTC)
    await client.create_logs([LogCreate(name="test", level=20, message="m", timestamp=at, flow_run_id=run.id)])
    return run.id


async def exists(client: PrefectClient, run_id: Any) -> bool:
    try:
        await client.read_flow_run(run_id)
    except ObjectNotFound:
        return False
    return True


async def test_ended_runs_of_ours_go_with_logs_and_artifacts_but_the_newest_and_nothing_else_goes(
    client: PrefectClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "BATCH_RUNS", 2)
    old, newer, third = [await make(client, market_open, Completed()) for _ in range(3)]
    running = await make(client, market_open, Running())
    foreign = await make(client, of_somebody_else, Completed())
    for run_id in (old, newer):
        await client.create_artifact(ArtifactCreate(key=KEY, type="markdown", data=str(run_id), flow_run_id=run_id))

    nothing = Pruned()
    await prune(client, nothing, before=datetime.now(UTC) - timedelta(days=1))
    assert (nothing.runs, nothing.artifacts, nothing.is_complete) == (0, 0, True)
    assert await exists(client, old)

    pruned = Pruned()
    await prune(client, pruned, before=datetime.now(UTC) + timedelta(seconds=5))
    assert [await exists(client, run_id) for run_id in (old, newer, third)] == [False, False, False]
    assert [await exists(client, run_id) for run_id in (running, foreign)] == [True, True]
    assert pruned.runs >= 3
    assert pruned.stuck >= 1
    assert pruned.is_complete
    (kept,) = await client.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[KEY])))
    assert kept.data == str(newer)
    for run_ids, count in (([old, newer, third], 0), ([running, foreign], 2)):
        of_runs = LogFilter(flow_run_id=LogFilterFlowRunId(any_=run_ids))
        for _ in range(2_400):  # the server removes logs after its answer, and the pruning waits for that some seconds only
            logs = await client.read_logs(log_filter=of_runs)
            if len(logs) == count:
                break
            await asyncio.sleep(0.1)
        assert len(logs) == count
    for run_id in (running, foreign):
        await client.delete_flow_run(run_id)


async def test_no_more_than_the_bound_goes_at_once(client: PrefectClient, monkeypatch: pytest.MonkeyPatch) -> None:
    await prune(client, Pruned(), before=datetime.now(UTC) + timedelta(seconds=5))
    monkeypatch.setattr(retention, "BATCH_RUNS", 1)
    monkeypatch.setattr(retention, "RUNS_MAX", 2)
    runs = [await make(client, market_open, Completed()) for _ in range(3)]
    pruned = Pruned()
    await prune(client, pruned, before=datetime.now(UTC) + timedelta(seconds=5))
    assert (pruned.runs, pruned.is_complete) == (2, False)
    assert [await exists(client, run_id) for run_id in runs].count(True) == 1


async def test_evening_tells_sizes_and_leaves_what_is_younger_than_the_configured_days(
    client: PrefectClient, var: Path, config: Path
) -> None:
    young = await make(client, market_open, Completed())
    kept = ArtifactFilter(key=ArtifactFilterKey(any_=[retention.ARTIFACT_KEY]))
    earlier = {found.id for found in await client.read_artifacts(artifact_filter=kept)}  # of other tests' evenings
    told = await evening(str(config))
    assert "0 runs older than 30 days removed" in told
    assert "MB of it free" in told
    assert "the file does not shrink" in told
    assert await exists(client, young)
    now = await client.read_artifacts(artifact_filter=kept)
    assert [found.data for found in now if found.id not in earlier] == [told]


async def test_evening_is_held_up_by_no_server_that_is_dead_or_hangs(
    var: Path, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "SECONDS_MAX", 2.0)
    with socket.socket() as silent:  # it takes the connection and never answers
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        hangs = f"http://127.0.0.1:{silent.getsockname()[1]}/api"
        monkeypatch.setattr(retention, "get_client", lambda: PrefectClient(hangs))
        assert "not all within 2 s, the rest next time" in await evening(str(config))
    monkeypatch.setattr(retention, "get_client", lambda: PrefectClient("http://127.0.0.1:9/api"))
    assert "the rest next time" in await evening(str(config))


@pytest.mark.parametrize(
    ("pruned", "trouble", "part"),
    [
        (Pruned(runs=3, artifacts=2, is_complete=True), "", "3 runs older than 30 days removed, with 2 artifacts; the size"),
        (Pruned(runs=1_000), "", "1000 at a time, the rest next time"),
        (Pruned(runs=7), "the server does not answer", "7 runs older than 30 days removed, with 0 artifacts; the server does"),
        (Pruned(stuck=4, is_complete=True), "", "4 older runs have not ended as far as Prefect knows, and are kept"),
    ],
)
def test_sentence_says_what_went_what_is_left_and_why(pruned: Pruned, trouble: str, part: str) -> None:
    assert part in retention._sentence(pruned, 30, None, None, trouble)


def test_every_flow_of_ours_is_known_to_retention() -> None:
    modules = [importlib.import_module(f"flows.{found.name}") for found in pkgutil.iter_modules(flows.__path__)]
    ours = {value.name for module in modules for value in vars(module).values() if isinstance(value, Flow)}
    assert ours == set(OUR_FLOWS)
