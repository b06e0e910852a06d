"""Running a flow as a process: `python -m flows.trading_day --config ... --date ...`.

- Started without Prefect's environment (see `velox_core.operations.prefect_home`), it starts itself again with it.
- The exit code says how it ended: 0 done, 1 operating error, 2 bad usage or config, 3 checklist failed, 4 not flat.
- `--result FILE` leaves a JSON object with the exit code, the message and what the flow returned.
"""

from __future__ import annotations

import argparse
import asyncio
import inspect
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prefect import Flow
from prefect.exceptions import CancelledRun

from flows.ahead import beside, import_ahead
from flows.client import one_client
from flows.parameters import day_request
from velox_core.domain.errors import EXIT_BAD_USAGE, EXIT_DONE, EXIT_OPERATING_ERROR, VeloxError
from velox_core.operations.prefect_home import HOME_VARIABLE, prefect_environment
from velox_core.settings import load_settings, paths


def run_flow(flow: Flow[Any, Any], ahead: Sequence[str] = ()) -> None:
    """Parse the command line, run the flow and exit. `ahead`: modules to import while the server is waited for."""
    arguments = _parser(flow).parse_args()
    _with_environment(arguments.config)
    taken = set(inspect.signature(flow.fn).parameters)
    given = {name: value for name, value in vars(arguments).items() if name in taken and value is not None}
    code, message, answer = asyncio.run(_run(flow, given, ahead))
    if arguments.result is not None:
        body = {"exit_code": code, "message": message, "answer": answer if isinstance(answer, Mapping | str) else None}
        Path(arguments.result).write_text(json.dumps(body, default=str), encoding="utf-8")
    if message:
        sys.stderr.write(f"velox: {message}\n")
    sys.exit(code)


def _parser(flow: Flow[Any, Any]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m flows.{flow.fn.__name__}",
        description=(inspect.getdoc(flow.fn) or "").partition("\n")[0],
    )
    parser.add_argument("--config", help="configuration file")
    parser.add_argument("--date", help="trading date, as 2024-01-15")
    parser.add_argument("--data", help="file or folder of one-minute bars")
    parser.add_argument("--scenario", help="synthetic data instead of a file")
    parser.add_argument("--result", help="file for the outcome, as JSON")
    for name, meaning in (
        ("run", "exactly this run, e.g. 2024-01-15-1"),
        ("reason", "why, kept on record"),
        ("by", "who asks"),
    ):
        if name in inspect.signature(flow.fn).parameters:
            parser.add_argument(f"--{name}", help=meaning)
    if "speed" in inspect.signature(flow.fn).parameters:
        parser.add_argument("--speed", type=_speed, help="seconds of the session per second, or max")
    return parser


def _speed(text: str) -> float:
    return 0.0 if text == "max" else float(text)


def _with_environment(config: str | None) -> None:
    """Go on when Prefect's home is set, else start this process again with it: Prefect reads it when it is imported."""
    if HOME_VARIABLE in os.environ:
        return
    try:
        settings = load_settings(day_request(config, None).config, os.environ)
    except VeloxError as error:
        sys.stderr.write(f"velox: {error}\n")
        sys.exit(error.exit_code)
    environ = prefect_environment(paths(os.environ, settings.root).var, os.environ)
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environ)


async def _run(flow: Flow[Any, Any], given: Mapping[str, Any], ahead: Sequence[str]) -> tuple[int, str, Any]:
    """Return exit code, message and answer of one flow run."""
    importing = beside(import_ahead(ahead))
    try:
        async with one_client():
            return EXIT_DONE, "", await flow(**given)
    except VeloxError as error:
        return error.exit_code, str(error), None
    except (ValueError, TypeError) as error:
        return EXIT_BAD_USAGE, f"{flow.name} does not accept its parameters: {error}", None
    except CancelledRun as cancelled:  # a named state, such as TooLate, or a cancel that came by the API
        return EXIT_OPERATING_ERROR, f"{flow.name} was cancelled: {cancelled}", None
    except asyncio.CancelledError:
        return EXIT_OPERATING_ERROR, f"{flow.name} was cancelled", None
    finally:
        importing.cancel()
