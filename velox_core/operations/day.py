"""What a flow must know of a day before it does anything: its date, whether the market is open, whether it is too late.

- A run that a schedule started too late does nothing, whatever it was to do: missed runs all come when a machine is back.
- A wall-clock day is one of a live broker: it follows the real clock. A replay has its own, and its session is never over.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path

from velox_core.domain.errors import ConfigError
from velox_core.domain.scope import Scope
from velox_core.domain.time import IST, epoch_ms, ist_clock_text
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
    def run_stem(self) -> str:
        """Return what the ids of the day's runs begin with: the date, and the scenario of synthetic data."""
        return f"{self.trading_date.isoformat()}-{self.scenario}" if self.scenario else self.trading_date.isoformat()

    @property
    def account(self) -> Scope:
        """Return the account's own scope."""
        return Scope(broker_type=self.settings.broker.type.value, account=self.settings.account)

    @property
    def account_folder(self) -> Path:
        """Return the account's own folder below `var`."""
        return self.paths.var / self.account.folder

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


def closed_on(day: Day, on: date) -> str:
    """Return why the market of a day's calendar has no session on a date, '' when it has one. Raises CalendarError."""
    return market_calendar(day.settings).closed_reason(on)


def special_on(day: Day, on: date) -> str:
    """Return the name of the special session on a date, '' for an ordinary one and for none. Raises CalendarError."""
    session = market_calendar(day.settings).session(on)
    return session.name if session is not None and session.special else ""


def session_over(day: Day, now: datetime) -> str:
    """Return '' while a wall-clock day's session is not over, else that it is. A replay has its own clock."""
    session = market_calendar(day.settings).session(day.trading_date) if day.wall_clock else None
    if session is None or epoch_ms(now) < session.close_ms:
        return ""
    return (
        f"the session of {day.trading_date} ended at {ist_clock_text(session.close_ms)} India time: nothing can be traded. "
        "What is open is closed by velox flatten; end_of_day closes the books"
    )


def too_late(day: Day, flow: str, *, scheduled: datetime | None, now: datetime) -> str:
    """Return '' when a scheduled flow may still start, else why not.

    Args:
        day: the day.
        flow: 'market_open', 'intraday' or 'end_of_day'.
        scheduled: when the run was to start, None when nobody scheduled it.
        now: the moment, aware.
    """
    if scheduled is None:
        return ""
    lateness = day.settings.market.lateness_minutes
    allowed = {"market_open": lateness.market_open, "intraday": lateness.intraday, "end_of_day": lateness.end_of_day}[flow]
    late = now - scheduled
    if late <= timedelta(minutes=allowed):
        return ""
    due = f"{scheduled.astimezone(IST):%Y-%m-%d %H:%M}"
    return (
        f"{flow} was due at {due} India time, {late.total_seconds() / 60:.0f} minutes ago; {allowed} are allowed "
        f"(market.lateness_minutes.{flow} in {day.settings.source.name}). Nothing was done. Still wanted? Start it by hand"
    )
