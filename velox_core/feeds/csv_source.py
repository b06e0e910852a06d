"""Reads a CSV file of bars into `RawColumns`.

- A clean file is converted by pyarrow in one pass. A file with any field that is no time or no number is read again
  as text and converted field by field, so that one bad row costs time and not the day.
- Rows with too many or too few fields are counted and left out.
- A `.csv.zst` is unpacked into memory, up to UNPACKED_BYTES_MAX. yfinance's three header lines are one header.
- pyarrow is imported on first use: a day without CSV files does not pay for it.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from velox_core.domain.errors import DataError
from velox_core.domain.time import IST_OFFSET_MS
from velox_core.feeds.columns import (
    UNREADABLE_MS,
    Ints,
    Mask,
    RawColumns,
    column_symbols,
    floats_from_arrow,
    has_offset,
    ints_from_arrow,
    is_epoch,
    ms_from_epoch,
    numbers_from_texts,
    stacked,
    times_from_texts,
)
from velox_core.feeds.folders import ZSTANDARD_SUFFIX, DataFile
from velox_core.feeds.layouts import ColumnMap, map_blocks, require_named_symbol, time_divisor

if TYPE_CHECKING:
    from typing import Any

_LINE_BYTES_MAX = 65_536
_EXAMPLE_LENGTH_MAX = 80
UNPACKED_BYTES_MAX = 2 * 1024**3
_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}


@dataclass(frozen=True, slots=True, kw_only=True)
class CsvHeader:
    """What stands above the rows: the columns' names, the first row's fields, and how many lines to skip."""

    names: list[str]
    first_row: list[str]
    lines: int


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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Content:
    """A file to be read: its path, its bytes when they had to be unpacked, its header."""

    path: Path
    unpacked: bytes | None
    header: CsvHeader


def read_csv(file: DataFile) -> RawColumns:
    """Read a file. Raises DataError when it is empty, lacks a column, or is no CSV."""
    unpacked = unpacked_bytes(file.path)
    content = _Content(path=file.path, unpacked=unpacked, header=csv_header(file.path, unpacked))
    blocks = map_blocks(content.header.names, file.path)
    named = "" if blocks[0].share or blocks[0].symbol is not None else require_named_symbol(file)
    needed = sorted({index for block in blocks for index in block.needed})
    try:
        return stacked(file.path.name, _typed_blocks(content, blocks, needed, named))
    except _arrow_errors():
        return stacked(file.path.name, _text_blocks(content, blocks, needed, named))


def unpacked_bytes(path: Path) -> bytes | None:
    """Return the content of a `.zst` file; None for any other. Raises DataError when it cannot be unpacked, or is too large."""
    if path.suffix.lower() != ZSTANDARD_SUFFIX:
        return None
    found = _unpacked(path, UNPACKED_BYTES_MAX + 1)
    if len(found) > UNPACKED_BYTES_MAX:
        raise DataError(f"{path} is larger than {UNPACKED_BYTES_MAX} bytes when unpacked; split it by date or share")
    return found


def _unpacked(path: Path, bytes_max: int) -> bytes:
    """Return the first bytes of what a `.zst` file holds. Raises DataError."""
    import zstandard

    try:
        with path.open("rb") as stream, zstandard.ZstdDecompressor().stream_reader(stream, read_across_frames=True) as reader:
            found: bytes = reader.read(bytes_max)
            return found
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; check that it is a readable file") from error
    except zstandard.ZstdError as error:
        raise DataError(f"{path} cannot be unpacked as zstandard ({error}); pack it again with `zstd`") from error


def first_line(path: Path, unpacked: bytes | None = None) -> str:
    """Return the first line of a CSV file, of a `.zst` too. Raises DataError when it cannot be read."""
    if unpacked is None and path.suffix.lower() == ZSTANDARD_SUFFIX:
        unpacked = _unpacked(path, _LINE_BYTES_MAX)
    try:
        with path.open("rb") if unpacked is None else io.BytesIO(unpacked) as stream:
            return stream.readline(_LINE_BYTES_MAX).decode("utf-8-sig", errors="replace")
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; check that it is a readable file") from error


def csv_header(path: Path, unpacked: bytes | None) -> CsvHeader:
    """Return the header of a CSV file and the fields of its first row. Raises DataError where there is none."""
    try:
        with path.open("rb") if unpacked is None else io.BytesIO(unpacked) as stream:
            lines = [stream.readline(_LINE_BYTES_MAX) for _ in range(4)]
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
        raise DataError(
            f"{path} is not a CSV file: its first line is no line of text; export it again, the first line names the columns"
        ) from error
    if len(fields[0]) == 1 and (word := next((word for sign, word in _SEPARATORS.items() if sign in texts[0]), "")):
        raise DataError(f"{path} has no column that can be told: it is separated by {word}; write it with commas")
    return _one_header(path, fields)


def _one_header(path: Path, fields: list[list[str]]) -> CsvHeader:
    """Join yfinance's three lines (Price, Ticker, Datetime) to one; any other header is its first line."""
    first, second, third, fourth = fields
    beginnings = [line[0].strip() if line else "" for line in (first, second)]
    if beginnings != ["Price", "Ticker"] or len(first) != len(second):
        return CsvHeader(names=first, first_row=second, lines=1)
    if not third or any(text.strip() for text in third[1:]) or not third[0].strip():
        raise DataError(f"{path} begins like a download of yfinance but its third line does not name the time; export it again")
    if not fourth:
        raise DataError(f"{path} has three header lines and no bars; export it again")
    time_name = "datetime" if third[0].strip().lower() == "date" else third[0]
    names = [time_name, *(f"('{name}', '{share}')" for name, share in zip(first[1:], second[1:], strict=True))]
    return CsvHeader(names=names, first_row=fourth, lines=3)


def _name(index: int) -> str:
    return f"c{index}"


def _arrow_errors() -> tuple[type[Exception], ...]:
    import pyarrow as pa

    return (pa.ArrowException, OSError)


def _table(
    content: _Content, needed: list[int], types: dict[str, Any], broken: _BrokenRows | None, *, encoding: str = "utf8"
) -> Any:
    """Read the needed columns by `types`.

    Without `broken` a row with a wrong number of fields is an error. pyarrow can tell of such a row only in valid UTF-8.
    """
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    source = str(content.path) if content.unpacked is None else pa.BufferReader(content.unpacked)
    return arrow_csv.read_csv(
        source,
        read_options=arrow_csv.ReadOptions(
            column_names=[_name(index) for index in range(len(content.header.names))],
            skip_rows=content.header.lines,
            use_threads=False,
            encoding=encoding,
        ),
        parse_options=arrow_csv.ParseOptions(invalid_row_handler=None if broken is None else broken.skip),
        convert_options=arrow_csv.ConvertOptions(include_columns=[_name(index) for index in needed], column_types=types),
    )


def _typed_blocks(content: _Content, blocks: tuple[ColumnMap, ...], needed: list[int], named: str) -> list[RawColumns]:
    """Read all columns by pyarrow's own conversion. Raises its errors for any field that it cannot convert."""
    import pyarrow as pa

    first = blocks[0]
    example = content.header.first_row[first.time] if len(content.header.first_row) > first.time else ""
    epoch = first.layout.integer_times and is_epoch(example)
    naive = not epoch and first.layout.naive_allowed and not has_offset(example)
    types = {_name(index): pa.float64() for index in needed}
    types[_name(first.time)] = pa.int64() if epoch else pa.timestamp("ms") if naive else pa.timestamp("ms", tz="UTC")
    if first.symbol is not None:
        types[_name(first.symbol)] = pa.string()
    table = _table(content, needed, types, None)
    column = table.column(_name(first.time)).combine_chunks()
    if epoch:
        stamps = epochs_from_arrow(column, time_divisor(content.header.names[first.time]))
    else:
        counts, valid = ints_from_arrow(column.view(pa.int64()))
        stamps = np.where(valid, counts - IST_OFFSET_MS if naive else counts, UNREADABLE_MS)
    marks = np.full(stamps.size, naive, dtype=np.bool_)
    return [
        _block(
            content,
            block,
            (stamps, marks),
            np.stack([floats_from_arrow(table.column(_name(index))) for index in block.values]),
            None if block.symbol is None else table.column(_name(block.symbol)).to_pylist(),
            named,
        )
        for block in blocks
    ]


def epochs_from_arrow(array: Any, divisor: int | None) -> Ints:
    """Return an int64 column of epoch times as ms; without a `divisor` each row's digits tell its unit."""
    counts, valid = ints_from_arrow(array)
    if divisor is None:
        return np.array(
            [ms_from_epoch(count, divisor=None) if good else UNREADABLE_MS
             for count, good in zip(counts.tolist(), valid.tolist(), strict=True)],
            dtype=np.int64,
        )  # fmt: skip
    seconds_max = -UNREADABLE_MS // 1_000
    if divisor == 0:
        valid = valid & (np.abs(counts) < seconds_max)
        return np.where(valid, np.where(valid, counts, 0) * 1_000, UNREADABLE_MS)
    stamps = counts // divisor
    return np.where(valid & (np.abs(stamps) < -UNREADABLE_MS), stamps, UNREADABLE_MS)


def _text_blocks(content: _Content, blocks: tuple[ColumnMap, ...], needed: list[int], named: str) -> list[RawColumns]:
    """Read the needed columns as text, byte for byte: what is not ASCII is no time, number or symbol anyway."""
    import pyarrow as pa

    broken = _BrokenRows()
    try:
        table = _table(content, needed, {_name(index): pa.string() for index in needed}, broken, encoding="latin-1")
    except _arrow_errors() as error:
        reason = str(error).splitlines()[0] if str(error) else "unreadable"
        raise DataError(f"{content.path} cannot be read as CSV: {reason}; export it again") from error
    texts: dict[int, list[str | None]] = {index: table.column(_name(index)).to_pylist() for index in needed}
    first = blocks[0]
    times = times_from_texts(texts[first.time], first.layout, time_divisor(content.header.names[first.time]))
    return [
        _block(
            content,
            block,
            times,
            np.stack([numbers_from_texts(texts[index]) for index in block.values]),
            None if block.symbol is None else texts[block.symbol],
            named,
            broken=broken,
            texts=texts,
        )
        for block in blocks
    ]


def _block(
    content: _Content,
    block: ColumnMap,
    times: tuple[Ints, Mask],
    values: Any,
    symbol_texts: list[str | None] | None,
    named: str,
    *,
    broken: _BrokenRows | None = None,
    texts: dict[int, list[str | None]] | None = None,
) -> RawColumns:
    stamps, naive = times
    symbols, codes = column_symbols(symbol_texts, block.share or named, stamps.size)

    def text_at(row: int, column: int) -> str:
        fields = (block.time, *block.values)
        return "" if texts is None else (texts[fields[column]][row] or "")[:_EXAMPLE_LENGTH_MAX]

    return RawColumns(
        file_name=content.path.name,
        symbols=symbols,
        symbol_codes=codes,
        ts_ms=stamps,
        values=values,
        layout=block.layout,
        naive=naive if naive.any() else None,
        broken_rows=0 if broken is None else broken.count,
        broken_example="" if broken is None or not broken.texts else broken.texts[0],
        text_at=None if texts is None else text_at,
    )
