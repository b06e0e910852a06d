"""`velox status` with and without a run: guard, halts and the newest word, in text and as JSON."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from velox_core.cli.app import app
from velox_core.closing_record import FLATTEN, leave_closing
from velox_core.domain.halts import HaltKind, HaltRecord
from velox_core.flat_proof import FlattenResult, FlattenState
from velox_core.halt_file import HALT_FILE, JsonLinesHaltFile
from velox_core.runs import RunState, write_state

Status = Callable[..., Any]
DAY_MS = 86_400_000


@pytest.fixture
def var(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VELOX__VAR", str(tmp_path / "var"))
    monkeypatch.setenv("COLUMNS", "120")
    return tmp_path / "var"


@pytest.fixture
def status(var: Path) -> Status:
    def invoke(*arguments: str) -> Any:
        return CliRunner().invoke(app, ["status", *arguments])

    return invoke


def begin(var: Path, run_id: str, **body: Any) -> Path:
    folder = var / "replay" / "primary" / run_id
    write_state(folder, RunState.BEGUN)
    if body:
        facts = {"pid": 0, "run_id": run_id, "trading_date": run_id[:10], "wall_ms": time.time_ns() // 1_000_000}
        (folder / "status.json").write_text(json.dumps(facts | body))
    return folder


def halt(folder: Path, halt_id: str) -> None:
    record = HaltRecord(
        halt_id=halt_id, kind=HaltKind.FAULT, trading_date=date(2024, 1, 15), reason="it hangs", by="guard", at_ms=5
    )
    JsonLinesHaltFile(folder / HALT_FILE).append(record)


@pytest.mark.parametrize("arguments", [(), ("--watch",)])
def test_status_without_any_run_shows_guard_and_halts_and_is_no_error(arguments: tuple[str, ...], status: Status) -> None:
    shown = status(*arguments)
    assert shown.exit_code == 0, shown.exception
    assert "no run today, and none of account 'primary' on record" in shown.stdout
    assert "halts: none" in shown.stdout
    assert "guard: ABSENT" in shown.stdout
    told = json.loads(status("--json", *arguments).stdout)
    assert (told["run_today"], told["halted"], told["halts"], told["guard"]["state"]) == (False, False, [], "ABSENT")


def test_status_of_a_run_that_never_spoke_shows_its_halts(status: Status, var: Path) -> None:
    halt(begin(var, "2024-01-15-1"), "h1")
    shown = status()
    assert shown.exit_code == 0
    assert "HALTED 2024-01-15-1: FAULT by guard" in shown.stdout
    assert "reset --run ID" in shown.stdout
    (told,) = json.loads(status("--json").stdout)["halts"]
    assert (told["run_id"], told["halt_id"]) == ("2024-01-15-1", "h1")


def test_status_of_a_run_of_another_day_says_that_none_is_of_today_and_names_other_halted_runs(
    status: Status, var: Path
) -> None:
    long_ago = time.time_ns() // 1_000_000 - 3 * DAY_MS
    begin(var, "2024-01-15-2", state="DONE", wall_ms=long_ago)
    halt(begin(var, "2024-01-15-1"), "h1")
    shown = status()
    assert shown.stdout.startswith("no run today; the newest one:")
    assert "3 days ago" in shown.stdout
    assert "Halted too: 2024-01-15-1." in shown.stdout
    told = json.loads(status("--json").stdout)
    assert (told["run_today"], told["halted_runs"]) == (False, ["2024-01-15-1"])


def test_status_of_a_dead_engine_that_was_flattened_tells_the_flatten(status: Status, var: Path) -> None:
    folder = begin(var, "2024-01-15-1", state="RUNNING", positions=[{"symbol": "TCS", "quantity": 1}])
    assert status().exit_code == 4
    result = FlattenResult(
        state=FlattenState.FLAT, reason="", lines=(), halt_id="h", not_latched=(), closed_by="this process",
        loss_paise=0, started_ms=1, ended_ms=1_705_381_267_000,
    )  # fmt: skip
    leave_closing(folder, result, run_id=folder.name, tool=FLATTEN, by="asha")
    shown = status()
    assert shown.exit_code == 1
    assert "closed by velox flatten (asha) at 10:31:07: FLAT, proved by the broker" in shown.stdout
    assert "no run today" not in shown.stdout
    assert "Open positions (" not in shown.stdout
    assert "TCS" not in shown.stdout
    told = json.loads(status("--json").stdout)
    assert (told["positions"], told["closing"]["flat"], told["died"]) == ([], True, True)
    assert told["engine_said"]["positions"] == [{"symbol": "TCS", "quantity": 1}]
