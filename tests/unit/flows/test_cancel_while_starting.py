"""A cancel that comes while the engine's process is being started: it reaches that engine, or says that it did not."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest

from tasks.session import ask_to_stop
from tasks.summary import summary_logger
from velox_core.engine_lock import ENGINE_LOCK, ProcessLock
from velox_core.operations.day import Day, DayRequest, open_day
from velox_core.operations.watch import DayWatch, start_lock, take_watch

CONFIG = Path(__file__).resolve().parents[3] / "config" / "system_simulated.yaml"
ENGINE = """
import sys, time
from pathlib import Path
from velox_core.control import process_folder
from velox_core.engine_lock import EngineLock, own_holder
lock = EngineLock(Path(sys.argv[2]))
while not any(process_folder(Path(sys.argv[1]), own_holder()).glob("*")):
    time.sleep(0.05)
"""


@pytest.fixture
def day(tmp_path: Path) -> Day:
    return open_day(DayRequest(config=CONFIG, date=date(2024, 1, 15)), {"VELOX__VAR": str(tmp_path / "var")})


@pytest.fixture
def watch(day: Day) -> DayWatch:
    watch = take_watch(day.account_folder, day.run_stem, flow_run="intraday")
    assert watch is not None
    return watch


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(summary_logger(), "handlers", [caplog.handler])
    summary_logger().setLevel(logging.INFO)
    return caplog


def test_engine_whose_start_was_cut_off_is_asked_to_stop_when_it_has_its_run(
    day: Day, watch: DayWatch, told: pytest.LogCaptureFixture
) -> None:
    starting = ProcessLock(start_lock(day.account_folder, day.run_stem))
    assert starting.take()  # and the flow was cancelled before it could name the process that it started
    lock = day.paths.var / "replay" / "primary" / "2024-01-15-1" / ENGINE_LOCK
    engine = subprocess.Popen([sys.executable, "-c", ENGINE, str(day.paths.var), str(lock)])
    try:
        asyncio.run(ask_to_stop(day, watch, "cancelled", wait_seconds=60.0))
        assert engine.wait(60.0) == 0
    finally:
        engine.kill()
        engine.wait()
    assert watch.engine is not None
    assert watch.engine.pid == engine.pid
    assert "nothing was started" not in told.text
    starting.close()
    watch.close()


def test_engine_that_is_not_found_in_time_is_no_quiet_nothing_was_started(
    day: Day, watch: DayWatch, told: pytest.LogCaptureFixture
) -> None:
    watch.is_starting = True  # a unit that systemd is still starting
    asyncio.run(ask_to_stop(day, watch, "cancelled", wait_seconds=0.5))
    assert "was not asked to stop" in told.text
    assert "velox stop" in told.text
    assert "nothing was started" not in told.text
    watch.close()


def test_cancel_before_anything_was_started_says_so(day: Day, watch: DayWatch, told: pytest.LogCaptureFixture) -> None:
    asyncio.run(ask_to_stop(day, watch, "cancelled", wait_seconds=5.0))
    assert "nothing was started" in told.text
    watch.close()
