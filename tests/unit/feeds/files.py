"""Small files of every layout, with prices that wander a little so that no rule finds them odd."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

from velox_core.domain.market.bars import DayColumns
from velox_core.domain.time import IST

DAY = date(2024, 1, 15)
OPEN = time(9, 15)
MINUTES = 375
Delivered = list[tuple[int, list[int], list[int], list[int], list[int], list[int]]]
Row = tuple[datetime, int, int, int, int, int]  # start in IST, open, high, low, close in paise, volume


def bars(day: date = DAY, *, count: int = MINUTES, start: time = OPEN, step: int = 1, base: int = 100_000) -> list[Row]:
    """Return bars from `start` on, one each `step` minutes."""
    begin = datetime.combine(day, start, IST)
    found: list[Row] = []
    for index in range(count):
        close = base + (index * 37) % 400
        opening = base + ((index - 1) * 37) % 400
        low, high = min(opening, close) - 5, max(opening, close) + 5
        found.append((begin + timedelta(minutes=step * index), opening, high, low, close, 100 + index % 7))
    return found


def rupees(paise: int) -> str:
    return f"{paise // 100}.{paise % 100:02d}"


def values(row: Row) -> str:
    return ",".join([*(rupees(price) for price in row[1:5]), str(row[5])])


def lines(rows: Iterable[Row], *, stamp: str = "ist", shift_minutes: int = 0) -> list[str]:
    """Return CSV lines, with times as `stamp` says: ist, naive, utc, naive_utc, ns, s."""
    found = []
    for row in rows:
        moment = row[0] + timedelta(minutes=shift_minutes)
        text = {
            "ist": f"{moment:%Y-%m-%d %H:%M:%S}+05:30",
            "naive": f"{moment:%Y-%m-%d %H:%M:%S}",
            "utc": f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S}Z",
            "naive_utc": f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}",
            "ns": str(round(moment.timestamp()) * 1_000_000_000),
            "s": str(round(moment.timestamp())),
        }[stamp]
        found.append(f"{text},{values(row)}")
    return found


def csv_text(header: str, body: Sequence[str]) -> str:
    return "\n".join([header, *body]) + "\n"


def written(path: Path, header: str, body: Sequence[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(csv_text(header, body), encoding="utf-8")
    return path


def content(day: DayColumns) -> Delivered:
    return [(row.ts_ms, row.opens, row.highs, row.lows, row.closes, row.volumes) for row in day.rows]


def expected(rows: Sequence[Row], *, minutes: int = 1) -> Delivered:
    """Return what a feed of one share must deliver: the same values, at the end of each bar."""
    return [(round((row[0] + timedelta(minutes=minutes)).timestamp()) * 1_000, *([value] for value in row[1:])) for row in rows]
