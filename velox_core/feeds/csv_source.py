"""Reads a CSV file of bars into `RawColumns`.

- A clean file is converted by pyarrow in one pass. A file with any field that is no time or no number is read again
  as text and converted field by field, so that one bad row costs time and not the day.
- Rows with too many or too few fields are counted and left out.
- pyarrow is imported on first use: a day without CSV files does not pay for it.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from velox_core.domain.errors import DataError
from velox_core.domain.time import IST_OFFSET_MS
from velox_core.feeds.columns import (
    UNREADABLE_MS,
    Ints,
    RawColumns,
    column_symbols,
    floats_from_arrow,
    has_offset,
    ints_from_arrow,
    numbers_from_texts,
    stamps_from_texts,
)
from velox_core.feeds.layouts import ColumnMap, DataFile, map_columns, require_named_symbol

if TYPE_CHECKING:
    from typing import Any

_LINE_BYTES_MAX = 65_536
_EXAMPLE_LENGTH_MAX = 80


@dataclass(slots=True)
class _BrokenRows:
    """What pyarrow could not split into the right number of fields."""

    texts: list[str] = field(default_factory=list)
    count: int = 0

    def skip(self, row: Any) -> str:
        if not self.count:
            self.texts.append(str(row.text)[:_EXAMPLE_LENGTH_MAX])
        self.count += 1
        return "skip"


def read_csv(file: DataFile) -> RawColumns:
    """Read a file. Raises DataError when it is empty, lacks a column, or is no CSV."""
    names, first_row = _header(file.path)
    columns = map_columns(names, file.path)
    symbol = "" if columns.symbol is not None else require_named_symbol(file)
    with_offset = not columns.layout.naive_is_ist or len(first_row) <= columns.time or has_offset(first_row[columns.time])
    broken = _BrokenRows()
    try:
        table = _table(file.path, len(names), columns, None, typed_with_offset=with_offset)
        stamps = _typed_stamps(table.column(_name(columns.time)), naive=not with_offset)
        values = np.stack([floats_from_arrow(table.column(_name(index))) for index in columns.values])
    except _arrow_errors():
        table = _text_table(file.path, len(names), columns, broken)
        stamps = stamps_from_texts(table.column(_name(columns.time)).to_pylist(), naive_is_ist=columns.layout.naive_is_ist)
        values = np.stack([numbers_from_texts(table.column(_name(index)).to_pylist()) for index in columns.values])
    texts = None if columns.symbol is None else table.column(_name(columns.symbol)).to_pylist()
    symbols, codes = column_symbols(texts, symbol, stamps.size)
    return RawColumns(
        file_name=file.path.name,
        symbols=symbols,
        symbol_codes=codes,
        ts_ms=stamps,
        values=values,
        broken_rows=broken.count,
        broken_example=broken.texts[0] if broken.texts else "",
    )


def _header(path: Path) -> tuple[list[str], list[str]]:
    """Return the fields of the first two lines."""
    try:
        with path.open("rb") as stream:
            lines = [stream.readline(_LINE_BYTES_MAX) for _ in range(2)]
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; check that it is a readable file") from error
    if not lines[0].strip():
        raise DataError(f"{path} is empty or begins with an empty line; its first line must name the columns")
    if not lines[1]:
        raise DataError(f"{path} has one line and no bars; its first line names the columns, the bars follow it")
    texts = [line.decode("utf-8-sig", errors="replace") for line in lines]
    try:
        fields = [next(csv.reader([text.replace("\0", "")]), []) for text in texts]
    except csv.Error as error:
        raise DataError(f"{path} is not a CSV file ({error}); its first line must name the columns") from error
    return fields[0], fields[1]


def _name(index: int) -> str:
    return f"c{index}"


def _arrow_errors() -> tuple[type[Exception], ...]:
    import pyarrow as pa

    return (pa.ArrowException, OSError)


def _table(
    path: Path,
    width: int,
    columns: ColumnMap,
    broken: _BrokenRows | None,
    *,
    typed_with_offset: bool | None,
    encoding: str = "utf8",
) -> Any:
    """Read the needed columns, typed, or as text when `typed_with_offset` is None.

    Without `broken` a row with a wrong number of fields is an error. pyarrow can tell of such a row only in valid UTF-8.
    """
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    needed = [columns.time, *columns.values, *([] if columns.symbol is None else [columns.symbol])]
    types = {_name(index): pa.string() for index in needed}
    if typed_with_offset is not None:
        types[_name(columns.time)] = pa.timestamp("ms", tz="UTC") if typed_with_offset else pa.timestamp("ms")
        types.update({_name(index): pa.float64() for index in columns.values})
    return arrow_csv.read_csv(
        str(path),
        read_options=arrow_csv.ReadOptions(
            column_names=[_name(index) for index in range(width)], skip_rows=1, use_threads=False, encoding=encoding
        ),
        parse_options=arrow_csv.ParseOptions(invalid_row_handler=None if broken is None else broken.skip),
        convert_options=arrow_csv.ConvertOptions(include_columns=[_name(index) for index in needed], column_types=types),
    )


def _text_table(path: Path, width: int, columns: ColumnMap, broken: _BrokenRows) -> Any:
    """Read the needed columns as text, byte for byte: what is not ASCII is no time, number or symbol anyway."""
    try:
        return _table(path, width, columns, broken, typed_with_offset=None, encoding="latin-1")
    except _arrow_errors() as error:
        reason = str(error).splitlines()[0] if str(error) else "unreadable"
        raise DataError(f"{path} cannot be read as CSV: {reason}; export it again") from error


def _typed_stamps(column: Any, *, naive: bool) -> Ints:
    import pyarrow as pa

    stamps, valid = ints_from_arrow(column.combine_chunks().view(pa.int64()))
    return np.where(valid, stamps - IST_OFFSET_MS if naive else stamps, UNREADABLE_MS)
