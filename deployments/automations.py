"""The automations: what Prefect does by itself when an event comes, or does not come. All of it is a second layer.

- The first layers need no Prefect: the engine halts and closes by itself, the guard watches the engine, and engine, guard and
  checklist send their own alerts. An automation that never fires costs nothing but the second look.
- Pure data first (`automations_of`), then `apply_automations`: replaced by name, so that applying twice leaves one of each.
- Prefect's own actions for alerts need a service elsewhere; here an alert is a run of the deployment `alert`, which uses the
  channels of the configuration.
- Each account has its own: events carry the account as their resource, and runs are matched by the account's deployments.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import httpx
from prefect.client.orchestration import PrefectClient, get_client
from prefect.events.actions import RunDeployment
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.exceptions import ObjectNotFound, PrefectException

from deployments.definitions import deployment_name
from velox_core.domain.errors import EXIT_DONE, VeloxError
from velox_core.operations.news import EventName, subject_of
from velox_core.settings import Settings, load_settings

FLATTEN: Final = "emergency-flatten"
ALERT: Final = "alert"
SCHEDULED: Final = ("market-open", "intraday", "end-of-day", "trading-day")
HEARTBEAT_SECONDS_MAX: Final = 180  # a watched engine is heard once a minute
ARMED_SECONDS_MAX: Final = 3_600  # from the pass to the engine's first heartbeat
PAGE: Final = 200  # automations in one answer, the server's own bound
PAGES_MAX: Final = 50
OWNER: Final = "velox"
FAILED_TYPES: Final = ("FAILED", "CRASHED")
LATE_NAMES: Final = ("Late", "TooLate")  # by the server while it waits, and by our own guard when it comes
LATE_ONCE_SECONDS: Final = 3_600  # days off miss many runs, each of them twice over: late, then too late


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """One automation as data: which event of which resource, or its absence, starts which deployment with what.

    Attributes:
        name: stands after the account's name in the automation's.
        description: for people.
        expect: events that fire it, or with `within_seconds` those whose absence does.
        after: events after which the absence counts.
        match: labels of the event's resource.
        flows: flows whose deployments' runs are meant; none for events of the account.
        within_seconds: 0 for what has come, else the bound within which it must come.
        once_within_seconds: of runs: so long it does not fire again for the same deployment; 0 fires for each run.
        run: the deployment that is started, by its flow.
        parameters: of that run; templates of the event where they begin with '{{'.
    """

    name: str
    description: str
    expect: tuple[str, ...]
    match: Mapping[str, str | list[str]]
    run: str
    parameters: Mapping[str, str | bool]
    after: tuple[str, ...] = ()
    flows: tuple[str, ...] = ()
    within_seconds: int = 0
    once_within_seconds: int = 0


def watches(settings: Settings) -> tuple[Watch, ...]:
    """Return an account's automations as data."""
    account = subject_of(settings, trading_date="").resource_id
    config = str(Path(settings.source).absolute())
    ours: dict[str, str | list[str]] = {"prefect.resource.id": account}
    return (
        Watch(
            name="breach flattens",
            description="The day's loss reached its limit. The engine halts and closes by itself; this closes behind it.",
            expect=(EventName.BREACH.value,),
            match=ours,
            run=FLATTEN,
            parameters={
                "config": config,
                "run": "{{ event.payload['run_id'] }}",
                "reason": "risk breach seen by the automation: {{ event.payload['reason'] }}",
                "by": "Prefect automation",
                "unless_closed": True,
            },
        ),
        *(_failed(flow, config) for flow in (*SCHEDULED, FLATTEN)),
        *(_late(flow, config) for flow in SCHEDULED),
        Watch(
            name="engine is silent",
            description="The engine was heard, and then neither it nor its end. The guard closes by itself when it hangs.",
            expect=(EventName.HEARTBEAT.value, EventName.ENDED.value),
            after=(EventName.HEARTBEAT.value,),
            match=ours,
            within_seconds=HEARTBEAT_SECONDS_MAX,
            run=ALERT,
            parameters=_alert(
                config,
                "No heartbeat of the engine",
                f"nothing was heard of the engine for {HEARTBEAT_SECONDS_MAX} s: it hangs, it died, or the intraday flow that "
                "listens to it did. Look: velox status. The guard closes what a dead engine left",
            ),
        ),
        Watch(
            name="armed and no engine",
            description="The day was armed, and no engine was heard.",
            expect=(EventName.HEARTBEAT.value, EventName.ENDED.value, EventName.FLAT.value),
            after=(EventName.ARMED.value,),
            match=ours,
            within_seconds=ARMED_SECONDS_MAX,
            run=ALERT,
            parameters=_alert(
                config,
                "The day is armed and nobody trades",
                f"no engine was heard within {ARMED_SECONDS_MAX // 60} minutes of the day's pass. Look: velox status, and the "
                "runs of intraday",
            ),
        ),
    )


def _failed(flow: str, config: str) -> Watch:
    return _of_runs(
        flow,
        name=f"{flow} failed",
        description=f"A run of {flow} failed or crashed. What failed has sent its own alert where it could.",
        label="prefect.state-type",
        values=FAILED_TYPES,
        parameters=_alert(
            config,
            f"The flow {flow} failed",
            "{{ event.resource['prefect.resource.name'] }} ended {{ event.resource['prefect.state-name'] }}: "
            "{{ event.resource['prefect.state-message'] }}",
        ),
    )


def _late(flow: str, config: str) -> Watch:
    return _of_runs(
        flow,
        name=f"{flow} late",
        description=(
            f"A run of {flow} did not start when it was due: nobody serves it, or it came too late to be of use. Told once "
            f"within {LATE_ONCE_SECONDS // 60} minutes, however many runs were missed."
        ),
        label="prefect.state-name",
        values=LATE_NAMES,
        parameters=_alert(
            config,
            f"The flow {flow} is late",
            "{{ event.resource['prefect.resource.name'] }} was not started when it was due, and others of it may not have been "
            "either. {{ event.resource['prefect.state-message'] }} Look: velox up --status",
        ),
        once_within_seconds=LATE_ONCE_SECONDS,
    )


def _of_runs(
    flow: str,
    *,
    name: str,
    description: str,
    label: str,
    values: tuple[str, ...],
    parameters: Mapping[str, str | bool],
    once_within_seconds: int = 0,
) -> Watch:
    """Return what alerts a person when a run of a flow comes into a state, by a label of the state."""
    return Watch(
        name=name,
        description=description,
        expect=("prefect.flow-run.*",),
        match={"prefect.resource.id": "prefect.flow-run.*", label: list(values)},
        flows=(flow,),
        once_within_seconds=once_within_seconds,
        run=ALERT,
        parameters=parameters,
    )


def _alert(config: str, title: str, text: str) -> dict[str, str | bool]:
    return {"config": config, "severity": "CRITICAL", "title": title, "text": text}


def automation_name(settings: Settings, watch: Watch) -> str:
    """Return an automation's name in Prefect, by which it is replaced."""
    return f"{OWNER} {settings.broker.type.value}/{settings.account}: {watch.name}"


def automation_of(settings: Settings, watch: Watch, deployment_ids: Mapping[str, UUID]) -> AutomationCore:
    """Return an automation for Prefect. `deployment_ids` by flow; KeyError is a missing one."""
    is_absence = bool(watch.within_seconds)
    related: dict[str, Any] = {}
    if watch.flows:
        ids = [f"prefect.deployment.{deployment_ids[flow]}" for flow in watch.flows]
        related = {"prefect.resource.role": "deployment", "prefect.resource.id": ids}
    trigger = EventTrigger(
        expect=set(watch.expect),
        after=set(watch.after),
        match=dict(watch.match),
        match_related=related,
        for_each={"related:deployment:prefect.resource.id" if watch.once_within_seconds else "prefect.resource.id"},
        posture=Posture.Proactive if is_absence else Posture.Reactive,
        threshold=1,
        within=timedelta(seconds=watch.within_seconds or watch.once_within_seconds),
    )
    action = RunDeployment(
        source="selected",
        deployment_id=deployment_ids[watch.run],
        parameters=_rendered(watch.parameters),
        job_variables=None,
    )
    return AutomationCore(
        name=automation_name(settings, watch), description=watch.description, trigger=trigger, actions=[action]
    )


def _rendered(parameters: Mapping[str, str | bool]) -> dict[str, Any]:
    """Return parameters with their templates marked as such: nothing else in a text is taken for one."""
    return {
        name: {"__prefect_kind": "jinja", "template": value} if isinstance(value, str) and "{{" in value else value
        for name, value in parameters.items()
    }


def automations_of(settings: Settings, deployment_ids: Mapping[str, UUID]) -> list[AutomationCore]:
    """Return an account's automations for Prefect."""
    return [automation_of(settings, watch, deployment_ids) for watch in watches(settings)]


async def apply_automations(client: PrefectClient, settings: Settings) -> list[str]:
    """Make the account's automations as they are defined here; those of an earlier version leave.

    Applying twice changes nothing. Automations that a person made under other names are left alone, and one that a person
    switched off stays switched off.

    Args:
        client: of the server that has the account's deployments.
        settings: the account's.
    Returns: what was done, in sentences.
    Raises: VeloxError when a deployment that they need is not there, or the server does not take them.
    """
    try:
        deployment_ids = await _deployment_ids(client, settings)
        wanted = automations_of(settings, deployment_ids)
        return await _replace(client, settings, wanted)
    except (httpx.HTTPError, PrefectException) as error:
        raise VeloxError(
            f"Prefect did not take the automations: {error}. They are applied again by the next velox up"
        ) from error


async def _deployment_ids(client: PrefectClient, settings: Settings) -> dict[str, UUID]:
    found = {}
    for flow in (*SCHEDULED, FLATTEN, ALERT):
        name = f"{flow}/{deployment_name(flow, settings)}"
        try:
            found[flow] = (await client.read_deployment_by_name(name)).id
        except ObjectNotFound as error:
            raise VeloxError(f"there is no deployment {name}, so the automations cannot be made: deploy it first") from error
    return found


async def _replace(client: PrefectClient, settings: Settings, wanted: Sequence[AutomationCore]) -> list[str]:
    standing = await _standing(client, f"{OWNER} {settings.broker.type.value}/{settings.account}: ")
    made = changed = removed = 0
    for core in wanted:
        ours = standing.pop(core.name, [])
        for extra in ours[1:]:
            await client.delete_automation(extra.id)
            removed += 1
        if not ours:
            await client.create_automation(core)
            made += 1
        elif _differs(ours[0], core):
            core.enabled = ours[0].enabled
            await client.update_automation(ours[0].id, core)
            changed += 1
    for obsolete in (automation for group in standing.values() for automation in group):
        await client.delete_automation(obsolete.id)
        removed += 1
    return [f"{len(wanted)} automations stand: {made} made, {changed} changed, {removed} removed"]


async def _standing(client: PrefectClient, prefix: str) -> dict[str, list[Any]]:
    """Return the automations whose names begin so, by name: a name is not unique in Prefect."""
    found: dict[str, list[Any]] = {}
    for page in range(PAGES_MAX):
        automations = await client.read_automations(limit=PAGE, offset=page * PAGE)
        for automation in automations:
            if automation.name.startswith(prefix):
                found.setdefault(automation.name, []).append(automation)
        if len(automations) < PAGE:
            return found
    raise VeloxError(f"Prefect has more than {PAGE * PAGES_MAX} automations; ours cannot be told from others")


def _differs(standing: Any, wanted: AutomationCore) -> bool:
    """Return whether what stands does something else than what is wanted, switched on or not."""
    fields = ("name", "description", "trigger", "actions")
    return any(_plain(getattr(standing, field)) != _plain(getattr(wanted, field)) for field in fields)


def _plain(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        dumped = value.model_dump(mode="json", exclude={"id"})
        return _plain(dumped)
    if isinstance(value, list):
        plain = [_plain(item) for item in value]
        return sorted(plain, key=str) if all(isinstance(item, str) for item in plain) else plain
    return {name: _plain(item) for name, item in value.items()} if isinstance(value, dict) else value


def main(arguments: Sequence[str] | None = None) -> int:
    """Apply an account's automations: `python -m deployments.automations --config FILE`. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m deployments.automations", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--config", type=Path, help="configuration file")
    chosen = parser.parse_args(arguments)
    try:
        sentences = asyncio.run(_apply(load_settings(chosen.config, os.environ)))
    except VeloxError as error:
        sys.stderr.write(f"velox: {error}\n")
        return error.exit_code
    sys.stdout.write("\n".join(sentences) + "\n")
    return EXIT_DONE


async def _apply(settings: Settings) -> list[str]:
    async with get_client() as client:
        return await apply_automations(client, settings)


if __name__ == "__main__":
    sys.exit(main())
