"""`velox strategies`: what is traded, with which parameters, what each did and is expected to do, a template for a new one."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from velox_core.cli.options import ConfigOption, DataOption, JsonOption, ScenarioOption, open_settings, parse_date

if TYPE_CHECKING:
    from velox_core.operations.strategies import StrategyView

strategies_app = typer.Typer(help="The strategies: what they are, what they did, a new one.", rich_markup_mode=None)


@strategies_app.callback(invoke_without_command=True)
def list_strategies(
    context: typer.Context,
    *,
    config: ConfigOption = None,
    date: Annotated[
        str | None, typer.Option("--date", metavar="YYYY-MM-DD", help="Also what each did in the newest run of this date.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List the strategies with their parameters and trade rules; with --date what each did, beside what to expect of it.

    Exit code 2 when one of them cannot be loaded.
    """
    if context.invoked_subcommand is not None:
        return
    from velox_core.domain.errors import EXIT_BAD_USAGE, EXIT_DONE
    from velox_core.operations.strategies import strategy_views, with_day

    settings, paths = open_settings(config)
    views, run_id = strategy_views(settings), ""
    if date is not None:
        run_id, views = with_day(settings, paths, views, parse_date(date))
    if as_json:
        _print_json({"config": str(settings.source), "run_id": run_id, "strategies": [view.to_json() for view in views]})
    elif date is None:
        _show_list(views)
    else:
        _show_day(run_id, views)
    raise typer.Exit(EXIT_BAD_USAGE if any(view.problem and view.enabled for view in views) else EXIT_DONE)


@strategies_app.command("show")
def show_one(
    name: Annotated[str, typer.Argument(help="A configured strategy, or one that comes with VELOX.")],
    *,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one strategy: what it does, each parameter and trade rule with its value, range and meaning."""
    from velox_core.domain.errors import EXIT_BAD_USAGE, EXIT_DONE
    from velox_core.operations.strategies import one_view

    settings, _ = open_settings(config)
    view = one_view(settings, name)
    if as_json:
        _print_json({**view.to_json(), "text": view.text})
    else:
        _show_one(view)
    raise typer.Exit(EXIT_BAD_USAGE if view.problem else EXIT_DONE)


@strategies_app.command("new")
def write_new(
    name: Annotated[str, typer.Argument(help="Its name: small letters, digits and '_'.")],
    *,
    folder: Annotated[Path | None, typer.Option("--folder", help="Where to.", show_default="my_strategies")] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a strategy of your own that runs as it is, with its test. Nothing is overwritten."""
    from velox_core.operations.strategies import write_template

    settings, _ = open_settings(config)
    file, test = write_template(name, settings.root, folder)
    if as_json:
        _print_json({"strategy": str(file), "test": str(test)})
        return
    shown = file.relative_to(settings.root) if file.is_relative_to(settings.root) else file.absolute()
    typer.echo(f"Written: {file}\n         {test}\n")
    typer.echo(f"Test it:    {sys.executable} -m pytest --import-mode=importlib {test}")
    typer.echo(f"Trade it:   below strategies in {settings.source}\n    - name: {name}\n      path: {shown}")
    typer.echo("More of it: docs/strategies.md")


@strategies_app.command("expect")
def expect(
    *,
    config: ConfigOption = None,
    data: DataOption = None,
    scenario: ScenarioOption = None,
    first: Annotated[str | None, typer.Option("--from", metavar="YYYY-MM-DD", help="First date.")] = None,
    last: Annotated[str | None, typer.Option("--to", metavar="YYYY-MM-DD", help="Last date.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Replay days and keep what each strategy did, so that a day's result can be put beside it.

    All dates of the data between --from and --to (of a scenario all sessions, both needed). Replays leave nothing else.
    """
    from velox_core.operations.replays import expectation_dates, record_expectations

    settings, paths = open_settings(config)
    span = (None if first is None else parse_date(first), None if last is None else parse_date(last))
    dates = expectation_dates(settings, data=data, scenario=scenario, first=span[0], last=span[1])

    def told(on: object, report: Mapping[str, Any]) -> None:
        from velox_core.operations.view import signed_rupees

        text = f"{on}  net {signed_rupees(int(report['net_paise']))}, {report['trade_count']} trades"
        typer.echo(text + ("  SYNTHETIC" if report.get("synthetic") else ""), err=as_json)

    file, found = record_expectations(settings, paths, dates, data=data, scenario=scenario, told=told)
    if as_json:
        _print_json({"file": str(file), "strategies": [_expected_json(item) for item in found]})
        return
    from velox_core.operations.view import signed_rupees

    for item in found:
        band = (
            f"usually {signed_rupees(item.low_paise)} to {signed_rupees(item.high_paise)} a day"
            if item.low_paise or item.high_paise
            else f"{item.days} days are too few for a band"
        )
        typer.echo(
            f"{item.strategy}: mean {signed_rupees(item.mean_paise)}, deviation {signed_rupees(item.deviation_paise)}, {band}, "
            f"{item.trades_per_day:.1f} trades a day, {item.win_share:.0%} won"
        )
    typer.echo(f"Kept in {file}")


def _expected_json(item: object) -> dict[str, Any]:
    import dataclasses

    return dataclasses.asdict(item)  # type: ignore[call-overload,no-any-return]


def _show_list(views: list[StrategyView]) -> None:
    from rich.text import Text

    table = _table("Strategy", "State", "What it does", "Changed, and trade rules")
    for view in views:
        state = "PROBLEM" if view.problem else "on" if view.enabled else "off" if view.configured else "not configured"
        style = "bold red" if view.problem else "" if view.enabled else "dim"
        own = [f"{spec.name}={value}" for spec, value in view.parameters if value != spec.default]
        rules = [f"{spec.name}={value}" for spec, value in view.rules if value]
        table.add_row(
            view.name, Text(state, style=style), Text(view.problem or view.summary), Text("\n".join([*own, *rules]) or "-")
        )
    _console().print(table)
    typer.echo("All of one: velox strategies show NAME. One of your own: velox strategies new NAME")


def _show_day(run_id: str, views: list[StrategyView]) -> None:
    from rich.text import Text

    from velox_core.cli.tables import money_style
    from velox_core.operations import view as words

    table = _table("Strategy", "Trades", "Won", "Approved", "Refused", "Net", "Against its replays")
    note = ""
    for view in views:
        day = view.day
        net = int(day["net_paise"])
        figures = [str(day[key]) for key in ("trades", "wins", "approved", "refused")]
        beside = f"DISABLED: {day['disabled']}" if day["disabled"] else words.expectation_text(day.get("expected"))
        if beside == words.NO_EXPECTATION:  # in each row it would be six lines of a terminal of 80 columns
            beside, note = words.NO_EXPECTATION_MARK, words.NO_EXPECTATION_NOTE
        loud = "bold red" if day["disabled"] or "OUTSIDE" in beside else ""
        table.add_row(view.name, *figures, Text(words.signed_rupees(net), style=money_style(net)), Text(beside, style=loud))
    _console().print(table)
    if note:
        typer.echo(note)
    typer.echo(f"Run {run_id}" + (f". {words.SYNTHETIC_NOTE}" if any(view.day.get("synthetic") for view in views) else ""))


def _show_one(view: StrategyView) -> None:
    from rich.text import Text

    from velox_core.operations.strategies import range_text

    typer.echo(f"{view.name}  ({view.whence})\n")
    typer.echo(f"cannot be loaded: {view.problem}" if view.problem else view.text)
    for title, pairs in (("Parameter", view.parameters), ("Trade rule", view.rules)):
        if pairs:
            table = _table(title, "Value", "Default", "Allowed", "Meaning")
            for spec, value in pairs:
                shown = Text(str(value), style="bold" if value != spec.default else "")
                table.add_row(spec.name, shown, str(spec.default), range_text(spec), Text(spec.help))
            _console().print(table)


def _table(*headings: str) -> Any:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, expand=False)
    for heading in headings:
        is_name = heading == headings[0]
        is_figure = heading in ("Trades", "Won", "Approved", "Refused", "Net")
        table.add_column(heading, overflow="fold", justify="right" if is_figure else "left", no_wrap=is_name or is_figure)
    return table


def _console() -> Any:
    from rich.console import Console

    return Console(highlight=False, markup=False)


def _print_json(value: object) -> None:
    json.dump(value, sys.stdout, ensure_ascii=False, indent=2, default=str)
    sys.stdout.write("\n")
