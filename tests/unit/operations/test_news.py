from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import pytest

from velox_core.domain.halts import HaltKind
from velox_core.operations.news import (
    Armed,
    Breach,
    Ended,
    EventName,
    Flat,
    Halt,
    News,
    Payload,
    Subject,
    ended_of,
    heartbeat_of,
    is_flat,
    news_of,
    subject_of,
)
from velox_core.operations.status import Status
from velox_core.settings import load_settings

ROOT = Path(__file__).resolve().parents[3]
SUBJECT = Subject(
    broker="simulated", account="primary", environment="simulated", trading_date="2024-01-16", config="/c.yaml", run_id="r-1"
)
HELD = [{"symbol": "TCS", "quantity": 1}]


def status(**changes: Any) -> Status:
    body = {
        "state": "RUNNING",
        "pid": 42,
        "engine_ms": 1_705_290_660_000,
        "phase": "trading",
        "net_paise": -210_000,
        "headroom_paise": 0,
        "loss_limit_paise": 200_000,
        "positions": [],
        "live_orders": 0,
        "halts": [],
    }
    return Status(Path("var/replay/primary/r-1"), body | changes)


def halt(kind: str = "LOSS", **changes: Any) -> dict[str, Any]:
    return {"halt_id": f"20240116-{kind}-1", "kind": kind, "reason": "why", "by": "engine", "at_ms": 7} | changes


def names(found: list[News]) -> list[str]:
    return [news.name.value for news in found]


def test_news_of_a_running_day_without_halts_are_none_though_it_holds_nothing() -> None:
    assert news_of(SUBJECT, status()) == []
    assert news_of(SUBJECT, status(positions=HELD)) == []


def test_news_of_a_loss_halt_are_breach_and_halt_then_flat_once_nothing_is_held_or_works() -> None:
    while_closing = news_of(SUBJECT, status(halts=[halt()], positions=HELD))
    assert names(while_closing) == ["velox.breach", "velox.halt"]
    assert while_closing[0].payload == Breach(
        halt_id="20240116-LOSS-1", reason="why", at_ms=7, net_paise=-210_000, loss_limit_paise=200_000, open_positions=1
    )
    assert while_closing[1].payload == Halt(
        halt_id="20240116-LOSS-1", kind="LOSS", reason="why", by="engine", at_ms=7, closes=True
    )
    assert names(news_of(SUBJECT, status(halts=[halt()], live_orders=1))) == ["velox.breach", "velox.halt"]
    closed = news_of(SUBJECT, status(halts=[halt()]))
    assert names(closed) == ["velox.breach", "velox.halt", "velox.flat"]
    assert closed[2].payload == Flat(after="20240116-LOSS-1", said_by="engine", net_paise=-210_000)
    assert "FLAT after 20240116-LOSS-1" in closed[2].sentence


@pytest.mark.parametrize(
    ("record", "closes"),
    [
        (halt("MANUAL", keeps_positions=True), False),
        (halt("MANUAL", keeps_positions=False), True),
        (halt("RECONCILE"), False),
        (halt("FAULT"), True),
        (halt("LOSS"), True),
        (halt("SOMETHING_NEW"), True),
        ({"halt_id": "torn"}, True),
    ],
)
def test_news_of_each_kind_of_halt_say_whether_it_closes(record: dict[str, Any], closes: bool) -> None:
    found = [news for news in news_of(SUBJECT, status(halts=[record])) if isinstance(news.payload, Halt)]
    assert [news.payload.closes for news in found if isinstance(news.payload, Halt)] == [closes]
    assert ("velox.flat" in names(news_of(SUBJECT, status(halts=[record])))) is closes
    assert {kind.value for kind in HaltKind} == {"LOSS", "MANUAL", "RECONCILE", "FAULT"}  # each has its line above


def test_news_of_an_ended_session_are_flat_only_when_it_is() -> None:
    (flat,) = news_of(SUBJECT, status(state="DONE"))
    assert flat.payload == Flat(after="session end", said_by="engine", net_paise=-210_000)
    assert news_of(SUBJECT, status(state="DONE", positions=HELD)) == []
    assert news_of(SUBJECT, status(state="FAILED")) == []


@pytest.mark.parametrize("missing", ["positions", "live_orders"])
def test_is_flat_what_a_status_does_not_say_is_not_flat(missing: str) -> None:
    body = {key: value for key, value in status().body.items() if key != missing}
    assert is_flat(status())
    assert not is_flat(Status(Path("x"), body))


def test_is_flat_goes_by_a_closing_from_outside_where_there_is_one() -> None:
    assert not is_flat(status(closing={"flat": False}))
    assert is_flat(status(closing={"flat": True}, positions=HELD))
    (_, _, flat) = news_of(SUBJECT, status(halts=[halt()], closing={"flat": True}))
    assert isinstance(flat.payload, Flat)
    assert flat.payload.said_by == "closing"


def test_event_id_is_the_same_for_the_same_key_of_a_run_and_another_for_another_run_or_key() -> None:
    (breach, latched) = news_of(SUBJECT, status(halts=[halt()], positions=HELD))
    again = news_of(SUBJECT, status(halts=[halt()], positions=HELD, net_paise=-999_999))[0]
    other_run = Subject(
        broker="simulated",
        account="primary",
        environment="simulated",
        trading_date="2024-01-16",
        config="/c.yaml",
        run_id="r-2",
    )
    other = news_of(other_run, status(halts=[halt()], positions=HELD))[0]
    assert breach.event_id() == again.event_id()
    assert len({breach.event_id(), latched.event_id(), other.event_id()}) == 3
    heartbeat = heartbeat_of(SUBJECT, status())
    assert heartbeat.event_id() != heartbeat.event_id()


def test_ended_says_how_and_never_flat_without_a_word_of_the_engine() -> None:
    silent = ended_of(SUBJECT, None, exit_code=None)
    assert silent.payload == Ended(state="", exit_code=-1, flat=False, cause="")
    assert "nobody knows how" in silent.sentence
    assert "NOT known to be flat" in silent.sentence
    done = ended_of(SUBJECT, status(state="DONE"), exit_code=0)
    assert done.payload == Ended(state="DONE", exit_code=0, flat=True, cause="")
    assert done.key != ended_of(SUBJECT, status(state="DONE", pid=43), exit_code=0).key


def test_every_event_name_has_exactly_one_payload_whose_body_is_json_with_its_subject() -> None:
    kinds = get_args(Payload)
    samples = {"str": "x", "int": 1, "bool": True, "tuple[str, ...]": ("x",)}
    found = set()
    for kind in kinds:
        payload = kind(**{field.name: samples[str(field.type)] for field in fields(kind)})
        news = News(subject=SUBJECT, payload=payload)
        body = json.loads(json.dumps(news.body()))
        assert body["account"] == "primary"
        assert set(body) >= {field.name for field in fields(kind)}
        found.add(news.name)
    assert found == set(EventName)
    assert len(kinds) == len(EventName)


def test_subject_is_the_account_and_names_the_configuration_of_its_host() -> None:
    settings = load_settings(ROOT / "config" / "system_simulated.yaml", {})
    subject = subject_of(settings, trading_date="2024-01-15", run_id="2024-01-15-1")
    assert subject.resource_id == "velox.account.simulated.primary"
    assert Path(subject.config).is_absolute()
    assert News(subject=subject, payload=Armed(checks=11, warnings=2)).body()["config"] == subject.config
