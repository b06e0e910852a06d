"""`velox journal`: is it still what was written?"""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from velox_core.cli.options import ConfigOption, JsonOption, RunIdOption, open_settings, optional_date, parse_date

journal_app = typer.Typer(help="The account's journals.", no_args_is_help=True, rich_markup_mode=None)


@journal_app.command("verify")
def verify(
    *,
    config: ConfigOption = None,
    date: Annotated[str | None, typer.Option("--date", metavar="YYYY-MM-DD", help="The runs of this day.")] = None,
    run_id: RunIdOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find what was edited, removed or put in another order since it was written.

    Follows each run's hash chain, makes the tables beside the events again, and compares with the heads that summaries and
    backups have noted. Names the first bad event. Exit code 1 when something is wrong. Reads only.
    """
    from velox_core.operations.journal_check import verify_journals

    settings, paths = open_settings(config)
    report = verify_journals(settings, paths, on=optional_date(date), run_id=run_id)
    if as_json:
        _print_json(report.to_json())
        raise typer.Exit(report.exit_code)
    for finding in report.findings:
        what = finding.run or finding.where
        if finding.problem:
            typer.echo(f"NOT OK  {what}: {finding.problem} ({finding.where})")
        else:
            typer.echo(f"ok      {what:<32}{finding.events:>9} events  {finding.digest[:16]}")
    if not report.findings:
        typer.echo("there is no journal yet")
    typer.echo(f"compared with {report.noted} heads that summaries and backups have noted")
    if not report.ok:
        typer.echo("What to do: docs/runbook.md, 'A journal that was changed'")
    raise typer.Exit(report.exit_code)


@journal_app.command("head")
def head(
    *,
    date: Annotated[str, typer.Option("--date", metavar="YYYY-MM-DD", help="The day.")],
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the one hash that stands for all events of a day, to be noted elsewhere."""
    from velox_core.operations.journal_check import day_head

    settings, paths = open_settings(config)
    found = day_head(settings, paths, parse_date(date))
    if as_json:
        _print_json({"date": date, "head": found})
    else:
        typer.echo(found or f"no run of {date} is on record")
    raise typer.Exit(0 if found else 1)


def _print_json(value: object) -> None:
    json.dump(value, sys.stdout, ensure_ascii=False, indent=2)
    sys.stdout.write("\n")
