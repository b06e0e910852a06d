"""Two `velox run` at the same moment choose the same number: one trades it, the other starts nothing, whenever it comes."""

from __future__ import annotations

import os
from contextlib import ExitStack
from datetime import date
from pathlib import Path

import pytest

from tests.fakes.outside import FakeAlerts
from velox_core.domain.errors import VeloxError
from velox_core.domain.scope import Scope
from velox_core.engine_lock import ENGINE_LOCK, EngineLock, LockView
from velox_core.journal.run import RunIdentity
from velox_core.run_stores import open_stores
from velox_core.runs import RunFolder, RunState, choose_run, write_state
from velox_core.settings import Paths, Settings, load_settings

ROOT = Path(__file__).resolve().parents[2]
ACCOUNT = Scope(broker_type="simulated", account="primary")


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(var=tmp_path / "var", logs=tmp_path / "logs")


@pytest.fixture
def settings() -> Settings:
    return load_settings(ROOT / "config" / "system_simulated.yaml", {})


def trade(settings: Settings, paths: Paths, run: RunFolder) -> None:
    identity = RunIdentity(
        scope_key=run.scope.key, trading_date=date(2024, 1, 15), run_id=run.run_id, config_hash=settings.config_hash
    )
    with ExitStack() as stack:
        open_stores(settings, paths, run, identity, stack, FakeAlerts())


@pytest.mark.parametrize("ends", [RunState.BEGUN, RunState.ENDED, RunState.ENDED_HALTED, RunState.CLOSED])
def test_run_that_another_process_traded_since_it_was_chosen_is_not_traded_again(
    ends: RunState, settings: Settings, paths: Paths
) -> None:
    first, second = (choose_run(paths.var, ACCOUNT, "2024-01-15") for _ in range(2))
    assert (first.run_id, second.run_id, second.state) == ("2024-01-15-1", "2024-01-15-1", RunState.NEW)
    lock = EngineLock(first.folder / ENGINE_LOCK)
    write_state(first.folder, RunState.BEGUN)
    with pytest.raises(VeloxError, match=rf"is being traded by process {os.getpid()}"):
        trade(settings, paths, second)
    write_state(first.folder, ends)
    lock.release()
    did = "begun" if ends is RunState.BEGUN else "traded"
    with pytest.raises(VeloxError, match=f"run 2024-01-15-1 was {did} by another process since this one chose it"):
        trade(settings, paths, second)
    assert sorted(path.name for path in second.folder.iterdir()) == ["engine.lock", "run.json"]  # nothing was opened
    assert LockView(second.folder / ENGINE_LOCK).holder() is None
    assert not (paths.var / "redis").exists()


def test_run_whose_engine_died_as_it_began_is_told_as_begun_and_not_as_traded(settings: Settings, paths: Paths) -> None:
    chosen = choose_run(paths.var, ACCOUNT, "2024-01-15")
    chosen.folder.mkdir(parents=True, exist_ok=True)
    (chosen.folder / "journal.db").touch()  # its state was never written
    with pytest.raises(VeloxError, match="run 2024-01-15-1 was begun by another process since this one chose it"):
        trade(settings, paths, chosen)


def test_run_that_is_taken_up_was_not_ended_meanwhile(settings: Settings, paths: Paths) -> None:
    write_state(paths.var / "replay" / "primary" / "2024-01-15-1", RunState.BEGUN)
    chosen = choose_run(paths.var, ACCOUNT, "2024-01-15")
    assert (chosen.run_id, chosen.state) == ("2024-01-15-1", RunState.BEGUN)
    write_state(chosen.folder, RunState.ENDED)
    with pytest.raises(VeloxError, match="was traded by another process"):
        trade(settings, paths, chosen)
