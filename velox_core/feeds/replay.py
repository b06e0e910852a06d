"""One past date as rows of minutes, from files, and the feed that plays them.

- `load_day` reads a CSV or Parquet file, or a folder of them, judges every row by `quality`, and merges the symbols
  by time. Files stamp a bar at its START; the rows stamp it at its END, when its close is known.
- A date that cannot be traded is a `DataError` in one line; a row that cannot be traded on is counted in `drops`.
- `ReplayFeed` only delivers: pacing waits and never changes content. A row is due at a fixed moment after the first,
  so that slow rows do not push later ones back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import numpy as np

from velox_core.domain.errors import DataError
from velox_core.domain.market.bars import DayColumns, MinuteRow
from velox_core.domain.market.sessions import SessionCalendar, SessionDay
from velox_core.domain.market.ticks import SecurityClass, TickTable
from velox_core.domain.time import MS_PER_MINUTE
from velox_core.feeds.columns import Ints, RawColumns
from velox_core.feeds.csv_source import read_csv
from velox_core.feeds.layouts import CSV_SUFFIX, DataFile, data_files
from velox_core.feeds.pacing import MovableClock, Pacing
from velox_core.feeds.parquet_source import read_parquet
from velox_core.feeds.quality import DropTally, clean_rows, count_undated, plausible_days, settle_minutes
from velox_core.feeds.tick_csv import is_tick_file
from velox_core.feeds.tick_day import load_tick_day, tick_dates

PREVIOUS_CLOSE_AGE_DAYS_MAX = 10
_SPACING_BARS_MIN = 30  # so many bars with a common distance above a minute are no coincidence
_DATES_SHOWN_MAX = 5
_EPOCH_DAY = date(1970, 1, 1).toordinal()


@dataclass(slots=True)
class _SymbolBars:
    """What the files hold of one symbol on the date, in file order."""

    ts_ms: list[Ints] = field(default_factory=list)
    values: list[Ints] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _LastClose:
    """A symbol's last close before the date. `ts_ms` is the start of that bar."""

    ts_ms: int = 0
    close_paise: int = 0


def load_day(
    path: Path,
    day: date,
    calendar: SessionCalendar,
    *,
    symbols: tuple[str, ...] = (),
    tick_table: TickTable | None = None,
) -> DayColumns:
    """Read one trading date, of bars or of ticks.

    Args:
        path: a .csv or .parquet file, or a folder of them (docs/data-format.md).
        day: the date.
        calendar: says whether and when the market was open.
        symbols: the universe, in this column order; empty takes every symbol of the files, by name.
        tick_table: tick sizes by date, which the prices of ticks are held against.
    Raises: DataError in one line: what is missing or unusable, where, and what to do.
    """
    windows_ms = _continuous_windows(_session(day, calendar))
    files = data_files(path)
    if ticks := _tick_files(path, files):
        return load_tick_day(path, ticks, day, windows_ms, symbols=symbols, tick_table=tick_table)
    tally = DropTally()
    bars: dict[str, _SymbolBars] = {}
    previous: dict[str, _LastClose] = {}
    dates_seen: set[int] = set()
    for file in files:
        raw = _wanted(_read(file), symbols)
        days = plausible_days(raw.ts_ms)
        dates_seen.update(np.unique(days).tolist())
        count_undated(raw, tally)
        _take_day(raw, days, day, windows_ms, bars, tally)
        _take_previous_closes(raw, days, day, calendar, previous)
    universe = _universe(path, day, symbols, bars, dates_seen, tally)
    settled = {symbol: _settle(symbol, bars[symbol], path, tally) for symbol in universe}
    return DayColumns(
        trading_date=day,
        universe=universe,
        rows=_rows(universe, settled),
        source=path.name if len(files) == 1 else f"{path.name} ({len(files)} files)",
        previous_close_paise=tuple(previous.get(symbol, _LastClose()).close_paise for symbol in universe),
        drops=tally.drops(),
    )


def available_dates(path: Path) -> list[date]:
    """Return the dates that the files at `path` have rows of, oldest first. Raises DataError as `load_day` does."""
    files = data_files(path)
    if ticks := _tick_files(path, files):
        return _dates(tick_dates(ticks))
    found: set[int] = set()
    for file in files:
        found.update(np.unique(plausible_days(_read(file).ts_ms)).tolist())
    return _dates(found)


class ReplayFeed:
    """Plays a day, minute by minute, at a speed.

    Args:
        day: the rows.
        clock: moved to each row's time as the row is delivered.
        speed: minutes of the day per minute of waiting; 1.0 is true time, 0.0 does not wait at all.
        wait: sleeps for some seconds and may return early; None sleeps.
    Raises: ConfigError for a speed that is negative or not finite.
    """

    __slots__ = ("_clock", "_count", "_day", "_index", "_pacing", "_rows")

    def __init__(self, day: DayColumns, clock: MovableClock, speed: float, wait: Callable[[float], None] | None = None) -> None:
        self._day = day
        self._rows = day.rows
        self._count = len(day.rows)
        self._clock = clock
        self._pacing = Pacing(clock, speed, wait)
        self._index = 0

    @property
    def day(self) -> DayColumns:
        """Return the day that is played."""
        return self._day

    @property
    def universe(self) -> tuple[str, ...]:
        """Return the symbols, in column order."""
        return self._day.universe

    @property
    def ended(self) -> bool:
        """Return whether every row was delivered."""
        return self._index >= self._count

    @property
    def remaining_rows(self) -> int:
        """Return how many rows are still to come."""
        return self._count - self._index

    def next_row(self, wait_seconds: float) -> MinuteRow | None:
        """Return the next minute and move the clock to it; None when it is not due within `wait_seconds`, or at the end."""
        index = self._index
        if index >= self._count:
            return None
        row = self._rows[index]
        if self._pacing.is_on and not self._pacing.became_due(row.ts_ms, wait_seconds):
            return None
        self._index = index + 1
        self._clock.advance_to(row.ts_ms)
        return row

    def hasten(self) -> None:
        """Stop pacing: what is left comes at once."""
        self._pacing.is_on = False


def _session(day: date, calendar: SessionCalendar) -> SessionDay:
    session = calendar.session(day)
    if session is None:
        raise DataError(f"no trading on {day}: {calendar.closed_reason(day)}; choose a date with a session")
    return session


def _continuous_windows(session: SessionDay) -> list[tuple[int, int]]:
    """Return when at least one security class traded continuously, epoch ms."""
    return sorted(
        {
            (window.start_ms, window.end_ms)
            for security_class in SecurityClass
            for window in session.continuous_windows(security_class)
        }
    )


def _tick_files(path: Path, files: Sequence[DataFile]) -> list[DataFile]:
    """Return the files, if they are ticks; none if they are bars. Raises DataError when some are and some are not."""
    ticks = [file for file in files if is_tick_file(file)]
    if ticks and len(ticks) != len(files):
        bars = next(file for file in files if file not in ticks)
        raise DataError(f"{path} has files of ticks ({ticks[0].path.name}) and of bars ({bars.path.name}); keep one kind there")
    return ticks


def _read(file: DataFile) -> RawColumns:
    return read_csv(file) if file.path.suffix.lower() == CSV_SUFFIX else read_parquet(file)


def _wanted(raw: RawColumns, symbols: tuple[str, ...]) -> RawColumns:
    """Keep the rows of the wanted symbols only, so that drops of the others are not counted."""
    if not symbols or set(raw.symbols) <= set(symbols):
        return raw
    codes = [code for code, symbol in enumerate(raw.symbols) if symbol in symbols]
    rows = np.isin(raw.symbol_codes, codes)
    return RawColumns(
        file_name=raw.file_name,
        symbols=raw.symbols,
        symbol_codes=raw.symbol_codes[rows],
        ts_ms=raw.ts_ms[rows],
        values=raw.values[:, rows],
        broken_rows=raw.broken_rows if codes else 0,
        broken_example=raw.broken_example,
    )


def _take_day(
    raw: RawColumns, days: Ints, day: date, windows_ms: list[tuple[int, int]], bars: dict[str, _SymbolBars], tally: DropTally
) -> None:
    """Add the file's good rows of the date to `bars`."""
    rows = np.nonzero(days == day.toordinal() - _EPOCH_DAY)[0]
    if not rows.size:
        return
    clean = clean_rows(raw, rows, windows_ms, tally)
    for code in np.unique(clean.codes).tolist():
        mine = clean.codes == code
        symbol_bars = bars.setdefault(raw.symbols[code], _SymbolBars())
        symbol_bars.ts_ms.append(clean.ts_ms[mine])
        symbol_bars.values.append(clean.values[:, mine])


def _take_previous_closes(
    raw: RawColumns, days: Ints, day: date, calendar: SessionCalendar, previous: dict[str, _LastClose]
) -> None:
    """Note each symbol's last close on the newest earlier session in the file, at most PREVIOUS_CLOSE_AGE_DAYS_MAX back."""
    today = day.toordinal() - _EPOCH_DAY
    earlier = np.unique(days[(days < today) & (days >= today - PREVIOUS_CLOSE_AGE_DAYS_MAX)])
    open_codes = set(range(len(raw.symbols)))
    for day_number in earlier[::-1].tolist():
        session = calendar.session(date.fromordinal(day_number + _EPOCH_DAY))
        if session is None or not open_codes:
            continue
        clean = clean_rows(raw, np.nonzero(days == day_number)[0], _continuous_windows(session), DropTally())
        for code in open_codes & set(np.unique(clean.codes).tolist()):
            mine = np.nonzero(clean.codes == code)[0]
            last = mine[int(np.argmax(clean.ts_ms[mine]))]
            found = _LastClose(int(clean.ts_ms[last]), int(clean.values[3, last]))
            if found.ts_ms > previous.get(raw.symbols[code], _LastClose()).ts_ms:
                previous[raw.symbols[code]] = found
            open_codes.discard(code)


def _universe(
    path: Path, day: date, symbols: tuple[str, ...], bars: Mapping[str, _SymbolBars], dates_seen: set[int], tally: DropTally
) -> tuple[str, ...]:
    """Return the symbols to trade. Raises DataError when a wanted one, or every one, has no bar on the date."""
    if not bars and day.toordinal() - _EPOCH_DAY in dates_seen:
        drops = ", ".join(f"{drop.count} {drop.rule} (first: {drop.example})" for drop in tally.drops())
        raise DataError(f"every row of {day} in {path} was dropped: {drops}; repair or replace the file")
    if not bars:
        dates = _dates(dates_seen)
        held = "; it has no readable date" if not dates else f"; it has {_shown(dates)}"
        wanted = f" for {', '.join(symbols)}" if symbols else ""
        raise DataError(f"no bars of {day}{wanted} in {path}{held}; choose one of its dates or another path")
    missing = [symbol for symbol in symbols if symbol not in bars]
    if missing:
        have = ", ".join(sorted(bars))
        raise DataError(f"no bars of {', '.join(missing)} on {day} in {path}; it has {have}; change feed.symbols or the data")
    return tuple(dict.fromkeys(symbols)) if symbols else tuple(sorted(bars))


def _settle(symbol: str, bars: _SymbolBars, path: Path, tally: DropTally) -> tuple[Ints, Ints]:
    """Join a symbol's parts, one entry per minute. Raises DataError for bars longer than a minute."""
    stamps, values = settle_minutes(symbol, np.concatenate(bars.ts_ms), np.concatenate(bars.values, axis=1), tally)
    spacing_ms = int(np.gcd.reduce(np.diff(stamps))) if stamps.size >= _SPACING_BARS_MIN else MS_PER_MINUTE
    if spacing_ms > MS_PER_MINUTE:
        minutes = spacing_ms // MS_PER_MINUTE
        raise DataError(f"the bars of {symbol} in {path} are {minutes} minutes apart; give one-minute bars")
    return stamps, values


def _rows(universe: Sequence[str], settled: Mapping[str, tuple[Ints, Ints]]) -> list[MinuteRow]:
    """Merge the symbols by time into rows stamped at the END of the minute."""
    stamps = np.unique(np.concatenate([ts_ms for ts_ms, _ in settled.values()]))
    table = np.zeros((5, stamps.size, len(universe)), dtype=np.int64)
    for column, symbol in enumerate(universe):
        ts_ms, values = settled[symbol]
        table[:, np.searchsorted(stamps, ts_ms), column] = values
    ends = (stamps + MS_PER_MINUTE).tolist()
    return [MinuteRow(*columns) for columns in zip(ends, *table.tolist(), strict=True)]


def _dates(day_numbers: set[int]) -> list[date]:
    return [date.fromordinal(number + _EPOCH_DAY) for number in sorted(day_numbers) if number > 0]


def _shown(dates: Sequence[date]) -> str:
    if len(dates) <= _DATES_SHOWN_MAX:
        return ", ".join(day.isoformat() for day in dates)
    return f"{len(dates)} dates from {dates[0]} to {dates[-1]}"
