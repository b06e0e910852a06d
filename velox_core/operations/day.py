"""What a flow must know of a day before it does anything: its date, whether the market is open, whether it is too late.

- A wall-clock day is one of a live broker: it follows the real clock, and a late run of it trades nothing.
- A replay has its own clock; only the session calendar can turn it away.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

from velox_core.domain.errors import ConfigError
from velox_core.operations.dates import choose_date, market_calendar
from velox_core.settings import BrokerType, Paths, Settings, load_settings, paths


@dataclass(frozen=True, slots=True, kw_only=True)
class DayRequest:
    """What was asked for. Absent values are the configuration's; `speed` 0.0 means as fast as possible."""

    config: Path | None = None
    date: date | None = None
    speed: float | None = None
    data: Path | None = None
    scenario: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """One day of one account.

    `closed_reason` is '' when the market has a session; `wall_clock` says it is no replay; `special` that the session is
    not an ordinary one.
    """

    request: DayRequest
    settings: Settings
    paths: Paths
    trading_date: date
    closed_reason: str
    wall_clock: bool
    special: bool = False

    @property
    def scenario(self) -> str | None:
        """Return the scenario of a synthetic day, None for bars from files."""
        return self.request.scenario or (None if self.request.data else self.settings.feed.scenario)

    @property
    def label(self) -> str:
        """Return what names the day in lists: '2024-01-15 simulated', with the scenario when there is one."""
        parts = [self.trading_date.isoformat(), self.settings.environment, self.request.scenario or ""]
        return " ".join(part for part in parts if part)


def open_day(request: DayRequest, environ: Mapping[str, str]) -> Day:
    """Load the configuration and find the day.

    Raises: ConfigError, also for an unknown scenario and a year that the calendar does not know; DataError; CalendarError.
    """
    if request.scenario is not None:
        check_scenario(request.scenario)
    settings = load_settings(request.config, environ)
    trading_date = choose_date(settings, given=request.date, data=request.data, scenario=request.scenario)
    calendar = market_calendar(settings)
    closed = calendar.closed_reason(trading_date)
    if not calendar.is_known(trading_date):
        raise ConfigError(closed)
    session = calendar.session(trading_date)
    return Day(
        request=request,
        settings=settings,
        paths=paths(environ, settings.root),
        trading_date=trading_date,
        closed_reason=closed,
        wall_clock=settings.broker.type is not BrokerType.SIMULATED,
        special=session is not None and session.special,
    )


def check_scenario(name: str) -> None:
    """Raise ConfigError for a scenario that there is not."""
    from velox_core.feeds.scenarios import SCENARIOS  # numpy: only when a scenario was asked for

    if name not in SCENARIOS:
        raise ConfigError(f"scenario {name!r} is not known; choose one of {', '.join(SCENARIOS)}")


def too_late(day: Day, flow: str, *, scheduled: datetime | None, now: datetime) -> str:
    """Return '' when a scheduled flow may still start, else why not. Only a wall-clock day can be too late.

    Args:
        day: the day.
        flow: 'market_open', 'intraday' or 'end_of_day'.
        scheduled: when the run was to start, None when nobody scheduled it.
        now: the moment, aware.
    """
    if scheduled is None or not day.wall_clock:
        return ""
    lateness = day.settings.market.lateness_minutes
    allowed = {"market_open": lateness.market_open, "intraday": lateness.intraday, "end_of_day": lateness.end_of_day}[flow]
    late_minutes = (now - scheduled).total_seconds() / 60
    if late_minutes <= allowed:
        return ""
    return f"{flow} was due at {scheduled.isoformat(timespec='minutes')}, {late_minutes:.0f} minutes ago; {allowed} are allowed"
