"""`velox run --days N`: sessions one after another, each a run of its own with its own summary, and what they add up to."""

from __future__ import annotations

import os
from datetime import date
from pathlib import Path
from typing import Any

from rich.console import Console

from velox_core.bootstrap import RunRequest
from velox_core.cli.run import run_foreground
from velox_core.domain.errors import EXIT_DONE, ConfigError
from velox_core.operations.dates import market_calendar
from velox_core.operations.day import Day, DayRequest, open_day
from velox_core.operations.readiness import check_day, refuse_live_broker, refuse_second_engine
from velox_core.operations.recorded import find_run
from velox_core.operations.runs import load_report
from velox_core.operations.view import SYNTHETIC_NOTE, signed_rupees
from velox_core.settings import Settings


def run_days(
    count: int, *, config: Path | None, first: date | None, data: Path | None, scenario: str | None, fresh: bool
) -> int:
    """Run so many sessions from a date on, as fast as possible. Returns the exit code of the last that ran."""
    begin = open_day(DayRequest(config=config, date=first, data=data, scenario=scenario), os.environ)
    refuse_live_broker(begin.settings)
    total, synthetic, code = 0, False, EXIT_DONE
    done: list[date] = []
    for on in _sessions(begin, count):
        day = open_day(DayRequest(config=config, date=on, data=data, scenario=scenario), os.environ)
        refuse_second_engine(day.settings, day.paths, on)
        check_day(day)
        request = RunRequest(date=on, speed=0.0, data=data, scenario=scenario, fresh=fresh)
        code = run_foreground(day.settings, day.paths, request, as_json=False)
        report: dict[str, Any] = load_report(day.settings, find_run(day.settings, day.paths, on=on, run_id=None))
        total += int(report.get("net_paise", 0))
        synthetic = synthetic or report.get("synthetic") is True
        done.append(on)
        if code != EXIT_DONE:
            break
    left = "" if len(done) == count else f" of {count}"
    note = f" ({SYNTHETIC_NOTE})" if synthetic else ""
    Console(highlight=False).print(
        f"{len(done)}{left} days, {done[0]} to {done[-1]}: net {signed_rupees(total)} in all{note}",
        soft_wrap=True,
        markup=False,
    )
    return code


def _sessions(begin: Day, count: int) -> list[date]:
    """Return the dates to run: sessions of the calendar, with data only those that the data have."""
    settings: Settings = begin.settings
    calendar = market_calendar(settings)
    path = None if begin.scenario else begin.request.data or settings.feed.path
    if path is None:
        dates = list[date]()
        session = calendar.session(begin.trading_date) or calendar.next_session(begin.trading_date)
        while session is not None and len(dates) < count:
            dates.append(session.trading_date)
            session = calendar.next_session(session.trading_date)
    else:
        from velox_core.feeds.load import available_dates

        dates = [on for on in available_dates(path) if on >= begin.trading_date and calendar.session(on)][:count]
    if len(dates) < count:
        raise ConfigError(f"{begin.trading_date} and after have {len(dates)} sessions, {count} were asked for: give --date")
    return dates
