"""`velox eod`: the end of a day without Prefect, step by step; a second time does only what is left."""

from __future__ import annotations

import json
import os
import sys
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from velox_core.cli.options import (
    ConfigOption,
    DataOption,
    JsonOption,
    RunIdOption,
    ScenarioOption,
    open_settings,
    optional_date,
)

if TYPE_CHECKING:
    from velox_core.operations.day import Day
    from velox_core.operations.eod_record import StepState
    from velox_core.operations.evening import EveningOutcome
    from velox_core.operations.recorded import RecordedRun


def eod(
    *,
    config: ConfigOption = None,
    on: Annotated[
        str | None,
        typer.Option("--date", metavar="YYYY-MM-DD", help="The newest run of this date.", show_default="the newest run"),
    ] = None,
    run_id: RunIdOption = None,
    scenario: ScenarioOption = None,
    data: DataOption = None,
    again: Annotated[bool, typer.Option("--again", help="Do the steps that are done already, too.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Close the books of a day: prove flat, reconcile, summary, reset of the emergency state, archive, report.

    For any past date, as often as need be: what is done already is left alone. Refused while the session is open. Exit code 4
    while the account is not proven flat (the halts then stay, the other steps are done), 1 when a step is left undone.
    """
    from velox_core.operations.evening import run_evening

    closed = _closed(config, optional_date(on), run_id)
    if closed:
        typer.echo(json.dumps({"exit_code": 0, "message": closed, "steps": []}) if as_json else closed)
        raise typer.Exit
    day, recorded = _find(config, optional_date(on), run_id, scenario, data)
    done = run_evening(day, recorded, again=again)
    if as_json:
        json.dump(done.to_json(), sys.stdout, ensure_ascii=False, indent=2)
        sys.stdout.write("\n")
    else:
        _show(done)
    raise typer.Exit(done.exit_code)


def _closed(config: Path | None, on: date | None, run_id: str | None) -> str:
    """Return why a date needs no end of day, '' when it may."""
    from velox_core.operations.dates import market_calendar

    if on is None or run_id is not None:
        return ""
    settings, _ = open_settings(config)
    calendar = market_calendar(settings)
    if not calendar.is_known(on) or calendar.session(on) is not None:
        return ""
    return f"{on}: no session ({calendar.closed_reason(on)}); nothing to do"


def _find(
    config: Path | None, on: date | None, run_id: str | None, scenario: str | None, data: Path | None
) -> tuple[Day, RecordedRun]:
    """Return the run that is meant, and its day, on the data that it was traded on."""
    from velox_core.operations.day import DayRequest, open_day
    from velox_core.operations.recorded import DATE_LENGTH, find_run

    settings, paths = open_settings(config)
    stem = f"{on}-{scenario}" if on is not None and scenario else None
    recorded = find_run(settings, paths, on=on, stem=stem, run_id=run_id)
    found = recorded.folder.name.rpartition("-")[0][DATE_LENGTH + 1 :] or None
    request = DayRequest(config=config, date=recorded.trading_date, data=data, scenario=found)
    return open_day(request, os.environ), recorded


def _show(done: EveningOutcome) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from velox_core.operations.eod_record import StepState
    from velox_core.operations.eod_steps import STEPS
    from velox_core.operations.figure_words import figure_lines
    from velox_core.operations.view import headline

    console = Console(highlight=False)
    titles = {step.name: step.title for step in STEPS}
    lines = [(titles[result.step], result.state, result.text) for result in done.results]
    if console.is_terminal:
        styles = {StepState.DONE: "green", StepState.ALREADY_DONE: "dim", StepState.UNVERIFIED: "yellow"}
        title = f"End of day {done.trading_date}, run {done.run_id}"
        table = Table("Step", "State", "What", box=None, pad_edge=False, title=title, title_justify="left")
        for step, state, text in lines:
            table.add_row(step, Text(_word(state), style=styles.get(state, "bold red")), Text(text, overflow="fold"))
        console.print(table)
    else:
        for step, state, text in lines:
            typer.echo(f"{step:<34}{_word(state):<14}{text}")
    if done.report:
        console.print(headline(done.report), soft_wrap=True)
    for line in figure_lines(done.report):
        console.print(line, soft_wrap=True)
    if done.exit_code:
        console.print(Text(done.sentence, style="bold red"), soft_wrap=True)


def _word(state: StepState) -> str:
    return state.value.lower().replace("_", " ")
