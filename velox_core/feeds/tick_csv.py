"""Reads a CSV file of ticks into `RawTicks`.

- A tick file has a time and a last price (`layouts`); `volume` is the day's cumulative volume, `symbol` may be missing. A
  `.csv.zst` is unpacked into memory.
- A time without an offset is read as Indian time; `timing` says what it is.
- pyarrow splits the rows, each field is read by the grammar of `columns`.
- Rows with too many or too few fields are counted and left out. Quotes count only where the header has them: a lone quote
  would swallow every row until the next.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from velox_core.domain.errors import DataError
from velox_core.feeds.columns import Ints, Mask, column_symbols, numbers_from_texts, times_from_texts
from velox_core.feeds.csv_source import first_line, unpacked_bytes
from velox_core.feeds.folders import DataFile
from velox_core.feeds.layouts import (
    SYMBOL_COLUMN,
    TICK_PRICE_COLUMNS,
    TICK_TIME_COLUMNS,
    Layout,
    is_tick_header,
    require_named_symbol,
    time_divisor,
)
from velox_core.feeds.tick_columns import RawTicks

VOLUME_COLUMN = "volume"
_EXAMPLE_LENGTH_MAX = 80
_TIMES = Layout(name="ticks", time_columns=TICK_TIME_COLUMNS, naive_allowed=True, stamps=None)


def is_tick_file(file: DataFile) -> bool:
    """Return whether a file's first line names the columns of ticks. A file that cannot be read is none."""
    if file.is_parquet:
        return False
    try:
        return is_tick_header(_names(first_line(file.path)))
    except DataError:
        return False


def read_tick_csv(file: DataFile) -> RawTicks:
    """Read a file. Raises DataError when it cannot be read as CSV, names a column twice, or its symbol is not known."""
    content = unpacked_bytes(file.path)
    header = first_line(file.path, content)
    names = _names(header)
    if not is_tick_header(names):
        raise DataError(f"{file.path} has not the columns of ticks: a time and a last price, such as timestamp and ltp")
    time_column = next(name for name in TICK_TIME_COLUMNS if name in names)
    price_column = next(name for name in TICK_PRICE_COLUMNS if name in names)
    twice = [name for name in (time_column, price_column, VOLUME_COLUMN, SYMBOL_COLUMN) if names.count(name) > 1]
    if twice:
        raise DataError(f"{file.path} has more than one column {', '.join(twice)}; keep one of each name")
    named_symbol = "" if SYMBOL_COLUMN in names else require_named_symbol(file)
    broken: list[str] = []
    table = _table(file.path, content, names, broken, quoted='"' in header)
    size = table.num_rows
    prices = numbers_from_texts(_texts(table, names, price_column))
    volumes = numbers_from_texts(_texts(table, names, VOLUME_COLUMN)) if VOLUME_COLUMN in names else np.zeros(size)
    texts = _texts(table, names, SYMBOL_COLUMN) if SYMBOL_COLUMN in names else None
    symbols, codes = column_symbols(texts, named_symbol, size)
    stamps, naive = _stamps(_texts(table, names, time_column), time_divisor(time_column))
    return RawTicks(
        file_name=file.path.name,
        symbols=symbols,
        symbol_codes=codes,
        ts_ms=stamps,
        prices=prices,
        volumes=volumes,
        naive=naive if naive.any() else None,
        broken_rows=len(broken),
        broken_example=broken[0][:_EXAMPLE_LENGTH_MAX] if broken else "",
    )


def _names(header: str) -> list[str]:
    """Return the column names of a first line, lower case."""
    return [name.strip().strip('"').strip().lower() for name in header.split(",")]


def _table(path: Path, content: bytes | None, names: list[str], broken: list[str], *, quoted: bool) -> Any:
    """Read every column as text, byte for byte: what is not ASCII is no time, number or symbol anyway."""
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    def skip(row: Any) -> str:
        broken.append(str(row.text))
        return "skip"

    columns = [f"c{index}" for index in range(len(names))]
    quote: Any = '"' if quoted else False
    try:
        return arrow_csv.read_csv(
            str(path) if content is None else pa.BufferReader(content),
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


def _stamps(texts: list[str | None], divisor: int | None) -> tuple[Ints, Mask]:
    """Read a column of times, and which of them had no offset. Ticks of one second repeat its text: each is read once."""
    distinct = list(dict.fromkeys(texts))
    stamps, naive = times_from_texts(distinct, _TIMES, divisor)
    place = {text: index for index, text in enumerate(distinct)}
    order = np.fromiter((place[text] for text in texts), dtype=np.int64, count=len(texts))
    return stamps[order], naive[order]
