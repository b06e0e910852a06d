"""A person's emergencies on a real Prefect server: the flatten form, and a cancel that takes longer than Prefect waits.

The engine works, hangs or is dead: the broker says flat in the end, and each share was bought once and sold once.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.prefect_account import RUN_ID, PrefectAccount
from tests.fakes.prefect_server import PrefectServer

PREFECT_WAITS_SECONDS = 30.0  # for a cancelled flow, before it kills it

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture
def account(prefect_server: PrefectServer, tmp_path: Path) -> Iterator[Callable[..., PrefectAccount]]:
    """Makes accounts below one folder, for which one process serves the deployments."""
    made: list[PrefectAccount] = []

    def make(name: str, **given: object) -> PrefectAccount:
        made.append(PrefectAccount(prefect_server, tmp_path, account=name, **given))  # type: ignore[arg-type]
        made[-1].arm()
        return made[-1]

    yield make
    for one in made:
        one.end()


def test_flatten_from_the_form_closes_everything_while_the_engine_works_hangs_or_is_dead(
    prefect_server: PrefectServer, account: Callable[..., PrefectAccount]
) -> None:
    works, hangs, dead = account("primary"), account("hangs"), account("dead")
    every = (works, hangs, dead)
    works.serve()
    watching = {one: one.trigger("intraday") for one in every}
    engines = {one: one.wait_until_it_holds() for one in every}
    os.kill(engines[hangs], signal.SIGSTOP)
    os.kill(engines[dead], signal.SIGKILL)
    name, message = prefect_server.wait_end(watching[dead])
    assert name == "EngineDied", (name, message)
    flattening = {one: one.trigger("emergency-flatten", reason="a drill", by="the form") for one in every}
    for one in every:
        name, message = prefect_server.wait_end(flattening[one])
        assert name == "Completed", (one.name, message, prefect_server.logs(flattening[one]), one.told())
        one.assert_each_traded_once()
        halts = [(halt["reason"], halt["by"]) for halt in one.read_lines("halt.jsonl") if not halt["keeps_positions"]]
        assert ("a drill", "the form") in halts
        assert set(halts) <= {("a drill", "the form"), ("take-over: a drill", "the form")}  # who hangs is taken over
    reports = "\n".join(str(artifact["data"]) for artifact in prefect_server.artifacts_of(flattening.values()))
    assert reports.count("# FLAT") == len(every)
    assert works.is_engine(engines[works])  # halted and flat, and it goes on watching
    assert prefect_server.state(watching[works])[0] == "Running"
    assert prefect_server.wait_end(watching[hangs])[0] == "EngineDied"
    assert not hangs.is_engine(engines[hangs])


def test_cancel_that_takes_longer_than_prefect_waits_still_ends_flat_and_the_next_run_says_so(
    prefect_server: PrefectServer, account: Callable[..., PrefectAccount]
) -> None:
    slow = account("primary", positions=20, strategy="tests.integration.slow_exits:HoldAtASlowBroker", speed=60.0)
    slow.serve()
    run = slow.trigger("intraday")
    engine = slow.wait_until_it_holds()
    prefect_server.wait_until(lambda: slow.flow_pid(run), slow.told)
    flow = slow.flow_pid(run)
    cancelled = time.monotonic()
    prefect_server.cancel(run)
    prefect_server.wait_until(lambda: slow.flow_pid(run) != flow, slow.told)
    left_after = time.monotonic() - cancelled
    still_held = slow.held()
    assert prefect_server.wait_end(run)[0] == "Cancelled"
    slow.wait_until_flat()
    flat_after = time.monotonic() - cancelled
    assert still_held
    assert left_after < flat_after
    assert flat_after > PREFECT_WAITS_SECONDS
    prefect_server.wait_until(lambda: slow.read("end.json").get("pid") == engine, slow.told)
    slow.assert_each_traded_once()
    after = slow.trigger("intraday")
    name, message = prefect_server.wait_end(after)
    assert name == "AlreadyEnded", (name, message)
    assert RUN_ID in message
    assert "cancelled" in message


def test_cancel_of_a_whole_trading_day_reaches_the_engine_that_its_intraday_run_watches(
    prefect_server: PrefectServer, account: Callable[..., PrefectAccount]
) -> None:
    """A person cancels the run that they started; the run within it, which watches the engine, has no state of its own."""
    day = account("primary")
    day.serve()
    run = day.trigger("trading-day")
    engine = day.wait_until_it_holds()
    prefect_server.cancel(run)
    day.wait_until_flat()
    assert prefect_server.wait_end(run)[0] == "Cancelled"
    prefect_server.wait_until(lambda: day.read("end.json").get("pid") == engine, day.told)
    day.assert_each_traded_once()
    end = day.read("end.json")
    assert (end["exit_code"], end["flat"], end["halted"]) == (0, True, False)
    assert "the intraday flow was cancelled" in end["stopped"], end
    (market_open,) = subflow_runs(prefect_server, run, "market-open")
    (intraday,) = subflow_runs(prefect_server, run, "intraday")
    assert market_open["state"]["name"] == "Completed"
    assert prefect_server.wait_end(intraday["id"])[0] == "Cancelled"
    assert subflow_runs(prefect_server, run, "end-of-day") == []  # the day was ended, its books are closed by hand


def subflow_runs(server: PrefectServer, parent: str, flow: str) -> list[dict[str, Any]]:
    """Return the runs of a flow that another run started, however deep."""
    chosen = {"flow_runs": {"parent_flow_run_id": {"any_": [parent]}}, "flows": {"name": {"any_": [flow]}}}
    return list(server.api("POST", "/flow_runs/filter", chosen))
