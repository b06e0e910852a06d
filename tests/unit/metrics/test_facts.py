from __future__ import annotations

import re
from collections.abc import Iterable

import pytest

from tests.fakes.metrics import LIMIT_PAISE, TAGS, fact, mark
from velox_core.domain.events import Body, EventKind
from velox_core.metrics import FactPoints, GaugePoints, Point, encode
from velox_core.metrics import facts as fact_module
from velox_core.metrics.schema import BY_NAME, QUEUES, STAGES, Source
from velox_core.ports import JournalFact

T = 1_705_290_300_000


def decision(code: str = "OK", layer: int = 0, order_id: str = "") -> Body:
    body: Body = {"strategy": "alpha", "symbol": "AAA", "side": "BUY", "kind": "ENTRY", "code": code, "layer": layer}
    return {**body, "client_order_id": order_id, "numbers": {"loss": 5}}


def intent(order_id: str = "X1", role: str = "ENTRY") -> Body:
    return {"client_order_id": order_id, "strategy": "alpha", "symbol": "AAA", "side": "BUY", "role": role, "quantity": 3}


def order(state: str, order_id: str = "X1", filled: int = 0) -> Body:
    return {"client_order_id": order_id, "state": state, "filled": filled, "broker_order_id": "B1", "reason": "text"}


def fill(quantity: int = 3, position: int = 3, symbol: str = "AAA", order_id: str = "X1") -> Body:
    body: Body = {"trade_id": "T1", "client_order_id": order_id, "strategy": "alpha", "symbol": symbol, "side": "BUY"}
    return {**body, "quantity": quantity, "price": 100, "charges": 2, "realised": -4, "position": position, "cost": 300}


def halt(kind: EventKind, halt_id: str, clears: str = "") -> JournalFact:
    return fact(kind, T, {"halt_id": halt_id, "kind": "LOSS", "clears": clears})


DAY = [  # appended and durable by the monotonic clock
    fact(EventKind.DECISION, T, decision(order_id="X1"), appended=10.0, durable=10.5),
    fact(EventKind.INTENT, T, intent(), appended=10.25, durable=10.5),
    fact(EventKind.ORDER, T + 50, order("UNKNOWN"), appended=11.0, durable=11.0),
    fact(EventKind.ORDER, T + 90, order("OPEN"), appended=11.5, durable=12.0),
    fact(EventKind.FILL, T + 1_000, fill(1, 1), appended=13.5, durable=14.0),
    fact(EventKind.FILL, T + 1_000, fill(2, 3), appended=13.75, durable=14.0),
    fact(EventKind.ORDER, T + 1_000, order("FILLED", filled=3), appended=13.75, durable=14.0),
    fact(EventKind.MARK, T + 60_000, mark(-4, 1_000, 2), appended=14.0, durable=14.5),
    fact(EventKind.DECISION, T + 60_000, decision("DAILY_LOSS", 7)),
    fact(EventKind.LOCK, T + 60_000, {"symbol": "AAA", "reason": "unexplained", "quantity": 7}),
    fact(EventKind.UNLOCK, T + 60_000, {"symbol": "AAA", "reason": "unexplained"}),
    halt(EventKind.HALT, "H1"),
    halt(EventKind.HALT_CLEARED, "C1", clears="H1"),
    fact(EventKind.STRATEGY_DISABLED, T, {"strategy": "alpha", "reason": "it raised"}),
    fact(EventKind.SESSION, T, {"phase": "CLOSED"}),
]

STATUS = {
    "engine_ms": T + 60_000,
    "data_ms": T + 58_500,
    "net_paise": -5_118,
    "headroom_paise": 194_882,
    "positions": [{"strategy": "alpha", "symbol": "AAA", "quantity": -3, "last_paise": 99, "open_paise": 3}],
    "live_orders": 1,
    "orders": 2,
    "fills": 3,
    "decisions": 4,
    "refusals": 1,
    "halted": True,
    "locked": ["AAA", "BBB"],
    "differences": 2,
    "breach_age_ms": 17,
    "rows": 60,
    "reason": "text is no number",
}


def points_of(events: Iterable[JournalFact]) -> list[Point]:
    facts = FactPoints(LIMIT_PAISE)
    return [point for event in events for point in facts.take(event)]


def named(points: list[Point], name: str) -> list[Point]:
    return [point for point in points if point.measurement == name]


def everything() -> list[Point]:
    queues = {name: {"waiting": 1, "dropped": 0, "failed": 0} for name in QUEUES}
    gauges = GaugePoints()
    closed = {**STATUS, "positions": []}
    return [*points_of(DAY), *gauges.take(STATUS, T, queues), *gauges.take(closed, T + 1, queues)]


def test_schema_names_every_point_with_exactly_its_tags_and_fields() -> None:
    seen: dict[str, set[str]] = {}
    for point in everything():
        measurement = BY_NAME[point.measurement]
        assert set(point.tags) <= set(measurement.tags), point.measurement
        assert set(point.fields) <= set(measurement.fields), point.measurement
        assert all(type(value) is int for value in point.fields.values())
        seen.setdefault(point.measurement, set()).update([*point.tags, *point.fields])
    assert seen == {name: {*m.tags, *m.fields} for name, m in BY_NAME.items()}
    assert {point.tags["stage"] for point in named(everything(), "velox_order_stage")} == set(STAGES)


def test_points_of_a_day_are_those_of_its_numbers() -> None:
    points = points_of(DAY)
    (pnl,) = named(points, "velox_pnl")
    assert pnl.fields == {
        "realised_paise": -4,
        "open_paise": 1_000,
        "charges_paise": 2,
        "net_paise": 994,
        "loss_paise": 0,
        "limit_paise": LIMIT_PAISE,
        "headroom_paise": LIMIT_PAISE + 994,
    }
    assert [p.fields["quantity"] for p in named(points, "velox_position")] == [1, 3]
    assert [p.fields["since_intent_ms"] for p in named(points, "velox_order")] == [0, 50, 90, 1_000]
    assert [p.tags["state"] for p in named(points, "velox_order")] == ["INTENT", "UNKNOWN", "OPEN", "FILLED"]
    assert [p.fields["active"] for p in named(points, "velox_halt")] == [1, 0]
    assert [p.fields["locks"] for p in named(points, "velox_lock")] == [1, 0]
    assert [(p.tags["layer"], p.tags["code"]) for p in named(points, "velox_decision")] == [("0", "OK"), ("7", "DAILY_LOSS")]


def test_loss_beyond_the_limit_has_headroom_below_zero() -> None:
    (point,) = points_of([fact(EventKind.MARK, T, mark(-150_000, -60_000, 1))])
    assert (point.fields["loss_paise"], point.fields["headroom_paise"]) == (210_001, -10_001)


def test_stages_of_an_order_are_measured_by_the_monotonic_clock_and_unknown_is_no_answer() -> None:
    durations = {p.tags["stage"]: p.fields["duration_us"] for p in named(points_of(DAY), "velox_order_stage")}
    assert durations == {"gate": 250_000, "journal": 250_000, "broker": 1_000_000, "fill": 2_000_000}


def test_order_that_fills_before_it_is_acknowledged_was_answered_by_its_trade() -> None:
    events = [DAY[1], fact(EventKind.FILL, T, fill(), appended=12.5), fact(EventKind.ORDER, T, order("FILLED"), appended=12.5)]
    durations = {p.tags["stage"]: p.fields["duration_us"] for p in named(points_of(events), "velox_order_stage")}
    assert durations == {"journal": 250_000, "broker": 2_000_000, "fill": 0}


def test_backfill_of_the_same_events_makes_the_same_lines_but_for_what_only_the_process_knew() -> None:
    live = [encode(p, TAGS) for p in points_of(DAY) if BY_NAME[p.measurement].source is Source.FACT]
    again = [encode(p, TAGS) for p in points_of(JournalFact(e.kind, e.ts_ms, e.body) for e in DAY)]
    assert live == again
    assert len(set(again)) == len(again) > 15


def test_facts_of_one_series_in_one_millisecond_replace_none_of_each_other() -> None:
    points = points_of([fact(EventKind.DECISION, T, decision("DUPLICATE_ORDER", 2)) for _ in range(3)])
    assert [p.at_ns for p in points] == [T * 1_000_000, T * 1_000_000 + 1, T * 1_000_000 + 2]
    assert [p.fields["total"] for p in points] == [1, 2, 3]
    later = points_of([fact(EventKind.DECISION, T + n, decision()) for n in range(2)])
    assert [p.at_ns for p in later] == [T * 1_000_000, (T + 1) * 1_000_000]


def test_flat_and_held_symbols_are_counted_apart() -> None:
    events = [fill(3, 3), fill(2, 2, "BBB"), fill(3, 0)]
    points = points_of(fact(EventKind.FILL, T + n, body) for n, body in enumerate(events))
    assert [p.fields["open"] for p in named(points, "velox_positions")] == [1, 2, 1]


def test_memory_of_orders_is_bounded_and_a_forgotten_one_still_has_a_point(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fact_module, "ORDERS_KNOWN_MAX", 2)
    facts = FactPoints(LIMIT_PAISE)
    for number in range(5):
        facts.take(fact(EventKind.INTENT, T + number, intent(f"X{number}")))
    assert list(facts._orders) == ["X3", "X4"]
    (point,) = facts.take(fact(EventKind.ORDER, T + 9, order("OPEN", "X0")))
    assert (point.tags, "since_intent_ms" in point.fields) == ({"state": "OPEN"}, False)


@pytest.mark.parametrize("body", [{}, {"realised": "1", "open": 0, "charges": 0}, {"realised": True, "open": 0, "charges": 0}])
def test_strange_body_is_an_error_that_the_sink_counts(body: Body) -> None:
    with pytest.raises((KeyError, TypeError)):
        FactPoints(LIMIT_PAISE).take(fact(EventKind.MARK, T, body))


def test_status_becomes_gauges_and_a_closed_position_is_shown_at_zero_once() -> None:
    gauges = GaugePoints()
    engine, mark_point, queue = gauges.take(STATUS, T + 5, {"sends": {}, "alerts": {"waiting": 4}})
    assert engine.at_ns == (T + 5) * 1_000_000
    assert engine.fields["data_age_ms"] == 1_500
    assert (engine.fields["halted"], engine.fields["locked"], engine.fields["open_positions"]) == (1, 2, 1)
    assert (mark_point.at_ns, mark_point.fields["quantity"]) == (STATUS["engine_ms"] * 1_000_000, -3)  # type: ignore[operator]
    assert queue.tags == {"queue": "alerts"}
    closed = {**STATUS, "positions": []}
    assert [p.fields for p in gauges.take(closed, T, {})[1:]] == [{"quantity": 0, "open_paise": 0}]
    assert gauges.take(closed, T, {})[1:] == []


@pytest.mark.parametrize("status", [{}, {"positions": 5, "locked": None, "engine_ms": "x", "alerts": []}])
def test_status_of_another_version_breaks_nothing(status: dict[str, object]) -> None:
    assert [p.measurement for p in GaugePoints().take(status, T, {})] == ["velox_engine"]


def test_documented_schema_is_the_one_in_the_code() -> None:
    from pathlib import Path

    page = (Path(__file__).resolve().parents[3] / "docs" / "metrics.md").read_text(encoding="utf-8")
    documented = {m[1]: m[0] for m in re.finditer(r"(?ms)^### `(velox_\w+)`\n.*?(?=^### |^## |\Z)", page)}
    assert set(documented) == set(BY_NAME)
    for name, measurement in BY_NAME.items():
        assert set(re.findall(r"(?m)^\| `(\w+)` \|", documented[name])) == set(measurement.fields), name
        tags = re.search(r"(?m)^Tags: (.*)$", documented[name])
        assert tags is not None
        assert set(re.findall(r"`(\w+)`", tags[1])) == set(measurement.tags), name
        assert measurement.source.value in documented[name], name
