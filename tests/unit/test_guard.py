"""The guard's judgement, sight by sight: values in, verdict out."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import pytest

from velox_core.domain.halts import HaltKind, HaltRecord
from velox_core.guard import (
    EXCUSED_SECONDS_MAX,
    Cause,
    GuardRules,
    MarketTime,
    Memory,
    RouteSeen,
    Sight,
    Verdict,
    beat_key,
    engine_closes,
    hear,
    judge,
    loss_trigger_paise,
)

RULES = GuardRules(
    heartbeat_timeout_seconds=20.0,
    act_seconds=10.0,
    pause_seconds_max=5.0,
    loss_limit_paise=200_000,
    loss_trigger_paise=210_000,
    late_ms=1_000_000,
    price_age_ms_max=90_000,
)
CALM = Sight(now=100.0, market_ms=1, beat_ages=(0.0, 0.0), exposed=True, loss_paise=0)


def verdicts(sights: list[Sight], rules: GuardRules = RULES) -> list[Verdict | None]:
    """Judge one sight after another."""
    memory, found = Memory(), []
    for sight in sights:
        memory, verdict = judge(memory, sight, rules)
        found.append(verdict)
    return found


def every_second(sight: Sight, seconds: int, **changes: object) -> list[Sight]:
    """Return the same sight once a second."""
    return [replace(sight, now=sight.now + second, **changes) for second in range(seconds)]  # type: ignore[arg-type]


def cause_of(verdict: Verdict | None) -> Cause | None:
    return None if verdict is None else verdict.cause


# -- heartbeats ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ages", "cause"),
    [
        ((0.0, 0.0), None),
        ((19.9, 19.9), None),
        ((20.0, 20.0), None),
        ((20.1, 20.1), Cause.SILENT_ENGINE),
        ((20.1, 20.0), None),
        ((20.0, 9_999.0), None),
        ((9_999.0, 0.5), None),
        ((9_999.0, 21.0), Cause.SILENT_ENGINE),
    ],
)
def test_judge_needs_both_routes_older_than_the_bound(ages: tuple[float, float], cause: Cause | None) -> None:
    assert cause_of(judge(Memory(), replace(CALM, beat_ages=ages), RULES)[1]) is cause


def test_judge_of_a_silent_engine_with_nothing_open_asks_for_nothing() -> None:
    silent = replace(CALM, beat_ages=(99.0, 99.0))
    assert judge(Memory(), replace(silent, exposed=False), RULES)[1] is None
    found = judge(Memory(), silent, RULES)[1]
    assert found is not None
    assert found.halt_kind is HaltKind.FAULT
    assert "99 s" in found.text


def test_judge_of_an_engine_that_holds_on_purpose_waits_for_the_loss_or_the_time() -> None:
    held = replace(CALM, beat_ages=(99.0, 99.0), holds=True)
    assert judge(Memory(), held, RULES)[1] is None
    past = [cause_of(v) for v in verdicts(every_second(held, 12, loss_paise=210_000))]
    assert past == [None] * 10 + [Cause.LOSS] * 2
    last_word = [cause_of(v) for v in verdicts(every_second(held, 12, loss_paise=210_000, closes=True))]
    assert last_word == past  # what a silent engine said last excuses nothing
    late = [cause_of(v) for v in verdicts(every_second(held, 12, market_ms=1_000_000))]
    assert late == [None] * 10 + [Cause.LATE] * 2


def test_hear_of_the_same_heartbeat_again_or_of_none_goes_on_ageing() -> None:
    first = hear(RouteSeen(since=0.0), (7, 1, 1_000), 5.0)
    assert first == RouteSeen(since=5.0, key=(7, 1, 1_000))
    assert hear(first, (7, 1, 1_000), 9.0) == first
    assert hear(first, None, 9.0) == first


@pytest.mark.parametrize("key", [(7, 2, 1_000), (8, 1, 1_000), (7, 1, 900), (7, 1, 9_999_999_999_999)])
def test_hear_of_another_heartbeat_is_young_whatever_its_clock_says(key: tuple[int, int, int]) -> None:
    assert hear(RouteSeen(since=5.0, key=(7, 1, 1_000)), key, 9.0).since == 9.0


def test_beat_key_of_a_status_of_another_shape_counts_as_zeros() -> None:
    assert beat_key({"pid": 7, "beat": 3, "wall_ms": 12}) == (7, 3, 12)
    assert beat_key({"pid": "7", "beat": True, "wall_ms": None}) == (0, 0, 0)


def halt(kind: HaltKind, *, keeps: bool = False) -> dict[str, str | int]:
    record = HaltRecord(
        halt_id="1", kind=kind, trading_date=date(2024, 1, 15), reason="r", by="b", at_ms=1, keeps_positions=keeps
    )
    return record.to_body()


@pytest.mark.parametrize(
    ("status", "closes"),
    [
        ({}, False),
        ({"state": "RUNNING", "halts": []}, False),
        ({"state": "FLATTENING", "halts": []}, True),
        ({"state": "RUNNING", "halts": [halt(HaltKind.LOSS)]}, True),
        ({"state": "RUNNING", "halts": [halt(HaltKind.RECONCILE)]}, False),
        ({"state": "RUNNING", "halts": [halt(HaltKind.MANUAL, keeps=True)]}, False),
        ({"state": "RUNNING", "halts": [{"kind": "LOSS"}, "?", 5]}, False),
        ({"state": "RUNNING", "halts": "LOSS"}, False),
    ],
)
def test_engine_closes_by_what_its_status_says(status: dict[str, object], closes: bool) -> None:
    assert engine_closes(status) is closes


# -- engine time ---------------------------------------------------------------------------------------------------


def test_market_time_goes_on_at_the_runs_speed_from_the_newest_heartbeat() -> None:
    time = MarketTime(60.0)
    assert time.at(50.0) == 0
    time.note(1_000_000, 50.0)
    assert (time.at(50.0), time.at(52.0), time.at(49.0)) == (1_000_000, 1_120_000, 1_000_000)


def test_market_time_of_an_engine_that_replays_its_morning_stays_where_the_day_was() -> None:
    time = MarketTime(1.0)
    time.note(1_000_000, 50.0)
    time.note(400_000, 80.0)
    assert (time.at(80.0), time.reached_ms) == (1_000_000, 1_000_000)
    time.note(1_000_500, 90.0)
    assert time.at(90.0) == 1_000_500


# -- loss and time of day ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("limit", "margin_bps", "trigger"), [(200_000, 500, 210_000), (3, 1, 4), (200_000, 0, 200_000)])
def test_loss_trigger_is_the_limit_and_the_margin_rounded_up(limit: int, margin_bps: int, trigger: int) -> None:
    assert loss_trigger_paise(limit, margin_bps) == trigger


@pytest.mark.parametrize(("loss", "cause"), [(209_999, None), (210_000, Cause.LOSS), (210_001, Cause.LOSS), (None, None)])
def test_judge_of_a_loss_needs_the_limit_and_the_margin(loss: int | None, cause: Cause | None) -> None:
    found = verdicts(every_second(CALM, 11, loss_paise=loss))
    assert [cause_of(v) for v in found] == [None] * 10 + [cause]
    if found[-1] is not None:
        assert found[-1].halt_kind is HaltKind.LOSS
        assert "2000.00" in found[-1].text


def test_judge_of_a_loss_leaves_it_to_an_engine_that_answers_and_closes() -> None:
    past = replace(CALM, loss_paise=900_000, closes=True)
    assert verdicts(every_second(past, 60)) == [None] * 60
    silent = [cause_of(v) for v in verdicts(every_second(past, 2, beat_ages=(21.0, 21.0)))]
    assert silent == [Cause.SILENT_ENGINE] * 2


def test_judge_of_an_engine_that_closes_without_end_acts_after_a_bound() -> None:
    past = replace(CALM, loss_paise=900_000, closes=True)
    excused = int(EXCUSED_SECONDS_MAX)
    found = [cause_of(v) for v in verdicts(every_second(past, excused + 11))]
    assert found == [None] * (excused + 10) + [Cause.LOSS]
    flat = [*every_second(past, excused - 1), replace(past, now=past.now + excused - 1, exposed=False)]
    again = every_second(replace(past, now=past.now + excused), 60)
    assert verdicts([*flat, *again]) == [None] * (excused + 60)


def test_judge_of_a_loss_that_recovers_begins_to_count_again() -> None:
    past, better = replace(CALM, loss_paise=900_000), replace(CALM, loss_paise=0)
    sights = [*every_second(past, 9), replace(better, now=109.0), *every_second(replace(past, now=110.0), 10)]
    assert verdicts(sights) == [None] * 20


@pytest.mark.parametrize(("market_ms", "cause"), [(999_999, None), (1_000_000, Cause.LATE), (2_000_000, Cause.LATE)])
def test_judge_of_what_is_open_after_the_time_of_day(market_ms: int, cause: Cause | None) -> None:
    found = verdicts(every_second(CALM, 11, market_ms=market_ms))
    assert [cause_of(v) for v in found] == [None] * 10 + [cause]


# -- its own pause -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gap", [5.1, 60.0, 100_000.0])
def test_judge_after_a_pause_of_its_own_waits_one_full_bound(gap: float) -> None:
    silent = replace(CALM, beat_ages=(100_000.0, 100_000.0))
    memory, _ = judge(Memory(), CALM, RULES)
    back = CALM.now + gap
    found = []
    for second in range(22):
        memory, verdict = judge(memory, replace(silent, now=back + second), RULES)
        found.append(cause_of(verdict))
    assert found == [None] * 20 + [Cause.SILENT_ENGINE] * 2
    assert memory.paused_seconds == pytest.approx(gap)


def test_judge_after_a_gap_within_the_bound_does_not_wait() -> None:
    memory, _ = judge(Memory(), CALM, RULES)
    verdict = judge(memory, replace(CALM, now=CALM.now + 5.0, beat_ages=(21.0, 21.0)), RULES)[1]
    assert cause_of(verdict) is Cause.SILENT_ENGINE


def test_judge_after_a_pause_counts_loss_and_lateness_from_the_start_again() -> None:
    past = replace(CALM, loss_paise=900_000, market_ms=2_000_000)
    memory = Memory()
    for sight in every_second(past, 9):
        memory, _ = judge(memory, sight, RULES)
    memory, verdict = judge(memory, replace(past, now=200.0), RULES)
    assert verdict is None
    assert (memory.loss_since, memory.late_since, memory.waits_until) == (200.0, 200.0, 220.0)


# -- what an earlier guard left ------------------------------------------------------------------------------------


def test_judge_of_an_unfinished_closing_goes_on_at_once_while_something_is_open() -> None:
    left = replace(CALM, unfinished=True)
    assert cause_of(judge(Memory(), left, RULES)[1]) is Cause.UNFINISHED
    assert judge(Memory(), replace(left, exposed=False), RULES)[1] is None
