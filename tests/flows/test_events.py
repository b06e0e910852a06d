"""What leaves for Prefect: events once each and without waiting, and of our loggers only the summary's lines."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect import flow, get_client
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from tasks.artifacts import artifact_key
from tasks.events import TOLD_FILE, TRIES_MAX, WAITING_MAX, Line, Sender, emit_end, emit_news, emit_reset, flush_events
from tasks.policy import once
from tasks.summary import LINES_MAX, SUMMARY, summary_logger, worth_telling
from tests.fakes.threads import no_thread_left
from velox_core.logs import LOG_FILES
from velox_core.operations.day import Day, DayRequest, open_day
from velox_core.operations.status import Status

DAY = "2024-01-16"
WAIT_SECONDS = 240.0
LOSS = {"halt_id": "20240116-LOSS-1", "kind": "LOSS", "reason": "why", "by": "engine", "at_ms": 7}


class Server:
    """Takes events, refuses them, the first ones or all, or hangs until it is let go."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.refuses = False
        self.refused_first = 0
        self.asked = 0
        self.go = threading.Event()
        self.go.set()

    def __call__(self, event: Mapping[str, Any]) -> None:
        self.asked += 1
        if self.asked > self.refused_first:
            self.go.wait(240)
        if self.refuses or self.asked <= self.refused_first:
            raise httpx.ConnectError("nobody is there")
        self.events.append(dict(event))

    @property
    def names(self) -> list[str]:
        return [event["event"] for event in self.events]


def within_bound(done: Callable[[], bool]) -> bool:
    """Wait until something is so, and return whether it came to that."""
    until = time.monotonic() + WAIT_SECONDS
    while not done() and time.monotonic() < until:
        time.sleep(0.02)
    return done()


@pytest.fixture
def day(var: Path, config: Path) -> Day:
    return open_day(DayRequest(config=config, date=date(2024, 1, 16)), os.environ)


def status(folder: Path, **changes: Any) -> Status:
    body = {
        "state": "RUNNING",
        "pid": 42,
        "run_id": "2024-01-16-1",
        "trading_date": DAY,
        "wall_ms": time.time_ns() // 1_000_000,
        "net_paise": -210_000,
        "loss_limit_paise": 200_000,
        "positions": [{"symbol": "TCS", "quantity": 1}],
        "live_orders": 0,
        "halts": [],
    }
    return Status(folder, body | changes)


def test_emit_news_tells_each_thing_once_also_to_a_watcher_that_comes_later(day: Day, tmp_path: Path) -> None:
    server = Server()
    sender = Sender(server)
    calm, hit = status(tmp_path), status(tmp_path, halts=[LOSS])
    assert emit_news(day, None, calm, sender=sender) == []
    told = emit_news(day, calm, hit, sender=sender)
    assert [sentence.partition(":")[0].split(" (")[0] for sentence in told] == [
        "the day's loss reached its limit of ₹2,000.00",
        "trading is halted",
    ]
    assert emit_news(day, hit, hit, sender=sender) == []
    closed = status(tmp_path, halts=[LOSS], positions=[])
    assert len(emit_news(day, hit, closed, sender=sender)) == 1
    assert sender.flush(120)
    assert server.names == ["velox.heartbeat", "velox.breach", "velox.halt", "velox.flat"]
    assert json.loads((tmp_path / TOLD_FILE).read_text())["told"] == [
        "breach:20240116-LOSS-1",
        "flat:20240116-LOSS-1",
        "halt:20240116-LOSS-1",
    ]
    attached, closed = Sender(server), status(tmp_path, halts=[LOSS], positions=[])
    assert len(emit_news(day, None, closed, sender=attached)) == 3  # a person reads them again, nobody is sent them again
    assert attached.flush(120)
    assert server.names[4:] == ["velox.heartbeat"]
    breach = server.events[1]
    assert breach["resource"]["prefect.resource.id"] == "velox.account.simulated.primary"
    assert (breach["payload"]["run_id"], breach["payload"]["config"]) == ("2024-01-16-1", str(day.settings.source))


def test_two_watchers_that_tell_at_once_give_one_id(day: Day, tmp_path: Path) -> None:
    server = Server()
    server.go.clear()
    senders = [Sender(server), Sender(server)]
    for sender in senders:
        emit_news(day, None, status(tmp_path, wall_ms=0, halts=[LOSS]), sender=sender)
    server.go.set()
    assert all(sender.flush(120) for sender in senders)
    ids = [event["id"] for event in server.events if event["event"] == "velox.breach"]
    assert (len(ids), len(set(ids))) == (2, 1)


def test_emit_news_of_a_stale_or_ended_engine_is_no_heartbeat_and_one_a_minute_is_enough(day: Day, tmp_path: Path) -> None:
    server, clock = Server(), [0.0]
    sender = Sender(server, monotonic=lambda: clock[0])
    for changes in ({"wall_ms": time.time_ns() // 1_000_000 - 31_000}, {"state": "DONE"}):
        emit_news(day, None, status(tmp_path, **changes), sender=sender)
    assert (sender.flush(120), server.events) == (True, [])
    for now in (0.0, 59.9, 60.0):
        clock[0] = now
        emit_news(day, None, status(tmp_path), sender=sender)
    assert sender.flush(120)
    assert server.names == ["velox.heartbeat"] * 2


def test_an_absent_server_costs_no_waiting_and_a_heartbeat_and_the_rest_is_told_when_it_is_back(
    day: Day, tmp_path: Path
) -> None:
    server = Server()
    server.refused_first = 4
    server.go.clear()
    sender = Sender(server, quiet_seconds=0.05)
    hit = status(tmp_path, halts=[LOSS])
    emit_news(day, None, hit, sender=sender)
    emit_news(day, hit, hit, sender=sender)  # it is on its way: not a second time
    assert within_bound(lambda: server.asked == 5)
    assert not (tmp_path / TOLD_FILE).exists()
    server.go.set()
    assert sender.flush(120)
    assert server.names == ["velox.breach", "velox.halt"]
    assert (sender.sent, sender.failed) == (2, 1)


def test_an_event_that_nobody_ever_takes_is_given_up_and_offered_again_by_the_next_look(day: Day, tmp_path: Path) -> None:
    server = Server()
    server.refuses = True
    sender = Sender(server, quiet_seconds=0.0)
    hit = status(tmp_path, wall_ms=0, halts=[LOSS])
    emit_news(day, None, hit, sender=sender)
    assert sender.flush(120)
    assert (server.asked, sender.failed) == (2 * TRIES_MAX, 2)
    server.refuses = False
    emit_news(day, hit, hit, sender=sender)
    assert sender.flush(120)
    assert server.names == ["velox.breach", "velox.halt"]


def test_an_event_that_breaks_what_sends_it_costs_no_later_one(
    day: Day, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = Server()

    def post(event: Mapping[str, Any]) -> None:
        server.asked += 1
        if server.asked == 1:
            raise KeyError("nobody expects this")
        server.events.append(dict(event))

    sender = Sender(post, quiet_seconds=0.0)
    emit_news(day, None, status(tmp_path, wall_ms=0, halts=[LOSS]), sender=sender)
    assert sender.flush(120)
    assert server.names == ["velox.breach", "velox.halt"]
    assert "velox.breach, could not be sent" in caplog.text
    assert "nobody expects this" in caplog.text


def test_system_without_a_thread_left_costs_no_event_and_breaks_nothing_off(day: Day, tmp_path: Path) -> None:
    server = Server()
    sender, hit = Sender(server), status(tmp_path, wall_ms=0, halts=[LOSS])
    with no_thread_left("velox-events"):
        emit_news(day, None, hit, sender=sender)
        assert not sender.flush(0.01)
    emit_reset(day, ["h"], reason="r", by="b", run_id="", sender=sender)
    assert sender.flush(120)
    assert server.names == ["velox.breach", "velox.halt", "velox.reset"]


def test_flush_hurries_a_pause_and_is_bounded_itself(day: Day, tmp_path: Path) -> None:
    server = Server()
    server.refuses = True
    sender = Sender(server, quiet_seconds=3_600.0)
    emit_end(day, status(tmp_path, state="FAILED", positions=[]), 1, sender=sender)
    assert not sender.flush(0.05)
    server.refuses = False
    assert sender.flush(120)
    assert server.names == ["velox.ended"]


def test_close_ends_the_thread_after_the_request_under_way_and_takes_nothing_more(day: Day) -> None:
    server = Server()
    server.go.clear()
    sender = Sender(server, quiet_seconds=3_600.0)
    emit_reset(day, ["h"], reason="r", by="b", run_id="", sender=sender)
    assert within_bound(lambda: server.asked == 1)  # under way: what still waits is not sent any more
    letting_go = threading.Timer(0.3, server.go.set)
    letting_go.start()
    sender.close(0.0)
    letting_go.join()
    assert [thread.name for thread in threading.enumerate() if thread is sender._thread] == []
    emit_reset(day, ["i"], reason="r", by="b", run_id="", sender=sender)
    assert len(server.events) == 1


def test_a_server_that_hangs_holds_nobody_up_and_what_waits_is_bounded(day: Day, tmp_path: Path) -> None:
    server = Server()
    server.go.clear()
    sender = Sender(server)
    for number in range(WAITING_MAX + 20):
        emit_reset(day, [f"h{number}"], reason="r", by="b", run_id="", sender=sender)
    assert not sender.flush(0.01)
    assert sender.dropped in (19, 20)  # one may be on its way already
    server.go.set()
    assert sender.flush(120)
    assert len(server.events) == WAITING_MAX + 20 - sender.dropped


def test_emit_end_tells_what_was_not_seen_and_the_end_once_for_each_engine(day: Day, tmp_path: Path) -> None:
    server = Server()
    sender = Sender(server)
    last = status(tmp_path, state="DONE", halts=[LOSS], positions=[])
    for _ in range(2):
        sentence = emit_end(day, last, 0, sender=sender)
        assert sender.flush(120)
    assert sentence == "the engine has ended (exit code 0), flat"
    assert server.names == ["velox.breach", "velox.halt", "velox.flat", "velox.ended"]
    emit_end(day, None, None, cause="killed", sender=sender)
    assert sender.flush(120)
    assert server.events[-1]["payload"] | {"flat": False, "exit_code": -1, "cause": "killed"} == server.events[-1]["payload"]


def test_artifact_keys_are_stable_lower_case_with_dashes_only(day: Day) -> None:
    assert artifact_key("checklist", day.settings) == "checklist-simulated-primary"
    odd = dataclasses.replace(day.settings, account="AB_12.x--Y")
    assert artifact_key("session", odd) == "session-simulated-ab-12-x-y"


PREFIX = "2026-11-28 16:49:55,392+05:30"
SESSION = f"{PREFIX} INFO [-] [SESSION] 2024-01-16 run 2024-01-16-1 on data"
EXIT = f"{PREFIX} CRITICAL [2024-01-16 11:27:00] 🚨 EMERGENCY EXIT TRIGGERED 🚨"
REFUSAL = f"{PREFIX} WARNING [2024-01-16 09:54:00] [RISK_CHECK] sma_cross/FLATCO: REJECTED - Position already exists"
ORDER = f"{PREFIX} INFO [2024-01-16 09:54:00] order CRITICAL-looking"


def test_worth_telling_keeps_session_and_emergency_lines_leaves_refusals_and_is_bounded() -> None:
    assert worth_telling([SESSION, REFUSAL, ORDER, EXIT]) == [SESSION, EXIT]
    many = [f"{EXIT} {number}" for number in range(LINES_MAX + 5)]
    kept = worth_telling(many)
    assert kept == ["(5 more lines are in the log files)", *many[5:]]


@once("emit-in-a-task")
def emit_in_a_task(day: Day, halt_id: str) -> None:
    """As the steps of a day do: the task, and its client, may have ended when the event leaves."""
    emit_reset(day, [halt_id], reason="a test", by="the test", run_id="2024-01-16-1")


@flow(name="speaks")
def speaks(halt_id: str, folder: str) -> None:
    summary_logger().info("for a person")
    for name in (*LOG_FILES, "velox", "velox_core", "velox_core.operations.eod"):
        logging.getLogger(name).critical("not for the UI")
    day = open_day(DayRequest(config=Path(folder) / "config" / "system.yaml", date=date(2024, 1, 16)), os.environ)
    emit_in_a_task(day, halt_id)
    flush_events(120)


@pytest.mark.slow
@pytest.mark.anyio
async def test_of_our_loggers_only_the_summary_reaches_prefect_and_an_event_its_feed(var: Path, config: Path) -> None:
    state = await asyncio.to_thread(speaks, "h-1", str(config.parent.parent), return_state=True)
    run_id = state.state_details.flow_run_id
    async with get_client() as client:
        for _ in range(600):
            logs = await client.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run_id])))
            if any(line.name == SUMMARY for line in logs) and any("Finished" in line.message for line in logs):
                break
            await asyncio.sleep(0.2)
        assert {line.name for line in logs} == {SUMMARY, "prefect.flow_runs", "prefect.task_runs"}
        assert [line.message for line in logs if line.name == SUMMARY] == ["for a person"]
        body = {"filter": {"event": {"name": ["velox.reset"]}}}
        for _ in range(600):
            told = (await client.request("POST", "/events/filter", json=body)).json()["events"]
            found = [event for event in told if event["payload"]["halt_ids"] == ["h-1"]]
            if found:
                break
            await asyncio.sleep(0.2)
    (event,) = found
    assert event["resource"]["prefect.resource.id"] == "velox.account.simulated.primary"
    assert {related["prefect.resource.id"] for related in event["related"]} >= {f"prefect.flow-run.{run_id}"}


class Client:
    """Stands for Prefect's: notes the tries that the settings around a request allow, and fails when it is told to."""

    def __init__(self) -> None:
        self.fails = False
        self.retries: list[int] = []
        self.is_open = False

    def __enter__(self) -> Client:
        self.is_open = True
        return self

    def __exit__(self, *_: object) -> None:
        self.is_open = False

    def request(self, method: str, route: str, *, json: list[dict[str, Any]]) -> httpx.Response:
        assert (method, route, len(json)) == ("POST", "/events", 1)
        self.retries.append(PREFECT_CLIENT_MAX_RETRIES.value())
        return httpx.Response(503 if self.fails else 204, request=httpx.Request(method, "http://prefect" + route))


def test_a_line_keeps_its_client_until_a_failure_or_other_settings_and_tries_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Client] = []

    def get(**_: object) -> Client:
        made.append(Client())
        return made[-1]

    monkeypatch.setattr("tasks.events.get_client", get)
    line = Line()
    for _ in range(3):
        line({"id": "x"})
    assert [client.retries for client in made] == [[0, 0, 0]]
    made[0].fails = True
    with pytest.raises(httpx.HTTPStatusError):
        line({"id": "x"})
    line({"id": "x"})
    elsewhere: Any = {PREFECT_API_URL: "http://127.0.0.1:1/api"}
    with temporary_settings(elsewhere):
        line({"id": "x"})
    assert [client.is_open for client in made] == [False, False, True]
    line.close()
    assert [(len(client.retries), client.is_open) for client in made] == [(4, False), (1, False), (1, False)]


@pytest.mark.slow
def test_an_event_with_the_same_id_is_stored_once() -> None:
    began = datetime.now(UTC)  # a server keeps events for days only, and shows none of the time to come
    same, last = (
        {
            "id": str(uuid.uuid4()),
            "event": name,
            "occurred": began.isoformat(),
            "resource": {"prefect.resource.id": "velox.account.simulated.twice"},
            "related": [],
            "payload": {},
        }
        for name in ("velox.halt", "velox.ended")
    )
    line = Line()

    def is_taken(event: Mapping[str, Any]) -> bool:
        """Try once, as the sender's thread does, which tries again: a busy server may not answer in time, or be locked."""
        try:
            line(event)
        except httpx.HTTPError:
            return False
        return True

    for event in (same, same, last):
        assert within_bound(lambda event=event: is_taken(event))
    line.close()
    with get_client(sync_client=True) as client:
        route: Any = "/events/filter"
        body = {
            "filter": {
                "resource": {"id": ["velox.account.simulated.twice"]},
                "occurred": {"since": (began - timedelta(minutes=1)).isoformat()},
            }
        }
        found: list[str] = []

        def stored() -> bool:
            found[:] = [one["event"] for one in client.request("POST", route, json=body).json()["events"]]
            return "velox.ended" in found  # what was sent before it is stored

        assert within_bound(stored)
    assert sorted(found) == ["velox.ended", "velox.halt"]
