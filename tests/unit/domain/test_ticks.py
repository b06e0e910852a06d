"""Tick sizes by date and price band, checked against NSE's own daily prices where they are at hand."""

from __future__ import annotations

import csv
from datetime import date
from pathlib import Path

import pytest

from velox_core.calendar import load_tick_table
from velox_core.domain.errors import CalendarError
from velox_core.domain.market.ticks import TickTable
from velox_core.domain.money import paise_from_rupees

ROOT = Path(__file__).resolve().parents[3]
DAILY_PRICES = ROOT.parent / "shared" / "data" / "nse_daily" / "daily_12_symbols_2023_2026.csv"
FIRST, SECOND, THIRD = date(2019, 1, 1), date(2024, 6, 10), date(2025, 4, 15)


@pytest.fixture(scope="module")
def table() -> TickTable:
    return load_tick_table(ROOT / "config" / "nse_calendar.yaml")


@pytest.mark.parametrize(
    ("close", "until_2024_06_09", "from_2024_06_10", "from_2025_04_15"),
    [
        ("0.01", 5, 1, 1),
        ("249.99", 5, 1, 1),
        ("250.00", 5, 5, 5),
        ("999.99", 5, 5, 5),
        ("1000.00", 5, 5, 10),
        ("4999.99", 5, 5, 10),
        ("5000.00", 5, 5, 50),
        ("9999.99", 5, 5, 50),
        ("10000.00", 5, 5, 100),
        ("19999.99", 5, 5, 100),
        ("20000.00", 5, 5, 500),
        ("140000.00", 5, 5, 500),
    ],
)
def test_tick_table_band_and_date_give_the_tick(
    table: TickTable, close: str, until_2024_06_09: int, from_2024_06_10: int, from_2025_04_15: int
) -> None:
    paise = paise_from_rupees(close)
    assert table.tick_paise(FIRST, paise) == until_2024_06_09
    assert table.tick_paise(date(2024, 6, 9), paise) == until_2024_06_09
    assert table.tick_paise(SECOND, paise) == from_2024_06_10
    assert table.tick_paise(date(2025, 4, 14), paise) == from_2024_06_10
    assert table.tick_paise(THIRD, paise) == from_2025_04_15
    assert table.tick_paise(date(2026, 12, 31), paise) == from_2025_04_15


def test_tick_table_before_first_rule_is_refused(table: TickTable) -> None:
    with pytest.raises(CalendarError, match=r"2018-12-31.*2019-01-01.*tick_sizes"):
        table.tick_paise(date(2018, 12, 31), 10_000)


def test_tick_table_without_rules_is_refused() -> None:
    with pytest.raises(CalendarError, match="no tick sizes"):
        TickTable(rules=()).tick_paise(FIRST, 10_000)


@pytest.mark.parametrize("close_paise", [0, -1])
def test_tick_table_close_not_above_zero_is_refused(table: TickTable, close_paise: int) -> None:
    with pytest.raises(ValueError, match="reference close above 0"):
        table.tick_paise(FIRST, close_paise)


@pytest.mark.skipif(not DAILY_PRICES.exists(), reason="needs ../shared/data/nse_daily, which is not beside this checkout")
def test_tick_table_every_price_traded_at_nse_is_on_tick(table: TickTable) -> None:
    month_end_close: dict[str, tuple[str, int]] = {}
    reference: dict[str, int] = {}
    checked = 0
    with DAILY_PRICES.open(encoding="utf-8", newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: (row["SYMBOL"], row["DATE"]))
    for row in rows:
        symbol, day = row["SYMBOL"], date.fromisoformat(row["DATE"])
        month = row["DATE"][:7]
        if symbol in month_end_close and month_end_close[symbol][0] != month:
            reference[symbol] = month_end_close[symbol][1]
        month_end_close[symbol] = (month, paise_from_rupees(row["CLOSE_PRICE"]))
        if symbol not in reference:
            continue
        tick = table.tick_paise(day, reference[symbol])
        for column in ("OPEN_PRICE", "HIGH_PRICE", "LOW_PRICE", "LAST_PRICE"):
            assert paise_from_rupees(row[column]) % tick == 0, f"{symbol} {day} {column} {row[column]} tick {tick}"
            checked += 1
    assert checked > 40_000
