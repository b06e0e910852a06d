from __future__ import annotations

import sys
import threading
import time
from collections.abc import Sequence

import pytest

from tests.fakes.metrics import OK, SinkRig, fact, mark
from tests.fakes.own_records import own_records
from tests.fakes.threads import join_named
from velox_core.domain.events import EventKind
from velox_core.metrics import Answer, AnswerKind
from velox_core.metrics import sink as sinks
from velox_core.metrics.sink import BATCH_LINES, FACTS_WAITING_MAX, LINES_WAITING_MAX, STATUSES_WAITING_MAX
from velox_core.ports import Severity

FAILED = Answer(kind=AnswerKind.FAILED, text="connection refused")
LONG_SECONDS = 120.0  # a busy machine is no server that hangs
REFUSALS = [AnswerKind.UNAUTHORISED, AnswerKind.MISSING, AnswerKind.REFUSED]


def test_events_become_lines_in_batches_with_the_runs_tags() -> None:
    rig = SinkRig()
    rig.tell(2_500)
    counters = rig.round()
    assert rig.server.posts == [BATCH_LINES, BATCH_LINES, 500]
    assert (counters["written"], counters["waiting"], counters["state"]) == (2_500, 0, "writing")
    assert all(",mode=replay,run=2024-01-16-1 " in line for line in rig.server.lines)


def test_server_that_is_down_for_an_hour_costs_bounded_memory_and_few_requests_then_takes_the_newest() -> None:
    rig = SinkRig()
    rig.server.answer = FAILED
    for second in range(3_600):
        rig.tell(20, first_ms=1_705_000_000_000 + second * 1_000)
        rig.sink.status({"engine_ms": 1_705_000_000_000 + second * 1_000, "halted": False})
        counters = rig.round()
        assert counters["waiting"] <= LINES_WAITING_MAX
    made = 3_600 * (20 + 2)  # a mark's point each, and the engine's and one queue's of each status
    assert counters["dropped"] == made - LINES_WAITING_MAX
    assert counters["state"] == "failing"
    assert 60 <= counters["failed"] <= 70  # the pauses grow to a minute
    assert counters["failed"] == len(rig.server.posts)
    rig.server.answer = OK
    counters = rig.round(60.0)
    assert (counters["state"], counters["waiting"], counters["written"]) == ("writing", 0, LINES_WAITING_MAX)
    assert rig.server.lines[-1].startswith(("velox_engine", "velox_queue"))
    newest = [line for line in rig.server.lines if line.startswith("velox_pnl")][-1]
    assert newest.endswith(f" {1_705_000_000_000 + 3_599 * 1_000 + 19}000000")


def test_outage_is_told_to_a_person_once_after_a_while_and_its_end_once() -> None:
    rig = SinkRig()
    rig.server.answer = FAILED
    rig.tell(1)
    rig.round()
    assert rig.alerts.sent == []  # a restart of the server is nobody's trouble
    for _ in range(1_200):
        rig.round()
    assert [(severity, title) for severity, title, _ in rig.alerts.sent] == [(Severity.WARNING, "Metrics are not written")]
    assert "connection refused" in rig.alerts.sent[0][2]
    rig.server.answer = OK
    rig.round(60.0)
    assert rig.alerts.titles[1:] == ["Metrics are written again"]


@pytest.mark.parametrize("kind", REFUSALS)
def test_refused_token_or_bucket_is_told_at_once_and_tried_again_only_after_minutes(kind: AnswerKind) -> None:
    rig = SinkRig()
    rig.server.answer = Answer(kind=kind, text="no")
    rig.tell(1)
    for _ in range(290):
        rig.round()
    assert len(rig.server.posts) == 1
    assert rig.alerts.titles == ["Metrics are not written"]
    for _ in range(20):
        rig.round()
    assert len(rig.server.posts) == 2
    assert len(rig.alerts.sent) == 1


@pytest.mark.parametrize(("wish", "silent_seconds"), [(40.0, 39), (0.0, 0), (None, 0)])
def test_busy_server_is_left_alone_as_long_as_it_wishes(wish: float | None, silent_seconds: int) -> None:
    rig = SinkRig()
    rig.server.answer = Answer(kind=AnswerKind.BUSY, text="429", retry_after_seconds=wish)
    rig.tell(1)
    rig.round()
    for _ in range(silent_seconds):
        rig.round()
    assert len(rig.server.posts) == 1
    rig.round()
    assert len(rig.server.posts) == 2


def test_server_that_wants_smaller_batches_gets_them() -> None:
    rig = SinkRig()
    rig.server.most = 500
    rig.tell(3_000)
    counters = rig.round()
    assert counters["written"] == 3_000
    assert rig.server.posts.count(BATCH_LINES) == 1
    assert rig.server.posts[0] == BATCH_LINES


def test_bad_line_and_bad_event_are_counted_logged_once_and_stop_no_other(caplog: pytest.LogCaptureFixture) -> None:
    rig = SinkRig()
    rig.server.bad = lambda line: "net_paise=7i" in line
    rig.tell(20)
    rig.sink.committed([fact(EventKind.MARK, 1, {"realised": "text"}), fact(EventKind.MARK, 2, mark(2**63))])
    rig.tell(20, first_ms=1_705_000_100_000)
    counters = rig.round()
    assert (counters["written"], counters["malformed"], counters["waiting"]) == (38, 4, 0)
    assert counters["state"] == "writing"
    assert len([record for record in own_records(caplog) if record.levelname == "ERROR"]) == 1


def test_lists_of_the_loop_are_bounded_while_the_thread_does_nothing() -> None:
    rig = SinkRig()
    rig.tell(FACTS_WAITING_MAX + 7)
    for second in range(STATUSES_WAITING_MAX + 5):
        rig.sink.status({"engine_ms": second})
    counters = rig.sink.counters()
    assert counters["waiting"] == FACTS_WAITING_MAX + STATUSES_WAITING_MAX
    assert counters["dropped"] == 7 + 5


def test_close_writes_what_waits_whatever_pause_is_on() -> None:
    rig = SinkRig()
    rig.server.answer = FAILED
    rig.tell(3)
    rig.round()
    rig.server.answer = OK
    rig.tell(2, first_ms=1_705_000_100_000)
    rig.sink.start()
    assert rig.sink.close(seconds=LONG_SECONDS) is True
    assert len(rig.server.lines) == 5
    assert rig.server.is_closed


class HangingServer:
    """A server whose answer never comes."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.release = threading.Event()
        self.answered = threading.Event()

    def post(self, lines: Sequence[str]) -> Answer:
        self.asked.set()
        self.release.wait(240)
        self.answered.set()
        return FAILED

    def close(self) -> None:
        """Nothing to close."""


def test_hanging_server_keeps_neither_the_loop_nor_the_end_waiting(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sinks, "ROUND_SECONDS", 0.01)
    server = HangingServer()
    rig = SinkRig(server)
    rig.tell(3)
    rig.sink.start()
    assert server.asked.wait(120)
    rig.tell(FACTS_WAITING_MAX + 1)  # the thread is in the request: nothing is taken from the list
    assert rig.sink.counters()["dropped"] == 1
    assert rig.sink.close(seconds=0.05) is False
    assert "backfill" in caplog.text
    assert not server.answered.is_set()  # it hangs still, and the end did not wait for it
    server.release.set()
    join_named("metrics")


def test_round_that_fails_by_a_bug_ends_neither_the_thread_nor_the_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sinks, "ROUND_SECONDS", 0.01)
    rig = SinkRig()
    calls: list[int] = []

    def post(lines: Sequence[str]) -> Answer:
        calls.append(len(lines))
        if len(calls) == 1:
            raise RuntimeError("a bug")
        return OK

    rig.server.post = post
    rig.tell(3)
    rig.sink.start()
    until = time.monotonic() + 120
    while len(calls) < 2 and time.monotonic() < until:
        time.sleep(0.01)
    assert rig.sink.close(seconds=LONG_SECONDS) is True
    assert (calls[:2], rig.sink.counters()["written"]) == ([3, 3], 3)


def test_sink_and_points_import_no_client_library() -> None:
    import subprocess

    code = "import sys, velox_core.metrics, velox_core.metrics_setup; print('influxdb_client' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "False"
