"""What the columns of a file mean.

- A file is recognised by its columns alone; `LAYOUTS` is the table, in order of preference.
- Column names are compared without case and surrounding blanks; a column that is not needed is ignored.
- yfinance names columns by field and share (`('Close', 'TCS.NS')`, or two lines of a CSV header): such a file is several
  blocks, one for each share.
- This module decides; `csv_source` and `parquet_source` read. Which files there are is `folders`' part.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from velox_core.domain.errors import DataError
from velox_core.feeds.folders import DataFile, exchange_symbol
from velox_core.feeds.options import Stamps

VALUE_COLUMNS = ("open", "high", "low", "close", "volume")
SYMBOL_COLUMN = "symbol"
TICK_TIME_COLUMNS = (
    "timestamp",
    "timestamp_ns",
    "timestamp_us",
    "timestamp_ms",
    "timestamp_s",
    "ts",
    "datetime",
    "time",
    "date",
)
TICK_PRICE_COLUMNS = ("ltp", "last_price", "price")
_ALIASES: Mapping[str, tuple[str, ...]] = {
    "open": ("o",),
    "high": ("h",),
    "low": ("l",),
    "close": ("c",),
    "volume": ("v", "vol"),
    "symbol": ("tradingsymbol", "ticker"),
}
_PAIR = re.compile(r"\('([^']*)', '([^']*)'\)")
_NAMES_SHOWN_MAX = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """One kind of bar file.

    Attributes:
        name: for people.
        time_columns: names of the time column, lower case; the layout is recognised by them.
        naive_allowed: whether a time without an offset can be read at all.
        stamps: which end of a bar is stamped where the bars do not show it; None: nobody knows.
        exact: the format is defined by docs/data-format.md, so nothing about it is guessed.
        integer_times: whole numbers are epoch times.
    """

    name: str
    time_columns: tuple[str, ...]
    naive_allowed: bool
    stamps: Stamps | None
    exact: bool = False
    integer_times: bool = True


STORE = Layout(
    name="VELOX columnar",
    time_columns=("ts",),
    naive_allowed=False,
    stamps=Stamps.START,
    exact=True,
    integer_times=False,
)
OWN = Layout(name="VELOX bars", time_columns=("ts",), naive_allowed=False, stamps=Stamps.START, exact=True, integer_times=False)
LAYOUTS = (
    OWN,
    Layout(name="Zerodha export", time_columns=("date",), naive_allowed=True, stamps=Stamps.START),
    Layout(name="yfinance", time_columns=("datetime",), naive_allowed=True, stamps=Stamps.START),
    Layout(
        name="epoch bars",
        time_columns=("timestamp_ns", "timestamp_us", "timestamp_ms", "timestamp_s"),
        naive_allowed=False,
        stamps=Stamps.START,
    ),
    Layout(name="minute bars", time_columns=("timestamp", "time", "date_time"), naive_allowed=True, stamps=None),
)
_STORE_VALUES = ("open_paise", "high_paise", "low_paise", "close_paise", "volume")
_UNIT_OF_SUFFIX = {"_ns": 1_000_000, "_us": 1_000, "_ms": 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnMap:
    """The positions of the needed columns of one share, or of all shares of a file that names them row by row.

    Attributes:
        layout: what the file is.
        time: position of the time column.
        values: positions, in the order of VALUE_COLUMNS.
        symbol: position of the symbol column, None without one.
        share: the share whose columns these are, '' when the file or its rows name it.
        per_rupee: what a price of one rupee is in the file: 1, or 100 where prices are paise.
    """

    layout: Layout
    time: int
    values: tuple[int, ...]
    symbol: int | None
    share: str = ""
    per_rupee: int = 1

    @property
    def needed(self) -> tuple[int, ...]:
        """Return all positions that are read."""
        return (self.time, *self.values, *(() if self.symbol is None else (self.symbol,)))


def map_columns(names: Sequence[str], path: Path) -> ColumnMap:
    """Find the needed columns by name.

    Args:
        names: the column names of the file, in order.
        path: the file, for the message.
    Raises: DataError that lists what is missing, or named twice, and what the file has.
    """
    plain = [name.strip().lower() for name in names]
    if "ts" in plain and all(name in plain for name in (*_STORE_VALUES, SYMBOL_COLUMN)):
        found: Sequence[str] = _STORE_VALUES
        layout: Layout | None = STORE
    else:
        found = [_present(plain, name) for name in VALUE_COLUMNS]
        layout = next((layout for layout in LAYOUTS if any(name in plain for name in layout.time_columns)), None)
    missing = [name for name, there in zip(VALUE_COLUMNS, found, strict=True) if not there]
    if layout is None:
        missing.insert(0, " or ".join(layout.time_columns[0] for layout in LAYOUTS))
    if {"open_price", "close_price", "ttl_trd_qnty"} <= set(plain):
        raise DataError(
            f"{path} has one row a day (the exchange's daily file), which cannot be traded within the day; "
            "give a file of minute bars or of ticks, see docs/data-format.md"
        )
    if missing or layout is None:
        raise DataError(f"{path} has no column {', '.join(missing)}; it has {_shown(names)}; see docs/data-format.md")
    time_column = next(name for name in layout.time_columns if name in plain)
    symbol = _present(plain, SYMBOL_COLUMN)
    twice = [name for name in (time_column, *found, symbol) if name and plain.count(name) > 1]
    if twice:
        raise DataError(f"{path} has more than one column {', '.join(twice)}; keep one of each name")
    return ColumnMap(
        layout=layout,
        time=plain.index(time_column),
        values=tuple(plain.index(name) for name in found),
        symbol=plain.index(symbol) if symbol else None,
        per_rupee=100 if layout is STORE else 1,
    )


def map_blocks(names: Sequence[str], path: Path) -> tuple[ColumnMap, ...]:
    """Find the columns of each share of a file; one block where the columns do not name shares. Raises DataError."""
    pairs = [_PAIR.fullmatch(name.strip()) for name in names]
    shares = list(dict.fromkeys(pair[2] for pair in pairs if pair is not None and pair[2]))
    if not shares:
        return (map_columns(names, path),)
    blocks = []
    for share in shares:
        mine = [_name_for(name, pair, share) for name, pair in zip(names, pairs, strict=True)]
        columns = map_columns(mine, path)
        blocks.append(
            ColumnMap(
                layout=columns.layout,
                time=columns.time,
                values=columns.values,
                symbol=None,
                share=exchange_symbol(share),
            )
        )
    return tuple(blocks)


def is_tick_header(names: Sequence[str]) -> bool:
    """Return whether the columns are those of single trades: a time, a last price, and no open, high or low."""
    plain = {name.strip().lower() for name in names}
    has_both = any(name in plain for name in TICK_PRICE_COLUMNS) and any(name in plain for name in TICK_TIME_COLUMNS)
    return has_both and not any(name in plain for word in ("open", "high", "low") for name in (word, f"{word}_price"))


def time_divisor(name: str) -> int | None:
    """Return how many units of an integer time column make a millisecond (seconds: 0); None when its name does not say."""
    plain = name.strip().lower()
    if plain.endswith("_s"):
        return 0
    return next((divisor for suffix, divisor in _UNIT_OF_SUFFIX.items() if plain.endswith(suffix)), None)


def require_named_symbol(file: DataFile) -> str:
    """Return the symbol that the file's name gives. Raises DataError when the name gives none."""
    if not file.named_symbol:
        raise DataError(
            f"{file.path} has no symbol column and its name gives no symbol; name it like TCS.csv or TCS_minute.csv, "
            "or put it into a folder named TCS"
        )
    return file.named_symbol


def _name_for(name: str, pair: re.Match[str] | None, share: str) -> str:
    """Return a column's name as seen by one share; '' for a column of another."""
    if pair is None:
        return name
    return pair[1] if pair[2] in (share, "") else ""


def _present(plain: Sequence[str], name: str) -> str:
    """Return the name under which a column is there, '' when it is not."""
    return next((known for known in (name, *_ALIASES.get(name, ())) if known in plain), "")


def _shown(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name[:40]) for name in names[:_NAMES_SHOWN_MAX])
    return f"{shown} and {len(names) - _NAMES_SHOWN_MAX} more" if len(names) > _NAMES_SHOWN_MAX else shown
