"""`velox day`: starts the trading-day flow as a process, shows what happens, and ends as it ended.

- The flow runs in a session of its own: Ctrl-C here asks the engine to stop (positions as `engine.on_stop` says); a
  second Ctrl-C leaves the day running and goes away.
- What the flow prints goes to a file below `var/output`; a failed day shows its end and what to do next.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from velox_core.cli.progress import RunView
from velox_core.cli.tables import show, summary_panel
from velox_core.domain.errors import (
    EXIT_BAD_USAGE,
    EXIT_CHECKLIST_FAILED,
    EXIT_DONE,
    EXIT_NOT_FLAT,
    EXIT_OPERATING_ERROR,
    VeloxError,
)
from velox_core.operations.checklist import Verdict, verdict_line
from velox_core.operations.day import Day, open_day
from velox_core.operations.day import DayRequest as FlowRequest
from velox_core.operations.engine_process import output_file
from velox_core.operations.log_tail import last_lines
from velox_core.operations.prefect_home import prefect_environment, ui_command
from velox_core.operations.run_logs import logs_folder
from velox_core.operations.status import Status, account_folders, newest_status
from velox_core.operations.stop import request_stop

TAIL_LINES: Final = 15
DETACHED: Final = 130
_WHAT_NOW: Final = {
    EXIT_BAD_USAGE: "Correct the configuration or the options and run it again.",
    EXIT_CHECKLIST_FAILED: "Mend what the checklist refuses (velox check shows it again), then run it again.",
    EXIT_NOT_FLAT: "Positions or orders are open: velox status shows them, velox run takes the run up again and squares off.",
    EXIT_OPERATING_ERROR: "Read the lines above and the logs; velox status shows where the engine stands.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DayRequest:
    """What the command line asked for."""

    config: Path | None
    date: date | None
    speed: float | None
    data: Path | None
    scenario: str | None
    as_json: bool


def run_day(request: DayRequest) -> int:
    """Run the trading-day flow and return its exit code."""
    asked = FlowRequest(
        config=request.config, date=request.date, speed=request.speed, data=request.data, scenario=request.scenario
    )
    day = open_day(asked, os.environ)
    console = Console(stderr=request.as_json)
    output = output_file(day.paths, f"trading-day-{day.trading_date.isoformat()}")
    result = output.with_suffix(".json")
    result.unlink(missing_ok=True)
    started_ms = time.time_ns() // 1_000_000
    with output.open("wb") as sink:
        process = subprocess.Popen(
            [sys.executable, *_flow_arguments(day, result)],
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=prefect_environment(day.paths.var, os.environ),
        )
    with RunView(console, lambda: _status(day, started_ms), note=f"{day.label}: starting the flows and the checklist ..."):
        code = _wait(process, day, console)
    if code == DETACHED:
        return code
    _end_what_the_flow_left(process)
    return _tell(day, code, _read_result(result), output=output, console=console, as_json=request.as_json)


def _flow_arguments(day: Day, result: Path) -> list[str]:
    arguments = ["-m", "flows.trading_day", "--config", str(day.settings.source), "--date", day.trading_date.isoformat()]
    if day.request.speed is not None:
        arguments += ["--speed", "max" if day.request.speed == 0.0 else repr(day.request.speed)]
    if day.request.data is not None:
        arguments += ["--data", str(day.request.data.resolve())]
    if day.request.scenario is not None:
        arguments += ["--scenario", day.request.scenario]
    return [*arguments, "--result", str(result)]


def _status(day: Day, started_ms: int) -> Status | None:
    folders = account_folders(day.paths.var, broker_type=day.settings.broker.type.value, account=day.settings.account)
    found = newest_status(folders, on=day.trading_date)
    return found if found is not None and found.number("wall_ms") >= started_ms else None


def _wait(process: subprocess.Popen[bytes], day: Day, console: Console) -> int:
    """Wait for the flow; the first Ctrl-C asks the engine to stop, the second leaves the day running."""
    asked = False
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            if asked:
                console.print(
                    "The day goes on without this window. velox status shows it, velox stop ends it.", highlight=False
                )
                return DETACHED
            asked = True
            console.print("Asking the engine to stop; press Ctrl-C again to leave the day running.", highlight=False)
            _ask_to_stop(day, console)


def _end_what_the_flow_left(process: subprocess.Popen[bytes]) -> None:
    """End the Prefect server that a killed flow leaves behind in its group. The engine has a session of its own."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGTERM)


def _ask_to_stop(day: Day, console: Console) -> None:
    try:
        outcome = request_stop(day.settings, day.paths, by="velox day", reason="Ctrl-C in velox day", wait_seconds=0.0)
        console.print(outcome.sentence, highlight=False)
    except VeloxError as error:
        console.print(str(error), highlight=False)


def _read_result(path: Path) -> Mapping[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, Mapping) else {}


def _tell(day: Day, code: int, result: Mapping[str, Any], *, output: Path, console: Console, as_json: bool) -> int:
    """Show how the day ended, and return its exit code; a flow that was killed is an operating error."""
    code = code if code >= 0 else EXIT_OPERATING_ERROR
    report = result.get("answer") if isinstance(result.get("answer"), Mapping) else None
    message = str(result.get("message") or "")
    if as_json:
        body = {"exit_code": code, "message": message, "trading_date": day.trading_date.isoformat(), "report": report}
        json.dump(body, sys.stdout, ensure_ascii=False, indent=2)
        sys.stdout.write("\n")
    _show_checklist(day, console)
    if isinstance(report, Mapping):
        show(console, summary_panel(report))
    if code != EXIT_DONE:
        _show_failure(code, message, output, console)
    elif report is None:
        reason = day.closed_reason or "it ended at once; the flow's output says why"
        console.print(f"{day.trading_date}: nothing was traded ({reason}).", highlight=False)
    _show_places(day, output, console)
    return code


def _show_checklist(day: Day, console: Console) -> None:
    from velox_core.operations.day_pass import newest_checklist  # SQLAlchemy: not needed to start the day

    try:
        results = newest_checklist(day.settings, day.paths, day.trading_date)
    except VeloxError as error:
        console.print(f"The checklist on record cannot be read: {error}", highlight=False, markup=False)
        return
    if results:
        console.print(f"Checklist: {verdict_line(results)}", highlight=False)
    for line in results:
        if line.verdict in (Verdict.WARNED, Verdict.FAILED):
            text = f"  {line.verdict.lower()}  {line.title}: {line.measured}"
            console.print(text, highlight=False, markup=False, soft_wrap=True)


def _show_failure(code: int, message: str, output: Path, console: Console) -> None:
    console.print(f"The day failed (exit code {code}).", style="bold red")
    if message:
        console.print(message, highlight=False, markup=False)
    else:
        for line in last_lines(output, TAIL_LINES):
            console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)
    console.print(_WHAT_NOW.get(code, _WHAT_NOW[EXIT_OPERATING_ERROR]), highlight=False)


def _show_places(day: Day, output: Path, console: Console) -> None:
    places = [
        ("Logs", str(logs_folder(day.settings, day.paths))),
        ("Flow output", str(output)),
        ("Summary again", f"velox summary --date {day.trading_date}"),
        ("Runs in the UI", ui_command(day.paths.var)),
    ]
    for label, text in places:
        console.print(f"{label:<15}{text}", highlight=False, markup=False, soft_wrap=True)
