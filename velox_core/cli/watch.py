"""`velox status --watch`: the newest run until its engine ends, redrawn in place on a terminal, a line per change elsewhere.

- Reads what is published; never talks to the engine. A dead engine and a silent one are told as `velox status` tells them,
  and so is what a flatten or the guard leaves.
- Ends with the engine, and says how it ended. When an engine died with something open and a guard or a flatten is there to
  close it, the watching goes on until that has an outcome, within a bound. Ctrl-C ends the watching alone.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Final

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from velox_core.cli.tables import status_panel
from velox_core.domain.errors import EXIT_DONE
from velox_core.operations.closing import closers_at_work, with_closing
from velox_core.operations.dead_engine import DeadEngine, dead_engine, is_stale, take_over_command
from velox_core.operations.guard_status import GuardLife, GuardState
from velox_core.operations.halt import with_standing_halts
from velox_core.operations.processes import wrote_it
from velox_core.operations.status import Status, age_seconds, read_status, read_summary
from velox_core.operations.view import headline, progress_line
from velox_core.settings import Settings

LOOK_SECONDS: Final = 0.5
CLOSER_SECONDS_MAX: Final = 300.0  # so long a dead engine's closer is watched; above what a flattening takes

Guard = Callable[[], GuardLife]


def watch_status(
    settings: Settings,
    first: Status,
    *,
    as_json: bool,
    console: Console,
    guard: Guard | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Watch the run of a status until its engine ended or died, and what it left open is closed.

    Args:
        settings, first: whose run it is, and its newest status.
        as_json: one object a line for each change.
        console: redrawn in place when it is a terminal.
        guard: the account's guard, looked at when the engine died; None for none.
        sleep: waits between two looks, seconds.
    Returns: the exit code: 0, or a dead engine's.
    """
    with ExitStack() as stack:
        live = None
        if console.is_terminal and not as_json:
            live = stack.enter_context(Live(console=console, auto_refresh=False))
        watch = _Watch(settings, first, as_json=as_json, live=live, guard=guard)
        try:
            while True:
                ended = watch.look()
                if ended is not None:
                    return ended
                sleep(LOOK_SECONDS)
        except KeyboardInterrupt:
            return EXIT_DONE


class _Watch:
    """What was shown so far, and what is to be shown next."""

    def __init__(self, settings: Settings, first: Status, *, as_json: bool, live: Live | None, guard: Guard | None) -> None:
        self._settings = settings
        self._first = first
        self._as_json = as_json
        self._live = live
        self._guard = guard
        self._shown: dict[str, str] = {}
        self._died_at: float | None = None

    def look(self) -> int | None:
        """Show what changed. Returns the exit code when the watching has ended."""
        status = read_status(self._first.folder) or self._first
        alive = _is_alive(status)
        dead = dead_engine(self._settings, status)
        status = with_standing_halts(with_closing(status), alive=alive)
        notes = self._notes(status, dead, alive=alive)
        self._show(status, dead, notes, alive=alive)
        if dead is None:
            if not status.ended and alive:
                self._died_at = None  # it was taken up
                return None
            self._end(_how_it_ended(status))
            return EXIT_DONE
        self._died_at = self._died_at or time.monotonic()
        if self._is_being_closed(status, dead):
            return None
        self._end(dead.sentence)
        return dead.exit_code

    def _is_being_closed(self, status: Status, dead: DeadEngine) -> bool:
        """Return whether somebody is there who closes what a dead engine left open."""
        if not dead.is_open or time.monotonic() - (self._died_at or 0.0) > CLOSER_SECONDS_MAX:
            return False
        if closers_at_work(status.folder):
            return True
        life = None if self._guard is None else self._guard()
        return life is not None and life.state is GuardState.RUNNING and status.folder.name in life.watching

    def _notes(self, status: Status, dead: DeadEngine | None, *, alive: bool) -> list[str]:
        """Return what is to be said beside the status."""
        notes = closers_at_work(status.folder)
        if dead is not None and self._is_being_closed(status, dead) and not notes:
            notes.append(
                f"the engine DIED with {dead.held or 'something'} open; the guard watches the run and closes it in time"
            )
        elif alive and is_stale(self._settings, status):
            take_over = take_over_command(self._settings, status)
            notes.append(f"STALE: the engine has said nothing for a while. It hangs? {take_over}")
        return notes

    def _show(self, status: Status, dead: DeadEngine | None, notes: list[str], *, alive: bool) -> None:
        if self._live is not None:
            panel = status_panel(
                status,
                environment=self._settings.environment,
                alive=alive,
                age_seconds=age_seconds(status),
                brief=True,
            )
            self._live.update(Group(panel, *(Text(note, style="yellow") for note in notes)), refresh=True)
        elif self._as_json:
            death: dict[str, Any] = {"died": False} if dead is None else dead.to_json()
            self._say("json", json.dumps({**status.body, "alive": alive, **death, "notes": notes}, ensure_ascii=False))
        else:
            self._say("status", progress_line(status))
            self._say("notes", "\n".join(notes))

    def _say(self, kind: str, line: str) -> None:
        """Print a line unless it is the one of its kind that was printed last."""
        if line != self._shown.get(kind, ""):
            self._shown[kind] = line
            if line:
                _say(line)

    def _end(self, sentence: str) -> None:
        if self._live is not None:
            self._live.stop()
        if not self._as_json:
            _say(sentence)


def _how_it_ended(status: Status) -> str:
    summary = read_summary(status.folder)
    closed = f"; {status.closing['message']}" if status.closing else ""
    return (headline(summary) if summary is not None else f"run {status.folder.name} has ended: {status.state}") + closed


def _is_alive(status: Status) -> bool:
    return wrote_it(status.number("pid"), status.number("wall_ms")) and not status.ended


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
