"""The automations as data, and in a server: one of each, replaced by name."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect import get_client
from prefect.client.orchestration import PrefectClient
from prefect.events.schemas.automations import EventTrigger, Posture

from deployments import automations
from deployments.automations import ALERT, FLATTEN, SCHEDULED, apply_automations, automation_name, automations_of, watches
from deployments.definitions import DEPLOYMENTS, deployment_name
from flows.alert import alert
from tasks.events import HEARTBEAT_SECONDS
from velox_core.domain.errors import VeloxError
from velox_core.operations.news import EventName
from velox_core.settings import Settings, load_settings

ROOT = Path(__file__).resolve().parents[2]
IDS = {flow: uuid4() for flow in (*SCHEDULED, FLATTEN, ALERT)}


@pytest.fixture
def settings() -> Settings:
    return load_settings(ROOT / "config" / "system_simulated.yaml", {})


def trigger_of(name: str, settings: Settings) -> EventTrigger:
    (found,) = [core for core in automations_of(settings, IDS) if core.name == f"velox simulated/primary: {name}"]
    assert isinstance(found.trigger, EventTrigger)
    return found.trigger


def test_automations_cover_breach_failed_late_silent_and_unarmed(settings: Settings) -> None:
    names = [watch.name for watch in watches(settings)]
    assert len(set(names)) == len(names)
    assert set(names) == {
        "breach flattens",
        *(f"{flow} failed" for flow in ("market-open", "intraday", "end-of-day", "trading-day", "emergency-flatten")),
        *(f"{flow} late" for flow in ("market-open", "intraday", "end-of-day", "trading-day")),
        "engine is silent",
        "armed and no engine",
    }
    runs = {watch.name: watch.run for watch in watches(settings)}
    assert {name for name, run in runs.items() if run != "alert"} == {"breach flattens"}
    assert runs["breach flattens"] == "emergency-flatten"


def test_breach_flattens_the_run_of_the_event_and_only_of_this_account(settings: Settings) -> None:
    trigger = trigger_of("breach flattens", settings)
    assert (trigger.expect, trigger.posture, trigger.after) == ({"velox.breach"}, Posture.Reactive, set())
    assert trigger.match.model_dump() == {"prefect.resource.id": "velox.account.simulated.primary"}
    (watch,) = [watch for watch in watches(settings) if watch.name == "breach flattens"]
    assert watch.parameters["run"] == "{{ event.payload['run_id'] }}"
    assert watch.parameters["unless_closed"] is True


def test_silence_is_judged_after_a_heartbeat_until_the_end_and_a_beat_may_be_missed(settings: Settings) -> None:
    trigger = trigger_of("engine is silent", settings)
    assert trigger.posture is Posture.Proactive
    assert (trigger.after, trigger.expect) == ({"velox.heartbeat"}, {"velox.heartbeat", "velox.ended"})
    assert trigger.within.total_seconds() >= 2.5 * HEARTBEAT_SECONDS
    assert trigger_of("armed and no engine", settings).after == {"velox.armed"}


@pytest.mark.parametrize("flow", [*SCHEDULED, FLATTEN])
def test_failed_and_late_runs_are_those_of_the_accounts_own_deployment(flow: str, settings: Settings) -> None:
    failed = trigger_of(f"{flow} failed", settings)
    related: Any = failed.match_related
    assert related.model_dump() == {
        "prefect.resource.role": "deployment",
        "prefect.resource.id": [f"prefect.deployment.{IDS[flow]}"],
    }
    assert failed.match.model_dump()["prefect.state-type"] == ["FAILED", "CRASHED"]
    assert (failed.for_each, failed.within.total_seconds()) == ({"prefect.resource.id"}, 0)  # every one of them is told


@pytest.mark.parametrize("flow", SCHEDULED)
def test_late_runs_of_a_deployment_are_told_once_in_an_hour(flow: str, settings: Settings) -> None:
    late = trigger_of(f"{flow} late", settings)
    assert late.match.model_dump()["prefect.state-name"] == ["Late", "TooLate"]
    assert (late.posture, late.threshold, late.after) == (Posture.Reactive, 1, set())
    assert late.for_each == {"related:deployment:prefect.resource.id"}
    assert late.within.total_seconds() == 3_600


def test_every_parameter_and_event_that_an_automation_names_exists(settings: Settings) -> None:
    functions = {}
    for flow in (FLATTEN, ALERT):
        module = flow.replace("-", "_")
        functions[flow] = getattr(importlib.import_module(f"flows.{module}"), module)
    known = {name.value for name in EventName} | {"prefect.flow-run.*"}
    for watch in watches(settings):
        assert set(watch.parameters) <= set(inspect.signature(functions[watch.run].fn).parameters)
        assert {*watch.expect, *watch.after} <= known
        assert set(watch.flows) <= {deployment.flow for deployment in DEPLOYMENTS}
        for value in watch.parameters.values():
            for key in re.findall(r"event\.payload\['(\w+)'\]", str(value)):
                assert key in {"run_id", "reason"}
    assert {FLATTEN, ALERT, *SCHEDULED} <= {deployment.flow for deployment in DEPLOYMENTS}


def test_two_accounts_have_automations_of_their_own(settings: Settings) -> None:
    other = dataclasses.replace(settings, account="second")
    ours = {automation_name(settings, watch) for watch in watches(settings)}
    assert not ours & {automation_name(other, watch) for watch in watches(other)}


async def deploy(client: PrefectClient, settings: Settings) -> None:
    for flow in (*SCHEDULED, FLATTEN, ALERT):
        flow_id = await client.create_flow_from_name(flow)
        await client.create_deployment(flow_id, deployment_name(flow, settings))


async def standing(client: PrefectClient) -> dict[str, UUID]:
    found = await client.read_automations(limit=200)
    assert len({one.name for one in found}) == len(found)  # nothing stands twice
    return {one.name: one.id for one in found}


@pytest.mark.slow
@pytest.mark.anyio
async def test_applied_twice_leaves_one_of_each_and_replaces_what_has_changed(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = len(watches(settings))
    async with get_client() as client:
        with pytest.raises(VeloxError, match="there is no deployment market-open/market-open"):
            await apply_automations(client, settings)
        await deploy(client, settings)
        (first,) = await apply_automations(client, settings)
        assert first == f"{many} automations stand: {many} made, 0 changed, 0 removed"
        made = await standing(client)
        assert set(made) == {automation_name(settings, watch) for watch in watches(settings)}
        assert await apply_automations(client, settings) == [f"{many} automations stand: 0 made, 0 changed, 0 removed"]
        assert await standing(client) == made

        silent = automation_name(settings, watches(settings)[-2])
        await client.pause_automation(made[silent])
        (core,) = [core for core in automations_of(settings, IDS) if core.name == silent]
        await client.create_automation(core)  # the same name a second time, as a naive script leaves it
        obsolete = core.model_copy(update={"name": "velox simulated/primary: of an earlier version"})
        await client.create_automation(obsolete)
        theirs = core.model_copy(update={"name": "a person's own"})
        await client.create_automation(theirs)
        monkeypatch.setattr(automations, "HEARTBEAT_SECONDS_MAX", 240)
        (last,) = await apply_automations(client, settings)
        assert last == f"{many} automations stand: 0 made, 1 changed, 2 removed"
        after = await standing(client)
        assert set(after) == {*made, "a person's own"}
        (changed,) = await client.read_automations_by_name(silent)
        trigger: Any = changed.trigger
        assert (trigger.within.total_seconds(), changed.enabled) == (240.0, False)


@pytest.mark.slow
@pytest.mark.anyio
async def test_alert_flow_tells_by_the_log_and_says_how_many_channels_there_were(var: Path, config: Path) -> None:
    said = await alert(title="No heartbeat", text="look: velox status", severity="CRITICAL", config=str(config))
    assert said == "log, 0 deliveries over 0 channels"
    (folder,) = (found for found in (var / "logs").iterdir() if found.name != "backup")
    written = (folder / "system.log").read_text(encoding="utf-8")
    assert "CRITICAL [-] ALERT No heartbeat: look: velox status" in written
