"""The benchmark of backups runs and prints every figure that is promised. No time is judged."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WAIT_SECONDS = 600.0

pytestmark = pytest.mark.slow


def test_backup_benchmark_makes_and_delivers_a_good_backup_and_gives_every_promised_figure(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.backup", "--megabytes", "1", "--rounds", "1", "--json"]
    environ = {"PYTHONPATH": str(ROOT), "PATH": ""}
    ended = subprocess.run(
        command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=WAIT_SECONDS, check=False
    )
    assert ended.returncode == 0, ended.stderr
    figures = json.loads(ended.stdout)
    assert figures["events"] > 0
    assert figures["commits"] > 0
    for name in ("over_bare_ratio", "stall_ms_max", "archive_rate_ratio"):
        assert figures[name] > 0
    assert figures["steps"]["ours"]["delivered"] > 0
