"""The flows on a real Prefect server, with the real engine as its own process."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prefect import flow, get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterKey,
    FlowRunFilter,
    FlowRunFilterExpectedStartTime,
)
from prefect.client.schemas.sorting import ArtifactSort, FlowRunSort, TaskRunSort
from prefect.states import Cancelling, Failed
from prefect.utilities.engine import propose_state

from flows.end_of_day import end_of_day
from flows.intraday import intraday
from flows.market_open import market_open
from flows.trading_day import trading_day
from tasks.events import flush_events
from tasks.policy import once
from tasks.summary import summary_logger
from tests.fakes.stopped import wait_until_stopped
from velox_core.domain.errors import HaltedError, VeloxError
from velox_core.operations import engine_process, handover
from velox_core.operations.day import DayRequest, open_day, too_late
from velox_core.operations.engine_process import EngineRequest
from velox_core.operations.eod_steps import STEP_NAMES
from velox_core.operations.market_open import ChecklistFailed
from velox_core.operations.processes import is_alive
from velox_core.operations.status import account_folders, newest_status
from velox_core.settings import CHECKLIST_ITEMS

pytestmark = [pytest.mark.slow, pytest.mark.anyio]
DAY = "2024-01-15"
WAIT_TURNS = 2_400  # of 0.1 s: a loaded machine is slow


async def newest_runs(config: Path, count: int = 1) -> list[Any]:
    """The runs of this test's configuration that were to start last; the server has those of other tests, too."""
    due = FlowRunFilter(expected_start_time=FlowRunFilterExpectedStartTime(before_=datetime.now(UTC)))
    async with get_client() as client:
        runs = await client.read_flow_runs(flow_run_filter=due, sort=FlowRunSort.EXPECTED_START_TIME_DESC, limit=200)
    return [run for run in runs if run.parameters.get("config") == str(config)][:count]


async def artifacts(key: str, config: Path) -> list[Any]:
    """The artifacts of a key that runs of this test's configuration made, oldest first."""
    wanted = ArtifactFilter(key=ArtifactFilterKey(any_=[key]))
    own = {run.id for run in await newest_runs(config, 200)}
    async with get_client() as client:
        found = await client.read_artifacts(artifact_filter=wanted, sort=ArtifactSort.CREATED_DESC)
    return [artifact for artifact in reversed(found) if artifact.flow_run_id in own]


async def task_states(flow_run_id: Any) -> dict[str, str]:
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    async with get_client() as client:
        runs = await client.read_task_runs(
            flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id])), sort=TaskRunSort.EXPECTED_START_TIME_ASC
        )
    return {run.name: str(run.state.name) for run in runs}


async def ended_task_states(flow_run_id: Any, *, count: int) -> dict[str, str]:
    """Wait for so many ended task runs: the server records them in batches, once a second, later on a loaded machine."""
    for _ in range(WAIT_TURNS):
        states = await task_states(flow_run_id)
        if len(states) >= count and not {"Pending", "Running"} & set(states.values()):
            return states
        await asyncio.sleep(0.1)
    raise AssertionError(f"task runs did not end: {states}")


def engine_of(var: Path) -> Any:
    return newest_status(account_folders(var, broker_type="simulated", account="primary"))


async def test_market_open_runs_every_item_as_one_task_run_and_arms_the_day(var: Path, config: Path) -> None:
    state = await market_open(config=str(config), date=DAY, return_state=True)
    assert await state.aresult() == DAY
    (run,) = await newest_runs(config)
    assert run.name == "market-open 2024-01-15 simulated"
    states = await ended_task_states(run.id, count=len(CHECKLIST_ITEMS) + 1)
    assert set(CHECKLIST_ITEMS) | {"arm-day"} == set(states)
    assert states["fixed_lot_size"] == "Completed"
    assert states["influxdb"] == "Warned"
    table = json.loads((await artifacts("checklist-simulated-primary", config))[-1].data)
    assert len(table) == 12
    assert engine_of(var) is None


async def test_market_open_with_a_refused_item_shows_all_of_them_and_arms_nothing(var: Path, config: Path) -> None:
    strict = "\n  checklist: {severities: {influxdb: refuse, dashboard: refuse}}\n  dashboard: {port: 9}\n"
    config.write_text(config.read_text(encoding="utf-8") + strict, encoding="utf-8")
    with pytest.raises(ChecklistFailed) as caught:
        await market_open(config=str(config), date=DAY)
    assert "InfluxDB" in str(caught.value)
    assert "Dashboard" in str(caught.value)
    with pytest.raises(HaltedError, match="refused"):
        await intraday(config=str(config), date=DAY)
    assert engine_of(var) is None


async def test_intraday_without_a_day_pass_starts_no_engine(var: Path, config: Path) -> None:
    with pytest.raises(HaltedError, match="no day pass"):
        await intraday(config=str(config), date=DAY)
    assert not (var / "output").exists()
    assert engine_of(var) is None


@pytest.mark.parametrize("flow", [market_open, intraday, end_of_day, trading_day])
async def test_flows_on_a_holiday_end_at_once_in_a_named_state(flow: Any, var: Path, config: Path) -> None:
    state = await flow(config=str(config), date="2024-01-26", return_state=True)
    assert (state.name, state.type.value) == ("Holiday", "COMPLETED")
    assert "Republic Day" in state.message
    assert not (var / "output").exists()


async def test_flows_on_a_year_that_the_calendar_does_not_know_fail_and_say_so(var: Path, config: Path) -> None:
    with pytest.raises(VeloxError, match="2031 is not in the calendar"):
        await trading_day(config=str(config), date="2031-01-06")


async def test_trading_day_has_its_report_although_the_api_had_to_be_asked_twice_how_its_flows_ended(
    var: Path, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def from_the_api(*given: Any, **options: Any) -> Any:
        state = await propose_state(*given, **options)
        return state.model_copy(update={"data": None}) if state.is_completed() else state

    monkeypatch.setattr("prefect.flow_engine.propose_state", from_the_api)
    report = await trading_day(config=str(config), date=DAY, speed=0.0)
    assert (report["flat"], report["trading_date"]) == (True, DAY)
    assert {step["step"]: step["state"] for step in report["steps"]} == dict.fromkeys(STEP_NAMES, "DONE")


async def test_trading_day_runs_the_real_day_flat_with_its_report_and_names(var: Path, config: Path) -> None:
    report = await trading_day(config=str(config), date=DAY, speed=0.0)
    assert report["flat"] is True
    assert (report["trading_date"], report["exit_code"], report["synthetic"]) == (DAY, 0, False)
    assert report["broker_says"] == "the broker says flat"
    assert {step["step"]: step["state"] for step in report["steps"]} == dict.fromkeys(STEP_NAMES, "DONE")
    assert report["net_paise"] == report["realised_paise"] - report["charges_paise"]
    assert report["fill_count"] > 0
    names = {run.name for run in await newest_runs(config, 4)}
    assert names == {f"{flow} 2024-01-15 simulated" for flow in ("trading-day", "market-open", "intraday", "end-of-day")}
    logs = var / "logs" / "simulated"
    assert sorted(path.name for path in logs.iterdir()) == [
        "emergency_exit.log",
        "order_manager.log",
        "risk_manager.log",
        "system.log",
    ]
    markdown = (await artifacts("session-simulated-primary", config))[-1].data
    assert "## Trades" in markdown
    assert "## Slippage" in markdown
    page = Path(report["page"])
    assert page.is_relative_to(var / "reports")
    assert "<svg" in page.read_text(encoding="utf-8")
    assert f"`{page}`" in markdown
    picture = base64.b64decode(markdown.partition("](data:image/svg+xml;base64,")[2].partition(")")[0]).decode()
    assert picture.startswith("<svg")
    assert picture in page.read_text(encoding="utf-8")
    assert not is_alive(engine_of(var).number("pid"))


async def test_trading_day_on_a_crash_halts_closes_and_is_cleared_by_its_end_of_day(
    var: Path, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("no chart today")

    monkeypatch.setattr("velox_core.operations.session_report.make_report", broken)  # costs the page, never the day
    began = datetime.now(UTC)
    report = await trading_day(config=str(config), date="2024-01-16", speed=0.0, scenario="crash")
    assert report["flat"] is True
    assert report["synthetic"] is True
    assert report["page"] == ""
    assert "## Trades" in (await artifacts("session-simulated-primary", config))[-1].data
    assert report["worst_loss_paise"] >= report["loss_limit_paise"]
    assert [(halt["kind"], halt["cleared"]) for halt in report["halts"]] == [("LOSS", True)]
    halt_id = report["halts"][0]["halt_id"]
    assert await asyncio.to_thread(flush_events, 240.0)  # this process lives on; a flow's own does it at its end
    told = json.loads((var / "replay" / "primary" / report["run_id"] / "events.json").read_text(encoding="utf-8"))["told"]
    assert set(told) == {f"breach:{halt_id}", f"flat:{halt_id}", f"halt:{halt_id}", f"ended:{engine_of(var).number('pid')}"}
    of_run: list[Any] = []
    wanted = ["velox.breach", "velox.ended", "velox.flat", "velox.flat", "velox.halt", "velox.reset"]
    async with get_client() as client:
        for _ in range(WAIT_TURNS):
            chosen = {"event": {"prefix": ["velox."]}, "occurred": {"since": began.isoformat()}}
            body = {"filter": chosen, "limit": 50}
            events = (await client.request("POST", "/events/filter", json=body)).json()["events"]
            of_run = [event for event in events if event["payload"].get("run_id") == report["run_id"]]
            names = sorted(event["event"] for event in of_run if event["event"] != "velox.heartbeat")
            if len(names) >= len(wanted):
                break
            await asyncio.sleep(0.1)  # the server stores them in batches
    assert names == wanted
    by_broker = [event["payload"] for event in of_run if event["payload"].get("said_by") == "broker"]
    assert [payload["net_paise"] for payload in by_broker] == [report["net_paise"]]
    block = (var / "logs" / "simulated" / "emergency_exit.log").read_text(encoding="utf-8")
    assert "🚨 EMERGENCY EXIT TRIGGERED 🚨" in block
    assert "Max Daily Loss: -2000.00" in block


async def test_trading_day_on_a_date_without_data_fails_with_the_engines_reason(var: Path, config: Path) -> None:
    with pytest.raises(VeloxError, match="2024-01-17"):
        await trading_day(config=str(config), date="2024-01-17", speed=0.0)


async def test_task_is_handed_what_it_is_given_as_it_is() -> None:
    """Prefect would look through all of it for results of tasks, and refuse to run on a failed one."""
    given = {"day": [Failed(message="no result of a task")]}

    @once("take")
    def take(value: object, *, named: object) -> bool:
        return value is given and named is given

    @flow(name="takes")
    def takes() -> bool:
        return take(given, named=given)

    assert takes()


async def wait_for_engine(var: Path, state: str = "RUNNING") -> Any:
    for _ in range(WAIT_TURNS):
        status = engine_of(var)
        if status is not None and status.state == state:
            return status
        await asyncio.sleep(0.1)
    raise AssertionError(f"the engine did not reach {state}")


async def cancel_by_the_api(flow: str, config: Path) -> None:
    """Cancel the newest run of a flow, as the UI does."""
    async with get_client() as client:
        (run,) = [run for run in await newest_runs(config, 5) if run.name.startswith(flow)][:1]
        await client.set_flow_run_state(run.id, Cancelling())


@pytest.mark.parametrize(("flow", "is_told"), [("intraday", True), ("intraday", False)])
async def test_a_cancel_asks_the_engine_to_stop_and_it_ends_flat(flow: str, is_told: bool, var: Path, config: Path) -> None:
    """Told by Prefect, or found by the run's own look."""
    if flow == "intraday":
        await market_open(config=str(config), date=DAY)
    chosen: Any = {"intraday": intraday, "trading-day": trading_day}[flow]
    running = asyncio.create_task(chosen(config=str(config), date=DAY, speed=60.0, return_state=True))
    status = await wait_for_engine(var)
    await cancel_by_the_api(flow, config)
    if is_told:
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    else:
        assert (await running).type.value == "CANCELLED"
    last = engine_of(var)
    assert last.state == "DONE"
    assert last.positions == []
    assert last.number("pid") == status.number("pid")
    assert last.progress < 1.0
    assert not is_alive(last.number("pid"))


async def test_intraday_whose_process_is_ended_without_a_cancel_leaves_the_engine_and_the_next_run_attaches(
    var: Path, config: Path, caplog: pytest.LogCaptureFixture
) -> None:
    summary_logger().addHandler(caplog.handler)
    await market_open(config=str(config), date=DAY)
    first = asyncio.create_task(intraday(config=str(config), date=DAY, speed=60.0, return_state=True))
    pid = (await wait_for_engine(var)).number("pid")
    second = await intraday(config=str(config), date=DAY, speed=60.0, return_state=True)
    assert (second.name, second.type.value) == ("AlreadyRunning", "COMPLETED")
    assert "intraday 2024-01-15 simulated" in second.message
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert engine_of(var).state == "RUNNING"
    assert is_alive(pid)

    # as another process would: it is not the engine's parent
    child = engine_process._CHILDREN.pop(engine_process.process_holder(pid))
    third = asyncio.create_task(intraday(config=str(config), date=DAY, speed=60.0, return_state=True))
    while "attached to" not in caplog.text and not third.done():
        await asyncio.sleep(0.05)
    os.kill(pid, signal.SIGTERM)
    state = await third
    assert (state.type.value, await state.aresult()) == ("COMPLETED", "2024-01-15-1")
    assert f"attached to the engine of run 2024-01-15-1, process {pid}" in caplog.text
    assert "was ended at" in caplog.text
    summary_logger().removeHandler(caplog.handler)
    assert child.wait(timeout=240) == 0
    assert len(account_folders(var, broker_type="simulated", account="primary")) == 2  # one run, beside the account's own

    late = await intraday(config=str(config), date=DAY, speed=60.0, return_state=True)
    assert (late.name, late.type.value) == ("AlreadyEnded", "COMPLETED")
    assert "ended FLAT with exit code 0" in late.message
    assert engine_of(var).number("pid") == pid


STOPPED_AT_ITS_START = (
    "import os, signal, sys; os.kill(os.getpid(), signal.SIGSTOP); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
)


async def test_intraday_with_a_stop_asked_for_while_the_engine_starts_hands_it_on(
    var: Path, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = EngineRequest.arguments
    monkeypatch.setattr(EngineRequest, "arguments", lambda request: ["-c", STOPPED_AT_ITS_START, *arguments(request)])
    await market_open(config=str(config), date=DAY)
    day = open_day(DayRequest(config=config, date=date(2024, 1, 15)), os.environ)
    running = asyncio.create_task(intraday(config=str(config), date=DAY, speed=60.0, return_state=True))
    try:
        while not (pid := handover.engine_of(day.paths, os.getpid())) and not running.done():
            await asyncio.sleep(0.01)
        await asyncio.to_thread(wait_until_stopped, pid)
        assert engine_of(var) is None  # it starts and cannot be asked yet
        handover.leave_stop(day.paths, os.getpid())
        os.kill(pid, signal.SIGCONT)
        await running
        last = engine_of(var)
        assert (last.state, last.positions) == ("DONE", [])
        assert last.progress < 1.0
        assert not is_alive(last.number("pid"))

        with pytest.raises(VeloxError, match="nothing was traded"):
            await intraday(config=str(config), date=DAY, speed=60.0, again=True)
        assert engine_of(var).number("pid") == last.number("pid")  # no other was started
    finally:
        handover.forget(day.paths, os.getpid())


async def test_engine_is_in_a_session_of_its_own_and_sigterm_stops_it_flat(var: Path, config: Path) -> None:
    await market_open(config=str(config), date=DAY)
    running = asyncio.create_task(intraday(config=str(config), date=DAY, speed=60.0, return_state=True))
    status = await wait_for_engine(var)
    pid = status.number("pid")
    assert os.getsid(pid) == pid
    assert os.getsid(pid) != os.getsid(0)
    os.kill(pid, signal.SIGTERM)
    state = await running
    assert state.type.value == "COMPLETED"
    assert engine_of(var).positions == []


def test_too_late_a_run_past_its_allowance_is_whatever_the_broker_and_one_that_nobody_scheduled_never(
    var: Path, config: Path
) -> None:
    day = open_day(DayRequest(config=config, date=date(2024, 1, 15)), os.environ)
    due = datetime(2024, 1, 15, 3, 45, tzinfo=UTC)
    allowed = timedelta(minutes=day.settings.market.lateness_minutes.intraday)
    assert too_late(day, "intraday", scheduled=due, now=due + allowed) == ""
    said = too_late(day, "intraday", scheduled=due, now=due + allowed + timedelta(seconds=1))
    assert "due at 2024-01-15 09:15 India time, 30 minutes ago; 30 are allowed" in said
    assert "start it by hand" in said.lower()
    assert too_late(day, "intraday", scheduled=None, now=due + timedelta(days=3)) == ""
