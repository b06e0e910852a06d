"""The rules that look at a share's whole day: just under a bound, over it, and real moves that must stay."""

from __future__ import annotations

from datetime import time

import numpy as np
import pytest

from tests.unit.feeds.files import DAY, Row, bars
from velox_core.domain.time import MS_PER_MINUTE, ist_ms
from velox_core.feeds.columns import Ints
from velox_core.feeds.prints import FROZEN_BARS_MIN, far_off, frozen, judge_day
from velox_core.feeds.quality import NOTED, DropRule, DropTally

END_MS = ist_ms(DAY, time(15, 30))


def flat(closes: list[int], *, volume: int = 10) -> Ints:
    return np.array([closes, closes, closes, closes, [volume] * len(closes)], dtype=np.int64)


def columns(rows: list[Row]) -> tuple[Ints, Ints]:
    stamps = np.array([round(row[0].timestamp()) * 1_000 for row in rows], dtype=np.int64)
    return stamps, np.array([row[1:] for row in rows], dtype=np.int64).T


def judged(rows: list[Row], *, previous: int = 0, is_judged: bool = False) -> tuple[int, dict[str, int]]:
    tally = DropTally()
    stamps, values = columns(rows)
    kept, left = judge_day(
        "TCS", stamps, values, tally, previous_close_paise=previous, bar_ms=MS_PER_MINUTE, end_ms=END_MS, judged=is_judged
    )
    assert kept.size == left.shape[1]
    assert {tuple(column) for column in left.T.tolist()} <= {tuple(column) for column in values.T.tolist()}
    return kept.size, {drop.rule: drop.count for drop in tally.drops()}


def with_print(index: int, price: int, *, field: int = 2) -> list[Row]:
    rows = bars()
    row = list(rows[index])
    row[field] = price
    rows[index] = tuple(row)  # type: ignore[assignment]
    return rows


def test_judge_day_of_an_ordinary_day_keeps_all_and_finds_nothing() -> None:
    assert judged(bars()) == (375, {})


@pytest.mark.parametrize(("high", "dropped"), [(104_900, 0), (106_000, 1), (150_000, 1), (1_000_000_000, 1)])
def test_far_off_print_that_comes_back_is_dropped_past_five_percent(high: int, dropped: int) -> None:
    left, found = judged(with_print(100, high))
    assert left == 375 - dropped
    gap = {"print far off": 1, "minutes without a bar": 1}
    assert found == (gap if dropped else {"print off its neighbours (kept)": 1})


def test_far_off_low_print_is_dropped_too() -> None:
    left, found = judged(with_print(100, 90_000, field=3))
    assert (left, found["print far off"]) == (374, 1)


def test_far_off_two_bars_in_a_row_are_both_dropped() -> None:
    values = flat([100_000] * 20 + [120_000] * 2 + [100_000] * 20)
    assert np.flatnonzero(far_off(values)).tolist() == [20, 21]


@pytest.mark.parametrize("level", [118_000, 82_000, 60_000])
def test_far_off_price_that_stays_where_it_went_is_no_wrong_print(level: int) -> None:
    assert not far_off(flat([100_000] * 20 + [level] * 20)).any()


def test_far_off_price_in_other_units_is_dropped_at_any_length() -> None:
    values = flat([100_000] * 30 + [1_000] * 8 + [100_000] * 30)
    assert np.flatnonzero(far_off(values)).tolist() == list(range(30, 38))


@pytest.mark.parametrize(("close", "dropped"), [(119_000, False), (121_000, True), (79_000, True), (81_000, False)])
@pytest.mark.parametrize("place", [0, -1])
def test_far_off_first_and_last_bar_have_the_band_only(close: int, dropped: bool, place: int) -> None:
    closes = [100_000] * 40
    closes[place] = close
    assert bool(far_off(flat(closes))[place]) is dropped


def test_far_off_of_few_bars_says_nothing() -> None:
    assert not far_off(flat([100, 90_000, 100])).any()


@pytest.mark.parametrize(("length", "dropped"), [(FROZEN_BARS_MIN - 1, 0), (FROZEN_BARS_MIN, FROZEN_BARS_MIN)])
def test_frozen_run_without_volume_is_dropped_from_its_bound_on(length: int, dropped: int) -> None:
    values = flat([100_000 + index for index in range(20)])
    values[:4, 5 : 5 + length] = 100_000
    values[4, 5 : 5 + length] = 0
    assert int(frozen(values).sum()) == dropped


def test_frozen_run_with_volume_may_be_a_share_at_its_band_and_is_noted() -> None:
    rows = bars()
    for index in range(100, 130):
        rows[index] = (rows[index][0], 100_000, 100_000, 100_000, 100_000, 50)
    assert judged(rows) == (375, {"price that does not move (kept)": 30})


def test_judge_day_notes_what_is_unusual_and_keeps_it() -> None:
    rows = [(row[0], *row[1:5], 100 + index) for index, row in enumerate(bars())]
    left, found = judged(rows[:200], previous=80_000)
    assert left == 200
    assert found == {
        "beyond 20 % of the close before (kept)": 200,
        "volume that never falls, perhaps the day's total (kept)": 200,
        "no bar for the rest of the session (minutes)": 175,
    }


@pytest.mark.parametrize(("missing", "noted"), [(4, {}), (5, {"no bar for the rest of the session (minutes)": 5})])
def test_judge_day_share_that_stops_is_noted_from_five_minutes_on(missing: int, noted: dict[str, int]) -> None:
    assert judged(bars()[: 375 - missing]) == (375 - missing, noted)


def test_judge_day_gaps_are_counted_in_minutes() -> None:
    rows = bars()
    assert judged(rows[:50] + rows[53:]) == (372, {"minutes without a bar": 3})


def test_judge_day_of_an_import_drops_nothing_again() -> None:
    assert judged(with_print(100, 150_000), is_judged=True)[0] == 375


def test_every_rule_that_keeps_its_rows_says_so_and_no_other() -> None:
    told = {rule for rule in DropRule if "kept)" in rule.value}
    assert told | {DropRule.MISSING, DropRule.STOPS_EARLY} == NOTED
