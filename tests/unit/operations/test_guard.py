"""The guard's process: which runs it takes up, what it does when one fails, and what others see of it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.fakes.outside import FakeAlerts
from tests.unit.test_guard_watch import World
from velox_core.control import GUARD_FILE, FileControl, NamedControl
from velox_core.domain.errors import ConfigError, DataError, VeloxError
from velox_core.domain.orders import Side
from velox_core.engine_lock import CloserLockFile
from velox_core.guard import Cause
from velox_core.guard_watch import GuardedAccount
from velox_core.operations.checklist import Verdict, run_item
from velox_core.operations.guard import RUN_AGE_SECONDS_MAX, RUNS_MAX, GuardedRuns, runs_to_guard, watch_account
from velox_core.operations.guard_status import SILENT_SECONDS, GuardState, guard_folder, guard_life
from velox_core.operations.status import Status
from velox_core.runs import RunState, write_state
from velox_core.settings import Paths, Settings

Load = Callable[..., Settings]


def write_run(paths: Paths, run_id: str, *, state: RunState | None = None, age_seconds: float = 0.0, **body: object) -> Path:
    """Leave what an engine leaves: a status, and how far its run is."""
    folder = paths.var / "replay" / "primary" / run_id
    folder.mkdir(parents=True)
    if state is not None:
        write_state(folder, state)
    status = folder / "status.json"
    status.write_text(json.dumps({"run_id": run_id, "state": "RUNNING", "speed": 60.0, **body}))
    written = time.time() - age_seconds
    os.utime(status, (written, written))
    return folder


def found_ids(settings: Settings, paths: Paths) -> list[str]:
    return [status.folder.name for status in runs_to_guard(settings, paths)]


# -- which runs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "speed", "age_seconds", "guarded"),
    [
        (RunState.BEGUN, 60.0, 0.0, True),
        (RunState.BEGUN, 1, 0.0, True),
        (RunState.NEW, 60.0, 0.0, True),
        (RunState.ENDED_NOT_FLAT, 60.0, 0.0, True),
        (RunState.ENDED, 60.0, 0.0, False),
        (RunState.ENDED_HALTED, 60.0, 0.0, False),
        (RunState.CLOSED, 60.0, 0.0, False),
        (RunState.BEGUN, 0.0, 0.0, False),
        (RunState.BEGUN, None, 0.0, False),
        (RunState.BEGUN, "fast", 0.0, False),
        (RunState.BEGUN, 60.0, RUN_AGE_SECONDS_MAX - 60.0, True),
        (RunState.BEGUN, 60.0, RUN_AGE_SECONDS_MAX + 60.0, False),
    ],
)
def test_runs_to_guard_are_paced_open_and_of_this_day(
    state: RunState, speed: object, age_seconds: float, guarded: bool, settings_with: Load, paths: Paths
) -> None:
    write_run(paths, "2024-01-15-1", state=state, age_seconds=age_seconds, speed=speed)
    assert found_ids(settings_with(), paths) == (["2024-01-15-1"] if guarded else [])


def test_runs_to_guard_are_bounded_to_the_newest(settings_with: Load, paths: Paths) -> None:
    for number in range(1, RUNS_MAX + 3):
        write_run(paths, f"2024-01-15-{number}", state=RunState.BEGUN, age_seconds=1_000.0 - number)
    assert found_ids(settings_with(), paths) == [f"2024-01-15-{number}" for number in range(3, RUNS_MAX + 3)]


# -- what it does with them ----------------------------------------------------------------------------------------


class Runs:
    """Runs that come and go, each over a world of fakes."""

    def __init__(self, paths: Paths) -> None:
        self.paths = paths
        self.there: dict[str, Status] = {}
        self.worlds: dict[str, World] = {}
        self.errors: dict[str, VeloxError] = {}
        self.opened: list[str] = []
        self.closed: list[str] = []
        self.alerts = FakeAlerts()
        self.runs = GuardedRuns(lambda: list(self.there.values()), self.open_run, self.alerts)
        self.now = 1_000.0

    def begin(self, run_id: str) -> World:
        folder = self.paths.var / run_id
        self.there[run_id] = Status(folder, {"run_id": run_id})
        self.worlds[run_id] = World()
        return self.worlds[run_id]

    def open_run(self, status: Status, stack: ExitStack) -> GuardedAccount:
        run_id = status.folder.name
        self.opened.append(run_id)
        if run_id in self.errors:
            raise self.errors[run_id]
        stack.callback(self.closed.append, run_id)
        return self.worlds[run_id].account

    def pass_seconds(self, seconds: int) -> None:
        for _ in range(seconds):
            self.now += 1.0
            for world in self.worlds.values():
                world.beat()
            self.runs.step(self.now)


@pytest.fixture
def runs(paths: Paths) -> Iterator[Runs]:
    made = Runs(paths)
    yield made
    made.runs.close()


def test_guarded_runs_are_opened_as_they_begin_and_closed_as_they_end(runs: Runs) -> None:
    runs.pass_seconds(2)
    runs.begin("a")
    runs.pass_seconds(2)
    runs.begin("b")
    runs.pass_seconds(2)
    assert (runs.opened, runs.closed) == (["a", "b"], [])
    del runs.there["a"]
    runs.pass_seconds(2)
    assert runs.closed == ["a"]
    assert [view["run_id"] for view in runs.runs.views(runs.now)] == ["2024-01-15-1"]


def test_guarded_run_that_ends_while_it_is_closed_is_kept_until_that_is_through(runs: Runs) -> None:
    world = runs.begin("a")
    world.broker.foreign("AAA", Side.BUY, 1, 100_00)
    world.unfinished = True
    runs.pass_seconds(2)
    assert runs.runs.closing
    del runs.there["a"]
    runs.pass_seconds(5)
    assert runs.closed == []
    world.flatteners[0].states = [world.flat]
    runs.pass_seconds(2)
    assert runs.closed == ["a"]


def test_guarded_run_that_cannot_be_opened_is_told_once_and_tried_again_while_others_go_on(runs: Runs) -> None:
    runs.errors["a"] = DataError("no bars")
    runs.begin("a")
    runs.begin("b")
    runs.pass_seconds(25)
    assert runs.alerts.titles == ["A run is not guarded"]
    assert runs.opened.count("a") == 3
    blind = [view for view in runs.runs.views(runs.now) if view["state"] == "NOT GUARDED"]
    assert [(view["run_id"], view["faults"]) for view in blind] == [("a", ["no bars"])]
    runs.errors.clear()
    runs.pass_seconds(10)
    assert len(runs.runs.views(runs.now)) == 2
    assert all(view["state"] == "watching" for view in runs.runs.views(runs.now))


def test_guarded_run_whose_guard_fails_is_opened_anew_while_others_go_on(runs: Runs) -> None:
    broken, sound = runs.begin("a"), runs.begin("b")
    runs.pass_seconds(2)
    broken.feed.quotes = None  # type: ignore[assignment]
    broken.broker.foreign("AAA", Side.BUY, 1, 100_00)
    looks = len(sound.broker.reads)
    runs.pass_seconds(5)
    assert runs.alerts.titles == ["A run is not guarded"]
    assert runs.closed == ["a"]
    assert len(sound.broker.reads) > looks
    broken.feed.quotes = {"AAA": 100_00}
    runs.pass_seconds(10)
    assert runs.opened == ["a", "b", "a"]


# -- one guard, and what others see of it --------------------------------------------------------------------------


def hold_lock(settings: Settings, paths: Paths) -> CloserLockFile:
    lock = CloserLockFile(guard_folder(settings, paths) / "guard.lock")
    lock.take()
    return lock


def test_second_guard_of_an_account_is_refused_and_names_the_first(settings_with: Load, paths: Paths) -> None:
    settings = settings_with()
    lock = hold_lock(settings, paths)
    with pytest.raises(VeloxError, match=f"guarded by process {os.getpid()} already"):
        watch_account(settings, paths, FakeAlerts())
    lock.close()


def test_guard_that_is_switched_off_is_not_started(settings_with: Load, paths: Paths) -> None:
    with pytest.raises(ConfigError, match=r"system\.guard\.enabled is false"):
        watch_account(settings_with(extra="  guard: {enabled: false}\n"), paths, FakeAlerts())
    assert not paths.var.exists()


def test_guard_life_is_what_lock_and_file_say(settings_with: Load, paths: Paths) -> None:
    settings = settings_with()
    assert guard_life(settings, paths).state is GuardState.ABSENT
    folder = guard_folder(settings, paths)
    NamedControl(FileControl(folder, status_file=GUARD_FILE), {}).publish({"watching": ["2024-01-15-1"]})
    gone = guard_life(settings, paths)
    assert (gone.state, gone.pid) == (GuardState.ABSENT, 0)
    assert "Start it: " in gone.sentence
    lock = hold_lock(settings, paths)
    alive = guard_life(settings, paths)
    assert (alive.state, alive.pid, alive.watching) == (GuardState.RUNNING, os.getpid(), ("2024-01-15-1",))
    body = json.loads((folder / GUARD_FILE).read_text())
    (folder / GUARD_FILE).write_text(json.dumps({**body, "wall_ms": body["wall_ms"] - int(SILENT_SECONDS * 1_000) - 1_000}))
    assert guard_life(settings, paths).state is GuardState.SILENT
    assert guard_life(settings_with(extra="  guard: {enabled: false}\n"), paths).state is GuardState.OFF
    lock.close()


def test_checklist_guard_item_warns_on_a_laptop_and_passes_beside_a_guard(settings_with: Load, paths: Paths) -> None:
    settings = settings_with()
    absent = run_item("guard", settings, paths)
    assert (absent.verdict, absent.measured.split(".")[0]) == (Verdict.WARNED, "ABSENT")
    assert "velox guard" in absent.advice
    refusing = settings_with(extra="  checklist: {severities: {guard: refuse}}\n")
    assert run_item("guard", refusing, paths).verdict is Verdict.FAILED
    lock = hold_lock(settings, paths)
    NamedControl(FileControl(guard_folder(settings, paths), status_file=GUARD_FILE), {}).publish({"watching": []})
    assert run_item("guard", refusing, paths).verdict is Verdict.PASSED
    lock.close()
    off = run_item("guard", settings_with(extra="  guard: {enabled: false}\n"), paths)
    assert (off.verdict, "switched off" in off.measured) == (Verdict.WARNED, True)


def test_guard_that_fails_again_and_again_keeps_the_age_of_the_heartbeats(runs: Runs) -> None:
    world = runs.begin("a")
    world.broker.foreign("AAA", Side.BUY, 1, 100_00)
    runs.pass_seconds(5)
    quotes = world.feed.quotes
    for second in range(60):  # the engine is dead from here on; each guard lives for a few seconds only
        world.feed.quotes = quotes if second % 12 else None  # type: ignore[assignment]
        runs.now += 1.0
        runs.runs.step(runs.now)
    assert len(runs.opened) > 2
    assert {verdict.cause for verdict in world.verdicts} == {Cause.SILENT_ENGINE}
