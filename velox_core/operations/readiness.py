"""Whether a day could be traded at all: a broker that there is, bars of the date, strategies that load on them.

- Asked before anything is armed or started, so that a typing error costs a second and not a day.
- Everything found is what the engine would find itself later; nothing is written.
- An engine that already trades the date is named, with its run, its process and its clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from pathlib import Path

from velox_core.domain.errors import ConfigError, DataError, VeloxError
from velox_core.domain.time import ist_clock_text
from velox_core.operations.day import Day, DayRequest, open_day
from velox_core.operations.dead_engine import take_over_command
from velox_core.operations.hints import velox
from velox_core.operations.stop import running_engine
from velox_core.settings import BrokerType, Paths, Settings, load_settings

SIMULATED_ONLY = "this version trades on the simulated broker only"


def refuse_live_broker(settings: Settings) -> None:
    """Raise ConfigError for a broker that this version cannot run."""
    if settings.broker.type is not BrokerType.SIMULATED:
        raise ConfigError(
            f"{settings.source}: broker type {settings.broker.type.value}: {SIMULATED_ONLY}. "
            "Set system.broker.type to simulated"
        )


def refuse_second_engine(settings: Settings, paths: Paths, trading_date: date) -> None:
    """Raise VeloxError when an engine of the account already trades the date."""
    running = running_engine(settings, paths, on=trading_date)
    if running is None:
        return
    clock = f", {ist_clock_text(running.number('engine_ms'))} of its day" if running.number("engine_ms") else ""
    raise VeloxError(
        f"run {running.run_id or running.folder.name} already trades {trading_date} (process {running.number('pid')}{clock}). "
        f"Nothing was started.\n"
        f"See it:  {velox('status', settings=settings)}\n"
        f"End it:  {velox('stop', '--run', running.folder.name, '--reason', 'start again', settings=settings)}\n"
        f"It does not answer:  {take_over_command(settings, running)}"
    )


def check_day(day: Day) -> None:
    """Raise ConfigError with one line for each thing that would keep the engine from trading the day."""
    refuse_live_broker(day.settings)
    problems = strategy_problems(day.settings, day_universe(day))
    if problems:
        raise ConfigError(problems)


def day_universe(day: Day) -> tuple[str, ...]:
    """Return the symbols of the day's bars. Raises ConfigError when there are no bars of the date that can be traded."""
    if day.scenario is not None:
        from velox_core.feeds.synthetic import default_symbols  # numpy: only when the data must be asked

        return tuple(day.settings.feed.symbols or default_symbols(day.scenario, day.settings.feed.scenario_symbols))
    path = day.request.data or day.settings.feed.path
    if path is None:
        raise ConfigError(f"{day.settings.source}: no feed.path and no scenario; give --data PATH or --scenario calm")
    from velox_core.calendar import load_market_rules
    from velox_core.feeds.load import load_day

    rules, feed = load_market_rules(day.settings.calendar_path), day.settings.feed
    try:
        return load_day(
            path,
            day.trading_date,
            rules.calendar,
            symbols=feed.symbols,
            options=feed.reading,
            security_class=rules.instruments.security_class,
            tick_table=rules.tick_table,
        ).universe
    except DataError as error:
        special = " It is a special session, which files of ordinary days leave out." if day.special else ""
        raise ConfigError(
            f"{error}.{special} Synthetic bars of the date: --scenario calm (make day DATE={day.trading_date} SCENARIO=calm)"
        ) from error


def standing_problems(config: Path | None, environ: Mapping[str, str], on: date | None = None) -> list[str]:
    """Return what would keep a day from being traded: no session, no data, its strategies. Empty: nothing.

    `on` is the day; None is the configuration's own.
    """
    settings = load_settings(config, environ)
    try:
        day = open_day(DayRequest(config=config, date=on), environ)
        closed = [f"{day.trading_date}: no session ({day.closed_reason})"] if on is not None and day.closed_reason else []
        if closed or settings.broker.type is not BrokerType.SIMULATED:
            return [*closed, *strategy_problems(settings, None)]  # the checklist refuses the broker
        universe = day_universe(day)
    except VeloxError as error:
        return [str(error), *strategy_problems(settings, None)]
    return strategy_problems(settings, universe)


def strategy_problems(settings: Settings, universe: tuple[str, ...] | None) -> list[str]:
    """Return one line for each enabled strategy that does not load, or that has no data in a universe that is known."""
    from velox_core.strategy_loading import load_strategy, resolved_rules  # brings the engine with it

    problems = []
    for chosen in settings.strategies:
        if not chosen.enabled:
            continue
        missing = [symbol for symbol in chosen.symbols if universe is not None and symbol not in universe]
        if missing:
            problems.append(
                f"{chosen.origin or 'strategies'}: {chosen.name}: no data for {', '.join(missing)}; the data has "
                f"{', '.join(universe or ())}"
            )
        try:
            resolved_rules(chosen, load_strategy(chosen))
        except ConfigError as error:
            problems.extend(error.problems)
    return problems
