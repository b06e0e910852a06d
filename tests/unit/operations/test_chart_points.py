"""What a chart leaves out cannot be seen, and its ticks are round."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from velox_core.domain.time import MS_PER_MINUTE
from velox_core.operations.chart_points import BUCKETS_MAX, clock_ticks, money_ticks, thin

OPEN_MS = 1_705_290_300_000  # 09:15 in India
CURVES = st.lists(st.tuples(st.integers(0, 50), st.integers(-9, 9)), max_size=120).map(
    lambda steps: [(sum(gap for gap, _ in steps[: index + 1]), paise) for index, (_, paise) in enumerate(steps)]
)


@given(points=CURVES, buckets=st.integers(1, 12))
def test_thin_keeps_few_of_the_points_and_every_extreme_in_its_place(points: list[tuple[int, int]], buckets: int) -> None:
    kept = thin(points, buckets)
    assert len(kept) <= 4 * buckets
    rest = iter(points)
    assert all(point in rest for point in kept)  # what came in, in its order, and nothing else
    if points:
        assert (kept[0], kept[-1]) == (points[0], points[-1])
        worst = min(points, key=lambda point: (point[1], point[0]))
        assert worst in kept
        assert min(kept, key=lambda point: (point[1], point[0])) == worst
        assert max(paise for _, paise in kept) == max(paise for _, paise in points)


def test_thin_leaves_a_day_of_minutes_as_it_is_and_keeps_a_spike_of_one_second() -> None:
    minutes = [(OPEN_MS + n * MS_PER_MINUTE, n % 7) for n in range(375)]
    assert thin(minutes) == minutes
    seconds = [(OPEN_MS + n * 1_000, 0) for n in range(22_500)]
    seconds[10_001], seconds[10_002] = (seconds[10_001][0], 900), (seconds[10_002][0], -900)
    kept = thin(seconds)
    assert len(kept) <= 4 * BUCKETS_MAX
    assert [point for point in kept if point[1]] == seconds[10_001:10_003]


@pytest.mark.parametrize(
    ("low", "high", "about", "ticks"),
    [
        (-11_500, 1_900, 6, [-10_000, -8_000, -6_000, -4_000, -2_000, 0]),
        (-250_000, 25_000, 3, [-200_000, -100_000, 0]),
        (389_300, 396_700, 6, [390_000, 392_000, 394_000, 396_000]),
        (-100, 50, 6, [-100, -50, 0, 50]),
        (-3, 2, 6, [-3, -2, -1, 0, 1, 2]),
        (-12_345_678_900, 0, 3, [-10_000_000_000, -5_000_000_000, 0]),
    ],
)
def test_money_ticks_are_round(low: int, high: int, about: int, ticks: list[int]) -> None:
    assert money_ticks(low, high, about=about) == ticks


@given(low=st.integers(-(10**13), 10**13), span=st.integers(150, 10**13), about=st.integers(3, 8))
def test_money_ticks_are_a_few_inside_the_span(low: int, span: int, about: int) -> None:
    ticks = money_ticks(low, low + span, about=about)
    assert 1 <= len(ticks) <= about + 1
    assert all(low <= tick <= low + span for tick in ticks)
    assert len({after - before for before, after in pairwise(ticks)}) <= 1


def test_clock_ticks_are_the_hours_of_india_and_the_ends_of_a_short_session() -> None:
    hours = [OPEN_MS + (45 + 60 * n) * MS_PER_MINUTE for n in range(6)]  # 10:00 to 15:00
    assert clock_ticks(OPEN_MS, OPEN_MS + 375 * MS_PER_MINUTE) == hours
    assert clock_ticks(hours[0], hours[1]) == hours[:2]
    assert clock_ticks(OPEN_MS, OPEN_MS + 60 * MS_PER_MINUTE) == [OPEN_MS, OPEN_MS + 60 * MS_PER_MINUTE]
    assert clock_ticks(OPEN_MS, OPEN_MS) == [OPEN_MS]
