"""Market open pauses for a person on a real Prefect server, and goes on, or not, by what was answered."""

from __future__ import annotations

import asyncio
import json
import os
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from prefect import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.sorting import FlowRunSort

from flows.intraday import intraday
from flows.market_open import market_open
from flows.trading_day import trading_day
from tests.flows.test_flows import engine_of
from velox_core.domain.errors import EXIT_CHECKLIST_FAILED, HaltedError
from velox_core.operations import approval
from velox_core.operations.account_journal import account_scope, open_reader
from velox_core.operations.day import Day, DayRequest, open_day
from velox_core.operations.market_open import NotApproved

pytestmark = [pytest.mark.slow, pytest.mark.anyio]
DATE = "2024-01-15"
ASKS = "\n  checklist: {approval: {required: true, minutes: 60}}\n"


@pytest.fixture
def day(config: Path, var: Path) -> Day:
    config.write_text(config.read_text(encoding="utf-8") + ASKS, encoding="utf-8")
    return open_day(DayRequest(config=config, date=date(2024, 1, 15)), os.environ)


async def paused_run(day: Day) -> Any:
    """Wait for the newest flow run of this test's configuration to be paused; another test may have left one that is."""
    paused = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.PAUSED])))
    newest = FlowRunSort.EXPECTED_START_TIME_DESC
    async with get_client() as client:
        for _ in range(800):
            for run in await client.read_flow_runs(flow_run_filter=paused, sort=newest, limit=200):
                if run.parameters["config"] == str(day.settings.source) and run.state.state_details.run_input_keyset:
                    return run
            await asyncio.sleep(0.3)
    raise AssertionError("no run was paused")


async def form_of(run: Any) -> tuple[dict[str, Any], str]:
    """What the UI shows: the form's schema, and the text above it."""
    keyset = run.state.state_details.run_input_keyset
    async with get_client() as client:
        for _ in range(800):
            found = {given.key: given.value for given in await client.filter_flow_run_input(run.id, "paused-", 10, set())}
            if keyset["description"] in found:
                return json.loads(found[keyset["schema"]]), json.loads(found[keyset["description"]])
            await asyncio.sleep(0.3)
    raise AssertionError("the paused run has no form")


async def answer(run: Any, **fields: str) -> Any:
    async with get_client() as client:
        return await client.resume_flow_run(run.id, run_input=fields)


def day_pass(day: Day) -> Any:
    with open_reader(day.settings, day.paths) as reader:
        return reader.day_pass(account_scope(day.settings).key, day.trading_date)


async def test_market_open_pauses_with_a_form_and_a_yes_arms_the_day_in_that_name(day: Day) -> None:
    running = asyncio.create_task(market_open(config=str(day.settings.source), date=DATE))
    run = await paused_run(day)
    with pytest.raises(HaltedError, match="nobody approved it"):
        await intraday(config=str(day.settings.source), date=DATE)  # meanwhile nothing is armed
    schema, text = await form_of(run)
    fields = schema["properties"]
    assert fields["decision"]["enum"] == ["no", "yes"]
    assert all(fields[name]["description"] for name in ("decision", "name", "note"))
    assert set(schema["required"]) == {"decision", "name"}
    assert "May 2024-01-15 be traded?" in text
    assert "**InfluxDB" in text  # what the checklist warned of
    refused = await answer(run, decision="perhaps", name="Asha")
    assert refused.status.value == "REJECT"
    assert (await answer(run, decision="yes", name="Asha", note="small size today")).status.value == "ACCEPT"
    assert await running == DATE
    found = day_pass(day)
    assert (found.approved_by, found.approval_note) == ("Asha", "small size today")
    assert found.config_hash == day.settings.config_hash


async def test_no_ends_the_whole_day_unarmed_in_a_named_state_that_says_who_and_what_to_do(day: Day) -> None:
    running = asyncio.create_task(trading_day(config=str(day.settings.source), date=DATE, speed=0.0))
    run = await paused_run(day)
    await form_of(run)
    await answer(run, decision="no", name="Ravi", note="the feed looks odd")
    with pytest.raises(NotApproved, match=r"Ravi said no \(the feed looks odd\).*run market_open again") as caught:
        await running
    assert caught.value.exit_code == EXIT_CHECKLIST_FAILED
    async with get_client() as client:
        ended = await client.read_flow_run(run.id)
    assert (ended.state.name, ended.state.type.value) == ("NotApproved", "FAILED")
    assert "Ravi said no" in ended.state.message
    assert day_pass(day).approved_by is None
    assert engine_of(day.paths.var) is None


async def test_no_answer_in_time_is_a_no(day: Day, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.approval.SECONDS_PER_MINUTE", 0.025)
    state = await market_open(config=str(day.settings.source), date=DATE, return_state=True)
    assert (state.name, state.type.value) == ("NotApproved", "FAILED")
    assert "nobody approved it within 60 minutes" in state.message
    assert approval.standing_approval(day.settings, day.paths, day.trading_date) is None
    assert day_pass(day).config_hash == ""


async def test_yes_of_the_command_line_lets_a_paused_run_go_on(day: Day) -> None:
    running = asyncio.create_task(market_open(config=str(day.settings.source), date=DATE))
    await form_of(await paused_run(day))
    approval.record_answer(day.settings, day.paths, day.trading_date, approved=True, by="Asha", note="by telephone")
    assert await running == DATE
    assert (day_pass(day).approved_by, day_pass(day).approval_note) == ("Asha", "by telephone")
