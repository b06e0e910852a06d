"""How long the bars of a file are, which end of them is stamped, and what its times without an offset mean.

- The bars show it: a first bar at the open is stamped at its start, a first one bar after the open with a last one at the
  close is stamped at its end. What they do not show, the layout's convention or an option says; what nobody says is a
  DataError with the option to give.
- Wrong towards the start delays a price by one bar; wrong towards the end would show a price before it was made. So a
  doubt is never resolved towards the end.
- Only bars between open and close, on sessions of the calendar, are evidence.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date

import numpy as np

from velox_core.domain.errors import DataError
from velox_core.domain.market.sessions import SessionCalendar, SessionDay
from velox_core.domain.market.ticks import SecurityClass
from velox_core.domain.time import IST_OFFSET_MS, MS_PER_DAY, MS_PER_MINUTE, MS_PER_SECOND
from velox_core.feeds.columns import UNREADABLE_MS, Ints, Mask, RawColumns
from velox_core.feeds.options import BAR_MINUTES, NaiveTimes, SourceOptions, Stamps
from velox_core.feeds.tick_columns import RawTicks

PLAUSIBLE_FROM_MS = 631_152_000_000  # 1990-01-01 UTC: before NSE traded on screens (1994)
PLAUSIBLE_TO_MS = 4_102_444_800_000  # 2100-01-01 UTC
EVIDENCE_DAYS_MAX = 60
DISTANCES_MIN = 30  # so many bars with a common distance above a minute are no coincidence
_DOUBT_DISTANCES_MIN = 3
_ON_GRID_SHARE_MIN = 0.9
_UTC_INSIDE_MIN, _IST_INSIDE_MAX = 0.9, 0.5
_EPOCH_DAY = date(1970, 1, 1).toordinal()


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How one file's times are read.

    Attributes:
        bar_minutes: the length of a bar; 0: too few bars to tell.
        stamps: which end is stamped; None: the bars do not show it and nobody said it.
        stamps_by: why, for people.
        naive_times: the zone of times without an offset; None: every time has one.
        last_second: bars are stamped at their last second (09:15:59), which is their end.
    """

    bar_minutes: int
    stamps: Stamps | None
    stamps_by: str
    naive_times: NaiveTimes | None
    last_second: bool = False


def plausible_days(ts_ms: Ints) -> Ints:
    """Return the IST day number (days since 1970-01-01) of each time; -1 where the time is unreadable or impossible."""
    plausible = (ts_ms >= PLAUSIBLE_FROM_MS) & (ts_ms < PLAUSIBLE_TO_MS)
    return np.where(plausible, (np.where(plausible, ts_ms, 0) + IST_OFFSET_MS) // MS_PER_DAY, -1)


def timing_of(raw: RawColumns, calendar: SessionCalendar, options: SourceOptions, *, path: object) -> Timing:
    """Find out how a file's times are read.

    Args:
        raw: the file.
        calendar: its sessions are what the times are held against.
        options: what was said; it decides where a file of another format than the project's own leaves room.
        path: the file, for messages.
    Raises: DataError where the bars contradict themselves or the layout, or have a length that is not known.
    """
    naive = None if raw.naive is None else _zone(raw.ts_ms, raw.naive, calendar, options, path)
    moved = _in_zone(raw, naive)
    last_second = not raw.layout.exact and _all_on_last_second(moved.ts_ms)
    stamps_ms = moved.ts_ms + MS_PER_SECOND if last_second else moved.ts_ms
    days = _Days(stamps_ms, moved.symbol_codes, calendar)
    minutes = options.bar_minutes or days.bar_minutes(path)
    if raw.layout.exact:
        return Timing(bar_minutes=minutes, stamps=Stamps.START, stamps_by="the format says so", naive_times=naive)
    if last_second:
        stamps, by = Stamps.END, "bars are stamped at their last second"
    elif options.stamps is not None:
        stamps, by = options.stamps, "said by the option"
    else:
        found, by = days.stamps(max(1, minutes) * MS_PER_MINUTE, raw.layout.stamps, path)
        if found is None and raw.layout.stamps is not None:
            found, by = raw.layout.stamps, f"usual for {raw.layout.name}; no bar at the open or the close shows it"
        return Timing(bar_minutes=minutes, stamps=found, stamps_by=by, naive_times=naive)
    return Timing(bar_minutes=minutes, stamps=stamps, stamps_by=by, naive_times=naive, last_second=last_second)


def agreed(timings: Iterable[Timing]) -> tuple[int, Stamps | None]:
    """Return the bar length (0: none) and the stamps (None: none) that the files agree on, for those that show neither."""
    known = list(timings)
    minutes = {timing.bar_minutes for timing in known if timing.bar_minutes}
    stamps = {timing.stamps for timing in known if timing.stamps is not None}
    return (minutes.pop() if len(minutes) == 1 else 0), (stamps.pop() if len(stamps) == 1 else None)


def settled_timing(timing: Timing, minutes: int, stamps: Stamps | None, *, path: object) -> Timing:
    """Fill in what a file does not show from its neighbours. Raises DataError that names the option where nobody knows it."""
    found = timing.stamps or stamps
    if found is None:
        raise DataError(
            f"{path}: it cannot be told whether its bars are stamped at their start or at their end: no bar stands at the "
            "open or at the close of a session. Say it: --stamps start or --stamps end, or system.feed.stamps"
        )
    return replace(
        timing,
        bar_minutes=timing.bar_minutes or minutes or 1,
        stamps=found,
        stamps_by=timing.stamps_by or "as the other files here",
    )


def starts_of_bars(raw: RawColumns, timing: Timing) -> RawColumns:
    """Return the file with the START of each bar as its time."""
    moved = _in_zone(raw, timing.naive_times)
    shift_ms = MS_PER_SECOND if timing.last_second else 0
    if timing.stamps is Stamps.END:
        shift_ms -= timing.bar_minutes * MS_PER_MINUTE
    if not shift_ms:
        return moved
    return replace(moved, ts_ms=np.where(moved.ts_ms == UNREADABLE_MS, UNREADABLE_MS, moved.ts_ms + shift_ms))


def ticks_in_zone(raw: RawTicks, calendar: SessionCalendar, options: SourceOptions, *, path: object) -> RawTicks:
    """Return a file of ticks with its times as they are meant. Raises DataError as `timing_of` does."""
    if raw.naive is None or _zone(raw.ts_ms, raw.naive, calendar, options, path) is not NaiveTimes.UTC:
        return raw
    return replace(raw, ts_ms=np.where(raw.naive & (raw.ts_ms != UNREADABLE_MS), raw.ts_ms + IST_OFFSET_MS, raw.ts_ms))


def _in_zone(raw: RawColumns, naive: NaiveTimes | None) -> RawColumns:
    """Move the times without an offset from Indian time, as they were read, to UTC when that is what they are."""
    if naive is not NaiveTimes.UTC or raw.naive is None:
        return raw
    return replace(raw, ts_ms=np.where(raw.naive & (raw.ts_ms != UNREADABLE_MS), raw.ts_ms + IST_OFFSET_MS, raw.ts_ms))


def _all_on_last_second(ts_ms: Ints) -> bool:
    known = ts_ms[ts_ms != UNREADABLE_MS]
    return known.size >= DISTANCES_MIN and bool((known // MS_PER_SECOND % 60 == 59).all())


def _zone(ts_ms: Ints, naive: Mask, calendar: SessionCalendar, options: SourceOptions, path: object) -> NaiveTimes:
    """Return the zone of the times without an offset: Indian, unless only UTC puts them into the sessions."""
    if options.naive_times is not None:
        return options.naive_times
    stamps = ts_ms[naive & (plausible_days(ts_ms) >= 0)]
    total, as_ist = _inside(stamps, calendar)
    _, as_utc = _inside(stamps + IST_OFFSET_MS, calendar)
    if not total or as_ist >= _IST_INSIDE_MAX * total:
        return NaiveTimes.IST
    if as_utc >= _UTC_INSIDE_MIN * total:
        return NaiveTimes.UTC
    if as_utc > as_ist:
        raise DataError(
            f"{path}: its times have no offset and fit the sessions neither as Indian time ({as_ist} of {total} rows inside) "
            f"nor as UTC ({as_utc}). Say it: --naive-times ist or --naive-times utc, or system.feed.naive_times"
        )
    return NaiveTimes.IST


def _inside(ts_ms: Ints, calendar: SessionCalendar) -> tuple[int, int]:
    """Return how many times fall on sessions, and how many of those between open and close, both included."""
    total = inside = 0
    days = plausible_days(ts_ms)
    for day, session in _sessions(days, calendar):
        mine = ts_ms[days == day]
        total += mine.size
        inside += int(np.count_nonzero((mine >= session.open_ms) & (mine <= _last_end_ms(session))))
    return total, inside


def _sessions(days: Ints, calendar: SessionCalendar) -> list[tuple[int, SessionDay]]:
    """Return the newest EVIDENCE_DAYS_MAX days that have a session."""
    found: list[tuple[int, SessionDay]] = []
    for day in np.unique(days[days >= 0])[::-1].tolist():
        session = calendar.session(date.fromordinal(day + _EPOCH_DAY))
        if session is not None:
            found.append((day, session))
        if len(found) == EVIDENCE_DAYS_MAX:
            break
    return found


def _last_end_ms(session: SessionDay) -> int:
    return max(window.end_ms for kind in SecurityClass for window in session.continuous_windows(kind))


class _Days:
    """What the bars of a file show, share by share and session by session."""

    def __init__(self, ts_ms: Ints, codes: Ints, calendar: SessionCalendar) -> None:
        self.distances: list[Ints] = []
        self.ends: list[tuple[int, int, SessionDay]] = []  # first and last bar of a share's day
        days = plausible_days(ts_ms)
        on_minute = ts_ms % MS_PER_MINUTE == 0
        for day, session in _sessions(days, calendar):
            rows = np.nonzero((days == day) & on_minute & (ts_ms >= session.open_ms) & (ts_ms <= _last_end_ms(session)))[0]
            for code in np.unique(codes[rows]).tolist():
                mine = np.unique(ts_ms[rows[codes[rows] == code]])
                self.distances.append(np.diff(mine) // MS_PER_MINUTE)
                self.ends.append((int(mine[0]), int(mine[-1]), session))

    def bar_minutes(self, path: object) -> int:
        """Return the length of a bar in minutes, 0 where there are too few to tell."""
        distances = np.concatenate(self.distances) if self.distances else np.zeros(0, dtype=np.int64)
        if distances.size < _DOUBT_DISTANCES_MIN:
            return 0
        lengths, counts = np.unique(distances, return_counts=True)
        usual = int(lengths[int(np.argmax(counts))])
        on_grid = float(counts[lengths % usual == 0].sum()) / distances.size
        if usual == 1 or on_grid < _ON_GRID_SHARE_MIN:
            return 1
        if distances.size < DISTANCES_MIN:
            raise DataError(
                f"{path}: its {distances.size + 1} bars stand {usual} minutes apart, too few to tell whether they are bars of "
                f"{usual} minutes or minutes of a share that seldom trades. Say it: --bar-minutes {usual} or --bar-minutes 1, "
                "or system.feed.bar_minutes"
            )
        if usual not in BAR_MINUTES:
            known = ", ".join(str(minutes) for minutes in BAR_MINUTES)
            raise DataError(f"{path}: its bars are {usual} minutes long; give bars of {known} minutes")
        return usual

    def stamps(self, bar_ms: int, usual: Stamps | None, path: object) -> tuple[Stamps | None, str]:
        """Return which end is stamped and what shows it; None and '' where nothing does."""
        starts = ends = closes = 0
        for first, last, session in self.ends:
            windows = [window for kind in SecurityClass for window in session.continuous_windows(kind)]
            opens = {window.start_ms for window in windows}
            at_close = last in {window.end_ms for window in windows}
            starts += first in opens
            ends += first - bar_ms in opens and at_close
            closes += at_close and first not in opens
        if starts and not ends:
            if usual is None and closes > starts:
                starts = 0
            else:
                return Stamps.START, "the first bar stands at the open"
        elif ends and not starts:
            return Stamps.END, "the first bar stands one bar after the open, the last at the close"
        if starts or closes:
            seen = (
                "some days look like the one, some like the other" if starts else "a bar stands at the close, none at the open"
            )
            raise DataError(
                f"{path}: it cannot be told whether its bars are stamped at their start or at their end: "
                f"{seen}. Say it: --stamps start or --stamps end, or system.feed.stamps"
            )
        return None, ""
