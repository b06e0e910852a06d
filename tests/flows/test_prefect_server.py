"""What has broken before: a server that does not import with a newer FastAPI; and the emergency flow at a real server."""

from __future__ import annotations

import importlib
import json
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
from prefect import get_client

from flows.emergency_flatten import emergency_flatten
from tasks.flatten import flatten
from tests.fakes.sockets import sockets_let_go
from tests.flows.test_flows import artifacts, newest_runs
from tests.unit.operations.test_flatten import held, hold
from velox_core.domain.errors import VeloxError
from velox_core.halt_file import HALT_FILE, JsonLinesHaltFile
from velox_core.runs import RunState, write_state
from velox_core.settings import load_settings


def test_prefect_server_can_be_imported() -> None:
    module = importlib.import_module("prefect.server.api.server")
    assert module.create_app is not None


def test_of_sockets_that_nobody_closed_only_those_to_the_tests_server_are_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: told.append(str(unraisable.exc_value)))
    with socket.create_server(("127.0.0.1", 0)) as ours, socket.create_server(("127.0.0.1", 0)) as other:
        with sockets_let_go(f"http://127.0.0.1:{ours.getsockname()[1]}/api"):
            for server in (ours, other):
                socket.create_connection(server.getsockname())
        assert [f"raddr={other.getsockname()}" in text for text in told] == [True]


@pytest.mark.slow
@pytest.mark.anyio
async def test_prefect_server_started_here_answers_with_its_version() -> None:
    async with get_client() as client:
        assert await client.api_healthcheck() is None
        assert await client.api_version() == "3.8.8"


@pytest.mark.slow
@pytest.mark.anyio
async def test_emergency_flatten_closes_reports_and_fails_with_the_reason_when_it_cannot(var: Path, config: Path) -> None:
    settings = load_settings(config, {})
    folder = var / "replay" / "primary" / "2024-01-15-1"
    write_state(folder, RunState.BEGUN)
    hold(settings, folder, AAA=10, BBB=-3)
    report: dict[str, Any] = await emergency_flatten(config=str(config), reason="a drill", by="the test")
    assert (report["state"], report["run"], report["closed_by"]) == ("FLAT", "2024-01-15-1", "this process")
    assert held(settings, folder) == {}
    (halt,) = JsonLinesHaltFile(folder / HALT_FILE).records()
    assert (halt.reason, halt.by, halt.closes) == ("a drill", "the test", True)
    shown = (await artifacts("flatten-simulated-primary", config))[-1].data
    assert "| AAA | 10 | 0 | FLAT | flat |" in shown
    assert "The broker's own book shows nothing held and nothing working" in shown
    assert "FLAT: run 2024-01-15-1 holds nothing" in shown.partition("## The way to zero")[2]
    write_state(folder, RunState.CLOSED)  # as the end of day does once it has proven it flat
    state = await emergency_flatten(config=str(config), run="2024-01-15-1", unless_closed=True, return_state=True)
    assert (state.name, state.type.value) == ("AlreadyClosed", "COMPLETED")
    assert len(JsonLinesHaltFile(folder / HALT_FILE).records()) == 1  # an automation that comes late latches nothing
    write_state(folder, RunState.ENDED_HALTED)
    again = await emergency_flatten(config=str(config), run="2024-01-15-1", unless_closed=True)
    assert (again["state"], again["symbols"]) == ("FLAT", [])
    with pytest.raises(VeloxError, match="no run 2024-01-15-9"):
        await emergency_flatten(config=str(config), run="2024-01-15-9")
    (run,) = await newest_runs(config)
    assert run.state.name == "Failed"
    assert "no run 2024-01-15-9" in run.state.message
    assert json.loads(json.dumps(report)) == report
    assert (flatten.retries, flatten.persist_result, flatten.cache_policy.__class__.__name__) == (0, False, "_None")
