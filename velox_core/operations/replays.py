"""Many days of a configuration replayed in memory, for what to expect of its strategies."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

from velox_core.bootstrap import RunRequest
from velox_core.domain.errors import ConfigError, DataError
from velox_core.operations.dates import market_calendar
from velox_core.operations.day import check_scenario
from velox_core.operations.expectations import StrategyExpectation, record
from velox_core.operations.report import build_report
from velox_core.operations.strategies import expectations_file, is_replayable
from velox_core.rehearsal import rehearse
from velox_core.settings import Paths, Settings


def expectation_dates(
    settings: Settings, *, data: Path | None, scenario: str | None, first: date | None, last: date | None
) -> list[date]:
    """Return the sessions of the data, or of the calendar for a scenario, within a span. Raises ConfigError."""
    if not is_replayable(settings):
        raise ConfigError(
            f"{settings.source}: days of broker type {settings.broker.type.value} are not replayed; use a simulated one"
        )
    chosen = scenario or (None if data else settings.feed.scenario)
    calendar = market_calendar(settings)
    if chosen is not None:
        check_scenario(chosen)
        if first is None or last is None:
            raise ConfigError("a scenario exists for every session: say which with --from and --to")
        return [session.trading_date for session in calendar.sessions(first, last)]
    path = data or settings.feed.path
    if path is None:
        raise ConfigError(f"{settings.source}: no feed.path and no scenario; give --data PATH or --scenario NAME")
    from velox_core.feeds.load import available_dates

    try:
        dates = available_dates(path)
    except DataError as error:
        raise ConfigError(str(error)) from error
    return [
        on
        for on in dates
        if (first is None or on >= first) and (last is None or on <= last) and calendar.is_known(on) and calendar.session(on)
    ]


def record_expectations(
    settings: Settings,
    paths: Paths,
    dates: Sequence[date],
    *,
    data: Path | None,
    scenario: str | None,
    told: Callable[[date, Mapping[str, Any]], None],
) -> tuple[Path, list[StrategyExpectation]]:
    """Replay dates and keep what to expect. Returns the file and its figures. Raises ConfigError, DataError, VeloxError."""

    def replay(on: date) -> Mapping[str, Any]:
        done = rehearse(settings, RunRequest(date=on, data=data, scenario=scenario))
        facts = {"source": done.source, "synthetic": done.synthetic, "loss_limit_paise": settings.risk.limits.loss_limit_paise}
        return build_report(done.events, facts)

    file = expectations_file(settings, paths)
    with _quiet():
        return file, record(settings, dates, replay, file, told=told)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the engine's log lines of replayed days out of the terminal and of the account's log files."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
