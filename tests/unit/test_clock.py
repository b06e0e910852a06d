"""The clocks."""

from __future__ import annotations

import pytest

from velox_core.clock import ReplayClock, WallClock
from velox_core.domain.errors import InvariantError


def test_wall_clock_now_is_after_2024_and_in_milliseconds() -> None:
    assert 1_704_000_000_000 < WallClock().now_ms() < 10_000_000_000_000


def test_wall_clock_monotonic_never_goes_back() -> None:
    clock = WallClock()
    first = clock.monotonic()
    assert clock.monotonic() >= first


def test_replay_clock_without_rows_stands_at_its_start() -> None:
    clock = ReplayClock(1_000)
    assert (clock.now_ms(), clock.now_ms()) == (1_000, 1_000)


def test_replay_clock_advance_moves_to_the_row() -> None:
    clock = ReplayClock(1_000)
    clock.advance_to(61_000)
    clock.advance_to(61_000)
    assert clock.now_ms() == 61_000


def test_replay_clock_advance_into_the_past_is_a_bug_and_changes_nothing() -> None:
    clock = ReplayClock(1_000)
    with pytest.raises(InvariantError, match="cannot go back from 1000 to 999"):
        clock.advance_to(999)
    assert clock.now_ms() == 1_000


def test_replay_clock_monotonic_comes_from_the_given_source_not_from_engine_time() -> None:
    clock = ReplayClock(0, monotonic=lambda: 12.5)
    clock.advance_to(60_000)
    assert clock.monotonic() == 12.5
    assert ReplayClock(0).monotonic() > 0
