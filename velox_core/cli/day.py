"""`velox day`: starts the trading-day flow as a process, shows what happens, and ends as it ended.

- The flow runs in a session of its own: Ctrl-C here asks the engine to stop (positions as `engine.on_stop` says). Before
  the engine speaks the flow is asked: it starts none, or hands the stop to the one it is starting.
- A second Ctrl-C goes away; the stop stays asked for. Ctrl-C is counted, so that none is lost between two steps.
- What the flow prints goes to a file below `var/output`; a failed day shows its end and what to do next.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Final, Self

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
from velox_core.operations.handover import checklist_of, engine_of, forget, leave_stop, waiting_of
from velox_core.operations.hints import velox
from velox_core.operations.json_file import read_json
from velox_core.operations.log_tail import last_lines
from velox_core.operations.prefect_home import prefect_environment, ui_command
from velox_core.operations.readiness import check_day, refuse_live_broker, refuse_second_engine
from velox_core.operations.run_logs import logs_folder
from velox_core.operations.status import ProcessStatus, Status, account_folders, status_of_process
from velox_core.operations.stop import request_engine_stop

TAIL_LINES: Final = 15
DETACHED: Final = 130
INTERRUPT_POLL_SECONDS: Final = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class DayRequest:
    """What the command line asked for."""

    config: Path | None
    date: date | None
    speed: float | None
    data: Path | None
    scenario: str | None
    as_json: bool
    plain: bool = False


def run_day(request: DayRequest) -> int:
    """Run the trading-day flow and return its exit code. What cannot be traded is told before anything starts."""
    asked = FlowRequest(
        config=request.config, date=request.date, speed=request.speed, data=request.data, scenario=request.scenario
    )
    day = open_day(asked, os.environ)
    console = Console(stderr=request.as_json)
    refuse_live_broker(day.settings)
    if day.closed_reason:
        return _tell_closed(day, console, as_json=request.as_json)
    refuse_second_engine(day.settings, day.paths, day.trading_date)
    check_day(day)
    return _run_flow(day, console, as_json=request.as_json, plain=request.plain)


def _run_flow(day: Day, console: Console, *, as_json: bool, plain: bool) -> int:
    output = output_file(day.paths, f"trading-day-{day.trading_date.isoformat()}")
    result = output.with_suffix(".json")
    result.unlink(missing_ok=True)
    started_ms = time.time_ns() // 1_000_000
    with _Interrupts() as interrupts:
        with output.open("wb") as sink:
            process = subprocess.Popen(
                [sys.executable, *_flow_arguments(day, result)],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=prefect_environment(day.paths.var, os.environ),
            )
        opening = _Opening(day, process.pid, output, console)
        hint = "Ctrl-C asks the day to end; a second one leaves this window."
        read = _EngineStatus(day, process.pid, started_ms)
        with RunView(console, read, note=opening.phase, plain=plain, hint=hint):
            code = _wait(process, day, console, interrupts=interrupts, started_ms=started_ms)
    if code == DETACHED:
        return code
    opening.show_checklist()
    forget(day.paths, process.pid)
    _end_what_the_flow_left(process)
    return _tell(day, code, read_json(result), output=output, console=console, as_json=as_json)


class _Opening:
    """What happens before the engine speaks, in words; the checklist is shown as soon as it is there."""

    def __init__(self, day: Day, flow_pid: int, output: Path, console: Console) -> None:
        self._day = day
        self._flow_pid = flow_pid
        self._output = output
        self._console = console
        self._shown = False

    def phase(self) -> str:
        """Return what the flow is at."""
        self.show_checklist()
        if engine_of(self._day.paths, self._flow_pid):
            now = "starting the engine"
        elif waits := waiting_of(self._day.paths, self._flow_pid):
            now = waits
        elif self._shown:
            now = "the checklist is done, opening the intraday flow"
        else:
            now = "running the checklist" if self._output.stat().st_size else "starting Prefect"
        return f"{self._day.label}: {now}"

    def show_checklist(self) -> None:
        """Show the checklist of this day's flow, once."""
        results = [] if self._shown else checklist_of(self._day.paths, self._flow_pid)
        if not results:
            return
        self._shown = True
        self._console.print(f"Checklist: {verdict_line(results)}", highlight=False)
        for line in results:
            if line.verdict in (Verdict.WARNED, Verdict.FAILED):
                text = f"  {line.verdict.lower()}  {line.title}: {line.measured}"
                self._console.print(text, highlight=False, markup=False, soft_wrap=True)


def _tell_closed(day: Day, console: Console, *, as_json: bool) -> int:
    message = f"{day.trading_date}: no session ({day.closed_reason}); nothing to trade"
    console.print(message, highlight=False, markup=False, soft_wrap=True)
    if as_json:
        _print_json({"exit_code": EXIT_DONE, "message": message, "trading_date": str(day.trading_date), "report": None})
    return EXIT_DONE


def _flow_arguments(day: Day, result: Path) -> list[str]:
    arguments = ["-m", "flows", "trading_day", "--config", str(day.settings.source), "--date", day.trading_date.isoformat()]
    if day.request.speed is not None:
        arguments += ["--speed", "max" if day.request.speed == 0.0 else repr(day.request.speed)]
    if day.request.data is not None:
        arguments += ["--data", str(day.request.data.resolve())]
    if day.request.scenario is not None:
        arguments += ["--scenario", day.request.scenario]
    return [*arguments, "--result", str(result)]


def _status(day: Day, flow_pid: int, started_ms: int) -> Status | None:
    """Return the status of the engine that this day's flow started, and of no other."""
    pid = engine_of(day.paths, flow_pid)
    if not pid:
        return None
    return status_of_process(_folders(day), pid=pid, since_wall_ms=started_ms)


def _folders(day: Day) -> list[Path]:
    return account_folders(day.paths.var, broker_type=day.settings.broker.type.value, account=day.settings.account)


class _EngineStatus:
    """The status of the engine that this day's flow started; once it is known, only its folder is looked at."""

    def __init__(self, day: Day, flow_pid: int, started_ms: int) -> None:
        self._day, self._flow_pid, self._started_ms = day, flow_pid, started_ms
        self._found: ProcessStatus | None = None

    def __call__(self) -> Status | None:
        pid = engine_of(self._day.paths, self._flow_pid) if self._found is None else 0
        if pid:
            self._found = ProcessStatus(lambda: _folders(self._day), pid=pid, since_wall_ms=self._started_ms)
        return self._found() if self._found is not None else None


class _Interrupts:
    """Counts Ctrl-C while it is entered, instead of raising it wherever the program is."""

    def __init__(self) -> None:
        self.count = 0
        self._before: Any = None

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self.count += 1


def _wait(process: subprocess.Popen[bytes], day: Day, console: Console, *, interrupts: _Interrupts, started_ms: int) -> int:
    """Wait for the flow; the first Ctrl-C asks for the day's end, the second goes away."""
    answered, is_asked = 0, False
    while True:
        try:
            return process.wait(timeout=INTERRUPT_POLL_SECONDS)
        except subprocess.TimeoutExpired:
            if interrupts.count == answered:
                continue
        if not answered:
            answered = interrupts.count
            is_asked = _ask_to_stop(day, process.pid, started_ms, console)
            continue
        left = "The day ends" if is_asked else "The day, which could NOT be asked to stop, goes on"
        console.print(
            f"{left} without this window. See it: {velox('status', settings=day.settings)}  "
            f"Ask it to stop: {velox('stop', '--reason', 'enough', settings=day.settings)}",
            highlight=False,
            soft_wrap=True,
        )
        return DETACHED


def _end_what_the_flow_left(process: subprocess.Popen[bytes]) -> None:
    """End the Prefect server that a killed flow leaves behind in its group. The engine has a session of its own."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGTERM)


def _ask_to_stop(day: Day, flow_pid: int, started_ms: int, console: Console) -> bool:
    """Ask this day's engine to stop, and no other; the flow, while there is no engine that can be asked."""
    status = _status(day, flow_pid, started_ms)
    try:
        if status is not None:
            request_engine_stop(status.folder, by="velox day", reason="Ctrl-C in velox day")
            said = f"Run {status.run_id or status.folder.name} was asked to stop"
        else:
            leave_stop(day.paths, flow_pid)
            said = "The engine does not run yet: none is started, or it is stopped as soon as it speaks"
    except VeloxError as error:
        console.print(str(error), highlight=False, markup=False, soft_wrap=True)
        return False
    console.print(f"{said}. Ctrl-C again leaves this window; the stop stays asked for.", highlight=False, soft_wrap=True)
    return True


def _tell(day: Day, code: int, result: Mapping[str, Any], *, output: Path, console: Console, as_json: bool) -> int:
    """Show how the day ended, and return its exit code; a flow that was killed is an operating error."""
    code = code if code >= 0 else EXIT_OPERATING_ERROR
    report = result.get("answer") if isinstance(result.get("answer"), Mapping) else None
    message = str(result.get("message") or "")
    if as_json:
        _print_json({"exit_code": code, "message": message, "trading_date": day.trading_date.isoformat(), "report": report})
    if isinstance(report, Mapping):
        show(console, summary_panel(report))
    if code != EXIT_DONE:
        _show_failure(day, code, message, output=output, console=console)
    elif report is None:
        console.print(f"{day.trading_date}: nothing was traded; the flow's output says why.", highlight=False)
    _show_places(day, report, output, console)
    return code


def _show_failure(day: Day, code: int, message: str, *, output: Path, console: Console) -> None:
    console.print(f"The day failed (exit code {code}).", style="bold red")
    if message:
        console.print(message, highlight=False, markup=False, soft_wrap=True)
    else:
        for line in last_lines(output, TAIL_LINES):
            console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)
    console.print(_what_now(day, code), highlight=False, markup=False, soft_wrap=True)


def _what_now(day: Day, code: int) -> str:
    status, again = velox("status", settings=day.settings), _same_day(day)
    if code == EXIT_BAD_USAGE:
        return "Correct the configuration or the options and run it again."
    if code == EXIT_CHECKLIST_FAILED:
        return f"Mend what the checklist refuses and run it again. See it with: {velox('check', settings=day.settings)}"
    if code == EXIT_NOT_FLAT:
        return f"Positions or orders may be open. See them: {status}  Take the run up again and square off: {again}"
    return f"Read the lines above and the logs. Where the engine stands: {status}"


def _same_day(day: Day) -> str:
    arguments = ["run", "--date", day.trading_date.isoformat()]
    if day.request.data is not None:
        arguments += ["--data", str(day.request.data)]
    if day.request.scenario is not None:
        arguments += ["--scenario", day.request.scenario]
    return velox(*arguments, settings=day.settings)


def _show_places(day: Day, report: Mapping[str, Any] | None, output: Path, console: Console) -> None:
    places = [("Logs", shlex.quote(str(logs_folder(day.settings, day.paths)))), ("Flow output", shlex.quote(str(output)))]
    if report is not None and report.get("run_id"):
        places.append(("Report", _report_place(day, report)))
        places.append(("Summary again", velox("summary", "--run", str(report["run_id"]), settings=day.settings)))
    places.append(("Runs in the UI", ui_command(day.paths.var)))
    for label, text in places:
        console.print(f"{label:<15}{text}", highlight=False, markup=False, soft_wrap=True)


def _report_place(day: Day, report: Mapping[str, Any]) -> str:
    """Return where the report's page lies, as far as the flow says; else what writes it."""
    page = report.get("page")
    if isinstance(page, str) and page:
        return f"{shlex.quote(page)}  (open it in a browser)"
    return velox("report", "--run", str(report["run_id"]), settings=day.settings)


def _print_json(value: object) -> None:
    json.dump(value, sys.stdout, ensure_ascii=False, indent=2)
    sys.stdout.write("\n")
