"""The commands. Each loads settings, makes one call and shows its answer; heavy imports stay inside."""

from __future__ import annotations

import sys
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import typer

from velox_core.cli.options import (
    ConfigOption,
    DataOption,
    DateOption,
    JsonOption,
    ScenarioOption,
    SpeedOption,
    open_settings,
    optional_date,
    optional_speed,
    parse_date,
)

app = typer.Typer(
    help="VELOX: an intraday trading day on NSE equities, with safety first.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.command()
def day(
    *,
    config: ConfigOption = None,
    date: DateOption = None,
    speed: SpeedOption = None,
    data: DataOption = None,
    scenario: ScenarioOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run a whole trading day as Prefect flows: market open, intraday, end of day."""
    from velox_core.cli.day import DayRequest, run_day

    request = DayRequest(
        config=config, date=optional_date(date), speed=optional_speed(speed), data=data, scenario=scenario, as_json=as_json
    )
    raise typer.Exit(run_day(request))


@app.command()
def run(
    *,
    config: ConfigOption = None,
    date: DateOption = None,
    speed: SpeedOption = None,
    data: DataOption = None,
    scenario: ScenarioOption = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start a new run although an unfinished or halted one is there.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Run the trading engine in the foreground, without Prefect."""
    from velox_core.bootstrap import RunRequest
    from velox_core.cli.run import run_foreground
    from velox_core.operations.dates import choose_date

    settings, paths = open_settings(config)
    chosen = choose_date(settings, given=optional_date(date), data=data, scenario=scenario)
    request = RunRequest(date=chosen, speed=optional_speed(speed), data=data, scenario=scenario, fresh=fresh)
    raise typer.Exit(run_foreground(settings, paths, request, as_json=as_json))


@app.command()
def stop(
    *,
    reason: Annotated[str, typer.Option("--reason", help="Why, kept in the journal.")],
    config: ConfigOption = None,
    by: Annotated[str, typer.Option("--by", help="Who asks.")] = "command line",
    wait: Annotated[float, typer.Option("--wait", help="Seconds to wait for the engine to end.", min=0.0, max=3600.0)] = 60.0,
    as_json: JsonOption = False,
) -> None:
    """Ask the running engine to stop: no entries, positions as `engine.on_stop` says."""
    from velox_core.operations.stop import request_stop

    settings, paths = open_settings(config)
    outcome = request_stop(settings, paths, by=by, reason=reason, wait_seconds=wait)
    if as_json:
        _print_json(outcome.to_json())
    else:
        typer.echo(outcome.sentence)
    raise typer.Exit(outcome.exit_code)


@app.command()
def check(*, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Run the pre-production checklist. Exit code 3 when an item refuses the day."""
    from velox_core.domain.errors import EXIT_CHECKLIST_FAILED, EXIT_DONE
    from velox_core.operations.checklist import refusals, run_checklist

    settings, paths = open_settings(config)
    results = run_checklist(settings, paths)
    failed = refusals(results)
    if as_json:
        _print_json({"config": str(settings.source), "passed": not failed, "items": [result.to_json() for result in results]})
    else:
        from velox_core.cli.tables import checklist_table, show

        show(_console(), checklist_table(results))
    raise typer.Exit(EXIT_CHECKLIST_FAILED if failed else EXIT_DONE)


@app.command()
def status(*, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show what the engine last said of itself, and how old that is."""
    from velox_core.domain.errors import VeloxError
    from velox_core.operations.processes import is_alive
    from velox_core.operations.status import account_folders, age_seconds, newest_status

    settings, paths = open_settings(config)
    folders = account_folders(paths.var, broker_type=settings.broker.type.value, account=settings.account)
    found = newest_status(folders)
    if found is None:
        raise VeloxError(f"no run of account {settings.account!r} is on record below {paths.var}. Start one: velox day")
    alive, age = is_alive(found.number("pid")) and not found.ended, age_seconds(found)
    if as_json:
        _print_json({**found.body, "folder": str(found.folder), "alive": alive, "age_seconds": round(age, 1)})
    else:
        from velox_core.cli.tables import show, status_panel

        show(_console(), status_panel(found, alive=alive, age_seconds=age))


@app.command()
def summary(
    *,
    config: ConfigOption = None,
    date: DateOption = None,
    export: Annotated[
        Path | None, typer.Option("--export", help="Write the run's journal to this file, one event a line.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show the summary of a day: the newest run, or the newest of a date."""
    from velox_core.operations.runs import export_run, find_run, load_report

    settings, paths = open_settings(config)
    recorded = find_run(settings, paths, on=optional_date(date))
    report = load_report(settings, recorded)
    if export is not None:
        count = export_run(settings, recorded, export)
        typer.echo(f"{count} events of run {recorded.run.run_id} written to {export}", err=as_json)
    if as_json:
        _print_json(report)
    elif export is None:
        from velox_core.cli.tables import show, summary_panel

        show(_console(), summary_panel(report))


@app.command()
def calendar(
    *,
    config: ConfigOption = None,
    date: Annotated[str, typer.Option("--date", metavar="YYYY-MM-DD", help="The date to show.")] = "today",
    check: Annotated[bool, typer.Option("--check", help="Compare with a calendar library, as an alarm.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show whether the market trades on a date, and when; or check the calendar."""
    from velox_core.cli.calendar import check_calendar, show_date

    settings, _ = open_settings(config)
    if check:
        raise typer.Exit(check_calendar(settings, as_json=as_json))
    raise typer.Exit(show_date(settings, parse_date(date), as_json=as_json))


def _console() -> Any:
    from rich.console import Console

    return Console()


def _print_json(value: object) -> None:
    import json

    json.dump(value, sys.stdout, ensure_ascii=False, indent=2, default=_as_text)
    sys.stdout.write("\n")


def _as_text(value: object) -> str:
    return value.isoformat() if isinstance(value, date) else str(value)
