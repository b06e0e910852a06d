"""Which files hold bars, and what their columns mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from velox_core.domain.errors import DataError
from velox_core.feeds.csv_source import csv_header
from velox_core.feeds.folders import data_files, is_symbol
from velox_core.feeds.layouts import is_tick_header, map_columns, require_named_symbol

SOMEWHERE = Path("somewhere.csv")


@pytest.mark.parametrize(
    ("names", "layout"),
    [
        (["ts", "symbol", "open", "high", "low", "close", "volume"], "VELOX bars"),
        (["date", "open", "high", "low", "close", "volume", "yyyymmdd", "HHMM", "date_time"], "Zerodha export"),
        (["Open", "High", "Low", "Close", "Adj Close", "Volume", "Datetime"], "yfinance"),
        ([" Date ", "OPEN", "high", "low", "close", "volume"], "Zerodha export"),
        (["ts", "date", "open", "high", "low", "close", "volume"], "VELOX bars"),
    ],
)
def test_map_columns_known_names_give_the_layout(names: list[str], layout: str) -> None:
    columns = map_columns(names, SOMEWHERE)
    assert columns.layout.name == layout
    plain = [name.strip().lower() for name in names]
    assert [plain[index] for index in columns.values] == ["open", "high", "low", "close", "volume"]
    assert (columns.symbol is None) == ("symbol" not in plain)


def test_map_columns_without_close_and_time_names_both_and_what_there_is() -> None:
    with pytest.raises(
        DataError, match="no column ts or date or datetime or timestamp_ns or timestamp, close; it has 'when', 'open'"
    ) as raised:
        map_columns(["when", "open", "high", "low", "volume"], SOMEWHERE)
    assert "\n" not in str(raised.value)


def test_map_columns_with_many_columns_shows_a_few() -> None:
    with pytest.raises(DataError, match="and 88 more"):
        map_columns([f"c{index}" for index in range(100)], SOMEWHERE)


def test_map_columns_with_a_name_twice_is_refused() -> None:
    with pytest.raises(DataError, match="more than one column close"):
        map_columns(["date", "open", "high", "low", "close", "Close", "volume"], SOMEWHERE)


@pytest.mark.parametrize(
    ("name", "symbol"),
    [
        ("TCS_minute.csv", "TCS"),
        ("TCS.csv", "TCS"),
        ("tcs_2024-01-15.csv", "TCS"),
        ("M&M.parquet", "M&M"),
        ("BAJAJ-AUTO.PARQUET", "BAJAJ-AUTO"),
        ("_minute.csv", ""),
        ("two words.csv", ""),
    ],
)
def test_data_files_one_file_takes_the_symbol_from_its_name(tmp_path: Path, name: str, symbol: str) -> None:
    (tmp_path / name).write_text("x")
    assert [file.named_symbol for file in data_files(tmp_path / name)] == [symbol]


def test_data_files_folder_lists_bar_files_only_and_by_name(tmp_path: Path) -> None:
    for name in ("TCS.csv", "INFY.parquet", "SOURCES.md", ".hidden.csv", "LICENSE"):
        (tmp_path / name).write_text("x")
    (tmp_path / "folder.csv").mkdir()
    assert [file.path.name for file in data_files(tmp_path)] == ["INFY.parquet", "TCS.csv"]


def test_data_files_without_data_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no \.csv or \.parquet file in the folder"):
        data_files(tmp_path)
    with pytest.raises(DataError, match="does not exist; give"):
        data_files(tmp_path / "absent.csv")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataError, match=r"neither \.csv nor \.parquet"):
        data_files(tmp_path / "notes.txt")


def test_require_named_symbol_without_one_says_how_to_name_the_file(tmp_path: Path) -> None:
    (tmp_path / "two words.csv").write_text("x")
    with pytest.raises(DataError, match=r"name it like TCS\.csv"):
        require_named_symbol(data_files(tmp_path)[0])


@pytest.mark.parametrize("text", ["TCS", "M&M", "BAJAJ-AUTO", "20MICRONS"])
def test_is_symbol_of_the_exchange_is_true(text: str) -> None:
    assert is_symbol(text)


@pytest.mark.parametrize("text", ["", "tcs", "T C", "-A", "A" * 31, "TCS\n", "ТCS"])
def test_is_symbol_of_anything_else_is_false(text: str) -> None:
    assert not is_symbol(text)


def test_the_exchanges_daily_file_is_neither_ticks_nor_bars_and_says_so() -> None:
    prices = ["OPEN_PRICE", "HIGH_PRICE", "LOW_PRICE", "LAST_PRICE", "CLOSE_PRICE"]
    names = ["DATE", "SYMBOL", *prices, "TTL_TRD_QNTY"]
    assert not is_tick_header(names)
    with pytest.raises(DataError, match="one row a day"):
        map_columns(names, Path("daily.csv"))


def test_file_that_is_no_text_is_named_for_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "TCS.csv"
    path.write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\1\0\n\xff\xfe\n")
    with pytest.raises(DataError, match=r"TCS\.csv is not a CSV file: .* export it again, the first line names the columns"):
        csv_header(path, None)
