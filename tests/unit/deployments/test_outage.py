"""When the process that serves the deployments gives way to a new one: a decision on values."""

from __future__ import annotations

import pytest

from deployments.outage import OUTAGE_SECONDS, ServerWatch, Step


def steps(*looks: tuple[float, bool, int]) -> list[Step]:
    watch = ServerWatch()
    return [watch.look(now, answers=answers, runs_in_flight=runs) for now, answers, runs in looks]


def test_watch_goes_on_while_the_server_answers_runs_or_none() -> None:
    assert steps(*((float(second), True, second % 3) for second in range(100))) == [Step.GO_ON] * 100


@pytest.mark.parametrize(
    ("away_seconds", "then"), [(OUTAGE_SECONDS - 0.1, Step.GO_ON), (OUTAGE_SECONDS, Step.END), (180.0, Step.END)]
)
def test_watch_ends_an_idle_process_after_an_outage_of_the_bound_once_the_server_answers(
    away_seconds: float, then: Step
) -> None:
    assert steps((0.0, True, 0), (1.0, False, 0), (1.0 + away_seconds, True, 0)) == [Step.GO_ON, Step.GO_ON, then]


def test_watch_does_not_end_while_the_server_is_away() -> None:
    assert steps(*((float(second), False, 0) for second in range(300))) == [Step.GO_ON] * 300


def test_watch_tells_once_with_a_run_in_flight_and_ends_only_when_it_has_ended() -> None:
    looks = [(0.0, False, 1), (6.0, False, 1), (7.0, True, 1), (8.0, True, 2), (9.0, True, 1), (10.0, True, 0)]
    assert steps(*looks) == [Step.GO_ON, Step.TELL, Step.GO_ON, Step.GO_ON, Step.GO_ON, Step.END]


def test_watch_adds_up_no_short_outages() -> None:
    looks = [(float(second), bool(second % 4), 0) for second in range(200)]
    assert set(steps(*looks)) == {Step.GO_ON}


def test_watch_remembers_an_outage_however_long_the_server_has_answered_since() -> None:
    looks = [(0.0, False, 1), (20.0, True, 1), (9_000.0, True, 1), (9_001.0, True, 0)]
    assert steps(*looks) == [Step.GO_ON, Step.TELL, Step.GO_ON, Step.END]
