"""Which files hold bars, and what their columns mean.

- A file is recognised by its columns alone; `LAYOUTS` is the table, in order of preference.
- Column names are compared without case and surrounding blanks; a column that is not needed is ignored.
- Without a `symbol` column the symbol is the file's name up to the first `_` or `.`: `TCS_minute.csv` holds TCS.
- This module decides; `csv_source` and `parquet_source` read.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from velox_core.domain.errors import DataError

CSV_SUFFIX = ".csv"
PARQUET_SUFFIX = ".parquet"
SUFFIXES = (CSV_SUFFIX, PARQUET_SUFFIX)
VALUE_COLUMNS = ("open", "high", "low", "close", "volume")
SYMBOL_COLUMN = "symbol"
_SYMBOL = re.compile(r"[A-Z0-9][A-Z0-9&-]{0,29}")
_NAMES_SHOWN_MAX = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """One kind of bar file, stamped at the START of the bar.

    Attributes:
        name: for people.
        time_column: name of the time column, lower case; it is what the layout is recognised by.
        naive_is_ist: whether a time without an offset is Indian time; otherwise it is refused.
    """

    name: str
    time_column: str
    naive_is_ist: bool


LAYOUTS = (
    Layout(name="VELOX bars", time_column="ts", naive_is_ist=False),  # docs/data-format.md
    Layout(name="Zerodha export", time_column="date", naive_is_ist=True),
    Layout(name="yfinance", time_column="datetime", naive_is_ist=True),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnMap:
    """The positions of the needed columns in a file. `values` follows VALUE_COLUMNS; `symbol` is None without one."""

    layout: Layout
    time: int
    values: tuple[int, ...]
    symbol: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFile:
    """One file of bars. `named_symbol` is the symbol its name gives, '' when the name gives none."""

    path: Path
    named_symbol: str


def data_files(path: Path) -> list[DataFile]:
    """Return the bar files at `path`: itself, or the CSV and Parquet files directly in that folder, by name.

    Raises DataError when there is nothing there that could hold bars.
    """
    if path.is_dir():
        try:
            found = sorted(child for child in path.iterdir() if _is_data_file(child))
        except OSError as error:
            raise DataError(f"cannot list {path}: {error.strerror}; check its permissions") from error
        if not found:
            raise DataError(f"no .csv or .parquet file in the folder {path}; put one file per symbol there")
        return [_data_file(child) for child in found]
    if not path.exists():
        raise DataError(f"{path} does not exist; give a .csv or .parquet file of bars, or a folder of them")
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(f"{path} is neither .csv nor .parquet; give such a file of bars, or a folder of them")
    return [_data_file(path)]


def is_symbol(text: str) -> bool:
    """Return whether `text` could be an exchange symbol: capital letters, digits, '&' and '-'."""
    return _SYMBOL.fullmatch(text) is not None


def map_columns(names: Sequence[str], path: Path) -> ColumnMap:
    """Find the needed columns by name.

    Args:
        names: the column names of the file, in order.
        path: the file, for the message.
    Raises: DataError that lists what is missing, or named twice, and what the file has.
    """
    plain = [name.strip().lower() for name in names]
    layout = next((layout for layout in LAYOUTS if layout.time_column in plain), None)
    missing = [name for name in VALUE_COLUMNS if name not in plain]
    if layout is None:
        missing.insert(0, " or ".join(layout.time_column for layout in LAYOUTS))
    if missing or layout is None:
        raise DataError(f"{path} has no column {', '.join(missing)}; it has {_shown(names)}; see docs/data-format.md")
    needed = (layout.time_column, *VALUE_COLUMNS, SYMBOL_COLUMN)
    twice = [name for name in needed if plain.count(name) > 1]
    if twice:
        raise DataError(f"{path} has more than one column {', '.join(twice)}; keep one of each name")
    return ColumnMap(
        layout=layout,
        time=plain.index(layout.time_column),
        values=tuple(plain.index(name) for name in VALUE_COLUMNS),
        symbol=plain.index(SYMBOL_COLUMN) if SYMBOL_COLUMN in plain else None,
    )


def require_named_symbol(file: DataFile) -> str:
    """Return the symbol that the file's name gives. Raises DataError when the name gives none."""
    if not file.named_symbol:
        raise DataError(
            f"{file.path} has no symbol column and its name gives no symbol; name it like TCS.csv or TCS_minute.csv"
        )
    return file.named_symbol


def _is_data_file(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def _data_file(path: Path) -> DataFile:
    symbol = re.split(r"[_.]", path.name, maxsplit=1)[0].upper()
    return DataFile(path=path, named_symbol=symbol if is_symbol(symbol) else "")


def _shown(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name[:40]) for name in names[:_NAMES_SHOWN_MAX])
    return f"{shown} and {len(names) - _NAMES_SHOWN_MAX} more" if len(names) > _NAMES_SHOWN_MAX else shown
