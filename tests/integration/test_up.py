"""`velox up` and `velox down` with real processes: started, killed, restarted, ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from velox_core.operations.processes import is_alive
from velox_core.redis_server import EmbeddedRedis

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "config" / "system_simulated.yaml"
WAIT_SECONDS = 600.0

pytestmark = pytest.mark.slow


class Account:
    """A var folder of its own and the commands on it."""

    def __init__(self, var: Path) -> None:
        self.var = var
        self.said = {"VELOX__PREFECT__ENABLED": "false"}
        self.folder = var / "simulated" / "primary"

    def velox(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "velox_core.cli", *arguments, "--config", str(CONFIG)]
        environ = {**os.environ, "VELOX__VAR": str(self.var), **self.said}
        return subprocess.run(command, env=environ, cwd=ROOT, capture_output=True, text=True, timeout=WAIT_SECONDS, check=False)

    def services(self) -> dict[str, dict[str, object]]:
        """Return the rows that the supervisor keeps, by name."""
        try:
            rows = json.loads((self.folder / "up.json").read_text())["services"]
        except (OSError, ValueError):
            return {}
        return {row["name"]: row for row in rows}

    def pid(self, name: str) -> int:
        return int(str(self.services()[name]["pid"]))

    def end(self) -> None:
        self.velox("down")
        EmbeddedRedis(self.var / "redis").stop()


@pytest.fixture
def account(tmp_path: Path) -> Iterator[Account]:
    made = Account(tmp_path / "var")
    yield made
    made.end()


def wait(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.5)


def test_up_starts_redis_and_guard_restarts_a_killed_guard_and_down_ends_everything(account: Account) -> None:
    up = account.velox("up", "--detach", "--json")
    assert up.returncode == 0, up.stdout + up.stderr
    view = json.loads(up.stdout)
    assert {row["name"]: row["state"] for row in view["services"]} == {"redis": "RUNNING", "guard": "RUNNING"}
    supervisor, first, redis = view["supervisor"]["pid"], account.pid("guard"), account.pid("redis")
    assert len({os.getsid(pid) for pid in (supervisor, first, redis)}) == 3

    os.kill(first, signal.SIGKILL)
    wait(lambda: account.services()["guard"]["restarts"] == 1 and account.services()["guard"]["state"] == "RUNNING")
    second = account.pid("guard")
    assert (second != first, is_alive(second), account.pid("redis")) == (True, True, redis)

    again = account.velox("up")
    assert (again.returncode, again.stdout.splitlines()[0]) == (0, "up already: nothing was changed")
    assert (account.pid("guard"), account.pid("redis")) == (second, redis)

    down = account.velox("down")
    assert (down.returncode, down.stdout.splitlines()) == (
        0,
        [f"supervisor: ended, process {supervisor}", f"guard: ended, process {second}", f"redis: ended, process {redis}"],
    )
    assert not any(is_alive(pid) for pid in (supervisor, second, redis))
