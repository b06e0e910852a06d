"""`velox status --watch`: the newest run until its engine ends, redrawn in place on a terminal, a line per change elsewhere.

- Reads what the engine publishes; never talks to it. A dead engine and a silent one are told as `velox status` tells them.
- Ends with the engine, and says how it ended; Ctrl-C ends the watching alone.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Final

from rich.console import Console
from rich.live import Live

from velox_core.cli.tables import status_panel
from velox_core.domain.errors import EXIT_DONE
from velox_core.operations.dead_engine import dead_engine, is_stale, take_over_command
from velox_core.operations.processes import wrote_it
from velox_core.operations.status import Status, age_seconds, read_status, read_summary
from velox_core.operations.view import headline, progress_line
from velox_core.settings import Settings

LOOK_SECONDS: Final = 0.5


def watch_status(
    settings: Settings, first: Status, *, as_json: bool, console: Console, sleep: Callable[[float], None] = time.sleep
) -> int:
    """Watch the run of a status until its engine ended or died. Returns the exit code: 0, or a dead engine's."""
    shown = ""
    with ExitStack() as stack:
        live = None
        if console.is_terminal and not as_json:
            live = stack.enter_context(Live(console=console, auto_refresh=False))
        try:
            while True:
                status = read_status(first.folder) or first
                dead = dead_engine(settings, status)
                line = _json_line(settings, status) if as_json else progress_line(status)
                if live is not None:
                    live.update(_panel(settings, status), refresh=True)
                elif line != shown:
                    shown = line
                    _say(line)
                if dead is not None:
                    if not as_json:
                        _say(dead.sentence)
                    return dead.exit_code
                if status.ended or not _is_alive(status):
                    if not as_json:
                        _say(_how_it_ended(status))
                    return EXIT_DONE
                if not as_json and is_stale(settings, status) and "STALE" not in shown:
                    shown = f"STALE: the engine has said nothing for a while. It hangs? {take_over_command(settings, status)}"
                    _say(shown)
                sleep(LOOK_SECONDS)
        except KeyboardInterrupt:
            return EXIT_DONE


def _panel(settings: Settings, status: Status) -> Any:
    return status_panel(
        status, environment=settings.environment, alive=_is_alive(status), age_seconds=age_seconds(status), summary=None
    )


def _json_line(settings: Settings, status: Status) -> str:
    """Return the status as one line; equal as long as the engine has said nothing new, and lives."""
    dead = dead_engine(settings, status)
    death: dict[str, Any] = {"died": False} if dead is None else dead.to_json()
    return json.dumps({**status.body, "alive": _is_alive(status), **death}, ensure_ascii=False)


def _how_it_ended(status: Status) -> str:
    summary = read_summary(status.folder)
    return headline(summary) if summary is not None else f"run {status.folder.name} has ended: {status.state}"


def _is_alive(status: Status) -> bool:
    return wrote_it(status.number("pid"), status.number("wall_ms")) and not status.ended


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
