"""Which rows of a file may be traded on: the rules by name, and the count of what they refused.

- A row is kept as it is or dropped as a whole; no rule changes a price. The first rule that a row breaks names it.
- Rupees become paise once, here, rounded half up as `velox_core.domain.money` does.
- A repeated minute keeps its first row. Rows out of order are sorted, and counted though they are kept.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from velox_core.domain.market.bars import RowDrops
from velox_core.domain.money import paise_from_rupees
from velox_core.domain.time import IST_OFFSET_MS, MS_PER_DAY, MS_PER_MINUTE, ist_datetime
from velox_core.feeds.columns import NO_SYMBOL, UNREADABLE_MS, Floats, Ints, Mask, RawColumns

PLAUSIBLE_FROM_MS = 631_152_000_000  # 1990-01-01 UTC: before NSE traded on screens (1994)
PLAUSIBLE_TO_MS = 4_102_444_800_000  # 2100-01-01 UTC
PRICE_RUPEES_MAX = 10_000_000.0  # the dearest NSE share has stood near 150,000 rupees
VOLUME_MAX = 1e12
_TIE_WIDTH = 1e-3


class DropRule(StrEnum):
    """Why a row was refused (`OUT_OF_ORDER`: counted only). The order is the order of judgement."""

    BROKEN_ROW = "wrong number of fields"
    UNREADABLE_TIME = "unreadable time"
    IMPOSSIBLE_DATE = "impossible date"
    BAD_SYMBOL = "not a symbol"
    OFF_MINUTE = "not on a full minute"
    OFF_SESSION = "off session"
    NOT_A_NUMBER = "not a number"
    NOT_POSITIVE = "price not positive"
    TOO_LARGE = "price beyond any share"
    HIGH_BELOW_LOW = "high below low"
    OUTSIDE_RANGE = "open or close outside low and high"
    BAD_VOLUME = "volume negative, fractional or impossible"
    DUPLICATE = "duplicate"
    CONFLICTING_DUPLICATE = "conflicting duplicate"
    OUT_OF_ORDER = "out of order (sorted, kept)"


class DropTally:
    """Counts refused rows by rule, with the first example of each."""

    __slots__ = ("_counts", "_examples")

    def __init__(self) -> None:
        self._counts: dict[DropRule, int] = {}
        self._examples: dict[DropRule, str] = {}

    def add(self, rule: DropRule, count: int, example: str) -> None:
        """Count `count` rows under `rule`; the first example stays."""
        if count:
            self._counts[rule] = self._counts.get(rule, 0) + count
            self._examples.setdefault(rule, example)

    def drops(self) -> tuple[RowDrops, ...]:
        """Return what was counted, in the order of the rules."""
        return tuple(
            RowDrops(rule=rule.value, count=self._counts[rule], example=self._examples[rule])
            for rule in DropRule
            if rule in self._counts
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanRows:
    """Rows that may be traded on, in file order.

    Attributes:
        codes: int64[n], index into the file's symbols.
        ts_ms: int64[n], start of the bar, epoch ms.
        values: int64[5, n]: open, high, low, close in paise, volume in shares.
    """

    codes: Ints
    ts_ms: Ints
    values: Ints


def paise_column(rupees: Floats) -> Ints:
    """Turn finite rupees up to PRICE_RUPEES_MAX into paise, half up, each as `paise_from_rupees` would.

    A float next to half a paisa (1.005 is a little less in binary) is decided by its shortest decimal text.
    """
    scaled = rupees * 100.0
    floors = np.floor(scaled)
    paise: Ints = np.floor(scaled + 0.5).astype(np.int64)
    for index in zip(*np.nonzero(np.abs(scaled - floors - 0.5) < _TIE_WIDTH), strict=True):
        paise[index] = paise_from_rupees(float(rupees[index]))
    return paise


def plausible_days(ts_ms: Ints) -> Ints:
    """Return the IST day number (days since 1970-01-01) of each time; -1 where the time is unreadable or impossible."""
    plausible = (ts_ms >= PLAUSIBLE_FROM_MS) & (ts_ms < PLAUSIBLE_TO_MS)
    return np.where(plausible, (np.where(plausible, ts_ms, 0) + IST_OFFSET_MS) // MS_PER_DAY, -1)


def count_undated(raw: RawColumns, tally: DropTally) -> None:
    """Count the rows that belong to no date at all: broken, without a time, or stamped in an impossible year."""
    tally.add(DropRule.BROKEN_ROW, raw.broken_rows, f"{raw.file_name}: {raw.broken_example!r}")
    unreadable = raw.ts_ms == UNREADABLE_MS
    impossible = ~unreadable & ((raw.ts_ms < PLAUSIBLE_FROM_MS) | (raw.ts_ms >= PLAUSIBLE_TO_MS))
    for rule, mask in ((DropRule.UNREADABLE_TIME, unreadable), (DropRule.IMPOSSIBLE_DATE, impossible)):
        count = int(np.count_nonzero(mask))
        if count:
            tally.add(rule, count, f"{raw.file_name}: data row {int(np.argmax(mask)) + 1} of those that split into fields")


def clean_rows(raw: RawColumns, rows: Ints, windows_ms: Iterable[tuple[int, int]], tally: DropTally) -> CleanRows:
    """Judge rows of one date by every rule that looks at one row alone.

    Args:
        raw: the file.
        rows: int64, indexes of the rows to judge.
        windows_ms: half-open [start, end) of the date's continuous trading, epoch ms; a bar lies in one as a whole.
        tally: takes the counts.
    """
    codes, ts_ms, values = raw.symbol_codes[rows], raw.ts_ms[rows], raw.values[:, rows]
    prices, volume = values[:4], values[4]
    on_session = np.zeros(ts_ms.size, dtype=np.bool_)
    for start_ms, end_ms in windows_ms:
        on_session |= (ts_ms >= start_ms) & (ts_ms + MS_PER_MINUTE <= end_ms)
    with np.errstate(invalid="ignore"):
        finite = np.isfinite(prices).all(axis=0)
        usable = finite & (prices <= PRICE_RUPEES_MAX).all(axis=0) & (prices > 0).all(axis=0)
        paise = paise_column(np.where(usable, prices, 0.0))
        opens, highs, lows, closes = paise
        good_volume = (volume >= 0) & (volume <= VOLUME_MAX) & (volume == np.floor(volume))
        broken: tuple[tuple[DropRule, Any], ...] = (
            (DropRule.BAD_SYMBOL, codes == NO_SYMBOL),
            (DropRule.OFF_MINUTE, ts_ms % MS_PER_MINUTE != 0),
            (DropRule.OFF_SESSION, ~on_session),
            (DropRule.NOT_A_NUMBER, ~finite),
            (DropRule.NOT_POSITIVE, (prices <= 0).any(axis=0) | (usable & (paise <= 0).any(axis=0))),
            (DropRule.TOO_LARGE, ~usable),
            (DropRule.HIGH_BELOW_LOW, highs < lows),
            (DropRule.OUTSIDE_RANGE, (np.minimum(opens, closes) < lows) | (np.maximum(opens, closes) > highs)),
            (DropRule.BAD_VOLUME, ~good_volume),
        )
    kept = np.ones(ts_ms.size, dtype=np.bool_)
    for rule, mask in broken:
        refused = kept & mask
        if refused.any():
            tally.add(rule, int(np.count_nonzero(refused)), _example(raw, int(rows[int(np.argmax(refused))])))
            kept &= ~refused
    shares = np.where(good_volume, volume, 0.0).astype(np.int64)
    return CleanRows(codes=codes[kept], ts_ms=ts_ms[kept], values=np.vstack([paise, shares[np.newaxis]])[:, kept])


def settle_minutes(symbol: str, ts_ms: Ints, values: Ints, tally: DropTally) -> tuple[Ints, Ints]:
    """Sort one symbol's rows by minute and keep the first row of each minute.

    Args:
        symbol: for the examples.
        ts_ms: int64[n], file order.
        values: int64[5, n].
        tally: takes duplicates, conflicting duplicates and rows out of order.
    Returns: the same arrays, ascending in time, one entry per minute.
    """
    if ts_ms.size > 1 and bool((np.diff(ts_ms) > 0).all()):
        return ts_ms, values
    stamps, first, inverse = np.unique(ts_ms, return_index=True, return_inverse=True)
    repeated = first[inverse] != np.arange(ts_ms.size)
    identical = (values == values[:, first[inverse]]).all(axis=0)
    _count_minutes(DropRule.DUPLICATE, symbol, ts_ms, repeated & identical, tally)
    _count_minutes(DropRule.CONFLICTING_DUPLICATE, symbol, ts_ms, repeated & ~identical, tally)
    kept_in_file_order = ts_ms[np.sort(first)]
    late = kept_in_file_order < np.maximum.accumulate(kept_in_file_order)
    _count_minutes(DropRule.OUT_OF_ORDER, symbol, kept_in_file_order, late, tally)
    return stamps, values[:, first]


def _count_minutes(rule: DropRule, symbol: str, ts_ms: Ints, mask: Mask, tally: DropTally) -> None:
    if mask.any():
        moment = ist_datetime(int(ts_ms[int(np.argmax(mask))]))
        tally.add(rule, int(np.count_nonzero(mask)), f"{symbol} {moment:%Y-%m-%d %H:%M}")


def _example(raw: RawColumns, row: int) -> str:
    """Describe one row of a file for a person."""
    code = int(raw.symbol_codes[row])
    symbol = raw.symbols[code] if code != NO_SYMBOL else "(no symbol)"
    moment = ist_datetime(int(raw.ts_ms[row]))
    fields = " ".join(f"{name}={value:.12g}" for name, value in zip("ohlcv", raw.values[:, row].tolist(), strict=True))
    return f"{raw.file_name}: {symbol} {moment:%Y-%m-%d %H:%M:%S} {fields}"
