"""The day's metrics in a backup: what is asked of each server, and what is told when it does not answer."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.http_server import Reply, Request, serving
from velox_core.backup.influx2 import Refused
from velox_core.backup.manifest import BackupError
from velox_core.backup.metrics_export import check, export_day
from velox_core.metrics.server import Flavour

LINES = "".join(
    json.dumps({"metric": {"__name__": name}, "values": [1, 2], "timestamps": [1, 2]}) + "\n" for name in ("a", "b", "c")
)
# as `csv/result.go` of influxdata/flux writes it: two tables, whose rows have no name of a result beside a default
CSV = (
    "#datatype,string,long,long\r\n#group,false,false,false\r\n#default,_result,,\r\n,result,table,_value\r\n,,0,1\r\n,,0,2\r\n"
    "\r\n#datatype,string,long,double\r\n#group,false,false,false\r\n#default,_result,,\r\n,result,table,_value\r\n,,1,0.5\r\n\r\n"
)
OLDER_CSV = "\r\n,result,table,_value\r\n,_result,0,1\r\n,_result,0,2\r\n\r\n"
ERROR = ",error,reference\r\n,unauthorized: not yours,897\r\n"


def export(target: Path, url: str, flavour: Flavour, *, token: str = "t0ken") -> dict[str, Any]:
    tags = {"broker": "simulated", "account": "primary"}
    return export_day(target, flavour=flavour, url=url, org="o", bucket="b", token=token, tags=tags, day=date(2024, 1, 15))


def test_victoria_exports_the_accounts_day_and_the_points_are_counted_again(tmp_path: Path) -> None:
    with serving(lambda request: Reply(status=200, body=LINES)) as server:
        notes = export(tmp_path / "day", server.url, Flavour.VICTORIA)
        (request,) = server.requests
    assert request.path.startswith("/api/v1/export?match%5B%5D=%7Bbroker%3D%22simulated%22%2Caccount%3D%22primary%22%7D")
    assert "start=1705257000.0&end=1705343400.0" in request.path  # the day in India
    assert notes["points"] == 6
    assert check(tmp_path / "day", notes) == ""
    (tmp_path / "day").write_text(LINES[: LINES.index("\n") + 1])
    assert check(tmp_path / "day", notes) == "it has 2 points, 6 were saved"
    (tmp_path / "day").write_text("{")
    assert "it is no export of metrics" in check(tmp_path / "day", notes)


def test_influx_is_asked_in_flux_with_the_token_in_a_header(tmp_path: Path) -> None:
    with serving(lambda request: Reply(status=200, body=CSV)) as server:
        notes = export(tmp_path / "day", server.url, Flavour.INFLUX2)
        (request,) = server.requests
    assert (request.method, request.path) == ("POST", "/api/v2/query?org=o")
    asked = json.loads(request.body)
    assert asked["query"] == (
        'from(bucket: "b") |> range(start: 2024-01-15T00:00:00+05:30, stop: 2024-01-16T00:00:00+05:30) |> '
        'filter(fn: (r) => r["broker"] == "simulated" and r["account"] == "primary")'
    )
    assert asked["dialect"] == {"annotations": ["datatype", "group", "default"], "header": True}  # for `influx write`
    assert {name.lower(): value for name, value in request.headers.items()}["authorization"] == "Token t0ken"
    assert notes == {"method": "influx-annotated-csv", "points": 3}
    assert check(tmp_path / "day", notes) == ""


def test_influx_that_ends_its_answer_with_an_error_exported_nothing(tmp_path: Path) -> None:
    with serving(lambda request: Reply(status=200, body=CSV + ERROR)) as server, pytest.raises(Refused, match="not yours,897"):
        export(tmp_path / "day", server.url, Flavour.INFLUX2)


def test_export_of_an_older_backup_is_counted_as_it_was_and_an_unknown_way_is_told(tmp_path: Path) -> None:
    (tmp_path / "day").write_text(OLDER_CSV, newline="")
    assert check(tmp_path / "day", {"method": "influx-csv", "points": 2}) == ""
    assert check(tmp_path / "day", {"method": "influx-csv", "points": 3}) == "it has 2 points, 3 were saved"
    assert "it is no export of metrics: 'other' is not a valid Way" in check(tmp_path / "day", {"method": "other"})


@pytest.mark.parametrize(("text", "problem"), [("a x=1i 1\nb x=2i 2\n", ""), ("a x=1i 1\nb x", "it is no export of metrics")])
def test_line_protocol_is_counted_line_by_line(text: str, problem: str, tmp_path: Path) -> None:
    (tmp_path / "day").write_text(text)
    assert check(tmp_path / "day", {"method": "line-protocol", "points": 2}).startswith(problem)
    assert bool(check(tmp_path / "day", {"method": "line-protocol", "points": 2})) is bool(problem)


@pytest.mark.parametrize(
    ("reply", "said"), [(Reply(status=401), "it answers 401"), (Reply(status=200, body="x", tears=True), "exports nothing")]
)
def test_server_that_refuses_or_goes_half_way_is_told_without_its_token(tmp_path: Path, reply: Reply, said: str) -> None:
    def rule(_: Request) -> Reply:
        return reply

    with serving(rule) as server, pytest.raises(BackupError, match=said) as told:
        export(tmp_path / "day", server.url, Flavour.VICTORIA)
    assert "t0ken" not in str(told.value)


@pytest.mark.parametrize(
    ("status", "refuses"), [(401, 1), (403, 1), (404, 1), (405, 1), (400, 0), (429, 0), (500, 0), (503, 0)]
)
@pytest.mark.parametrize("flavour", [Flavour.VICTORIA, Flavour.INFLUX2])
def test_only_an_answer_that_would_be_the_same_tomorrow_is_a_refusal(
    flavour: Flavour, status: int, refuses: int, tmp_path: Path
) -> None:
    with (
        serving(lambda request: Reply(status=status, body="busy")) as server,
        pytest.raises(BackupError, match=f"exports nothing: it answers {status}") as told,
    ):
        export(tmp_path / "day", server.url, flavour)
    assert isinstance(told.value, Refused) is bool(refuses)


@pytest.mark.parametrize(
    ("body", "points"), [("", 0), ("\r\n", 0), ("\r\n" + CSV, 3), ("<html>\nlog in\n</html>", None), (OLDER_CSV, None)]
)
def test_export_of_influx_is_empty_or_begins_with_its_annotations(body: str, points: int | None, tmp_path: Path) -> None:
    with serving(lambda request: Reply(status=200, body=body)) as server:
        if points is not None:
            assert export(tmp_path / "day", server.url, Flavour.INFLUX2)["points"] == points
            return
        with pytest.raises(BackupError, match="is no export of metrics: it begins with") as told:
            export(tmp_path / "day", server.url, Flavour.INFLUX2)
    assert not isinstance(told.value, Refused)


DEEP = "[" * 100_000


@pytest.mark.parametrize(
    ("flavour", "body", "said"),
    [
        (Flavour.VICTORIA, "<html>log in</html>", "JSONDecodeError"),
        (Flavour.VICTORIA, "{}", "KeyError"),
        (Flavour.VICTORIA, "[]", "TypeError"),
        (Flavour.VICTORIA, DEEP, "RecursionError"),
        (Flavour.INFLUX2, CSV.encode() + b"\xff\r\n", "UnicodeDecodeError"),
    ],
)
def test_answer_of_another_form_is_told_and_found_in_a_file(
    flavour: Flavour, body: str | bytes, said: str, tmp_path: Path
) -> None:
    with (
        serving(lambda request: Reply(status=200, body=body)) as server,
        pytest.raises(BackupError, match=f"is no export of metrics: {said}") as told,
    ):
        export(tmp_path / "day", server.url, flavour)
    assert not isinstance(told.value, Refused)
    way = "victoria-lines" if flavour is Flavour.VICTORIA else "influx-annotated-csv"
    assert "it is no export of metrics" in check(tmp_path / "day", {"method": way, "points": 1})


@pytest.mark.parametrize("token", ["t\u00f6ken", "\u20ac", "a\nb", "\udc80"])
@pytest.mark.parametrize("flavour", [Flavour.VICTORIA, Flavour.INFLUX2])
def test_token_that_no_header_holds_is_refused_by_name(flavour: Flavour, token: str, tmp_path: Path) -> None:
    with pytest.raises(BackupError, match="see VELOX__METRICS__INFLUXDB__TOKEN") as told:
        export(tmp_path / "day", "http://127.0.0.1:1", flavour, token=token)
    assert token not in str(told.value)


def test_influx_3_has_none(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="InfluxDB 3 has no export"):
        export(tmp_path / "day", "http://127.0.0.1:1", Flavour.INFLUX3)
