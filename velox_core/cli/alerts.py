"""`velox alerts`: the channels to a person, and a test of them."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from velox_core.cli.options import ConfigOption, JsonOption, open_settings

alerts_app = typer.Typer(help="The channels that alerts go to.", no_args_is_help=True, rich_markup_mode=None)


@alerts_app.command("list")
def list_channels(*, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show the channels, in the order of falling back. A URL is never shown."""
    from velox_core.operations.alerts import NO_CHANNELS, channel_lines

    settings, _ = open_settings(config)
    lines = channel_lines(settings)
    if as_json:
        _print_json(lines)
    elif not lines:
        typer.echo(NO_CHANNELS)
    else:
        for line in lines:
            typer.echo(f"{line['name']:<20}{line['minimum_severity']:<10}{'URL set' if line['url_set'] else 'NO URL'}")


@alerts_app.command("test")
def try_each(
    *,
    config: ConfigOption = None,
    channel: Annotated[str | None, typer.Option("--channel", metavar="NAME", help="Only this channel.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Send a test message to each channel.

    Exit code 1 when one of them failed, 2 when none is configured.
    """
    from velox_core.domain.errors import EXIT_DONE, EXIT_OPERATING_ERROR
    from velox_core.operations.alerts import try_channels

    settings, _ = open_settings(config)
    found = try_channels(settings, channel)
    if as_json:
        _print_json([result.to_json() for result in found])
    else:
        for result in found:
            typer.echo(f"{result.name:<20}{'ok' if not result.why else f'FAILED: {result.why}'}")
    raise typer.Exit(EXIT_OPERATING_ERROR if any(result.why for result in found) else EXIT_DONE)


def _print_json(value: object) -> None:
    json.dump(value, sys.stdout, ensure_ascii=False, indent=2)
    sys.stdout.write("\n")
