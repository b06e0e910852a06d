"""The engine as a unit of systemd starts it: what a flow left for it to run, here for exits only."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest

from velox_core.engine_lock import LockView
from velox_core.operations.day_engine import own_end
from velox_core.operations.engine_process import EngineRequest
from velox_core.operations.engine_unit import leave_request
from velox_core.redis_server import EmbeddedRedis

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]


def run_as_requested(var: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "velox_core.cli", "run", "--json", "--as-requested"]
    environ = {**os.environ, "VELOX__VAR": str(var)}
    return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=240, check=False)


def test_engine_runs_what_was_asked_makes_no_entry_and_leaves_its_last_word(tmp_path: Path) -> None:
    var = tmp_path / "var"
    refused = run_as_requested(var)
    assert (refused.returncode, "does not say what to run" in refused.stderr) == (1, True)
    config = ROOT / "config" / "system_simulated.yaml"
    asked = EngineRequest(config=config, trading_date=date(2024, 1, 15), speed=0.0, exits_only="no day pass")
    leave_request(var / "simulated" / "primary", asked)
    try:
        done = run_as_requested(var)
    finally:
        EmbeddedRedis(var / "redis").stop()
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["flat"], report["fill_count"], report["decisions"]["approved"]) == (True, 0, 0)
    assert report["decisions"]["refused"] > 0
    folder = var / "replay" / "primary" / "2024-01-15-1"
    end = own_end(folder)
    assert end is not None
    assert (end.exit_code, end.flat, end.run_id) == (0, True, "2024-01-15-1")
    assert LockView(folder / "engine.lock").holder() is None
