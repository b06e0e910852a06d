"""emergency_flatten: everything is closed, now, whether the intraday flow and its engine live, hang or are gone.

- The closing is `velox flatten`, a process of its own: this flow starts it and watches. Prefect decides nothing about it.
- Nothing is tried again by the orchestrator, and a cancel of this flow does not stop the closing.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from prefect.states import Completed

from flows.parameters import day_request
from flows.policy import flow
from tasks.flatten import flatten
from velox_core.operations.flatten_process import FlattenCommand
from velox_core.operations.second_layer import already_closed
from velox_core.settings import load_settings, paths


@flow(name="emergency-flatten")
async def emergency_flatten(
    config: str = "",
    date: str = "",
    run: str = "",
    reason: str = "emergency_flatten flow",
    by: str = "Prefect",
    unless_closed: bool = False,
) -> Any:
    """Halt the account and close every position of the day's product.

    Args:
        config: configuration file; empty is config/system_simulated.yaml.
        date: the newest run of this date, as 2024-01-15; empty is the run that an engine trades, else the newest.
        run: exactly this run, such as 2024-01-15-1; empty leaves the choice to the date.
        reason: why, kept in the halt record.
        by: who asks, kept in the halt record.
        unless_closed: do nothing when the end of day has proven the named run flat already; for automations, which come late.
    """
    config, date, run = config.strip(), date.strip(), run.strip()  # a blank in a form is no reason to refuse
    request = day_request(config, date)
    settings = load_settings(request.config, os.environ)
    where = paths(os.environ, settings.root)
    closed = already_closed(settings, where, run) if unless_closed and run else ""
    if closed:
        return Completed(name="AlreadyClosed", message=closed)
    command = FlattenCommand(config=Path(settings.source), reason=reason, by=by, on=date, run_id=run)
    return await flatten(settings, where, command)


if __name__ == "__main__":
    from flows.command import run_flow

    run_flow(emergency_flatten)
