"""The same day in two processes whose sets and hashes are in different orders: the same bytes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from velox_core.redis_server import EmbeddedRedis

ROOT = Path(__file__).resolve().parents[2]
CONFIG = """
system:
  environment: simulated
  account: primary
  broker: {type: simulated, capital: 1000000}
  risk:
    max_daily_loss: 500000
    max_daily_loss_pct: 50.0
    initial_capital: 1000000
    fixed_lot_size: 1
    enable_deduplication: true
    dedup_window_seconds: 5
    max_position_size: 100000
    max_positions_per_strategy: 5
    max_total_positions: 5
  feed: {symbols: [], speed: max}
  strategies:
    - name: everything
      class_path: tests.integration.hash_seed_day:BuyEverything
  market: {entry_until: "14:45", flat_by: "15:05", hard_stop: "15:10"}
  simulation: {seed: 1, slippage_bps: 2, latency_ms: 50}
"""

pytestmark = pytest.mark.slow


def day_with_hash_seed(folder: Path, hash_seed: int) -> bytes:
    """Run the day in a process with this hash seed and return its export."""
    var = folder / f"var-{hash_seed}"
    config = folder / "system.yaml"
    config.write_text(CONFIG, encoding="utf-8")
    try:
        done = subprocess.run(
            [sys.executable, "-m", "tests.integration.hash_seed_day", str(config), str(var)],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": str(hash_seed)},
            capture_output=True,
            timeout=240,
            check=False,
        )
    finally:
        EmbeddedRedis(var / "redis").stop()
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-2_000:]
    return done.stdout


def test_day_with_many_stops_in_one_minute_is_the_same_bytes_whatever_the_hash_seed(tmp_path: Path) -> None:
    first = day_with_hash_seed(tmp_path, 1)
    assert first.count(b"stop") > 20
    assert first == day_with_hash_seed(tmp_path, 2)
