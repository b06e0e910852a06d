"""What the definitions become at a Prefect server: deployments, a work pool with its queues, schedules without leftovers.

- Everything here is found by name and replaced: to do it twice is to do it once.
- Prefect updates a schedule by its slug and leaves those that it is no longer told of; they are removed here.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from prefect import Flow
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.schedules import Cron
from prefect.types.entrypoint import EntrypointType

from deployments.definitions import (
    QUEUE_PRIORITIES,
    TIMEZONE,
    VERSION,
    WORK_POOL,
    WORK_POOL_TYPE,
    Deployment,
    deployment_name,
)
from velox_core.settings import Settings


def load_flow(deployment: Deployment) -> Flow[Any, Any]:
    """Import and return the flow of a deployment."""
    found = getattr(importlib.import_module(deployment.module), deployment.function)
    if not isinstance(found, Flow):
        raise TypeError(f"{deployment.module_entrypoint} is no flow")
    return found


async def runner_deployment(deployment: Deployment, settings: Settings) -> RunnerDeployment:
    """Return a deployment of an account as `serve` registers it; `config` is named absolutely."""
    made: RunnerDeployment = await load_flow(deployment).ato_deployment(
        name=deployment_name(deployment.flow, settings),
        schedules=[
            Cron(schedule.cron, timezone=TIMEZONE, slug=schedule.slug, parameters=dict(schedule.parameters), active=True)
            for schedule in deployment.schedules
        ],
        parameters={"config": str(settings.source.absolute()), **deployment.parameters},
        description=deployment.description,
        tags=deployment.all_tags,
        version=VERSION,
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    return made


async def ensure_work_pool(client: PrefectClient) -> list[str]:
    """Make the work pool and its queues where they are absent, and return what was made. What is there stays as it is."""
    made = []
    try:
        await client.read_work_pool(WORK_POOL)
    except ObjectNotFound:
        try:
            await client.create_work_pool(WorkPoolCreate(name=WORK_POOL, type=WORK_POOL_TYPE))
            made.append(f"work pool {WORK_POOL}")
        except ObjectAlreadyExists:  # another process was faster
            pass
    there = {queue.name for queue in await client.read_work_queues(work_pool_name=WORK_POOL)}
    for name, priority in QUEUE_PRIORITIES.items():
        if name in there:
            continue
        try:
            await client.create_work_queue(name=name, work_pool_name=WORK_POOL, priority=priority)
            made.append(f"queue {name}")
        except ObjectAlreadyExists:
            pass
    return made


async def remove_old_schedules(client: PrefectClient, deployments: Mapping[UUID, Deployment]) -> list[str]:
    """Remove the schedules of deployments that the definitions no longer name, and return them as 'deployment: cron'."""
    removed = []
    for identity, deployment in deployments.items():
        wanted = {schedule.slug for schedule in deployment.schedules}
        for schedule in await client.read_deployment_schedules(identity):
            if schedule.slug not in wanted:
                await client.delete_deployment_schedule(identity, schedule.id)
                removed.append(f"{deployment.flow}: {getattr(schedule.schedule, 'cron', schedule.schedule)}")
    return removed
