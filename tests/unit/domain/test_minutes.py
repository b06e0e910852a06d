"""Minutes built from ticks, against a naive reference."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from velox_core.domain.market.bars import MinuteRow, TickBatch
from velox_core.domain.market.minutes import MinuteBuilder, minute_end_ms, minutes_of
from velox_core.domain.time import MS_PER_MINUTE

START_MS = 1_623_210_300_000  # 2021-06-09 09:15 IST
WIDTH = 3

Told = tuple[int, list[int], list[int], list[int], list[int], list[int]]


def told(row: MinuteRow) -> Told:
    return row.ts_ms, row.opens, row.highs, row.lows, row.closes, row.volumes


def naive(ticks: list[TickBatch]) -> list[Told]:
    """Return the minutes by looking at each symbol and minute on its own."""
    flat = [
        (batch.ts_ms, column, price, volume)
        for batch in ticks
        for column, price, volume in zip(batch.columns, batch.prices, batch.volumes, strict=True)
    ]
    rows: list[Told] = []
    for end_ms in sorted({ts_ms // MS_PER_MINUTE * MS_PER_MINUTE + MS_PER_MINUTE for ts_ms, *_ in flat}):
        row: Told = (end_ms, [0] * WIDTH, [0] * WIDTH, [0] * WIDTH, [0] * WIDTH, [0] * WIDTH)
        for column in range(WIDTH):
            mine = [(ts_ms, price, volume) for ts_ms, other, price, volume in flat if other == column]
            prices = [price for ts_ms, price, _ in mine if end_ms - MS_PER_MINUTE <= ts_ms < end_ms]
            if not prices:
                continue
            until = [volume for ts_ms, _, volume in mine if ts_ms < end_ms]
            before = [volume for ts_ms, _, volume in mine if ts_ms < end_ms - MS_PER_MINUTE] or mine[0][2:]
            numbers = (prices[0], max(prices), min(prices), prices[-1], max(until) - max(before))
            for values, number in zip(row[1:], numbers, strict=True):
                values[column] = number
        rows.append(row)
    return rows


@st.composite
def tick_days(draw: st.DrawFn) -> list[TickBatch]:
    """Return batches in time order: gaps of minutes, several at one moment, volumes that run backwards."""
    ts_ms = START_MS
    ticks = []
    for _ in range(draw(st.integers(1, 40))):
        ts_ms += draw(st.sampled_from((0, 1, 999, 1_000, 20_000, 59_999, 60_000, 60_001, 300_000)))
        columns = draw(st.lists(st.integers(0, WIDTH - 1), min_size=1, max_size=WIDTH, unique=True))
        size = len(columns)
        prices = draw(st.lists(st.integers(1, 50), min_size=size, max_size=size))
        volumes = draw(st.lists(st.integers(0, 500), min_size=size, max_size=size))
        ticks.append(TickBatch(ts_ms, columns, prices, volumes))
    return ticks


@given(tick_days())
def test_minutes_of_any_ticks_are_those_of_a_naive_count(ticks: list[TickBatch]) -> None:
    rows, _ = minutes_of(ticks, WIDTH)
    assert [told(row) for row in rows] == naive(ticks)


def test_minute_end_of_a_full_minute_is_one_minute_later() -> None:
    assert minute_end_ms(START_MS) == START_MS + MS_PER_MINUTE
    assert minute_end_ms(START_MS + MS_PER_MINUTE - 1) == START_MS + MS_PER_MINUTE


def test_builder_first_cumulative_volume_belongs_to_no_minute() -> None:
    builder = MinuteBuilder(1)
    builder.take(TickBatch(START_MS, [0], [100], [145_038]))
    builder.take(TickBatch(START_MS + 1, [0], [100], [145_040]))
    assert builder.finish().volumes == [2]


def test_builder_volume_that_runs_backwards_counts_nothing_until_it_is_past_the_highest() -> None:
    builder = MinuteBuilder(1)
    for second, volume in enumerate((100, 150, 120, 149, 150, 160)):
        builder.take(TickBatch(START_MS + second * 1_000, [0], [100], [volume]))
    assert builder.backwards == 2
    assert builder.finish().volumes == [60]


def test_builder_rows_share_no_list_with_the_next_minute() -> None:
    builder = MinuteBuilder(2)
    builder.take(TickBatch(START_MS, [0, 1], [100, 200], [1, 1]))
    first = builder.finish()
    before = told(first)
    builder.take(TickBatch(START_MS + MS_PER_MINUTE, [0], [300], [9]))
    assert told(first) == before == (START_MS + MS_PER_MINUTE, [100, 200], [100, 200], [100, 200], [100, 200], [0, 0])
    assert builder.finish().closes == [300, 0]
