"""Reads a Parquet file of bars into `RawColumns`.

- Times are timestamps (any unit), with a zone, or naive where the layout says that this is Indian time; or text.
- Prices and volume are any number type, or text.
- Only the needed columns are read; pyarrow is imported on first use.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from velox_core.domain.errors import DataError
from velox_core.domain.time import IST_OFFSET_MS
from velox_core.feeds.columns import (
    UNREADABLE_MS,
    Floats,
    Ints,
    RawColumns,
    column_symbols,
    floats_from_arrow,
    ints_from_arrow,
    numbers_from_texts,
    stamps_from_texts,
)
from velox_core.feeds.layouts import ColumnMap, DataFile, map_columns, require_named_symbol

if TYPE_CHECKING:
    from typing import Any

_DIVISOR_TO_MS = {"ms": 1, "us": 1_000, "ns": 1_000_000}  # Parquet has no timestamps in seconds


def read_parquet(file: DataFile) -> RawColumns:
    """Read a file. Raises DataError when it is no Parquet file, or a column is missing or of a wrong type."""
    import pyarrow as pa

    try:
        return _columns(file)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:  # pyarrow decodes damaged names and texts in Python
        reason = str(error).splitlines()[0] if str(error) else "unreadable"
        raise DataError(f"{file.path} cannot be read as Parquet: {reason}; export it again") from error


def _columns(file: DataFile) -> RawColumns:
    table, columns, names = _table(file)
    symbol = "" if columns.symbol is not None else require_named_symbol(file)
    stamps = _stamps(table.column(names[columns.time]), file.path, naive_is_ist=columns.layout.naive_is_ist)
    values = np.stack([_numbers(table.column(names[index]), names[index], file.path) for index in columns.values])
    texts = None if columns.symbol is None else _texts(table.column(names[columns.symbol]), names[columns.symbol], file.path)
    symbols, codes = column_symbols(texts, symbol, stamps.size)
    return RawColumns(file_name=file.path.name, symbols=symbols, symbol_codes=codes, ts_ms=stamps, values=values)


def _table(file: DataFile) -> tuple[Any, ColumnMap, list[str]]:
    from pyarrow.parquet.core import ParquetFile

    with ParquetFile(str(file.path)) as parquet:
        names = list(parquet.schema_arrow.names)
        columns = map_columns(names, file.path)
        needed = [columns.time, *columns.values, *([] if columns.symbol is None else [columns.symbol])]
        return parquet.read(columns=[names[index] for index in needed], use_threads=False), columns, names


def _stamps(column: Any, path: Path, *, naive_is_ist: bool) -> Ints:
    import pyarrow as pa

    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return stamps_from_texts(column.to_pylist(), naive_is_ist=naive_is_ist)
    if not pa.types.is_timestamp(kind) or kind.unit not in _DIVISOR_TO_MS:
        raise DataError(f"{path}: the time column is {kind}; it must be a timestamp or text, see docs/data-format.md")
    if kind.tz is None and not naive_is_ist:
        raise DataError(f"{path}: the time column has no time zone; write it with one, see docs/data-format.md")
    counts, valid = ints_from_arrow(column.combine_chunks().view(pa.int64()))
    stamps = counts // _DIVISOR_TO_MS[kind.unit]
    if kind.tz is None:
        valid = valid & (stamps > UNREADABLE_MS)
        stamps = np.where(valid, stamps, 0) - IST_OFFSET_MS
    return np.where(valid, stamps, UNREADABLE_MS)


def _numbers(column: Any, name: str, path: Path) -> Floats:
    import pyarrow as pa

    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return numbers_from_texts(column.to_pylist())
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind)):
        raise DataError(f"{path}: the column {name!r} is {kind}; it must hold numbers")
    return floats_from_arrow(column if pa.types.is_float64(kind) else column.cast(pa.float64(), safe=False))


def _texts(column: Any, name: str, path: Path) -> list[str | None]:
    import pyarrow as pa

    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        raise DataError(f"{path}: the column {name!r} is {kind}; it must hold text")
    texts: list[str | None] = column.to_pylist()
    return texts
