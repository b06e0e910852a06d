"""One definition of the deployments: what `serve` registers and what prefect.yaml says are the same, field by field."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from prefect import Flow
from prefect.settings import Settings as PrefectSettings
from pydantic import BaseModel

from deployments.definitions import (
    DEPLOYMENTS,
    EMERGENCY_QUEUE,
    QUEUE_PRIORITIES,
    TIMEZONE,
    VERSION,
    WORK_POOL,
    CronSchedule,
    deployment_name,
)
from deployments.prefect_yaml import PREFECT_YAML, prefect_yaml
from deployments.registration import load_flow, runner_deployment
from flows.guards import Session
from flows.parameters import Scenario
from velox_core.feeds.scenarios import SCENARIOS
from velox_core.operations.prefect_home import TUNED
from velox_core.settings import load_settings

ROOT = Path(__file__).resolve().parents[2]
FIELDS = ["name", "entrypoint", "description", "version", "tags", "schedules", "parameters"]


def in_yaml() -> dict[str, dict[str, Any]]:
    return {entry["name"]: entry for entry in yaml.safe_load(PREFECT_YAML.read_text(encoding="utf-8"))["deployments"]}


async def served() -> dict[str, dict[str, Any]]:
    """Return what Prefect itself makes of the definitions, in the words of prefect.yaml."""
    settings = load_settings(ROOT / "config" / "system_simulated.yaml", {})
    found = {}
    for deployment in DEPLOYMENTS:
        made = await runner_deployment(deployment, settings)
        module, _, function = (made.entrypoint or "").rpartition(".")
        schedules = []
        for one in made.schedules or []:
            row = {"slug": one.slug, "cron": one.schedule.cron, "timezone": one.schedule.timezone, "active": one.active}
            schedules.append({**row, **({"parameters": one.parameters} if one.parameters else {})})
        config = str(Path(made.parameters["config"]).relative_to(ROOT))
        found[made.name] = {
            "name": made.name,
            "entrypoint": f"{module.replace('.', '/')}.py:{function}",
            "description": made.description,
            "version": made.version,
            "tags": made.tags,
            "schedules": schedules,
            "parameters": made.parameters | {"config": config},
        }
    return found


def differences(ours: dict[str, dict[str, Any]], theirs: dict[str, dict[str, Any]]) -> list[str]:
    """Return 'deployment.field' of all that differs."""
    rows = []
    for name in sorted({*ours, *theirs}):
        one, other = ours.get(name, {}), theirs.get(name, {})
        rows += [f"{name}.{field}" for field in FIELDS if one.get(field) != other.get(field)]
    return rows


@pytest.mark.anyio
async def test_prefect_yaml_and_serve_are_the_same_deployments_field_by_field() -> None:
    assert differences(await served(), in_yaml()) == []
    assert list(in_yaml()) == [deployment.flow for deployment in DEPLOYMENTS]
    assert PREFECT_YAML.read_text(encoding="utf-8") == prefect_yaml()


@pytest.mark.anyio
@pytest.mark.parametrize("field", FIELDS)
async def test_a_field_that_differs_in_one_of_the_two_is_found(field: str) -> None:
    changed = in_yaml()
    changed["intraday"][field] = "another"
    found = differences(await served(), changed)
    assert found == [f"intraday.{field}"]


def test_queues_pool_and_version_of_prefect_yaml_are_the_definitions() -> None:
    for deployment in DEPLOYMENTS:
        entry = in_yaml()[deployment.flow]
        assert entry["work_pool"] == {"name": WORK_POOL, "work_queue_name": deployment.queue}
        assert deployment.queue in QUEUE_PRIORITIES
    assert in_yaml()["emergency-flatten"]["work_pool"]["work_queue_name"] == EMERGENCY_QUEUE
    assert min(QUEUE_PRIORITIES, key=lambda queue: QUEUE_PRIORITIES[queue]) == EMERGENCY_QUEUE
    assert f'version = "{VERSION}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda deployment: deployment.flow)
def test_deployment_names_a_flow_that_is_never_tried_again_with_parameters_that_it_takes(deployment: Any) -> None:
    flow = load_flow(deployment)
    assert isinstance(flow, Flow)
    assert (flow.name, flow.retries or 0, flow.persist_result) == (deployment.flow, 0, False)
    properties = flow.parameters.properties
    given = {"config", *deployment.parameters, *(name for schedule in deployment.schedules for name in schedule.parameters)}
    assert given <= set(properties)
    assert [name for name, shape in properties.items() if not shape.get("description")] == []
    assert flow.parameters.required == []


def test_schedules_are_indias_before_the_open_and_after_the_close_and_flatten_has_none() -> None:
    crons = {one.flow: [(row.slug, row.cron, dict(row.parameters)) for row in one.schedules] for one in DEPLOYMENTS}
    ordinary, special = {"session": "ordinary"}, {"session": "special"}
    assert crons == {
        "market-open": [("weekdays", "45 8 * * 1-5", ordinary), ("special-sessions", "45 8 * * *", special)],
        "intraday": [("weekdays", "10 9 * * 1-5", ordinary), ("special-sessions", "10 9 * * *", special)],
        "end-of-day": [("weekdays", "0 16 * * 1-5", ordinary), ("special-sessions", "30 20 * * *", special)],
        "trading-day": [],
        "emergency-flatten": [],
        "alert": [],
    }
    assert TIMEZONE == "Asia/Kolkata"


def test_another_account_has_deployments_of_its_own(config: Path) -> None:
    settings = load_settings(config, {})
    assert deployment_name("intraday", settings) == "intraday"
    other = dataclasses.replace(settings, account="AB 12")
    assert deployment_name("intraday", other) == "intraday-simulated-AB-12"


def test_definitions_import_no_prefect() -> None:
    line = "import deployments.definitions, sys; assert 'prefect' not in sys.modules"
    subprocess.run([sys.executable, "-c", line], check=True, cwd=ROOT)
    assert CronSchedule(slug="a", cron="* * * * *").parameters == {}


def test_tuned_settings_are_settings_that_prefect_has() -> None:
    def names(model: type[BaseModel], prefix: str) -> set[str]:
        found = set()
        for name, field in model.model_fields.items():
            kind = field.annotation
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                found |= names(kind, f"{prefix}_{name.upper()}")
            else:
                found.add(f"{prefix}_{name.upper()}")
        return found

    assert set(TUNED) - names(PrefectSettings, "PREFECT") == set()


def test_scenarios_of_the_form_are_those_there_are() -> None:
    assert get_args(Scenario) == ("", *SCENARIOS)


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda deployment: deployment.flow)
def test_form_shows_every_field_at_once_and_closed_sets_as_lists(deployment: Any) -> None:
    shapes = load_flow(deployment).parameters.properties
    hidden = {name for name, shape in shapes.items() if "type" not in shape}
    assert hidden == ({"speed"} if "speed" in shapes else set())  # a number that may be absent has no plain form
    for name, values in (("scenario", get_args(Scenario)), ("session", get_args(Session))):
        if name in shapes:
            assert shapes[name]["enum"] == list(values)
