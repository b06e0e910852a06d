"""The deployments, once: which flow runs when, on which queue, with which parameters.

- `serve` registers them, `prefect.yaml` is written from them (`python -m deployments.prefect_yaml`), a test compares both.
- A flow that comes later joins by one entry of `DEPLOYMENTS`.
- Prefect decides when; whether a day has a session, and whether a run comes too late, the flow itself finds out.
- Values only: Prefect is not imported here, and no flow.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, Final

from velox_core.settings import BrokerType, Settings

WORK_POOL: Final = "velox"
WORK_POOL_TYPE: Final = "process"
TRADING_QUEUE: Final = "trading"
EMERGENCY_QUEUE: Final = "emergency"
QUEUE_PRIORITIES: Final[Mapping[str, int]] = {EMERGENCY_QUEUE: 1, TRADING_QUEUE: 2}  # 1 goes first
TIMEZONE: Final = "Asia/Kolkata"
DEFAULT_CONFIG: Final = "config/system_simulated.yaml"
DEFAULT_ACCOUNT: Final = "primary"
VERSION: Final = version("velox")


@dataclass(frozen=True, slots=True, kw_only=True)
class CronSchedule:
    """When a deployment runs: a cron line in India's time. The slug is the schedule's name within its deployment."""

    slug: str
    cron: str
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """One flow, offered to Prefect.

    Attributes:
        flow: the flow's name; the deployment's too, but for the account (`deployment_name`).
        description: for the UI, in Markdown.
        queue: of the work pool, for those who run workers.
        schedules: none: a person, an automation or another flow starts it.
        parameters: beside `config`, which all of them take.
    """

    flow: str
    description: str
    queue: str = TRADING_QUEUE
    tags: tuple[str, ...] = ()
    schedules: tuple[CronSchedule, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def function(self) -> str:
        """Return the name of the flow's function, which is its module's too."""
        return self.flow.replace("-", "_")

    @property
    def module(self) -> str:
        """Return the module with the flow."""
        return f"flows.{self.function}"

    @property
    def file_entrypoint(self) -> str:
        """Return the entrypoint of a worker, from the project's folder."""
        return f"flows/{self.function}.py:{self.function}"

    @property
    def module_entrypoint(self) -> str:
        """Return the entrypoint of `serve`."""
        return f"{self.module}.{self.function}"

    @property
    def all_tags(self) -> list[str]:
        """Return the tags, the system's first."""
        return ["velox", *self.tags]


def sessions(ordinary: str, special: str) -> tuple[CronSchedule, ...]:
    """Return the schedule of ordinary sessions, Monday to Friday, and that of special ones, which may fall on any day.

    Each day's run is told which sessions it is for, and the calendar in the flow decides; times as 09:10, India's.
    """
    return (
        CronSchedule(slug="weekdays", cron=f"{_cron_time(ordinary)} * * 1-5", parameters={"session": "ordinary"}),
        CronSchedule(slug="special-sessions", cron=f"{_cron_time(special)} * * *", parameters={"session": "special"}),
    )


def _cron_time(time: str) -> str:
    hour, minute = time.split(":")
    return f"{int(minute)} {int(hour)}"


DEPLOYMENTS: Final[tuple[Deployment, ...]] = (
    Deployment(
        flow="market-open",
        description="The pre-production checklist; arms the day when nothing refuses. Before the market opens.",
        tags=("daily",),
        schedules=sessions("08:45", "08:45"),
    ),
    Deployment(
        flow="intraday",
        description=(
            "Starts the trading engine, or attaches to the one that lives, and watches it. Needs the day pass of market-open. "
            "Cancelling it asks the engine to stop; killing it does nothing to the engine."
        ),
        tags=("daily",),
        schedules=sessions("09:10", "09:10"),
    ),
    Deployment(
        flow="end-of-day",
        description="Proves the account flat, resets the emergency state, keeps the report. May run again, for past dates too.",
        tags=("daily",),
        schedules=sessions("16:00", "20:30"),  # a special session may be in the evening
    ),
    Deployment(
        flow="trading-day",
        description="Market open, intraday and end of day in order, for a replay date or for today. Started by hand.",
    ),
    Deployment(
        flow="emergency-flatten",
        description="Halts the account and closes every position, now, engine or not. Fails when the broker does not say flat.",
        queue=EMERGENCY_QUEUE,
        tags=("emergency",),
    ),
    Deployment(
        flow="alert",
        description="Tells a person what an automation saw, over the alert channels of the configuration.",
        queue=EMERGENCY_QUEUE,
    ),
)


def deployment_name(flow: str, settings: Settings) -> str:
    """Return the name of an account's deployment of a flow.

    One server knows the deployments of several accounts and modes, which must never meet: the simulated account `primary`
    has the plain name, every other one says its broker and account, as in `intraday-zerodha-AB1234`.
    """
    kind, account = settings.broker.type, settings.account
    if kind is BrokerType.SIMULATED and account == DEFAULT_ACCOUNT:
        return flow
    return f"{flow}-{kind.value}-{re.sub(r'[^A-Za-z0-9_.-]', '-', account)}"
