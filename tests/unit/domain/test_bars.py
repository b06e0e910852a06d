"""Bars: rows as columns, and what counts as a bar."""

from __future__ import annotations

from datetime import date

from velox_core.domain.market.bars import NO_BAR, DayColumns, MinuteRow

TS_MS = 1_705_290_360_000


def row(ts_ms: int = TS_MS) -> MinuteRow:
    return MinuteRow(ts_ms, [100, 0], [110, 0], [90, 0], [105, NO_BAR], [7, 0])


def test_minute_row_bar_of_a_symbol_takes_its_column() -> None:
    bar = row().bar("TCS", 0)
    assert bar is not None
    assert (bar.symbol, bar.ts_ms, bar.open, bar.high, bar.low, bar.close, bar.volume) == ("TCS", TS_MS, 100, 110, 90, 105, 7)


def test_minute_row_without_a_close_has_no_bar() -> None:
    assert row().bar("INFY", 1) is None


def test_day_columns_counts_bars_and_gives_rows_in_order() -> None:
    rows = [row(), row(TS_MS + 60_000)]
    day = DayColumns(trading_date=date(2024, 1, 15), universe=("TCS", "INFY"), rows=rows, source="test")
    assert day.bar_count == 2
    assert list(day) == rows
    assert (day.synthetic, day.previous_close_paise, day.drops) == (False, (), ())
