"""`velox check`: the pre-production checklist, and with --approve-as the yes that a configuration may ask for."""

from __future__ import annotations

import json
import os
import sys
from datetime import date as date_of_day
from typing import Annotated

import typer

from velox_core.cli.options import ConfigOption, JsonOption, open_settings, optional_date
from velox_core.operations.checklist import ItemResult
from velox_core.settings import Settings


def check(
    *,
    config: ConfigOption = None,
    approve_as: Annotated[
        str | None, typer.Option("--approve-as", metavar="NAME", help="Approve the day as this person, if nothing refuses.")
    ] = None,
    note: Annotated[str, typer.Option("--note", help="A note kept with the approval.")] = "",
    date: Annotated[
        str | None,
        typer.Option(
            "--date", metavar="YYYY-MM-DD", help="Check, or approve, this day.", show_default="the configuration's own"
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Run the pre-production checklist; 3 when it refuses.

    Exit code 3 when an item refuses the day, 2 when the strategies or the data cannot be traded. With --date also what an
    earlier date left undone counts, as in market open. With --approve-as a day that nothing refuses is approved, for
    configurations that ask for it; market open, waiting or later, then arms it.
    """
    from velox_core.domain.errors import EXIT_BAD_USAGE, EXIT_CHECKLIST_FAILED, EXIT_DONE
    from velox_core.operations.checklist import refusals, run_checklist
    from velox_core.operations.readiness import standing_problems

    if approve_as is None and note:
        raise typer.BadParameter("--note goes with --approve-as NAME")
    chosen = optional_date(date)
    settings, paths = open_settings(config)
    results = run_checklist(settings, paths)
    # an approval may be for a synthetic day, whose date no file has: market open itself looks at its data
    problems = standing_problems(config, os.environ, None if approve_as is not None else chosen)
    approved = None
    if approve_as is not None or chosen is not None:
        results, approved = _of_day(settings, results, None if problems else approve_as, note, chosen)
    failed = refusals(results)
    if as_json:
        _print_json(settings, results, problems, approved)
    else:
        told = f"{approved} is approved by {approve_as}; market open arms it" if approved else ""
        _print_table(results, problems, told or ("the day is NOT approved: mend what is refused first" if approve_as else ""))
    raise typer.Exit(EXIT_CHECKLIST_FAILED if failed else EXIT_BAD_USAGE if problems else EXIT_DONE)


def _of_day(
    settings: Settings, results: list[ItemResult], name: str | None, note: str, chosen: date_of_day | None
) -> tuple[list[ItemResult], date_of_day | None]:
    """Add the lines of earlier dates, and approve the day if there is a name and nothing refuses.

    Returns: all lines, and the date if approved.
    """
    from velox_core.operations.day import DayRequest, open_day
    from velox_core.operations.market_open import approve_day, with_earlier_halt

    day = open_day(DayRequest(config=settings.source, date=chosen), os.environ)
    results = with_earlier_halt(day, results)
    is_approved = name is not None and approve_day(day, results, by=name, note=note)
    return results, day.trading_date if is_approved else None


def _print_table(results: list[ItemResult], problems: list[str], told: str) -> None:
    from rich.console import Console

    from velox_core.cli.tables import checklist_table, show

    show(Console(), checklist_table(results))
    for line in [*(f"cannot be traded: {problem}" for problem in problems), *([told] if told else [])]:
        typer.echo(line)


def _print_json(settings: Settings, results: list[ItemResult], problems: list[str], approved: date_of_day | None) -> None:
    from velox_core.operations.checklist import refusals

    answer = {
        "config": str(settings.source),
        "passed": not refusals(results) and not problems,
        "items": [result.to_json() for result in results],
        "problems": problems,
        "approved": None if approved is None else approved.isoformat(),
    }
    json.dump(answer, sys.stdout, ensure_ascii=False, indent=2)
    sys.stdout.write("\n")
