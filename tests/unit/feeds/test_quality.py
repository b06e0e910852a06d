"""The rules that refuse rows, each by itself, and rupees to paise."""

from __future__ import annotations

from datetime import date, time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from velox_core.domain.money import paise_from_rupees
from velox_core.domain.time import ist_ms
from velox_core.feeds.columns import NO_SYMBOL, UNREADABLE_MS, RawColumns
from velox_core.feeds.quality import (
    DropRule,
    DropTally,
    Hours,
    clean_rows,
    count_undated,
    paise_column,
    plausible_days,
    settle_minutes,
)

DAY = date(2024, 1, 15)
OPEN_MS, CLOSE_MS = ist_ms(DAY, time(9, 15)), ist_ms(DAY, time(15, 30))
HOURS = [Hours(windows_ms=((OPEN_MS, CLOSE_MS),))]
NAN, INFINITY = float("nan"), float("inf")
GOOD = (100.0, 101.0, 99.0, 100.5, 10.0)


def raw_of(*rows: tuple[float, ...], ts_ms: list[int] | None = None, codes: list[int] | None = None) -> RawColumns:
    return RawColumns(
        file_name="TCS.csv",
        symbols=("TCS",),
        symbol_codes=np.array(codes or [0] * len(rows), dtype=np.int64),
        ts_ms=np.array(ts_ms or [OPEN_MS + 60_000 * index for index in range(len(rows))], dtype=np.int64),
        values=np.array(rows, dtype=np.float64).T,
    )


def judged(raw: RawColumns) -> tuple[list[list[int]], dict[str, int]]:
    tally = DropTally()
    rows = np.arange(raw.ts_ms.size, dtype=np.int64)
    clean = clean_rows(raw, rows, HOURS, tally)
    assert clean.ts_ms.size == clean.codes.size == clean.values.shape[1]
    return clean.values.T.tolist(), {drop.rule: drop.count for drop in tally.drops()}


CASES = [
    (DropRule.NOT_A_NUMBER, (NAN, 101.0, 99.0, 100.5, 10.0)),
    (DropRule.NOT_A_NUMBER, (100.0, INFINITY, 99.0, 100.5, 10.0)),
    (DropRule.NOT_A_NUMBER, (100.0, 101.0, -INFINITY, 100.5, 10.0)),
    (DropRule.NOT_POSITIVE, (100.0, 101.0, 0.0, 100.5, 10.0)),
    (DropRule.NOT_POSITIVE, (100.0, 101.0, -99.0, 100.5, 10.0)),
    (DropRule.NOT_POSITIVE, (0.01, 0.01, 0.004, 0.01, 10.0)),
    (DropRule.TOO_LARGE, (100.0, 10_000_000.01, 99.0, 100.5, 10.0)),
    (DropRule.HIGH_BELOW_LOW, (100.0, 98.99, 99.0, 100.5, 10.0)),
    (DropRule.OUTSIDE_RANGE, (101.01, 101.0, 99.0, 100.5, 10.0)),
    (DropRule.OUTSIDE_RANGE, (100.0, 101.0, 99.0, 98.99, 10.0)),
    (DropRule.BAD_VOLUME, (100.0, 101.0, 99.0, 100.5, -1.0)),
    (DropRule.BAD_VOLUME, (100.0, 101.0, 99.0, 100.5, NAN)),
    (DropRule.BAD_VOLUME, (100.0, 101.0, 99.0, 100.5, 0.5)),
    (DropRule.BAD_VOLUME, (100.0, 101.0, 99.0, 100.5, 1e13)),
]


@pytest.mark.parametrize(("rule", "row"), CASES)
def test_clean_rows_bad_values_are_dropped_by_their_rule_and_neighbours_stay(rule: DropRule, row: tuple[float, ...]) -> None:
    kept, drops = judged(raw_of(GOOD, row, GOOD))
    assert kept == [[10_000, 10_100, 9_900, 10_050, 10]] * 2
    assert drops == {rule.value: 1}


@pytest.mark.parametrize(
    "row",
    [
        (100.0, 100.0, 100.0, 100.0, 0.0),
        (10_000_000.0, 10_000_000.0, 0.01, 0.01, 1e12),
    ],
)
def test_clean_rows_values_at_the_bounds_stay(row: tuple[float, ...]) -> None:
    kept, drops = judged(raw_of(row))
    assert (len(kept), drops) == (1, {})


@pytest.mark.parametrize(
    ("rule", "ts_ms"),
    [
        (DropRule.OFF_SESSION, OPEN_MS - 60_000),
        (DropRule.OFF_SESSION, CLOSE_MS),
        (DropRule.OFF_MINUTE, OPEN_MS + 30_000),
        (DropRule.OFF_MINUTE, OPEN_MS + 1),
    ],
)
def test_clean_rows_bad_times_are_dropped_by_their_rule(rule: DropRule, ts_ms: int) -> None:
    kept, drops = judged(raw_of(GOOD, GOOD, ts_ms=[ts_ms, CLOSE_MS - 60_000]))
    assert (len(kept), drops) == (1, {rule.value: 1})


def test_clean_rows_without_a_symbol_is_dropped() -> None:
    kept, drops = judged(raw_of(GOOD, GOOD, codes=[0, NO_SYMBOL]))
    assert (len(kept), drops) == (1, {DropRule.BAD_SYMBOL.value: 1})


def test_count_undated_counts_rows_of_no_date() -> None:
    raw = raw_of(GOOD, GOOD, GOOD, GOOD, ts_ms=[UNREADABLE_MS, 0, OPEN_MS, 10**13])
    tally = DropTally()
    count_undated(raw, tally)
    assert {drop.rule: (drop.count, drop.example[:19]) for drop in tally.drops()} == {
        DropRule.UNREADABLE_TIME.value: (1, "TCS.csv: data row 1"),
        DropRule.IMPOSSIBLE_DATE.value: (2, "TCS.csv: data row 2"),
    }
    assert plausible_days(raw.ts_ms).tolist() == [-1, -1, (DAY - date(1970, 1, 1)).days, -1]


def test_drop_example_says_file_symbol_time_and_values() -> None:
    tally = DropTally()
    clean_rows(raw_of((100.0, 98.99, 99.0, 100.5, 10.0)), np.array([0]), HOURS, tally)
    assert tally.drops()[0].example == "TCS.csv: row 1, TCS 2024-01-15 09:15:00 o=100 h=98.99 l=99 c=100.5 v=10"


def test_settle_minutes_in_order_is_untouched() -> None:
    tally = DropTally()
    stamps = np.array([60_000, 120_000], dtype=np.int64)
    values = np.ones((5, 2), dtype=np.int64)
    assert settle_minutes("TCS", stamps, values, tally) == (stamps, values)
    assert tally.drops() == ()


def test_settle_minutes_keeps_the_first_of_equal_rows_no_contradicted_minute_and_sorts() -> None:
    tally = DropTally()
    stamps = np.array([180_000, 60_000, 120_000, 60_000, 180_000, 240_000], dtype=np.int64)
    values = np.tile(np.array([7, 1, 2, 1, 8, 9], dtype=np.int64), (5, 1))
    ts_ms, settled = settle_minutes("TCS", stamps, values, tally)
    assert ts_ms.tolist() == [60_000, 120_000, 240_000]
    assert settled[0].tolist() == [1, 2, 9]
    assert {drop.rule: drop.count for drop in tally.drops()} == {
        DropRule.DUPLICATE.value: 1,
        DropRule.CONFLICTING_DUPLICATE.value: 2,
    }


def test_settle_minutes_same_prices_but_other_volume_keeps_the_first() -> None:
    tally = DropTally()
    values = np.array([[1, 1], [1, 1], [1, 1], [1, 1], [5, 6]], dtype=np.int64)
    _, settled = settle_minutes("TCS", np.array([60_000, 60_000], dtype=np.int64), values, tally)
    assert settled[4].tolist() == [5]
    assert [drop.rule for drop in tally.drops()] == [DropRule.VOLUME_DUPLICATE.value]


def test_settle_minutes_two_files_that_disagree_lose_the_minute_and_are_named() -> None:
    tally = DropTally()
    values = np.array([[1, 5, 1, 6]] * 4 + [[5, 5, 5, 5]], dtype=np.int64)
    stamps = np.array([60_000, 120_000, 60_000, 120_000], dtype=np.int64)
    ts_ms, settled = settle_minutes("TCS", stamps, values, tally, sources=np.array([0, 0, 1, 1]))
    assert (ts_ms.tolist(), settled[0].tolist()) == ([60_000], [1])
    assert [(drop.rule, drop.count, drop.by_symbol) for drop in tally.drops()] == [
        (DropRule.DUPLICATE.value, 1, (("TCS", 1),)),
        (DropRule.SOURCES_DISAGREE.value, 2, (("TCS", 2),)),
    ]


@pytest.mark.parametrize(
    ("rupees", "paise"),
    [
        (3902.05, 390_205),
        (0.285, 29),
        (1.005, 101),
        (2.675, 268),
        (3237.85009765625, 323_785),
        (1297.4499511718750, 129_745),
        (0.125, 13),
        (10_000_000.0, 1_000_000_000),
        (0.004, 0),
        (4_503_599.615, 450_359_962),
    ],
)
def test_paise_column_rounds_half_up_by_decimal_text(rupees: float, paise: int) -> None:
    assert paise_column(np.array([rupees])).tolist() == [paise]


@given(st.integers(min_value=0, max_value=1_000_000_000))
def test_paise_column_every_price_of_whole_paise_is_exact(paise: int) -> None:
    assert paise_column(np.array([float(f"{paise // 100}.{paise % 100:02d}")])).tolist() == [paise]


@given(st.floats(min_value=0.0, max_value=1e7) | st.integers(0, 10**10).map(lambda mills: float(f"{mills}e-3")))
def test_paise_column_is_the_domain_rule(rupees: float) -> None:
    assert paise_column(np.array([[rupees]])).tolist() == [[paise_from_rupees(rupees)]]
