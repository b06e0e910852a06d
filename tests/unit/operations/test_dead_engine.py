"""An engine that was killed with a position: every command says so, names what is open and what takes the run up."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from velox_core.domain.errors import VeloxError
from velox_core.operations.dead_engine import DeadEngine, dead_engine
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
