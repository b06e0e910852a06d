"""Market data before it is traded: what a path holds and how it would be traded, and its import.

- `inspect_data` reads as `velox run` would, with the same rules, and trades nothing; a file that cannot be read is told and
  the others are still looked at.
- `import_data` writes the project's own columnar format (`feeds.store`): the same path twice changes nothing, other data are
  overwritten only when that is said.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from itertools import groupby
from pathlib import Path
from typing import Any

from velox_core.calendar import MarketRules, load_market_rules
from velox_core.domain.errors import DataError
from velox_core.domain.market.bars import DayColumns, RowDrops
from velox_core.domain.market.sessions import Phase, SessionDay, trading_window
from velox_core.domain.market.ticks import SecurityClass
from velox_core.domain.time import MS_PER_MINUTE, MS_PER_SECOND, ist_clock_text
from velox_core.feeds.folders import DataFile, data_files
from velox_core.feeds.load import ReadFile, available_dates, bars_of_day, load_day, read_bars, tick_files
from velox_core.feeds.options import SourceOptions
from velox_core.feeds.store import RULES_VERSION, Manifest, digest_of, is_store, read_manifest, write_store
from velox_core.settings import Paths, Settings

SYMBOLS_SHOWN_MAX = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class FileNote:
    """What one file is. `error` says why it cannot be read, '' when it can."""

    name: str
    layout: str = ""
    rows: int = 0
    symbols: tuple[str, ...] = ()
    times: str = ""
    bar_minutes: int = 0
    error: str = ""

    def to_json(self) -> dict[str, object]:
        """Return the values for `--json`."""
        return {
            "file": self.name,
            "layout": self.layout,
            "rows": self.rows,
            "symbols": list(self.symbols),
            "times": self.times,
            "bar_minutes": self.bar_minutes,
            "error": self.error,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class DateNote:
    """What one date holds, and how it would be traded.

    Attributes:
        day: the date.
        session: the session's name, '' when the market was closed.
        problem: why it cannot be traded, '' when it can.
        symbols: the shares.
        bars, bars_min, bars_max: bars over all shares, and of the shares with the fewest and the most.
        bars_whole: what a share has that trades in every bar of the longest hours.
        ticks: single trades, 0 for a day of bars.
        findings: what was refused or is unusual.
        granularity: what marks and stops rest on.
        phases: for people, one line per class of the shares.
    """

    day: date
    session: str = ""
    problem: str = ""
    symbols: tuple[str, ...] = ()
    bars: int = 0
    bars_min: int = 0
    bars_max: int = 0
    bars_whole: int = 0
    ticks: int = 0
    findings: tuple[RowDrops, ...] = ()
    granularity: str = ""
    phases: tuple[str, ...] = ()

    def to_json(self) -> dict[str, object]:
        """Return the values for `--json`."""
        return {
            "date": self.day.isoformat(),
            "session": self.session,
            "problem": self.problem,
            "symbols": list(self.symbols),
            "bars": self.bars,
            "bars_per_symbol": {"least": self.bars_min, "most": self.bars_max, "whole_session": self.bars_whole},
            "ticks": self.ticks,
            "quality": [drop.to_json() for drop in self.findings],
            "granularity": self.granularity,
            "phases": list(self.phases),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What a path holds. `problem` says why `velox run` would refuse all of it, '' when it would not."""

    path: Path
    files: tuple[FileNote, ...]
    dates: tuple[DateNote, ...]
    problem: str = ""
    imported_from: str = ""

    @property
    def usable(self) -> bool:
        """Return whether at least one date can be traded."""
        return not self.problem and any(not note.problem for note in self.dates)

    def to_json(self) -> dict[str, object]:
        """Return the values for `--json`."""
        return {
            "path": str(self.path),
            "usable": self.usable,
            "problem": self.problem,
            "imported_from": self.imported_from,
            "files": [note.to_json() for note in self.files],
            "dates": [note.to_json() for note in self.dates],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportOutcome:
    """What an import did. `written` is False when the folder held the same import already."""

    folder: Path
    manifest: Manifest
    written: bool

    @property
    def sentence(self) -> str:
        """Return what was done, for people."""
        bars = sum(day.bars for day in self.manifest.days)
        what = f"{bars} bars of {len(self.manifest.days)} dates from {self.manifest.source}"
        done = f"{what} imported into" if self.written else f"nothing to do: {what} are already in"
        left = "".join(f"\nleft out: {day}: {reason}" for day, reason in sorted(self.manifest.left_out.items()))
        return f"{done} {self.folder}{left}"

    def to_json(self) -> dict[str, object]:
        """Return the values for `--json`."""
        return {"folder": str(self.folder), "written": self.written, "manifest": self.manifest.to_json()}


@dataclass(slots=True, kw_only=True)
class _Look:
    """One look at a path: the rules, and what was read of it."""

    settings: Settings
    path: Path
    options: SourceOptions
    rules: MarketRules
    files: list[FileNote] = field(default_factory=list)
    read: list[ReadFile] = field(default_factory=list)


def inspect_data(settings: Settings, path: Path, options: SourceOptions) -> Inspection:
    """Return what a path holds and how it would be traded. Raises DataError when there is no data file at all."""
    look = _Look(settings=settings, path=path, options=options, rules=load_market_rules(settings.calendar_path))
    if is_store(path):
        manifest = read_manifest(path)
        dates = tuple(_date_note(look, day, None) for day in manifest.dates)
        return Inspection(path=path, files=(), dates=dates, imported_from=manifest.source)
    files = data_files(path)
    try:
        ticks = tick_files(path, files)
    except DataError as error:
        return Inspection(path=path, files=(), dates=(), problem=str(error))
    if ticks:
        return _inspect_ticks(look, ticks)
    problem = _read_all(look, files)
    days = sorted({day for each in look.read for day in _days_of(each)})
    return Inspection(
        path=path,
        files=tuple(look.files),
        dates=tuple(_date_note(look, day, look.read) for day in days),
        problem=problem,
    )


def import_data(
    settings: Settings, paths: Paths, path: Path, options: SourceOptions, *, to: Path | None, replace: bool
) -> ImportOutcome:
    """Write the bars of a path in the project's own columnar format.

    Args:
        settings, paths: the configuration; its calendar judges the rows.
        path: a data file, or a folder of them.
        options: how the times are meant, where the files do not show it.
        to: the folder to write; None: `data/NAME` below var.
        replace: an import of other data there may be overwritten.
    Raises: DataError when there is nothing to import, or the folder holds something else.
    """
    if is_store(path):
        raise DataError(f"{path} is an import already; velox run --data takes it as it is")
    files = data_files(path)
    if tick_files(path, files):
        raise DataError(f"{path} holds ticks; only bars are imported. velox run --data takes them as they are, .csv.zst too")
    folder = to or paths.var / "data" / path.resolve().name.split(".")[0]
    inputs = _inputs(path, files, options)
    before = _before(folder, inputs, replace=replace)
    if before is not None:
        return ImportOutcome(folder=folder, manifest=before, written=False)
    rules = load_market_rules(settings.calendar_path)
    read = read_bars(files, rules.calendar, options)
    days: list[tuple[DayColumns, Sequence[int]]] = []
    left_out: dict[str, str] = {}
    for day in sorted({day for each in read for day in _days_of(each)}):
        session = rules.calendar.session(day)
        if session is None:
            left_out[day.isoformat()] = rules.calendar.closed_reason(day)
            continue
        try:
            found = _bars(path, read, session, rules, len(files))
        except DataError as error:
            left_out[day.isoformat()] = str(error)
        else:
            days.append((found, sorted({start for start, _ in _windows(session, SecurityClass)})))
    if not days:
        reasons = "; ".join(f"{day}: {reason}" for day, reason in left_out.items()) or "no row has a date"
        raise DataError(f"nothing of {path} can be imported: {reasons}")
    return ImportOutcome(folder=folder, manifest=write_store(folder, path.name, inputs, days, left_out), written=True)


def _inputs(path: Path, files: Sequence[DataFile], options: SourceOptions) -> dict[str, Any]:
    """Return what an import is made of: the sources, and what was said about them."""
    root = path if path.is_dir() else path.parent
    return {
        "sources": [
            {"file": str(file.path.relative_to(root)), "bytes": file.path.stat().st_size, "sha256": digest_of(file.path)}
            for file in files
        ],
        "options": {
            "stamps": None if options.stamps is None else options.stamps.value,
            "naive_times": None if options.naive_times is None else options.naive_times.value,
            "bar_minutes": options.bar_minutes,
        },
    }


def _before(folder: Path, inputs: Mapping[str, Any], *, replace: bool) -> Manifest | None:
    """Return the import that a folder holds, when it is the same and whole. Raises DataError where nothing may be written."""
    if not is_store(folder):
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise DataError(f"{folder} holds something that is no import; give --to a folder that is empty or not there yet")
        return None
    try:
        manifest = read_manifest(folder)
    except DataError:
        if replace:
            return None
        raise
    same = all(manifest.inputs.get(key) == value for key, value in inputs.items())
    if same and manifest.inputs.get("rules_version") == RULES_VERSION:
        try:
            for stored in manifest.days:
                stored.verified(folder)
        except DataError:
            return None  # the same data: what was damaged is written again
        return manifest
    if not same and not replace:
        raise DataError(
            f"{folder} holds an import of other data ({manifest.source}); give another --to, or --replace to overwrite it"
        )
    return None


def _read_all(look: _Look, files: Sequence[DataFile]) -> str:
    """Read every file by itself and note what it is; return why `velox run` would refuse the path, '' when it would not."""
    problem = ""
    try:
        look.read = read_bars(files, look.rules.calendar, look.options)
    except DataError as error:
        problem = str(error)
        for file in files:
            try:
                look.read += read_bars([file], look.rules.calendar, look.options)
            except DataError as own:
                look.files.append(FileNote(name=file.path.name, error=str(own)))
    look.files += [_file_note(each) for each in look.read]
    return problem


def _file_note(each: ReadFile) -> FileNote:
    raw, timing = each.raw, each.timing
    zone = "" if timing.naive_times is None else f"; times without an offset are {timing.naive_times.value.upper()}"
    return FileNote(
        name=each.file.path.name,
        layout=raw.layout.name,
        rows=int(raw.ts_ms.size) + raw.broken_rows,
        symbols=raw.symbols,
        times=f"stamped at the {timing.stamps} of the bar ({timing.stamps_by}){zone}",
        bar_minutes=timing.bar_minutes,
    )


def _inspect_ticks(look: _Look, files: Sequence[DataFile]) -> Inspection:
    from velox_core.feeds.tick_csv import read_tick_csv

    notes = []
    for file in files:
        try:
            raw = read_tick_csv(file)
        except DataError as error:
            notes.append(FileNote(name=file.path.name, layout="ticks", error=str(error)))
        else:
            rows = int(raw.ts_ms.size) + raw.broken_rows
            times = "one row a trade or snapshot, volume of the day so far"
            notes.append(FileNote(name=file.path.name, layout="ticks", rows=rows, symbols=raw.symbols, times=times))
    problem = next((note.error for note in notes if note.error), "")
    dates = () if problem else tuple(_date_note(look, day, None) for day in available_dates(look.path))
    return Inspection(path=look.path, files=tuple(notes), dates=dates, problem=problem)


def _days_of(each: ReadFile) -> set[date]:
    import numpy as np

    from velox_core.feeds.timing import plausible_days

    numbers = np.unique(plausible_days(each.raw.ts_ms)).tolist()
    return {date.fromordinal(number + date(1970, 1, 1).toordinal()) for number in numbers if number >= 0}


def _bars(path: Path, read: Sequence[ReadFile], session: SessionDay, rules: MarketRules, files: int) -> DayColumns:
    return bars_of_day(
        path, read, session, rules.calendar, security_class=rules.instruments.security_class, files=files
    )  # fmt: skip


def _date_note(look: _Look, day: date, read: Sequence[ReadFile] | None) -> DateNote:
    """Return what a date holds; `read` is None where the date must be loaded by itself."""
    calendar, classes = look.rules.calendar, look.rules.instruments
    session = calendar.session(day)
    if session is None:
        return DateNote(day=day, problem=f"no session: {calendar.closed_reason(day)}")
    try:
        if read is not None:
            found = _bars(look.path, read, session, look.rules, len(look.files))
        else:
            found = load_day(
                look.path,
                day,
                calendar,
                options=look.options,
                security_class=classes.security_class,
                tick_table=look.rules.tick_table,
            )
    except DataError as error:
        return DateNote(day=day, session=session.name, problem=str(error))
    counts = [sum(1 for row in found.rows if row.closes[column]) for column in range(len(found.universe))]
    kinds = dict.fromkeys(classes.security_class(symbol, day) for symbol in found.universe)
    bar_ms = found.bar_minutes * MS_PER_MINUTE
    whole = sum(-(-(end - start) // bar_ms) for start, end in _windows(session, kinds))
    return DateNote(
        day=day,
        session=session.name,
        symbols=found.universe,
        bars=sum(counts),
        bars_min=min(counts),
        bars_max=max(counts),
        bars_whole=whole,
        ticks=found.tick_count,
        findings=found.drops,
        granularity=found.granularity,
        phases=tuple(_phase_line(look.settings, session, kind) for kind in kinds),
    )


def _windows(session: SessionDay, kinds: Iterable[SecurityClass]) -> set[tuple[int, int]]:
    """Return the longest continuous trading of some classes, window by window."""
    longest = max(kinds, key=lambda kind: sum(w.end_ms - w.start_ms for w in session.continuous_windows(kind)))
    return {(window.start_ms, window.end_ms) for window in session.continuous_windows(longest)}


def _phase_line(settings: Settings, session: SessionDay, kind: SecurityClass) -> str:
    """Return when a class trades on a date, and when VELOX trades it."""
    phases: list[str] = []
    for phase, windows in groupby(session.windows[kind], key=lambda window: window.phase):
        parts = list(windows)
        if phase is Phase.CONTINUOUS:
            phases += [f"continuous {_clock(part.start_ms)}-{_clock(part.end_ms)}" for part in parts]
        else:
            phases.append(f"{phase.value.replace('_', ' ')} {_clock(parts[0].start_ms)}-{_clock(parts[-1].end_ms)}")
    market = settings.market
    try:
        window = trading_window(
            session,
            kind,
            entry_until=market.entry_until,
            flat_by=market.flat_by,
            hard_stop=market.hard_stop,
            margin_ms=market.margin_seconds * MS_PER_SECOND,
        )
    except ValueError as error:
        return f"{kind.value} shares: {', '.join(phases)}; not traded: {error}"
    entries = (
        f"entries {_clock(window.entries_from_ms)}-{_clock(window.entry_until_ms)}"
        if window.entry_until_ms > window.entries_from_ms
        else "no entries, the session is too short"
    )
    return (
        f"{kind.value} shares: {', '.join(phases)}; {entries}, square-off from {_clock(window.flat_by_ms)}, "
        f"last order {_clock(window.hard_stop_ms)}"
    )


def _clock(ts_ms: int) -> str:
    return ist_clock_text(ts_ms)[:5]
