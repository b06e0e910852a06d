"""Artifacts in Prefect's UI: one key for each kind and account, so that the history of a kind is one page.

- A key is lower-case letters, digits and dashes: `session-simulated-primary`.
- What cannot be shown costs a picture, never a step of the day: nothing here raises, and each call takes a bounded time.
- A picture stands in the markdown itself, as a data URI: Prefect's UI shows those, and nothing else has to be reachable.
"""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, Final
from uuid import UUID

import httpx
from prefect.artifacts import (
    acreate_markdown_artifact,
    acreate_progress_artifact,
    acreate_table_artifact,
    aupdate_progress_artifact,
)
from prefect.exceptions import PrefectException

from tasks.summary import summary_logger
from velox_core.settings import Settings

CHECKLIST: Final = "checklist"
PROGRESS: Final = "progress"
SESSION: Final = "session"
FLATTEN: Final = "flatten"
SHOW_SECONDS_MAX: Final = 5.0
_NOT_IN_KEYS: Final = re.compile(r"[^a-z0-9]+")


def artifact_key(kind: str, settings: Settings) -> str:
    """Return the stable key of a kind for an account: 'checklist' -> 'checklist-simulated-primary'."""
    parts = (kind, settings.broker.type.value, settings.account)
    return "-".join(_NOT_IN_KEYS.sub("-", part.lower()).strip("-") for part in parts)


def picture_markdown(svg: str, alt: str) -> str:
    """Return an SVG element as an image in markdown. An image runs no script and fetches nothing, whatever is in it."""
    return f"![{alt}](data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode('ascii')})"


async def publish_table(kind: str, settings: Settings, table: Sequence[Mapping[str, Any]], description: str) -> bool:
    """Show rows as a table. Returns whether Prefect took it within the bound."""
    rows = [dict(row) for row in table]
    return (
        await _shown(kind, acreate_table_artifact(key=artifact_key(kind, settings), table=rows, description=description))
    ) is not None


async def publish_markdown(kind: str, settings: Settings, markdown: str, description: str) -> bool:
    """Show a page of markdown. Returns whether Prefect took it within the bound."""
    key = artifact_key(kind, settings)
    return (await _shown(kind, acreate_markdown_artifact(key=key, markdown=markdown, description=description))) is not None


async def start_progress(settings: Settings, description: str) -> UUID | None:
    """Show a progress bar at 0 %. Returns its id, None when there is none."""
    key = artifact_key(PROGRESS, settings)
    shown: UUID | None = await _shown(PROGRESS, acreate_progress_artifact(progress=0.0, key=key, description=description))
    return shown


async def move_progress(artifact: UUID | None, share: float, description: str) -> None:
    """Move a progress bar to a share of 0 to 1; nothing when there is none."""
    if artifact is not None:
        percent = round(min(1.0, max(0.0, share)) * 100, 1)
        await _shown(PROGRESS, aupdate_progress_artifact(artifact, progress=percent, description=description))


async def _shown(kind: str, showing: Awaitable[Any]) -> Any:
    """Return what Prefect answered, None when it did not take it in time."""
    try:
        return await asyncio.wait_for(showing, SHOW_SECONDS_MAX)
    except (PrefectException, httpx.HTTPError, OSError, RuntimeError, ValueError) as error:
        why = "Prefect did not answer in time" if isinstance(error, TimeoutError) else str(error)
        summary_logger().warning("the %s could not be shown in the UI: %s", kind, why)
        return None
