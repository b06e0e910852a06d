"""`velox day` as a person runs it: real processes, a real Prefect server, the real day; and a flow that is killed."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import psutil
import pytest

from tests.fakes.prefect_home import migrated_home
from velox_core.operations.prefect_home import prefect_home
from velox_core.operations.processes import is_alive
from velox_core.operations.status import Status, account_folders, newest_status
from velox_core.redis_server import EmbeddedRedis

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
WAIT_SECONDS = 600.0


@pytest.fixture
def var(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "var"
    yield folder
    status = engine(folder)
    if status is not None and is_alive(status.number("pid")):
        with suppress(psutil.NoSuchProcess):  # it ended meanwhile
            psutil.Process(status.number("pid")).kill()
    EmbeddedRedis(folder / "redis").stop()


@pytest.fixture
def environ(tmp_path: Path, var: Path) -> dict[str, str]:
    home = tmp_path / "home"
    home.mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "VELOX_"))}
    return {**kept, "HOME": str(home), "VELOX__VAR": str(var), "COLUMNS": "120"}


@pytest.fixture
def migrated(var: Path) -> None:
    """Spare the day the making of Prefect's database; the day on an empty folder, the first one, makes its own."""
    migrated_home(prefect_home(var))


def start(environ: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", *arguments], cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=WAIT_SECONDS)
    return process.returncode, out, err


def engine(var: Path) -> Status | None:
    return newest_status(account_folders(var, broker_type="simulated", account="primary"))


def wait_until(condition: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + WAIT_SECONDS
    while not condition():
        if time.monotonic() > until:
            raise AssertionError(f"did not happen: {what}")
        time.sleep(0.1)


def command_line(process: psutil.Process) -> list[str]:
    """Return how a process was started, nothing for one that has ended since it was seen."""
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []


def told_last(var: Path) -> str:
    """Return the last line that Prefect's records have of the day."""
    with closing(sqlite3.connect(var / "prefect" / "prefect.db")) as records:
        return str(records.execute("SELECT message FROM log ORDER BY timestamp DESC LIMIT 1").fetchone()[0])


def test_day_command_runs_the_real_day_and_leaves_nothing_in_the_users_home(environ: dict[str, str], var: Path) -> None:
    code, out, err = finish(start(environ, "velox_core.cli", "day", "--date", "2024-01-15", "--speed", "max"))
    assert code == 0, out + err
    for text in (
        "8 of 12 items passed, 4 warned, 0 failed",
        "Net P&L",
        "sma_cross",
        "Decisions of the gate",
        "prefect server start",
    ):
        assert text in out
    assert list((Path(environ["HOME"])).iterdir()) == []
    assert (var / "prefect" / "prefect.db").exists()
    assert len(list((var / "logs" / "simulated").iterdir())) == 4
    status = engine(var)
    assert status is not None
    assert not is_alive(status.number("pid"))
    (run,) = (var / "replay" / "primary").iterdir()
    assert json.loads((run / "run.json").read_text())["state"] == "CLOSED"
    assert told_last(var) == "Finished in state Completed()"  # the server takes everything before it is ended
    (printed,) = var.glob("output/trading-day-*.log")
    assert "Error logging to API" not in printed.read_text(encoding="utf-8")


@pytest.mark.usefixtures("migrated")
def test_day_command_with_a_refusing_checklist_exits_three_and_starts_no_engine(
    environ: dict[str, str], var: Path, tmp_path: Path
) -> None:
    config = tmp_path / "config" / "system.yaml"
    config.parent.mkdir()
    text = (ROOT / "config" / "system_simulated.yaml").read_text(encoding="utf-8")
    text = text.replace("data/tcs_2024-01-15.csv", str(ROOT / "data" / "tcs_2024-01-15.csv"))
    config.write_text(
        f"{text}\n  checklist: {{severities: {{dashboard: refuse}}}}\n  dashboard: {{port: 9}}\n", encoding="utf-8"
    )
    code, out, err = finish(start(environ, "velox_core.cli", "day", "--config", str(config)))
    assert code == 3, out + err
    assert "Dashboard is accessible" in out
    assert "velox check" in out
    assert engine(var) is None


@pytest.mark.usefixtures("migrated")
def test_day_command_interrupted_before_the_engine_speaks_trades_nothing(environ: dict[str, str], var: Path) -> None:
    day = start(environ, "velox_core.cli", "day", "--date", "2024-01-15", "--speed", "60")
    wait_until(lambda: bool(list(var.glob("output/trading-day-*.log"))), "the flow is started")
    day.send_signal(signal.SIGINT)
    code, out, err = finish(day)
    assert code == 1, out + err
    assert "The engine does not run yet" in out
    assert "nothing was traded" in out
    assert engine(var) is None
    assert list(var.glob("output/stop-of-*")) == []


@pytest.mark.usefixtures("migrated")
def test_engine_trades_on_when_its_flow_is_killed_and_stops_flat_when_asked(environ: dict[str, str], var: Path) -> None:
    day = start(environ, "velox_core.cli", "day", "--date", "2024-01-15", "--speed", "60")
    wait_until(lambda: (status := engine(var)) is not None and status.state == "RUNNING", "the engine runs")
    (flow,) = psutil.Process(day.pid).children()
    servers = [process for process in flow.children(recursive=True) if "uvicorn" in command_line(process)]
    flow.kill()
    code, out, _ = finish(day)
    assert code == 1
    assert "The day failed" in out
    assert servers
    _, left = psutil.wait_procs(servers, timeout=WAIT_SECONDS)
    assert left == []

    status = engine(var)
    assert status is not None
    pid, seen_ms = status.number("pid"), status.number("engine_ms")
    assert is_alive(pid)
    wait_until(lambda: (now := engine(var)) is not None and now.number("engine_ms") > seen_ms, "the engine trades on")

    code, out, err = finish(start(environ, "velox_core.cli", "stop", "--reason", "the flow was killed"))
    assert code == 0, out + err
    assert "has stopped: DONE" in out
    wait_until(lambda: not is_alive(pid), "the engine's process is gone")
    code, out, err = finish(start(environ, "flows.end_of_day", "--date", "2024-01-15"))
    assert code == 0, out + err
    code, out, _ = finish(start(environ, "velox_core.cli", "summary", "--json"))
    report = json.loads(out)
    assert (code, report["flat"], report["broker_says"]) == (0, True, "the broker says flat")
    assert "the flow was killed" in report["stopped"]
