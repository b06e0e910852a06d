"""What has broken before: a server that does not import with a newer FastAPI, deployments that name what is not there."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import yaml
from prefect import Flow, get_client

ROOT = Path(__file__).resolve().parents[2]


def test_prefect_server_can_be_imported() -> None:
    module = importlib.import_module("prefect.server.api.server")
    assert module.create_app is not None


@pytest.mark.slow
@pytest.mark.anyio
async def test_prefect_server_started_here_answers_with_its_version() -> None:
    async with get_client() as client:
        assert await client.api_healthcheck() is None
        assert await client.api_version() == "3.8.8"


def test_prefect_yaml_names_flows_that_exist_with_parameters_that_they_take() -> None:
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]
    names = ["market-open", "intraday", "end-of-day", "trading-day", "emergency-flatten"]
    assert [deployment["name"] for deployment in deployments] == names
    for deployment in deployments:
        file, name = deployment["entrypoint"].split(":")
        flow = getattr(importlib.import_module(file.removesuffix(".py").replace("/", ".")), name)
        assert isinstance(flow, Flow)
        assert flow.name == deployment["name"]
        assert set(deployment["parameters"]) <= set(flow.parameters.properties)
        assert (flow.retries or 0, flow.persist_result) == (0, False)
        assert deployment["schedules"] == []
