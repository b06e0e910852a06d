"""Whatever a file holds: a day or a DataError, and a price that survives is the price that was written.

The first property judges every row a second time, field by field with Decimal, and compares. The others throw bytes.
"""

from __future__ import annotations

import io
import re
from datetime import date, datetime, time, timedelta
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.unit.feeds.files import bars, content, expected, lines, written
from velox_core.domain.errors import DataError
from velox_core.domain.market.sessions import SessionCalendar
from velox_core.domain.time import IST, ist_date
from velox_core.feeds.load import available_dates, load_day
from velox_core.feeds.options import SourceOptions
from velox_core.feeds.quality import DropRule

DAY = date(2024, 1, 15)
OPEN = datetime.combine(DAY, time(9, 15), IST)
HEADER = "ts,symbol,open,high,low,close,volume"
Bars = dict[tuple[int, str], tuple[int, ...]]

MINUTES = SourceOptions(bar_minutes=1)
MINUTES_OF_DAY = 375
JUDGED_TOGETHER = {DropRule.FAR_OFF, DropRule.FROZEN}

relaxed = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)

junk = st.text(alphabet="0123456789.-+:T eEnaifNx_%éक", max_size=12)
prices = st.integers(1, 200_000).map(lambda paise: f"{paise // 100}.{paise % 100:02d}") | st.decimals(
    "99.99", "100.01", places=4
).map(str)
fields = prices | prices | prices | prices | junk | st.sampled_from(["nan", "inf", "-1", "0", "1e400", "NA", ""])
minutes = st.integers(-3, 380).map(lambda minute: (OPEN + timedelta(minutes=minute)).isoformat())
close_minutes = st.integers(0, 6).map(lambda minute: (OPEN + timedelta(minutes=minute)).isoformat())
stamps = (
    close_minutes | close_minutes | minutes | junk | st.sampled_from(["1970-01-01T05:30:00+05:30", "2024-01-15T09:15:30+05:30"])
)
symbols = st.sampled_from(["TCS", "TCS", "INFY", "infy", "", "bad symbol"])
flat = prices.map(lambda price: [price] * 4)
ordered = (
    st.lists(prices, min_size=4, max_size=4).map(lambda four: sorted(four, key=Decimal)).map(lambda f: [f[1], f[3], f[0], f[2]])
)
quartets = flat | ordered | ordered | st.lists(fields, min_size=4, max_size=4)
volumes = st.integers(0, 10_000).map(str) | st.integers(0, 10_000).map(str) | fields
rows = st.tuples(stamps, symbols, quartets, volumes).map(lambda row: [row[0], row[1], *row[2], row[3]])
ragged = st.lists(fields, min_size=1, max_size=9)


def loaded(path: Path, calendar: SessionCalendar) -> Bars | None:
    """Return the day's bars by minute and symbol, or None for a DataError."""
    try:
        day = load_day(path, DAY, calendar, options=MINUTES)
    except DataError as error:
        if "\n" in str(error):
            raise
        return None
    bars: Bars = {}
    for row in day.rows:
        for index, symbol in enumerate(day.universe):
            bar = row.bar(symbol, index)
            if bar is not None:
                bars[row.ts_ms, symbol] = (bar.open, bar.high, bar.low, bar.close, bar.volume)
    assert [row.ts_ms for row in day.rows] == sorted({row.ts_ms for row in day.rows})
    assert all(drop.count > 0 for drop in day.drops)
    return bars


def paise(text: str) -> int | None:
    if not re.fullmatch(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", text, re.ASCII):
        return None
    value = Decimal(text.strip())
    return int((value * 100).quantize(Decimal(1), rounding=ROUND_HALF_UP)) if 0 < value <= 10_000_000 else None


def expected_bar(row: list[str]) -> tuple[tuple[int, str], tuple[int, ...]] | None:
    """Judge one row by the documented rules, independently of the feed."""
    match = re.fullmatch(r"\s*(2024-01-15T(\d\d):(\d\d):00\+05:30)\s*", row[0], re.ASCII)
    symbol = row[1].strip().upper()
    if match is None or not re.fullmatch(r"[A-Z0-9][A-Z0-9&-]*", symbol):
        return None
    start = datetime.fromisoformat(match[1])
    values = [paise(text) for text in row[2:6]]
    opening, high, low, close = values
    if opening is None or high is None or low is None or close is None or min(opening, high, low, close) < 1:
        return None
    shares = (
        Decimal(row[6].strip())
        if paise(row[6]) is not None or re.fullmatch(r"0+(\.0*)?|\.0+", row[6].strip())
        else Decimal("0.5")
    )
    in_session = OPEN <= start < OPEN + timedelta(minutes=375)
    if not in_session or not low <= min(opening, close) <= max(opening, close) <= high or shares != shares.to_integral_value():
        return None
    end_ms = int((start + timedelta(minutes=1)).timestamp() * 1_000)
    return (end_ms, symbol), (opening, high, low, close, int(shares))


@relaxed
@given(st.lists(rows | rows | rows | ragged, max_size=25))
@example([[OPEN.isoformat(), "TCS", "1", "1", "1", "1", "1"], [OPEN.isoformat(), "TCS", "2", "2", "2", "2", "2"]])
def test_load_day_survivors_are_exactly_the_good_rows_as_written(
    calendar: SessionCalendar, tmp_path: Path, table: list[list[str]]
) -> None:
    path = tmp_path / "bars.csv"
    path.write_text("\n".join([HEADER, *(",".join(row) for row in table)]) + "\n", encoding="utf-8")
    expected: Bars = {}
    contradicted = set()
    for row in table:
        found = expected_bar(row) if len(row) == 7 else None
        if found is not None and expected.setdefault(*found)[:4] != found[1][:4]:
            contradicted.add(found[0])
    survivors = loaded(path, calendar) or {}
    assert survivors.items() <= {key: bar for key, bar in expected.items() if key not in contradicted}.items()
    together = 0
    if survivors:
        day = load_day(path, DAY, calendar, options=MINUTES)
        together = sum(drop.count for drop in day.drops if drop.rule in JUDGED_TOGETHER)
        assert len(survivors) + together + len(contradicted) == len(expected)


@relaxed
@given(st.binary(max_size=400))
def test_load_day_any_bytes_are_a_day_or_a_data_error(calendar: SessionCalendar, tmp_path: Path, junk_bytes: bytes) -> None:
    three_lines = b"Price,Close,High,Low,Open,Volume\nTicker,TCS.NS,TCS.NS,TCS.NS,TCS.NS,TCS.NS\nDatetime,,,,,\n"
    heads = (
        ("a.csv", b""),
        ("TCS.csv", HEADER.encode() + b"\n"),
        ("yf.csv", three_lines),
        ("INFY.csv", b"timestamp,o,h,l,c,v\n"),
        ("ns.csv", b"timestamp_ns,open,high,low,close,volume\n"),
        ("b.parquet", b"PAR1"),
        ("c.csv.zst", b"\x28\xb5\x2f\xfd"),
        ("ticks.csv", b"timestamp,ltp,volume,symbol\n"),
    )
    for name, head in heads:
        path = tmp_path / name
        path.write_bytes(head + junk_bytes)
        if name.endswith(".zst"):
            path.write_bytes(zstandard.compress(HEADER.encode() + b"\n" + junk_bytes)[: max(4, len(junk_bytes))])
        assert all(0 < bar[2] <= bar[1] for bar in (loaded(path, calendar) or {}).values())


LAYOUTS = (
    ("date", "ist", 0),
    ("date", "naive", 1),
    ("timestamp", "naive_utc", 1),
    ("datetime", "utc", 0),
    ("timestamp_ns", "ns", 1),
    ("timestamp", "s", 0),
)


@relaxed
@given(data=st.data())
def test_load_day_whatever_stands_in_a_few_fields_the_others_keep_price_and_minute(
    calendar: SessionCalendar, tmp_path: Path, data: st.DataObject
) -> None:
    name, stamp, shift = data.draw(st.sampled_from(LAYOUTS))
    rows = bars(count=MINUTES_OF_DAY)
    body = [line.split(",") for line in lines(rows, stamp=stamp, shift_minutes=shift)]
    places = data.draw(st.lists(st.integers(1, MINUTES_OF_DAY - 2), min_size=1, max_size=4, unique=True))
    for place in places:
        body[place][data.draw(st.integers(1, 5))] = data.draw(fields)
    for place in data.draw(st.lists(st.integers(1, MINUTES_OF_DAY - 2), max_size=3)):
        body.insert(place, list(body[data.draw(st.sampled_from(places))]))  # a damaged row twice, out of its place
    path = written(tmp_path / "TCS.csv", f"{name},open,high,low,close,volume", [",".join(fields) for fields in body])
    day = load_day(path, DAY, calendar)
    whole = {bar[0]: bar for bar in expected(rows)}
    sound = {bar[0] for place, bar in enumerate(expected(rows)) if place not in places}
    delivered = {bar[0]: bar for bar in content(day)}
    assert sound <= set(delivered) <= set(whole)
    assert all(delivered[moment] == whole[moment] for moment in sound)


def good_csv() -> bytes:
    lines = [f"{(OPEN + timedelta(minutes=minute)).isoformat()},TCS,100,101,99,100.5,10" for minute in range(40)]
    return "\n".join([HEADER, *lines]).encode()


def good_parquet() -> bytes:
    values = {name: [100.0] * 40 for name in ("open", "high", "low", "close", "volume")}
    moments = pa.array([OPEN + timedelta(minutes=minute) for minute in range(40)], pa.timestamp("us", "UTC"))
    stream = io.BytesIO()
    pq.write_table(pa.table({"ts": moments, "symbol": ["TCS"] * 40, **values}), stream)
    return stream.getvalue()


@pytest.mark.parametrize(("name", "content"), [("bars.csv", good_csv()), ("bars.parquet", good_parquet())])
@relaxed
@given(data=st.data())
def test_load_day_damaged_file_is_a_day_or_a_data_error(
    calendar: SessionCalendar, tmp_path: Path, name: str, content: bytes, data: st.DataObject
) -> None:
    damaged = bytearray(content)
    for _ in range(data.draw(st.integers(1, 6))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / name
    path.write_bytes(bytes(damaged[: data.draw(st.integers(1, len(damaged)))]) if data.draw(st.booleans()) else bytes(damaged))
    assert all(0 < bar[2] <= bar[1] for bar in (loaded(path, calendar) or {}).values())


def test_load_day_parquet_with_damaged_texts_is_a_data_error(calendar: SessionCalendar, tmp_path: Path) -> None:
    path = tmp_path / "bars.parquet"
    for whole, damaged in ((b"\x18\x02ts%", b"\x18\x02\x80s%"), (b"\x03\x00\x00\x00TCS", b"\x03\x00\x00\x00\xffCS")):
        assert whole in good_parquet()
        path.write_bytes(good_parquet().replace(whole, damaged))
        with pytest.raises(DataError, match="cannot be read as Parquet"):
            load_day(path, DAY, calendar)


@relaxed
@given(st.lists(stamps, min_size=1, max_size=10))
def test_available_dates_are_plausible_ascending_and_never_crash(tmp_path: Path, times: list[str]) -> None:
    path = tmp_path / "TCS.csv"
    path.write_text("\n".join([HEADER, *(f"{text},TCS,1,1,1,1,1" for text in times)]), encoding="utf-8")
    dates = available_dates(path)
    assert dates == sorted(set(dates))
    assert all(date(1990, 1, 1) <= day <= date(2100, 1, 1) for day in dates)
    assert ist_date(int(OPEN.timestamp() * 1_000)) == DAY
