"""Sessions: phases by class and date, closed days, and how long VELOX may trade."""

from __future__ import annotations

from datetime import date, time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from velox_core.calendar import load_calendar
from velox_core.domain.market.sessions import (
    Phase,
    PhaseWindow,
    SessionCalendar,
    SessionDay,
    TradingWindow,
    trading_window,
)
from velox_core.domain.market.ticks import SecurityClass
from velox_core.domain.time import MS_PER_DAY, MS_PER_MINUTE, ist_midnight_ms, ist_ms

ROOT = Path(__file__).resolve().parents[3]
CALENDAR = load_calendar(ROOT / "config" / "nse_calendar.yaml")
DERIVATIVE, CASH = SecurityClass.DERIVATIVE, SecurityClass.CASH
FIVE_MINUTES_MS = 5 * MS_PER_MINUTE


def session(day: date) -> SessionDay:
    found = CALENDAR.session(day)
    if found is None:
        pytest.fail(f"{day} has no session")
    return found


def hours(windows: tuple[PhaseWindow, ...], day: date) -> list[tuple[str, str, str]]:
    def text(moment_ms: int) -> str:
        minutes = (moment_ms - ist_midnight_ms(day)) // MS_PER_MINUTE
        return f"{minutes // 60:02d}:{minutes % 60:02d}"

    return [(window.phase.value, text(window.start_ms), text(window.end_ms)) for window in windows]


def texts(day: date, security_class: SecurityClass) -> list[tuple[str, str, str]]:
    return hours(session(day).windows[security_class], day)


def window_texts(
    day: date, security_class: SecurityClass = DERIVATIVE, *, hard_stop: time = time(15, 10), margin_ms: int = FIVE_MINUTES_MS
) -> list[str]:
    found = trading_window(
        session(day), security_class, entry_until=time(14, 45), flat_by=time(15, 5), hard_stop=hard_stop, margin_ms=margin_ms
    )
    moments = (found.entries_from_ms, found.entry_until_ms, found.flat_by_ms, found.hard_stop_ms, found.continuous_end_ms)
    minutes = [(moment - ist_midnight_ms(day)) // MS_PER_MINUTE for moment in moments]
    return [f"{minute // 60:02d}:{minute % 60:02d}" for minute in minutes]


# --- hours by class and date ---


def test_session_normal_day_before_the_closing_auction_is_the_same_for_both_classes() -> None:
    day = date(2024, 1, 15)
    expected = [
        ("pre_open", "09:00", "09:08"),
        ("pre_open", "09:08", "09:12"),
        ("pre_open", "09:12", "09:15"),
        ("continuous", "09:15", "15:30"),
        ("post_close", "15:40", "16:00"),
    ]
    assert texts(day, DERIVATIVE) == texts(day, CASH) == expected
    assert (session(day).name, session(day).special, session(day).normal_hours) == ("normal", False, True)
    assert session(day).unconfirmed == ""


def test_session_from_2026_08_03_ends_with_a_closing_auction_for_derivative_stocks_only() -> None:
    before, first = date(2026, 7, 31), date(2026, 8, 3)
    assert ("continuous", "09:15", "15:30") in texts(before, DERIVATIVE)
    assert texts(first, DERIVATIVE)[3:] == [
        ("continuous", "09:15", "15:15"),
        ("closing_auction", "15:15", "15:20"),
        ("closing_auction", "15:20", "15:25"),
        ("closing_auction", "15:25", "15:30"),
        ("closing_auction", "15:30", "15:35"),
        ("post_close", "15:50", "16:00"),
    ]
    assert texts(first, CASH)[3:] == [("continuous", "09:15", "15:30"), ("post_close", "15:50", "16:00")]


def test_session_from_2026_12_07_trades_to_15_30_and_is_marked_unconfirmed() -> None:
    before, first = date(2026, 12, 4), date(2026, 12, 7)
    assert ("continuous", "09:15", "15:15") in texts(before, DERIVATIVE)
    assert session(before).unconfirmed == ""
    assert texts(first, DERIVATIVE)[4:] == [
        ("continuous", "09:15", "15:30"),
        ("closing_auction", "15:30", "15:40"),
        ("post_close", "15:50", "16:00"),
    ]
    assert "one source" in session(first).unconfirmed


def test_session_pre_open_changes_on_2026_09_07() -> None:
    assert texts(date(2026, 9, 4), CASH)[:3] == texts(date(2024, 1, 15), CASH)[:3]
    for security_class in SecurityClass:
        assert texts(date(2026, 9, 7), security_class)[:4] == [
            ("pre_open", "09:00", "09:05"),
            ("pre_open", "09:05", "09:10"),
            ("pre_open", "09:10", "09:12"),
            ("pre_open", "09:12", "09:15"),
        ]


@pytest.mark.parametrize(
    ("at", "derivative", "cash"),
    [
        (time(8, 59, 59), Phase.CLOSED, Phase.CLOSED),
        (time(9, 0), Phase.PRE_OPEN, Phase.PRE_OPEN),
        (time(9, 14, 59), Phase.PRE_OPEN, Phase.PRE_OPEN),
        (time(9, 15), Phase.CONTINUOUS, Phase.CONTINUOUS),
        (time(15, 14, 59), Phase.CONTINUOUS, Phase.CONTINUOUS),
        (time(15, 15), Phase.CLOSING_AUCTION, Phase.CONTINUOUS),
        (time(15, 29, 59), Phase.CLOSING_AUCTION, Phase.CONTINUOUS),
        (time(15, 30), Phase.CLOSING_AUCTION, Phase.CLOSED),
        (time(15, 35), Phase.CLOSED, Phase.CLOSED),
        (time(15, 50), Phase.POST_CLOSE, Phase.POST_CLOSE),
        (time(16, 0), Phase.CLOSED, Phase.CLOSED),
    ],
)
def test_session_phase_on_a_closing_auction_day(at: time, derivative: Phase, cash: Phase) -> None:
    day = session(date(2026, 8, 18))
    assert day.phase(DERIVATIVE, ist_ms(day.trading_date, at)) is derivative
    assert day.phase(CASH, ist_ms(day.trading_date, at)) is cash


def test_session_phase_of_another_date_is_closed() -> None:
    day = session(date(2024, 1, 15))
    assert day.phase(CASH, ist_ms(date(2024, 1, 16), time(10, 0))) is Phase.CLOSED


def test_session_open_and_close_span_both_classes_without_post_close() -> None:
    day = date(2026, 8, 18)
    assert session(day).open_ms == ist_ms(day, time(9, 15))
    assert session(day).close_ms == ist_ms(day, time(15, 35))
    assert session(date(2024, 1, 15)).close_ms == ist_ms(date(2024, 1, 15), time(15, 30))


# --- special sessions ---


@pytest.mark.parametrize("day", [date(2024, 1, 20), date(2025, 2, 1), date(2026, 2, 1), date(2020, 2, 1)])
def test_session_special_with_normal_hours_has_the_hours_of_its_time(day: date) -> None:
    assert day.weekday() >= 5
    assert session(day).special
    assert session(day).normal_hours
    assert session(day).name != "normal"
    assert ("continuous", "09:15", "15:30") in texts(day, DERIVATIVE)


@pytest.mark.parametrize("day", [date(2024, 3, 2), date(2024, 5, 18)])
def test_session_drill_has_two_short_windows(day: date) -> None:
    assert hours(session(day).continuous_windows(CASH), day) == [
        ("continuous", "09:15", "10:00"),
        ("continuous", "11:30", "12:30"),
    ]
    assert session(day).phase(CASH, ist_ms(day, time(10, 30))) is Phase.CLOSED
    assert not session(day).normal_hours


@pytest.mark.parametrize(
    ("day", "start", "end"),
    [
        (date(2019, 10, 27), "18:15", "19:15"),
        (date(2020, 11, 14), "18:15", "19:15"),
        (date(2021, 11, 4), "18:15", "19:15"),
        (date(2022, 10, 24), "18:15", "19:15"),
        (date(2023, 11, 12), "18:15", "19:15"),
        (date(2024, 11, 1), "18:00", "19:00"),
        (date(2025, 10, 21), "13:45", "14:45"),
        (date(2026, 11, 8), "18:15", "19:15"),
    ],
)
def test_session_muhurat_has_one_window(day: date, start: str, end: str) -> None:
    assert session(day).name == "Muhurat trading"
    assert hours(session(day).continuous_windows(DERIVATIVE), day) == [("continuous", start, end)]


def test_session_muhurat_2026_is_marked_unconfirmed() -> None:
    assert "guess" in session(date(2026, 11, 8)).unconfirmed
    assert session(date(2024, 11, 1)).unconfirmed == ""


# --- closed days ---


@pytest.mark.parametrize(
    ("day", "reason"),
    [
        (date(2024, 1, 26), "holiday: Republic Day"),
        (date(2024, 1, 22), "holiday: Special holiday (consecration at Ayodhya)"),
        (date(2024, 1, 14), "weekend"),
        (date(2024, 1, 13), "weekend"),
        (date(2031, 1, 15), "2031 is not in the calendar: add its holidays and sessions to nse_calendar.yaml"),
        (date(2018, 12, 31), "2018 is not in the calendar: add its holidays and sessions to nse_calendar.yaml"),
    ],
)
def test_calendar_closed_day_has_no_session_and_says_why(day: date, reason: str) -> None:
    assert CALENDAR.session(day) is None
    assert CALENDAR.closed_reason(day) == reason


def test_calendar_open_day_has_no_closed_reason() -> None:
    assert CALENDAR.closed_reason(date(2024, 1, 15)) == ""
    assert CALENDAR.closed_reason(date(2024, 1, 20)) == ""


def test_calendar_is_known_covers_its_years_only() -> None:
    assert [year for year in range(2015, 2035) if CALENDAR.is_known(date(year, 7, 1))] == list(range(2019, 2027))


def test_calendar_next_and_previous_session_skip_closed_days() -> None:
    friday, saturday, tuesday = date(2024, 1, 19), date(2024, 1, 20), date(2024, 1, 23)
    assert CALENDAR.next_session(friday) == session(saturday)
    assert CALENDAR.next_session(saturday) == session(tuesday)
    assert CALENDAR.previous_session(tuesday) == session(saturday)
    assert CALENDAR.previous_session(date(2024, 1, 22)) == session(saturday)


def test_calendar_next_and_previous_session_end_with_the_calendar() -> None:
    first, last = session(date(2019, 1, 1)), session(date(2026, 12, 31))
    assert CALENDAR.previous_session(first.trading_date) is None
    assert CALENDAR.next_session(last.trading_date) is None
    assert CALENDAR.next_session(date(1990, 1, 1)) == first
    assert CALENDAR.previous_session(date(2099, 1, 1)) == last
    assert CALENDAR.next_session(date(2099, 1, 1)) is None
    assert CALENDAR.previous_session(date(1990, 1, 1)) is None


def test_calendar_without_years_knows_nothing() -> None:
    empty = SessionCalendar(years=frozenset(), holidays={}, specials={}, rules=())
    assert empty.session(date(2024, 1, 15)) is None
    assert empty.next_session(date(2024, 1, 15)) is None


def test_calendar_sessions_counts_a_year() -> None:
    assert len(CALENDAR.sessions(date(2024, 1, 1), date(2024, 12, 31))) == 249
    assert len(CALENDAR.sessions(date(2025, 1, 1), date(2025, 12, 31))) == 249
    assert CALENDAR.sessions(date(2024, 1, 16), date(2024, 1, 15)) == []


def test_calendar_holidays_are_weekdays_of_the_year_in_order() -> None:
    holidays = CALENDAR.holidays(2024)
    assert len(holidays) == 16
    assert list(holidays) == sorted(holidays)
    assert all(day.year == 2024 and day.weekday() < 5 for day in holidays)


# --- how long VELOX may trade ---


def test_trading_window_normal_day_takes_the_configured_times() -> None:
    assert window_texts(date(2024, 1, 15)) == ["09:15", "14:45", "15:05", "15:10", "15:30"]
    assert window_texts(date(2024, 1, 20)) == ["09:15", "14:45", "15:05", "15:10", "15:30"]


def test_trading_window_closing_auction_day_caps_times_before_15_15() -> None:
    day = date(2026, 8, 18)
    assert window_texts(day) == ["09:15", "14:45", "15:05", "15:10", "15:15"]
    assert window_texts(day, hard_stop=time(15, 25)) == ["09:15", "14:45", "15:05", "15:10", "15:15"]
    assert window_texts(day, CASH, hard_stop=time(15, 25)) == ["09:15", "14:45", "15:05", "15:25", "15:30"]
    assert window_texts(day, margin_ms=15 * MS_PER_MINUTE) == ["09:15", "14:45", "15:00", "15:00", "15:15"]


def test_trading_window_evening_session_keeps_the_distances_from_its_end() -> None:
    assert window_texts(date(2024, 11, 1)) == ["18:00", "18:30", "18:50", "18:55", "19:00"]
    assert window_texts(date(2025, 10, 21)) == ["13:45", "14:15", "14:35", "14:40", "14:45"]


def test_trading_window_of_several_windows_trades_the_last_only() -> None:
    assert window_texts(date(2024, 3, 2)) == ["11:30", "12:00", "12:20", "12:25", "12:30"]


def test_trading_window_too_short_for_the_distances_has_no_entries() -> None:
    found = trading_window(
        session(date(2024, 11, 1)),
        CASH,
        entry_until=time(13, 0),
        flat_by=time(15, 5),
        hard_stop=time(15, 10),
        margin_ms=FIVE_MINUTES_MS,
    )
    assert found.entries_from_ms == found.entry_until_ms
    assert found.flat_by_ms < found.hard_stop_ms < found.continuous_end_ms


@pytest.mark.parametrize(
    ("entry_until", "flat_by", "hard_stop", "margin_ms"),
    [
        (time(15, 6), time(15, 5), time(15, 10), 0),
        (time(14, 45), time(15, 11), time(15, 10), 0),
        (time(14, 45), time(15, 5), time(15, 10), -1),
    ],
)
def test_trading_window_impossible_times_are_refused(entry_until: time, flat_by: time, hard_stop: time, margin_ms: int) -> None:
    with pytest.raises(ValueError, match="ascend"):
        trading_window(
            session(date(2024, 1, 15)), CASH, entry_until=entry_until, flat_by=flat_by, hard_stop=hard_stop, margin_ms=margin_ms
        )


def test_trading_window_class_without_continuous_trading_is_refused() -> None:
    day = date(2024, 1, 15)
    closed = SessionDay(trading_date=day, name="odd", special=True, windows={CASH: (), DERIVATIVE: ()})
    with pytest.raises(ValueError, match="no continuous trading"):
        trading_window(closed, CASH, entry_until=time(14), flat_by=time(15), hard_stop=time(15), margin_ms=0)


TIMES = st.times().map(lambda at: at.replace(second=0, microsecond=0, tzinfo=None))


@given(
    st.sampled_from(CALENDAR.sessions(date(2023, 11, 1), date(2026, 12, 31))),
    st.sampled_from(SecurityClass),
    st.lists(TIMES, min_size=3, max_size=3).map(sorted),
    st.integers(0, MS_PER_DAY),
)
def test_trading_window_any_day_and_times_stay_in_order_inside_continuous_trading(
    day: SessionDay, security_class: SecurityClass, times: list[time], margin_ms: int
) -> None:
    entry_until, flat_by, hard_stop = times
    found: TradingWindow = trading_window(
        day, security_class, entry_until=entry_until, flat_by=flat_by, hard_stop=hard_stop, margin_ms=margin_ms
    )
    moments = [found.entries_from_ms, found.entry_until_ms, found.flat_by_ms, found.hard_stop_ms, found.continuous_end_ms]
    assert moments == sorted(moments)
    assert day.phase(security_class, found.entries_from_ms) is Phase.CONTINUOUS
    assert day.phase(security_class, found.continuous_end_ms - 1) is Phase.CONTINUOUS
    last_allowed = max(found.entries_from_ms, found.continuous_end_ms - margin_ms)
    assert found.hard_stop_ms <= last_allowed
