"""One past date from files, as rows of minutes.

- `load_day` reads a file or a folder, finds out how its times are meant (`timing`), judges every row (`quality`) and every
  share's day (`prints`), and merges the shares by time. The rows are stamped at the END of their bars.
- A date that cannot be traded is a `DataError` in one line; a row that cannot be traded on is counted in `drops`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import numpy as np

from velox_core.domain.errors import DataError
from velox_core.domain.market.bars import DayColumns, MinuteRow, RowDrops
from velox_core.domain.market.sessions import Phase, SessionCalendar, SessionDay
from velox_core.domain.market.ticks import SecurityClass, TickTable
from velox_core.domain.time import MS_PER_MINUTE
from velox_core.feeds.columns import Ints, RawColumns
from velox_core.feeds.csv_source import read_csv
from velox_core.feeds.folders import DataFile, data_files
from velox_core.feeds.options import NOTHING_SAID, SourceOptions, Stamps
from velox_core.feeds.parquet_source import read_parquet
from velox_core.feeds.prints import judge_day
from velox_core.feeds.quality import DropRule, DropTally, Hours, clean_rows, count_undated, plausible_days, settle_minutes
from velox_core.feeds.store import is_store, read_manifest
from velox_core.feeds.tick_csv import is_tick_file
from velox_core.feeds.tick_day import load_tick_day, tick_dates
from velox_core.feeds.timing import Timing, agreed, settled_timing, starts_of_bars, timing_of

PREVIOUS_CLOSE_AGE_DAYS_MAX = 10
_DATES_SHOWN_MAX = 5
_EPOCH_DAY = date(1970, 1, 1).toordinal()

ClassOf = Callable[[str, date], SecurityClass]


@dataclass(slots=True)
class _SymbolBars:
    """What the files hold of one symbol on the date, in file order. `sources` numbers the files."""

    ts_ms: list[Ints] = field(default_factory=list)
    values: list[Ints] = field(default_factory=list)
    sources: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _LastClose:
    """A symbol's last close before the date. `ts_ms` is the start of that bar."""

    ts_ms: int = 0
    close_paise: int = 0


@dataclass(slots=True, kw_only=True)
class _Found:
    """What the files hold of a date, as far as they were read."""

    day: date
    calendar: SessionCalendar
    class_of: ClassOf | None
    judged: bool = False
    tally: DropTally = field(default_factory=DropTally)
    bars: dict[str, _SymbolBars] = field(default_factory=dict)
    previous: dict[str, _LastClose] = field(default_factory=dict)
    dates_seen: set[int] = field(default_factory=set)
    lengths: dict[int, Path] = field(default_factory=dict)


def load_day(
    path: Path,
    day: date,
    calendar: SessionCalendar,
    *,
    symbols: tuple[str, ...] = (),
    options: SourceOptions = NOTHING_SAID,
    security_class: ClassOf | None = None,
    tick_table: TickTable | None = None,
) -> DayColumns:
    """Read one trading date, of bars or of ticks.

    Args:
        path: a data file, or a folder of them (docs/data-format.md).
        day: the date.
        calendar: says whether and when the market was open.
        symbols: the universe, in this column order; empty takes every symbol of the files, by name.
        options: how the times are meant, where the files do not show it.
        security_class: the class of a share on a date, so that the bars of its closing auction are told from its
            continuous trading; None takes the longest hours of any class.
        tick_table: tick sizes by date, which the prices of ticks are held against.
    Raises: DataError in one line: what is missing or unusable, where, and what to do.
    """
    session = _session(day, calendar)
    if is_store(path):
        return _stored_day(path, session, calendar, symbols, security_class)
    files = data_files(path)
    if ticks := tick_files(path, files):
        windows_ms = _continuous_windows(session, SecurityClass)
        return load_tick_day(path, ticks, day, windows_ms, calendar, symbols=symbols, options=options, tick_table=tick_table)
    read = read_bars(_near(files, day), calendar, options, symbols)
    return bars_of_day(path, read, session, calendar, symbols=symbols, security_class=security_class, files=len(files))


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadFile:
    """One file of bars with the START of each bar as its time, and how its times were meant."""

    file: DataFile
    raw: RawColumns
    timing: Timing


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What an import noted of a date: previous closes in paise by share, what it dropped, and where it came from."""

    previous_close_paise: Mapping[str, int]
    findings: tuple[RowDrops, ...]
    source: str


def bars_of_day(
    path: Path,
    read: Sequence[ReadFile],
    session: SessionDay,
    calendar: SessionCalendar,
    *,
    symbols: tuple[str, ...] = (),
    security_class: ClassOf | None = None,
    files: int = 1,
    imported: Imported | None = None,
) -> DayColumns:
    """Return one date of files that were read; arguments and errors are those of `load_day`.

    Args:
        files: how many files there are, for the source's name.
        imported: what `velox data import` noted of the date; then its rows were judged before.
    """
    day = session.trading_date
    found = _Found(day=day, calendar=calendar, class_of=security_class, judged=imported is not None)
    if imported is not None:
        found.tally.carry(imported.findings, symbols)
        found.previous.update({symbol: _LastClose(1, close) for symbol, close in imported.previous_close_paise.items()})
    for number, each in enumerate(read):
        _take(found, each, number)
    universe = _universe(path, symbols, found)
    if len(found.lengths) > 1:
        told = ", ".join(f"{minutes} minutes in {where}" for minutes, where in sorted(found.lengths.items()))
        raise DataError(f"bars of {day} have different lengths: {told}; give data of one length")
    minutes = next(iter(found.lengths))
    settled = {symbol: _settle(symbol, found, session, minutes) for symbol in universe}
    _require_bars(path, universe, settled, symbols, found)
    kept = universe if symbols else tuple(symbol for symbol in universe if settled[symbol][0].size)
    return DayColumns(
        trading_date=day,
        universe=kept,
        rows=_rows(kept, settled, minutes * MS_PER_MINUTE, session),
        source=imported.source if imported is not None else path.name if files == 1 else f"{path.name} ({files} files)",
        previous_close_paise=tuple(found.previous.get(symbol, _LastClose()).close_paise for symbol in kept),
        drops=found.tally.drops(),
        bar_minutes=minutes,
    )


def available_dates(path: Path) -> list[date]:
    """Return the dates that the files at `path` have rows of, oldest first. Raises DataError as `load_day` does."""
    if is_store(path):
        return read_manifest(path).dates
    files = data_files(path)
    if ticks := tick_files(path, files):
        return _dates(tick_dates(ticks))
    found: set[int] = set()
    for file in files:
        found.update(np.unique(plausible_days(read_file(file).ts_ms)).tolist())
    return _dates(found)


def tick_files(path: Path, files: Sequence[DataFile]) -> list[DataFile]:
    """Return the files, if they are ticks; none if they are bars. Raises DataError when some are and some are not."""
    ticks = [file for file in files if is_tick_file(file)]
    if ticks and len(ticks) != len(files):
        bars = next(file for file in files if file not in ticks)
        raise DataError(f"{path} has files of ticks ({ticks[0].path.name}) and of bars ({bars.path.name}); keep one kind there")
    return ticks


def read_file(file: DataFile) -> RawColumns:
    """Read one file of bars. Raises DataError."""
    return read_parquet(file) if file.is_parquet else read_csv(file)


def hours_of(session: SessionDay, symbols: Sequence[str], class_of: ClassOf | None) -> list[Hours]:
    """Return when bars of a date may start, for each class of a file's shares."""
    if class_of is None:
        return [Hours(windows_ms=tuple(_continuous_windows(session, SecurityClass)))]
    kinds = [class_of(symbol, session.trading_date) for symbol in symbols]
    return [
        Hours(
            windows_ms=tuple(_continuous_windows(session, (kind,))),
            auctions_ms=tuple(
                (window.start_ms, window.end_ms)
                for window in session.windows[kind]
                if window.phase is Phase.CLOSING_AUCTION
            ),
            codes=tuple(code for code, found in enumerate(kinds) if found is kind),
        )
        for kind in dict.fromkeys(kinds)
    ]  # fmt: skip


def read_bars(
    files: Iterable[DataFile], calendar: SessionCalendar, options: SourceOptions, symbols: tuple[str, ...] = ()
) -> list[ReadFile]:
    """Read files of bars and settle how the times of each are meant; the order of the files stays. Raises DataError."""
    read = []
    for file in files:
        raw = read_file(file)
        read.append((file, raw, timing_of(raw, calendar, options, path=file.path)))
    minutes, stamps = agreed(timing for _, _, timing in read)
    settled = [(file, raw, settled_timing(timing, minutes, stamps, path=file.path)) for file, raw, timing in read]
    return [
        ReadFile(file=file, raw=_wanted(starts_of_bars(raw, timing), symbols), timing=timing) for file, raw, timing in settled
    ]


def _stored_day(
    path: Path, session: SessionDay, calendar: SessionCalendar, symbols: tuple[str, ...], class_of: ClassOf | None
) -> DayColumns:
    """Return one date of an import: its one file, held against the manifest."""
    manifest = read_manifest(path)
    stored = manifest.day(session.trading_date, path)
    file = DataFile(path=stored.verified(path), named_symbol="")
    timing = Timing(bar_minutes=stored.bar_minutes, stamps=Stamps.START, stamps_by="the format says so", naive_times=None)
    read = ReadFile(file=file, raw=_wanted(read_file(file), symbols), timing=timing)
    imported = Imported(
        previous_close_paise=stored.previous_close_paise, findings=stored.findings, source=f"{manifest.source} (imported)"
    )
    return bars_of_day(path, [read], session, calendar, symbols=symbols, security_class=class_of, imported=imported)


def _near(files: list[DataFile], day: date) -> list[DataFile]:
    """Leave out the folders that are named by a date too far from `day`; keep all where nothing would be left."""
    near = [
        file for file in files if file.folder_date is None or 0 <= (day - file.folder_date).days <= PREVIOUS_CLOSE_AGE_DAYS_MAX
    ]
    return near or files


def _session(day: date, calendar: SessionCalendar) -> SessionDay:
    session = calendar.session(day)
    if session is None:
        raise DataError(f"no trading on {day}: {calendar.closed_reason(day)}; choose a date with a session")
    return session


def _continuous_windows(session: SessionDay, classes: Iterable[SecurityClass]) -> list[tuple[int, int]]:
    """Return when at least one of the classes traded continuously, epoch ms."""
    return sorted({(window.start_ms, window.end_ms) for kind in classes for window in session.continuous_windows(kind)})


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
        layout=raw.layout,
        broken_rows=raw.broken_rows if codes else 0,
        broken_example=raw.broken_example,
        text_at=raw.text_at,
        lines=(np.arange(rows.size, dtype=np.int64) + 1 if raw.lines is None else raw.lines)[rows],
    )


def _take(found: _Found, read: ReadFile, number: int) -> None:
    """Add what a file holds: the date's good rows, the closes before it, and what belongs to no session."""
    raw, timing, file = read.raw, read.timing, read.file
    days = plausible_days(raw.ts_ms)
    found.dates_seen.update(np.unique(days).tolist())
    count_undated(raw, found.tally)
    _count_closed(raw, days, found)
    rows = np.nonzero(days == found.day.toordinal() - _EPOCH_DAY)[0]
    if rows.size:
        found.lengths.setdefault(timing.bar_minutes, file.path)
        clean = clean_rows(
            raw,
            rows,
            hours_of(_session(found.day, found.calendar), raw.symbols, found.class_of),
            found.tally,
            bar_ms=timing.bar_minutes * MS_PER_MINUTE,
        )
        for code in np.unique(clean.codes).tolist():
            mine = clean.codes == code
            bars = found.bars.setdefault(raw.symbols[code], _SymbolBars())
            bars.ts_ms.append(clean.ts_ms[mine])
            bars.values.append(clean.values[:, mine])
            bars.sources.append(number)
    _take_previous_closes(raw, days, timing, found)


def _count_closed(raw: RawColumns, days: Ints, found: _Found) -> None:
    """Count rows of dates on which the calendar knows no session: holidays, weekends, mock sessions."""
    for day_number in np.unique(days[days >= 0]).tolist():
        day = date.fromordinal(day_number + _EPOCH_DAY)
        if found.calendar.is_known(day) and found.calendar.session(day) is None:
            count = int(np.count_nonzero(days == day_number))
            found.tally.add(DropRule.CLOSED_DAY, count, f"{raw.file_name}: {day}, {found.calendar.closed_reason(day)}")


def _take_previous_closes(raw: RawColumns, days: Ints, timing: Timing, found: _Found) -> None:
    """Note each symbol's last close on the newest earlier session in the file, at most PREVIOUS_CLOSE_AGE_DAYS_MAX back."""
    today = found.day.toordinal() - _EPOCH_DAY
    earlier = np.unique(days[(days < today) & (days >= today - PREVIOUS_CLOSE_AGE_DAYS_MAX)])
    open_codes = set(range(len(raw.symbols)))
    for day_number in earlier[::-1].tolist():
        session = found.calendar.session(date.fromordinal(day_number + _EPOCH_DAY))
        if session is None or not open_codes:
            continue
        hours = hours_of(session, raw.symbols, found.class_of)
        rows = np.nonzero(days == day_number)[0]
        clean = clean_rows(raw, rows, hours, DropTally(), bar_ms=timing.bar_minutes * MS_PER_MINUTE)
        for code in open_codes & set(np.unique(clean.codes).tolist()):
            mine = np.nonzero(clean.codes == code)[0]
            last = mine[int(np.argmax(clean.ts_ms[mine]))]
            close = _LastClose(int(clean.ts_ms[last]), int(clean.values[3, last]))
            if close.ts_ms > found.previous.get(raw.symbols[code], _LastClose()).ts_ms:
                found.previous[raw.symbols[code]] = close
            open_codes.discard(code)


def _universe(path: Path, symbols: tuple[str, ...], found: _Found) -> tuple[str, ...]:
    """Return the symbols to trade. Raises DataError when a wanted one, or every one, has no bar on the date."""
    day, bars = found.day, found.bars
    if not bars and day.toordinal() - _EPOCH_DAY in found.dates_seen:
        raise _all_dropped(path, found)
    if not bars:
        dates = _dates(found.dates_seen)
        held = "; it has no readable date" if not dates else f"; it has {_shown(dates)}"
        wanted = f" for {', '.join(symbols)}" if symbols else ""
        raise DataError(f"no bars of {day}{wanted} in {path}{held}; choose one of its dates or another path")
    missing = [symbol for symbol in symbols if symbol not in bars]
    if missing:
        raise _missing(path, missing, sorted(bars), day)
    return tuple(dict.fromkeys(symbols)) if symbols else tuple(sorted(bars))


def _require_bars(
    path: Path,
    universe: tuple[str, ...],
    settled: Mapping[str, tuple[Ints, Ints]],
    symbols: tuple[str, ...],
    found: _Found,
) -> None:
    """Raise DataError when the rules left nothing of the date, or nothing of a wanted symbol."""
    have = [symbol for symbol in universe if settled[symbol][0].size]
    if not have:
        raise _all_dropped(path, found)
    if symbols and len(have) < len(universe):
        raise _missing(path, [symbol for symbol in universe if symbol not in have], have, found.day)


def _missing(path: Path, missing: Sequence[str], have: Sequence[str], day: date) -> DataError:
    return DataError(
        f"no bars of {', '.join(missing)} on {day} in {path}; it has {', '.join(have)}; change feed.symbols or the data"
    )


def _all_dropped(path: Path, found: _Found) -> DataError:
    drops = ", ".join(f"{drop.count} {drop.rule} (first: {drop.example})" for drop in found.tally.drops())
    return DataError(f"every row of {found.day} in {path} was dropped: {drops}; repair or replace the file")


def _settle(symbol: str, found: _Found, session: SessionDay, minutes: int) -> tuple[Ints, Ints]:
    """Join a symbol's parts, one entry per bar, and judge its day."""
    bars = found.bars[symbol]
    sources = None
    if len(bars.sources) > 1:
        sources = np.repeat(np.array(bars.sources, dtype=np.int64), [part.size for part in bars.ts_ms])
    stamps, values = settle_minutes(
        symbol, np.concatenate(bars.ts_ms), np.concatenate(bars.values, axis=1), found.tally, sources=sources
    )
    classes = SecurityClass if found.class_of is None else (found.class_of(symbol, found.day),)
    return judge_day(
        symbol,
        stamps,
        values,
        found.tally,
        previous_close_paise=found.previous.get(symbol, _LastClose()).close_paise,
        bar_ms=minutes * MS_PER_MINUTE,
        end_ms=_continuous_windows(session, classes)[-1][1],
        judged=found.judged,
    )


def _rows(
    universe: Sequence[str], settled: Mapping[str, tuple[Ints, Ints]], bar_ms: int, session: SessionDay
) -> list[MinuteRow]:
    """Merge the symbols by time into rows stamped at the END of the bar, which is cut off by the end of its window."""
    stamps = np.unique(np.concatenate([settled[symbol][0] for symbol in universe]))
    table = np.zeros((5, stamps.size, len(universe)), dtype=np.int64)
    for column, symbol in enumerate(universe):
        ts_ms, values = settled[symbol]
        table[:, np.searchsorted(stamps, ts_ms), column] = values
    ends = stamps + bar_ms
    for start_ms, end_ms in _continuous_windows(session, SecurityClass):
        inside = (stamps >= start_ms) & (stamps < end_ms)
        ends[inside] = np.minimum(ends[inside], end_ms) if bar_ms > MS_PER_MINUTE else ends[inside]
    return [MinuteRow(*columns) for columns in zip(ends.tolist(), *table.tolist(), strict=True)]


def _dates(day_numbers: set[int]) -> list[date]:
    return [date.fromordinal(number + _EPOCH_DAY) for number in sorted(day_numbers) if number > 0]


def _shown(dates: Sequence[date]) -> str:
    if len(dates) <= _DATES_SHOWN_MAX:
        return ", ".join(day.isoformat() for day in dates)
    return f"{len(dates)} dates from {dates[0]} to {dates[-1]}"
