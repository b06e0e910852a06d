"""Each share of the limit is told once: over any path of losses, over jumps, and over restarts."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fakes.rig import NOW_MS
from velox_core.domain.events import EventKind, JournalEvent
from velox_core.engine.resume import worst_marked_loss_paise
from velox_core.loss_warnings import WARNING_SHARES_PERCENT, LossWarnings


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    limit=st.integers(1, 10**9),
    shares=st.lists(st.integers(-200, 250), max_size=40),
    restarts=st.sets(st.integers(0, 39)),
)
def test_passed_tells_the_highest_new_share_once_over_jumps_and_restarts(
    limit: int, shares: list[int], restarts: set[int]
) -> None:
    warnings, worst, told = LossWarnings(limit), 0, []
    for number, share in enumerate(shares):
        if number in restarts:
            warnings = LossWarnings(limit)
            warnings.take_up(worst)
        loss = limit * share // 100
        reached_before = {s for s in WARNING_SHARES_PERCENT if worst * 100 >= limit * s}
        reached_now = {s for s in WARNING_SHARES_PERCENT if loss * 100 >= limit * s} - reached_before
        found = warnings.passed(loss)
        assert found == max(reached_now, default=0)
        told += [found] if found else []
        worst = max(worst, loss)
    assert told == sorted(set(told))


def test_next_paise_is_the_least_loss_that_tells_something_and_then_the_limit() -> None:
    for limit in (1, 3, 199, 10_000):
        warnings = LossWarnings(limit)
        for share in WARNING_SHARES_PERCENT:
            threshold = warnings.next_paise
            if warnings.passed(threshold - 1):
                raise AssertionError(f"{threshold - 1} of {limit} told before {share} %")
            if threshold * 100 < limit * 90:
                assert warnings.passed(threshold) >= share
        warnings.passed(limit)
        assert warnings.next_paise == limit


def test_worst_marked_loss_is_the_deepest_mark_and_never_a_profit() -> None:
    marks = [(0, 0, 0), (0, -900, 50), (-500, 0, 80), (700, 0, 90)]
    events = [
        JournalEvent(number, NOW_MS, EventKind.MARK, {"realised": realised, "open": held, "charges": charges}, "")
        for number, (realised, held, charges) in enumerate(marks)
    ]
    assert worst_marked_loss_paise(events) == 950
    assert worst_marked_loss_paise(events[:1]) == 0
    assert worst_marked_loss_paise([]) == 0
