"""A real Prefect server on a free port, its API, and the processes that run flows for it. For tests only.

- Each server starts from a copy of a migrated home (`prefect_home`): a database from nothing costs as much as its server.
- The API is spoken with plain httpx, so that a test need not import Prefect, and so that it asks what a person's browser asks.
- Whatever is started here runs in a session of its own, prints to a file below the folder, and ends with `end`.
- `PrefectServer.wait_until` is the wait for what flow runs do: what runs them is looked at at each turn (`keepers`), since it
  may end by its own wish at any time after the server was away, or did not answer because the machine is busy.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx

from tests.fakes.ports import free_port
from tests.fakes.prefect_home import migrated_home
from velox_core.operations.prefect_home import prefect_environment

ROOT = Path(__file__).resolve().parents[2]
WAIT_SECONDS = 300.0
POLL_SECONDS = 0.5  # each look costs the server as much as its caller
BUSY, BUSY_TRIES = 503, 10  # "try again": the database is locked; Prefect's own client does the same
FINAL_TYPES = frozenset({"COMPLETED", "FAILED", "CANCELLED", "CRASHED"})
QUIET = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1", "PREFECT_LOGGING_COLORS": "false"}


def wait_until(done: Callable[[], object], told: Callable[[], str] = lambda: "", seconds: float = WAIT_SECONDS) -> None:
    """Wait until something is so, within a bound; `told` is what a failure shows."""
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, f"not so after {seconds} s: {told()}"
        time.sleep(POLL_SECONDS)


def end_session(process: subprocess.Popen[bytes]) -> None:
    """End a process that leads a session, with what belongs to it."""
    with suppress(ProcessLookupError):
        for number in (signal.SIGCONT, signal.SIGKILL):
            os.killpg(process.pid, number)
    process.wait(timeout=WAIT_SECONDS)


class PrefectServer:
    """One server with a home of its own. `environ` is what flows and commands of this server run in.

    Args:
        folder: home, and what the processes print.
        settings: further variables for the server and everything else here.
    """

    def __init__(self, folder: Path, settings: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.home = migrated_home(folder / "prefect")
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        base = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")}
        self.environ = prefect_environment(folder, base) | {
            **QUIET,
            "PREFECT_API_URL": f"{self.url}/api",
            "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",
            "PREFECT_RUNNER_POLL_FREQUENCY": "1",
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "PREFECT_WORKER_HEARTBEAT_SECONDS": "10",
            "PYTHONPATH": str(ROOT),
            "VELOX_HOME": str(ROOT),
            **(settings or {}),
        }
        self.processes: list[subprocess.Popen[bytes]] = []
        self.process: subprocess.Popen[bytes] | None = None
        # one client for all questions: making one reads every authority of the machine, for a server that needs none
        self.client = httpx.Client(verify=False, trust_env=False, limits=httpx.Limits(max_keepalive_connections=0))
        self.was_away = False
        self.keepers: list[Callable[[], None]] = []

    # the server itself

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.process = self.run("server", "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(self.port))
        wait_until(self.is_up, lambda: self.printed("server"))

    def is_up(self) -> bool:
        """Return whether it answers."""
        try:
            return self.client.get(f"{self.url}/api/health", timeout=5.0).status_code == 200
        except httpx.HTTPError:
            return False

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End it by a signal."""
        assert self.process is not None
        self.was_away = True
        self.process.send_signal(number)
        self.process.wait(timeout=WAIT_SECONDS)

    def run(self, name: str, *arguments: str, environ: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start `python arguments` in the environment of this server; what it prints is added to `<name>.log`."""
        with (self.folder / f"{name}.log").open("ab") as printed:
            process = subprocess.Popen(
                [sys.executable, *arguments],
                env={**self.environ, **(environ or {})},
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def printed(self, name: str) -> str:
        """Return what a process printed."""
        try:
            return (self.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""

    def end(self) -> None:
        """End every process that was started here, with what belongs to its session."""
        for process in reversed(self.processes):
            end_session(process)
        self.client.close()

    # what it is asked, and its API

    def wait_until(
        self, done: Callable[[], object], told: Callable[[], str] = lambda: "", seconds: float = WAIT_SECONDS
    ) -> None:
        """Wait until something is so, within a bound, and keep alive meanwhile what runs flows."""

        def kept() -> object:
            for keep in self.keepers:
                keep()
            return done()

        wait_until(kept, told, seconds)

    def api(self, method: str, path: str, body: object = None) -> Any:
        """Ask the API, and return the answer as JSON values; None for an empty one."""
        for _ in range(BUSY_TRIES):
            answer = self.client.request(method, f"{self.url}/api{path}", json=body, timeout=WAIT_SECONDS)
            if answer.status_code != BUSY:
                break
            time.sleep(1.0)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    def deployment(self, name: str) -> dict[str, Any] | None:
        """Return a deployment by its name, None when there is none."""
        found = self.api("POST", "/deployments/filter", {"deployments": {"name": {"any_": [name]}}})
        return found[0] if found else None

    def pause_schedules(self) -> None:
        """Let no deployment run by its own schedule: a test may run at nine in the morning in India."""
        for found in self.api("POST", "/deployments/filter", {}):
            for schedule in found["schedules"]:
                self.api("PATCH", f"/deployments/{found['id']}/schedules/{schedule['id']}", {"active": False})

    def trigger(self, deployment: str, parameters: Mapping[str, object] | None = None, state: str = "SCHEDULED") -> str:
        """Create a run as the UI's form does, and return its id. One that is scheduled and not taken up is called late."""
        found = self.deployment(deployment)
        assert found is not None, f"there is no deployment {deployment}"
        body = {"parameters": {**found["parameters"], **(parameters or {})}, "state": {"type": state}}
        return str(self.api("POST", f"/deployments/{found['id']}/create_flow_run", body)["id"])

    def cancel(self, run_id: str) -> None:
        """Cancel a run as the UI's button does."""
        self.api("POST", f"/flow_runs/{run_id}/set_state", {"state": {"type": "CANCELLING", "name": "Cancelling"}})

    def flow_run(self, run_id: str) -> dict[str, Any]:
        """Return a flow run."""
        return dict(self.api("GET", f"/flow_runs/{run_id}"))

    def flow_runs(self, deployment: str | None = None) -> list[dict[str, Any]]:
        """Return the flow runs (of a deployment), oldest expected start first."""
        chosen = {"deployments": {"name": {"any_": [deployment]}}} if deployment else {}
        return list(self.api("POST", "/flow_runs/filter", {**chosen, "sort": "EXPECTED_START_TIME_ASC"}))

    def state(self, run_id: str) -> tuple[str, str]:
        """Return a run's state name and message."""
        state = self.flow_run(run_id).get("state") or {}
        return str(state.get("name", "")), str(state.get("message") or "")

    def wait_state(self, run_id: str, names: Iterable[str], seconds: float = WAIT_SECONDS) -> tuple[str, str]:
        """Wait until a run is in one of some states, and return name and message."""
        wanted = frozenset(names)
        self.wait_until(
            lambda: self.state(run_id)[0] in wanted,
            lambda: f"{self.state(run_id)}, wanted {sorted(wanted)}: {self.logs(run_id)}",
            seconds,
        )
        return self.state(run_id)

    def wait_end(self, run_id: str, seconds: float = WAIT_SECONDS) -> tuple[str, str]:
        """Wait until a run has ended, and return the state's name and message."""
        self.wait_until(
            lambda: self.flow_run(run_id)["state_type"] in FINAL_TYPES,
            lambda: f"{self.state(run_id)}: {self.logs(run_id)}",
            seconds,
        )
        return self.state(run_id)

    def logs(self, run_id: str) -> str:
        """Return a flow run's log, as its page shows it."""
        found = self.api("POST", "/logs/filter", {"logs": {"flow_run_id": {"any_": [run_id]}}, "sort": "TIMESTAMP_ASC"})
        return "\n".join(str(line["message"]) for line in found)

    def artifacts(self, key: str) -> list[dict[str, Any]]:
        """Return the artifacts of a key, oldest first."""
        found = self.api("POST", "/artifacts/filter", {"artifacts": {"key": {"any_": [key]}}, "sort": "CREATED_DESC"})
        return list(reversed(found))

    def artifacts_of(self, run_ids: Iterable[str]) -> list[dict[str, Any]]:
        """Return the artifacts that some runs made."""
        return list(self.api("POST", "/artifacts/filter", {"artifacts": {"flow_run_id": {"any_": list(run_ids)}}}))
