"""`velox up` with everything: twice is once, a dead or hung server comes back with its deployments, down ends all."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from deployments.definitions import DEPLOYMENTS, QUEUE_PRIORITIES, WORK_POOL
from tests.fakes.ports import free_port
from tests.fakes.prefect_home import migrated_home
from tests.fakes.prefect_server import BUSY
from tests.integration.test_up import ROOT, WAIT_SECONDS, Account, wait
from velox_core.operations.processes import is_alive

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
ALL = ["redis", "guard", "prefect-server", "prefect-serve"]


class House(Account):
    """An account with Prefect on a port of its own."""

    def __init__(self, var: Path) -> None:
        super().__init__(var)
        self.port = free_port()
        self.client = httpx.Client(verify=False, trust_env=False, limits=httpx.Limits(max_keepalive_connections=0))
        self.said = {"VELOX__PREFECT__PORT": str(self.port)}

    def asked(self, path: str, body: dict[str, Any] | None = None) -> Any:
        until = time.monotonic() + WAIT_SECONDS
        while True:
            try:
                answer = self.client.post(f"http://127.0.0.1:{self.port}/api/{path}", json=body or {}, timeout=WAIT_SECONDS)
            except httpx.TransportError:  # one that a busy machine kept silent for a minute is killed, and comes back
                if time.monotonic() > until:
                    raise
            else:
                if answer.status_code != BUSY or time.monotonic() > until:
                    answer.raise_for_status()
                    return answer.json()
            time.sleep(1.0)

    def registered(self) -> dict[str, list[str]]:
        """Return the ids of what the server knows, by kind and name: none may change by a second up."""
        found = {f"deployment {row['name']}": [row["id"]] for row in self.asked("deployments/filter")}
        for row in self.asked("deployments/filter"):
            found[f"schedules {row['name']}"] = sorted(f"{one['slug']} {one['id']}" for one in row["schedules"])
        found |= {f"automation {row['name']}": [row["id"]] for row in self.asked("automations/filter")}
        queues = self.asked(f"work_pools/{WORK_POOL}/queues/filter")
        return found | {f"queue {row['name']}": [str(row["priority"])] for row in queues}

    def scheduled(self) -> set[tuple[str, str]]:
        """Return the deployments whose schedules have made runs, with the sessions that those are for."""
        names = {row["id"]: row["name"] for row in self.asked("deployments/filter")}
        runs = self.asked("flow_runs/filter", {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}})
        return {(names[run["deployment_id"]], run["parameters"]["session"]) for run in runs}

    def pids(self) -> dict[str, int]:
        view = json.loads(self.velox("up", "--status", "--json").stdout)
        return {row["name"]: row["pid"] for row in view["services"]}

    def lives(self) -> dict[str, tuple[int, int]]:
        """Return each service's process and how often it was started again, as of one moment at which all of them run."""
        found: dict[str, dict[str, object]] = {}

        def all_run() -> bool:
            found.update(self.services())
            return [row["state"] for row in found.values()] == ["RUNNING"] * len(ALL)

        wait(all_run)
        return {name: (int(str(row["pid"])), int(str(row["restarts"]))) for name, row in found.items()}

    def came_back(self, name: str, before: int) -> bool:
        """Return whether a service runs as another process than before, which the supervisor started again."""
        row = self.services().get(name, {})
        return row.get("state") == "RUNNING" and row.get("pid") not in (0, before) and self.restarts(name) > 0

    def supervisor_said(self) -> str:
        return "".join(file.read_text() for file in (self.var / "output").glob("up-*.log"))

    def restarts(self, name: str) -> int:
        return int(str(self.services().get(name, {}).get("restarts", 0)))


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    migrated_home(tmp_path / "var" / "prefect")
    made = House(tmp_path / "var")
    yield made
    made.end()
    made.client.close()


def deploy_from_a_checkout_without_git(house: House, checkout: Path) -> None:
    """Run the line of prefect.yaml's header in a copy of the project."""
    checkout.mkdir()
    for name in ("flows", "tasks", "velox_core", "deployments", "config", "prefect.yaml", "prefect.toml", "pyproject.toml"):
        source = ROOT / name
        skip = shutil.ignore_patterns("__pycache__")
        shutil.copytree(source, checkout / name, ignore=skip) if source.is_dir() else shutil.copy(source, checkout / name)
    address = f"http://127.0.0.1:{house.port}/api"
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT_", "VELOX"))}
    environ |= {"PREFECT_HOME": str(house.var / "prefect"), "PREFECT_API_URL": address}
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    done = subprocess.run(command, cwd=checkout, env=environ, capture_output=True, text=True, timeout=WAIT_SECONDS, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_up_brings_prefect_up_twice_is_once_and_a_dead_or_hung_server_comes_back_with_its_deployments(
    house: House, tmp_path: Path
) -> None:
    up = house.velox("up", "--detach", "--json")
    assert up.returncode == 0, up.stdout + up.stderr
    view = json.loads(up.stdout)
    assert [(row["name"], row["state"]) for row in view["services"]] == [(name, "RUNNING") for name in ALL]
    assert view["places"]["ui"] == f"http://127.0.0.1:{house.port}"
    assert f"PREFECT_API_URL=http://127.0.0.1:{house.port}/api" in view["places"]["prefect"]
    shown = httpx.get(f"http://127.0.0.1:{house.port}/ui-settings", timeout=WAIT_SECONDS).json()
    assert shown["api_url"] == f"http://127.0.0.1:{house.port}/api"  # else the pages look elsewhere and stay empty
    before, lives = house.registered(), house.lives()
    pids = {name: pid for name, (pid, _) in lives.items()}
    assert {f"deployment {one.flow}" for one in DEPLOYMENTS} <= set(before)
    assert len([name for name in before if name.startswith("automation ")]) > 3
    assert {name: [str(priority)] for name, priority in QUEUE_PRIORITIES.items()}.items() <= {
        key.removeprefix("queue "): value for key, value in before.items()
    }.items()

    wait(lambda: house.scheduled() == {(one.flow, row.parameters["session"]) for one in DEPLOYMENTS for row in one.schedules})

    again = house.velox("up", "--detach")
    assert (again.returncode, again.stdout.splitlines()[0]) == (0, "up already: nothing was changed")
    now, serve = house.lives(), "prefect-serve"
    by_its_wish = {serve} if now[serve][1] > lives[serve][1] else set()  # a busy machine's server was silent for a while
    assert {name for name in ALL if now[name] != lives[name]} == by_its_wish
    assert house.registered() == before

    deploy_from_a_checkout_without_git(house, tmp_path / "checkout")
    assert house.registered() == before
    for row in house.asked("deployments/filter"):
        (wanted,) = (one for one in DEPLOYMENTS if one.flow == row["name"])
        assert (row["work_pool_name"], row["work_queue_name"]) == (WORK_POOL, wanted.queue)
        assert row["pull_steps"] == [{"prefect.deployments.steps.set_working_directory": {"directory": "{{ $VELOX_HOME }}"}}]

    last = house.pids()
    assert [house.restarts(name) for name in ("redis", "guard", "prefect-server")] == [0, 0, 0]  # however busy the machine was
    os.kill(last["prefect-server"], signal.SIGKILL)
    wait(lambda: all(house.came_back(name, last[name]) for name in ("prefect-server", "prefect-serve")))
    after = house.pids()
    assert {name for name in ALL if after[name] != pids[name]} == {"prefect-server", "prefect-serve"}
    # how often the one that serves was is not known: it asks for it whenever a busy machine's server was silent for a while
    assert [house.restarts(name) for name in ("redis", "guard", "prefect-server")] == [0, 0, 1]
    assert house.registered() == before

    os.kill(after["prefect-server"], signal.SIGSTOP)  # it lives, it has its port and its lock, and answers nobody
    wait(lambda: all(house.came_back(name, after[name]) for name in ("prefect-server", "prefect-serve")))
    last, after = after, house.pids()
    assert {name for name in ALL if after[name] != last[name]} == {"prefect-server", "prefect-serve"}
    assert [house.restarts(name) for name in ("redis", "guard", "prefect-server")] == [0, 0, 2]
    assert not is_alive(last["prefect-server"])
    assert f"prefect-server: process {last['prefect-server']} lived and did not answer for" in house.supervisor_said()
    assert house.registered() == before

    down = house.velox("down")
    assert down.returncode == 0, down.stdout + down.stderr
    assert [line.partition(":")[0] for line in down.stdout.splitlines()] == ["supervisor", *reversed(ALL)]
    assert not any(is_alive(pid) for pid in after.values())
