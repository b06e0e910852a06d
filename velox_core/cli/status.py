"""`velox status`: the newest run by the newest word, the halts, the guard; and that there is no run, which is no error.

- Reads folders and a lock: it works with every store down.
- What a flatten or the guard left after the engine's last word stands above what the engine said (`operations.closing`).
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from typing import Any, Final

from rich.console import Console

from velox_core.cli.tables import show, status_panel
from velox_core.domain.errors import EXIT_DONE
from velox_core.domain.halts import active_halts
from velox_core.domain.time import ist_date
from velox_core.halt_file import HALT_FILE, JsonLinesHaltFile
from velox_core.operations.closing import closers_at_work, with_closing
from velox_core.operations.day_engine import own_end, watch_lines
from velox_core.operations.dead_engine import dead_engine, is_stale, take_over_command
from velox_core.operations.guard_status import guard_life
from velox_core.operations.halt import with_standing_halts
from velox_core.operations.halt_words import HaltBody, grouped
from velox_core.operations.hints import velox
from velox_core.operations.processes import wrote_it
from velox_core.operations.recorded import recorded_runs
from velox_core.operations.status import Status, account_folders, age_seconds, newest_status, read_summary
from velox_core.operations.stop import running_engines
from velox_core.runs import RunState
from velox_core.settings import Paths, Settings

HALTED_RUNS_MAX: Final = 20  # the newest runs whose halt files are looked at


def show_status(settings: Settings, paths: Paths, *, as_json: bool, console: Console) -> int:
    """Show where the account stands, once. Returns the exit code: 0, or a dead engine's."""
    found = _newest(settings, paths)
    if found is None:
        return _show_no_run(settings, paths, as_json=as_json)
    alive = wrote_it(found.number("pid"), found.number("wall_ms")) and not found.ended
    dead = dead_engine(settings, found)
    found = with_standing_halts(with_closing(found), alive=alive)
    if as_json:
        _print_json(_as_json(settings, paths, found, alive=alive))
        return EXIT_DONE if dead is None else dead.exit_code
    if not _is_of_today(found):
        _say("no run today; the newest one:")
    summary = read_summary(found.folder) if found.ended else None
    age = age_seconds(found)
    show(console, status_panel(found, environment=settings.environment, alive=alive, age_seconds=age, summary=summary))
    for line in closers_at_work(found.folder):
        _say(line)
    for line in watch_lines(settings, paths, found.folder):
        _say(line)
    _say(guard_life(settings, paths).sentence)
    if dead is not None:
        _say(dead.sentence)
    elif alive and is_stale(settings, found):
        _say(f"STALE: the engine has said nothing for {age:.0f} s. It hangs? {take_over_command(settings, found)}")
    others = [other.folder.name for other in running_engines(settings, paths) if other.folder != found.folder]
    if others:
        _say(f"Engines of other runs work too: {', '.join(others)}")
    for line in _other_halts(settings, paths, shown=found.folder.name):
        _say(line)
    return EXIT_DONE if dead is None else dead.exit_code


def watch_newest(settings: Settings, paths: Paths, *, as_json: bool, console: Console) -> int:
    """Watch the newest run until its engine ends. Returns the exit code; without a run it says so, as `show_status` does."""
    from velox_core.cli.watch import watch_status

    found = _newest(settings, paths)
    if found is None:
        return _show_no_run(settings, paths, as_json=as_json)
    return watch_status(settings, found, as_json=as_json, console=console, guard=lambda: guard_life(settings, paths))


def _newest(settings: Settings, paths: Paths) -> Status | None:
    return newest_status(account_folders(paths.var, broker_type=settings.broker.type.value, account=settings.account))


def _show_no_run(settings: Settings, paths: Paths, *, as_json: bool) -> int:
    """Say that no run is on record; the guard and what is halted are told all the same."""
    guarded = guard_life(settings, paths)
    halts = _halts_by_run(settings, paths)
    message = f"no run today, and none of account {settings.account!r} on record below {paths.var}"
    if as_json:
        halted = [{**halt, "run_id": run} for run, found in halts.items() for halt in found]
        facts = {"account": settings.account, "environment": settings.environment, "run_today": False, "run_id": ""}
        shown = {**facts, "state": "", "alive": False, "died": False, "halted": bool(halted), "halts": halted}
        _print_json({**shown, "positions": [], "guard": guarded.to_json(), "message": message})
        return EXIT_DONE
    _say(f"{message}. Start one: {velox('day', settings=settings)}")
    lines = _halt_lines(settings, halts)
    for line in lines or ["halts: none"]:
        _say(line)
    _say(guarded.sentence)
    return EXIT_DONE


def _as_json(settings: Settings, paths: Paths, found: Status, *, alive: bool) -> dict[str, Any]:
    dead = dead_engine(settings, found)
    summary = (read_summary(found.folder) if found.ended else None) or {}
    facts = {key: summary.get(key, "") for key in ("stopped", "fault")}
    named = {"environment": settings.environment, "folder": str(found.folder), "alive": alive, "run_today": _is_of_today(found)}
    death = {"died": False, "stale": alive and is_stale(settings, found)} if dead is None else dead.to_json()
    return {
        **found.body,
        **facts,
        **named,
        **death,
        "age_seconds": round(age_seconds(found), 1),
        "closing_now": closers_at_work(found.folder),
        "watches": watch_lines(settings, paths, found.folder),
        "end": None if (end := own_end(found.folder)) is None else asdict(end),
        "guard": guard_life(settings, paths).to_json(),
        "halted_runs": [run for run in _halts_by_run(settings, paths) if run != found.folder.name],
    }


def _is_of_today(status: Status) -> bool:
    """Return whether a run said something today (IST), by the machine's clock; a replay may replay any date."""
    return ist_date(status.number("wall_ms")) == ist_date(time.time_ns() // 1_000_000)


def _halts_by_run(settings: Settings, paths: Paths) -> dict[str, list[HaltBody]]:
    """Return the halts that the halt files of the newest runs hold, by run, where no end of day closed it."""
    runs = [run for run in recorded_runs(settings, paths) if run.run.state is not RunState.CLOSED]
    found: dict[str, list[HaltBody]] = {}
    for recorded in runs[-HALTED_RUNS_MAX:]:
        halts = active_halts(JsonLinesHaltFile(recorded.folder / HALT_FILE).records())
        if halts:
            found[recorded.folder.name] = [halt.to_body() for halt in halts]
    return found


def _other_halts(settings: Settings, paths: Paths, *, shown: str) -> list[str]:
    others = [run for run in _halts_by_run(settings, paths) if run != shown]
    if not others:
        return []
    reset = velox("reset", "--run", "ID", "--reason", "...", "--by", "NAME", settings=settings)
    return [f"Halted too: {', '.join(others)}. Each ends with its end of day, or: {reset}"]


def _halt_lines(settings: Settings, halts: dict[str, list[HaltBody]]) -> list[str]:
    lines = [f"HALTED {run}: {group.line}" for run, found in halts.items() for group in grouped(found)]
    if lines:
        lines.append(f"to clear: {velox('reset', '--run', 'ID', '--reason', '...', '--by', 'NAME', settings=settings)}")
    return lines


def _print_json(value: object) -> None:
    json.dump(value, sys.stdout, ensure_ascii=False, indent=2, default=str)
    sys.stdout.write("\n")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
