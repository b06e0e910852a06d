"""The calendar file: it agrees with every date NSE published, it is read strictly, and a library cross-checks it."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

from velox_core.calendar import (
    cross_check,
    load_calendar,
    load_instruments,
    load_market_rules,
    load_tick_table,
)
from velox_core.domain.errors import CalendarError
from velox_core.domain.market.sessions import SessionCalendar

ROOT = Path(__file__).resolve().parents[2]
CALENDAR_FILE = ROOT / "config" / "nse_calendar.yaml"
FACTS = ROOT / "tests" / "data" / "nse_session_dates.txt"
SHARED_FACTS = ROOT.parent / "shared" / "data" / "nse_daily" / "actual_session_dates_2019-08_to_2026-08-21.txt"
LAST_FACT = date(2026, 8, 21)
# Sessions that the list lacks outside its complete years; the calendar file says what they rest on.
NOT_IN_LIST = {date(2021, 11, 4), date(2022, 8, 8)}

SMALL = """\
exchange: NSE
years:
  2024:
    basis: test
    holidays:
      2024-01-26: Republic Day
special_sessions:
  - {date: 2024-01-20, name: Saturday session, hours: normal, source: test}
  - date: 2024-11-01
    name: Muhurat trading
    windows:
      - {phase: continuous, from: 18:00, to: 19:00}
    source: test
session_rules:
  - {part: pre_open, classes: [derivative, cash], from: 2024-01-01, windows: [{phase: pre_open, from: 09:00, to: 09:15}], source: test}
  - {part: trading, classes: [cash], from: 2024-01-01, windows: [{phase: continuous, from: 09:15, to: 15:30}], source: test}
  - {part: trading, classes: [derivative], from: 2024-01-01, to: 2024-06-30, windows: [{phase: continuous, from: 09:15, to: 15:30}], source: test}
  - {part: trading, classes: [derivative], from: 2024-07-01, windows: [{phase: continuous, from: 09:15, to: 15:15}], source: test}
  - {part: post_close, classes: [derivative, cash], from: 2024-01-01, windows: [{phase: post_close, from: 15:40, to: 16:00}], source: test}
tick_sizes:
  - from: 2024-01-01
    bands:
      - {close_from: 0, tick: 0.01}
      - {close_from: 250, tick: 0.05}
    source: test
  - {from: 2024-06-10, bands: [{close_from: 0, tick: 0.05}], source: test}
derivative_stocks:
  - {from: 2024-01-01, to: 2024-03-31, symbols: [TCS, INFY], source: test}
  - {from: 2024-04-01, symbols: [TCS], source: test}
known_differences:
  - {date: 2024-01-20, subject: session, reason: test}
  - {from: 2024-07-01, to: 2024-07-31, subject: close, reason: test}
"""  # noqa: E501 - one rule a line, so that the lines in the table of refusals are easy to count


def read_facts() -> set[date]:
    days = set()
    for line in FACTS.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            month, *numbers = line.split()
            days |= {date.fromisoformat(f"{month}-{number}") for number in numbers}
    return days


@pytest.fixture(scope="module")
def calendar() -> SessionCalendar:
    return load_calendar(CALENDAR_FILE)


@pytest.fixture(scope="module")
def facts() -> set[date]:
    return read_facts()


# --- facts ---


def test_fact_list_holds_what_is_known_of_it(facts: set[date]) -> None:
    assert len(facts) == 1710
    assert (min(facts), max(facts)) == (date(2019, 8, 23), LAST_FACT)


@pytest.mark.skipif(not SHARED_FACTS.exists(), reason="needs ../shared/data/nse_daily, which is not beside this checkout")
def test_fact_list_equals_the_original() -> None:
    original = SHARED_FACTS.read_text(encoding="utf-8").split()
    assert read_facts() == {date.fromisoformat(text) for text in original}


def test_calendar_every_listed_date_is_a_session(calendar: SessionCalendar, facts: set[date]) -> None:
    assert sorted(day for day in facts if calendar.session(day) is None) == []


def test_calendar_complete_years_have_no_session_that_is_not_listed(calendar: SessionCalendar, facts: set[date]) -> None:
    ours = {session.trading_date for session in calendar.sessions(date(2024, 1, 1), LAST_FACT)}
    assert ours == {day for day in facts if day.year >= 2024}


def test_calendar_earlier_years_differ_from_the_list_as_documented(calendar: SessionCalendar, facts: set[date]) -> None:
    ours = {session.trading_date for session in calendar.sessions(date(2019, 10, 1), date(2023, 12, 31))}
    assert ours - facts == NOT_IN_LIST


def test_calendar_every_weekday_of_its_years_is_a_session_or_has_a_named_holiday(calendar: SessionCalendar) -> None:
    for year in sorted(calendar.years):
        for name in calendar.holidays(year).values():
            assert name.strip()
        assert 10 <= len(calendar.holidays(year)) <= 17
        assert 245 <= len(calendar.sessions(date(year, 1, 1), date(year, 12, 31))) <= 252


def test_calendar_rest_of_2026_has_the_announced_holidays(calendar: SessionCalendar) -> None:
    rest = [day for day in calendar.holidays(2026) if day > LAST_FACT]
    assert [f"{day:%m-%d}" for day in rest] == ["09-14", "10-02", "10-20", "11-10", "11-24", "12-25"]


# --- the cross-check ---


def test_cross_check_all_years_has_no_unexplained_difference(calendar: SessionCalendar) -> None:
    differences = cross_check(calendar, range(2019, 2027))
    assert [difference for difference in differences if not difference.known] == []
    reasons = {difference.reason for difference in differences}
    assert {known.reason for known in calendar.known_differences} == reasons
    auction = next(difference for difference in differences if difference.subject == "close")
    assert (auction.first_date, auction.last_date) == (date(2026, 8, 3), date(2026, 12, 4))
    assert (auction.ours, auction.theirs, auction.sessions) == ("15:15", "15:30", 85)


def test_cross_check_wrong_calendar_is_unexplained(tmp_path: Path) -> None:
    file = tmp_path / "calendar.yaml"
    file.write_text(SMALL, encoding="utf-8")
    differences = cross_check(load_calendar(file), [2024])
    known = [(difference.first_date, difference.subject) for difference in differences if difference.known]
    assert known == [(date(2024, 1, 20), "session"), (date(2024, 7, 1), "close")]
    alarms = [difference for difference in differences if not difference.known]
    sessions = [difference for difference in alarms if difference.subject == "session"]
    assert {difference.first_date for difference in sessions} >= {date(2024, 1, 22), date(2024, 12, 25)}
    assert {(difference.ours, difference.theirs) for difference in sessions} == {("session", "closed")}
    assert ("close", date(2024, 8, 1)) in {(difference.subject, difference.first_date) for difference in alarms}


def test_cross_check_years_that_are_not_covered_are_left_out(calendar: SessionCalendar) -> None:
    assert cross_check(calendar, [2018, 2031]) == []


def test_cross_check_without_the_library_says_what_to_install(
    calendar: SessionCalendar, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pandas_market_calendars", None)
    with pytest.raises(CalendarError, match="install pandas-market-calendars"):
        cross_check(calendar, [2024])


# --- strict reading ---


def test_load_market_rules_reads_the_same_as_each_loader(tmp_path: Path) -> None:
    file = tmp_path / "calendar.yaml"
    file.write_text(SMALL, encoding="utf-8")
    rules = load_market_rules(file)
    assert rules.instruments == load_instruments(file)
    assert rules.tick_table == load_tick_table(file)
    year = (date(2024, 1, 1), date(2024, 12, 31))
    assert rules.calendar.sessions(*year) == load_calendar(file).sessions(*year)
    assert rules.calendar.closed_reason(date(2025, 1, 1)).endswith("calendar.yaml")


def test_load_market_rules_parses_an_unchanged_file_once_and_a_changed_one_again_whatever_its_stamp(tmp_path: Path) -> None:
    file = tmp_path / "calendar.yaml"
    file.write_text(SMALL, encoding="utf-8")
    stamp = file.stat()
    rules = load_market_rules(file)
    assert load_market_rules(file) is rules
    file.write_text(SMALL.replace("exchange: NSE", "exchange: BSE"), encoding="utf-8")
    os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    with pytest.raises(CalendarError, match="'BSE' is not known"):
        load_market_rules(file)


def test_load_project_calendar_does_not_import_the_library() -> None:
    assert "pandas" not in load_calendar.__globals__


REFUSALS = [
    # (what is replaced, by what, line of the complaint, what the complaint holds)
    ("exchange: NSE", "exchange: BSE", 1, "'BSE' is not known"),
    ("exchange: NSE", "exchange: NSE\nsurprise: 1", 2, "surprise: unknown key"),
    ("known_differences:\n", "known_difference:\n", 0, "known_difference: unknown key"),
    ("  2024:\n", "  24:\n", 0, "'24' is not a year"),
    ("years:\n", "years: {}\nyear:\n", 0, "unknown key"),
    ("    basis: test\n", "", 0, "the key 'basis' is missing"),
    ("      2024-01-26: Republic Day", "      2024-01-27: Republic Day", 6, "2024-01-27 is on a weekend"),
    ("      2024-01-26: Republic Day", "      2025-01-27: Republic Day", 6, "2025-01-27 is not in 2024"),
    ("      2024-01-26: Republic Day", "      2024-02-30: Republic Day", 6, "not a date that exists"),
    ("      2024-01-26: Republic Day", "      Republic Day: 2024-01-26", 6, "'Republic Day' is not a date"),
    ("      2024-01-26: Republic Day", "      2024-01-26: ''", 6, "is not a text"),
    (
        "      2024-01-26: Republic Day",
        "      2024-01-26: Republic Day\n      2024-01-26: Again",
        7,
        "'2024-01-26' stands on line 6 already",
    ),
    ("date: 2024-11-01", "date: 2024-01-20", 9, "2024-01-20 is a special session already"),
    ("date: 2024-11-01", "date: 2024-01-26", 9, "2024-01-26 is a holiday already"),
    ("date: 2024-11-01", "date: 2025-11-01", 9, "2025 is not under `years`"),
    ("hours: normal, ", "", 8, "either hours or windows"),
    ("hours: normal", "hours: short", 8, "'short' is not known"),
    ("hours: normal", "hour: normal", 8, "unknown key"),
    ("from: 18:00, to: 19:00", "from: 19:00, to: 18:00", 12, "it ends at 18:00, not after 19:00"),
    ("from: 18:00, to: 19:00", "from: 18:00, to: 25:00", 12, "'25:00' is not a time of day"),
    ("from: 18:00, to: 19:00", "from: 18:00, to: [19]", 12, "a list is not a time of day"),
    ("phase: continuous, from: 18:00", "phase: pre_open, from: 18:00", 12, "there is no continuous trading"),
    ("phase: continuous, from: 18:00", "phase: closed, from: 18:00", 12, "'closed' is not known"),
    ("part: post_close", "part: lunch", 19, "'lunch' is not known"),
    ("classes: [cash]", "classes: [bonds]", 16, "'bonds' is not known"),
    (
        "classes: [cash]",
        "classes: [cash, derivative]",
        17,
        "trading of class derivative: 2024-01-01 is covered by another rule",
    ),
    ("from: 2024-07-01, windows", "from: 2024-07-02, windows", 18, "no rule covers 2024-07-01 to 2024-07-01"),
    ("from: 2024-07-01, windows", "from: 2024-06-30, windows", 18, "2024-06-30 is covered by another rule"),
    ("from: 2024-07-01, windows", "from: 2024-07-01, to: 2024-12-30, windows", 15, "no rule covers 2024-12-31 to 2024-12-31"),
    ("to: 2024-06-30", "to: 2023-06-30", 17, "holds no date"),
    ("from: 15:40", "from: 15:20", 15, "on 2024-01-01, class derivative, post_close begins at 15:20"),
    ("- {close_from: 250, tick: 0.05}", "- {close_from: 0, tick: 0.05}", 24, "bands begin at 0 and ascend"),
    ("- {close_from: 0, tick: 0.01}", "- {close_from: 1, tick: 0.01}", 23, "bands begin at 0 and ascend"),
    ("tick: 0.01", "tick: 0", 23, "a tick is above 0"),
    ("tick: 0.01", "tick: 0.001", 23, "not a whole number of paise"),
    ("tick: 0.01", "tick: -0.01", 23, "not a number, 0 or above"),
    ("tick: 0.01", "tick: .nan", 23, "not a number, 0 or above"),
    ("tick: 0.01", "tick: cheap", 23, "not a number, 0 or above"),
    ("from: 2024-06-10", "from: 2024-01-01", 26, "2024-01-01 is not after 2024-01-01"),
    ("bands: [{close_from: 0, tick: 0.05}]", "bands: []", 26, "there is no band"),
    ("from: 2024-04-01, symbols", "from: 2024-03-31, symbols", 29, "TCS is listed for some of these dates already"),
    ("symbols: [TCS, INFY]", "symbols: [TCS, TCS]", 28, "TCS is listed for some of these dates already"),
    ("symbols: [TCS, INFY]", "symbols: [TCS, 5]", 28, "'5' is not a text"),
    ("symbols: [TCS, INFY]", "symbols: TCS", 28, "'TCS' is not a list"),
    ("{date: 2024-01-20, subject", "{date: 2024-01-20, from: 2024-01-20, subject", 31, "it needs dates"),
    ("{date: 2024-01-20, subject", "{from: 2024-01-20, subject", 31, "it needs dates"),
    ("subject: close", "subject: weather", 32, "'weather' is not known"),
    ("name: Muhurat trading", "name: &anchor Muhurat trading\n    unconfirmed: *anchor", 0, "anchors, aliases"),
    ("exchange: NSE", "exchange: [", 0, "this is not YAML"),
]


@pytest.mark.parametrize(("old", "new", "line", "message"), REFUSALS, ids=[row[3] for row in REFUSALS])
def test_load_market_rules_damaged_file_names_file_line_and_remedy(
    tmp_path: Path, old: str, new: str, line: int, message: str
) -> None:
    assert SMALL.count(old) >= 1
    file = tmp_path / "calendar.yaml"
    file.write_text(SMALL.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(CalendarError) as caught:
        load_market_rules(file)
    text = str(caught.value)
    line_number = str(line) if line else "[0-9]+"
    assert re.match(f"{re.escape(str(file))}, line {line_number}: ", text), text
    assert message in text
    assert "; " in text
    assert "\n" not in text


def test_load_market_rules_windows_that_overlap_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "calendar.yaml"
    second = "      - {phase: continuous, from: 18:00, to: 19:00}\n      - {phase: post_close, from: 18:59, to: 19:10}"
    file.write_text(SMALL.replace("      - {phase: continuous, from: 18:00, to: 19:00}", second), encoding="utf-8")
    with pytest.raises(CalendarError, match=r"line 13: .*begins before the window before it ends \(19:00\)"):
        load_calendar(file)


def test_load_calendar_years_with_a_gap_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "calendar.yaml"
    extra = "  2026: {basis: test, holidays: {}}\nspecial_sessions:"
    file.write_text(SMALL.replace("special_sessions:", extra, 1), encoding="utf-8")
    with pytest.raises(CalendarError, match="2026 does not follow 2024"):
        load_calendar(file)


@pytest.mark.parametrize(
    ("section", "message"),
    [("years: {}", "there is no year"), ("tick_sizes: []", "there is no rule")],
)
def test_load_market_rules_empty_section_is_refused(tmp_path: Path, section: str, message: str) -> None:
    name = section.partition(":")[0]
    text = re.sub(rf"^{name}:\n(?:^ .*\n)+", section + "\n", SMALL, flags=re.MULTILINE)
    file = tmp_path / "calendar.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(CalendarError, match=message):
        load_market_rules(file)


@pytest.mark.parametrize("load", [load_calendar, load_tick_table, load_instruments, load_market_rules])
def test_load_missing_file_is_refused(tmp_path: Path, load: Callable[[Path], object]) -> None:
    with pytest.raises(CalendarError, match=r"nothing\.yaml cannot be read .*; check that the file exists"):
        load(tmp_path / "nothing.yaml")
