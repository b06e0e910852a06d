"""Reads a CSV file of ticks into `RawTicks`.

- A tick file has the columns `timestamp` and `ltp`; `volume` is the day's cumulative volume, `symbol` may be missing.
- A time without an offset is Indian time. pyarrow splits the rows, each field is read by the grammar of `columns`.
- Rows with too many or too few fields are counted and left out. Quotes count only where the header has them: a lone quote
  would swallow every row until the next.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from velox_core.domain.errors import DataError
from velox_core.feeds.columns import Ints, column_symbols, numbers_from_texts, stamp_from_text
from velox_core.feeds.layouts import CSV_SUFFIX, DataFile, require_named_symbol
from velox_core.feeds.tick_columns import RawTicks

TIME_COLUMN = "timestamp"
PRICE_COLUMN = "ltp"
VOLUME_COLUMN = "volume"
SYMBOL_COLUMN = "symbol"
_HEADER_BYTES_MAX = 65_536
_EXAMPLE_LENGTH_MAX = 80


def is_tick_file(file: DataFile) -> bool:
    """Return whether a file's first line names the columns of ticks. A file that cannot be read is none."""
    if file.path.suffix.lower() != CSV_SUFFIX:
        return False
    try:
        names = _names(file.path)
    except OSError:
        return False
    return TIME_COLUMN in names and PRICE_COLUMN in names


def read_tick_csv(file: DataFile) -> RawTicks:
    """Read a file. Raises DataError when it cannot be read as CSV, names a column twice, or its symbol is not known."""
    names = _names(file.path)
    twice = [name for name in (TIME_COLUMN, PRICE_COLUMN, VOLUME_COLUMN, SYMBOL_COLUMN) if names.count(name) > 1]
    if twice:
        raise DataError(f"{file.path} has more than one column {', '.join(twice)}; keep one of each name")
    named_symbol = "" if SYMBOL_COLUMN in names else require_named_symbol(file)
    broken: list[str] = []
    table = _table(file.path, names, broken)
    size = table.num_rows
    prices = numbers_from_texts(_texts(table, names, PRICE_COLUMN))
    volumes = numbers_from_texts(_texts(table, names, VOLUME_COLUMN)) if VOLUME_COLUMN in names else np.zeros(size)
    texts = _texts(table, names, SYMBOL_COLUMN) if SYMBOL_COLUMN in names else None
    symbols, codes = column_symbols(texts, named_symbol, size)
    return RawTicks(
        file_name=file.path.name,
        symbols=symbols,
        symbol_codes=codes,
        ts_ms=_stamps(_texts(table, names, TIME_COLUMN)),
        prices=prices,
        volumes=volumes,
        broken_rows=len(broken),
        broken_example=broken[0][:_EXAMPLE_LENGTH_MAX] if broken else "",
    )


def _header(path: Path) -> str:
    """Return the first line. Raises OSError."""
    with path.open("rb") as stream:
        return stream.readline(_HEADER_BYTES_MAX).decode("utf-8-sig", errors="replace")


def _names(path: Path) -> list[str]:
    """Return the column names of the first line, lower case. Raises OSError."""
    return [name.strip().strip('"').strip().lower() for name in _header(path).split(",")]


def _table(path: Path, names: list[str], broken: list[str]) -> Any:
    """Read every column as text, byte for byte: what is not ASCII is no time, number or symbol anyway."""
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    def skip(row: Any) -> str:
        broken.append(str(row.text))
        return "skip"

    columns = [f"c{index}" for index in range(len(names))]
    quote: Any = '"' if '"' in _header(path) else False
    try:
        return arrow_csv.read_csv(
            str(path),
            read_options=arrow_csv.ReadOptions(column_names=columns, skip_rows=1, use_threads=False, encoding="latin-1"),
            parse_options=arrow_csv.ParseOptions(quote_char=quote, invalid_row_handler=skip),
            convert_options=arrow_csv.ConvertOptions(column_types={name: pa.string() for name in columns}),
        )
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else "unreadable"
        raise DataError(f"{path} cannot be read as CSV: {reason}; export it again") from error


def _texts(table: Any, names: list[str], name: str) -> list[str | None]:
    texts: list[str | None] = table.column(f"c{names.index(name)}").to_pylist()
    return texts


def _stamps(texts: list[str | None]) -> Ints:
    """Read a column of times. Ticks of one second repeat its text, so that each text is read once."""
    known: dict[str | None, int] = {}
    stamps = np.empty(len(texts), dtype=np.int64)
    for index, text in enumerate(texts):
        stamp = known.get(text)
        if stamp is None:
            stamp = known[text] = stamp_from_text(text, naive_is_ist=True)
        stamps[index] = stamp
    return stamps
