from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from velox_core.domain.errors import NotFlatError, VeloxError
from velox_core.domain.halts import HaltKind, HaltRecord
from velox_core.engine_lock import ENGINE_LOCK, EngineLock, ProcessLock, own_holder
from velox_core.halt_file import HALT_FILE, JsonLinesHaltFile
from velox_core.operations.day import Day, DayRequest, open_day
from velox_core.operations.day_engine import Stage, how_it_ended, look, own_end, watch_lines
from velox_core.operations.engine_end import LastWord, read_end
from velox_core.operations.engine_process import EngineDied, EngineOutcome, EngineProcess, engine_failure
from velox_core.operations.watch import WatchEnd, start_lock, take_watch
from velox_core.ports import LockHolder
from velox_core.runs import RunState, write_state
from velox_core.settings import Settings

Load = Callable[..., Settings]
GONE = LockHolder(host=own_holder().host, pid=999_999_999, started="boot:1")


@pytest.fixture
def day(settings_with: Load, tmp_path: Path) -> Day:
    request = DayRequest(config=settings_with().source, date=date(2024, 1, 15))
    return open_day(request, {"VELOX__VAR": str(tmp_path / "var")})


@pytest.fixture
def folder(day: Day) -> Path:
    return day.paths.var / "replay" / "primary" / "2024-01-15-1"


def say(folder: Path, holder: LockHolder, state: str = "RUNNING", **more: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    body = {"state": state, "pid": holder.pid, "started": holder.started, "run_id": folder.name, "wall_ms": 1_705_300_000_000}
    (folder / "status.json").write_text(json.dumps({**body, **more}))


def end(folder: Path, holder: LockHolder, exit_code: int = 0, *, flat: bool = True) -> None:
    body = {"run_id": folder.name, "flat": flat, "halted": False, "stopped": "", "fault": "", "message": ""}
    who = {"pid": holder.pid, "started": holder.started, "host": holder.host}
    (folder / "end.json").write_text(json.dumps({**body, **who, "exit_code": exit_code, "wall_ms": 1_705_312_202_000}))


def test_no_run_and_a_closed_replay_are_none(day: Day, folder: Path) -> None:
    assert look(day).stage is Stage.NONE
    say(folder, GONE, "DONE")
    write_state(folder, RunState.CLOSED)
    assert look(day).stage is Stage.NONE


def test_the_holder_of_the_runs_lock_speaks_only_when_the_status_is_its_own(day: Day, folder: Path) -> None:
    write_state(folder, RunState.BEGUN)
    lock = EngineLock(folder / ENGINE_LOCK)
    assert (look(day).stage, look(day).holder) == (Stage.SILENT, own_holder())
    say(folder, LockHolder(host=GONE.host, pid=os.getpid(), started="an-earlier-boot:1"))
    assert look(day).stage is Stage.SILENT
    say(folder, own_holder())
    found = look(day)
    assert (found.stage, found.folder, found.holder, found.run_id) == (Stage.SPEAKS, folder, own_holder(), "2024-01-15-1")
    lock.release()


def test_an_engine_of_another_host_is_not_attached_to(day: Day, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = EngineLock(folder / ENGINE_LOCK)
    monkeypatch.setattr("socket.gethostname", lambda: "another")
    with pytest.raises(VeloxError, match="an account has one host"):
        look(day)
    lock.release()


def test_an_engine_that_is_being_started_or_writes_its_report_is_silent(day: Day, folder: Path) -> None:
    lock = ProcessLock(start_lock(day.account_folder, day.run_stem))
    assert lock.take()
    assert (look(day).stage, look(day).holder) == (Stage.SILENT, own_holder())
    lock.name(GONE)  # whoever started it died before it could name it
    assert (look(day).stage, look(day).holder) == (Stage.SILENT, None)
    lock.close()
    assert look(day).stage is Stage.NONE
    say(folder, own_holder(), "DONE")
    write_state(folder, RunState.ENDED)
    assert look(day).stage is Stage.SILENT  # its process lives, its lock is given back


@pytest.mark.parametrize(
    ("state", "is_halted", "stage"),
    [
        (RunState.BEGUN, False, Stage.UNFINISHED),
        (RunState.BEGUN, True, Stage.UNFINISHED),  # something may be open: an engine must close it
        (RunState.ENDED_NOT_FLAT, True, Stage.UNFINISHED),
        (RunState.ENDED_HALTED, True, Stage.HALTED),
        (RunState.ENDED_HALTED, False, Stage.UNFINISHED),  # a person cleared it
        (RunState.ENDED, False, Stage.ENDED),
        (RunState.NEW, False, Stage.NONE),
    ],
)
def test_stage_of_a_run_that_nobody_has(state: RunState, is_halted: bool, stage: Stage, day: Day, folder: Path) -> None:
    say(folder, GONE)
    write_state(folder, state)
    if is_halted:
        halt = HaltRecord(
            halt_id="H-1", kind=HaltKind.MANUAL, trading_date=date(2024, 1, 15), reason="enough", by="a person", at_ms=1
        )
        JsonLinesHaltFile(folder / HALT_FILE).append(halt)
    assert look(day).stage is stage


@pytest.mark.parametrize(
    ("state", "on", "stage"),
    [
        (RunState.ENDED, "2024-01-12", Stage.NONE),  # yesterday's end is not today's
        (RunState.CLOSED, "2024-01-12", Stage.NONE),
        (RunState.ENDED, "2024-01-15", Stage.ENDED),
        (RunState.CLOSED, "2024-01-15", Stage.ENDED),
        (RunState.ENDED, "", Stage.ENDED),  # nobody knows which day ended: nothing is started
        (RunState.ENDED_NOT_FLAT, "2024-01-12", Stage.UNFINISHED),
        (RunState.BEGUN, "2024-01-12", Stage.UNFINISHED),
        (RunState.ENDED_HALTED, "2024-01-12", Stage.HALTED),
    ],
)
def test_stage_of_a_live_account_goes_by_the_date_of_what_ended(state: RunState, on: str, stage: Stage, day: Day) -> None:
    live = replace(day, wall_clock=True)
    say(live.account_folder, GONE, "DONE", trading_date=on)
    write_state(live.account_folder, state)
    if state is RunState.ENDED_HALTED:
        halt = HaltRecord(
            halt_id="H-1", kind=HaltKind.MANUAL, trading_date=date(2024, 1, 12), reason="enough", by="a person", at_ms=1
        )
        JsonLinesHaltFile(live.account_folder / HALT_FILE).append(halt)
    assert look(live).stage is stage


def test_how_it_ended_is_the_engines_own_word_and_never_an_earlier_ones(folder: Path) -> None:
    say(folder, GONE, "DONE")
    end(folder, GONE)
    assert how_it_ended(folder) == (
        f"the engine of run 2024-01-15-1 (process {GONE.pid}) ended FLAT with exit code 0 at 2024-01-15 15:20:02"
    )
    later = LockHolder(host=GONE.host, pid=999_999_998, started="boot:2")
    say(folder, later, positions=[{"symbol": "TCS", "quantity": 3}])
    assert own_end(folder) is None
    assert "died without a word, last heard of at 2024-01-15 11:56:40, with 3 TCS open by its last status" in how_it_ended(
        folder
    )
    say(folder, later, "DONE")
    assert "died before its last word" in how_it_ended(folder)
    say(folder, own_holder())
    assert how_it_ended(folder) == ""


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": 1}', '{"exit_code": "0"}'])
def test_an_end_that_is_torn_is_none(content: str, tmp_path: Path) -> None:
    (tmp_path / "end.json").write_text(content)
    assert read_end(tmp_path) is None


def test_last_word_is_written_by_whoever_had_the_run_and_by_nobody_who_was_turned_away(tmp_path: Path) -> None:
    folder = tmp_path / "run"

    def fail(error: BaseException) -> None:
        with pytest.raises(type(error)), LastWord(tmp_path, lambda: [folder]):
            raise error

    folder.mkdir()
    fail(VeloxError("another engine has it"))
    assert read_end(folder) is None
    EngineLock(folder / ENGINE_LOCK).release()
    fail(NotFlatError("3 TCS"))
    first = read_end(folder)
    assert first is not None
    assert (first.exit_code, first.flat, first.message, first.is_of(own_holder())) == (4, False, "3 TCS", True)
    fail(RuntimeError("a bug"))
    second = read_end(folder)
    assert second is not None
    assert (second.exit_code, second.message) == (1, "RuntimeError: a bug")


def test_last_word_of_a_session_that_ended_says_how_and_forgets_what_was_asked_of_the_process(tmp_path: Path) -> None:
    from velox_core.control import process_folder

    folder = tmp_path / "2024-01-15-1"
    folder.mkdir()
    asked = process_folder(tmp_path, own_holder()) / "control"
    asked.mkdir(parents=True)
    word = LastWord(tmp_path, lambda: [])
    word.said(folder, run_id="2024-01-15-1", flat=True, halted=False, stopped="enough", fault="")
    word.write(0)
    said = read_end(folder)
    assert said is not None
    assert (said.exit_code, said.flat, said.stopped, said.run_id) == (0, True, "enough", "2024-01-15-1")
    assert said.text.endswith("(enough)")
    assert not asked.parent.exists()


def test_watch_lines_tell_whose_flow_was_lost_and_how_the_engine_ended_until_somebody_saw_it_through(
    day: Day, folder: Path
) -> None:
    def lines() -> list[str]:
        return watch_lines(day.settings, day.paths, folder)

    say(folder, own_holder())
    assert lines() == []
    watch = take_watch(day.account_folder, day.run_stem, flow_run="intraday a")
    assert watch is not None
    watch.watches_over(own_holder())
    watch.seen(folder.name)
    assert "watches it" in lines()[0]
    watch.end(WatchEnd.CANCELLED)
    watch.close()
    assert ["was cancelled at" in lines()[0], lines()[1]] == [
        True, "the engine works on; the next intraday run attaches to it"
    ]  # fmt: skip
    later = take_watch(day.account_folder, day.run_stem, flow_run="intraday b")
    assert later is not None
    later.close()  # it found the session over, told it, and watched nothing
    say(folder, GONE, "DONE")
    end(folder, GONE)
    (cancelled, ended) = lines()
    assert "'intraday a'" in cancelled
    assert "ended FLAT with exit code 0" in ended
    assert watch_lines(day.settings, day.paths, folder.with_name("2024-01-15-2")) == []  # another run of the date


def attached(day: Day, folder: Path, holder: LockHolder = GONE) -> EngineProcess:
    return EngineProcess(holder, day.settings, day.paths, folder=folder)


def test_outcome_of_an_attached_engine_is_its_own_word_and_without_one_it_died(day: Day, folder: Path) -> None:
    say(folder, GONE)
    engine = attached(day, folder)
    assert engine.has_ended()
    died = engine.outcome()
    assert died.exit_code is None
    assert "died without a word" in died.cause
    assert isinstance(engine_failure(died), EngineDied)
    end(folder, LockHolder(host=GONE.host, pid=GONE.pid, started="an-earlier-boot:1"))
    assert engine.outcome().exit_code is None  # the end of another
    end(folder, GONE, 4, flat=False)
    assert engine.outcome().exit_code == 4
    assert isinstance(engine_failure(engine.outcome()), NotFlatError)
    assert not attached(day, folder, own_holder()).has_ended()
    assert not attached(day, folder, own_holder()).wait(0.0)


def test_engine_failure_carries_the_cause_and_the_exit_code() -> None:
    assert engine_failure(EngineOutcome(exit_code=0)) is None
    assert isinstance(engine_failure(EngineOutcome(exit_code=4, cause="2 TCS")), NotFlatError)
    failed = engine_failure(EngineOutcome(exit_code=2, cause="no bars"))
    assert failed is not None
    assert (failed.exit_code, str(failed)) == (2, "the engine ended with exit code 2: no bars")
    died = engine_failure(EngineOutcome(exit_code=None, cause="signal 9 ended it"))
    assert died is not None
    assert (died.exit_code, isinstance(died, EngineDied)) == (1, True)
