"""Which date a command is about, and whether the market has a session on it.

- A live broker trades today (IST). A replay trades the date that was asked for, else the newest date in its data.
- Synthetic data exist for every session; without a date they take the data's newest date, else the last session.
"""

from __future__ import annotations

from datetime import date, datetime
from functools import lru_cache
from pathlib import Path

from velox_core.calendar import load_calendar
from velox_core.domain.errors import ConfigError, DataError
from velox_core.domain.market.sessions import SessionCalendar
from velox_core.domain.time import IST
from velox_core.settings import BrokerType, Settings


def today_ist() -> date:
    """Return today's date in India."""
    return datetime.now(IST).date()


def choose_date(settings: Settings, *, given: date | None, data: Path | None, scenario: str | None) -> date:
    """Return the trading date of a day.

    Args:
        settings: the configuration.
        given: the date asked for, if any.
        data: bars to replay instead of the configured ones.
        scenario: synthetic bars instead.
    Raises: ConfigError when a replay has neither date nor data, or the data cannot be read.
    """
    if given is not None:
        return given
    if settings.broker.type is not BrokerType.SIMULATED:
        return today_ist()
    path = data or settings.feed.path
    if path is not None:
        from velox_core.feeds.load import available_dates  # numpy: only when the data must be asked

        try:
            dates = available_dates(path)
        except DataError as error:
            raise ConfigError(str(error)) from error
        if dates:
            calendar = market_calendar(settings)
            sessions = [day for day in dates if calendar.session(day) is not None]  # a mock session is no day to trade
            return (sessions or dates)[-1]
    if scenario or settings.feed.scenario:
        session = market_calendar(settings).previous_session(today_ist())
        if session is not None:
            return session.trading_date
    if path is not None:
        raise ConfigError(
            f"no row of {path} has a time that can be read: it needs its UTC offset, as 2024-01-15T09:15:00+05:30 "
            "(docs/data-format.md)"
        )
    raise ConfigError("no date was given and there are no data to take one from: give --date, --data or --scenario")


def market_calendar(settings: Settings) -> SessionCalendar:
    """Return the session calendar of a configuration, read again when its file was changed. Raises CalendarError."""
    path = settings.calendar_path
    try:
        stamp = path.stat()
    except OSError:
        return load_calendar(path)  # it says what is wrong
    return _calendar_at(path, stamp.st_mtime_ns, stamp.st_size)


@lru_cache(maxsize=4)
def _calendar_at(path: Path, _changed_ns: int, _size: int) -> SessionCalendar:
    return load_calendar(path)
