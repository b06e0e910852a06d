"""The parameters that every flow of a day takes, and the names of its runs.

- Text, numbers and closed lists only, so that the UI's form can be filled in by hand: text that may be absent is empty text,
  for a `None` among the choices is a field that the form does not show until somebody asks for it.
- A run's name is '<flow> <date> <environment>', with the scenario when there is one.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Literal

import prefect.runtime

from velox_core.domain.errors import ConfigError, VeloxError
from velox_core.operations.day import Day, DayRequest, open_day

Scenario = Literal["", "calm", "trend", "crash", "whipsaw", "gap", "halted", "circuit"]
"""The synthetic days there are (`velox_core.feeds.scenarios`), a list in the UI's form; empty is bars from a file."""


def day_request(
    config: str | None,
    trading_date: str | None,
    *,
    speed: float | None = None,
    data: str | None = None,
    scenario: str | None = None,
) -> DayRequest:
    """Return the request that flow parameters stand for. Raises ConfigError for a date that is none."""
    try:
        chosen = date.fromisoformat(trading_date) if trading_date else None
    except ValueError:
        raise ConfigError(f"{trading_date!r} is not a date; write it as 2024-01-15") from None
    return DayRequest(
        config=Path(config) if config else None,
        date=chosen,
        speed=speed,
        data=Path(data) if data else None,
        scenario=scenario or None,
    )


def open_flow_day(request: DayRequest) -> Day:
    """Load the day of a flow run from this process's environment."""
    return open_day(request, os.environ)


def run_name(flow: str) -> Callable[[], str]:
    """Return the namer of a flow's runs. A day that cannot be opened keeps what was asked for in its name."""

    def name() -> str:
        parameters = prefect.runtime.flow_run.parameters
        asked = parameters.get("date"), parameters.get("data"), parameters.get("scenario")
        try:
            label = open_flow_day(day_request(parameters.get("config"), asked[0], data=asked[1], scenario=asked[2])).label
        except VeloxError:
            label = str(asked[0] or "undated")
        return f"{flow} {label}"

    return name
