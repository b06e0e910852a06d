"""The end of a day: what is done is not done again, what fails stops only what needs it, and nobody runs it twice at once."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from tests.fakes.journals import RUN, write_journal
from velox_core.domain.errors import NotFlatError, VeloxError
from velox_core.domain.scope import Scope
from velox_core.engine_lock import ENGINE_LOCK, CloserLockFile, EngineLock
from velox_core.journal.run import RunIdentity
from velox_core.operations.backup_places import verify_backups
from velox_core.operations.dates import market_calendar
from velox_core.operations.day import Day, DayRequest
from velox_core.operations.eod_record import RECORD_FILE, EodRecord, StepResult, StepState, done_steps
from velox_core.operations.eod_steps import STEP_NAMES, STEPS, Evening, Step, Told
from velox_core.operations.evening import EOD_LOCK, EveningOutcome, open_evening, outcome, run_step
from velox_core.operations.json_file import read_json, write_json
from velox_core.operations.recorded import RecordedRun
from velox_core.operations.session_report import page_path
from velox_core.operations.session_story import Story
from velox_core.operations.status import STATUS_FILE
from velox_core.runs import RunState, run_folder, write_state
from velox_core.settings import Paths, Settings

Load = Callable[..., Settings]
DAY = date(2024, 1, 15)
OPEN_MS, CLOSE_MS = 1_705_290_300_000, 1_705_312_800_000
ALL_DONE = dict.fromkeys(STEP_NAMES, "DONE")


@pytest.fixture
def recorded(paths: Paths) -> RecordedRun:
    run = run_folder(paths.var, Scope(broker_type="simulated", account="primary"), "2024-01-15-1")
    write_state(run.folder, RunState.ENDED)
    says(run.folder, wall_ms=1_000)
    return RecordedRun(run=run, trading_date=DAY)


def says(folder: Path, *, wall_ms: int) -> None:
    write_json(folder / STATUS_FILE, {"state": "DONE", "pid": 77, "wall_ms": wall_ms, "trading_date": "2024-01-15"})


@pytest.fixture
def day(settings_with: Load, paths: Paths) -> Day:
    return Day(
        request=DayRequest(date=DAY),
        settings=settings_with(),
        paths=paths,
        trading_date=DAY,
        closed_reason="",
        wall_clock=False,
    )


class Steps:
    """The real steps with acts of the test's own: each counts, fails or breaks off as it is told."""

    def __init__(self) -> None:
        self.counts = dict.fromkeys(STEP_NAMES, 0)
        self.does: dict[str, Callable[[], Told]] = {}
        self.steps = [replace(step, act=self._act(step)) for step in STEPS]

    def _act(self, step: Step) -> Callable[[Evening], Told]:
        def act(work: Evening) -> Told:
            told = self.does.get(step.name, lambda: Told(text="done", data={"flat": True} if step.name == "flat" else {}))()
            self.counts[step.name] += 1
            return step.act(work) if step.name == "alert" and told.state is StepState.DONE else told

        return act

    def run(self, day: Day, recorded: RecordedRun, *, again: bool = False) -> EveningOutcome:
        with open_evening(day, recorded, again=again) as work:
            for step in self.steps:
                run_step(work, step)
            return outcome(work)


@pytest.fixture
def steps() -> Steps:
    return Steps()


def states(done: EveningOutcome) -> dict[str, str]:
    return {result.step: result.state.value for result in done.results}


def failing(error: BaseException) -> Callable[[], Told]:
    def fail() -> Told:
        raise error

    return fail


def test_end_of_day_does_each_step_once_and_a_second_one_nothing(day: Day, recorded: RecordedRun, steps: Steps) -> None:
    first = steps.run(day, recorded)
    assert (states(first), first.exit_code, first.failure) == (ALL_DONE, 0, None)
    second = steps.run(day, recorded)
    assert (states(second), second.exit_code) == (dict.fromkeys(STEP_NAMES, "ALREADY_DONE"), 0)
    assert steps.counts == dict.fromkeys(STEP_NAMES, 1)
    assert states(steps.run(day, recorded, again=True)) == ALL_DONE
    assert steps.counts == dict.fromkeys(STEP_NAMES, 2)


@pytest.mark.parametrize("name", STEP_NAMES)
def test_end_of_day_that_is_killed_in_a_step_does_the_rest_exactly_once(
    name: str, day: Day, recorded: RecordedRun, steps: Steps
) -> None:
    steps.does[name] = failing(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        steps.run(day, recorded)
    before = STEP_NAMES[: STEP_NAMES.index(name)]
    assert steps.counts == {step: int(step in before) for step in STEP_NAMES}
    steps.does.clear()
    done = steps.run(day, recorded)
    assert states(done) == {step: "ALREADY_DONE" if step in before else "DONE" for step in STEP_NAMES}
    assert steps.counts == dict.fromkeys(STEP_NAMES, 1)


@pytest.mark.parametrize(
    ("name", "stopped"),
    [
        ("reconcile", {"reset": "REFUSED"}),
        ("summary", {"report": "BLOCKED"}),
        ("reset", {}),
        ("archive", {"retention": "BLOCKED"}),
        ("retention", {}),
    ],
)
def test_step_that_fails_stops_what_needs_it_and_nothing_else(
    name: str, stopped: dict[str, str], day: Day, recorded: RecordedRun, steps: Steps
) -> None:
    steps.does[name] = failing(VeloxError("the disk is full. Free some"))
    done = steps.run(day, recorded)
    assert states(done) == ALL_DONE | {name: "FAILED"} | stopped
    assert done.exit_code == 1
    assert "the disk is full. Free some" in str(done.failure)
    told = steps.counts["alert"]
    steps.does.clear()
    mended = steps.run(day, recorded)
    assert mended.exit_code == 0
    assert {step for step, state in states(mended).items() if state == "DONE"} >= {name, *stopped}
    assert steps.counts["archive"] == 1
    assert steps.counts["alert"] == told + 1  # who was told that it failed is told that it is mended


def test_step_that_breaks_is_a_failed_step_and_the_rest_is_done(day: Day, recorded: RecordedRun, steps: Steps) -> None:
    steps.does["archive"] = failing(ZeroDivisionError("oh"))
    done = steps.run(day, recorded)
    assert states(done) == ALL_DONE | {"archive": "FAILED", "retention": "BLOCKED"}
    assert "ZeroDivisionError: oh" in done.sentence


def test_page_or_alert_that_fails_costs_the_day_nothing_and_is_tried_again(
    day: Day, recorded: RecordedRun, steps: Steps
) -> None:
    steps.does["report"] = steps.does["alert"] = failing(VeloxError("no chart today"))
    done = steps.run(day, recorded)
    assert states(done) == ALL_DONE | {"report": "FAILED", "alert": "FAILED"}
    assert (done.exit_code, done.failure) == (0, None)
    steps.does.clear()
    again = steps.run(day, recorded)
    assert (states(again)["report"], states(again)["alert"]) == ("DONE", "DONE")


def test_not_flat_refuses_the_reset_does_the_rest_and_ends_with_four(day: Day, recorded: RecordedRun, steps: Steps) -> None:
    steps.does["flat"] = lambda: Told(text="open are 1 TCS", data={"flat": False}, state=StepState.FAILED)
    done = steps.run(day, recorded)
    assert states(done) == ALL_DONE | {"flat": "FAILED", "reset": "REFUSED"}
    assert done.exit_code == 4
    assert isinstance(done.failure, NotFlatError)
    assert "not before flat" in done.sentence
    assert steps.counts["reset"] == 0
    steps.does.clear()
    closed = steps.run(day, recorded)
    assert closed.exit_code == 0
    assert states(closed)["summary"] == states(closed)["reset"] == states(closed)["report"] == "DONE"
    assert states(closed)["archive"] == "ALREADY_DONE"


def test_reset_that_finds_something_open_ends_with_four(day: Day, recorded: RecordedRun, steps: Steps) -> None:
    steps.does["reset"] = failing(NotFlatError("reset refused: not flat (orders are live)"))
    done = steps.run(day, recorded)
    assert (states(done)["reset"], done.exit_code) == ("REFUSED", 4)


@pytest.mark.parametrize("word", ["engine", "closing"])
def test_run_that_is_traded_on_makes_every_step_due_again(word: str, day: Day, recorded: RecordedRun, steps: Steps) -> None:
    steps.run(day, recorded)
    if word == "engine":
        says(recorded.folder, wall_ms=2_000)
    else:
        body = {"by": "guard", "tool": "guard", "flat": True, "looked": True, "left": [], "wall_ms": 5, "ended_ms": 4}
        body |= {"reason": "", "closed_by": "this process", "halt_id": "", "loss_paise": None, "after": [0, 0], "message": ""}
        body |= {"pid": 0, "after_pid": 0, "after_wall_ms": 0}
        write_json(recorded.folder / "flatten.json", body)
    assert states(steps.run(day, recorded)) == ALL_DONE


@pytest.mark.parametrize("damage", ["", "{", '{"run_id": "2024-01-15-2", "trading_date": "2024-01-15", "steps": {}}', "[]"])
def test_record_that_is_torn_or_anothers_says_that_nothing_is_done(
    damage: str, day: Day, recorded: RecordedRun, steps: Steps
) -> None:
    steps.run(day, recorded)
    (recorded.folder / RECORD_FILE).write_text(damage, encoding="utf-8")
    assert states(steps.run(day, recorded)) == ALL_DONE


def test_record_that_cannot_be_written_fails_the_step_and_says_so(
    day: Day, recorded: RecordedRun, steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: EodRecord, result: object) -> None:
        raise VeloxError("eod.json cannot be written: No space left on device")

    monkeypatch.setattr(EodRecord, "keep", full)
    done = steps.run(day, recorded)
    assert done.exit_code == 4  # what is not on record is not proven
    assert "could not be put on record" in done.sentence
    monkeypatch.undo()
    assert steps.run(day, recorded).exit_code == 0


def test_two_at_once_the_second_says_who_has_it_and_does_nothing(day: Day, recorded: RecordedRun, steps: Steps) -> None:
    with open_evening(day, recorded), pytest.raises(VeloxError, match=r"runs already: process \d+ has it"):
        steps.run(day, recorded)
    assert set(steps.counts.values()) == {0}
    assert steps.run(day, recorded).exit_code == 0


def test_while_an_engine_has_the_run_it_is_refused(day: Day, recorded: RecordedRun, steps: Steps) -> None:
    lock = EngineLock(recorded.folder / ENGINE_LOCK)
    with pytest.raises(VeloxError, match="is being traded by process"):
        steps.run(day, recorded)
    lock.release()
    assert set(steps.counts.values()) == {0}
    assert not (recorded.folder / RECORD_FILE).exists()


@pytest.mark.parametrize(("now_ms", "refused"), [(CLOSE_MS - 1, True), (CLOSE_MS, False), (OPEN_MS - 86_400_000, True)])
def test_live_session_that_is_open_refuses_with_the_time_it_closes(
    now_ms: int, refused: bool, day: Day, recorded: RecordedRun, steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = replace(day, wall_clock=True)
    monkeypatch.setattr("velox_core.operations.evening.time.time_ns", lambda: now_ms * 1_000_000)
    if refused:
        with pytest.raises(VeloxError, match=r"is open until 15:30:00 India time") as caught:
            steps.run(live, recorded)
        assert caught.value.exit_code == 1
        assert set(steps.counts.values()) == {0}
    else:
        assert steps.run(live, recorded).exit_code == 0


def test_record_names_each_step_with_its_words_and_survives_for_those_who_look(
    day: Day, recorded: RecordedRun, steps: Steps
) -> None:
    steps.run(day, recorded)
    body = read_json(recorded.folder / RECORD_FILE)
    assert (body["run_id"], body["trading_date"]) == ("2024-01-15-1", "2024-01-15")
    assert tuple(body["steps"]) == STEP_NAMES
    says(recorded.folder, wall_ms=9)
    assert set(done_steps(recorded.folder)) == set(STEP_NAMES)


def test_what_the_evening_says_is_a_line_of_the_days_own_log(day: Day, recorded: RecordedRun, steps: Steps) -> None:
    steps.run(day, recorded)
    lines = (day.paths.logs / "simulated" / "system.log").read_text(encoding="utf-8").splitlines()
    told = [line for line in lines if "[EOD]" in line]
    assert len(told) == len(STEP_NAMES)
    assert all("[~2024-01-15 15:30:00] [EOD]" in line for line in told)
    assert (day.paths.logs / "backup").is_dir()


def test_steps_need_and_follow_only_what_comes_before_them() -> None:
    seen: set[str] = set()
    for step in STEPS:
        assert {*step.needs, *step.follows} <= seen
        seen.add(step.name)


def test_lock_is_given_back_when_a_step_ends_the_process(day: Day, recorded: RecordedRun, steps: Steps) -> None:
    steps.does["summary"] = failing(SystemExit(1))
    with pytest.raises(SystemExit):
        steps.run(day, recorded)
    account = day.paths.var / "simulated" / "primary"
    lock = CloserLockFile(account / EOD_LOCK)
    with closing(lock):
        assert lock.take().value != "ELSEWHERE"


def test_drawing_that_breaks_costs_the_report_and_nothing_else(
    day: Day, recorded: RecordedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no chart today")

    monkeypatch.setattr("velox_core.operations.session_report.draw", broken)
    monkeypatch.setattr("velox_core.operations.session_report.tell_session", lambda *_: ({}, Story()))
    (step,) = [step for step in STEPS if step.name == "report"]
    with open_evening(day, recorded) as work:
        work.results["summary"] = StepResult(step="summary", state=StepState.DONE, text="", wall_ms=1)
        result = run_step(work, step)
        assert (result.state, work.made, step.is_comfort) == (StepState.FAILED, None, True)
    assert "no chart today" in result.text
    assert not page_path(day.settings, day.paths, recorded).exists()


def test_calendar_is_read_again_when_its_file_was_changed(day: Day, tmp_path: Path) -> None:
    file = tmp_path / "calendar.yaml"
    text = day.settings.calendar_path.read_text(encoding="utf-8")
    file.write_text(text, encoding="utf-8")
    settings = replace(day.settings, calendar_path=file)
    first = market_calendar(settings)
    assert first.session(date(2024, 1, 15)) is not None
    assert market_calendar(settings) is first
    closed = text.replace('"2024-01-26"', '"2024-01-15"').replace("2024-01-26:", "2024-01-15:")
    assert closed != text
    file.write_text(closed + "\n", encoding="utf-8")
    assert market_calendar(settings).session(date(2024, 1, 15)) is None


@pytest.mark.parametrize("then", ["nothing", "journaled on"])
def test_second_end_of_day_brings_the_backup_that_was_made_to_the_place_that_lacked_it(
    then: str, day: Day, settings_with: Load, recorded: RecordedRun, steps: Steps, places_here: None, tmp_path: Path
) -> None:
    in_the_way = tmp_path / "far"
    in_the_way.write_text("no folder")
    day = replace(day, settings=settings_with(f"\n  backup: {{copies: ['{in_the_way}']}}\n"))
    write_journal(recorded.folder / "journal.db")
    steps.steps = [
        next(each for each in STEPS if each.name == "backup") if step.name == "backup" else step for step in steps.steps
    ]
    first = steps.run(day, recorded).results[STEP_NAMES.index("backup")]
    assert first.state is StepState.FAILED
    assert (first.data["name"], first.data["lacking"]) == ("2024-01-15", [f"{in_the_way}/simulated/primary"])
    assert f"NOT in {in_the_way}/simulated/primary: cannot write" in first.text
    near = day.paths.var / "backups" / "simulated" / "primary"
    before = {path: path.stat().st_mtime_ns for path in near.rglob("*")}
    in_the_way.unlink()
    if then == "journaled on":
        write_journal(recorded.folder / "journal.db", run=RunIdentity(scope_key=RUN.scope_key, trading_date=DAY, run_id="x"))
    second = steps.run(day, recorded).results[STEP_NAMES.index("backup")]
    assert (second.state, second.data["lacking"]) == (StepState.DONE, [])
    far = in_the_way / "simulated" / "primary"
    names = ["2024-01-15"] if then == "nothing" else ["2024-01-15-2"]
    assert [path.name for path in far.iterdir()] == [path.name for path in near.iterdir()] == names
    assert ({path: path.stat().st_mtime_ns for path in near.rglob("*")} == before) is (then == "nothing")
    assert [verdict.problems for verdict in verify_backups(day.settings, day.paths)] == [(), ()]
    assert steps.run(day, recorded).results[STEP_NAMES.index("backup")].state is StepState.ALREADY_DONE
