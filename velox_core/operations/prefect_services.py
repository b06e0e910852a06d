"""Prefect's part of `velox up`: the server of a var folder, and the process that serves an account's deployments.

- Both are processes of their own; Prefect is never imported here, and nothing about an order's safety depends on them.
- The server is shared by all accounts below a var folder; it listens on this machine alone.
- The process that serves is not ended while an engine of the account runs or something is open: its end cancels the run
  that watches the engine, which asks the engine to stop.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import psutil

from velox_core.domain.errors import VeloxError
from velox_core.engine_lock import LockView
from velox_core.operations.guard_status import guard_folder
from velox_core.operations.json_file import read_json
from velox_core.operations.prefect_home import (
    LOOPBACK,
    SERVE_FILE,
    SERVE_LOCK,
    answers,
    api_url,
    is_healthy,
    living_server_port,
    prefect_address,
    server_lock,
    service_environment,
)
from velox_core.operations.service_process import ServiceProcess
from velox_core.ports import LockHolder
from velox_core.settings import Paths, Settings

SERVER_END_SECONDS: Final = 20.0  # open connections and its services have 10 s
RUN_END_SECONDS: Final = 30.0  # that Prefect gives a cancelled run before it kills it, one run after another
SERVE_END_SECONDS_REST: Final = 15.0
RUNS_ENDED_AT_ONCE: Final = 5
UNHEARD_SECONDS_MAX: Final = 60.0  # no look in this time, each of half a second, had an answer: it is asked a last time
LAST_SECONDS: Final = 10.0  # of that question; a server that works has answered by then, however loaded


class PrefectServer:
    """The Prefect server of a var folder, which every account below it shares."""

    name = "prefect-server"
    is_shared = True
    unready_seconds_max: float | None = UNHEARD_SECONDS_MAX

    def __init__(self, settings: Settings, paths: Paths, environ: Mapping[str, str], own_locks: tuple[Path, ...] = ()) -> None:
        self._wanted = settings.prefect.port
        self._var = paths.var
        self._environ = environ
        self._own = set(own_locks)
        self._process = ServiceProcess("prefect-server", server_lock(paths.var), paths, end_seconds=SERVER_END_SECONDS)

    @property
    def where(self) -> str:
        """Return the address of its UI: the port it really listens on while it lives, else the configured one."""
        return api_url(self._port()).removesuffix("/api")

    @property
    def output(self) -> str:
        """Return the file with what it prints, '' when it was not started here."""
        return self._process.output

    def _port(self) -> int:
        return living_server_port(self._var) or self._wanted

    def life(self) -> LockHolder | None:
        """Return the server's process. Raises VeloxError."""
        return self._process.life()

    def is_ready(self) -> bool:
        """Return whether it answers."""
        return self._process.holder() is not None and is_healthy(api_url(self._port()))

    def answers_at_last(self) -> bool:
        """Return whether it answers anything within 10 s: a loaded server is slow, and killed it would not be faster."""
        return self._process.holder() is not None and answers(api_url(self._port()), seconds=LAST_SECONDS)

    def start(self) -> None:
        """Start it. Raises VeloxError when the port is another's."""
        check_port_is_free(self._wanted)
        arguments = ["-m", "deployments.server", "--var", str(self._var.absolute()), "--port", str(self._wanted)]
        self._process.start(arguments, service_environment(self._var, self._environ, ""))

    def exit_code(self) -> int | None:
        """Return how the one that was started here ended."""
        return self._process.exit_code()

    def needed_by(self) -> list[str]:
        """Return who serves deployments there, and other supervisors, of any account below var. Raises VeloxError."""
        found = []
        for name, what in ((SERVE_LOCK, "the deployments' process"), ("up.lock", "velox up")):
            for path in sorted({*self._var.glob(f"*/*/{name}")} - self._own):
                holder = LockView(path).holder()
                if holder is not None:
                    found.append(f"{what} of {path.parent.name} (process {holder.pid}) uses it")
        return found

    def end(self, holder: LockHolder) -> str:
        """Ask it to end, and kill it after a bound: its database survives that. Raises VeloxError when it is not ended."""
        return self._process.end(holder)

    def kill(self, holder: LockHolder) -> None:
        """Kill it. Raises VeloxError when it stays."""
        self._process.kill(holder)


class PrefectServe:
    """The process that serves an account's deployments and keeps its automations."""

    name = "prefect-serve"
    is_shared = False
    unready_seconds_max: float | None = None  # its runs are cancelled with it: what it does in an outage it judges itself

    def __init__(
        self, settings: Settings, paths: Paths, environ: Mapping[str, str], needed_by: Callable[[], list[str]]
    ) -> None:
        folder = guard_folder(settings, paths)
        self._settings = settings
        self._paths = paths
        self._environ = environ
        self._file = folder / SERVE_FILE
        self._needed_by = needed_by
        end_seconds = RUN_END_SECONDS * RUNS_ENDED_AT_ONCE + SERVE_END_SECONDS_REST
        self._process = ServiceProcess("prefect-serve", folder / SERVE_LOCK, paths, end_seconds=end_seconds)
        self.where = f"account {settings.account}"

    @property
    def output(self) -> str:
        """Return the file with what it prints, '' when it was not started here."""
        return self._process.output

    def life(self) -> LockHolder | None:
        """Return its process. Raises VeloxError."""
        return self._process.life()

    def is_ready(self) -> bool:
        """Return whether the deployments of the very process that lives are registered."""
        life, told = self._process.holder(), read_json(self._file)
        if life is None:
            return False
        return told.get("ready") is True and (told.get("pid"), told.get("started")) == (life.pid, life.started)

    def answers_at_last(self) -> bool:
        """Return the same: nobody judges its silence."""
        return self.is_ready()

    def start(self) -> None:
        """Start it; it waits for the server itself. Raises VeloxError."""
        address = prefect_address(self._settings, self._paths.var)
        arguments = ["-m", "deployments.serve", "--config", str(self._settings.source.absolute())]
        self._process.start(arguments, service_environment(self._paths.var, self._environ, address))

    def exit_code(self) -> int | None:
        """Return how the one that was started here ended."""
        return self._process.exit_code()

    def needed_by(self) -> list[str]:
        """Return the engines whose run it would cancel. Raises VeloxError when a lock cannot be read."""
        return self._needed_by()

    def end(self, holder: LockHolder) -> str:
        """Ask it to cancel its runs and end, and kill it after a bound. Raises VeloxError when it is not ended."""
        return self._process.end(holder)

    def kill(self, holder: LockHolder) -> None:
        """Kill it. Raises VeloxError when it stays."""
        self._process.kill(holder)


def check_port_is_free(port: int) -> None:
    """Raise VeloxError with the process that listens on a port of this machine, and what to do, when there is one."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            kind = "a Prefect server of another var folder" if is_healthy(api_url(port)) else "something else"
            raise VeloxError(
                f"port {port} of {LOOPBACK} cannot be had ({error.strerror}): {kind} listens "
                f"there{_listener(port)}. End it, choose another port in system.prefect.port, or name that server in "
                "system.prefect.api_url"
            ) from error


def _listener(port: int) -> str:
    """Return who listens on a port, as far as this user may know it."""
    try:
        for connection in psutil.net_connections("inet"):
            if (
                connection.laddr
                and connection.laddr.port == port
                and connection.status == psutil.CONN_LISTEN
                and connection.pid
            ):
                return f" (process {connection.pid}, {psutil.Process(connection.pid).name()})"
    except psutil.Error:
        pass
    return ""
