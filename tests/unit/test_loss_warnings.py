"""Each share of the limit is told once: over any path of losses, over jumps, and over restarts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.rig import NOW_MS
from velox_core.domain.events import EventKind, JournalEvent
from velox_core.engine.resume import worst_marked_loss_paise
from velox_core.loss_warnings import WARNING_SHARES_PERCENT, LossWarnings


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


def test_first_paise_is_below_every_loss_that_is_told() -> None:
    for limit in (1, 2, 3, 199, 200_000):
        first = LossWarnings(limit).first_paise
        assert all(LossWarnings(limit).passed(loss) == 0 for loss in range(min(first, 200)))


def test_worst_marked_loss_is_the_deepest_mark_and_never_a_profit() -> None:
    marks = [(0, 0, 0), (0, -900, 50), (-500, 0, 80), (700, 0, 90)]
    events = [
        JournalEvent(number, NOW_MS, EventKind.MARK, {"realised": realised, "open": held, "charges": charges}, "")
        for number, (realised, held, charges) in enumerate(marks)
    ]
    assert worst_marked_loss_paise(events) == 950
    assert worst_marked_loss_paise(events[:1]) == 0
    assert worst_marked_loss_paise([]) == 0
