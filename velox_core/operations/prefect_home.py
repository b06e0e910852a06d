"""The environment in which flow processes run: Prefect's home under `var/`, nothing in the user's home, no telemetry.

- Names and values only; Prefect itself is never imported here.
- What the caller's environment already says wins, except the home: flows of one `var` always meet in one place.
- Sources of the tuned values: measurements on Prefect 3.8.8, 2026-11 (see docs/architecture.md, "Prefect").
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from velox_core.operations.hints import program

HOME_VARIABLE: Final = "PREFECT_HOME"

_ALWAYS: Final = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_TELEMETRY_ENABLE_RESOURCE_METRICS": "false",
}
_DEFAULTS: Final = {
    "PREFECT_SERVER_EPHEMERAL_ENABLED": "true",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "240",
    # without these SQLite answers "database is locked" and the client sleeps two seconds at a time
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    "PREFECT_CLI_PROMPT": "false",
}


def prefect_environment(var: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """Return a copy of an environment in which a flow process can start.

    Args:
        var: the folder of all state; Prefect's home is its `prefect`.
        environ: the environment to start from.
    """
    return {**_DEFAULTS, **environ, **_ALWAYS, HOME_VARIABLE: str(prefect_home(var))}


def prefect_home(var: Path) -> Path:
    """Return the folder of Prefect's database and settings."""
    return var.resolve() / "prefect"


def ui_command(var: Path) -> str:
    """Return the shell line that shows the recorded runs in Prefect's UI."""
    home = shlex.quote(str(prefect_home(var)))
    return f"PREFECT_HOME={home} PREFECT_SERVER_ANALYTICS_ENABLED=false {program('prefect')} server start"
