"""The content of one bar file as numpy columns, as read and before any judgement.

- Times are epoch ms of the bar's START; `UNREADABLE_MS` where the text is no time.
- Prices are rupees as float64, volume shares as float64; NaN where the text is no number. Nothing is dropped here.
- Text is read by one grammar of ASCII digits, so that nothing a file says can turn into another number.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from velox_core.domain.time import IST, MS_PER_MINUTE, epoch_ms
from velox_core.feeds.layouts import is_symbol

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


@dataclass(frozen=True, slots=True, kw_only=True)
class RawColumns:
    """One file as columns of equal length n.

    Attributes:
        file_name: for messages.
        symbols: distinct symbols.
        symbol_codes: int64[n], index into `symbols`, or NO_SYMBOL for a row without a valid one.
        ts_ms: int64[n], start of the bar, epoch ms, or UNREADABLE_MS.
        values: float64[5, n]: open, high, low, close in rupees, volume in shares.
        broken_rows: rows that could not even be split into fields; they are in no column.
        broken_example: the first of them.
    """

    file_name: str
    symbols: tuple[str, ...]
    symbol_codes: Ints
    ts_ms: Ints
    values: Floats
    broken_rows: int = 0
    broken_example: str = ""


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


def numbers_from_texts(texts: Iterable[str | None]) -> Floats:
    """Read a column of numbers; NaN where there is none."""
    return np.fromiter((number_from_text(text) for text in texts), dtype=np.float64)


def stamps_from_texts(texts: Iterable[str | None], *, naive_is_ist: bool) -> Ints:
    """Read a column of times as epoch ms; UNREADABLE_MS where there is none."""
    return np.fromiter((stamp_from_text(text, naive_is_ist=naive_is_ist) for text in texts), dtype=np.int64)


def codes_from_texts(texts: Iterable[str | None]) -> tuple[tuple[str, ...], Ints]:
    """Number the distinct symbols of a column, in order of appearance. Upper case; NO_SYMBOL where it is none."""
    known: dict[str, int] = {}
    code_of_text: dict[str | None, int] = {}
    codes: list[int] = []
    for text in texts:
        code = code_of_text.get(text)
        if code is None:
            symbol = "" if text is None else text.strip().upper()
            code = known.setdefault(symbol, len(known)) if is_symbol(symbol) else NO_SYMBOL
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
