"""What a flatten or the guard left of a dead engine is the newer word, for every command that speaks of what is open."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from velox_core.closing_progress import PROGRESS_KEY
from velox_core.closing_record import CLOSING_FILE, FLATTEN, GUARD, leave_closing, read_closing
from velox_core.domain.errors import VeloxError
from velox_core.flat_proof import FlattenResult, FlattenState, SymbolLine, SymbolOutcome
from velox_core.operations import runs
from velox_core.operations.closing import closers_at_work, with_closing
from velox_core.operations.dead_engine import dead_engine
from velox_core.operations.doctor import _engine
from velox_core.operations.recorded import find_run
from velox_core.operations.status import Status, read_status
from velox_core.operations.stop import request_stop
from velox_core.operations.view import end_text, headline, headline_rows, progress_line
from velox_core.runs import RunState, write_state
from velox_core.settings import Paths, Settings

Load = Callable[..., Settings]
GONE_PID = 2**22 + 12345
ENDED_MS = 1_705_380_188_000  # 10:13:08 IST
FLAT_WORDS = "closed by the guard at 10:13:08: FLAT, proved by the broker"


@pytest.fixture
def folder(paths: Paths) -> Path:
    path = paths.var / "replay" / "primary" / "2024-01-15-1"
    write_state(path, RunState.BEGUN)
    say(path)
    return path


def say(folder: Path, **changes: Any) -> None:
    """The engine speaks, or has spoken before it died."""
    body = {
        "state": "RUNNING",
        "pid": GONE_PID,
        "run_id": folder.name,
        "wall_ms": time.time_ns() // 1_000_000,
        "positions": [{"symbol": "TCS", "quantity": 1, "average_paise": 5}],
        "live_orders": 1,
        "net_paise": -5,
        "loss_limit_paise": 200_000,
        "source": "tcs_2024-01-15.csv",
        PROGRESS_KEY: {"exits": 0, "acknowledged": 0, "looks": 1},
    }
    (folder / "status.json").write_text(json.dumps(body | changes))


def close(folder: Path, *lines: SymbolLine, state: FlattenState = FlattenState.FLAT, tool: str = GUARD, **changes: Any) -> None:
    values = {"closed_by": "this process", "loss_paise": 1_234, "reason": "", "halt_id": "h"} | changes
    result = FlattenResult(state=state, lines=lines, not_latched=(), started_ms=1, ended_ms=ENDED_MS, **values)
    leave_closing(folder, result, run_id=folder.name, tool=tool, by="guard" if tool == GUARD else "asha")


def line(outcome: SymbolOutcome, held: int) -> SymbolLine:
    return SymbolLine(symbol="TCS", held_before=1, held=held, outcome=outcome, text="how")


def seen(folder: Path) -> Status:
    status = read_status(folder)
    assert status is not None
    return with_closing(status)


FLAT_LINE = line(SymbolOutcome.FLAT, 0)
OPEN_LINE = line(SymbolOutcome.CIRCUIT_LOCKED, 1)


def test_closing_after_the_last_word_has_the_word_on_positions_orders_and_money(folder: Path) -> None:
    close(folder, FLAT_LINE)
    status = seen(folder)
    assert (status.positions, status.number("live_orders"), status.number("net_paise")) == ([], 0, -1_234)
    assert status.number("headroom_paise") == 200_000 - 1_234
    assert status.closing["message"] == FLAT_WORDS
    assert status.body["engine_said"]["net_paise"] == -5
    assert len(status.body["engine_said"]["positions"]) == 1
    assert FLAT_WORDS in progress_line(status)
    assert with_closing(status) is status


def test_closing_that_is_not_flat_shows_what_is_left_with_what_the_engine_knew_of_it(folder: Path) -> None:
    close(folder, OPEN_LINE, state=FlattenState.NOT_FLAT, tool=FLATTEN, reason="why")
    status = seen(folder)
    assert status.positions == [{"symbol": "TCS", "quantity": 1, "average_paise": 5, "left": "how"}]
    assert status.number("live_orders") == 1
    assert status.closing["message"] == "NOT FLAT after velox flatten (asha) at 10:13:08: 1 TCS CIRCUIT_LOCKED"


def test_closing_that_never_reached_the_broker_leaves_the_engines_word_on_positions(folder: Path) -> None:
    close(folder, state=FlattenState.NOT_FLAT, loss_paise=None, reason="the broker never answered")
    status = seen(folder)
    assert [position["quantity"] for position in status.positions] == [1]
    assert status.number("net_paise") == -5
    assert "what is open is not known" in status.closing["message"]


def test_closing_by_an_engine_that_was_asked_says_so(folder: Path) -> None:
    close(folder, FLAT_LINE, closed_by="engine", tool=FLATTEN)
    words = "closed by its engine, asked by velox flatten (asha), at 10:13:08: FLAT, proved by the broker"
    assert seen(folder).closing["message"] == words


def test_engine_that_speaks_after_a_closing_is_the_newer_word_again(folder: Path) -> None:
    close(folder, FLAT_LINE)
    say(folder, wall_ms=time.time_ns() // 1_000_000 + 1_000)
    assert not seen(folder).closing
    assert len(seen(folder).positions) == 1


def test_closing_is_newer_than_the_status_it_found_whatever_the_clock_was_set_to(folder: Path) -> None:
    say(folder, wall_ms=1 << 50)
    close(folder, FLAT_LINE)
    assert seen(folder).closing["flat"] is True


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"flat": true}', '{"flat": 1, "after": [1, 2]}'])
def test_closing_record_that_is_torn_or_of_another_shape_is_none(text: str, folder: Path) -> None:
    (folder / CLOSING_FILE).write_text(text)
    assert read_closing(folder) is None
    assert not seen(folder).closing


def test_leaving_a_record_on_a_disk_that_does_not_take_it_changes_nothing(folder: Path) -> None:
    close(folder / "not" / "there", FLAT_LINE)
    assert not (folder / "not").exists()


@pytest.mark.parametrize(
    ("lines", "state", "code", "words"),
    [
        (FLAT_LINE, FlattenState.FLAT, 1, FLAT_WORDS),
        (OPEN_LINE, FlattenState.NOT_FLAT, 4, "NOT FLAT after the guard at 10:13:08: 1 TCS CIRCUIT_LOCKED"),
        (line(SymbolOutcome.KEPT, 1), FlattenState.FLAT, 1, FLAT_WORDS),
    ],
)
def test_stop_and_doctor_tell_what_became_of_a_dead_engines_positions(
    lines: SymbolLine, state: FlattenState, code: int, words: str, settings_with: Load, paths: Paths, folder: Path
) -> None:
    close(folder, lines, state=state)
    dead = dead_engine(settings_with(), read_status(folder))
    assert dead is not None
    assert (dead.exit_code, dead.closed) == (code, words)
    with pytest.raises(VeloxError) as caught:
        request_stop(settings_with(), paths, by="me", reason="enough", wait_seconds=0.0)
    assert caught.value.exit_code == code
    assert words in str(caught.value)
    assert "1 TCS open, by its last status" not in str(caught.value)
    finding = _engine(settings_with(), folder)
    assert not finding.ok
    assert words in finding.measured
    assert "1 TCS open" not in finding.advice


def test_report_of_a_run_that_was_closed_after_its_end_says_how_it_stands_now(
    settings_with: Load, paths: Paths, folder: Path
) -> None:
    kept = {"flat": False, "open_quantities": {"TCS": 1}, "trading_date": "2024-01-15", "net_paise": 0}
    say(folder, state="DONE")
    (folder / "summary.json").write_text(json.dumps(kept))
    os.utime(folder / "summary.json", (1, 1))
    recorded = find_run(settings_with(), paths)
    assert headline(runs.load_report(settings_with(), recorded)).endswith("ended NOT FLAT")
    close(folder, FLAT_LINE)
    report = runs.load_report(settings_with(), recorded)
    assert headline(report).endswith(f"ended flat ({FLAT_WORDS})")
    assert end_text(report) == f"flat ({FLAT_WORDS})"
    assert dict(headline_rows(report))["At the end"].startswith(f"{FLAT_WORDS}; the journal still has +1 TCS")
    assert FLAT_WORDS in runs.run_lines(settings_with(), paths)[0]["result"]
    os.utime(folder / "summary.json")  # the end of day made it anew
    os.utime(folder / "summary.json", (time.time() + 60, time.time() + 60))
    assert "closed" not in runs.load_report(settings_with(), recorded)


def test_closers_at_work_are_those_that_live_and_spoke_a_moment_ago(folder: Path) -> None:
    now_ms = time.time_ns() // 1_000_000
    for name, pid, wall_ms in (("a", os.getpid(), now_ms), ("b", GONE_PID, now_ms), ("c", os.getpid(), now_ms - 60_000)):
        body = {"pid": pid, "wall_ms": wall_ms, "state": "TAKING_OVER", "by": "guard"}
        (folder / f"flatten-{name}.json").write_text(json.dumps(body))
    assert closers_at_work(folder) == [f"the guard (process {os.getpid()}) closes now: taking over"]
