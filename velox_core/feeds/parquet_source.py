"""Reads a Parquet file of bars into `RawColumns`.

- Times are timestamps (any unit), with a zone, or naive where the layout allows it; whole numbers since 1970; or text.
- Prices and volume are any number type, or text; in the project's own columnar files prices are paise.
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
    Mask,
    RawColumns,
    column_symbols,
    floats_from_arrow,
    ints_from_arrow,
    numbers_from_texts,
    stacked,
    times_from_texts,
)
from velox_core.feeds.csv_source import epochs_from_arrow
from velox_core.feeds.folders import DataFile
from velox_core.feeds.layouts import ColumnMap, map_blocks, require_named_symbol, time_divisor

if TYPE_CHECKING:
    from typing import Any

_DIVISOR_TO_MS = {"ms": 1, "us": 1_000, "ns": 1_000_000}  # Parquet has no timestamps in seconds


def read_parquet(file: DataFile) -> RawColumns:
    """Read a file. Raises DataError when it is no Parquet file, or a column is missing or of a wrong type."""
    import pyarrow as pa

    try:
        return _columns(file)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:  # pyarrow decodes damaged names and texts in Python
        raise _unreadable(file.path, error) from error


def _columns(file: DataFile) -> RawColumns:
    table, blocks, names = _table(file)
    first = blocks[0]
    named = "" if first.share or first.symbol is not None else require_named_symbol(file)
    stamps, naive = _stamps(table.column(names[first.time]), file.path, first, names[first.time])
    found = []
    for block in blocks:
        values = np.stack([_numbers(table.column(names[index]), names[index], file.path) for index in block.values])
        if block.per_rupee != 1:
            values[:4] /= block.per_rupee
        texts = None if block.symbol is None else _texts(table.column(names[block.symbol]), names[block.symbol], file.path)
        symbols, codes = column_symbols(texts, block.share or named, stamps.size)
        found.append(
            RawColumns(
                file_name=file.path.name,
                symbols=symbols,
                symbol_codes=codes,
                ts_ms=stamps,
                values=values,
                layout=block.layout,
                naive=naive if naive.any() else None,
            )
        )
    return stacked(file.path.name, found)


def parquet_names(path: Path) -> list[str]:
    """Return the column names of a Parquet file. Raises DataError when it is none."""
    import pyarrow as pa
    from pyarrow.parquet.core import ParquetFile

    try:
        with ParquetFile(str(path)) as parquet:
            return list(parquet.schema_arrow.names)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> DataError:
    reason = str(error).splitlines()[0] if str(error) else "unreadable"
    return DataError(f"{path} cannot be read as Parquet: {reason}; export it again")


def _table(file: DataFile) -> tuple[Any, tuple[ColumnMap, ...], list[str]]:
    from pyarrow.parquet.core import ParquetFile

    with ParquetFile(str(file.path)) as parquet:
        names = list(parquet.schema_arrow.names)
        blocks = map_blocks(names, file.path)
        needed = sorted({index for block in blocks for index in block.needed})
        return parquet.read(columns=[names[index] for index in needed], use_threads=False), blocks, names


def _stamps(column: Any, path: Path, columns: ColumnMap, name: str) -> tuple[Ints, Mask]:
    """Return the times as epoch ms, and which of them had no zone."""
    import pyarrow as pa

    kind, layout = column.type, columns.layout
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return times_from_texts(column.to_pylist(), layout, time_divisor(name))
    if pa.types.is_integer(kind) and layout.integer_times:
        stamps = epochs_from_arrow(column.cast(pa.int64()).combine_chunks(), time_divisor(name))
        return stamps, np.zeros(stamps.size, dtype=np.bool_)
    if not pa.types.is_timestamp(kind) or kind.unit not in _DIVISOR_TO_MS:
        raise DataError(f"{path}: the time column is {kind}; it must be a timestamp or text, see docs/data-format.md")
    if kind.tz is None and not layout.naive_allowed:
        raise DataError(f"{path}: the time column has no time zone; write it with one, see docs/data-format.md")
    counts, valid = ints_from_arrow(column.combine_chunks().view(pa.int64()))
    stamps = counts // _DIVISOR_TO_MS[kind.unit]
    if kind.tz is None:
        valid = valid & (stamps > UNREADABLE_MS)
        stamps = np.where(valid, stamps, 0) - IST_OFFSET_MS
    return np.where(valid, stamps, UNREADABLE_MS), np.full(stamps.size, kind.tz is None, dtype=np.bool_)


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
