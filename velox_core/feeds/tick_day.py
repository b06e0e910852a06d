"""One past date of ticks, from files: every tick judged by `tick_rules`, merged by time into batches.

- The ticks of a symbol are judged in the order in which the file has them, as a live feed would judge them.
- A batch holds what is stamped with one moment; a symbol that traded twice in it comes again in a batch of its own.
- `rows` are the minutes that the engine will build from the same ticks, for all who look at minutes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np

from velox_core.domain.errors import CalendarError, DataError
from velox_core.domain.market.bars import DayColumns, TickBatch
from velox_core.domain.market.minutes import minutes_of
from velox_core.domain.market.sessions import SessionCalendar
from velox_core.domain.market.ticks import TickTable
from velox_core.domain.time import ist_datetime
from velox_core.feeds.columns import NO_SYMBOL, UNREADABLE_MS, Ints, Mask
from velox_core.feeds.folders import DataFile
from velox_core.feeds.options import NOTHING_SAID, SourceOptions
from velox_core.feeds.quality import PRICE_RUPEES_MAX, VOLUME_MAX, paise_column, plausible_days
from velox_core.feeds.tick_columns import RawTicks
from velox_core.feeds.tick_csv import read_tick_csv
from velox_core.feeds.tick_rules import TickRule, TickSieve, TickTally
from velox_core.feeds.timing import ticks_in_zone

STAMP_JUMP_MS_MAX = 60_000  # one row this far ahead of the row before and of the row after it has a wrong stamp
_EPOCH_DAY = date(1970, 1, 1).toordinal()


@dataclass(frozen=True, slots=True, kw_only=True)
class SymbolTicks:
    """The ticks of one symbol that are used, in time order: epoch ms, paise, cumulative shares, as int64[n]."""

    ts_ms: Ints
    prices: Ints
    volumes: Ints


def load_tick_day(
    path: Path,
    files: Sequence[DataFile],
    day: date,
    windows_ms: Sequence[tuple[int, int]],
    calendar: SessionCalendar,
    *,
    symbols: tuple[str, ...] = (),
    options: SourceOptions = NOTHING_SAID,
    tick_table: TickTable | None = None,
) -> DayColumns:
    """Read one trading date of ticks.

    Args:
        path: where the files are, for messages.
        files: the tick files, in order.
        day: the date.
        windows_ms: half-open [start, end) of its continuous trading, epoch ms.
        calendar: its sessions are what times without an offset are held against.
        symbols: the universe, in this column order; empty takes every symbol of the files, by name.
        options: what times without an offset mean, where the sessions do not show it.
        tick_table: tick sizes by date; without it a price is not held against its tick.
    Raises: DataError in one line: what is missing, where, and what to do.
    """
    tally = TickTally()
    raws = [ticks_in_zone(read_tick_csv(file), calendar, options, path=file.path) for file in files]
    found: dict[str, SymbolTicks] = {}
    for symbol in sorted({symbol for raw in raws for symbol in raw.symbols if not symbols or symbol in symbols}):
        ticks = _judged(symbol, [raw for raw in raws if symbol in raw.symbols], day, windows_ms, tick_table, tally)
        if ticks is not None:
            found[symbol] = ticks
    for raw in raws:
        _count_unnamed(raw, tally)
    universe = _universe(path, day, symbols, found)
    batches = merge_ticks([found[symbol] for symbol in universe])
    rows, _ = minutes_of(batches, len(universe))
    for symbol in universe:
        falls = int(np.count_nonzero(np.diff(found[symbol].volumes) < 0))
        tally.add(TickRule.VOLUME_BACKWARDS, symbol, falls, symbol)
    return DayColumns(
        trading_date=day,
        universe=universe,
        rows=rows,
        source=path.name if len(files) == 1 else f"{path.name} ({len(files)} files)",
        previous_close_paise=(0,) * len(universe),
        drops=tally.drops(),
        ticks=batches,
    )


def tick_dates(files: Sequence[DataFile]) -> set[int]:
    """Return the IST day numbers (days since 1970-01-01) that tick files have readable rows of."""
    return {int(number) for file in files for number in np.unique(plausible_days(read_tick_csv(file).ts_ms))}


def merge_ticks(ticks: Sequence[SymbolTicks]) -> list[TickBatch]:
    """Merge symbols, in column order, into batches, oldest first; at one moment in column order."""
    stamps = np.concatenate([one.ts_ms for one in ticks])
    columns = np.concatenate([np.full(one.ts_ms.size, column, dtype=np.int64) for column, one in enumerate(ticks)])
    turns = np.concatenate([_turns(one.ts_ms) for one in ticks])
    order = np.lexsort((columns, turns, stamps))
    stamps, columns, turns = stamps[order], columns[order], turns[order]
    prices = np.concatenate([one.prices for one in ticks])[order].tolist()
    volumes = np.concatenate([one.volumes for one in ticks])[order].tolist()
    begins = np.flatnonzero(np.concatenate([[True], (np.diff(stamps) != 0) | (np.diff(turns) != 0)])).tolist()
    numbers, moments = columns.tolist(), stamps.tolist()
    ends = [*begins[1:], len(numbers)]
    return [
        TickBatch(moments[begin], numbers[begin:end], prices[begin:end], volumes[begin:end])
        for begin, end in zip(begins, ends, strict=True)
    ]


def _turns(stamps: Ints) -> Ints:
    """Return how many ticks with the same stamp stand before each, for stamps in time order."""
    first = np.searchsorted(stamps, stamps, side="left")
    turns: Ints = np.arange(stamps.size, dtype=np.int64) - first
    return turns


def _jumps(stamps: Ints) -> Mask:
    """Return which rows are stamped far ahead of both neighbours, or, the first of all, of the row after it."""
    steps = np.diff(stamps)
    falls = np.concatenate([steps < -STAMP_JUMP_MS_MAX, [False]])
    rises = np.concatenate([[True], steps > STAMP_JUMP_MS_MAX])
    jumps: Mask = falls & rises
    return jumps


def _judged(
    symbol: str,
    raws: Sequence[RawTicks],
    day: date,
    windows_ms: Sequence[tuple[int, int]],
    tick_table: TickTable | None,
    tally: TickTally,
) -> SymbolTicks | None:
    """Return the ticks of one symbol on the date that may be used; None when there are none."""
    parts = [_rows_of(symbol, raw, day, tally) for raw in raws]
    stamps, prices, volumes = (np.concatenate([part[number] for part in parts]) for number in range(3))
    if not stamps.size:
        return None
    jumps = _jumps(stamps)
    for index in np.flatnonzero(jumps).tolist():
        tally.add(TickRule.AHEAD, symbol, 1, _example(symbol, int(stamps[index]), int(prices[index]), int(volumes[index])))
    stamps, prices, volumes = stamps[~jumps], prices[~jumps], volumes[~jumps]
    sieve = TickSieve(windows_ms, [_tick_paise(tick_table, day, int(np.median(prices)))])
    kept = np.zeros(stamps.size, dtype=np.bool_)
    judge = sieve.judge
    for index, (ts_ms, price, volume) in enumerate(zip(stamps.tolist(), prices.tolist(), volumes.tolist(), strict=True)):
        rule = judge(0, ts_ms, price, volume)
        if rule is None:
            kept[index] = True
        else:
            tally.add(rule, symbol, 1, _example(symbol, ts_ms, price, volume))
    if not kept.any():
        return None
    return SymbolTicks(ts_ms=stamps[kept], prices=prices[kept], volumes=volumes[kept])


def _rows_of(symbol: str, raw: RawTicks, day: date, tally: TickTally) -> tuple[Ints, Ints, Ints]:
    """Return stamps, prices and volumes of a symbol on the date that are numbers at all; count the others."""
    mine = (raw.symbol_codes == raw.symbols.index(symbol)) & (plausible_days(raw.ts_ms) == day.toordinal() - _EPOCH_DAY)
    with np.errstate(invalid="ignore"):
        broken = (
            (TickRule.NOT_A_NUMBER, ~np.isfinite(raw.prices)),
            (TickRule.NOT_POSITIVE, raw.prices <= 0),
            (TickRule.TOO_LARGE, raw.prices > PRICE_RUPEES_MAX),
            (
                TickRule.BAD_VOLUME,
                ~((raw.volumes >= 0) & (raw.volumes <= VOLUME_MAX) & (raw.volumes == np.floor(raw.volumes))),
            ),
        )
    for rule, mask in broken:
        refused = mine & mask
        _count(rule, symbol, raw, refused, tally)
        mine &= ~refused
    return raw.ts_ms[mine], paise_column(raw.prices[mine]), raw.volumes[mine].astype(np.int64)


def _count_unnamed(raw: RawTicks, tally: TickTally) -> None:
    """Count the rows that belong to no date or no symbol at all."""
    tally.add(TickRule.BROKEN_ROW, "", raw.broken_rows, f"{raw.file_name}: {raw.broken_example!r}")
    unreadable = raw.ts_ms == UNREADABLE_MS
    _count(TickRule.UNREADABLE_TIME, "", raw, unreadable, tally)
    _count(TickRule.IMPOSSIBLE_DATE, "", raw, ~unreadable & (plausible_days(raw.ts_ms) < 0), tally)
    _count(TickRule.BAD_SYMBOL, "", raw, raw.symbol_codes == NO_SYMBOL, tally)


def _count(rule: TickRule, symbol: str, raw: RawTicks, mask: Mask, tally: TickTally) -> None:
    count = int(np.count_nonzero(mask))
    if count:
        tally.add(rule, symbol, count, f"{raw.file_name}: data row {int(np.argmax(mask)) + 1} of those that split into fields")


def _tick_paise(tick_table: TickTable | None, day: date, price_paise: int) -> int:
    """Return the tick size by the day's median price, the nearest to a close of the month before that a tick file has."""
    if tick_table is None:
        return 0
    try:
        return tick_table.tick_paise(day, price_paise)
    except (CalendarError, ValueError):
        return 0


def _example(symbol: str, ts_ms: int, price_paise: int, volume: int) -> str:
    return f"{symbol} {ist_datetime(ts_ms):%Y-%m-%d %H:%M:%S} price={price_paise / 100:.2f} volume={volume}"


def _universe(path: Path, day: date, symbols: tuple[str, ...], found: Mapping[str, SymbolTicks]) -> tuple[str, ...]:
    """Return the symbols to trade. Raises DataError when a wanted one, or every one, has no tick that may be used."""
    if not found:
        wanted = f" for {', '.join(symbols)}" if symbols else ""
        raise DataError(f"no usable ticks of {day}{wanted} in {path}; choose one of its dates or another path")
    missing = [symbol for symbol in symbols if symbol not in found]
    if missing:
        have = ", ".join(sorted(found))
        raise DataError(f"no ticks of {', '.join(missing)} on {day} in {path}; it has {have}; change feed.symbols or the data")
    return tuple(dict.fromkeys(symbols)) if symbols else tuple(sorted(found))
