"""A date of ticks from files: the real day beside NSE's own figures, and every way a tick can be wrong."""

from __future__ import annotations

import csv
from datetime import date, time
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from velox_core.calendar import load_market_rules
from velox_core.domain.errors import DataError
from velox_core.domain.market.bars import DayColumns
from velox_core.domain.market.minutes import minutes_of
from velox_core.domain.market.sessions import SessionCalendar
from velox_core.domain.market.ticks import TickRule as SizeRule
from velox_core.domain.market.ticks import TickTable
from velox_core.domain.time import ist_ms
from velox_core.feeds.load import available_dates, load_day

TICK_DAY = date(2021, 6, 9)
DAY = date(2024, 1, 15)
HEADER = "timestamp,ltp,volume"
TICKS = TickTable(rules=(SizeRule(first_date=date(2000, 1, 1), floors_paise=(0,), ticks_paise=(5,)),))

# Docs/data-format.md: how far a day built from ticks may be from NSE's daily file.
EXTREME_BPS_MAX, LAST_BPS_MAX, AVERAGE_BPS_MAX, VOLUME_SHARE_MAX = 10, 5, 5, 0.0005


def written(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def counts(day: DayColumns) -> dict[str, int]:
    return {drop.rule: drop.count for drop in day.drops}


def flat(day: DayColumns) -> list[tuple[int, str, int, int]]:
    return [
        (batch.ts_ms - ist_ms(day.trading_date, time(9, 15)), day.universe[column], price, volume)
        for batch in day.ticks or ()
        for column, price, volume in zip(batch.columns, batch.prices, batch.volumes, strict=True)
    ]


@pytest.fixture(scope="module")
def tick_day(project: Path, shared_data: Path) -> DayColumns:
    rules = load_market_rules(project / "config" / "nse_calendar.yaml")
    return load_day(shared_data / "ticks_2021-06-09", TICK_DAY, rules.calendar, tick_table=rules.instruments.tick_table)


def test_load_day_real_ticks_count_300_to_770_duplicates_per_symbol(tick_day: DayColumns) -> None:
    by_rule = {drop.rule: dict(drop.by_symbol) for drop in tick_day.drops}
    assert by_rule["duplicate"] == {"HDFCBANK": 556, "INFY": 425, "RELIANCE": 564, "SBIN": 332, "TCS": 769}
    assert set(by_rule) == {"duplicate", "off session", "out of order (older than the newest tick)"}
    assert tick_day.tick_count == 88_159
    assert tick_day.tick_count + sum(drop.count for drop in tick_day.drops) == 18_600 + 18_570 + 18_580 + 18_620 + 18_420


def test_load_day_real_ticks_are_nses_day_within_the_tolerances(tick_day: DayColumns, shared_data: Path) -> None:
    with (shared_data / "nse_daily" / "sec_bhavdata_full_2021-06-09.csv").open(encoding="utf-8") as stream:
        lines = {line["SYMBOL"]: line for line in csv.DictReader(stream, skipinitialspace=True) if line["SERIES"] == "EQ"}
    ticks = flat(tick_day)
    for column, symbol in enumerate(tick_day.universe):
        nse = {name: float(lines[symbol][name]) for name in ("HIGH_PRICE", "LOW_PRICE", "LAST_PRICE", "AVG_PRICE")}
        rows = [row for row in tick_day.rows if row.closes[column]]
        traded = [(price, volume) for _, name, price, volume in ticks if name == symbol]
        high, low = max(row.highs[column] for row in rows) / 100, min(row.lows[column] for row in rows) / 100
        assert 0 <= (nse["HIGH_PRICE"] / high - 1) * 10_000 <= EXTREME_BPS_MAX, symbol  # a tick a second sees not every trade
        assert 0 <= (low / nse["LOW_PRICE"] - 1) * 10_000 <= EXTREME_BPS_MAX, symbol
        assert abs(rows[-1].closes[column] / 100 / nse["LAST_PRICE"] - 1) * 10_000 <= LAST_BPS_MAX, symbol
        volume = sum(row.volumes[column] for row in rows)
        assert volume == max(volume for _, volume in traded) - traded[0][1], symbol
        total = float(lines[symbol]["TTL_TRD_QNTY"])
        assert 0 <= 1 - (volume + traded[0][1]) / total <= VOLUME_SHARE_MAX, symbol
        value = sum(price * (new - old) for (_, old), (price, new) in pairwise(traded) if new > old)
        grown = sum(new - old for (_, old), (_, new) in pairwise(traded) if new > old)
        assert abs(value / grown / 100 / nse["AVG_PRICE"] - 1) * 10_000 <= AVERAGE_BPS_MAX, symbol


def test_load_day_real_ticks_in_time_order_with_no_symbol_twice_in_a_batch(tick_day: DayColumns) -> None:
    batches = tick_day.ticks or []
    assert all(one.ts_ms <= two.ts_ms for one, two in pairwise(batches))
    assert all(len(set(batch.columns)) == len(batch.columns) for batch in batches)
    assert len(tick_day.rows) == 374  # 09:16 to 15:30: the file begins at 09:16:03
    assert tick_day.bar_count == 5 * 374


def test_load_day_bad_ticks_are_dropped_counted_and_change_no_neighbour(calendar: SessionCalendar, tmp_path: Path) -> None:
    path = written(
        tmp_path / "TCS.csv",
        HEADER,
        "2024-01-15 09:15:00,100.00,10",
        "2024-01-15 09:15:00,100.00,10",
        "1970-01-01 09:15:00,100.00,10",
        "2024-01-15 09:14:59,101.00,11",
        "2024-01-15 09:15:01,0,11",
        "2024-01-15 09:15:01,nan,11",
        "2024-01-15 09:15:01,inf,11",
        "2024-01-15 09:15:01,-3,11",
        "2024-01-15 09:15:01,100.02,11",
        "2024-01-15 09:15:01,100000000,11",
        "2024-01-15 09:15:01,100.05,-1",
        "2024-01-15 09:15:01,100.05,1.5",
        "2024-01-15 09:15:02,100.10,12",
        "2024-01-15 09:15:01,99.00,11",
        "2024-01-15 09:15:03,50.00,13",
        "2024-01-15 09:15:04,100.05,11",
        "at noon,100.00,14",
        "2024-01-15 09:15:05,100.00",
        "2024-01-15 15:30:00,100.00,14",
    )
    day = load_day(path, DAY, calendar, tick_table=TICKS)
    assert flat(day) == [(0, "TCS", 10_000, 10), (2_000, "TCS", 10_010, 12), (4_000, "TCS", 10_005, 11)]
    assert counts(day) == {
        "wrong number of fields": 1,
        "unreadable time": 1,
        "impossible date": 1,
        "not a number": 2,
        "price not positive": 2,
        "price beyond any share": 1,
        "volume negative, fractional or impossible": 2,
        "duplicate": 1,
        "off session": 2,
        "out of order (older than the newest tick)": 1,
        "price not on the tick": 1,
        "price far off, not confirmed by the next print": 1,
        "volume ran backwards (price kept)": 1,
    }
    assert (day.rows[0].closes, day.rows[0].volumes) == ([10_005], [2])


def test_load_day_a_stamp_ahead_that_comes_twice_keeps_no_later_tick_out(calendar: SessionCalendar, tmp_path: Path) -> None:
    """Taken for the newest, it would make every tick until 15:00 out of order: a fall would go unseen."""
    ticks = [
        f"2024-01-15 09:{15 + number // 60}:{number % 60:02},{100 - number // 30}.00,{10 + number}" for number in range(240)
    ]
    ticks[100:100] = ["2024-01-15 15:00:00,97.00,109"] * 2  # twice, as duplicates come
    day = load_day(written(tmp_path / "TCS.csv", HEADER, *ticks), DAY, calendar, tick_table=TICKS)
    assert (day.tick_count, counts(day)) == (240, {"stamp ahead of the clock or of the ticks around it": 2})
    assert day.rows[-1].closes == [9_300]


def test_load_day_a_first_print_far_off_is_held_against_those_that_follow(calendar: SessionCalendar, tmp_path: Path) -> None:
    ticks = ["2024-01-15 09:15:00,10.00,10", *(f"2024-01-15 09:15:0{number},100.00,{10 + number}" for number in range(1, 6))]
    day = load_day(written(tmp_path / "TCS.csv", HEADER, *ticks), DAY, calendar, tick_table=TICKS)
    assert counts(day) == {"price far off, not confirmed by the next print": 1}
    assert [price for _, _, price, _ in flat(day)] == [10_000] * 5


def test_load_day_prices_of_a_finer_tick_than_their_class_are_used(calendar: SessionCalendar, tmp_path: Path) -> None:
    """The class goes by a close of the month before; the day's own prices may stand in the next one."""
    coarse = TickTable(rules=(SizeRule(first_date=date(2000, 1, 1), floors_paise=(0, 100_000), ticks_paise=(5, 10)),))
    ticks = [f"2024-01-15 09:15:{number:02},1001.{number * 5:02},{10 + number}" for number in range(20)]
    day = load_day(written(tmp_path / "TCS.csv", HEADER, *ticks), DAY, calendar, tick_table=coarse)
    assert (day.tick_count, day.drops) == (20, ())


def test_load_day_a_lone_quote_swallows_no_tick_and_quoted_files_are_read(calendar: SessionCalendar, tmp_path: Path) -> None:
    lines = ("2024-01-15 09:15:00,100,1", "2024-01-15 09:15:01,101,2")
    lone = load_day(written(tmp_path / "TCS.csv", HEADER, '"2024,1,1', *lines), DAY, calendar)
    assert (lone.tick_count, counts(lone)) == (2, {"unreadable time": 1})
    quoted = [",".join(f'"{field}"' for field in line.split(",")) for line in (HEADER, *lines)]
    assert flat(load_day(written(tmp_path / "TCS.csv", *quoted), DAY, calendar)) == flat(lone)


def test_load_day_a_stamp_far_ahead_is_refused_and_makes_no_later_tick_old(calendar: SessionCalendar, tmp_path: Path) -> None:
    path = written(
        tmp_path / "TCS.csv",
        HEADER,
        "2024-01-15 15:20:00,100,1",
        "2024-01-15 09:15:00,100,1",
        "2024-01-15 15:29:00,101,2",
        "2024-01-15 09:15:01,101,2",
        "2024-01-15 09:16:01,101,3",
    )
    day = load_day(path, DAY, calendar)
    assert [after_ms for after_ms, *_ in flat(day)] == [0, 1_000, 61_000]
    assert counts(day) == {"stamp ahead of the clock or of the ticks around it": 2}


def test_load_day_symbols_are_merged_by_time_and_a_symbol_twice_at_one_moment_follows(
    calendar: SessionCalendar, tmp_path: Path
) -> None:
    written(tmp_path / "TCS.csv", HEADER, "2024-01-15 09:15:00,100,1", "2024-01-15 09:15:00,101,2", "2024-01-15 09:15:02,102,3")
    written(tmp_path / "INFY.csv", HEADER, "2024-01-15 09:15:00,50,1", "2024-01-15 09:15:01,51,2")
    day = load_day(tmp_path, DAY, calendar)
    assert [(batch.ts_ms % 60_000, batch.columns, batch.prices) for batch in day.ticks or ()] == [
        (0, [0, 1], [5_000, 10_000]),
        (0, [1], [10_100]),
        (1_000, [0], [5_100]),
        (2_000, [1], [10_200]),
    ]
    only = load_day(tmp_path, DAY, calendar, symbols=("TCS",))
    assert (only.universe, only.tick_count) == (("TCS",), 3)


def test_load_day_ticks_with_a_symbol_column_and_without_volumes(calendar: SessionCalendar, tmp_path: Path) -> None:
    path = written(
        tmp_path / "feed.csv",
        "symbol,LTP,Timestamp",
        "TCS,100,2024-01-15T09:15:00+05:30",
        "?,1,2024-01-15T09:15:00+05:30",
        "INFY,50,2024-01-15T03:45:01Z",
    )
    day = load_day(path, DAY, calendar)
    assert flat(day) == [(0, "TCS", 10_000, 0), (1_000, "INFY", 5_000, 0)]
    assert counts(day) == {"not a symbol": 1}
    assert day.rows[0].volumes == [0, 0]


def test_load_day_ticks_that_cannot_be_used_say_why(calendar: SessionCalendar, tmp_path: Path) -> None:
    path = written(tmp_path / "TCS.csv", HEADER, "2024-01-16 09:15:00,100,1")
    assert available_dates(path) == [date(2024, 1, 16)]
    with pytest.raises(DataError, match=f"no usable ticks of {DAY}"):
        load_day(path, DAY, calendar)
    with pytest.raises(DataError, match="no ticks of INFY on 2024-01-16"):
        load_day(path, date(2024, 1, 16), calendar, symbols=("TCS", "INFY"))
    written(tmp_path / "INFY.csv", "date,open,high,low,close,volume", "2024-01-15 09:15:00,1,1,1,1,1")
    with pytest.raises(DataError, match=r"files of ticks \(TCS.csv\) and of bars \(INFY.csv\)"):
        load_day(tmp_path, DAY, calendar)
    twice = written(tmp_path / "twice.csv", "timestamp,ltp,ltp", "2024-01-15 09:15:00,1,1")
    with pytest.raises(DataError, match="more than one column ltp"):
        load_day(twice, DAY, calendar)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=60)
@given(st.lists(st.binary(max_size=40), max_size=8), st.booleans())
def test_load_day_any_bytes_after_the_header_are_a_day_or_a_data_error(
    calendar: SessionCalendar, tmp_path: Path, lines: list[bytes], with_good: bool
) -> None:
    good = b"2024-01-15 09:20:00,100.00,5\n" if with_good else b""
    (tmp_path / "TCS.csv").write_bytes(HEADER.encode() + b"\n" + b"\n".join([*lines, good]))
    if not with_good:
        with pytest.raises(DataError, match=r"TCS\.csv"):
            load_day(tmp_path / "TCS.csv", DAY, calendar, tick_table=TICKS)
        return
    day = load_day(tmp_path / "TCS.csv", DAY, calendar, tick_table=TICKS)
    assert flat(day) == [(300_000, "TCS", 10_000, 5)]
    assert [row.closes for row in minutes_of(day.ticks or [], 1)[0]] == [row.closes for row in day.rows] == [[10_000]]
