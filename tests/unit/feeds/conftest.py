"""A small calendar of January and February 2024 with the hours of that time, so that these tests need no file."""

from __future__ import annotations

from datetime import date, time
from pathlib import Path

import pytest

from velox_core.calendar import load_calendar
from velox_core.domain.market.sessions import HoursWindow, Phase, SessionCalendar, SessionRule, SpecialSession
from velox_core.domain.market.ticks import SecurityClass

PROJECT = Path(__file__).parents[3]
SHARED_DATA = PROJECT.parent / "shared" / "data"

EVENING = (HoursWindow(phase=Phase.CONTINUOUS, start=time(18, 15), end=time(19, 15)),)


@pytest.fixture(scope="session")
def calendar() -> SessionCalendar:
    """Return sessions 09:15-15:30 of 2024, a Saturday session, an evening session and two holidays."""
    hours = (HoursWindow(phase=Phase.CONTINUOUS, start=time(9, 15), end=time(15, 30)),)
    rules = tuple(
        SessionRule(
            part="trading",
            security_class=security_class,
            first_date=date(2024, 1, 1),
            last_date=date(2024, 12, 31),
            windows=hours,
        )
        for security_class in SecurityClass
    )
    return SessionCalendar(
        years=frozenset({2024}),
        holidays={date(2024, 1, 22): "Ayodhya", date(2024, 1, 26): "Republic Day"},
        specials={
            date(2024, 1, 20): SpecialSession(trading_date=date(2024, 1, 20), name="Saturday session", windows={}),
            date(2024, 11, 1): SpecialSession(
                trading_date=date(2024, 11, 1), name="Muhurat trading", windows=dict.fromkeys(SecurityClass, EVENING)
            ),
        },
        rules=rules,
    )


@pytest.fixture(scope="session")
def nse_calendar() -> SessionCalendar:
    """Return the project's own calendar, for real days."""
    return load_calendar(PROJECT / "config" / "nse_calendar.yaml")


@pytest.fixture(scope="session")
def project() -> Path:
    """Return the project's root."""
    return PROJECT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of real data beside the project; skip without it."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the folder shared/data does not lie beside the project")
    return SHARED_DATA
