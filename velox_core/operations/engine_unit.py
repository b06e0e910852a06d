"""Starting the engine as a unit of systemd: so that stopping the service of a flow does not take the engine along.

- Asked for by the environment: `VELOX_ENGINE_UNIT` names the unit, `VELOX_SYSTEMCTL` the command (default `systemctl`).
- The unit runs `velox run --as-requested`: what it is to run lies in the account's folder, written before the start.
- To start a unit that runs is to find it running: no second engine comes of it.
"""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, fields
from datetime import date
from pathlib import Path
from typing import Final

from velox_core.domain.errors import VeloxError
from velox_core.operations.engine_process import EngineProcess, EngineRequest, process_holder
from velox_core.operations.json_file import read_json, write_json
from velox_core.settings import Paths, Settings

UNIT_VARIABLE: Final = "VELOX_ENGINE_UNIT"
SYSTEMCTL_VARIABLE: Final = "VELOX_SYSTEMCTL"
REQUEST_FILE: Final = "engine-request.json"
EXITED: Final = 1  # a unit's ExecMainCode where its process was not ended by a signal: CLD_EXITED of <signal.h>
SYSTEMCTL_SECONDS_MAX: Final = 60.0


def engine_unit(environ: Mapping[str, str]) -> str:
    """Return the unit that the engine is to be started as, '' for a process of our own."""
    return environ.get(UNIT_VARIABLE, "")


def start_unit(
    settings: Settings, paths: Paths, account_folder: Path, request: EngineRequest, environ: Mapping[str, str]
) -> EngineProcess:
    """Start the engine's unit. Raises VeloxError when it does not run."""
    unit = engine_unit(environ)
    leave_request(account_folder, request)
    _systemctl(environ, "start", unit)
    pid = _number(environ, unit, "MainPID")
    if not pid:
        raise VeloxError(f"unit {unit} was started and does not run: see journalctl -u {unit}")

    def exit_status() -> int | None:
        is_it = _number(environ, unit, "ExecMainPID") == pid and _number(environ, unit, "ExecMainCode") == EXITED
        return _number(environ, unit, "ExecMainStatus") if is_it else None

    return EngineProcess(process_holder(pid), settings, paths, exit_status=exit_status)


def leave_request(account_folder: Path, request: EngineRequest) -> None:
    """Write what the unit's engine is to run. Raises VeloxError."""
    body = {name: str(value) if isinstance(value, Path | date) else value for name, value in asdict(request).items()}
    write_json(account_folder / REQUEST_FILE, body)


def read_request(account_folder: Path) -> EngineRequest:
    """Return what the account's engine is to run, as a flow asked. Raises VeloxError when nobody asked."""
    body = read_json(account_folder / REQUEST_FILE)
    try:
        values = {field.name: body[field.name] for field in fields(EngineRequest)}
        data = values["data"]
        return EngineRequest(
            **{
                **values,
                "config": Path(values["config"]),
                "trading_date": date.fromisoformat(values["trading_date"]),
                "data": None if data is None else Path(data),
            }
        )
    except (KeyError, ValueError, TypeError) as error:
        raise VeloxError(
            f"{account_folder / REQUEST_FILE} does not say what to run: the intraday flow writes it before it starts the "
            "engine's unit. Start the flow, or velox run without --as-requested"
        ) from error


def _number(environ: Mapping[str, str], unit: str, name: str) -> int:
    text = _systemctl(environ, "show", "--value", "-p", name, unit).strip()
    return int(text) if text.isdigit() else 0


def _systemctl(environ: Mapping[str, str], *arguments: str) -> str:
    command = [*shlex.split(environ.get(SYSTEMCTL_VARIABLE, "") or "systemctl"), *arguments]
    try:
        done = subprocess.run(
            command, env=dict(environ), capture_output=True, text=True, timeout=SYSTEMCTL_SECONDS_MAX, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise VeloxError(f"{shlex.join(command)} failed: {error}. Unset {UNIT_VARIABLE} where there is no systemd") from error
    if done.returncode:
        raise VeloxError(f"{shlex.join(command)} failed: {done.stderr.strip() or f'exit code {done.returncode}'}")
    return done.stdout
