"""An engine that was killed with a position: every command says so, names what is open and what takes the run up."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from velox_core.domain.errors import VeloxError
from velox_core.operations.dead_engine import DeadEngine, dead_engine, is_stale
from velox_core.operations.status import read_status
from velox_core.operations.stop import request_stop
from velox_core.runs import RunState, write_state
from velox_core.settings import Paths, Settings

Load = Callable[..., Settings]
GONE_PID = 2**22 + 12345
HELD = [{"symbol": "TCS", "quantity": 1}]


def died(paths: Paths, *, run_id: str = "2024-01-15-1", run_state: RunState = RunState.BEGUN, **changes: Any) -> Path:
    folder = paths.var / "replay" / "primary" / run_id
    write_state(folder, run_state)
    body = {
        "state": "RUNNING",
        "pid": GONE_PID,
        "run_id": run_id,
        "wall_ms": time.time_ns() // 1_000_000,
        "positions": HELD,
        "live_orders": 0,
        "source": "tcs_2024-01-15.csv",
    }
    (folder / "status.json").write_text(json.dumps(body | changes))
    return folder


def seen(settings: Settings, folder: Path) -> DeadEngine | None:
    return dead_engine(settings, read_status(folder))


def test_dead_engine_with_a_position_is_not_flat_and_names_what_takes_it_up(settings_with: Load, paths: Paths) -> None:
    dead = seen(settings_with(), died(paths))
    assert dead is not None
    assert (dead.exit_code, dead.held) == (4, "1 TCS")
    assert f"DIED (process {GONE_PID} is gone) with 1 TCS open" in dead.sentence
    assert " run --config " in dead.take_up
    assert dead.take_up.endswith("--date 2024-01-15")


@pytest.mark.parametrize(
    ("changes", "code", "held"),
    [
        ({"positions": []}, 1, ""),
        ({"positions": [], "live_orders": 1}, 4, "1 live order"),
        ({"live_orders": 2}, 4, "1 TCS, 2 live orders"),
    ],
)
def test_dead_engine_exit_code_follows_what_it_held(
    changes: dict[str, Any], code: int, held: str, settings_with: Load, paths: Paths
) -> None:
    dead = seen(settings_with(), died(paths, **changes))
    assert dead is not None
    assert (dead.exit_code, dead.held) == (code, held)


def test_dead_engine_of_synthetic_or_other_data_is_taken_up_on_them(settings_with: Load, paths: Paths) -> None:
    synthetic = seen(settings_with(), died(paths, run_id="2024-01-16-crash-1", source="synthetic crash"))
    other = seen(settings_with(), died(paths, source="mine.csv"))
    assert synthetic is not None
    assert other is not None
    assert synthetic.take_up.endswith("--date 2024-01-16 --scenario crash")
    assert other.take_up.endswith("--data mine.csv")


def test_dead_engine_is_taken_up_on_the_whole_path_of_its_data(settings_with: Load, paths: Paths) -> None:
    settings = settings_with()
    elsewhere = seen(settings, died(paths, source="bars (50 files)", data="/somewhere/else/bars"))
    configured = seen(settings, died(paths, source="tcs.csv", data=str(settings.feed.path)))
    assert elsewhere is not None
    assert configured is not None
    assert elsewhere.take_up.endswith("--data /somewhere/else/bars")
    assert "--data" not in configured.take_up


@pytest.mark.parametrize(
    ("run_state", "changes"),
    [(RunState.BEGUN, {"pid": os.getpid()}), (RunState.BEGUN, {"state": "DONE"}), (RunState.CLOSED, {})],
)
def test_dead_engine_is_none_that_lives_or_whose_run_is_over(
    run_state: RunState, changes: dict[str, Any], settings_with: Load, paths: Paths
) -> None:
    assert seen(settings_with(), died(paths, run_state=run_state, **changes)) is None


def test_stop_of_a_dead_engine_is_not_nothing_to_stop(settings_with: Load, paths: Paths) -> None:
    folder = died(paths)
    with pytest.raises(VeloxError, match=r"DIED .* with 1 TCS open.*Take the run up: .*run ") as caught:
        request_stop(settings_with(), paths, by="me", reason="enough", wait_seconds=0.0)
    assert caught.value.exit_code == 4
    assert "nothing to stop" not in str(caught.value)
    assert not (folder / "control").exists()


def test_stop_beside_engines_of_two_dates_stops_none_until_one_is_named(settings_with: Load, paths: Paths) -> None:
    alive = {"pid": os.getpid(), "wall_ms": 1 << 50}
    first = died(paths, trading_date="2024-01-15", **alive)
    second = died(paths, run_id="2024-01-16-1", trading_date="2024-01-16", **alive)
    with pytest.raises(VeloxError, match="2024-01-15-1, 2024-01-16-1 run; nothing was stopped"):
        request_stop(settings_with(), paths, by="me", reason="enough", wait_seconds=0.0)
    assert not (first / "control").exists()
    named = request_stop(settings_with(), paths, by="me", reason="enough", run_id="2024-01-15-1", wait_seconds=0.0)
    assert named.run == "2024-01-15-1"
    dated = request_stop(settings_with(), paths, by="me", reason="enough", on=date(2024, 1, 16), wait_seconds=0.0)
    assert dated.run == "2024-01-16-1"
    assert [len(list((folder / "control").iterdir())) for folder in (first, second)] == [1, 1]


def test_stop_that_a_hung_engine_does_not_heed_names_the_take_over(settings_with: Load, paths: Paths) -> None:
    died(paths, pid=os.getpid(), wall_ms=1 << 50)
    outcome = request_stop(settings_with(), paths, by="me", reason="enough", wait_seconds=0.01)
    assert outcome.exit_code == 1
    assert "--date 2024-01-15 --take-over --reason 'it hangs' --by NAME" in outcome.sentence


@pytest.mark.parametrize(("silent_seconds", "stale"), [(5, False), (60, True)])
def test_status_of_an_engine_that_is_silent_for_long_is_stale(
    silent_seconds: int, stale: bool, settings_with: Load, paths: Paths
) -> None:
    folder = died(paths, wall_ms=time.time_ns() // 1_000_000 - silent_seconds * 1_000)
    status = read_status(folder)
    assert status is not None
    assert is_stale(settings_with(), status) is stale
