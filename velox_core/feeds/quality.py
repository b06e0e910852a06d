"""Which rows of a file may be traded on: the rules by name, and the count of what they refused.

- A row is kept as it is or dropped as a whole; no rule changes a price. The first rule that a row breaks names it.
- Rupees become paise once, here, rounded half up as `velox_core.domain.money` does.
- A bar that is there twice with the same prices keeps its first row. With other prices nobody knows which is right, so
  none is used, be it within one file or between two (ADR 0030).
- What takes a share's whole day to see is judged by `prints`. Rules that only note are `NOTED`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from velox_core.domain.market.bars import RowDrops
from velox_core.domain.money import paise_from_rupees
from velox_core.domain.time import MS_PER_MINUTE, ist_datetime
from velox_core.feeds.columns import NO_SYMBOL, UNREADABLE_MS, Floats, Ints, Mask, RawColumns
from velox_core.feeds.timing import PLAUSIBLE_FROM_MS, PLAUSIBLE_TO_MS, plausible_days

__all__ = ["PLAUSIBLE_FROM_MS", "PLAUSIBLE_TO_MS", "plausible_days"]  # asked for here too

PRICE_RUPEES_MAX = 10_000_000.0  # the dearest NSE share has stood near 150,000 rupees
VOLUME_MAX = 1e12
_TIE_WIDTH = 1e-3


class DropRule(StrEnum):
    """Why a row was refused, or what is unusual (`NOTED`). The order is the order of judgement."""

    BROKEN_ROW = "wrong number of fields"
    UNREADABLE_TIME = "unreadable time"
    IMPOSSIBLE_DATE = "impossible date"
    BAD_SYMBOL = "not a symbol"
    CLOSED_DAY = "closed day or mock session"
    OFF_MINUTE = "not on a full minute"
    OFF_SESSION = "off session"
    CLOSING_AUCTION = "closing auction"
    NOT_A_NUMBER = "not a number"
    NOT_POSITIVE = "price not positive"
    TOO_LARGE = "price beyond any share"
    HIGH_BELOW_LOW = "high below low"
    OUTSIDE_RANGE = "open or close outside low and high"
    BAD_VOLUME = "volume negative, fractional or impossible"
    DUPLICATE = "duplicate"
    VOLUME_DUPLICATE = "duplicate with another volume (the first is used)"
    CONFLICTING_DUPLICATE = "conflicting duplicate"
    SOURCES_DISAGREE = "two files disagree"
    FAR_OFF = "print far off"
    FROZEN = "frozen price without volume"
    OUT_OF_ORDER = "out of order (sorted, kept)"
    UNUSUAL_PRINT = "print off its neighbours (kept)"
    STILL_PRICE = "price that does not move (kept)"
    BEYOND_BAND = "beyond 20 % of the close before (kept)"
    RUNNING_VOLUME = "volume that never falls, perhaps the day's total (kept)"
    NO_VOLUME = "price that moved without volume (kept)"
    MISSING = "minutes without a bar"
    STOPS_EARLY = "no bar for the rest of the session (minutes)"


NOTED = frozenset(
    (
        DropRule.OUT_OF_ORDER,
        DropRule.UNUSUAL_PRINT,
        DropRule.STILL_PRICE,
        DropRule.BEYOND_BAND,
        DropRule.RUNNING_VOLUME,
        DropRule.NO_VOLUME,
        DropRule.MISSING,
        DropRule.STOPS_EARLY,
    )
)

COUNTED_IN_MINUTES = frozenset(
    (DropRule.MISSING, DropRule.STOPS_EARLY)
)  # there is no row where no bar is; all others: source rows


class DropTally:
    """Counts rows by rule and share, with the first example of each rule."""

    __slots__ = ("_counts", "_examples", "_shares")

    def __init__(self) -> None:
        self._counts: dict[DropRule, int] = {}
        self._examples: dict[DropRule, str] = {}
        self._shares: dict[DropRule, dict[str, int]] = {}

    def add(self, rule: DropRule, count: int, example: str, symbol: str = "") -> None:
        """Count `count` rows under `rule`, and for a share when it is named; the first example stays."""
        if count:
            self._counts[rule] = self._counts.get(rule, 0) + count
            self._examples.setdefault(rule, example)
            if symbol:
                shares = self._shares.setdefault(rule, {})
                shares[symbol] = shares.get(symbol, 0) + count

    def carry(self, found: Iterable[RowDrops], symbols: tuple[str, ...]) -> None:
        """Count what an import dropped, of some shares or (`symbols` empty) of all; what is unusual is counted anew."""
        rules = {rule.value: rule for rule in DropRule if rule not in NOTED or rule is DropRule.OUT_OF_ORDER}
        for drop in found:
            rule = rules.get(drop.rule)
            if rule is not None:
                self.add(rule, drop.count - sum(count for _, count in drop.by_symbol), drop.example)
                for symbol, count in drop.by_symbol:
                    if not symbols or symbol in symbols:
                        self.add(rule, count, drop.example, symbol)

    def drops(self) -> tuple[RowDrops, ...]:
        """Return what was counted, in the order of the rules."""
        return tuple(
            RowDrops(
                rule=rule.value,
                count=self._counts[rule],
                example=self._examples[rule],
                by_symbol=tuple(sorted(self._shares.get(rule, {}).items())),
                kept=rule in NOTED,
            )
            for rule in DropRule
            if rule in self._counts
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Hours:
    """When bars of one date may start, epoch ms, for some of a file's shares.

    Attributes:
        windows_ms: half-open [start, end) of continuous trading.
        auctions_ms: the same of the closing auction.
        codes: the shares that these hours are for; None: all.
    """

    windows_ms: tuple[tuple[int, int], ...]
    auctions_ms: tuple[tuple[int, int], ...] = ()
    codes: tuple[int, ...] | None = None


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


def count_undated(raw: RawColumns, tally: DropTally) -> None:
    """Count the rows that belong to no date at all: broken, without a time, or stamped in an impossible year."""
    tally.add(DropRule.BROKEN_ROW, raw.broken_rows, f"{raw.file_name}: {raw.broken_example!r}")
    unreadable = raw.ts_ms == UNREADABLE_MS
    impossible = ~unreadable & ((raw.ts_ms < PLAUSIBLE_FROM_MS) | (raw.ts_ms >= PLAUSIBLE_TO_MS))
    for rule, mask in ((DropRule.UNREADABLE_TIME, unreadable), (DropRule.IMPOSSIBLE_DATE, impossible)):
        count = int(np.count_nonzero(mask))
        if count:
            row = int(np.argmax(mask))
            written = raw.written(row, 0)
            told = f", time {written!r}" if written or raw.text_at is not None else ""
            tally.add(rule, count, f"{raw.file_name}: data row {raw.row_number(row)} of those that split into fields{told}")


def clean_rows(
    raw: RawColumns, rows: Ints, hours: Iterable[Hours], tally: DropTally, *, bar_ms: int = MS_PER_MINUTE
) -> CleanRows:
    """Judge rows of one date by every rule that looks at one row alone.

    Args:
        raw: the file, with the START of each bar as its time.
        rows: int64, indexes of the rows to judge.
        hours: the date's sessions; a bar starts in one.
        tally: takes the counts.
        bar_ms: the length of a bar.
    """
    codes, ts_ms, values = raw.symbol_codes[rows], raw.ts_ms[rows], raw.values[:, rows]
    prices, volume = values[:4], values[4]
    on_session, in_auction, on_grid = _places(codes, ts_ms, hours, bar_ms)
    with np.errstate(invalid="ignore"):
        finite = np.isfinite(prices).all(axis=0)
        usable = finite & (prices <= PRICE_RUPEES_MAX).all(axis=0) & (prices > 0).all(axis=0)
        paise = paise_column(np.where(usable, prices, 0.0))
        opens, highs, lows, closes = paise
        good_volume = (volume >= 0) & (volume <= VOLUME_MAX) & (volume == np.floor(volume))
        broken: tuple[tuple[DropRule, Any], ...] = (
            (DropRule.BAD_SYMBOL, codes == NO_SYMBOL),
            (DropRule.OFF_MINUTE, ~on_grid),
            (DropRule.CLOSING_AUCTION, ~on_session & in_auction),
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
            example = _example(raw, int(rows[int(np.argmax(refused))]), rule)
            shares, counts = np.unique(codes[refused], return_counts=True)
            for share, count in zip(shares.tolist(), counts.tolist(), strict=True):
                tally.add(rule, count, example, raw.symbols[share] if share != NO_SYMBOL else "")
            kept &= ~refused
    shares = np.where(good_volume, volume, 0.0).astype(np.int64)
    return CleanRows(codes=codes[kept], ts_ms=ts_ms[kept], values=np.vstack([paise, shares[np.newaxis]])[:, kept])


def _places(codes: Ints, ts_ms: Ints, hours: Iterable[Hours], bar_ms: int) -> tuple[Mask, Mask, Mask]:
    """Return which bars start in continuous trading, in a closing auction, and a whole number of bars after an open."""
    on_session = np.zeros(ts_ms.size, dtype=np.bool_)
    in_auction = on_session.copy()
    on_grid = ts_ms % MS_PER_MINUTE == 0
    for each in hours:
        mine = np.ones(ts_ms.size, dtype=np.bool_) if each.codes is None else np.isin(codes, each.codes)
        for start_ms, end_ms in each.windows_ms:
            inside = mine & (ts_ms >= start_ms) & (ts_ms < end_ms)
            on_session |= inside
            if bar_ms != MS_PER_MINUTE:
                on_grid &= ~inside | ((ts_ms - start_ms) % bar_ms == 0)
        for start_ms, end_ms in each.auctions_ms:
            in_auction |= mine & (ts_ms >= start_ms) & (ts_ms < end_ms)
    return on_session, in_auction, on_grid


def settle_minutes(
    symbol: str, ts_ms: Ints, values: Ints, tally: DropTally, *, sources: Ints | None = None
) -> tuple[Ints, Ints]:
    """Sort one symbol's rows by time and keep one row of each bar, or none where its rows have different prices.

    Args:
        symbol: for the examples.
        ts_ms: int64[n], file order.
        values: int64[5, n].
        tally: takes duplicates, contradictions and rows out of order.
        sources: int64[n], which file each row is from; None: all from one.
    Returns: the same arrays, ascending in time, one entry per bar.
    """
    if ts_ms.size < 2 or bool((np.diff(ts_ms) > 0).all()):
        return ts_ms, values
    stamps, first, inverse = np.unique(ts_ms, return_index=True, return_inverse=True)
    leading = first[inverse]
    repeated = leading != np.arange(ts_ms.size)
    other_price = (values[:4] != values[:4, leading]).any(axis=0)
    other_volume = values[4] != values[4, leading]
    contradicted = np.zeros(stamps.size, dtype=np.bool_)
    contradicted[inverse[other_price]] = True
    from_two = np.zeros(stamps.size, dtype=np.bool_)
    if sources is not None:
        from_two[inverse[other_price & (sources != sources[leading])]] = True
    of_bar = contradicted[inverse]
    _count_minutes(DropRule.DUPLICATE, symbol, ts_ms, repeated & ~of_bar & ~other_volume, tally)
    _count_minutes(DropRule.VOLUME_DUPLICATE, symbol, ts_ms, repeated & ~of_bar & other_volume, tally)
    _count_minutes(DropRule.CONFLICTING_DUPLICATE, symbol, ts_ms, of_bar & ~from_two[inverse], tally)
    _count_minutes(DropRule.SOURCES_DISAGREE, symbol, ts_ms, of_bar & from_two[inverse], tally)
    kept = first[~contradicted]
    order = np.sort(kept)
    kept_in_file_order = ts_ms[order]
    if kept_in_file_order.size:
        late = kept_in_file_order < np.maximum.accumulate(kept_in_file_order)
        if sources is not None:  # a second file starts anew
            late &= np.concatenate([[False], np.diff(sources[order]) == 0])
        _count_minutes(DropRule.OUT_OF_ORDER, symbol, kept_in_file_order, late, tally)
    return stamps[~contradicted], values[:, kept]


def _count_minutes(rule: DropRule, symbol: str, ts_ms: Ints, mask: Mask, tally: DropTally) -> None:
    if mask.any():
        moment = ist_datetime(int(ts_ms[int(np.argmax(mask))]))
        tally.add(rule, int(np.count_nonzero(mask)), f"{symbol} {moment:%Y-%m-%d %H:%M}", symbol)


def _example(raw: RawColumns, row: int, rule: DropRule) -> str:
    """Describe one row of a file for a person."""
    code = int(raw.symbol_codes[row])
    symbol = raw.symbols[code] if code != NO_SYMBOL else "(no symbol)"
    moment = ist_datetime(int(raw.ts_ms[row]))
    fields = " ".join(f"{name}={value:.12g}" for name, value in zip("ohlcv", raw.values[:, row].tolist(), strict=True))
    text = f"{raw.file_name}: row {raw.row_number(row)}, {symbol} {moment:%Y-%m-%d %H:%M:%S} {fields}"
    if rule is DropRule.NOT_A_NUMBER and raw.text_at is not None:
        column = int(np.argmax(~np.isfinite(raw.values[:4, row])))
        text += f" ({('open', 'high', 'low', 'close')[column]} is {raw.written(row, column + 1)!r})"
    return text
