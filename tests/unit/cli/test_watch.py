"""Watching a status: a line per change, the end with the engine and how it came, a dead engine, and Ctrl-C."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from velox_core.cli.watch import watch_status
from velox_core.closing_record import GUARD, leave_closing
from velox_core.flat_proof import FlattenResult, FlattenState, SymbolLine, SymbolOutcome
from velox_core.operations.guard_status import GuardLife, GuardState
from velox_core.operations.status import Status, read_status
from velox_core.runs import RunState, write_state
from velox_core.settings import load_settings

CONFIG = Path(__file__).resolve().parents[3] / "config" / "system_simulated.yaml"


class Run:
    """A run's folder whose status a script changes at every look."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "2024-01-16-crash-1"
        self.folder.mkdir()
        write_state(self.folder, RunState.BEGUN)
        self.script: list[dict[str, Any] | BaseException | Callable[[], None]] = []
        self.say(state="RUNNING", net_paise=0)

    def say(self, *, pid: int | None = None, **body: Any) -> None:
        origin = {
            "pid": os.getpid() if pid is None else pid,
            "wall_ms": time.time_ns() // 1_000_000,
            "run_id": self.folder.name,
        }
        (self.folder / "status.json").write_text(json.dumps({**origin, "trading_date": "2024-01-16", **body}))

    def sleep(self, seconds: float) -> None:
        step = self.script.pop(0)
        if isinstance(step, BaseException):
            raise step
        if callable(step):
            step()
        elif step:
            self.say(**step)

    def watch(self, *, as_json: bool = False, terminal: bool = False, guard: Callable[[], GuardLife] | None = None) -> int:
        first = read_status(self.folder)
        assert isinstance(first, Status)
        console = Console(force_terminal=terminal)
        settings = load_settings(CONFIG, {})
        return watch_status(settings, first, as_json=as_json, console=console, guard=guard, sleep=self.sleep)


def test_watch_prints_a_line_per_change_and_ends_with_the_engine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Run(tmp_path)
    run.script = [{}, {"state": "RUNNING", "net_paise": -500}, {}, {"state": "DONE", "net_paise": -700}]
    assert run.watch() == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert [amount in line for amount, line in zip(("0.00", "5.00", "7.00"), lines, strict=False)] == [True] * 3
    assert lines[-1] == "run 2024-01-16-crash-1 has ended: DONE"


def test_watch_json_gives_one_object_per_change(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Run(tmp_path)
    run.script = [{}, {}, {"state": "DONE", "net_paise": -700}]
    assert run.watch(as_json=True) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["state"], line["alive"], line["died"]) for line in found] == [
        ("RUNNING", True, False),
        ("DONE", False, False),
    ]


def test_watch_of_an_engine_that_dies_says_so_and_fails_with_its_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(tmp_path)
    run.script = [{"pid": 2**22 + 1, "state": "RUNNING", "positions": [{"symbol": "TCS", "quantity": 1}]}]
    assert run.watch() == 4
    assert "DIED" in capsys.readouterr().out


def test_watch_ends_cleanly_on_ctrl_c_also_in_place(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.script = [KeyboardInterrupt()]
    assert run.watch(terminal=True) == 0
    assert run.script == []


def closed(run: Run, state: FlattenState, outcome: SymbolOutcome, held: int) -> None:
    """The guard leaves what its closing came to."""
    line = SymbolLine(symbol="TCS", held_before=1, held=held, outcome=outcome, text="how")
    result = FlattenResult(
        state=state, reason="", lines=(line,), halt_id="h", not_latched=(), closed_by="this process", loss_paise=900,
        started_ms=1, ended_ms=1_705_380_188_000,
    )  # fmt: skip
    leave_closing(run.folder, result, run_id=run.folder.name, tool=GUARD, by="guard")


DEAD = {"pid": 2**22 + 1, "state": "RUNNING", "positions": [{"symbol": "TCS", "quantity": 1}]}


@pytest.mark.parametrize(
    ("state", "outcome", "held", "code", "words"),
    [
        (FlattenState.FLAT, SymbolOutcome.FLAT, 0, 1, "closed by the guard at 10:13:08: FLAT, proved by the broker"),
        (FlattenState.NOT_FLAT, SymbolOutcome.REJECTED, 1, 4, "NOT FLAT after the guard at 10:13:08: 1 TCS REJECTED"),
    ],
)
def test_watch_of_a_dead_engine_goes_on_until_its_guard_closed_what_was_open(
    state: FlattenState, outcome: SymbolOutcome, held: int, code: int, words: str,
    tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    run = Run(tmp_path)
    guards = [GuardState.RUNNING]

    def guard() -> GuardLife:
        return GuardLife(state=guards[0], pid=1, age_seconds=0.0, watching=(run.folder.name,), start="velox guard")

    def close() -> None:
        closed(run, state, outcome, held)
        guards[0] = GuardState.ABSENT  # and ends, so that an account that is not flat is waited for no longer

    run.script = [DEAD, {}, close]
    assert run.watch(guard=guard) == code
    lines = capsys.readouterr().out.splitlines()
    assert "DIED with 1 TCS open; the guard watches the run" in "".join(lines[:-1])
    assert "DIED" in lines[-1]
    assert words in lines[-1]
    assert run.script == []


def test_watch_of_a_dead_engine_without_a_guard_of_its_run_ends_at_once(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.script = [DEAD]
    other = GuardLife(state=GuardState.RUNNING, pid=1, age_seconds=0.0, watching=("another",), start="velox guard")
    assert run.watch(guard=lambda: other) == 4
