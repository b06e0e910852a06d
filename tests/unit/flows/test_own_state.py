"""What a flow run learns of its own cancel from the API: also as a part of another run, and from an API that is busy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from prefect.client.schemas.objects import State
from prefect.states import Cancelling, Running

from tasks import own_state
from tasks.own_state import is_cancelled, was_cancelled

OWN, PARENT, TASK = uuid4(), uuid4(), uuid4()
SHUT_DOWN = "Runner is shutting down."


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A flow run as the API shows it."""

    state: State
    parent_task_run_id: UUID | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRun:
    """The task run that stands for a flow run within another."""

    flow_run_id: UUID | None


@dataclass(slots=True, kw_only=True)
class Api:
    """An API that knows some runs, and whose first looks fail."""

    runs: dict[UUID, Run]
    failures: int = 0
    looks: int = 0
    tasks: dict[UUID, TaskRun] = field(default_factory=lambda: {TASK: TaskRun(flow_run_id=PARENT)})

    async def read_flow_run(self, run_id: UUID) -> Run:
        self.looks += 1
        if self.looks <= self.failures:
            raise httpx.ConnectError("database is locked")
        return self.runs[run_id]

    async def read_task_run(self, run_id: UUID) -> TaskRun:
        return self.tasks[run_id]

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Any]:
        yield self


Serve = Callable[..., Api]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Serve:
    def made(own: Run, *, parent: Run | None = None, failures: int = 0) -> Api:
        api = Api(runs={OWN: own, **({PARENT: parent} if parent is not None else {})}, failures=failures)
        monkeypatch.setattr(own_state, "get_client", api.client)
        monkeypatch.setattr(own_state, "AGAIN_SECONDS", 0.0)
        monkeypatch.setenv("PREFECT__RUNTIME__FLOW_RUN__ID", str(OWN))
        return api

    return made


@pytest.mark.parametrize(
    ("state", "expected"), [(Cancelling(), True), (Cancelling(message=SHUT_DOWN), False), (Running(), False)]
)
def test_cancel_of_the_run_that_this_one_is_a_part_of_is_its_own_cancel(serve: Serve, state: State, expected: bool) -> None:
    serve(Run(state=Running(), parent_task_run_id=TASK), parent=Run(state=state))
    assert asyncio.run(is_cancelled()) is expected
    assert asyncio.run(was_cancelled(5.0)) is expected


def test_api_that_is_busy_when_the_process_is_ended_is_asked_again(serve: Serve) -> None:
    api = serve(Run(state=Cancelling()), failures=3)
    assert asyncio.run(was_cancelled(5.0)) is True
    assert api.looks == 4


def test_run_that_was_not_cancelled_is_asked_once(serve: Serve) -> None:
    api = serve(Run(state=Running()))
    assert asyncio.run(was_cancelled(5.0)) is False
    assert api.looks == 1


def test_api_that_never_answers_says_nothing_within_the_bound(serve: Serve) -> None:
    api = serve(Run(state=Cancelling()), failures=1_000_000)
    assert asyncio.run(was_cancelled(0.05)) is False
    assert api.looks >= 1
