"""`velox run`: the engine in this process, with its progress on the terminal and its summary at the end.

- The engine has the process to itself: on a terminal another process draws, from the published status (`live_process`).
- With --json nothing but the summary goes to stdout.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from velox_core.bootstrap import RunRequest, run_engine
from velox_core.cli.live_process import LiveProcess
from velox_core.cli.options import open_settings
from velox_core.cli.progress import RunView
from velox_core.cli.tables import show, summary_panel
from velox_core.domain.scope import Scope
from velox_core.logs import SYSTEM
from velox_core.operations.day import DayRequest, open_day
from velox_core.operations.engine_end import LastWord
from velox_core.operations.engine_unit import read_request
from velox_core.operations.hints import velox
from velox_core.operations.hung_engine import take_over_run
from velox_core.operations.readiness import check_day, refuse_live_broker, refuse_second_engine
from velox_core.operations.recorded import RecordedRun
from velox_core.operations.run_logs import logs_folder, open_logs
from velox_core.operations.runs import write_report
from velox_core.operations.status import ProcessStatus, account_folders
from velox_core.operations.view import dropped_text, headline
from velox_core.settings import Paths, Settings
from velox_core.stop_signals import StopSignals, stop_signals
from velox_core.take_over import TakeOverResult

_log = logging.getLogger(SYSTEM)


def run_foreground(settings: Settings, paths: Paths, request: RunRequest, *, as_json: bool, plain: bool = False) -> int:
    """Run the engine to its end, write and show the summary, and return the exit code.

    Signals stop the day and nothing else, the report included: the exit code is what a guard or a flow goes by.
    """

    def folders() -> list[Path]:
        return account_folders(paths.var, broker_type=settings.broker.type.value, account=settings.account)

    with stop_signals(until_exit=True) as signals, LastWord(paths.var, folders) as word:
        code = _run_foreground(settings, paths, request, signals, word, as_json=as_json, plain=plain)
        word.write(code)
        return code


def run_requested(config: Path | None, *, as_json: bool, plain: bool) -> int:
    """Run what a flow asked of the account's unit. Returns the exit code. Raises VeloxError when nobody asked."""
    settings, paths = open_settings(config)
    account = Scope(broker_type=settings.broker.type.value, account=settings.account)
    asked = read_request(paths.var / account.folder)
    day = open_day(
        DayRequest(config=asked.config, date=asked.trading_date, speed=asked.speed, data=asked.data, scenario=asked.scenario),
        os.environ,
    )
    refuse_live_broker(day.settings)
    refuse_second_engine(day.settings, day.paths, day.trading_date)
    check_day(day)
    request = RunRequest(
        date=asked.trading_date, speed=asked.speed, data=asked.data, scenario=asked.scenario, exits_only=asked.exits_only
    )
    return run_foreground(day.settings, day.paths, request, as_json=as_json, plain=plain)


def _view(settings: Settings, paths: Paths, request: RunRequest, console: Console, *, plain: bool) -> RunView | LiveProcess:
    """Return what shows this process' run: another process on a terminal, lines now and then elsewhere."""
    since_ms, pid, note = time.time_ns() // 1_000_000, os.getpid(), f"{request.date}: starting the engine"
    broker_type = settings.broker.type.value
    if console.is_terminal and not plain:
        return LiveProcess(
            paths.var,
            broker_type=broker_type,
            account=settings.account,
            pid=pid,
            since_wall_ms=since_ms,
            note=note,
            on_stderr=console.stderr,
        )

    def folders() -> list[Path]:
        return account_folders(paths.var, broker_type=broker_type, account=settings.account)

    read = ProcessStatus(folders, pid=pid, since_wall_ms=since_ms)
    return RunView(console, read, note=lambda: note, plain=True)


def _run_foreground(
    settings: Settings,
    paths: Paths,
    request: RunRequest,
    signals: StopSignals,
    word: LastWord,
    *,
    as_json: bool,
    plain: bool,
) -> int:
    console = Console(stderr=as_json)
    logs = open_logs(settings, paths)
    try:
        with _view(settings, paths, request, console, plain=plain):
            outcome = run_engine(settings, paths, request, signals)
        ended = {"halted": outcome.halted, "stopped": outcome.result.stopped, "fault": outcome.result.fault}
        word.said(outcome.run.folder, run_id=outcome.run.run_id, flat=outcome.flat, **ended)
        dropped = dropped_text(outcome.facts)
        if dropped:
            _log.warning("[DATA] run %s: %s", outcome.run.run_id, dropped)
    finally:
        losses = logs.stop()
    if losses.any:
        sys.stderr.write(f"velox: {losses}\n")
    report = write_report(settings, RecordedRun(run=outcome.run, trading_date=request.date), outcome.facts)
    if as_json:
        _print_json(report)
    else:
        show(console, summary_panel(report))
        console.print(f"Logs: {logs_folder(settings, paths)}", highlight=False, soft_wrap=True)
        console.print(headline(report), highlight=False, soft_wrap=True)
        again = velox("report", "--run", str(report.get("run_id", "")), settings=settings)
        console.print(f"With charts: {again}", highlight=False, markup=False, soft_wrap=True)
    return outcome.exit_code


def free_the_run(
    settings: Settings, paths: Paths, request: RunRequest, *, by: str, reason: str, as_json: bool
) -> RunRequest | None:
    """Take the request's run over from an engine that hangs, and say what came of it.

    Returns the request for that very run; None when its engine answers and closes by itself.
    """
    logs = open_logs(settings, paths)
    try:
        run, outcome = take_over_run(settings, paths, request, by=by, reason=reason)
    finally:
        logs.stop()
    killed = f"; killed process {', '.join(str(pid) for pid in outcome.killed)}" if outcome.killed else ""
    sentence = {
        TakeOverResult.NOBODY: f"run {run.run_id}: no engine has it, nothing to take over",
        TakeOverResult.ANSWERS: f"run {run.run_id}: its engine acknowledged the halt and closes everything by itself{killed}",
        TakeOverResult.FREE: f"run {run.run_id} is halted and free{killed}; this engine closes what is open",
    }[outcome.result]
    sys.stderr.write(f"velox: {sentence}\n")
    if outcome.result is TakeOverResult.ANSWERS:
        if as_json:
            _print_json({"run_id": run.run_id, "taken_over": False, "message": sentence})
        return None
    return replace(request, run_id=run.run_id)


def _print_json(value: object) -> None:
    import json

    json.dump(value, sys.stdout, ensure_ascii=False, indent=2, default=str)
    sys.stdout.write("\n")
