"""Read the exchange's rules from `config/nse_calendar.yaml`: sessions, tick sizes, and which stocks have derivatives.

- The file is data with its sources; this module gives it no meaning of its own, and knows no hour, date or rate.
- Strict: an unknown key, a wrong type, overlapping rules, a date left out or given twice is a CalendarError that names
  the file, the line and what to do. A calendar that loads is complete for its years.
- `cross_check` compares with a calendar library, as an alarm; it decides nothing, and only it imports that library.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date, timedelta
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from velox_core.domain.errors import CalendarError
from velox_core.domain.market.sessions import (
    SATURDAY,
    HoursWindow,
    KnownDifference,
    Phase,
    SessionCalendar,
    SessionDay,
    SessionRule,
    SpecialSession,
)
from velox_core.domain.market.ticks import DerivativePeriod, InstrumentBook, SecurityClass, TickRule, TickTable
from velox_core.domain.money import PAISE_PER_RUPEE
from velox_core.domain.time import ist_datetime
from velox_core.strict_yaml import FILE_BYTES_MAX, Section, Value, read_document

PARTS = ("pre_open", "trading", "post_close")
SUBJECTS = ("session", "open", "close")
LIBRARY = "pandas_market_calendars"
LIBRARY_CALENDAR = "NSE"
_SECTIONS = ("exchange", "years", "special_sessions", "session_rules", "tick_sizes", "derivative_stocks", "known_differences")
_CLASSES = tuple(security_class.value for security_class in SecurityClass)
_OPEN_PHASES = tuple(phase.value for phase in Phase if phase is not Phase.CLOSED)
_ONE_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class MarketRules:
    """All that the calendar file holds."""

    calendar: SessionCalendar
    instruments: InstrumentBook

    @property
    def tick_table(self) -> TickTable:
        """Return the tick sizes."""
        return self.instruments.tick_table


def load_market_rules(path: Path) -> MarketRules:
    """Read the whole file; one that has not changed is parsed once in a process. Raises CalendarError."""
    try:
        with path.open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
    except OSError:  # what is wrong with it is told by the reader
        return _market_rules.__wrapped__(path, b"")
    return _market_rules(path, content)


@lru_cache(maxsize=4)
def _market_rules(path: Path, content: bytes) -> MarketRules:
    """Return the rules in a file. `content` tells one state of the file from another."""
    top = _top(path)
    return MarketRules(calendar=_calendar(top, path.name), instruments=_instruments(top))


def load_calendar(path: Path) -> SessionCalendar:
    """Read the sessions. Raises CalendarError."""
    return _calendar(_top(path), path.name)


def load_tick_table(path: Path) -> TickTable:
    """Read the tick sizes. Raises CalendarError."""
    return _tick_table(_top(path)["tick_sizes"])


def load_instruments(path: Path) -> InstrumentBook:
    """Read tick sizes and the stocks with derivatives. Raises CalendarError."""
    return _instruments(_top(path))


def _top(path: Path) -> Section:
    top = read_document(path, CalendarError).section(required=_SECTIONS)
    top["exchange"].choice("NSE")
    return top


# --- sessions ---------------------------------------------------------------------------------------------------------


def _calendar(top: Section, source: str) -> SessionCalendar:
    years, holidays = _years(top["years"])
    last = date(max(years), 12, 31)
    return SessionCalendar(
        years=years,
        holidays=holidays,
        specials=_specials(top["special_sessions"], years, holidays),
        rules=_session_rules(top["session_rules"], date(min(years), 1, 1), last),
        known_differences=tuple(_known_difference(value) for value in top["known_differences"].items()),
        source=source,
    )


def _years(value: Value) -> tuple[frozenset[int], dict[date, str]]:
    years: list[int] = []
    holidays: dict[date, str] = {}
    for name, entry in value.pairs():
        if not (name.isascii() and name.isdigit() and len(name) == 4):
            raise entry.fail(f"'{name}' is not a year", "write the year with four digits")
        year = int(name)
        if years and year != years[-1] + 1:
            raise entry.fail(f"{year} does not follow {years[-1]}", "list the years in order, without a gap")
        years.append(year)
        section = entry.section(required=("basis", "holidays"))
        section["basis"].text()
        for day, holiday in section["holidays"].dated_pairs():
            if day.year != year:
                raise holiday.fail(f"{day} is not in {year}", "move it to its year")
            if day.weekday() >= SATURDAY:
                raise holiday.fail(f"{day} is on a weekend", "remove it: weekends are closed anyway")
            holidays[day] = holiday.text()
    if not years:
        raise value.fail("there is no year", "add at least one")
    return frozenset(years), holidays


def _specials(value: Value, years: frozenset[int], holidays: Mapping[date, str]) -> dict[date, SpecialSession]:
    specials: dict[date, SpecialSession] = {}
    for entry in value.items():
        section = entry.section(required=("date", "name", "source"), optional=("hours", "windows", "unconfirmed"))
        section["source"].text()
        day = section["date"].day()
        if day in specials or day in holidays:
            other = "a holiday" if day in holidays else "a special session"
            raise section["date"].fail(f"{day} is {other} already", "keep one of them")
        if day.year not in years:
            raise section["date"].fail(f"{day.year} is not under `years`", "add the year first")
        if ("hours" in section) == ("windows" in section):
            raise entry.fail("a special session has either hours or windows", "write `hours: normal` or `windows: [...]`")
        windows: dict[SecurityClass, tuple[HoursWindow, ...]] = {}
        if "windows" in section:
            windows = dict.fromkeys(SecurityClass, _windows(section["windows"], continuous=True))
        else:
            section["hours"].choice("normal")
        specials[day] = SpecialSession(
            trading_date=day, name=section["name"].text(), windows=windows, unconfirmed=_optional_text(section, "unconfirmed")
        )
    return specials


def _session_rules(value: Value, first: date, last: date) -> tuple[SessionRule, ...]:
    found: dict[tuple[str, SecurityClass], list[tuple[SessionRule, Value]]] = {
        (part, security_class): [] for part in PARTS for security_class in SecurityClass
    }
    for entry in value.items():
        section = entry.section(required=("part", "classes", "from", "windows", "source"), optional=("to", "unconfirmed"))
        section["source"].text()
        part = section["part"].choice(*PARTS)
        windows = _windows(section["windows"], continuous=part == "trading")
        begin, end = _period(section, last)
        for name in section["classes"].items():
            rule = SessionRule(
                part=part,
                security_class=SecurityClass(name.choice(*_CLASSES)),
                first_date=begin,
                last_date=end,
                windows=windows,
                unconfirmed=_optional_text(section, "unconfirmed"),
            )
            found[part, rule.security_class].append((rule, entry))
    for (part, security_class), rules in found.items():
        _refuse_gaps(value, f"{part} of class {security_class}", rules, first, last)
    everything = tuple(rule for rules in found.values() for rule, _ in rules)
    _refuse_clashes(value, everything)
    return everything


def _refuse_gaps(value: Value, what: str, rules: list[tuple[SessionRule, Value]], first: date, last: date) -> None:
    """Refuse rules of one part and class that overlap or leave a date of the calendar out."""
    expected = first
    for rule, entry in sorted(rules, key=lambda pair: pair[0].first_date):
        if rule.first_date < expected:
            raise entry.fail(f"{what}: {rule.first_date} is covered by another rule too", "make the rules follow each other")
        if rule.first_date > expected:
            raise entry.fail(f"{what}: no rule covers {expected} to {rule.first_date - _ONE_DAY}", "close the gap")
        expected = rule.last_date + _ONE_DAY
    if expected <= last:
        raise value.fail(f"{what}: no rule covers {expected} to {last}", "add a rule, or leave `to` out of the last one")


def _refuse_clashes(value: Value, rules: tuple[SessionRule, ...]) -> None:
    """Refuse parts of a day that overlap each other: checked on each first date, where a new combination begins."""
    for day in sorted({rule.first_date for rule in rules}):
        for security_class in SecurityClass:
            hours = [w for rule in rules if rule.security_class is security_class and rule.covers(day) for w in rule.windows]
            hours.sort(key=lambda window: window.start)
            for before, after in pairwise(hours):
                if after.start < before.end:
                    raise value.fail(
                        f"on {day}, class {security_class}, {after.phase} begins at {after.start:%H:%M} "
                        f"before {before.phase} ends at {before.end:%H:%M}",
                        "correct the hours of one part",
                    )


def _windows(value: Value, *, continuous: bool) -> tuple[HoursWindow, ...]:
    """Read the windows of a rule; `continuous` says whether continuous trading must be among them."""
    windows: list[HoursWindow] = []
    for entry in value.items():
        section = entry.section(required=("phase", "from", "to"), optional=("note",))
        window = HoursWindow(
            phase=Phase(section["phase"].choice(*_OPEN_PHASES)),
            start=section["from"].clock(),
            end=section["to"].clock(),
            note=_optional_text(section, "note"),
        )
        if window.start >= window.end:
            raise entry.fail(f"it ends at {window.end:%H:%M}, not after {window.start:%H:%M}", "correct the hours")
        if windows and window.start < windows[-1].end:
            raise entry.fail(f"it begins before the window before it ends ({windows[-1].end:%H:%M})", "correct the hours")
        windows.append(window)
    if continuous and not any(window.phase is Phase.CONTINUOUS for window in windows):
        raise value.fail("there is no continuous trading", "add a window with `phase: continuous`")
    return tuple(windows)


def _known_difference(value: Value) -> KnownDifference:
    section = value.section(required=("subject", "reason"), optional=("date", "from", "to"))
    if "date" in section and not ("from" in section or "to" in section):
        first = last = section["date"].day()
    elif "from" in section and "to" in section and "date" not in section:
        first, last = _period(section, date.max)
    else:
        raise value.fail("it needs dates", "write either `date`, or `from` and `to`")
    return KnownDifference(
        first_date=first, last_date=last, subject=section["subject"].choice(*SUBJECTS), reason=section["reason"].text()
    )


# --- instruments ------------------------------------------------------------------------------------------------------


def _instruments(top: Section) -> InstrumentBook:
    return InstrumentBook(
        tick_table=_tick_table(top["tick_sizes"]), derivative_periods=_derivative_periods(top["derivative_stocks"])
    )


def _tick_table(value: Value) -> TickTable:
    rules: list[TickRule] = []
    for entry in value.items():
        section = entry.section(required=("from", "bands", "source"))
        section["source"].text()
        day = section["from"].day()
        if rules and day <= rules[-1].first_date:
            raise section["from"].fail(f"{day} is not after {rules[-1].first_date}", "list the rules in order, one a date")
        floors: list[int] = []
        ticks: list[int] = []
        for band in section["bands"].items():
            limits = band.section(required=("close_from", "tick"))
            floor, tick = _paise(limits["close_from"]), _paise(limits["tick"])
            if tick == 0:
                raise limits["tick"].fail("a tick is above 0", "write the tick in rupees")
            if floor != 0 if not floors else floor <= floors[-1]:
                raise limits["close_from"].fail("bands begin at 0 and ascend", "correct `close_from`")
            floors.append(floor)
            ticks.append(tick)
        if not floors:
            raise section["bands"].fail("there is no band", "add at least the band that begins at 0")
        rules.append(TickRule(first_date=day, floors_paise=tuple(floors), ticks_paise=tuple(ticks)))
    if not rules:
        raise value.fail("there is no rule", "add at least one")
    return TickTable(rules=tuple(rules))


def _derivative_periods(value: Value) -> dict[str, tuple[DerivativePeriod, ...]]:
    found: dict[str, tuple[DerivativePeriod, ...]] = {}
    for entry in value.items():
        section = entry.section(required=("from", "symbols", "source"), optional=("to",))
        section["source"].text()
        first, last = _period(section, date.max)
        for item in section["symbols"].items():
            symbol = item.text()
            others = found.get(symbol, ())
            if any(first <= (other.last_date or date.max) and other.first_date <= last for other in others):
                raise item.fail(f"{symbol} is listed for some of these dates already", "remove it, or change the dates")
            period = DerivativePeriod(first_date=first, last_date=last if "to" in section else None)
            found[symbol] = (*others, period)
    return found


def _paise(value: Value) -> int:
    paise = value.number() * PAISE_PER_RUPEE
    if paise != int(paise):
        raise value.fail("it is not a whole number of paise", "write rupees with at most two decimals")
    return int(paise)


def _period(section: Section, last: date) -> tuple[date, date]:
    begin = section["from"].day()
    end = section["to"].day() if "to" in section else last
    if end < begin:
        raise section["from"].fail(f"{begin} to {end} holds no date", "correct `from` or `to`")
    return begin, end


def _optional_text(section: Section, name: str) -> str:
    return section[name].text() if name in section else ""


# --- the cross-check --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Where our calendar and the library disagree, `first_date` to `last_date`.

    Attributes:
        subject: 'session' (one has it, the other not), 'open' or 'close' (hours of continuous trading, IST).
        ours, theirs: what each says.
        reason: why it is known and ours is right; '' for an unexplained difference, which is the alarm.
        sessions: on how many dates between the two.
    """

    first_date: date
    last_date: date
    subject: str
    ours: str
    theirs: str
    reason: str
    sessions: int = 1

    @property
    def known(self) -> bool:
        """Return whether the calendar file explains the difference."""
        return bool(self.reason)


def cross_check(calendar: SessionCalendar, years: Iterable[int]) -> list[Difference]:
    """Compare with pandas_market_calendars 'NSE' and return the differences, ascending by date.

    Hours are compared for stocks with derivatives, whose day is never the longer one; the library knows one class only.
    Hours that differ in the same way on several dates are one difference.

    Args:
        calendar: ours.
        years: calendar years; those that `calendar` does not cover are left out.
    Raises: CalendarError when the library is not installed.
    """
    wanted = sorted(year for year in set(years) if year in calendar.years)
    differences: list[Difference] = []
    if wanted:
        theirs = _library_hours(date(wanted[0], 1, 1), date(wanted[-1], 12, 31))
        for year in wanted:
            first, last = date(year, 1, 1), date(year, 12, 31)
            ours = {session.trading_date: session for session in calendar.sessions(first, last)}
            days = sorted(set(ours) | {day for day in theirs if day.year == year})
            for day in days:
                differences += _differences_of(calendar, day, ours.get(day), theirs.get(day))
    return _merged(differences)


def _differences_of(
    calendar: SessionCalendar, day: date, session: SessionDay | None, hours: tuple[str, str] | None
) -> list[Difference]:
    if session is None or hours is None:
        said = ("closed", "session") if session is None else ("session", "closed")
        return [_difference(calendar, day, "session", *said)]
    windows = session.continuous_windows(SecurityClass.DERIVATIVE)
    ours = (_ist_text(windows[0].start_ms), _ist_text(windows[-1].end_ms))
    compared = zip(("open", "close"), ours, hours, strict=True)
    return [_difference(calendar, day, subject, mine, their) for subject, mine, their in compared if mine != their]


def _difference(calendar: SessionCalendar, day: date, subject: str, ours: str, theirs: str) -> Difference:
    reasons = [
        known.reason
        for known in calendar.known_differences
        if known.subject == subject and known.first_date <= day <= known.last_date
    ]
    return Difference(
        first_date=day, last_date=day, subject=subject, ours=ours, theirs=theirs, reason=reasons[0] if reasons else ""
    )


def _merged(differences: list[Difference]) -> list[Difference]:
    """Join the hours that differ in the same way; a session that one side lacks stays a difference of its own."""
    merged: dict[tuple[object, ...], Difference] = {}
    for new in differences:
        alone = new.first_date if new.subject == "session" else None
        key = (new.subject, new.ours, new.theirs, new.reason, alone)
        old = merged.get(key)
        merged[key] = new if old is None else replace(old, last_date=new.last_date, sessions=old.sessions + 1)
    return sorted(merged.values(), key=lambda difference: (difference.first_date, difference.subject))


def _library_hours(first: date, last: date) -> dict[date, tuple[str, str]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            library: Any = importlib.import_module(LIBRARY)
        except ModuleNotFoundError as problem:
            raise CalendarError(
                f"{LIBRARY} is not installed, so the calendar cannot be cross-checked; install pandas-market-calendars"
            ) from problem
        schedule: Any = library.get_calendar(LIBRARY_CALENDAR).schedule(first.isoformat(), last.isoformat(), tz="Asia/Kolkata")
    return {
        day.date(): (f"{row.market_open:%H:%M}", f"{row.market_close:%H:%M}")
        for day, row in zip(schedule.index, schedule.itertuples(), strict=True)
    }


def _ist_text(moment_ms: int) -> str:
    return f"{ist_datetime(moment_ms):%H:%M}"
