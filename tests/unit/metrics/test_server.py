from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pytest

from tests.fakes.http_server import Reply, Request, Served, serving
from tests.fakes.metrics import SinkRig
from velox_core.metrics.delivery import AnswerKind
from velox_core.metrics.server import RETRY_AFTER_SECONDS_MAX, Flavour, MetricsServer, flavour_of

TOKEN = "very-private-token"
LINES = ["velox_pnl net_paise=1i 1", "velox_pnl net_paise=2i 2"]


@pytest.fixture
def served() -> Iterator[Served]:
    with serving(lambda request: Reply()) as server:
        yield server


def client(served: Served, *, token: str = TOKEN, answer_seconds: float = 20.0) -> MetricsServer:
    return MetricsServer(url=served.url, org="velox", bucket="metrics", token=token, answer_seconds=answer_seconds)


def test_lines_are_posted_once_with_nanoseconds_bucket_and_token(served: Served) -> None:
    server = client(served)
    assert server.post(LINES).kind is AnswerKind.WRITTEN
    server.close()
    (request,) = served.requests
    assert request.path == "/api/v2/write?org=velox&bucket=metrics&precision=ns"
    assert request.body == "\n".join(LINES)
    assert request.headers["Authorization"] == f"Token {TOKEN}"


def test_without_a_token_no_authorisation_is_sent(served: Served) -> None:
    server = client(served, token="")
    server.post(LINES)
    server.close()
    assert "Authorization" not in served.requests[0].headers


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (301, AnswerKind.REFUSED),
        (400, AnswerKind.MALFORMED),
        (401, AnswerKind.UNAUTHORISED),
        (403, AnswerKind.UNAUTHORISED),
        (404, AnswerKind.MISSING),
        (405, AnswerKind.REFUSED),
        (413, AnswerKind.TOO_LARGE),
        (422, AnswerKind.MALFORMED),
        (429, AnswerKind.BUSY),
        (500, AnswerKind.FAILED),
        (502, AnswerKind.FAILED),
        (503, AnswerKind.BUSY),
    ],
)
def test_each_status_has_its_meaning_and_is_asked_once(served: Served, status: int, kind: AnswerKind) -> None:
    body = json.dumps({"code": "x", "message": f"token {TOKEN}\nis not liked"})
    served.rule = lambda request: Reply(status=status, body=body, headers={"Location": "/elsewhere", "Retry-After": "7"})
    server = client(served)
    answer = server.post(LINES)
    server.close()
    assert answer.kind is kind
    assert answer.text == f"{status} token *** is not liked"
    assert answer.retry_after_seconds == (7.0 if kind is AnswerKind.BUSY else None)
    assert len(served.requests) == 1


@pytest.mark.parametrize(
    ("wish", "seconds"),
    [("0", 0.0), ("99999", RETRY_AFTER_SECONDS_MAX), ("-5", 0.0), ("Wed, 21 Oct 2026 07:28:00 GMT", None), ("nan", None)],
)
def test_wish_to_be_left_alone_is_bounded_and_nonsense_is_none(served: Served, wish: str, seconds: float | None) -> None:
    served.rule = lambda request: Reply(status=503, headers={"Retry-After": wish})
    server = client(served)
    assert server.post(LINES).retry_after_seconds == seconds
    server.close()


@pytest.mark.parametrize("body", ["", "part of an answer"])
def test_torn_connection_failed_and_is_not_repeated(served: Served, body: str) -> None:
    served.rule = lambda request: Reply(status=500, body=body, tears=True)
    server = client(served)
    answer = server.post(LINES)
    server.close()
    assert answer.kind is AnswerKind.FAILED
    assert answer.text
    assert len(served.requests) == 1


def test_server_that_hangs_is_left_within_its_bound(served: Served) -> None:
    served.rule = lambda request: Reply(hangs=True)
    server = client(served, answer_seconds=0.2)
    answer = server.post(LINES)
    server.close()
    assert answer.kind is AnswerKind.FAILED
    assert "timed out" in answer.text.lower()
    assert not served.end.is_set()


def test_nobody_there_failed_with_words_and_no_objects() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))  # taken, so that it is nobody else's meanwhile, and not listened on
        port = listener.getsockname()[1]
        server = MetricsServer(url=f"http://127.0.0.1:{port}", org="o", bucket="b", token=TOKEN)
        answer = server.post(LINES)
        assert answer.kind is AnswerKind.FAILED
        assert "refused" in answer.text
        assert "0x" not in answer.text
        assert server.ping()[0].kind is AnswerKind.FAILED
        server.close()


def test_body_that_is_not_text_is_an_answer_like_another(served: Served) -> None:
    served.rule = lambda request: Reply(status=400, body="<html>\x80</html>")
    server = client(served)
    assert server.post(LINES).kind in (AnswerKind.MALFORMED, AnswerKind.FAILED)
    server.close()


@pytest.mark.parametrize(
    ("version", "has_health", "flavour"),
    [
        ("2.7.1", True, Flavour.INFLUX2),
        ("", True, Flavour.INFLUX2),
        ("3.0.1", False, Flavour.INFLUX3),
        ("", False, Flavour.VICTORIA),
        ("1.8.0", False, Flavour.VICTORIA),
    ],
)
def test_flavour_is_told_by_version_and_health(version: str, has_health: bool, flavour: Flavour) -> None:
    assert flavour_of(version, has_influx_health=has_health) is flavour


def test_malformed_point_on_the_wire_stops_no_other(served: Served) -> None:
    def rule(request: Request) -> Reply:
        return Reply(status=400, body='{"message": "unable to parse"}') if "net_paise=7i" in request.body else Reply()

    served.rule = rule
    server = client(served)
    rig = SinkRig(server)
    rig.tell(100)
    counters = rig.round()
    server.close()
    assert (counters["written"], counters["malformed"], counters["waiting"]) == (99, 1, 0)
    assert "unable to parse" in counters["last_failure"]
