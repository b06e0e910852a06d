"""Importing what a flow will need while its process waits for the server's answers.

- In the very thread that runs the flow: another thread may meet a half-made module.
- One module at a time, so that an answer that has come waits for one of them at most.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any, Final

PAUSE_SECONDS: Final = 0.005  # the flow goes on meanwhile: the next module comes when it has sent its next request
MARKET_OPEN: Final = (
    "hiredis",
    "redis.asyncio.client",
    "velox_core.run_stores",
    "numpy",
    "pyarrow",
    "velox_core.feeds.load",
    "pyarrow.csv",
    "velox_core.operations.backup_places",
)
"""What the checklist and the arming of a day import, from the bottom up."""


def beside(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """Run what imports beside the current task.

    A signal that ends the process is raised in whatever runs just then. Raised in an import, it ends the current task, too.
    """
    main = asyncio.current_task()
    importing = asyncio.create_task(work)

    def end_main(done: asyncio.Task[None]) -> None:
        error = None if done.cancelled() else done.exception()
        if main is not None and error is not None and not isinstance(error, Exception):
            main.cancel()

    importing.add_done_callback(end_main)
    return importing


async def import_ahead(names: Sequence[str]) -> None:
    """Import modules. One that cannot be imported is left to whoever needs it, who says so."""
    for name in names:
        await asyncio.sleep(PAUSE_SECONDS)
        with suppress(ImportError):
            import_quietly(name)


def import_quietly(name: str) -> None:
    """Import a module without looking for garbage meanwhile: what is imported stays. Raises what the import raises."""
    gc.disable()
    try:
        import_module(name)
    finally:
        gc.freeze()
        gc.enable()
