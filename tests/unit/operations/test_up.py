"""What keeps `velox down` from ending the guard or Redis, and what a second `velox up` does."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.fakes.outside import FakeAlerts
from tests.fakes.services import FakeService, process
from velox_core.cli.app import app
from velox_core.engine_lock import CloserLockFile, EngineLock, ProcessLock, own_holder
from velox_core.operations.guard_status import guard_folder
from velox_core.operations.json_file import write_json
from velox_core.operations.prefect_home import prefect_home, server_lock
from velox_core.operations.up import (
    RedisService,
    bring_down,
    engines_at_work,
    open_runs,
    services_of,
    services_view,
    supervise,
    work_at_hand,
)
from velox_core.operations.watch import start_lock
from velox_core.runs import RunState, write_state
from velox_core.settings import Paths, Settings

Load = Callable[..., Settings]
GONE_PID = 2**22 + 12345
RUN = "2024-01-15-1"
HELD = [{"symbol": "TCS", "quantity": 5}]


def run_of(paths: Paths, *, run_state: RunState = RunState.BEGUN, name: str = RUN, **changes: Any) -> Path:
    """Leave a run whose paced engine died with 5 TCS."""
    folder = paths.var / "replay" / "primary" / name
    write_state(folder, run_state)
    body = {
        "state": "RUNNING",
        "pid": GONE_PID,
        "run_id": name,
        "wall_ms": time.time_ns() // 1_000_000,
        "positions": HELD,
        "live_orders": 0,
        "speed": 1.0,
    }
    (folder / "status.json").write_text(json.dumps(body | changes))
    return folder


def never() -> None:
    raise AssertionError("nothing settles where nothing is started")


def test_place_of_the_ui_is_shown_only_where_a_server_of_ours_lives(settings_with: Load, paths: Paths) -> None:
    settings = settings_with()
    view = services_view(settings, paths, {})
    assert (view["places"]["ui"], view["places"]["prefect"]) == ("", "")  # another's server may listen at that port
    lock = CloserLockFile(server_lock(paths.var))
    lock.take()
    write_json(prefect_home(paths.var) / "server.json", {"port": 4321, "pid": os.getpid()})
    assert services_view(settings, paths, {})["places"]["ui"] == "http://127.0.0.1:4321"
    lock.close()
    own = settings_with("  prefect: {api_url: http://prefect.example/api}\n")
    assert services_view(own, paths, {})["places"]["ui"] == "http://prefect.example"


@pytest.mark.parametrize(
    ("run_state", "changes", "opened"),
    [
        (RunState.BEGUN, {}, [f"run {RUN} has 5 TCS open"]),
        (RunState.BEGUN, {"positions": [], "live_orders": 1}, [f"run {RUN} has 1 live order open"]),
        (RunState.ENDED_NOT_FLAT, {"state": "DONE"}, [f"run {RUN} has 5 TCS open"]),
        (RunState.BEGUN, {"positions": []}, []),
        (RunState.CLOSED, {"state": "DONE"}, []),
    ],
)
def test_open_runs_are_those_with_something_open_engine_alive_or_not(
    settings_with: Load, paths: Paths, run_state: RunState, changes: dict[str, Any], opened: list[str]
) -> None:
    run_of(paths, run_state=run_state, **changes)
    assert open_runs(settings_with(), paths) == opened
    assert open_runs(settings_with(), paths, frozenset({RUN})) == []


def test_open_runs_name_what_only_a_living_guard_knows(settings_with: Load, paths: Paths) -> None:
    settings = settings_with()
    folder = guard_folder(settings, paths)
    folder.mkdir(parents=True)
    (folder / "guard.json").write_text(json.dumps({"runs": [{"run_id": RUN, "exposed": True}]}))
    assert open_runs(settings, paths) == []
    lock = CloserLockFile(folder / "guard.lock")
    lock.take()
    assert open_runs(settings, paths) == [f"run {RUN} has something, the guard says open"]
    lock.close()


def test_engine_at_work_is_one_that_holds_its_lock_before_it_says_anything(settings_with: Load, paths: Paths) -> None:
    settings = settings_with()
    assert engines_at_work(settings, paths) == []
    lock = EngineLock(paths.var / "replay" / "primary" / RUN / "engine.lock")
    assert engines_at_work(settings, paths) == [f"the engine of run {RUN} runs (process {os.getpid()})"]
    lock.release()


def test_engine_that_a_flow_just_started_is_at_work_before_it_has_a_run_and_not_while_it_writes_its_report(
    settings_with: Load, paths: Paths
) -> None:
    settings = settings_with()
    lock = ProcessLock(start_lock(guard_folder(settings, paths), "2024-01-15"))
    lock.take()
    assert engines_at_work(settings, paths) == [f"an engine of 2024-01-15 is being started (process {os.getpid()})"]
    assert work_at_hand(settings, paths, frozenset({RUN})) == engines_at_work(settings, paths)
    engine = EngineLock(paths.var / "replay" / "primary" / RUN / "engine.lock")
    assert engines_at_work(settings, paths) == [f"the engine of run {RUN} runs (process {os.getpid()})"]
    assert engines_at_work(settings, paths, frozenset({RUN})) == []
    engine.release()
    own = own_holder()
    run_of(paths, run_state=RunState.ENDED, state="DONE", pid=own.pid, started=own.started, positions=[])
    assert engines_at_work(settings, paths) == []
    lock.close()


@pytest.mark.parametrize("place", ["simulated/other/guard.lock", "simulated/other/up.lock", "replay/other/r-1/engine.lock"])
def test_redis_is_needed_by_anybody_below_the_same_var(settings_with: Load, paths: Paths, place: str) -> None:
    service = RedisService(settings_with(), paths)
    assert service.needed_by() == []
    lock = CloserLockFile(paths.var / place)
    lock.take()
    assert [str(os.getpid()) in text for text in service.needed_by()] == [True]
    lock.close()


def test_services_leave_out_what_is_not_wanted_and_say_so(settings_with: Load, paths: Paths) -> None:
    own = "  stores: {redis: {url: 'redis://127.0.0.1:6379/0'}}\n  guard: {enabled: false}\n"
    table, notes = services_of(settings_with(own + "  prefect: {enabled: false}\n"), paths, {})
    assert (table, len(notes)) == ([], 3)
    table, notes = services_of(settings_with(own + "  prefect: {api_url: 'http://host:4200/api'}\n"), paths, {})
    assert ([service.name for service in table], "http://host:4200/api" in notes[2]) == (["prefect-serve"], True)
    every = [service.name for service in services_of(settings_with(), paths, {})[0]]
    assert every == ["redis", "guard", "prefect-server", "prefect-serve"]


def test_second_supervisor_changes_nothing(settings_with: Load, paths: Paths) -> None:
    settings = settings_with()
    lock = CloserLockFile(guard_folder(settings, paths) / "up.lock")
    lock.take()
    told: list[str] = []
    alerts, service = FakeAlerts(), FakeService()
    assert supervise(settings, paths, alerts, [service], tell=told.append, settled=never) is False
    assert (told, alerts.sent, service.started) == ([], [], 0)
    lock.close()


@pytest.mark.parametrize(
    ("asked", "needs", "ended"),
    [
        (signal.SIGINT, [], True),
        (signal.SIGINT, ["run r has 5 TCS open"], False),
        (signal.SIGTERM, [], False),
        (signal.SIGHUP, [], False),
    ],
)
def test_supervisor_ends_what_it_started_on_ctrl_c_alone_and_only_what_nobody_needs(
    settings_with: Load, paths: Paths, asked: signal.Signals, needs: list[str], ended: bool
) -> None:
    settings, service = settings_with(), FakeService()
    service.needs = needs
    told: list[str] = []
    before = signal.getsignal(asked)
    assert supervise(settings, paths, FakeAlerts(), [service], tell=told.append, settled=lambda: os.kill(os.getpid(), asked))
    assert (service.alive, signal.getsignal(asked)) == (None if ended else process(101), before)
    assert ("velox up takes it up again" in told[-1]) is not ended
    row = json.loads((guard_folder(settings, paths) / "up.json").read_text())["services"][0]
    assert (row["pid"], row["ours"]) == (101, True)


@pytest.mark.parametrize(
    ("changes", "locked", "code"),
    [({}, False, 4), ({"pid": os.getpid()}, True, 4), ({"pid": os.getpid(), "positions": []}, True, 1)],
)
def test_down_is_refused_while_something_is_open_or_an_engine_runs(
    settings_with: Load, paths: Paths, changes: dict[str, Any], locked: bool, code: int
) -> None:
    settings = settings_with()
    folder = run_of(paths, **changes)
    lock = EngineLock(folder / "engine.lock") if locked else None
    up_file = guard_folder(settings, paths) / "up.json"
    up_file.parent.mkdir(parents=True)
    up_file.write_text("{}")
    before = sorted(paths.var.rglob("*"))
    result = CliRunner().invoke(app, ["down", "--config", str(settings.source)], env={"VELOX__VAR": str(paths.var)})
    assert (result.exit_code, "nothing was ended" in result.stdout) == (code, True), result.stdout
    assert ("--flatten" in result.stdout.splitlines()[-1]) is (code == 4)
    assert sorted(paths.var.rglob("*")) == before
    if lock is not None:
        lock.release()


def test_down_with_nothing_there_says_so_and_ends_well(settings_with: Load, paths: Paths) -> None:
    told: list[str] = []
    assert bring_down(settings_with(), paths, os.environ, tell=told.append)
    names = ["supervisor", "prefect-serve", "prefect-server", "guard", "redis"]
    assert told == [f"{name}: does not run" for name in names]
