"""What the API says of this very flow run: whether somebody cancelled it.

- A SIGTERM alone is no cancel: a stopped worker or a machine that goes down sends one too, and the engine then trades on.
- A run that another flow run started is cancelled with it: only the outermost one says so at once.
- An API that does not answer says nothing, so it is asked again within a bound. `velox stop` reaches the engine without it.
- The look is bounded, never raises, and is made beside the relay: the orchestrator's own notice of a cancel is lost when the
  server was away for some seconds.
"""

from __future__ import annotations

import asyncio
from typing import Final
from uuid import UUID

import httpx
import prefect.runtime
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.objects import State, StateType
from prefect.exceptions import PrefectException

LOOK_SECONDS: Final = 3.0  # between two looks
ANSWER_SECONDS_MAX: Final = 3.0
AGAIN_SECONDS: Final = 0.5  # between two questions while the process is being ended
DEPTH_MAX: Final = 5  # flow runs within flow runs; there are two
SHUTTING_DOWN: Final = "shutting down"  # in the state's message, where the runner ends its runs because it ends itself


def means_cancel(state: State | None) -> bool:
    """Return whether a state says that somebody cancelled the run; a runner that ends says so of its runs too."""
    if state is None or state.type not in (StateType.CANCELLING, StateType.CANCELLED):
        return False
    return SHUTTING_DOWN not in (state.message or "").lower()


async def is_cancelled() -> bool:
    """Ask the API once whether this run was cancelled; False when it does not answer in time."""
    return await _answer(ANSWER_SECONDS_MAX) is True


async def was_cancelled(seconds: float) -> bool:
    """Ask the API until it says whether this run was cancelled; False when it does not answer within a bound."""
    clock = asyncio.get_running_loop().time
    until = clock() + seconds
    while (left := until - clock()) > 0:
        answer = await _answer(min(ANSWER_SECONDS_MAX, left))
        if answer is not None:
            return answer
        await asyncio.sleep(min(AGAIN_SECONDS, max(0.0, until - clock())))
    return False


async def _answer(seconds: float) -> bool | None:
    """Return whether this run, or one that it is a part of, was cancelled; None when the API does not say in time."""
    run_id = prefect.runtime.flow_run.id
    if not run_id:
        return False
    try:
        async with asyncio.timeout(seconds), get_client() as client:
            return await _any_cancelled(client, UUID(str(run_id)))
    except (PrefectException, httpx.HTTPError, OSError, RuntimeError, TimeoutError):
        return None


async def _any_cancelled(client: PrefectClient, run_id: UUID) -> bool:
    """Walk up from a run: a person cancels the trading day, and its intraday run's own state says nothing of it."""
    for _ in range(DEPTH_MAX):
        run = await client.read_flow_run(run_id)
        if means_cancel(run.state):
            return True
        if run.parent_task_run_id is None:
            return False
        parent = (await client.read_task_run(run.parent_task_run_id)).flow_run_id
        if parent is None:
            return False
        run_id = parent
    return False


class OwnState:
    """Whether this run was cancelled, looked up beside other work: `cancelled` never waits."""

    def __init__(self) -> None:
        self._next = 0.0
        self._look: asyncio.Task[bool] | None = None

    def cancelled(self) -> bool:
        """Return whether the newest answer says so, and ask again when it is time."""
        clock = asyncio.get_running_loop().time
        if self._look is None:
            if clock() >= self._next:
                self._look = asyncio.create_task(is_cancelled())
            return False
        if not self._look.done():
            return False
        answer, self._look, self._next = self._look.result(), None, clock() + LOOK_SECONDS
        return answer

    async def close(self) -> None:
        """End a look that is under way."""
        if self._look is not None:
            self._look.cancel()
            await asyncio.gather(self._look, return_exceptions=True)
