"""The commands that look back: `velox explain`, `velox report`, and `velox summary` of several dates.

Heavy imports stay inside.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from velox_core.cli.options import ConfigOption, JsonOption, RunDateOption, RunIdOption, open_settings, optional_date

SHOWN_DEFAULT: Final = 20
SHOWN_MAX: Final = 10_000


def explain(
    *,
    config: ConfigOption = None,
    date: RunDateOption = None,
    run_id: RunIdOption = None,
    symbol: Annotated[str | None, typer.Option("--symbol", help="Only decisions on this symbol.")] = None,
    strategy: Annotated[str | None, typer.Option("--strategy", help="Only decisions of this strategy.")] = None,
    layer: Annotated[
        str | None, typer.Option("--layer", metavar="0-7|NAME", help="Only refusals of this layer; 0 is the preconditions.")
    ] = None,
    decision: Annotated[str | None, typer.Option("--id", help="One decision, by its number or its order's id.")] = None,
    limit: Annotated[
        int, typer.Option("--limit", help="Show at most so many, the last ones.", min=1, max=SHOWN_MAX)
    ] = SHOWN_DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """Explain why each signal was approved or refused, layer by layer, and what would have passed.

    The newest run, the newest of a date, or the one that --run names; beside a running engine too. Nothing is written.
    """
    from rich.console import Console

    from velox_core.cli.explain_view import show_explanation
    from velox_core.operations.explain import DecisionFilter, explain_run, parse_layer
    from velox_core.operations.recorded import find_run

    try:
        wanted = DecisionFilter(
            symbol=None if symbol is None else symbol.upper(),
            strategy=strategy,
            layer=None if layer is None else parse_layer(layer),
            identity=None if decision is None else decision.lstrip("#"),
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    settings, paths = open_settings(config)
    recorded = find_run(settings, paths, on=optional_date(date), run_id=run_id)
    explanation = explain_run(settings, recorded, wanted, shown_max=limit)
    if as_json:
        json.dump(explanation.to_json(), sys.stdout, ensure_ascii=False, indent=2)
        sys.stdout.write("\n")
        return
    show_explanation(Console(highlight=False), explanation, in_full=decision is not None)


def report(
    *,
    config: ConfigOption = None,
    date: RunDateOption = None,
    run_id: RunIdOption = None,
    output: Annotated[Path | None, typer.Option("--output", help="Write the page to this file.")] = None,
    open_it: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the report as markdown, too.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a run's report as an HTML page with charts, and say where it lies.

    The newest run, the newest of a date, or the one that --run names. The page is one file: it opens from disk, loads nothing
    and runs no script. `velox day` writes it, too.
    """
    from velox_core.operations.recorded import find_run
    from velox_core.operations.session_report import make_report

    settings, paths = open_settings(config)
    recorded = find_run(settings, paths, on=optional_date(date), run_id=run_id)
    made = make_report(settings, paths, recorded, output=output)
    if as_json:
        json.dump(
            {"run_id": recorded.run.run_id, "page": str(made.page), "report": made.report}, sys.stdout, ensure_ascii=False
        )
        sys.stdout.write("\n")
    else:
        typer.echo(made.markdown if markdown else str(made.page))
    if open_it:
        typer.launch(str(made.page))


def show_range(from_text: str | None, to_text: str | None, config: Path | None, *, as_json: bool) -> None:
    """Show what the dates of a range came to. Raises VeloxError when no run of the range is on record."""
    from rich.console import Console

    from velox_core.cli.explain_view import period_table
    from velox_core.operations.period import summarise_period

    settings, paths = open_settings(config)
    first = optional_date(from_text)
    last = optional_date(to_text)
    if first is not None and last is not None and first > last:
        raise typer.BadParameter(f"--from {first} is after --to {last}")
    period = summarise_period(settings, paths, first=first, last=last)
    if as_json:
        json.dump(period, sys.stdout, ensure_ascii=False, indent=2)
        sys.stdout.write("\n")
        return
    Console(highlight=False).print(period_table(period))
