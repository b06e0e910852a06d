"""The benchmark of the breach evaluation's age runs with a broker that hangs: nothing twice, all closed. No time is judged."""

from __future__ import annotations

import pytest

from benchmarks.breach_age import measure

pytestmark = pytest.mark.slow


def test_breach_age_benchmark_with_a_hung_broker_sends_nothing_twice_and_ends_flat() -> None:
    figures = measure(positions=4, rate=50.0, seconds=4.0)
    assert figures["fault"] == ""
    assert figures["sent_twice"] == 0
    assert figures["flat_when_answered"] is True
    assert figures["orders"] == 8
    ages = [figures[f"breach_age_{label}_ms"] for label in ("p50", "p99", "p999", "max")]
    assert ages == sorted(ages)  # type: ignore[type-var]
