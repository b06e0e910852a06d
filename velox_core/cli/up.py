"""`velox up` and `velox down`: the services around the engine, Prefect's included.

- `velox up` supervises in the foreground; with --detach a supervisor in a session of its own does.
- Exit codes of up: 0, also when everything ran already; of --status 1 when something does not run. Of down: 4 while something
  is open, 1 while an engine runs or something could not be ended.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from velox_core.cli.options import ConfigOption, JsonOption, open_settings
from velox_core.domain.errors import EXIT_DONE, EXIT_NOT_FLAT, EXIT_OPERATING_ERROR, VeloxError
from velox_core.domain.time import IST

if TYPE_CHECKING:
    from velox_core.settings import Paths, Settings

DETACH_SECONDS_MAX: Final = 240.0  # Prefect's server on an empty database takes its time on a slow machine
LOOK_SECONDS: Final = 0.2
_SETTLED: Final = ("RUNNING", "REFUSED", "WAITING")


def up(
    *,
    config: ConfigOption = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Leave the supervisor in the background and return when everything runs.")
    ] = False,
    status: Annotated[
        bool, typer.Option("--status", help="Only show what runs and where it is; 1 when something does not.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Start Redis, the guard, Prefect's server and the deployments if they do not run, and keep them alive.

    In the foreground until Ctrl-C, which ends what was started here, but not the guard while an engine runs or something is
    open; SIGTERM or a closed terminal ends only the supervisor. velox down ends everything.
    """
    settings, paths = open_settings(config)
    if status:
        raise typer.Exit(_show(settings, paths, as_json=as_json))
    if detach:
        raise typer.Exit(_detached(settings, paths, as_json=as_json))
    if as_json:
        raise typer.BadParameter("--json goes with --status or --detach")
    raise typer.Exit(_foreground(settings, paths))


def down(
    *,
    config: ConfigOption = None,
    flatten: Annotated[
        bool, typer.Option("--flatten", help="Close what is open first, as velox flatten does; asks for its word.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="With --flatten: do not ask for the word.")] = False,
    as_json: JsonOption = False,
) -> None:
    """End the supervisor, the deployments, Prefect's server, the guard and Redis, in this order; never an engine.

    Refused while an engine of the account runs (velox stop) and, with exit code 4, while something is open. Redis stays while
    anybody else uses it. A guard that velox up did not start is left alone.
    """
    from velox_core.operations.up import bring_down, engines_at_work, open_runs, runs_with_something_open

    if flatten and as_json:
        raise typer.BadParameter("--flatten goes without --json: it tells each step")
    settings, paths = open_settings(config)
    told: list[str] = []

    def tell(sentence: str) -> None:
        told.append(sentence)
        if not as_json:
            _say(sentence)

    runs = runs_with_something_open(settings, paths) if flatten else []
    for run in runs:
        code = _flatten(settings, run, yes=yes)
        if code != EXIT_DONE:
            tell("nothing was ended: the account is not proven flat")
            raise typer.Exit(code)
    flattened = frozenset(runs)
    opened, engines = open_runs(settings, paths, flattened), engines_at_work(settings, paths, flattened)
    if opened or engines:
        for sentence in [*opened, *engines]:
            tell(sentence)
        tell(f"nothing was ended. {_way_out(settings, bool(opened))}")
        code = EXIT_NOT_FLAT if opened else EXIT_OPERATING_ERROR
        if as_json:
            _print_json({"ended": False, "told": told, "exit_code": code})
        raise typer.Exit(code)
    ended = bring_down(settings, paths, os.environ, tell=tell, flattened=flattened)
    code = EXIT_DONE if ended else EXIT_OPERATING_ERROR
    if as_json:
        _print_json({"ended": ended, "told": told, "exit_code": code})
    raise typer.Exit(code)


def _way_out(settings: Settings, is_open: bool) -> str:
    from velox_core.operations.hints import velox

    if is_open:
        return f"Close first: {velox('down', '--flatten', settings=settings)}"
    return f"Stop the engine first: {velox('stop', '--reason', '...', settings=settings)}"


def _flatten(settings: Settings, run: str, *, yes: bool) -> int:
    """Take the road of `velox flatten` and return its exit code."""
    from velox_core.cli.flatten import flatten as run_flatten

    arguments = ["--reason", "velox down --flatten", "--config", str(settings.source), "--run", run]
    return run_flatten([*arguments, *(["--yes"] if yes else [])])


def _foreground(settings: Settings, paths: Paths) -> int:
    """Supervise until a signal asks for the end, and return the exit code."""
    from velox_core.alert_setup import open_alerts
    from velox_core.operations.run_logs import open_logs
    from velox_core.operations.up import services_of, supervise

    logs = open_logs(settings, paths, rotates=False, is_engine=False)
    try:
        with open_alerts(settings, label="up") as alerts:
            began = supervise(
                settings,
                paths,
                alerts,
                services_of(settings, paths, os.environ)[0],
                tell=lambda sentence: _say(f"{datetime.now(IST):%H:%M:%S} {sentence}"),
                settled=lambda: _settled(settings, paths),
            )
    finally:
        logs.stop()
    return EXIT_DONE if began else _already(settings, paths, as_json=False)


def _settled(settings: Settings, paths: Paths) -> None:
    _show(settings, paths, as_json=False)
    _say("Ctrl-C ends this, SIGTERM only the supervisor.")


def _already(settings: Settings, paths: Paths, *, as_json: bool) -> int:
    if not as_json:
        _say("up already: nothing was changed")
    _show(settings, paths, as_json=as_json)
    return EXIT_DONE


def _detached(settings: Settings, paths: Paths, *, as_json: bool) -> int:
    """Leave a supervisor behind, wait within a bound until its services run, and show them. Returns the exit code."""
    from velox_core.operations.engine_process import output_file
    from velox_core.operations.log_tail import last_lines
    from velox_core.operations.up import services_view, supervisor_of

    if supervisor_of(settings, paths) is not None:
        return _already(settings, paths, as_json=as_json)
    output = output_file(paths, "up")
    command = [sys.executable, "-m", "velox_core.cli", "up", "--config", str(settings.source.absolute())]
    try:
        with output.open("wb") as sink:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.STDOUT, start_new_session=True
            )
    except OSError as error:
        raise VeloxError(f"the supervisor cannot be started: {error}") from error
    if not as_json:
        _say("starting in the background; a first start may take a minute")
    until = time.monotonic() + DETACH_SECONDS_MAX
    while time.monotonic() < until:
        if process.poll() is not None and process.returncode != EXIT_DONE:
            raise VeloxError(f"the supervisor ended with {process.returncode}: {' '.join(last_lines(output, 5))}")
        view = services_view(settings, paths, os.environ)
        if view["supervisor"]["running"] and all(row["state"] in _SETTLED for row in view["services"]):
            break
        time.sleep(LOOK_SECONDS)
    code = _show(settings, paths, as_json=as_json)
    if not as_json:
        _say(f"The supervisor's output is in {output}. velox down ends everything.")
    return code


def _show(settings: Settings, paths: Paths, *, as_json: bool) -> int:
    """Show the services and return 0 when all of them and the supervisor run, else 1."""
    from velox_core.operations.hints import velox
    from velox_core.operations.up import services_view

    view = services_view(settings, paths, os.environ)
    is_up = view["supervisor"]["running"] and all(row["state"] == "RUNNING" for row in view["services"])
    code = EXIT_DONE if is_up else EXIT_OPERATING_ERROR
    if as_json:
        _print_json({**view, "exit_code": code})
        return code
    start = velox("up", settings=settings)
    with suppress(OSError, ValueError):
        _print_table(view, start)
    return code


def _print_table(view: dict[str, Any], start: str) -> None:
    supervisor = view["supervisor"]
    rows = [("service", "state", "process", "since (IST)", "restarts", "where", "output")]
    state = "RUNNING" if supervisor["running"] else "ABSENT"
    rows.append(("supervisor", state, _number(supervisor["pid"]), _since(supervisor), "", f"account {view['account']}", ""))
    for row in view["services"]:
        where = row["where"] if row["started_by_up"] or not row["running"] else f"{row['where']}, not started by velox up"
        restarts = str(row["restarts"])
        rows.append((row["name"], row["state"], _number(row["pid"]), _since(row), restarts, where, _short(row["output"])))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for cells in rows:
        _say("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())
    for line in [
        *_places(view["places"]),
        *view["notes"],
        *(f"{row['name']}: {row['reason']}" for row in view["services"] if row["reason"]),
    ]:
        _say(line)
    if not supervisor["running"]:
        _say(f"Nobody restarts what dies. Start: {start}")


def _places(places: dict[str, str]) -> list[str]:
    """Return where a person looks, one line each."""
    labels = {"ui": "Prefect's UI", "logs": "logs", "var": "state", "prefect": "for prefect by hand"}
    width = max(map(len, labels.values()))
    return [f"{label.ljust(width)}  {places[name]}" for name, label in labels.items() if places.get(name)]


def _since(row: dict[str, Any]) -> str:
    wall_ms = row["since_wall_ms"]
    return f"{datetime.fromtimestamp(wall_ms / 1_000, IST):%Y-%m-%d %H:%M:%S}" if wall_ms else "-"


def _number(pid: int) -> str:
    return str(pid) if pid else "-"


def _short(path: str) -> str:
    if not path:
        return "-"
    below = os.path.relpath(Path(path))
    return path if below.startswith("..") else below


def _print_json(value: object) -> None:
    json.dump(value, sys.stdout, ensure_ascii=False, indent=2)
    sys.stdout.write("\n")


def _say(line: str) -> None:
    """Print a line; a terminal that went away changes nothing."""
    with suppress(OSError, ValueError):
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
