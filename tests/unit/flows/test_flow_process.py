"""What a flow's process imports, and when: no encoder for its parameters, and what comes while the server answers."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import subprocess
import sys
from enum import StrEnum
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect import Flow
from prefect.client.orchestration import PrefectClient, get_client
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED, temporary_settings

from flows import ahead
from flows.client import ask_again_soon, one_client
from flows.policy import flow

ROOT = Path(__file__).resolve().parents[3]


class Mode(StrEnum):
    FAST = "fast"


def started(config: str = "", speed: float | None = None) -> str:
    """Trade."""
    return f"{config} {speed}"


def test_parameters_reach_the_api_as_prefect_itself_would_send_them() -> None:
    made = flow(name="started", flow_run_name=lambda: "named")(started)
    given: list[dict[str, Any]] = [
        {"config": "system.yaml", "speed": None},
        {"config": "", "speed": 0.5, "again": True, "days": 3},
        {"config": Path("system.yaml"), "speed": None},
        {"mode": Mode.FAST, "symbols": ["TCS", Path("x")]},
    ]
    sent = [made.serialize_parameters(parameters) for parameters in given]
    assert sent == [Flow(started, name="started").serialize_parameters(parameters) for parameters in given]
    assert [[type(value) for value in one.values()] for one in sent[2:]] == [[str, type(None)], [str, list]]
    assert sent[0] is not given[0]
    assert (made.name, made.retries, made.persist_result, made.flow_run_name) == ("started", 0, False, made.flow_run_name)
    assert callable(made.flow_run_name)
    assert made.fn is started


def test_a_flow_process_needs_no_web_framework_for_its_parameters(tmp_path: Path) -> None:
    code = (
        "import sys; from flows.trading_day import trading_day as flow; "
        "flow.serialize_parameters({'config': 'system.yaml', 'speed': 0.0}); print('fastapi' in sys.modules)"
    )
    environ = {**os.environ, "PREFECT_HOME": str(tmp_path)}
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environ, capture_output=True, text=True, timeout=240)
    assert (ended.returncode, ended.stdout) == (0, "False\n"), ended.stderr


def test_what_is_imported_ahead_is_there_to_be_imported() -> None:
    assert [name for name in ahead.MARKET_OPEN if importlib.util.find_spec(name) is None] == []


@pytest.mark.anyio
async def test_modules_are_imported_one_by_one_between_other_work_and_one_that_is_missing_stops_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[str] = []

    def import_module(name: str) -> None:
        seen.append(name)
        if name == "missing":
            raise ImportError(name)

    async def other_work() -> None:
        for _ in range(4):
            seen.append("work")
            await asyncio.sleep(0)

    monkeypatch.setattr(ahead, "import_module", import_module)
    monkeypatch.setattr(ahead, "PAUSE_SECONDS", 0)
    await asyncio.gather(other_work(), ahead.import_ahead(["a", "missing", "b"]))
    assert seen == ["work", "work", "a", "work", "missing", "work", "b"]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("busy", "header", "pauses"),
    [
        (1, {}, [(0.1, 0.12)]),
        (3, {}, [(0.1, 0.12), (0.5, 0.6), (4.0, 12.0)]),  # then Prefect's own, which double and are spread
        (1, {"Retry-After": "7"}, [(7.0, 9.0)]),
    ],
)
async def test_a_server_that_is_busy_for_a_moment_is_asked_again_soon_and_then_as_prefect_does(
    busy: int, header: dict[str, str], pauses: list[tuple[float, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [*(httpx.Response(503, headers=header) for _ in range(busy)), httpx.Response(200, json=[])]
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    async def answer(_: httpx.Request) -> httpx.Response:
        return answers.pop(0)

    monkeypatch.setattr("prefect.client.base.anyio.sleep", sleep)
    client = PrefectClient("http://busy/api", httpx_settings={"transport": httpx.MockTransport(answer)})
    client._client.event_hooks = {"response": [ask_again_soon]}
    response = await client._client.get("/flows")
    assert (response.status_code, answers) == (200, [])
    assert [low <= seconds <= high for seconds, (low, high) in zip(slept, pauses, strict=True)] == [True] * len(pauses), slept


@pytest.mark.anyio
async def test_a_flows_process_hands_one_client_of_each_kind_to_all_who_ask_and_it_asks_again_soon() -> None:
    settings: Any = {PREFECT_API_URL: "http://127.0.0.1:1/api", PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED: False}
    with temporary_settings(settings):
        async with one_client():
            async with get_client() as first, get_client() as second:
                assert first is second
                assert first._client.event_hooks["response"] == [ask_again_soon]
            with get_client(sync_client=True) as one, get_client(sync_client=True) as other:
                assert one is other
        assert get_client() is not first


class Ended(BaseException):
    """What a signal's handler raises in whatever runs just then."""


@pytest.mark.anyio
@pytest.mark.parametrize(("error", "ends"), [(Ended("SIGTERM"), True), (SyntaxError("torn"), False)])
async def test_a_signal_that_comes_in_an_import_beside_the_flow_ends_the_flow(
    error: BaseException, ends: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def import_module(name: str) -> None:
        raise error

    async def flow_run() -> str:
        importing = ahead.beside(ahead.import_ahead(["a"]))
        while not importing.done():
            await asyncio.sleep(0)
        await asyncio.sleep(0.01)
        return "went on"

    monkeypatch.setattr(ahead, "import_module", import_module)
    monkeypatch.setattr(ahead, "PAUSE_SECONDS", 0)
    running = asyncio.create_task(flow_run())
    await asyncio.wait([running])
    assert running.cancelled() is ends
    if not ends:
        assert running.result() == "went on"
