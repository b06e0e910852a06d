"""`velox metrics`: the metrics server looked at, a day written again, and what each number means."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from velox_core.cli.options import ConfigOption, JsonOption, RunIdOption, open_settings, parse_date

metrics_app = typer.Typer(help="The numbers for InfluxDB or VictoriaMetrics.", no_args_is_help=True, rich_markup_mode=None)


@metrics_app.command("check")
def check_server(*, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Look whether the metrics server takes a point, as the checklist does.

    Exit code 1 when it does not, 2 when metrics are switched off.
    """
    from velox_core.domain.errors import EXIT_BAD_USAGE, EXIT_DONE, EXIT_OPERATING_ERROR
    from velox_core.operations.metrics_server import ServerLook, look_at_server

    settings, _ = open_settings(config)
    influx = settings.metrics.influxdb
    if influx.enabled:
        look = look_at_server(influx)
        code = EXIT_DONE if look.ok else EXIT_OPERATING_ERROR
    else:
        advice = "set system.metrics.influxdb.enabled to true, and its url, org and bucket"
        look, code = ServerLook(ok=False, measured="switched off: no metrics are kept", advice=advice), EXIT_BAD_USAGE
    if as_json:
        _print_json({"config": str(settings.source), "enabled": influx.enabled, **look.to_json()})
    else:
        typer.echo(f"{'ok' if look.ok else 'NOT OK' if influx.enabled else 'off'}: {look.measured}")
        if look.advice:
            typer.echo(f"What to do: {look.advice}")
    raise typer.Exit(code)


@metrics_app.command("backfill")
def write_again(
    *,
    date: Annotated[str, typer.Option("--date", metavar="YYYY-MM-DD", help="The newest run of this date.")],
    config: ConfigOption = None,
    run_id: RunIdOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a day's points again, from its journal.

    It may be run any number of times: the same points replace what is there. Exit code 1 when the server did not take all.
    """
    from velox_core.domain.errors import EXIT_DONE, EXIT_OPERATING_ERROR
    from velox_core.operations.metrics import backfill
    from velox_core.operations.recorded import find_run

    settings, paths = open_settings(config)
    result = backfill(settings, find_run(settings, paths, on=parse_date(date), run_id=run_id))
    if as_json:
        _print_json(result.to_json())
    else:
        typer.echo(result.sentence)
    raise typer.Exit(EXIT_OPERATING_ERROR if result.stopped or result.malformed else EXIT_DONE)


@metrics_app.command("schema")
def show_schema(*, as_json: JsonOption = False) -> None:
    """Show every measurement: its tags, its fields with their units, and when it is written."""
    from velox_core.metrics.schema import COMMON_TAGS, MEASUREMENTS, QUEUES, STAGES, rows

    if as_json:
        names = ("name", "source", "when", "time", "tags", "fields")
        measurements = [{name: getattr(m, name) for name in names} for m in MEASUREMENTS]
        _print_json({"common_tags": COMMON_TAGS, "measurements": measurements, "stages": STAGES, "queues": QUEUES})
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"Measurements. Tags of every point: {', '.join(COMMON_TAGS)}", title_justify="left")
    for header in ("Measurement", "Tags", "Field", "Meaning", "When"):
        table.add_column(header, overflow="fold")
    for row in rows():
        table.add_row(*row)
    console = Console() if sys.stdout.isatty() else Console(width=200)
    console.print(table)
    for title, meanings in (("stage", STAGES), ("queue", QUEUES)):
        for name, meaning in meanings.items():
            typer.echo(f"{title}={name:<10}{meaning}")


def _print_json(value: object) -> None:
    json.dump(value, sys.stdout, ensure_ascii=False, indent=2)
    sys.stdout.write("\n")
