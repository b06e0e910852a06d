"""Every layout gives the same day: whatever names the columns, the zone, the stamped end, the folders and the packing."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from tests.unit.feeds.files import DAY, bars, content, csv_text, expected, lines, rupees, written
from velox_core.domain.errors import DataError
from velox_core.domain.market.sessions import SessionCalendar
from velox_core.domain.market.ticks import SecurityClass
from velox_core.domain.time import ist_ms
from velox_core.feeds.load import available_dates, load_day
from velox_core.feeds.options import NaiveTimes, SourceOptions, Stamps

OHLCV = "open,high,low,close,volume"
WHOLE = bars()


@pytest.mark.parametrize(
    ("header", "stamp", "shift"),
    [
        (f"date,{OHLCV}", "ist", 0),
        (f"date,{OHLCV}", "naive", 0),
        (f"date,{OHLCV}", "ist", 1),
        (f"Datetime,{OHLCV}", "naive_utc", 0),
        (f"datetime,{OHLCV}", "utc", 1),
        (f"timestamp,{OHLCV}", "naive", 0),
        (f"timestamp,{OHLCV}", "naive", 1),
        (f"time,{OHLCV}", "naive_utc", 1),
        ("timestamp,o,h,l,c,v", "s", 1),
        (f"timestamp_ns,{OHLCV}", "ns", 0),
        (f"timestamp_ns,{OHLCV}", "ns", 1),
        (f"timestamp_s,{OHLCV}", "s", 0),
    ],
)
def test_load_day_each_layout_zone_and_stamp_gives_the_same_bars(
    calendar: SessionCalendar, tmp_path: Path, header: str, stamp: str, shift: int
) -> None:
    path = written(tmp_path / "TCS.csv", header, lines(WHOLE, stamp=stamp, shift_minutes=shift))
    day = load_day(path, DAY, calendar)
    assert (day.universe, day.drops, day.bar_minutes) == (("TCS",), (), 1)
    assert content(day) == expected(WHOLE)


def test_load_day_one_bad_field_changes_no_zone_and_no_stamp(calendar: SessionCalendar, tmp_path: Path) -> None:
    body = lines(WHOLE, stamp="naive_utc", shift_minutes=1)
    body[7] = body[7].replace(rupees(WHOLE[7][1]), "x", 1)
    day = load_day(written(tmp_path / "TCS.csv", f"timestamp,{OHLCV}", body), DAY, calendar)
    assert content(day) == expected([row for index, row in enumerate(WHOLE) if index != 7])
    named = next(drop for drop in day.drops if drop.rule == "not a number")
    assert "TCS.csv: row 8, TCS 2024-01-15 09:22:00" in named.example
    assert "(open is 'x')" in named.example


def test_load_day_bars_at_their_last_second_end_there(calendar: SessionCalendar, tmp_path: Path) -> None:
    shifted = [(row[0] + timedelta(seconds=59), *row[1:]) for row in WHOLE]
    day = load_day(written(tmp_path / "TCS.csv", f"date,{OHLCV}", lines(shifted)), DAY, calendar)
    assert content(day) == expected(WHOLE)


def three_lines(shares: tuple[str, ...], rows_of: dict[str, list[tuple[datetime, int, int, int, int, int]]]) -> str:
    fields = ("Close", "High", "Low", "Open", "Volume")
    head = [["Price"], ["Ticker"], ["Datetime"]]
    for field in fields:
        for share in shares:
            head[0].append(field)
            head[1].append(share)
            head[2].append("")
    body = []
    for index, row in enumerate(rows_of[shares[0]]):
        cells = [f"{row[0]:%Y-%m-%d %H:%M:%S}+05:30"]
        for field in fields:
            place = {"Open": 1, "High": 2, "Low": 3, "Close": 4, "Volume": 5}[field]
            for share in shares:
                value = rows_of[share][index][place] if index < len(rows_of[share]) else None
                cells.append("" if value is None else str(value) if field == "Volume" else rupees(value))
        body.append(",".join(cells))
    return "\n".join([*(",".join(line) for line in head), *body]) + "\n"


def test_load_day_three_header_lines_of_two_shares(calendar: SessionCalendar, tmp_path: Path) -> None:
    infy = bars(base=150_000, count=300)
    (tmp_path / "download.csv").write_text(three_lines(("TCS.NS", "INFY.NS"), {"TCS.NS": WHOLE, "INFY.NS": infy}))
    both = load_day(tmp_path / "download.csv", DAY, calendar)
    assert both.universe == ("INFY", "TCS")
    assert [drop.rule for drop in both.drops] == ["no bar for the rest of the session (minutes)"]
    assert content(load_day(tmp_path / "download.csv", DAY, calendar, symbols=("TCS",))) == expected(WHOLE)
    assert content(load_day(tmp_path / "download.csv", DAY, calendar, symbols=("INFY",))) == expected(infy)


def test_load_day_parquet_with_columns_by_share_and_naive_utc(calendar: SessionCalendar, tmp_path: Path) -> None:
    columns = {f"('{name}', 'TCS.NS')": [row[place] / 100 for row in WHOLE] for place, name in enumerate(
        ("Open", "High", "Low", "Close"), start=1)}  # fmt: skip
    columns["('Volume', 'TCS.NS')"] = [row[5] for row in WHOLE]
    columns["Datetime"] = pa.array([row[0].replace(tzinfo=None) - timedelta(hours=5, minutes=30) for row in WHOLE])
    pq.write_table(pa.table(columns), tmp_path / "download.parquet")
    assert content(load_day(tmp_path / "download.parquet", DAY, calendar)) == expected(WHOLE)


def test_load_day_compressed_csv_is_the_csv(calendar: SessionCalendar, tmp_path: Path) -> None:
    packed = zstandard.compress(csv_text(f"date,{OHLCV}", lines(WHOLE)).encode())
    (tmp_path / "TCS_minute.csv.zst").write_bytes(packed)
    assert content(load_day(tmp_path, DAY, calendar)) == expected(WHOLE)
    (tmp_path / "TCS_minute.csv.zst").write_bytes(packed[:40] + b"damaged" + packed[47:])
    with pytest.raises(DataError, match="cannot be unpacked as zstandard"):
        load_day(tmp_path, DAY, calendar)


@pytest.mark.parametrize(
    "names",
    [
        ("2024-01-12/TCS.csv", "2024-01-15/TCS.csv"),
        ("TCS/2024-01-12.csv", "TCS/2024-01-15.csv"),
        ("TCS/20240112_minute.csv", "TCS/20240115_minute.csv"),
        ("2024-01-12_TCS.csv", "2024-01-15_TCS.csv"),
        ("TCS.NS_2024-01-12.csv", "TCS.NS_2024-01-15.csv"),
    ],
)
def test_load_day_folders_per_day_or_share_name_the_share(
    calendar: SessionCalendar, tmp_path: Path, names: tuple[str, str]
) -> None:
    before = bars(date(2024, 1, 12), base=99_000)
    written(tmp_path / names[0], f"date,{OHLCV}", lines(before))
    written(tmp_path / names[1], f"date,{OHLCV}", lines(WHOLE))
    day = load_day(tmp_path, DAY, calendar)
    assert (day.universe, day.previous_close_paise) == (("TCS",), (before[-1][4],))
    assert content(day) == expected(WHOLE)
    assert available_dates(tmp_path) == [date(2024, 1, 12), DAY]


def test_load_day_folder_of_a_far_date_is_not_opened(calendar: SessionCalendar, tmp_path: Path) -> None:
    written(tmp_path / "2024-01-15" / "TCS.csv", f"date,{OHLCV}", lines(WHOLE))
    written(tmp_path / "2023-05-02" / "TCS.csv", "neither,a,bar", ["1,2,3"])
    assert load_day(tmp_path, DAY, calendar).bar_count == 375


# Which end is stamped


@pytest.mark.parametrize("stamps", list(Stamps))
def test_load_day_without_open_or_close_asks_and_takes_the_answer(
    calendar: SessionCalendar, tmp_path: Path, stamps: Stamps
) -> None:
    middle = WHOLE[60:200]
    path = written(tmp_path / "TCS.csv", f"timestamp,{OHLCV}", lines(middle, stamp="naive"))
    with pytest.raises(DataError, match=r"--stamps start or --stamps end, or system\.feed\.stamps"):
        load_day(path, DAY, calendar)
    day = load_day(path, DAY, calendar, options=SourceOptions(stamps=stamps))
    assert content(day) == expected(middle, minutes=1 if stamps is Stamps.START else 0)


def test_load_day_layout_with_a_convention_takes_it_in_the_middle_of_a_day(calendar: SessionCalendar, tmp_path: Path) -> None:
    path = written(tmp_path / "TCS.csv", f"date,{OHLCV}", lines(WHOLE[60:200]))
    assert content(load_day(path, DAY, calendar)) == expected(WHOLE[60:200])


def test_load_day_bar_at_the_close_and_none_at_the_open_asks(calendar: SessionCalendar, tmp_path: Path) -> None:
    path = written(tmp_path / "TCS.csv", f"date,{OHLCV}", lines(WHOLE[60:], shift_minutes=1))
    with pytest.raises(DataError, match="a bar stands at the close, none at the open"):
        load_day(path, DAY, calendar)


def test_load_day_days_of_both_kinds_ask(calendar: SessionCalendar, tmp_path: Path) -> None:
    body = [*lines(bars(date(2024, 1, 12))), *lines(WHOLE, shift_minutes=1)]
    with pytest.raises(DataError, match="some days look like the one, some like the other"):
        load_day(written(tmp_path / "TCS.csv", f"date,{OHLCV}", body), DAY, calendar)


def test_load_day_own_format_is_never_shifted(calendar: SessionCalendar, tmp_path: Path) -> None:
    body = [f"{line.split(',', 1)[0].replace(' ', 'T')},TCS,{line.split(',', 1)[1]}" for line in lines(WHOLE, shift_minutes=1)]
    path = written(tmp_path / "x.csv", f"ts,symbol,{OHLCV}", body)
    day = load_day(path, DAY, calendar, options=SourceOptions(stamps=Stamps.END))
    assert content(day) == expected([(row[0] + timedelta(minutes=1), *row[1:]) for row in WHOLE[:-1]])
    assert [drop.count for drop in day.drops if drop.rule == "off session"] == [1]


def test_load_day_file_that_shows_nothing_follows_the_others(calendar: SessionCalendar, tmp_path: Path) -> None:
    written(tmp_path / "TCS.csv", f"timestamp,{OHLCV}", lines(WHOLE, stamp="naive", shift_minutes=1))
    written(tmp_path / "INFY.csv", f"timestamp,{OHLCV}", lines(WHOLE[60:200], stamp="naive", shift_minutes=1))
    assert content(load_day(tmp_path, DAY, calendar, symbols=("INFY",))) == expected(WHOLE[60:200])


# Zones


def test_load_day_times_that_fit_neither_zone_ask(calendar: SessionCalendar, tmp_path: Path) -> None:
    night = bars(start=time(18, 0), count=100)  # 12:30 to 14:10 UTC would be inside as Indian time, this is not
    body = [*lines(night, stamp="naive"), *lines(bars(start=time(9, 30), count=40), stamp="naive_utc")]
    path = written(tmp_path / "TCS.csv", f"timestamp,{OHLCV}", body)
    with pytest.raises(DataError, match=r"--naive-times ist or --naive-times utc, or system\.feed\.naive_times"):
        load_day(path, DAY, calendar)
    asked = SourceOptions(naive_times=NaiveTimes.UTC, stamps=Stamps.START)
    assert load_day(path, DAY, calendar, options=asked).bar_count == 40


# Longer bars


@pytest.mark.parametrize(("minutes", "shift"), [(5, 0), (5, 5), (15, 0), (3, 3)])
def test_load_day_longer_bars_come_at_their_end_whichever_end_is_stamped(
    calendar: SessionCalendar, tmp_path: Path, minutes: int, shift: int
) -> None:
    rows = [row for day in (11, 12, 15) for row in bars(date(2024, 1, day), step=minutes, count=375 // minutes)]
    path = written(tmp_path / "TCS.csv", f"timestamp,{OHLCV}", lines(rows, stamp="naive", shift_minutes=shift))
    day = load_day(path, DAY, calendar)
    assert day.bar_minutes == minutes
    assert day.granularity.startswith(f"{minutes}-minute bars")
    assert content(day) == expected(rows[-(375 // minutes) :], minutes=minutes)


def test_load_day_last_longer_bar_is_cut_off_by_the_close(calendar: SessionCalendar, tmp_path: Path) -> None:
    rows = bars(step=10, count=38)
    day = load_day(written(tmp_path / "TCS.csv", f"date,{OHLCV}", lines(rows)), DAY, calendar)
    assert [row.ts_ms for row in day.rows[-2:]] == [ist_ms(DAY, time(15, 25)), ist_ms(DAY, time(15, 30))]


def test_load_day_bars_of_two_lengths_are_refused(calendar: SessionCalendar, tmp_path: Path) -> None:
    written(tmp_path / "TCS.csv", f"date,{OHLCV}", lines(WHOLE))
    written(tmp_path / "INFY.csv", f"date,{OHLCV}", lines(bars(step=5, count=75)))
    with pytest.raises(DataError, match=r"different lengths: 1 minutes in .*TCS\.csv, 5 minutes in .*INFY\.csv"):
        load_day(tmp_path, DAY, calendar)


def test_load_day_share_with_few_bars_follows_the_others(calendar: SessionCalendar, tmp_path: Path) -> None:
    written(tmp_path / "TCS.csv", f"date,{OHLCV}", lines(WHOLE))
    written(tmp_path / "THIN.csv", f"date,{OHLCV}", lines(WHOLE[0:9:4]))
    day = load_day(tmp_path, DAY, calendar)
    assert (day.bar_minutes, day.bar_count) == (1, 378)


# Special dates


def test_load_day_closing_auction_is_told_from_continuous_trading(nse_calendar: SessionCalendar, tmp_path: Path) -> None:
    auction_day = date(2026, 8, 18)
    rows = bars(auction_day)
    path = written(tmp_path / "RELIANCE.csv", f"timestamp_ns,{OHLCV}", lines(rows, stamp="ns"))
    derivative = load_day(path, auction_day, nse_calendar, security_class=lambda _symbol, _day: SecurityClass.DERIVATIVE)
    cash = load_day(path, auction_day, nse_calendar, security_class=lambda _symbol, _day: SecurityClass.CASH)
    assert content(derivative) == expected(rows[:360])
    assert [(drop.rule, drop.count) for drop in derivative.drops] == [("closing auction", 15)]
    assert (content(cash), cash.drops) == (expected(rows), ())


@pytest.mark.parametrize(
    ("day", "start", "count"),
    [(date(2024, 1, 20), time(9, 15), 375), (date(2024, 11, 1), time(18, 0), 60), (date(2024, 3, 2), time(9, 15), 45)],
)
def test_load_day_special_sessions_have_their_own_hours(
    nse_calendar: SessionCalendar, tmp_path: Path, day: date, start: time, count: int
) -> None:
    rows = bars(day, start=start, count=count)
    inside = load_day(written(tmp_path / "TCS.csv", f"date,{OHLCV}", lines(rows)), day, nse_calendar)
    assert content(inside) == expected(rows)
    outside = bars(day, start=time(7, 0), count=30)
    mixed = load_day(written(tmp_path / "TCS.csv", f"date,{OHLCV}", lines([*outside, *rows])), day, nse_calendar)
    assert content(mixed) == expected(rows)
    assert [drop.count for drop in mixed.drops if drop.rule == "off session"] == [30]


def test_load_day_mock_session_rows_are_named(calendar: SessionCalendar, tmp_path: Path) -> None:
    body = [*lines(WHOLE), *lines(bars(date(2024, 1, 13), count=60))]
    day = load_day(written(tmp_path / "TCS.csv", f"date,{OHLCV}", body), DAY, calendar)
    assert [(drop.rule, drop.count, drop.example) for drop in day.drops] == [
        ("closed day or mock session", 60, "TCS.csv: 2024-01-13, weekend")
    ]
    assert content(day) == expected(WHOLE)


def test_load_day_without_its_first_minute_is_no_day_stamped_at_the_end(calendar: SessionCalendar, tmp_path: Path) -> None:
    late = WHOLE[1:]
    assert content(load_day(written(tmp_path / "TCS.csv", f"date,{OHLCV}", lines(late)), DAY, calendar)) == expected(late)
    path = written(tmp_path / "x" / "TCS.csv", f"timestamp,{OHLCV}", lines(late, stamp="naive"))
    with pytest.raises(DataError, match="--stamps start or --stamps end"):
        load_day(path, DAY, calendar)
