"""Options that several commands share, and how their text becomes values."""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from velox_core.domain.time import IST

if TYPE_CHECKING:
    from velox_core.settings import Paths, Settings

MAX_SPEED = 0.0


def parse_date(text: str) -> date:
    """Return the date of `2024-01-15`, or today's (IST) for `today`."""
    from datetime import datetime

    if text == "today":
        return datetime.now(IST).date()
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a date; write it as 2024-01-15, or 'today'") from None


def parse_speed(text: str) -> float:
    """Return engine seconds per wall second; `max` is 0.0, meaning no waiting at all."""
    if text.strip().lower() == "max":
        return MAX_SPEED
    try:
        speed = float(text)
    except ValueError:
        speed = -1.0
    if not 0 < speed <= 1_000_000:
        raise typer.BadParameter(f"{text!r} is not a speed; write a number above 0, e.g. 1.0 (true time) or 600, or 'max'")
    return speed


ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", help="Configuration file.", show_default="config/system_simulated.yaml"),
]
DateOption = Annotated[
    str | None,
    typer.Option("--date", metavar="YYYY-MM-DD", help="Trading date.", show_default="newest date in the data"),
]
RunDateOption = Annotated[str | None, typer.Option("--date", metavar="YYYY-MM-DD", help="The newest run of this date.")]
RunIdOption = Annotated[str | None, typer.Option("--run", metavar="ID", help="This run, e.g. 2024-01-15-1.")]
SpeedOption = Annotated[
    str | None,
    typer.Option("--speed", metavar="N|max", help="Seconds of the session per second: 1.0 is true time, max does not wait."),
]
DataOption = Annotated[Path | None, typer.Option("--data", help="File or folder of one-minute bars (CSV or Parquet).")]
ScenarioOption = Annotated[
    str | None,
    typer.Option("--scenario", metavar="NAME", help="Synthetic data: calm, trend, crash, whipsaw, gap, halted or circuit."),
]
SymbolsOption = Annotated[
    int | None, typer.Option("--symbols", metavar="N", help="How many synthetic symbols, SYN1 to SYNn.", min=1, max=1_000)
]
SeedOption = Annotated[
    int | None, typer.Option("--seed", metavar="N", help="Seed of synthetic data and simulated fills.", min=0)
]
DaysOption = Annotated[int, typer.Option("--days", metavar="N", help="So many sessions, from --date on.", min=1, max=250)]
ExitsOnlyOption = Annotated[
    str, typer.Option("--exits-only", metavar="WHY", help="Make no entry and close what is open; WHY stands in refusals.")
]
AsRequestedOption = Annotated[
    bool, typer.Option("--as-requested", help="Run what the intraday flow asked of this account's systemd unit.")
]
PlainOption = Annotated[bool, typer.Option("--plain", help="Print plain lines instead of the live view.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def optional_date(text: str | None) -> date | None:
    """Return the date of an option, None when it was not given."""
    return None if text is None else parse_date(text)


def optional_speed(text: str | None) -> float | None:
    """Return the speed of an option, None when it was not given."""
    return None if text is None else parse_speed(text)


def override_scenario(environ: MutableMapping[str, str], *, symbols: int | None, seed: int | None) -> None:
    """Have the configuration read what the command line asked for; an option is an override like any other variable."""
    if symbols is not None:
        environ["VELOX__FEED__SCENARIO_SYMBOLS"] = str(symbols)
    if seed is not None:
        environ["VELOX__SIMULATION__SEED"] = str(seed)


def open_settings(config: Path | None) -> tuple[Settings, Paths]:
    """Load the configuration and the folders that belong to it. Raises ConfigError."""
    from velox_core.settings import load_settings, paths

    settings = load_settings(config, os.environ)
    return settings, paths(os.environ, settings.root)
