"""The content of one bar file as numpy columns, as read and before any judgement.

- Times are epoch ms of the bar as stamped in the file, a time without an offset read as Indian; `UNREADABLE_MS` where
  the text is no time. `timing` makes the bar's START of them.
- Prices are rupees as float64, volume shares as float64; NaN where the text is no number. Nothing is dropped here.
- Text is read by one grammar of ASCII digits, so that nothing a file says can turn into another number.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from velox_core.domain.time import IST, MS_PER_MINUTE, epoch_ms
from velox_core.feeds.folders import exchange_symbol
from velox_core.feeds.layouts import OWN, Layout

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

UNREADABLE_MS = -(2**62)
NO_SYMBOL = -1
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?", re.ASCII)
_STAMP = re.compile(
    r"(?P<moment>\d{4}-\d\d-\d\d[ T]\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?)(?P<zone>Z|[+-]\d\d:?\d\d)?",
    re.ASCII,
)
_EPOCH = re.compile(r"-?\d{1,19}", re.ASCII)
_SECONDS_DIGITS_MAX, _MS_DIGITS_MAX, _US_DIGITS_MAX = 11, 14, 17


@dataclass(frozen=True, slots=True, kw_only=True)
class RawColumns:
    """One file as columns of equal length n.

    Attributes:
        file_name: for messages.
        symbols: distinct symbols.
        symbol_codes: int64[n], index into `symbols`, or NO_SYMBOL for a row without a valid one.
        ts_ms: int64[n], epoch ms, or UNREADABLE_MS.
        values: float64[5, n]: open, high, low, close in rupees, volume in shares.
        layout: what the file is.
        naive: bool[n], which times had no offset and were read as Indian; None: none of them.
        broken_rows: rows that could not even be split into fields; they are in no column.
        broken_example: the first of them.
        text_at: a field as written, by row and column (0 the time, 1 to 5 the values); None where it was never text.
        lines: int64[n], the row's place among the file's data rows from 1, where rows were left out; None: all are there.
    """

    file_name: str
    symbols: tuple[str, ...]
    symbol_codes: Ints
    ts_ms: Ints
    values: Floats
    layout: Layout = OWN
    naive: Mask | None = None
    broken_rows: int = 0
    broken_example: str = ""
    text_at: Callable[[int, int], str] | None = None
    lines: Ints | None = None

    def row_number(self, row: int) -> int:
        """Return a row's place among the file's data rows, from 1; rows that could not be split are not counted."""
        return row + 1 if self.lines is None else int(self.lines[row])

    def written(self, row: int, column: int) -> str:
        """Return a field as written, '' where it was never text."""
        if self.text_at is None:
            return ""
        return self.text_at(row if self.lines is None else int(self.lines[row]) - 1, column)


def number_from_text(text: str | None) -> float:
    """Read a decimal number; NaN for anything else."""
    stripped = "" if text is None else text.strip()
    return float(stripped) if _NUMBER.fullmatch(stripped) else float("nan")


def stamp_from_text(text: str | None, *, naive_is_ist: bool) -> int:
    """Read 'YYYY-MM-DD hh:mm[:ss[.fff]][offset]' as epoch ms; UNREADABLE_MS for anything else.

    Args:
        text: the field.
        naive_is_ist: read a time without an offset as Indian time; otherwise it is unreadable.
    """
    match = _STAMP.fullmatch("" if text is None else text.strip())
    if match is None or (match["zone"] is None and not naive_is_ist):
        return UNREADABLE_MS
    try:
        moment = datetime.fromisoformat(match["moment"])
        if match["zone"] is None:
            return epoch_ms(moment.replace(tzinfo=IST))
        return epoch_ms(moment.replace(tzinfo=UTC)) - _offset_ms(match["zone"])
    except (ValueError, OverflowError):
        return UNREADABLE_MS


def _offset_ms(zone: str) -> int:
    """Return the offset of 'Z', '+05:30' or '+0530' in ms. Raises ValueError past a day."""
    if zone == "Z":
        return 0
    hours, minutes = int(zone[1:3]), int(zone[-2:])
    if hours > 23 or minutes > 59:
        raise ValueError(f"{zone} is not an offset")
    size_ms = (hours * 60 + minutes) * MS_PER_MINUTE
    return -size_ms if zone[0] == "-" else size_ms


def has_offset(text: str) -> bool:
    """Return whether a time text ends in a UTC offset."""
    match = _STAMP.fullmatch(text.strip())
    return match is not None and match["zone"] is not None


def is_epoch(text: str) -> bool:
    """Return whether a time text is a whole number."""
    return _EPOCH.fullmatch(text.strip()) is not None


def epoch_from_text(text: str | None, *, divisor: int | None) -> int:
    """Read a whole number of s, ms, us or ns as epoch ms; UNREADABLE_MS for anything else.

    Args:
        text: the field.
        divisor: units in a millisecond, 0 for seconds; None takes the unit from the number of digits.
    """
    stripped = "" if text is None else text.strip()
    return ms_from_epoch(int(stripped), divisor=divisor) if _EPOCH.fullmatch(stripped) else UNREADABLE_MS


def ms_from_epoch(value: int, *, divisor: int | None) -> int:
    """Return an epoch time of any unit as ms; the arguments are those of `epoch_from_text`."""
    if divisor is None:
        divisor = epoch_divisor(value)
    ms = value * 1_000 if divisor == 0 else value // divisor
    return ms if abs(ms) < -UNREADABLE_MS else UNREADABLE_MS


def epoch_divisor(value: int) -> int:
    """Return the unit of an epoch time by its digits (2001 to 2286): 0 for seconds, else units in a millisecond."""
    digits = len(str(abs(value)))
    if digits <= _SECONDS_DIGITS_MAX:
        return 0
    return 1 if digits <= _MS_DIGITS_MAX else 1_000 if digits <= _US_DIGITS_MAX else 1_000_000


def numbers_from_texts(texts: Iterable[str | None]) -> Floats:
    """Read a column of numbers; NaN where there is none."""
    return np.fromiter((number_from_text(text) for text in texts), dtype=np.float64)


def stamps_from_texts(texts: Iterable[str | None], *, naive_is_ist: bool) -> Ints:
    """Read a column of times as epoch ms; UNREADABLE_MS where there is none."""
    return np.fromiter((stamp_from_text(text, naive_is_ist=naive_is_ist) for text in texts), dtype=np.int64)


def times_from_texts(texts: list[str | None], layout: Layout, divisor: int | None) -> tuple[Ints, Mask]:
    """Read a column of times as a layout allows them, and which of them had no offset.

    Args:
        texts: the column.
        layout: whether a time may lack an offset, and whether it may be a whole number.
        divisor: the unit that the column's name gives to whole numbers; see `epoch_from_text`.
    """
    stamps: list[int] = []
    naive: list[bool] = []
    for text in texts:
        if layout.integer_times and text is not None and is_epoch(text):
            stamps.append(epoch_from_text(text, divisor=divisor))
            naive.append(False)
        else:
            stamps.append(stamp_from_text(text, naive_is_ist=layout.naive_allowed))
            naive.append(stamps[-1] != UNREADABLE_MS and not has_offset(text or ""))
    return np.array(stamps, dtype=np.int64), np.array(naive, dtype=np.bool_)


def codes_from_texts(texts: Iterable[str | None]) -> tuple[tuple[str, ...], Ints]:
    """Number the distinct symbols of a column, in order of appearance. NSE's own; NO_SYMBOL where it is none."""
    known: dict[str, int] = {}
    code_of_text: dict[str | None, int] = {}
    codes: list[int] = []
    for text in texts:
        code = code_of_text.get(text)
        if code is None:
            symbol = exchange_symbol(text or "")
            code = known.setdefault(symbol, len(known)) if symbol else NO_SYMBOL
            code_of_text[text] = code
        codes.append(code)
    return tuple(known), np.array(codes, dtype=np.int64)


def column_symbols(texts: Iterable[str | None] | None, named_symbol: str, size: int) -> tuple[tuple[str, ...], Ints]:
    """Return a file's symbols and the code of each row: from its symbol column, or all `named_symbol` without one."""
    return ((named_symbol,), np.zeros(size, dtype=np.int64)) if texts is None else codes_from_texts(texts)


def floats_from_arrow(column: Any) -> Floats:
    """Return a pyarrow float64 column as numpy; NaN for nulls."""
    array = column.combine_chunks()
    return np.asarray(np.from_dlpack(array.fill_null(float("nan")) if array.null_count else array), dtype=np.float64)


def ints_from_arrow(array: Any) -> tuple[Ints, Mask]:
    """Return a pyarrow int64 array as numpy (0 for nulls), and which entries are not null."""
    if not array.null_count:
        return np.asarray(np.from_dlpack(array), dtype=np.int64), np.ones(len(array), dtype=np.bool_)
    valid = np.array(array.is_valid().to_pylist(), dtype=np.bool_)
    return np.asarray(np.from_dlpack(array.fill_null(0)), dtype=np.int64), valid


def stacked(file_name: str, blocks: list[RawColumns]) -> RawColumns:
    """Join the blocks of one file, one share each; a row without any value in a block is no bar of its share."""
    if len(blocks) == 1:
        return blocks[0]
    symbols = tuple(dict.fromkeys(symbol for block in blocks for symbol in block.symbols))
    there = [~np.isnan(block.values).all(axis=0) for block in blocks]
    codes = [
        np.full(int(rows.sum()), symbols.index(block.symbols[0]) if block.symbols[0] else NO_SYMBOL, dtype=np.int64)
        for block, rows in zip(blocks, there, strict=True)
    ]
    no_naive = np.zeros(blocks[0].ts_ms.size, dtype=np.bool_)
    naives = [no_naive if block.naive is None else block.naive for block in blocks]
    return RawColumns(
        file_name=file_name,
        symbols=symbols,
        symbol_codes=np.concatenate(codes),
        ts_ms=np.concatenate([block.ts_ms[rows] for block, rows in zip(blocks, there, strict=True)]),
        values=np.concatenate([block.values[:, rows] for block, rows in zip(blocks, there, strict=True)], axis=1),
        layout=blocks[0].layout,
        naive=np.concatenate([naive[rows] for naive, rows in zip(naives, there, strict=True)]),
        broken_rows=blocks[0].broken_rows,
        broken_example=blocks[0].broken_example,
        lines=np.concatenate([np.nonzero(rows)[0] + 1 for rows in there]),
    )
