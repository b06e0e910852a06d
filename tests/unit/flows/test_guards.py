"""What ends a run at once: a table of named states. No server is needed for any of them."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prefect.client.schemas.objects import State, StateType
from prefect.states import Cancelled, Cancelling, Completed

from flows import guards
from flows.guards import already_running, judge, reason_not_to_trade
from tasks.own_state import means_cancel
from velox_core.domain.errors import HaltedError
from velox_core.domain.time import IST
from velox_core.operations.day import Day, DayRequest, open_day
from velox_core.operations.day_engine import DayEngine, Stage

DUE = datetime(2024, 1, 15, 9, 15, tzinfo=IST)
SATURDAY_SESSION = date(2024, 1, 20)
ROOT = Path(__file__).resolve().parents[3]
RUN = Path("var/replay/primary/2024-01-15-1")


CONFIG = ROOT / "config" / "system_simulated.yaml"


@pytest.fixture
def day() -> Day:
    return open_day(DayRequest(config=CONFIG), {})


def named(state: State[Any] | None) -> str:
    return "" if state is None else f"{state.type.value} {state.name}"


@pytest.mark.parametrize(
    ("due", "session", "expected"),
    [
        (DUE, "any", ""),
        (DUE, "ordinary", ""),
        (DUE, "special", "COMPLETED NoSpecialSession"),
        (datetime(2024, 1, 20, 9, 15, tzinfo=IST), "ordinary", "COMPLETED SpecialSession"),
        (datetime(2024, 1, 20, 9, 15, tzinfo=IST), "special", ""),
        (datetime(2024, 1, 26, 9, 15, tzinfo=IST), "ordinary", "COMPLETED Holiday"),
        (datetime(2024, 1, 26, 9, 15, tzinfo=IST), "special", "COMPLETED Holiday"),
        (datetime(2024, 1, 27, 9, 15, tzinfo=IST), "special", "COMPLETED Holiday"),
        (datetime(2024, 1, 27, 9, 15, tzinfo=IST), "any", ""),  # a replay by hand, on a Saturday
        (datetime(2024, 11, 1, 9, 10, tzinfo=IST), "ordinary", "COMPLETED SpecialSession"),  # Muhurat trading, a Friday
        (datetime(2024, 11, 1, 9, 10, tzinfo=IST), "special", ""),
        (datetime(2024, 1, 20, 0, 10, tzinfo=IST).astimezone(UTC), "special", ""),  # the day before in UTC
    ],
)
def test_the_calendar_decides_which_schedule_runs_a_day(due: datetime, session: Any, expected: str, day: Day) -> None:
    assert named(judge(day, "intraday", session, scheduled=due, now=due)) == expected


def test_a_date_that_was_asked_for_is_judged_and_not_the_schedules() -> None:
    special = open_day(DayRequest(config=CONFIG, date=SATURDAY_SESSION), {})
    assert named(judge(special, "intraday", "special", scheduled=DUE, now=DUE)) == ""
    assert named(judge(special, "intraday", "ordinary", scheduled=DUE, now=DUE)) == "COMPLETED SpecialSession"
    holiday = open_day(DayRequest(config=CONFIG, date=date(2024, 1, 26)), {})
    state = judge(holiday, "intraday", "any", scheduled=None, now=DUE)
    assert named(state) == "COMPLETED Holiday"
    assert state is not None
    assert "Republic Day" in str(state.message)


@pytest.mark.parametrize("flow", ["market_open", "intraday", "end_of_day"])
def test_a_run_that_is_late_does_nothing_and_one_at_the_bound_still_runs(flow: str, day: Day) -> None:
    allowed = timedelta(minutes=getattr(day.settings.market.lateness_minutes, flow))
    assert judge(day, flow, "any", scheduled=DUE, now=DUE + allowed) is None
    late = judge(day, flow, "any", scheduled=DUE, now=DUE + allowed + timedelta(milliseconds=1))
    assert named(late) == "CANCELLED TooLate"
    assert late is not None
    for part in ("due at 2024-01-15 09:15 India time", f"market.lateness_minutes.{flow}", "by hand"):
        assert part in str(late.message)


def test_a_live_day_ends_with_its_session_and_a_replay_never_does(day: Day) -> None:
    live = replace(day, wall_clock=True)
    close = datetime(2024, 1, 15, 15, 30, tzinfo=IST)
    assert judge(live, "intraday", "any", scheduled=None, now=close - timedelta(seconds=1)) is None
    over = judge(live, "intraday", "any", scheduled=None, now=close)
    assert named(over) == "CANCELLED SessionOver"
    assert over is not None
    assert "velox flatten" in str(over.message)
    assert judge(live, "end_of_day", "any", scheduled=None, now=close) is None
    assert judge(day, "intraday", "any", scheduled=None, now=close) is None


def found(stage: Stage) -> DayEngine:
    return DayEngine(stage=stage, text="the engine of run 2024-01-15-1 (process 7) ended FLAT", folder=RUN)


@pytest.mark.parametrize(
    ("stage", "no_pass", "again", "expected"),
    [
        (Stage.NONE, "", False, ""),
        (Stage.NONE, "no day pass", False, "FAILED NoDayPass"),
        (Stage.SPEAKS, "no day pass", False, ""),  # nothing is started
        (Stage.UNFINISHED, "no day pass", False, ""),  # what is open must be closed: it makes no entry
        (Stage.ENDED, "", False, "COMPLETED AlreadyEnded"),
        (Stage.ENDED, "", True, ""),
        (Stage.ENDED, "no day pass", True, "FAILED NoDayPass"),
        (Stage.HALTED, "", True, "FAILED Halted"),
    ],
)
def test_what_there_is_of_an_engine_decides(stage: Stage, no_pass: str, again: bool, expected: str, day: Day) -> None:
    state = reason_not_to_trade(day, found(stage), no_pass, earlier="the flow run 'a' was killed", again=again)
    assert named(state) == expected
    if expected.endswith(("AlreadyEnded", "Halted")):
        assert state is not None
        assert "process 7" in str(state.message)
        assert "the flow run 'a' was killed" in str(state.message)


def test_a_live_day_is_never_traded_again(day: Day) -> None:
    live = replace(day, wall_clock=True)
    assert named(reason_not_to_trade(live, found(Stage.ENDED), "", earlier="", again=True)) == "COMPLETED AlreadyEnded"


async def failure(state: State[Any]) -> Any:
    return await state.aresult()


def test_a_failed_guard_raises_its_error_with_its_exit_code_and_a_harmless_one_nothing(day: Day) -> None:
    refused = reason_not_to_trade(day, found(Stage.NONE), "no day pass", earlier="", again=False)
    assert refused is not None
    with pytest.raises(HaltedError, match="no day pass"):
        asyncio.run(failure(refused))
    assert named(already_running(day, "by 'a'")) == "COMPLETED AlreadyRunning"


def test_every_named_state_is_in_the_table_of_the_runbook() -> None:
    text = (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")
    names = [value for name, value in vars(guards).items() if name.isupper() and isinstance(value, str) and name != "IST"]
    assert len(names) == 10
    assert [name for name in names if f"`{name}`" not in text] == []


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (Cancelling(), True),
        (Cancelled(message="by a person"), True),
        (Cancelling(message="Runner is shutting down."), False),
        (Completed(), False),
        (State(type=StateType.RUNNING), False),
        (None, False),
    ],
)
def test_only_a_persons_cancel_is_one(state: State[Any] | None, expected: bool) -> None:
    assert means_cancel(state) is expected
