"""Trading sessions by date and security class: what is open when, and how long VELOX may trade in it.

- Every session rule is data (`config/nse_calendar.yaml`, read by `velox_core.calendar`); nothing here knows an hour.
- A date that the calendar does not cover is closed, with a reason that says so.
- A window holds from its start until just before its end: at 15:30:00.000 continuous trading to 15:30 is over.
- Times are epoch milliseconds; hours of rules are wall times in IST.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, time, timedelta
from enum import StrEnum

from velox_core.domain.market.ticks import SecurityClass
from velox_core.domain.time import ist_ms

SATURDAY = 5
ONE_DAY = timedelta(days=1)


class Phase(StrEnum):
    """What the exchange does with an order at a moment."""

    CLOSED = "closed"
    PRE_OPEN = "pre_open"
    CONTINUOUS = "continuous"
    CLOSING_AUCTION = "closing_auction"
    POST_CLOSE = "post_close"


@dataclass(frozen=True, slots=True, kw_only=True)
class HoursWindow:
    """One phase as a rule states it: wall times in IST, `start` before `end`. `note` says what is special in it."""

    phase: Phase
    start: time
    end: time
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseWindow:
    """One phase of one date: from `start_ms` until just before `end_ms`, epoch ms. `note` is for people."""

    phase: Phase
    start_ms: int
    end_ms: int
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionDay:
    """One trading date.

    Attributes:
        trading_date: the date.
        name: 'normal', or what makes it special ('Muhurat trading').
        special: it is not an ordinary weekday with the hours of every day.
        windows: phases by security class, ascending; what lies between is CLOSED.
        normal_hours: it keeps the hours of an ordinary day of its time, so configured times apply to it.
        unconfirmed: why its hours should be checked with the exchange, '' when they are confirmed.
    """

    trading_date: date
    name: str
    special: bool
    windows: Mapping[SecurityClass, tuple[PhaseWindow, ...]]
    normal_hours: bool = True
    unconfirmed: str = ""

    def phase(self, security_class: SecurityClass, now_ms: int) -> Phase:
        """Return the phase of a class at a moment of any date; CLOSED outside its windows."""
        for window in self.windows[security_class]:
            if window.start_ms <= now_ms < window.end_ms:
                return window.phase
        return Phase.CLOSED

    def continuous_windows(self, security_class: SecurityClass) -> tuple[PhaseWindow, ...]:
        """Return the windows of continuous trading of a class, ascending; special days may have several."""
        return tuple(window for window in self.windows[security_class] if window.phase is Phase.CONTINUOUS)

    @property
    def open_ms(self) -> int:
        """Return the first start of continuous trading over all classes, epoch ms."""
        return min(window.start_ms for window in self._all() if window.phase is Phase.CONTINUOUS)

    @property
    def close_ms(self) -> int:
        """Return the last end of continuous trading or closing auction over all classes, epoch ms.

        The post-close session is not counted: it trades at the closing price only.
        """
        ends = (Phase.CONTINUOUS, Phase.CLOSING_AUCTION)
        return max(window.end_ms for window in self._all() if window.phase in ends)

    def _all(self) -> Iterable[PhaseWindow]:
        return (window for windows in self.windows.values() for window in windows)


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRule:
    """The hours of one part of the day ('pre_open', 'trading', 'post_close') for one class, `first_date` to `last_date`."""

    part: str
    security_class: SecurityClass
    first_date: date
    last_date: date
    windows: tuple[HoursWindow, ...]
    unconfirmed: str = ""

    def covers(self, day: date) -> bool:
        """Return whether the rule holds on a date."""
        return self.first_date <= day <= self.last_date


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecialSession:
    """A session on a day that would be closed, or with hours of its own; empty `windows` means the hours of the time."""

    trading_date: date
    name: str
    windows: Mapping[SecurityClass, tuple[HoursWindow, ...]]
    unconfirmed: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownDifference:
    """Where a calendar library is known to disagree, and why ours is right. `subject`: session, open or close."""

    first_date: date
    last_date: date
    subject: str
    reason: str


class SessionCalendar:
    """The sessions of the exchange over the years that the calendar covers.

    Args:
        years: the years covered; every date of any other year is closed.
        holidays: closed weekdays and their names.
        specials: special sessions by date.
        rules: hours by part, class and date; for each class the parts together make the day.
        known_differences: where the cross-check may disagree.
        source: name of the calendar file, for messages.
    """

    __slots__ = ("_days", "_holidays", "_rules", "_specials", "known_differences", "source", "years")

    def __init__(
        self,
        *,
        years: frozenset[int],
        holidays: Mapping[date, str],
        specials: Mapping[date, SpecialSession],
        rules: tuple[SessionRule, ...],
        known_differences: tuple[KnownDifference, ...] = (),
        source: str = "nse_calendar.yaml",
    ) -> None:
        self.years = years
        self.known_differences = known_differences
        self.source = source
        self._holidays = dict(holidays)
        self._specials = dict(specials)
        self._rules = rules
        self._days: dict[date, SessionDay | None] = {}

    def is_known(self, day: date) -> bool:
        """Return whether the calendar covers a date's year."""
        return day.year in self.years

    def session(self, day: date) -> SessionDay | None:
        """Return the session of a date, or None when the exchange is closed or the year is not covered."""
        if day not in self._days:
            self._days[day] = None if self.closed_reason(day) else self._build(day)
        return self._days[day]

    def closed_reason(self, day: date) -> str:
        """Return why there is no session on a date, for people; '' when there is one."""
        if not self.is_known(day):
            return f"{day.year} is not in the calendar: add its holidays and sessions to {self.source}"
        if day in self._specials:
            return ""
        if day in self._holidays:
            return f"holiday: {self._holidays[day]}"
        return "weekend" if day.weekday() >= SATURDAY else ""

    def next_session(self, day: date) -> SessionDay | None:
        """Return the first session after a date, or None when the calendar holds none."""
        return self._walk(day, ONE_DAY)

    def previous_session(self, day: date) -> SessionDay | None:
        """Return the last session before a date, or None when the calendar holds none."""
        return self._walk(day, -ONE_DAY)

    def sessions(self, first: date, last: date) -> list[SessionDay]:
        """Return all sessions from `first` to `last`, both included, ascending."""
        days = (self.session(date.fromordinal(ordinal)) for ordinal in range(first.toordinal(), last.toordinal() + 1))
        return [day for day in days if day is not None]

    def holidays(self, year: int) -> dict[date, str]:
        """Return the closed weekdays of a year and their names, ascending."""
        return {day: name for day, name in sorted(self._holidays.items()) if day.year == year}

    def _walk(self, day: date, step: timedelta) -> SessionDay | None:
        if not self.years:
            return None
        first, last = date(min(self.years), 1, 1), date(max(self.years), 12, 31)
        day = max(day, first - ONE_DAY) if step is ONE_DAY else min(day, last + ONE_DAY)
        day += step
        while first <= day <= last:
            found = self.session(day)
            if found is not None:
                return found
            day += step
        return None

    def _build(self, day: date) -> SessionDay:
        rules = [rule for rule in self._rules if rule.covers(day)]
        special = self._specials.get(day)
        doubts = [rule.unconfirmed for rule in rules]
        hours: Mapping[SecurityClass, Iterable[HoursWindow]]
        if special is not None and special.windows:
            hours = special.windows
            doubts = []
        else:
            hours = {
                security_class: [window for rule in rules if rule.security_class is security_class for window in rule.windows]
                for security_class in SecurityClass
            }
        if special is not None:
            doubts.append(special.unconfirmed)
        return SessionDay(
            trading_date=day,
            name="normal" if special is None else special.name,
            special=special is not None,
            windows={security_class: dated_windows(day, hours[security_class]) for security_class in SecurityClass},
            normal_hours=special is None or not special.windows,
            unconfirmed="; ".join(dict.fromkeys(doubt for doubt in doubts if doubt)),
        )


def dated_windows(day: date, windows: Iterable[HoursWindow]) -> tuple[PhaseWindow, ...]:
    """Return a rule's windows on a date, ascending, as epoch ms."""
    return tuple(
        PhaseWindow(phase=window.phase, start_ms=ist_ms(day, window.start), end_ms=ist_ms(day, window.end), note=window.note)
        for window in sorted(windows, key=lambda window: window.start)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TradingWindow:
    """How long VELOX may trade one security class on one date, epoch ms, in the order in which the moments come.

    Attributes:
        entries_from_ms: the first moment of an entry.
        entry_until_ms: entries are over (exclusive); equal to `entries_from_ms` when the day is too short for any.
        flat_by_ms: square-off begins.
        hard_stop_ms: the last moment at which an order is sent without special care.
        continuous_end_ms: the end of continuous trading.
    """

    entries_from_ms: int
    entry_until_ms: int
    flat_by_ms: int
    hard_stop_ms: int
    continuous_end_ms: int


def trading_window(
    session: SessionDay,
    security_class: SecurityClass,
    *,
    entry_until: time,
    flat_by: time,
    hard_stop: time,
    margin_ms: int,
) -> TradingWindow:
    """Return how long VELOX may trade on a date.

    - A day with normal hours takes the configured times, each no later than the end of continuous trading less
      `margin_ms`.
    - A day with hours of its own takes `hard_stop` as its end less `margin_ms`, and the other two as far before it
      as they are configured. What does not fit is cut at the start: a session too short for the distance between
      `entry_until` and `hard_stop` has no entries.
    - Of several continuous windows only the last is traded: no position waits through a break.

    Args:
        entry_until, flat_by, hard_stop: wall times in IST, ascending.
        margin_ms: how long before the end of continuous trading everything must be done, ms, not negative.
    Raises: ValueError when the times do not ascend, the margin is negative, or the class has no continuous trading.
    """
    if not entry_until <= flat_by <= hard_stop or margin_ms < 0:
        raise ValueError(
            f"entry_until {entry_until}, flat_by {flat_by}, hard_stop {hard_stop} must ascend, and the margin "
            f"({margin_ms} ms) must not be negative"
        )
    continuous = session.continuous_windows(security_class)
    if not continuous:
        raise ValueError(f"{session.trading_date} ({session.name}) has no continuous trading for class {security_class}")
    start, end = continuous[-1].start_ms, continuous[-1].end_ms
    last = max(start, end - margin_ms)
    wanted = [ist_ms(session.trading_date, at) for at in (entry_until, flat_by, hard_stop)]
    if not session.normal_hours:
        shift = last - wanted[-1]
        wanted = [moment + shift for moment in wanted]
    entry_until_ms, flat_by_ms, hard_stop_ms = (min(max(moment, start), last) for moment in wanted)
    return TradingWindow(
        entries_from_ms=start,
        entry_until_ms=entry_until_ms,
        flat_by_ms=flat_by_ms,
        hard_stop_ms=hard_stop_ms,
        continuous_end_ms=end,
    )
