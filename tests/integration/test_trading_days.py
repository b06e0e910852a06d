"""Whole days through the composition root: real bars, real embedded Redis, SQLite journal and broker book."""

from __future__ import annotations

import json
import os
import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from velox_core.bootstrap import RunRequest, SessionOutcome, prepare, run_engine
from velox_core.brokers.charges import load_charges
from velox_core.domain.events import EventKind, JournalEvent
from velox_core.domain.orders import Product, Side
from velox_core.feeds.load import available_dates
from velox_core.journal.export import export_events
from velox_core.journal.queries import JournalReader
from velox_core.operations.explain import DecisionFilter, explain_run
from velox_core.operations.recorded import RecordedRun
from velox_core.operations.report import build_report
from velox_core.operations.session_report import make_report
from velox_core.operations.session_story import build_story
from velox_core.operations.view import signed_rupees
from velox_core.redis_server import EmbeddedRedis
from velox_core.runs import RunState, read_state
from velox_core.settings import Paths, Settings, load_settings

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "config" / "system_simulated.yaml"
SHARED_MONTH = ROOT.parent / "shared" / "data" / "tcs_1min_2024-01" / "TCS_minute.csv"
TCS_DAY = date(2024, 1, 15)
CRASH_DAY = date(2024, 1, 16)
TICK_DAY = date(2021, 6, 9)
SHARED_TICKS = ROOT.parent / "shared" / "data" / "ticks_2021-06-09"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Settings, Paths]]:
    """A var folder of its own with one embedded Redis, ended afterwards."""
    var = tmp_path_factory.mktemp("var")
    yield load_settings(CONFIG, {}), Paths(var=var, logs=var / "logs")
    EmbeddedRedis(var / "redis").stop()


@pytest.fixture
def shared_ticks() -> Path:
    """The folder of real ticks beside the project; skip without it."""
    if not SHARED_TICKS.is_dir():
        pytest.skip("the folder shared/data does not lie beside the project")
    return SHARED_TICKS


def run_day(world: tuple[Settings, Paths], request: RunRequest) -> tuple[SessionOutcome, list[JournalEvent]]:
    """Run one day and return its outcome and its journal."""
    settings, paths = world
    outcome = run_engine(settings, paths, request)
    reader = JournalReader(f"sqlite:///{outcome.run.folder / 'journal.db'}")
    run = reader.latest_run(request.date)
    assert run is not None
    assert run.run_key is not None
    events = reader.events(run.run_key)
    assert reader.verify_chain(run.run_key) is None
    reader.close()
    return outcome, events


def net_from_fills_alone(events: list[JournalEvent], day: date) -> int:
    """Return the P&L in paise from the fills' sides, quantities and prices and the charge table, and nothing else."""
    schedule = load_charges(ROOT / "config" / "charges.yaml").schedule("simulated", Product.MIS, day)
    cash = 0
    value_by_order: dict[tuple[str, str], int] = defaultdict(int)
    for event in events:
        if event.kind is EventKind.FILL:
            side, quantity, price = str(event.body["side"]), int(str(event.body["quantity"])), int(str(event.body["price"]))
            cash += quantity * price * (1 if side == "SELL" else -1)
            value_by_order[(str(event.body["client_order_id"]), side)] += quantity * price
    return cash - sum(schedule.breakdown(Side(side), value).total for (_, side), value in value_by_order.items())


def test_trading_day_tcs_ends_flat_and_its_summary_is_what_the_fills_say(world: tuple[Settings, Paths]) -> None:
    outcome, events = run_day(world, RunRequest(date=TCS_DAY, speed=0.0, fresh=True))
    report = build_report(events, outcome.facts)
    assert (outcome.exit_code, outcome.flat, outcome.halted) == (0, True, False)
    assert report["flat"]
    assert report["fill_count"] >= 2
    assert report["net_paise"] == net_from_fills_alone(events, TCS_DAY)
    assert build_story(events, {}).equity[-1][1] == report["net_paise"]  # the curve ends at what the fills say
    assert read_state(outcome.run.folder) is RunState.ENDED
    status = json.loads((outcome.run.folder / "status.json").read_text())
    assert (status["state"], status["pid"], status["run_id"]) == ("DONE", os.getpid(), outcome.run.run_id)
    settings, paths = world
    recorded = RecordedRun(run=outcome.run, trading_date=TCS_DAY)
    made = make_report(settings, paths, recorded)
    page = made.page.read_bytes()
    assert (made.story.no_prices, len(made.story.fills)) == ("", report["fill_count"])
    assert made.page.is_relative_to(paths.var / "reports")
    for money in (report["net_paise"], report["charges_paise"], *(trade["net_paise"] for trade in report["trades"])):
        assert signed_rupees(money).lstrip("+").encode() in page
    assert make_report(settings, paths, recorded).page.read_bytes() == page
    explanation = explain_run(settings, recorded, DecisionFilter(), shown_max=100)
    assert (explanation.approved_entries, explanation.approved_exits) == (
        report["entry_order_count"],
        report["order_count"] - report["entry_order_count"],
    )
    assert not any(decision.note for decision in explanation.decisions)  # every state was worked out again, and agrees


def test_trading_day_every_order_was_journaled_before_it_was_sent_and_every_trade_is_journaled(
    world: tuple[Settings, Paths],
) -> None:
    outcome, events = run_day(world, RunRequest(date=TCS_DAY, speed=0.0, fresh=True))
    intent_at = {str(e.body["client_order_id"]): e.sequence for e in events if e.kind is EventKind.INTENT}
    answered = [(str(e.body["client_order_id"]), e.sequence) for e in events if e.kind is EventKind.ORDER]
    assert answered
    assert all(intent_at[order_id] < sequence for order_id, sequence in answered)
    with closing(sqlite3.connect(outcome.run.folder / "broker.db")) as book:
        at_broker = [f"T{number}" for (number,) in book.execute("SELECT number FROM trades ORDER BY number")]
        assert book.execute("SELECT count(*) FROM positions WHERE quantity <> 0").fetchone() == (0,)
    assert at_broker == [str(e.body["trade_id"]) for e in events if e.kind is EventKind.FILL]
    entries = [e.body for e in events if e.kind is EventKind.INTENT and e.body["role"] == "ENTRY"]
    assert entries
    assert {body["quantity"] for body in entries} == {1}


@pytest.mark.skipif(not SHARED_MONTH.is_file(), reason="the month of real TCS minutes lies beside the project, not in it")
def test_trading_days_all_22_tcs_days_run_flat_and_add_up(world: tuple[Settings, Paths]) -> None:
    dates = available_dates(SHARED_MONTH)
    assert len(dates) == 22
    assert date(2024, 1, 20) in dates
    fills = 0
    for day in dates:
        outcome, events = run_day(world, RunRequest(date=day, speed=0.0, data=SHARED_MONTH, fresh=True))
        report = build_report(events, outcome.facts)
        assert (outcome.exit_code, outcome.flat) == (0, True), f"{day}: {outcome}"
        assert report["net_paise"] == net_from_fills_alone(events, day), f"{day}"
        assert report["worst_loss_paise"] < report["loss_limit_paise"]
        fills += report["fill_count"]
    assert fills > 22


def test_trading_day_paced_and_at_max_writes_the_same_bytes(world: tuple[Settings, Paths]) -> None:
    _, fast = run_day(world, RunRequest(date=TCS_DAY, speed=0.0, fresh=True))
    _, paced = run_day(world, RunRequest(date=TCS_DAY, speed=2_400.0, fresh=True))
    exported = export_events(fast)
    assert exported.count(b"\n") > 100
    assert exported == export_events(paced)


def test_trading_day_of_ticks_twice_is_the_same_bytes_flat_and_its_duplicates_are_reported(
    world: tuple[Settings, Paths], shared_ticks: Path
) -> None:
    request = RunRequest(date=TICK_DAY, speed=0.0, data=shared_ticks, fresh=True)
    outcome, events = run_day(world, request)
    report = build_report(events, outcome.facts)
    assert (outcome.exit_code, outcome.flat, outcome.halted) == (0, True, False)
    assert report["net_paise"] == net_from_fills_alone(events, TICK_DAY)
    assert report["fill_count"] > 10
    assert str(outcome.facts["granularity"]).startswith("ticks")
    assert outcome.facts["ticks"] == 88_159
    quality = {row["rule"]: row for row in outcome.facts["data_quality"]}  # type: ignore[attr-defined]
    assert quality["duplicate"]["by_symbol"] == {"HDFCBANK": 556, "INFY": 425, "RELIANCE": 564, "SBIN": 332, "TCS": 769}
    fills_between_minutes = [e for e in events if e.kind is EventKind.FILL and e.ts_ms % 60_000]
    assert len(fills_between_minutes) == report["fill_count"]
    _, again = run_day(world, request)
    assert export_events(again) == export_events(events)


def test_trading_day_of_ticks_a_loss_between_two_minutes_halts_and_closes_there(
    world: tuple[Settings, Paths], shared_ticks: Path
) -> None:
    _, paths = world
    small = load_settings(CONFIG, {"VELOX__RISK__MAX_DAILY_LOSS": "20"})
    outcome, events = run_day((small, paths), RunRequest(date=TICK_DAY, speed=0.0, data=shared_ticks, fresh=True))
    assert (outcome.exit_code, outcome.flat, outcome.halted) == (0, True, True)
    (halt,) = [event for event in events if event.kind is EventKind.HALT]
    assert halt.body["kind"] == "LOSS"
    assert halt.ts_ms % 60_000 != 0
    after = [event for event in events if event.kind is EventKind.FILL and event.ts_ms > halt.ts_ms]
    assert after
    assert all(event.ts_ms - halt.ts_ms <= 10_000 for event in after)  # the files have gaps of seconds


def _kinds_after(events: list[JournalEvent], kind: EventKind) -> list[JournalEvent]:
    first = next(index for index, event in enumerate(events) if event.kind is kind)
    return events[first + 1 :]


def test_trading_day_crash_halts_closes_everything_and_stays_off(world: tuple[Settings, Paths]) -> None:
    outcome, events = run_day(world, RunRequest(date=CRASH_DAY, speed=0.0, scenario="crash", fresh=True))
    report = build_report(events, outcome.facts)
    assert (outcome.exit_code, outcome.flat, outcome.halted) == (0, True, True)
    assert report["synthetic"] is True
    assert "crash" in str(report["source"])
    assert [halt["kind"] for halt in report["halts"]] == ["LOSS"]
    after = _kinds_after(events, EventKind.HALT)
    assert not [e for e in after if e.kind is EventKind.INTENT and e.body["role"] == "ENTRY"]
    refused = [e.body for e in after if e.kind is EventKind.DECISION and e.body["kind"] == "ENTRY"]
    assert refused
    assert {body["code"] for body in refused} == {"EMERGENCY_EXIT_ACTIVE"}
    exits = [e.body for e in after if e.kind is EventKind.INTENT]
    assert exits
    assert {body["rank"] for body in exits} == {4}
    assert read_state(outcome.run.folder) is RunState.ENDED_HALTED
    overshoot_paise = -int(report["net_paise"]) - int(report["loss_limit_paise"])
    day = prepare(*world, RunRequest(date=CRASH_DAY, scenario="crash", fresh=True)).day
    moves_paise = 0  # of what was closed, in its wildest bar
    for body in exits:
        closes = [row.closes[day.universe.index(str(body["symbol"]))] for row in day.rows]
        moves_paise += int(body["quantity"]) * max(abs(later - sooner) for sooner, later in pairwise(closes))
    assert -moves_paise <= overshoot_paise <= moves_paise


def test_trading_day_started_again_after_a_halt_stays_halted_and_sends_nothing(world: tuple[Settings, Paths]) -> None:
    first, before = run_day(world, RunRequest(date=CRASH_DAY, speed=0.0, scenario="crash", fresh=True))
    EmbeddedRedis(world[1].var / "redis").stop()
    again, after = run_day(world, RunRequest(date=CRASH_DAY, speed=0.0, scenario="crash"))
    assert again.run.run_id == first.run.run_id
    assert again.halted
    assert again.flat

    def traded(events: list[JournalEvent]) -> list[Any]:
        return [e.body for e in events if e.kind in (EventKind.INTENT, EventKind.FILL)]

    assert traded(after) == traded(before)
    next_day, events = run_day(world, RunRequest(date=date(2024, 1, 17), speed=0.0, scenario="calm"))
    assert (next_day.flat, next_day.halted) == (True, False)
    assert traded(events)


def test_trading_day_with_the_ledger_away_opens_nothing(world: tuple[Settings, Paths], tmp_path: Path) -> None:
    settings = load_settings(CONFIG, {"VELOX__STORES__REDIS__URL": f"unix://{tmp_path / 'nobody.sock'}"})
    paths = Paths(var=tmp_path / "var", logs=tmp_path / "logs")
    outcome, events = run_day((settings, paths), RunRequest(date=TCS_DAY, speed=0.0))
    assert outcome.flat
    assert not [e for e in events if e.kind is EventKind.INTENT]
    codes = {e.body["code"] for e in events if e.kind is EventKind.DECISION}
    assert codes == {"LEDGER_UNAVAILABLE"}
