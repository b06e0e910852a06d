from __future__ import annotations

import pytest
from influxdb_client import Point as ClientPoint

from velox_core.metrics import Point, encode


def test_line_has_sorted_tags_fields_with_their_types_and_nanoseconds() -> None:
    point = Point("velox_pnl", {"symbol": "TCS", "code": "OK"}, {"net_paise": -5, "share": 0.25}, 1_705_290_300_000_000_001)
    line = encode(point, {"mode": "replay", "run": ""})
    assert line == "velox_pnl,code=OK,mode=replay,symbol=TCS net_paise=-5i,share=0.25 1705290300000000001"


def test_line_escapes_as_the_client_library_does() -> None:
    tags = {"symbol": "M&M", "reason": "a, b=c d"}
    ours = encode(Point("velox_lock", tags, {"count": 1}, 5), {})
    theirs = ClientPoint("velox_lock").tag("symbol", "M&M").tag("reason", "a, b=c d").field("count", 1).time(5)
    assert ours == theirs.to_line_protocol()


@pytest.mark.parametrize(
    ("text", "shown"),
    [("two\nlines", "two_lines"), ("ends in a backslash\\", r"ends\ in\ a\ backslash_"), ("\x00", "_"), ("x" * 500, "x" * 200)],
)
def test_tag_of_any_text_stays_one_tag_of_one_line(text: str, shown: str) -> None:
    assert encode(Point("velox_lock", {"reason": text}, {"count": 1}, 5), {}) == f"velox_lock,reason={shown} count=1i 5"


@pytest.mark.parametrize(
    "fields",
    [{}, {"a": float("nan")}, {"a": float("inf")}, {"a": 2**63}, {"a": "text"}, {"a": True}, {"a b": 1}, {"a": 1, "b": None}],
)
def test_point_without_a_number_that_a_server_takes_has_no_line(fields: dict[str, object]) -> None:
    assert encode(Point("velox_pnl", {}, fields, 5), {}) is None  # type: ignore[arg-type]


@pytest.mark.parametrize("at_ns", [-1, 2**63])
def test_point_outside_of_time_has_no_line(at_ns: int) -> None:
    assert encode(Point("velox_pnl", {}, {"a": 1}, at_ns), {}) is None
