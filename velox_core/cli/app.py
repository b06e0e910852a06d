"""The commands. Each loads settings, makes one call and shows its answer; heavy imports stay inside."""

from __future__ import annotations

import sys
from datetime import date
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import typer

from velox_core.cli.alerts import alerts_app
from velox_core.cli.backup import backup, backups_app, restore
from velox_core.cli.check import check
from velox_core.cli.data import data_app
from velox_core.cli.eod import eod
from velox_core.cli.explain import explain, report
from velox_core.cli.journal import journal_app
from velox_core.cli.metrics import metrics_app
from velox_core.cli.options import (
    AsRequestedOption,
    ConfigOption,
    DataOption,
    DateOption,
    DaysOption,
    ExitsOnlyOption,
    JsonOption,
    PlainOption,
    RunDateOption,
    RunIdOption,
    ScenarioOption,
    SeedOption,
    SpeedOption,
    SymbolsOption,
    open_settings,
    optional_date,
    optional_speed,
    override_scenario,
    parse_date,
)
from velox_core.cli.strategies import strategies_app
from velox_core.cli.up import down, up

app = typer.Typer(
    help="VELOX: an intraday trading day on NSE equities, with safety first.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(alerts_app, name="alerts")
app.add_typer(strategies_app, name="strategies")
app.command()(check)
app.command()(eod)
app.command()(explain)
app.command()(report)
app.command()(up)
app.command()(down)
app.command()(backup)
app.command()(restore)
app.add_typer(backups_app, name="backups")
app.add_typer(journal_app, name="journal")
app.add_typer(metrics_app, name="metrics")
app.add_typer(data_app, name="data")


@cache
def command_line() -> Any:
    """Return all commands as one, built once: it takes a tenth of a second, and an engine that stands by has it before."""
    return typer.main.get_command(app)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"velox {version('velox')}")
        raise typer.Exit


@app.callback()
def velox_options(
    *,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """VELOX: an intraday trading day on NSE equities, with safety first."""


@app.command()
def day(
    *,
    config: ConfigOption = None,
    date: DateOption = None,
    speed: SpeedOption = None,
    data: DataOption = None,
    scenario: ScenarioOption = None,
    plain: PlainOption = False,
    as_json: JsonOption = False,
) -> None:
    """Run a whole trading day as Prefect flows.

    Market open (checklist), intraday (the engine), end of day (flat, report). A date without a session ends with 0 and a
    message; a year, date or scenario that is not there with 2.
    """
    from velox_core.cli.day import DayRequest, run_day

    request = DayRequest(
        config=config,
        date=optional_date(date),
        speed=optional_speed(speed),
        data=data,
        scenario=scenario,
        as_json=as_json,
        plain=plain,
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
    symbols: SymbolsOption = None,
    seed: SeedOption = None,
    days: DaysOption = 1,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start a new run although an unfinished or halted one is there.")
    ] = False,
    take_over: Annotated[
        bool, typer.Option("--take-over", help="Halt, and take the run over from an engine that does not answer.")
    ] = False,
    reason: Annotated[str, typer.Option("--reason", help="Why it is taken over, kept in the halt record.")] = "",
    by: Annotated[str, typer.Option("--by", help="Who takes it over.")] = "command line",
    exits_only: ExitsOnlyOption = "",
    as_requested: AsRequestedOption = False,
    plain: PlainOption = False,
    as_json: JsonOption = False,
) -> None:
    """Run the trading engine in the foreground, without Prefect.

    With --take-over an engine of the run that acknowledges the halt is left to close by itself; one that does not is
    killed, and this engine closes what is open. --days runs sessions one after another, each a run of its own, and ends at the
    first that does not end well.
    """
    import os

    from velox_core.operations.day import DayRequest, open_day
    from velox_core.operations.readiness import check_day, refuse_live_broker, refuse_second_engine

    override_scenario(os.environ, symbols=symbols, seed=seed)
    if as_requested:
        from velox_core.cli.run import run_requested

        raise typer.Exit(run_requested(config, as_json=as_json, plain=plain))
    if days > 1:
        from velox_core.cli.days import run_days

        if take_over or as_json:
            raise typer.BadParameter("--days goes with neither --take-over nor --json; velox summary --json has each day")
        raise typer.Exit(run_days(days, config=config, first=optional_date(date), data=data, scenario=scenario, fresh=fresh))
    if take_over and (fresh or not reason):
        raise typer.BadParameter("--take-over takes up the run that is there, so without --fresh, and needs a --reason")
    asked = DayRequest(config=config, date=optional_date(date), speed=optional_speed(speed), data=data, scenario=scenario)
    day = open_day(asked, os.environ)
    refuse_live_broker(day.settings)
    if day.closed_reason:
        typer.echo(f"{day.trading_date}: no session ({day.closed_reason}); nothing to trade", err=as_json)
        if as_json:
            _print_json({"trading_date": day.trading_date, "exit_code": 0, "closed_reason": day.closed_reason})
        raise typer.Exit
    if not fresh and not take_over:
        refuse_second_engine(day.settings, day.paths, day.trading_date)
    check_day(day)
    from velox_core.bootstrap import RunRequest
    from velox_core.cli.run import free_the_run, run_foreground

    request = RunRequest(
        date=day.trading_date, speed=asked.speed, data=data, scenario=scenario, fresh=fresh, exits_only=exits_only
    )
    if take_over:
        freed = free_the_run(day.settings, day.paths, request, by=by, reason=reason, as_json=as_json)
        if freed is None:
            raise typer.Exit
        request = freed
    raise typer.Exit(run_foreground(day.settings, day.paths, request, as_json=as_json, plain=plain))


@app.command()
def stop(
    *,
    reason: Annotated[str, typer.Option("--reason", help="Why, kept in the journal.")],
    config: ConfigOption = None,
    date: RunDateOption = None,
    run_id: RunIdOption = None,
    by: Annotated[str, typer.Option("--by", help="Who asks.")] = "command line",
    wait: Annotated[float, typer.Option("--wait", help="Seconds to wait for the engine to end.", min=0.0, max=3600.0)] = 60.0,
    as_json: JsonOption = False,
) -> None:
    """Ask the running engine to stop.

    No new entries from then on; positions are closed or kept as `engine.on_stop` says. Where engines of several runs work,
    --run or --date names one.
    """
    from velox_core.operations.stop import request_stop

    settings, paths = open_settings(config)
    outcome = request_stop(settings, paths, by=by, reason=reason, on=optional_date(date), run_id=run_id, wait_seconds=wait)
    if as_json:
        _print_json(outcome.to_json())
    else:
        typer.echo(outcome.sentence)
    raise typer.Exit(outcome.exit_code)


@app.command()
def halt(
    *,
    reason: Annotated[str, typer.Option("--reason", help="Why, kept in the record.")],
    by: Annotated[str, typer.Option("--by", help="Who halts.")],
    config: ConfigOption = None,
    date: RunDateOption = None,
    run_id: RunIdOption = None,
    wait: Annotated[
        float, typer.Option("--wait", help="Seconds to wait for the engine's acknowledgement.", min=0.0, max=600.0)
    ] = 10.0,
    as_json: JsonOption = False,
) -> None:
    """Stop entries and keep what is open, until a reset.

    Of the run that an engine trades, else of the newest. Goes to halt file, ledger and journal, whichever answer.
    """
    from velox_core.operations.halt import request_halt

    settings, paths = open_settings(config)
    outcome = request_halt(settings, paths, reason=reason, by=by, on=optional_date(date), run_id=run_id, wait_seconds=wait)
    if as_json:
        _print_json(outcome.to_json())
    else:
        typer.echo("\n".join(outcome.sentences))
    raise typer.Exit(outcome.exit_code)


@app.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []})
def flatten(context: typer.Context) -> None:
    """Halt the account and close every position, now, engine or not.

    Its options: velox flatten --help. Exit code 0 FLAT, 4 NOT FLAT.
    """
    from velox_core.cli.flatten import flatten as run_flatten

    raise typer.Exit(run_flatten(context.args))


@app.command()
def reset(
    *,
    reason: Annotated[str, typer.Option("--reason", help="Why, kept in the record.")],
    by: Annotated[str, typer.Option("--by", help="Who clears.")],
    config: ConfigOption = None,
    date: RunDateOption = None,
    run_id: RunIdOption = None,
    data: DataOption = None,
    wait: Annotated[float, typer.Option("--wait", help="Seconds to wait for a running engine.", min=0.0, max=600.0)] = 10.0,
    as_json: JsonOption = False,
) -> None:
    """Clear the halts of a run.

    Refused while the broker does not say flat (exit code 4), while a store does not answer, and for a LOSS halt on its own
    date. A running engine is asked to do it.
    """
    from velox_core.operations.reset import request_reset

    settings, paths = open_settings(config)
    outcome = request_reset(
        settings, paths, reason=reason, by=by, on=optional_date(date), run_id=run_id, data=data, wait_seconds=wait
    )
    if as_json:
        _print_json(outcome.to_json())
    else:
        typer.echo("\n".join([outcome.sentence, *outcome.listing]))
    raise typer.Exit(outcome.exit_code)


@app.command()
def status(
    *,
    config: ConfigOption = None,
    watch: Annotated[bool, typer.Option("--watch", help="Go on showing it until the engine ends, or Ctrl-C.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show where the account stands: its newest run, its halts, its guard.

    What the engine last said, or what a flatten or the guard left after that. Exit code 4 when the engine died with
    something open, 1 when it died with nothing open, 0 without any run.
    """
    from velox_core.cli.status import show_status, watch_newest

    settings, paths = open_settings(config)
    act = watch_newest if watch else show_status
    raise typer.Exit(act(settings, paths, as_json=as_json, console=_console()))


@app.command()
def guard(*, config: ConfigOption = None) -> None:
    """Guard the account: close everything when its engine is silent, past the loss limit, or late.

    Runs until Ctrl-C or SIGTERM, in the foreground; one for each account. Start it before the engine, under systemd for
    real use (deployments/systemd/velox-guard.service). `velox status` shows whether it lives.
    """
    from velox_core.cli.guard import guard_foreground

    settings, paths = open_settings(config)
    raise typer.Exit(guard_foreground(settings, paths))


@app.command()
def summary(
    *,
    config: ConfigOption = None,
    date: RunDateOption = None,
    run_id: RunIdOption = None,
    list_runs: Annotated[bool, typer.Option("--list", help="List the runs on record, the newest last.")] = False,
    export: Annotated[
        Path | None, typer.Option("--export", help="Write the run's journal to this file, one event a line.")
    ] = None,
    first: Annotated[str | None, typer.Option("--from", metavar="YYYY-MM-DD", help="A table of dates, from this one.")] = None,
    last: Annotated[str | None, typer.Option("--to", metavar="YYYY-MM-DD", help="A table of dates, to this one.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show the summary of a run, or with --from and --to of several dates.

    The newest run, the newest of a date, or the one that --run names; --list shows which there are. Of each date of a range
    the newest finished run counts.
    """
    if first is not None or last is not None:
        from velox_core.cli.explain import show_range

        if date is not None or run_id is not None or list_runs or export is not None:
            raise typer.BadParameter("--from and --to show a range of dates: leave out --date, --run, --list and --export")
        show_range(first, last, config, as_json=as_json)
        raise typer.Exit
    from velox_core.operations.recorded import find_run
    from velox_core.operations.runs import export_run, load_report, run_lines

    settings, paths = open_settings(config)
    if list_runs:
        lines = run_lines(settings, paths, on=optional_date(date))
        if as_json:
            _print_json(lines)
        else:
            typer.echo("\n".join(f"{line['run_id']:<24}{line['state']:<16}{line['result']}" for line in lines) or "none yet")
        raise typer.Exit
    recorded = find_run(settings, paths, on=optional_date(date), run_id=run_id)
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
def doctor(
    *,
    config: ConfigOption = None,
    reconcile: Annotated[bool, typer.Option("--reconcile", help="Compare the journal with the broker's book.")] = False,
    date: Annotated[str | None, typer.Option("--date", metavar="YYYY-MM-DD", help="The newest run of this date.")] = None,
    run_id: Annotated[str | None, typer.Option("--run", metavar="ID", help="This run, e.g. 2024-01-15-1.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Look at a run's stores; with --reconcile at each difference between journal and broker.

    The newest run, the newest of a date, or the one that --run names; beside a running engine or without one. Nothing is
    traded or written. Exit code 4 when the run has ended and the broker is not flat, 1 when a difference is not explained or
    a store cannot be read.
    """
    from velox_core.operations.recorded import find_run

    settings, paths = open_settings(config)
    recorded = find_run(settings, paths, on=optional_date(date), run_id=run_id)
    if reconcile:
        from velox_core.operations.reconcile import reconcile_run

        report = reconcile_run(settings, recorded)
        if as_json:
            _print_json(report.to_json())
        else:
            from velox_core.cli.tables import differences_table, show

            show(_console(), differences_table(report))
        raise typer.Exit(report.exit_code)
    from velox_core.operations.doctor import examine, exit_code_of

    findings = examine(settings, paths, recorded)
    if as_json:
        _print_json({"run_id": recorded.run.run_id, "items": [finding.to_json() for finding in findings]})
    else:
        from velox_core.cli.tables import findings_table, show

        show(_console(), findings_table(recorded.run.run_id, findings))
    raise typer.Exit(exit_code_of(findings))


@app.command()
def calendar(
    *,
    config: ConfigOption = None,
    date: Annotated[str, typer.Option("--date", metavar="YYYY-MM-DD", help="The date to show.")] = "today",
    check: Annotated[bool, typer.Option("--check", help="Compare with a calendar library, as an alarm.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show whether and when the market trades on a date."""
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
