"""The gate's benchmark runs, prints every figure that is promised, and finds one round trip. No time is judged."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.gate import measure

pytestmark = pytest.mark.slow


def test_gate_benchmark_gives_every_promised_figure_and_one_round_trip(tmp_path: Path) -> None:
    figures = measure(20, tmp_path)
    assert figures["round_trips"] == 1
    assert {"gate_over_evalsha_p50_ratio", "ready_to_send_ratio"} <= set(figures)
    for name in ("gate", "evalsha", "ready_to_send", "evalsha_and_insert"):
        times = [figures[f"{name}_{label}_us"] for label in ("p50", "p99", "p99_9")]
        assert times == sorted(times)
        assert times[0] > 0
