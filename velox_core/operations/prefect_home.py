"""Prefect as processes need it: its home below `var/`, no telemetry, tuned settings; and the one server of a var folder.

- Names, values and one question over HTTP; Prefect itself is never imported here.
- What the caller's environment already says wins, except the home: flows of one `var` always meet in one place.
- One server for each `var`, on this machine alone. A kernel lock says whether it lives, `server.json` where it listens.
- `TUNED` is the one place of the tuned settings; `prefect.toml` repeats them for `prefect` typed by hand, and a test compares.
- Sources of the tuned values: measurements on Prefect 3.8.8, 2026-11 (see docs/architecture.md, "Prefect").
"""

from __future__ import annotations

import http.client
import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from velox_core.engine_lock import LockView
from velox_core.operations.hints import program
from velox_core.operations.json_file import read_json
from velox_core.ports import LockHolder
from velox_core.settings import Settings

HOME_VARIABLE: Final = "PREFECT_HOME"
API_VARIABLE: Final = "PREFECT_API_URL"
SERVER_LOCK: Final = "server.lock"
SERVER_FILE: Final = "server.json"
LOOPBACK: Final = "127.0.0.1"
HEALTH_SECONDS: Final = 0.5

_ALWAYS: Final = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_TELEMETRY_ENABLE_RESOURCE_METRICS": "false",
}
TUNED: Final = {
    **{name: value for name, value in _ALWAYS.items() if name.startswith("PREFECT_")},
    # without these SQLite answers "database is locked" and the client sleeps two seconds at a time
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
    # leases in memory are gone with the server, and the runs that hold one die at their next renewal
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
    # a week of runs ahead, not a hundred days
    "PREFECT_SERVER_SERVICES_SCHEDULER_MAX_RUNS": "10",
    "PREFECT_SERVER_SERVICES_SCHEDULER_MAX_SCHEDULED_TIME": "P7D",
    "PREFECT_RUNNER_POLL_FREQUENCY": "1",  # seconds: a run begins 2 s after its trigger instead of 8
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    "PREFECT_CLI_PROMPT": "false",
}
SERVE_LOCK: Final = "serve.lock"  # in the account's folder, with the file beside it
SERVE_FILE: Final = "serve.json"

_DEFAULTS: Final = {
    **TUNED,
    "PREFECT_SERVER_EPHEMERAL_ENABLED": "true",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "240",
}


def prefect_environment(var: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """Return a copy of an environment in which a flow process can start.

    It meets the server of `var` when that lives, and else brings up one of its own for as long as it runs.

    Args:
        var: the folder of all state; Prefect's home is its `prefect`.
        environ: the environment to start from; a `PREFECT_API_URL` in it stays.
    """
    made = {**_DEFAULTS, **environ, **_ALWAYS, HOME_VARIABLE: str(prefect_home(var))}
    server = "" if environ.get(API_VARIABLE) else running_server(var)
    return {**made, API_VARIABLE: server} if server else made


def service_environment(var: Path, environ: Mapping[str, str], api_url: str) -> dict[str, str]:
    """Return the environment of the server and of what serves the deployments: no server of its own, ever.

    Args:
        var: the folder of all state.
        environ: the environment to start from.
        api_url: of the server that is to be met; '' for the server itself.
    """
    made = {**_DEFAULTS, **environ, **_ALWAYS, HOME_VARIABLE: str(prefect_home(var))}
    made["PREFECT_SERVER_EPHEMERAL_ENABLED"] = "false"
    made.pop(API_VARIABLE, None)
    return {**made, API_VARIABLE: api_url} if api_url else made


def prefect_home(var: Path) -> Path:
    """Return the folder of Prefect's database and settings."""
    return var.resolve() / "prefect"


def api_url(port: int) -> str:
    """Return the address of a server of this machine for `PREFECT_API_URL`."""
    return f"http://{LOOPBACK}:{port}/api"


def server_lock(var: Path) -> Path:
    """Return the kernel lock of the server of a var folder."""
    return prefect_home(var) / SERVER_LOCK


def server_holder(var: Path) -> LockHolder | None:
    """Return the server's process, None when there is none. Raises VeloxError when that cannot be found out."""
    return LockView(server_lock(var)).holder()


def living_server_port(var: Path) -> int:
    """Return the port of the server that lives, 0 when there is none or it has not said yet. Raises as `server_holder`.

    Between taking the lock and saying where it listens, the port of the server before it still stands there.
    """
    holder, told = server_holder(var), read_json(prefect_home(var) / SERVER_FILE)
    if holder is None or not holder.pid or told.get("pid") != holder.pid:
        return 0
    port = told.get("port")
    return port if isinstance(port, int) else 0


def prefect_address(settings: Settings, var: Path) -> str:
    """Return the address of the server that an account meets: the configured one, the var folder's, or the one to be."""
    if settings.prefect.api_url:
        return settings.prefect.api_url
    return api_url(living_server_port(var) or settings.prefect.port)


def running_server(var: Path) -> str:
    """Return the address of the server of a var folder, '' when none lives or answers. Raises VeloxError as `server_holder`."""
    port = living_server_port(var)
    return api_url(port) if port and is_healthy(api_url(port)) else ""


def is_healthy(address: str, *, seconds: float = HEALTH_SECONDS) -> bool:
    """Return whether a Prefect server answers `GET <address>/health` with `true` within a bound."""
    return _health(address, seconds) == (http.client.OK, b"true")


def answers(address: str, *, seconds: float) -> bool:
    """Return whether anything comes back from a server within a bound, be it an error: one that hangs sends nothing."""
    return _health(address, seconds) is not None


def _health(address: str, seconds: float) -> tuple[int, bytes] | None:
    """Return status and text of the answer to `GET <address>/health`, None when none came."""
    parts = urlsplit(address)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    try:
        connection = kind(parts.hostname or LOOPBACK, parts.port, timeout=seconds)
    except (OSError, ValueError):
        return None
    try:
        connection.request("GET", f"{parts.path}/health")
        answer = connection.getresponse()
        return answer.status, answer.read(16).strip()
    except (OSError, ValueError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def ui_command(var: Path) -> str:
    """Return where the recorded runs can be seen: the address of a living server's UI, else the shell line that starts one."""
    running = running_server(var)
    if running:
        return running.removesuffix("/api")
    home = shlex.quote(str(prefect_home(var)))
    return f"PREFECT_HOME={home} PREFECT_SERVER_ANALYTICS_ENABLED=false {program('prefect')} server start"


def export_line(var: Path, address: str) -> str:
    """Return the shell line after which `prefect` typed by hand meets a server."""
    return f"export PREFECT_HOME={shlex.quote(os.fspath(prefect_home(var)))} {API_VARIABLE}={shlex.quote(address)}"
