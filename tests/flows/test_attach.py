"""A flow process that is killed while its engine holds a position, and the run that comes after it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from prefect.settings import PREFECT_API_URL

from flows.end_of_day import end_of_day
from flows.intraday import intraday
from tasks.summary import summary_logger
from tests.flows.test_flows import DAY, engine_of
from velox_core.operations.day_pass import record_checklist
from velox_core.operations.processes import is_alive
from velox_core.settings import Paths, load_settings

pytestmark = [pytest.mark.slow, pytest.mark.anyio]
ROOT = Path(__file__).resolve().parents[2]


def arm(config: Path, var: Path) -> None:
    """Give the day its pass without running the checklist."""
    record_checklist(
        load_settings(config, {}), Paths(var=var, logs=var / "logs"), date(2024, 1, 15), [], taken_wall_ms=1_705_290_000_000
    )


def start_flow(config: Path, speed: str) -> subprocess.Popen[bytes]:
    environ = {**os.environ, "PREFECT_API_URL": str(PREFECT_API_URL.value())}
    command = [sys.executable, "-m", "flows.intraday", "--config", str(config), "--date", DAY, "--speed", speed]
    return subprocess.Popen(command, cwd=ROOT, env=environ, start_new_session=True, stderr=subprocess.DEVNULL)


async def wait_until_held(var: Path) -> Any:
    until = time.monotonic() + 240
    while time.monotonic() < until:
        status = engine_of(var)
        if status is not None and status.positions:
            return status
        await asyncio.sleep(0.1)
    raise AssertionError("the engine did not enter a position")


async def test_after_kill_9_of_the_flow_the_next_run_attaches_ends_as_the_engine_ends_and_the_report_is_whole(
    var: Path, config: Path, caplog: pytest.LogCaptureFixture
) -> None:
    arm(config, var)
    with start_flow(config, "90") as flow:
        status = await wait_until_held(var)
        flow.send_signal(signal.SIGKILL)
        flow.wait()
    pid = status.number("pid")
    assert is_alive(pid)

    summary_logger().addHandler(caplog.handler)
    following = asyncio.create_task(intraday(config=str(config), date=DAY, speed=90.0, return_state=True))
    try:
        while "attached to" not in caplog.text and not following.done():
            await asyncio.sleep(0.05)
        os.kill(pid, signal.SIGTERM)
        state = await following
    finally:
        summary_logger().removeHandler(caplog.handler)
    assert (state.name, await state.aresult()) == ("Completed", "2024-01-15-1")
    assert f"attached to the engine of run 2024-01-15-1, process {pid}" in caplog.text
    assert f"(process {flow.pid}) was killed, last heard of at" in caplog.text

    report = await end_of_day(config=str(config), date=DAY)
    assert (report["run_id"], report["flat"], report["exit_code"]) == ("2024-01-15-1", True, 0)
    assert report["stopped"].startswith("signal SIGTERM")
    assert report["fill_count"] >= 2
    assert report["fill_count"] % 2 == 0  # each entry of one share closed once
    assert engine_of(var).number("pid") == pid


async def test_an_engine_that_is_killed_is_never_a_success_and_the_next_run_takes_its_run_up(var: Path, config: Path) -> None:
    arm(config, var)
    watched = asyncio.create_task(intraday(config=str(config), date=DAY, speed=90.0, return_state=True))
    pid = (await wait_until_held(var)).number("pid")
    os.kill(pid, signal.SIGKILL)
    state = await watched
    assert (state.name, state.type.value) == ("EngineDied", "FAILED")
    assert "signal 9 ended it" in state.message
    assert "open by its last status" in state.message
    resumed = await intraday(config=str(config), date=DAY, speed=0.0)
    assert resumed == "2024-01-15-1"
    last = engine_of(var)
    assert (last.state, last.positions, last.number("pid") != pid) == ("DONE", [], True)
