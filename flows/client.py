"""The clients of a flow's process: one of each kind for all its runs, and a server that was busy for a moment is asked soon.

Prefect answers 503 when two of its own writers met in SQLite, which is over in milliseconds; its client then waits two seconds
and more. It is asked again twice within a second; after that, Prefect's own pauses come, which double each time.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Final

import httpx
from prefect.context import AsyncClientContext, SyncClientContext

SOON_SECONDS: Final = ("0.1", "0.5")
_ASKED: Final = "velox.asked-again"
_HEADER: Final = "Retry-After"


async def ask_again_soon(response: httpx.Response) -> None:
    """Have the client ask a busy server again soon, unless the server says itself when."""
    if response.status_code != HTTPStatus.SERVICE_UNAVAILABLE or _HEADER in response.headers:
        return
    asked = response.request.extensions.get(_ASKED, 0)
    if asked < len(SOON_SECONDS):
        response.request.extensions[_ASKED] = asked + 1
        response.headers[_HEADER] = SOON_SECONDS[asked]


@asynccontextmanager
async def one_client() -> AsyncIterator[None]:
    """Keep the clients that flows and tasks use meanwhile; without them each task makes one of its own."""
    kept = AsyncClientContext()  # without settings of its own: such a one is handed out to nobody who asks without them
    kept.client._client.event_hooks = {"response": [ask_again_soon]}
    async with kept:  # first: it asks for the server's version without holding up the loop, and for both
        with SyncClientContext.get_or_create():
            yield
