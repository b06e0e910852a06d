"""A date from files: real days, every format, and every way a file can be wrong."""

from __future__ import annotations

import csv
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from velox_core.domain.errors import DataError
from velox_core.domain.market.bars import DayColumns, MinuteRow
from velox_core.domain.market.sessions import SessionCalendar
from velox_core.domain.time import IST, ist_ms
from velox_core.feeds.load import available_dates, load_day
from velox_core.feeds.options import SourceOptions
from velox_core.feeds.quality import DropRule

DAY = date(2024, 1, 15)
FIRST_END_MS = ist_ms(DAY, time(9, 16))
ZERODHA = "date,open,high,low,close,volume"
VELOX = "ts,symbol,open,high,low,close,volume"


def zerodha(minute: int, *, day: date = DAY, values: str = "100,101,99,100.5,10") -> str:
    moment = datetime.combine(day, time(9, 15), IST) + timedelta(minutes=minute)
    return f"{moment:%Y-%m-%d %H:%M:%S}+05:30,{values}"


def velox(minute: int, symbol: str, *, day: date = DAY, values: str = "100,101,99,100.5,10") -> str:
    moment = datetime.combine(day, time(9, 15), IST) + timedelta(minutes=minute)
    return f"{moment.isoformat()},{symbol},{values}"


def written(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def content(row: MinuteRow) -> tuple[int, list[int], list[int], list[int], list[int], list[int]]:
    return row.ts_ms, row.opens, row.highs, row.lows, row.closes, row.volumes


def counts(day: DayColumns) -> dict[str, int]:
    """Return the rows by rule, but for the silences that the few bars of these files have."""
    return {drop.rule: drop.count for drop in day.drops if drop.rule not in (DropRule.STOPS_EARLY, DropRule.MISSING)}


# Real days


def test_load_day_committed_tcs_day_equals_the_file_to_the_paisa(nse_calendar: SessionCalendar, project: Path) -> None:
    path = project / "data" / "tcs_2024-01-15.csv"
    day = load_day(path, DAY, nse_calendar)
    with path.open(encoding="utf-8") as stream:
        source = list(csv.DictReader(stream))
    assert (day.universe, day.source, day.synthetic, day.drops) == (("TCS",), "tcs_2024-01-15.csv", False, ())
    assert day.previous_close_paise == (0,)
    assert len(source) == day.bar_count == 375
    for row, line in zip(day.rows, source, strict=True):
        end = datetime.fromisoformat(line["date"]) + timedelta(minutes=1)
        prices = [[int(Decimal(line[name]) * 100)] for name in ("open", "high", "low", "close")]
        assert content(row) == (int(end.timestamp() * 1_000), *prices, [int(line["volume"])])
    assert type(day.rows[0].closes[0]) is type(day.rows[0].ts_ms) is int


def test_load_day_all_tcs_days_have_375_bars_and_the_close_before(nse_calendar: SessionCalendar, shared_data: Path) -> None:
    path = shared_data / "tcs_1min_2024-01" / "TCS_minute.csv"
    dates = available_dates(path)
    assert len(dates) == 22
    assert date(2024, 1, 20) in dates
    previous = 0
    for current in dates:
        day = load_day(path, current, nse_calendar)
        assert (day.bar_count, len(day.rows), day.drops) == (375, 375, ())
        assert day.previous_close_paise == (previous,)
        assert day.rows[0].ts_ms == ist_ms(current, time(9, 16))
        previous = day.rows[-1].closes[0]


def test_load_day_nifty_folder_merges_fifty_symbols(nse_calendar: SessionCalendar, shared_data: Path) -> None:
    folder = shared_data / "nifty50_1min_2024-02-22_23"
    assert available_dates(folder) == [date(2024, 2, 22), date(2024, 2, 23)]
    day = load_day(folder, date(2024, 2, 23), nse_calendar)
    assert len(day.universe) == 50
    assert day.source == "nifty50_1min_2024-02-22_23 (50 files)"
    assert day.universe == tuple(sorted(day.universe))
    assert day.bar_count <= 50 * 375
    assert all(close > 0 for close in day.previous_close_paise)
    two = load_day(folder, date(2024, 2, 22), nse_calendar, symbols=("TCS", "M&M"))
    assert two.universe == ("TCS", "M&M")


# Formats


def test_load_day_own_format_csv_with_a_symbol_column(calendar: SessionCalendar, tmp_path: Path) -> None:
    path = written(tmp_path / "two.csv", VELOX, velox(0, "TCS"), velox(0, "INFY"), velox(2, "INFY", values="5,6,4,5.05,7"))
    day = load_day(path, DAY, calendar)
    assert day.universe == ("INFY", "TCS")
    assert [content(row) for row in day.rows] == [
        (FIRST_END_MS, [10_000] * 2, [10_100] * 2, [9_900] * 2, [10_050] * 2, [10] * 2),
        (FIRST_END_MS + 120_000, [500, 0], [600, 0], [400, 0], [505, 0], [7, 0]),
    ]


def test_load_day_without_a_minute_of_all_symbols_has_no_row_for_it(calendar: SessionCalendar, tmp_path: Path) -> None:
    day = load_day(written(tmp_path / "TCS.csv", ZERODHA, zerodha(0), zerodha(7)), DAY, calendar)
    assert [row.ts_ms for row in day.rows] == [FIRST_END_MS, FIRST_END_MS + 7 * 60_000]


@pytest.mark.parametrize("kind", [pa.timestamp("s", "UTC"), pa.timestamp("ms", "UTC"), pa.timestamp("ns", "Asia/Kolkata")])
def test_load_day_own_format_parquet_equals_csv(calendar: SessionCalendar, tmp_path: Path, kind: pa.DataType) -> None:
    moments = [datetime.combine(DAY, time(9, 15 + minute), IST) for minute in range(3)]
    table = pa.table(
        {
            "ts": pa.array(moments, kind),
            "symbol": pa.array(["TCS"] * 3).dictionary_encode(),
            "open": pa.array([100] * 3, pa.float32()),
            "high": pa.array([101] * 3, pa.int64()),
            "low": pa.array(["99"] * 3),
            "close": pa.array([Decimal("100.50")] * 3),
            "volume": pa.array([10] * 3, pa.int32()),
        }
    )
    pq.write_table(table, tmp_path / "bars.parquet")
    csv_day = load_day(written(tmp_path / "TCS.csv", ZERODHA, *(zerodha(minute) for minute in range(3))), DAY, calendar)
    parquet_day = load_day(tmp_path / "bars.parquet", DAY, calendar)
    assert parquet_day.universe == ("TCS",)
    assert [content(row) for row in parquet_day.rows] == [content(row) for row in csv_day.rows]


def test_load_day_parquet_with_texts_and_nulls_drops_the_nulls(calendar: SessionCalendar, tmp_path: Path) -> None:
    table = pa.table(
        {
            "date": ["2024-01-15 09:15:00", "2024-01-15 09:16:00", None, "2024-01-15 09:18:00"],
            "open": ["100", "x", "100", "100"],
            "high": [101.0, 101.0, 101.0, None],
            "low": [99.0] * 4,
            "close": [100.0] * 4,
            "volume": pa.array([10, None, 10, 10], pa.int64()),
        }
    )
    pq.write_table(table, tmp_path / "TCS.parquet")
    day = load_day(tmp_path / "TCS.parquet", DAY, calendar)
    assert [row.ts_ms for row in day.rows] == [FIRST_END_MS]
    assert counts(day) == {"unreadable time": 1, "not a number": 2}


def test_load_day_parquet_naive_times_are_indian_and_nulls_unreadable(calendar: SessionCalendar, tmp_path: Path) -> None:
    values = {name: [100.0, 100.0] for name in ("open", "high", "low", "close", "volume")}
    stamps = pa.array([datetime(2024, 1, 15, 9, 15), None], pa.timestamp("us"))
    pq.write_table(pa.table({"Datetime": stamps, **values}), tmp_path / "TCS.parquet")
    day = load_day(tmp_path / "TCS.parquet", DAY, calendar)
    assert [row.ts_ms for row in day.rows] == [FIRST_END_MS]
    assert counts(day) == {"unreadable time": 1}


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
def test_load_day_parquet_with_extreme_times_drops_them(calendar: SessionCalendar, tmp_path: Path, unit: str) -> None:
    good = (FIRST_END_MS // 1_000 - 60) * {"ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    stamps = pa.array([-(2**63), 2**63 - 1, 0, good], pa.int64()).view(pa.timestamp(unit, "UTC"))
    values = {name: [100.0] * 4 for name in ("open", "high", "low", "close", "volume")}
    pq.write_table(pa.table({"ts": stamps, **values}), tmp_path / "TCS.parquet")
    day = load_day(tmp_path / "TCS.parquet", DAY, calendar)
    assert [row.ts_ms for row in day.rows] == [FIRST_END_MS]
    assert sum(counts(day).values()) == 3


def test_load_day_naive_zerodha_times_are_indian(calendar: SessionCalendar, tmp_path: Path) -> None:
    path = written(tmp_path / "TCS.csv", ZERODHA, "2024-01-15 09:15:00,100,101,99,100.5,10")
    assert [row.ts_ms for row in load_day(path, DAY, calendar).rows] == [FIRST_END_MS]


def test_load_day_byte_order_mark_carriage_returns_and_blanks_are_read(calendar: SessionCalendar, tmp_path: Path) -> None:
    path = tmp_path / "TCS.csv"
    path.write_bytes(f"\ufeffDate, Open,High,Low,Close,Volume\r\n{zerodha(0)}\r\n\r\n{zerodha(1)}\r\n".encode())
    day = load_day(path, DAY, calendar)
    assert (day.bar_count, counts(day)) == (2, {})


def test_load_day_folder_of_files_per_day_joins_a_symbol(calendar: SessionCalendar, tmp_path: Path) -> None:
    written(tmp_path / "TCS_2024-01-12.csv", ZERODHA, zerodha(0, day=date(2024, 1, 12), values="90,91,89,90,1"))
    written(tmp_path / "TCS_2024-01-15.csv", ZERODHA, zerodha(0))
    written(tmp_path / "TCS_2024-01-15_late.csv", ZERODHA, zerodha(0), zerodha(1))
    assert available_dates(tmp_path) == [date(2024, 1, 12), DAY]
    day = load_day(tmp_path, DAY, calendar)
    assert (day.universe, day.bar_count, counts(day)) == (("TCS",), 2, {"duplicate": 1})
    assert day.previous_close_paise == (9_000,)


# Bad rows


def test_load_day_bad_rows_are_dropped_counted_and_change_no_neighbour(calendar: SessionCalendar, tmp_path: Path) -> None:
    good = [zerodha(minute) for minute in range(5)]
    bad = [
        "1970-01-01 05:30:00+05:30,100,101,99,100.5,10",
        "not a time,100,101,99,100.5,10",
        zerodha(10, values="nan,101,99,100.5,10"),
        zerodha(11, values="abc,101,99,100.5,10"),
        zerodha(12, values="100,98,99,100.5,10"),
        zerodha(-5),
        zerodha(376),
        zerodha(14, values="100,101,99,100.5,10,11"),
        zerodha(2, values="1,1,1,1,1"),
        good[1],
        zerodha(4, day=date(2024, 1, 12), values="x,x,x,x,x"),
    ]
    clean = load_day(written(tmp_path / "TCS.csv", ZERODHA, *good), DAY, calendar)
    dirty = load_day(written(tmp_path / "TCS.csv", ZERODHA, *good, *bad), DAY, calendar)
    assert [content(row) for row in dirty.rows] == [content(row) for row in clean.rows if row.ts_ms != FIRST_END_MS + 120_000]
    assert counts(dirty) == {
        "wrong number of fields": 1,
        "unreadable time": 1,
        "impossible date": 1,
        "off session": 2,
        "not a number": 2,
        "high below low": 1,
        "duplicate": 1,
        "conflicting duplicate": 2,
    }
    assert all(drop.example for drop in dirty.drops)


def test_load_day_rows_out_of_order_are_sorted_and_counted(calendar: SessionCalendar, tmp_path: Path) -> None:
    day = load_day(written(tmp_path / "TCS.csv", ZERODHA, zerodha(2), zerodha(0), zerodha(1)), DAY, calendar)
    assert [row.ts_ms for row in day.rows] == [FIRST_END_MS + 60_000 * minute for minute in range(3)]
    assert counts(day) == {"out of order (sorted, kept)": 2}


def test_load_day_bytes_that_are_no_text_cost_their_row_only(calendar: SessionCalendar, tmp_path: Path) -> None:
    path = tmp_path / "bars.csv"
    lines = [VELOX, velox(0, "TCS"), velox(1, "TCS").replace("TCS", "T\x80S"), velox(2, "TCS")]
    path.write_bytes("\n".join(lines).encode("latin-1"))
    day = load_day(path, DAY, calendar)
    assert (day.universe, day.bar_count, counts(day)) == (("TCS",), 2, {"not a symbol": 1})


def test_load_day_evening_session_keeps_evening_rows_only(calendar: SessionCalendar, tmp_path: Path) -> None:
    muhurat = date(2024, 11, 1)
    path = written(tmp_path / "TCS.csv", ZERODHA, *(zerodha(minute, day=muhurat) for minute in (0, 540, 599, 600)))
    day = load_day(path, muhurat, calendar)
    assert [row.ts_ms for row in day.rows] == [ist_ms(muhurat, time(18, 16)), ist_ms(muhurat, time(19, 15))]
    assert counts(day) == {"off session": 2}


def test_load_day_symbols_filter_ignores_the_drops_of_others(calendar: SessionCalendar, tmp_path: Path) -> None:
    path = written(tmp_path / "two.csv", VELOX, velox(0, "TCS"), velox(0, "INFY", values="x,1,1,1,1"))
    assert counts(load_day(path, DAY, calendar, symbols=("TCS",))) == {}
    assert counts(load_day(path, DAY, calendar)) == {"not a number": 1}


# The close before


def test_load_day_previous_close_skips_closed_days_and_bad_rows(calendar: SessionCalendar, tmp_path: Path) -> None:
    friday, saturday = date(2024, 1, 12), date(2024, 1, 13)
    path = written(
        tmp_path / "bars.csv",
        VELOX,
        velox(1, "TCS", day=friday, values="90,91,89,90.05,1"),
        velox(0, "TCS", day=friday, values="80,81,79,80,1"),
        velox(2, "TCS", day=friday, values="70,60,65,70,1"),
        velox(0, "TCS", day=saturday, values="60,60,60,60,1"),
        velox(0, "INFY", day=date(2024, 1, 11), values="50,50,50,50,1"),
        velox(0, "OLD", day=date(2024, 1, 4), values="40,40,40,40,1"),
        velox(0, "TCS"),
        velox(0, "INFY"),
        velox(0, "OLD"),
        velox(0, "NEW"),
    )
    day = load_day(path, DAY, calendar)
    assert dict(zip(day.universe, day.previous_close_paise, strict=True)) == {"INFY": 5_000, "NEW": 0, "OLD": 0, "TCS": 9_005}
    assert counts(day) == {"closed day or mock session": 1, "beyond 20 % of the close before (kept)": 1}


# What cannot be loaded


def refusal(path: Path, calendar: SessionCalendar, *, day: date = DAY, symbols: tuple[str, ...] = ()) -> str:
    with pytest.raises(DataError) as raised:
        load_day(path, day, calendar, symbols=symbols)
    text = str(raised.value)
    assert "\n" not in text
    return text


def test_load_day_closed_or_unknown_dates_say_why(calendar: SessionCalendar, tmp_path: Path) -> None:
    path = written(tmp_path / "TCS.csv", ZERODHA, zerodha(0))
    assert "no trading on 2024-01-26: holiday: Republic Day" in refusal(path, calendar, day=date(2024, 1, 26))
    assert "weekend" in refusal(path, calendar, day=date(2024, 1, 14))
    assert "2031 is not in the calendar" in refusal(path, calendar, day=date(2031, 1, 15))


def test_load_day_date_without_bars_says_which_dates_there_are(calendar: SessionCalendar, tmp_path: Path) -> None:
    path = written(tmp_path / "TCS.csv", ZERODHA, zerodha(0))
    assert "no bars of 2024-01-16" in refusal(path, calendar, day=date(2024, 1, 16))
    assert "it has 2024-01-15; choose" in refusal(path, calendar, day=date(2024, 1, 16))
    written(path, ZERODHA, *(zerodha(0, day=date(2024, 2, number)) for number in range(1, 8)))
    assert "it has 7 dates from 2024-02-01 to 2024-02-07" in refusal(path, calendar)
    written(path, ZERODHA, "yesterday,1,1,1,1,1")
    assert "it has no readable date" in refusal(path, calendar)


def test_load_day_wanted_symbol_without_bars_is_named(calendar: SessionCalendar, tmp_path: Path) -> None:
    path = written(tmp_path / "TCS.csv", ZERODHA, zerodha(0))
    assert "no bars of INFY, SBIN on 2024-01-15" in refusal(path, calendar, symbols=("INFY", "TCS", "SBIN"))
    assert "no bars of 2024-01-15 for INFY in" in refusal(path, calendar, symbols=("INFY",))


def test_load_day_with_every_row_bad_shows_the_rules(calendar: SessionCalendar, tmp_path: Path) -> None:
    path = written(tmp_path / "TCS.csv", ZERODHA, zerodha(0, values="0,0,0,0,0"), zerodha(-1))
    text = refusal(path, calendar)
    assert "every row of 2024-01-15" in text
    assert "1 off session" in text
    assert "1 price not positive" in text


def test_load_day_five_minute_bars_come_at_their_end(calendar: SessionCalendar, tmp_path: Path) -> None:
    path = written(tmp_path / "TCS.csv", ZERODHA, *(zerodha(5 * number) for number in range(75)))
    day = load_day(path, DAY, calendar)
    assert (day.bar_minutes, day.bar_count, counts(day)) == (5, 75, {})
    assert (day.rows[0].ts_ms, day.rows[-1].ts_ms) == (ist_ms(DAY, time(9, 20)), ist_ms(DAY, time(15, 30)))


def test_load_day_bars_of_an_odd_length_are_refused(calendar: SessionCalendar, tmp_path: Path) -> None:
    path = written(tmp_path / "TCS.csv", ZERODHA, *(zerodha(7 * number) for number in range(50)))
    assert "its bars are 7 minutes long; give bars of 1, 2, 3, 5" in refusal(path, calendar)


def test_load_day_few_bars_far_apart_ask_for_their_length(calendar: SessionCalendar, tmp_path: Path) -> None:
    path = written(tmp_path / "TCS.csv", ZERODHA, *(zerodha(5 * number) for number in range(8)))
    assert "--bar-minutes 5 or --bar-minutes 1" in refusal(path, calendar)
    minutes = load_day(path, DAY, calendar, options=SourceOptions(bar_minutes=1))
    longer = load_day(path, DAY, calendar, options=SourceOptions(bar_minutes=5))
    assert (minutes.bar_minutes, minutes.rows[0].ts_ms) == (1, ist_ms(DAY, time(9, 16)))
    assert (longer.bar_minutes, longer.rows[0].ts_ms) == (5, ist_ms(DAY, time(9, 20)))


@pytest.mark.parametrize("text", ["", "\n", "   \nx"])
def test_load_day_empty_csv_is_named_empty(calendar: SessionCalendar, tmp_path: Path, text: str) -> None:
    path = tmp_path / "TCS.csv"
    path.write_text(text)
    assert "is empty" in refusal(path, calendar)


def test_load_day_csv_with_a_header_only_has_no_bars(calendar: SessionCalendar, tmp_path: Path) -> None:
    assert "has one line and no bars" in refusal(written(tmp_path / "TCS.csv", ZERODHA), calendar)
    (tmp_path / "TCS.csv").write_text(ZERODHA)
    assert "has one line and no bars" in refusal(tmp_path / "TCS.csv", calendar)


def test_load_day_csv_of_another_kind_names_the_columns(calendar: SessionCalendar, tmp_path: Path) -> None:
    assert "no column" in refusal(written(tmp_path / "TCS.csv", "a;b;c", "1;2;3"), calendar)
    (tmp_path / "TCS.csv").write_bytes(b"a,b\rc,d\nx\n")
    assert "not a CSV file" in refusal(tmp_path / "TCS.csv", calendar)


def test_load_day_csv_beyond_what_can_be_read_is_refused(calendar: SessionCalendar, tmp_path: Path) -> None:
    path = written(tmp_path / "TCS.csv", ZERODHA, zerodha(0), "x" * 3_000_000)
    assert "cannot be read as CSV" in refusal(path, calendar)


def test_load_day_unreadable_file_is_named(calendar: SessionCalendar, tmp_path: Path) -> None:
    path = tmp_path / "TCS.csv"
    path.symlink_to(tmp_path / "gone.csv")
    assert "does not exist" in refusal(path, calendar)


def test_load_day_broken_parquet_is_refused(calendar: SessionCalendar, tmp_path: Path) -> None:
    (tmp_path / "TCS.parquet").write_bytes(b"PAR1 this is no parquet PAR1")
    assert "cannot be read as Parquet" in refusal(tmp_path / "TCS.parquet", calendar)
    (tmp_path / "TCS.parquet").write_bytes(b"")
    assert "cannot be read as Parquet" in refusal(tmp_path / "TCS.parquet", calendar)


@pytest.mark.parametrize(
    ("column", "values", "problem"),
    [
        ("ts", [1], "the time column is int64"),
        ("ts", [datetime(2024, 1, 15)], "no time zone"),
        ("open", [True], "'open' is bool"),
        ("symbol", [5], "'symbol' is int64"),
    ],
)
def test_load_day_parquet_of_a_wrong_type_names_the_column(
    calendar: SessionCalendar, tmp_path: Path, column: str, values: list[object], problem: str
) -> None:
    columns = {name: pa.array([100.0]) for name in ("open", "high", "low", "close", "volume")}
    columns["ts"] = pa.array([datetime.combine(DAY, time(9, 15), IST)], pa.timestamp("ms", "UTC"))
    columns["symbol"] = pa.array(["TCS"])
    columns[column] = pa.array(values)
    pq.write_table(pa.table(columns), tmp_path / "bars.parquet")
    assert problem in refusal(tmp_path / "bars.parquet", calendar)
