"""What only an InfluxDB 3 has of a day: asked in SQL, written as the lines that the engine had sent, or not at all."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.fakes.http_server import Reply, Request, serving
from velox_core.backup import influx3
from velox_core.backup.influx3 import nanoseconds, write_process_points
from velox_core.backup.manifest import BackupError
from velox_core.domain.time import IST
from velox_core.metrics.points import Point, encode

BEGIN = datetime(2024, 1, 15, tzinfo=IST)
NS = 1_705_290_300_000_000_000  # 2024-01-15 03:45 UTC
COMMON = {"mode": "live", "broker": "simulated", "account": "primary"}
ENGINE = Point("velox_engine", {}, {"net_paise": -5, "fills": 3}, NS)
STAGE = Point(
    "velox_order_stage",
    {"strategy": "orb", "symbol": "M&M, Ltd", "role": "ENTRY", "stage": "gate"},
    {"duration_us": 71},
    NS + 1,
)
TIMES = {ENGINE.measurement: "2024-01-15T03:45:00", STAGE.measurement: "2024-01-15T03:45:00.000000001"}


class Influx3:
    """A server that holds rows by table; a test changes one, or answers itself."""

    def __init__(self) -> None:
        self.tables: dict[str, list[dict[str, Any]]] = {
            point.measurement: [{"time": TIMES[point.measurement], **COMMON, **point.tags, **point.fields}]
            for point in (ENGINE, STAGE)
        } | {"velox_pnl": [{"never": "asked for"}], "cpu": []}
        self.queries: list[str] = []
        self.instead: Callable[[str], Reply | None] = lambda query: None

    def __call__(self, request: Request) -> Reply:
        assert (request.method, request.path) == ("POST", "/api/v3/query_sql")
        asked = json.loads(request.body)
        assert (asked["db"], asked["format"]) == ("metrics", "jsonl")
        query = asked["q"]
        self.queries.append(query)
        if (reply := self.instead(query)) is not None:
            return reply
        if "information_schema" in query:
            return rows({"table_name": name} for name in self.tables)
        return rows(self.tables[query.split('"')[1]])


def rows(found: Any) -> Reply:
    return Reply(
        status=200, body="".join(json.dumps(row) + "\n" for row in found), headers={"Content-Type": "application/jsonl"}
    )


def written(url: str, *, before: str = "", token: str = "t0ken") -> str:
    file = io.StringIO()
    file.write(before)
    tags = {"broker": "simulated", "account": "o'neil"}
    try:
        points = write_process_points(
            file, url=url, database="metrics", token=token, tags=tags, span=(BEGIN, BEGIN + timedelta(days=1))
        )
    finally:
        assert file.getvalue().startswith(before)
    assert points == len(file.getvalue().removeprefix(before).splitlines())
    return file.getvalue()


def test_points_come_back_as_the_lines_that_were_sent() -> None:
    influx = Influx3()
    with serving(influx) as server:
        lines = written(server.url, before="velox_pnl net_paise=1i 1\n").splitlines()
        headers = {name.lower(): value for name, value in server.requests[-1].headers.items()}
    assert lines == ["velox_pnl net_paise=1i 1", encode(STAGE, COMMON), encode(ENGINE, COMMON)]
    assert headers["authorization"] == "Bearer t0ken"
    assert influx.queries[1:] == [
        f"SELECT * FROM \"{name}\" WHERE \"broker\" = 'simulated' AND \"account\" = 'o''neil' "
        "AND time >= '2024-01-14T18:30:00Z' AND time < '2024-01-15T18:30:00Z' ORDER BY time"
        for name in ("velox_order_stage", "velox_engine")
    ]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"net_paise": 0.5}, "net_paise is 0.5"),
        ({"net_paise": True}, "it has no time or no field"),
        ({"unheard_of": 1}, "unheard_of is 1"),
        ({"broker": 1}, "broker is 1"),
        ({"time": "soon"}, "Invalid isoformat"),
        ({"time": None}, "it has no time or no field"),
        ({"net_paise": None, "fills": None}, "it has no time or no field"),
    ],
)
def test_row_that_is_no_point_of_ours_is_an_error_and_nothing_stays(change: dict[str, Any], said: str) -> None:
    influx = Influx3()
    influx.tables["velox_engine"][0].update(change)
    file = io.StringIO()
    file.write("before\n")
    span = (BEGIN, BEGIN + timedelta(days=1))
    with serving(influx) as server, pytest.raises(BackupError, match=f"a row of velox_engine is no point of ours: {said}"):
        write_process_points(file, url=server.url, database="metrics", token="", tags={}, span=span)
    assert file.getvalue() == "before\n"  # the stage that came before it is gone, too


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (Reply(status=404, body="{}"), "answers no query: 404"),
        (Reply(status=200, body='{"time":'), "in no rows of JSON"),
        (Reply(status=200, body="[" * 60_000), "in no rows of JSON: maximum recursion"),
        (Reply(status=200, body="[1]\n"), r"in no rows of JSON: a row is \[1\]"),
        (Reply(status=200, body="x" * (influx3.LINE_BYTES_MAX + 2)), "in no rows of JSON: a row is longer"),
        (Reply(status=200, body="\n", tears=True), "breaks off"),
    ],
)
def test_answer_that_is_no_rows_is_told(reply: Reply, said: str) -> None:
    influx = Influx3()
    influx.instead = lambda query: reply if "velox_engine" in query else None
    with serving(influx) as server, pytest.raises(BackupError, match=said) as told:
        written(server.url)
    assert "t0ken" not in str(told.value)


@pytest.mark.parametrize(
    ("bound", "value", "said"),
    [("TOTAL_SECONDS_MAX", -1.0, "the server is too slow"), ("BYTES_MAX", 10, "the day's points are more than")],
)
def test_answer_without_an_end_is_left(bound: str, value: float, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(influx3, bound, value)
    with serving(Influx3()) as server, pytest.raises(BackupError, match=said):
        written(server.url)


def test_server_that_hangs_is_left_after_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(influx3, "ANSWER_SECONDS", 0.3)
    influx = Influx3()
    influx.instead = lambda query: Reply(hangs=True)
    with serving(influx) as server, pytest.raises(BackupError, match="breaks off: ReadTimeout"):
        written(server.url)


@pytest.mark.parametrize(
    ("text", "at_ns"),
    [
        ("2024-01-15T03:45:00", NS),
        ("2024-01-15T03:45:00Z", NS),
        ("2024-01-15 03:45:00.5", NS + 500_000_000),
        ("2024-01-15T03:45:00.000000001", NS + 1),
        ("2024-01-15T03:45:00.999999999Z", NS + 999_999_999),
    ],
)
def test_time_is_read_to_the_nanosecond(text: str, at_ns: int) -> None:
    assert nanoseconds(text) == at_ns


@pytest.mark.parametrize("text", ["", "2024-01-15T03:45:00.0000000001", "2024-01-15T03:45:00.x", "2024-01-15T03:45:00+05:30"])
def test_time_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"nanoseconds|isoformat"):
        nanoseconds(text)
