"""kill -9 at every step of an order's life, restart, end of day: no order twice, none unowned, flat, journal = broker.

Each case is a fresh account: engines that die at a point (one after another), then a plain `velox run` on the same run,
then the end of day. What must hold afterwards is read from the broker's own file and compared with journal and ledger.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.integration.crash_day import ANY, DAY, HELD, LOT, write_bars
from velox_core.brokers.charges import load_charges
from velox_core.domain.events import EventKind, JournalEvent
from velox_core.domain.halts import HaltKind
from velox_core.domain.orders import Product, Side
from velox_core.halt_file import JsonLinesHaltFile
from velox_core.journal.file import read_events
from velox_core.journal.queries import JournalReader
from velox_core.ledger.redis import RedisLedger
from velox_core.operations.day import Day, DayRequest, open_day
from velox_core.operations.eod import find_session
from velox_core.operations.evening import run_evening
from velox_core.redis_server import EmbeddedRedis
from velox_core.run_stores import EMERGENCY_FILE

ROOT = Path(__file__).resolve().parents[2]
RUN_ID = f"{DAY}-1"
SCOPE_KEY = f"simulated:primary:{RUN_ID}"
CONFIG = """
system:
  environment: simulated
  account: primary
  broker: {type: simulated, capital: 1000000}
  risk:
    max_daily_loss: 200
    max_daily_loss_pct: 2.0
    initial_capital: 1000000
    fixed_lot_size: 4
    enable_deduplication: true
    dedup_window_seconds: 5
    max_position_size: 5000
    max_positions_per_strategy: 4
    max_total_positions: 4
  feed: {path: bars.csv, symbols: [], speed: max}
  strategies:
    - name: levels
      class_path: tests.integration.crash_day:Levels
  market: {entry_until: "14:45", flat_by: "15:05", hard_stop: "15:10"}
  simulation: {seed: 1, slippage_bps: 2, latency_ms: 50, partial_fill_probability: 1.0}
"""

pytestmark = pytest.mark.slow


@dataclass(frozen=True, slots=True, kw_only=True)
class Death:
    """Where an engine dies: at the n-th passing of a point. `redis`: its server is 'killed' too, or 'lost' with its files.

    `journal`: from its first exit on the journal is 'locked', or its table 'torn' out until the engine is dead.
    """

    point: str
    nth: int = 1
    redis: str = ""
    journal: str = ""

    def __str__(self) -> str:
        without = "".join(f"-{name}-{how}" for name, how in (("redis", self.redis), ("journal", self.journal)) if how)
        return f"{self.point.replace(' ', '-')}-{self.nth}{without}"


def deaths(*points: str | tuple[str, int]) -> list[tuple[Death, ...]]:
    """Return one case for each point, with an engine that dies there."""
    return [(Death(point=p) if isinstance(p, str) else Death(point=p[0], nth=p[1]),) for p in points]


IN_AN_ENTRY = deaths(
    "claim:before",
    "claim:after",
    "intent ENTRY:before",
    "intent ENTRY:after",
    "place ENTRY:after",
    "OPEN ENTRY:after",
    "news ENTRY:after",
    "ledger fill:after",
    "PARTIALLY_FILLED ENTRY:before",
    "PARTIALLY_FILLED ENTRY:after",
    ("news ENTRY:after", 2),
    "FILLED ENTRY:before",
    "FILLED ENTRY:after",
)
IN_AN_EXIT = deaths(
    "intent EXIT:before",
    "intent EXIT:after",
    "place EXIT:after",
    "OPEN EXIT:after",
    "news EXIT:after",
    "PARTIALLY_FILLED EXIT:before",
    "PARTIALLY_FILLED EXIT:after",
    "FILLED EXIT:before",
    "FILLED EXIT:after",
)
IN_A_FLATTEN = deaths(
    "halt file:before",
    "halt file:after",
    "halt record:after",
    "ledger halt:after",
    "cancel:before",
    "cancel:after",
    "intent EMERGENCY:before",
    "intent EMERGENCY:after",
    "place EMERGENCY:after",
    ("place EMERGENCY:after", 2),
    ("place EMERGENCY:after", 4),
    "PARTIALLY_FILLED EMERGENCY:after",
    "FILLED EMERGENCY:before",
)
SEVERAL = [
    (Death(point="place ENTRY:after", redis="killed"),),
    (Death(point="place ENTRY:after", redis="lost"),),
    (Death(point="PARTIALLY_FILLED EXIT:after", redis="killed"),),
    (Death(point="place ENTRY:after"), Death(point="place ENTRY:after"), Death(point="place EXIT:after")),
    (Death(point="news ENTRY:after"), Death(point="PARTIALLY_FILLED ENTRY:before"), Death(point="ledger fill:after")),
    (Death(point="OPEN ENTRY:after", redis="lost"), Death(point="rebuild:before"), Death(point="rebuild:after")),
]
SEVERAL_IN_A_FLATTEN = [
    (Death(point="place EMERGENCY:after"), Death(point="place EMERGENCY:after"), Death(point="FILLED EMERGENCY:after")),
    (Death(point="halt file:after", redis="lost"), Death(point="place EMERGENCY:after", nth=2)),
]
OFF_THE_LOOP = deaths(
    "handed over ENTRY:after",
    "place ENTRY:before",
    "place ENTRY:after",
    "answered ENTRY:after",
    "place EXIT:before",
    "answered EXIT:after",
)
OFF_THE_LOOP_IN_A_FLATTEN = deaths("handed over EMERGENCY:after", "place EMERGENCY:after")
WITHOUT_JOURNAL = [
    Death(point="place EXIT:after", journal="locked"),
    Death(point="news EXIT:after", journal="locked"),
    Death(point="FILLED EXIT:before", nth=2, journal="locked"),
    Death(point="place EXIT:after", journal="torn"),
]
ANYWHERE = deaths(*((ANY, nth) for nth in (30, 90, 150, 210)))
CASES = [("calm", case) for case in IN_AN_ENTRY + IN_AN_EXIT + SEVERAL]
CASES += [("fall", case) for case in IN_A_FLATTEN + SEVERAL_IN_A_FLATTEN + ANYWHERE]


OFF_LOOP_CASES = [("calm", case) for case in OFF_THE_LOOP] + [("fall", case) for case in OFF_THE_LOOP_IN_A_FLATTEN]
OFF_LOOP_SPEED = "500"  # more, and entries would wait for a place in the rate until they are too old


class Engines:
    """The process that forks engines."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.crash_day"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, trial: Trial, death: Death | None) -> int:
        """Run one engine to its end, or its death, and return its exit code."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        request = {
            "environ": {"VELOX__VAR": str(trial.var)},
            "output": str(trial.folder / "output.txt"),
            "arguments": ["run", "--json", "--config", str(trial.config), "--date", DAY.isoformat(), "--data", str(trial.bars)],
            "crash": None if death is None else (death.point, death.nth, death.redis, death.journal),
        }
        stdin.write(json.dumps(request) + "\n")
        stdin.flush()
        return int(stdout.readline())

    def close(self) -> None:
        """End the process."""
        self._process.communicate(timeout=240)


class Trial:
    """One account, its files, and what they say at the end."""

    def __init__(self, folder: Path, *, falls: bool, off_loop: bool = False) -> None:
        self.folder = folder
        self.falls = falls
        self.var = folder / "var"
        self.run_folder = self.var / "replay" / "primary" / RUN_ID
        self.emergency_file = self.run_folder / EMERGENCY_FILE
        self.bars = folder / "bars.csv"
        self.config = folder / "system.yaml"
        text = CONFIG.replace("speed: max", f"speed: {OFF_LOOP_SPEED}") + "  engine: {sends_off_loop: true}\n"
        self.config.write_text(text if off_loop else CONFIG, encoding="utf-8")
        write_bars(self.bars, falls=falls)

    def day(self) -> Day:
        """Return the day as a flow would open it."""
        request = DayRequest(config=self.config, date=DAY, data=self.bars)
        return open_day(request, {**os.environ, "VELOX__VAR": str(self.var)})

    def end_of_day(self) -> dict[str, Any]:
        """Close the day as its flow does, and return the summary."""
        day = self.day()
        recorded = find_session(day)
        done = run_evening(day, recorded)
        assert done.exit_code == 0, done.sentence
        assert "The same against the limit" in (self.var / "reports" / "primary" / f"{RUN_ID}.html").read_text(encoding="utf-8")
        return done.report

    def journal(self) -> list[JournalEvent]:
        """Return the run's events, after a check of the hash chain."""
        with closing(JournalReader(f"sqlite:///{self.run_folder / 'journal.db'}")) as reader:
            run = reader.latest_run(DAY)
            assert run is not None
            assert run.run_key is not None
            assert reader.verify_chain(run.run_key) is None
            return reader.events(run.run_key)

    def mend_journal(self) -> None:
        """Put a table back that was torn out."""
        with closing(sqlite3.connect(self.run_folder / "journal.db")) as journal, journal:
            if journal.execute("SELECT 1 FROM sqlite_master WHERE name = 'torn_out'").fetchone():
                journal.execute("ALTER TABLE torn_out RENAME TO event")

    def broker(self, query: str) -> list[sqlite3.Row]:
        """Return rows of the broker's own book."""
        with closing(sqlite3.connect(self.run_folder / "broker.db")) as book:
            book.row_factory = sqlite3.Row
            return book.execute(query).fetchall()


def bodies(events: list[JournalEvent], kind: EventKind) -> list[dict[str, Any]]:
    return [dict(event.body) for event in events if event.kind is kind]


def check_orders(trial: Trial, events: list[JournalEvent]) -> None:
    """No order twice, none unowned, none lost: journal and book tell of the same orders, in the same final state."""
    placed = trial.broker("SELECT * FROM orders ORDER BY number")
    intents = {body["client_order_id"]: body for body in bodies(events, EventKind.INTENT)}
    assert len(intents) == len(bodies(events, EventKind.INTENT)), "an intent twice"
    ended = {body["client_order_id"]: body for body in bodies(events, EventKind.ORDER)}
    tags = [row["tag"] for row in placed]
    assert len(tags) == len(set(tags)), "an order twice"
    assert set(tags) <= set(intents), "an order without an owner"
    for row in placed:
        intent, last = intents[row["tag"]], ended[row["tag"]]
        assert (intent["symbol"], intent["side"], intent["quantity"]) == (row["symbol"], row["side"], row["quantity"])
        assert (last["state"], last["filled"]) == (row["state"], row["filled_quantity"]), row["tag"]
    entries = Counter(row["symbol"] for row in placed if intents[row["tag"]]["role"] == "ENTRY")
    assert all(count <= len(HELD[symbol]) for symbol, count in entries.items()), f"entered again: {entries}"
    for tag in intents.keys() - set(tags):
        assert (ended[tag]["state"], ended[tag]["filled"]) == ("CANCELLED", 0), f"{tag} is nowhere"


def check_fills(trial: Trial, events: list[JournalEvent]) -> None:
    """Every trade of the broker is in the journal once, no position outgrew its lot or turned round, all are flat."""
    trades = trial.broker("SELECT * FROM trades ORDER BY number")
    theirs = [(f"T{t['number']}", t["tag"], t["symbol"], t["side"], t["quantity"], t["price_paise"]) for t in trades]
    columns = ("trade_id", "client_order_id", "symbol", "side", "quantity", "price")
    ours = [tuple(body[column] for column in columns) for body in bodies(events, EventKind.FILL)]
    assert theirs, "nothing traded"
    assert Counter(ours) == Counter(theirs)
    held: dict[str, int] = defaultdict(int)
    for trade in trades:
        held[trade["symbol"]] += trade["quantity"] * Side(trade["side"]).sign
        assert 0 <= held[trade["symbol"]] <= LOT, f"{trade['symbol']} held {held[trade['symbol']]}"
    assert not any(held.values())
    assert trial.broker("SELECT * FROM positions WHERE quantity <> 0") == []
    assert trial.broker("SELECT * FROM orders WHERE state NOT IN ('FILLED', 'CANCELLED', 'REJECTED')") == []


def check_money(trial: Trial, summary: dict[str, Any]) -> None:
    """The summary's P&L is what the broker's trades and the table of charges make it, to the paisa."""
    schedule = load_charges(ROOT / "config" / "charges.yaml").schedule("simulated", Product.MIS, DAY)
    realised = 0
    value_by_order: dict[tuple[str, str], int] = defaultdict(int)
    for trade in trial.broker("SELECT * FROM trades"):
        value = trade["quantity"] * trade["price_paise"]
        realised -= value * Side(trade["side"]).sign
        value_by_order[(trade["tag"], trade["side"])] += value
    charges = sum(schedule.order_charges_paise(Side(side), value) for (_, side), value in value_by_order.items())
    found = (summary["realised_paise"], summary["charges_paise"], summary["net_paise"])
    assert found == (realised, charges, realised - charges)


def check_ledger(trial: Trial, events: list[JournalEvent], summary: dict[str, Any]) -> None:
    """Nothing is held or claimed any more, but by an order that never reached the book: that keeps its slot for the day."""
    ledger = RedisLedger(EmbeddedRedis(trial.var / "redis").start(), SCOPE_KEY, DAY, timeout_seconds=30.0)
    snapshot = ledger.snapshot()
    ledger.close()
    not_placed = {b["client_order_id"] for b in bodies(events, EventKind.ORDER) if b["reason"].startswith("NOT_PLACED")}
    assert dict(snapshot.positions) == {}
    assert set(snapshot.claims) <= not_placed
    assert (snapshot.realised_paise, snapshot.charges_paise) == (summary["realised_paise"], summary["charges_paise"])


def check_halt(trial: Trial, events: list[JournalEvent]) -> None:
    """The loss halted the day once, nothing was opened from then on, and the end of day cleared it."""
    records = JsonLinesHaltFile(trial.run_folder / "halt.jsonl").records()
    halts = [record for record in records if not record.clears]
    assert [halt.kind for halt in halts] == [HaltKind.LOSS]
    assert {body["halt_id"] for body in bodies(events, EventKind.HALT)} <= {halts[0].halt_id}
    opened_ms = [event.ts_ms for event in events if event.kind is EventKind.INTENT and event.body["role"] == "ENTRY"]
    assert max(opened_ms) < halts[0].at_ms
    assert [record.clears for record in records if record.clears] == [halts[0].halt_id]
    assert [body["clears"] for body in bodies(events, EventKind.HALT_CLEARED)] == [halts[0].halt_id]


@pytest.fixture(scope="module")
def engines() -> Iterator[Engines]:
    """The process that forks engines, ended afterwards."""
    forking = Engines()
    yield forking
    forking.close()


@pytest.mark.parametrize(("bars", "dying"), CASES, ids=["+".join(map(str, case)) for _, case in CASES])
def test_engine_killed_and_started_again_leaves_a_day_that_adds_up(
    engines: Engines, tmp_path: Path, bars: str, dying: tuple[Death, ...]
) -> None:
    judge(engines, Trial(tmp_path, falls=bars == "fall"), dying)


def judge(engines: Engines, trial: Trial, dying: tuple[Death, ...]) -> None:
    """Let engines die one after another and one live, close the day, and judge what is left."""
    try:
        for death in dying:
            assert engines.run(trial, death) == -signal.SIGKILL, (trial.folder / "output.txt").read_text()
        assert engines.run(trial, None) == 0, (trial.folder / "output.txt").read_text()
        summary = trial.end_of_day()
        events = trial.journal()
        check_orders(trial, events)
        check_fills(trial, events)
        check_money(trial, summary)
        check_ledger(trial, events, summary)
        if trial.falls:
            check_halt(trial, events)
        else:
            assert not bodies(events, EventKind.HALT)
    finally:
        EmbeddedRedis(trial.var / "redis").stop()


@pytest.mark.parametrize(("bars", "dying"), OFF_LOOP_CASES, ids=["+".join(map(str, case)) for _, case in OFF_LOOP_CASES])
def test_engine_killed_while_its_sends_are_on_threads_leaves_a_day_that_adds_up(
    engines: Engines, tmp_path: Path, bars: str, dying: tuple[Death, ...]
) -> None:
    judge(engines, Trial(tmp_path, falls=bars == "fall", off_loop=True), dying)


@pytest.mark.parametrize("death", WITHOUT_JOURNAL, ids=str)
def test_engine_killed_while_its_journal_was_away_leaves_exits_that_the_next_one_owns(
    engines: Engines, tmp_path: Path, death: Death
) -> None:
    trial = Trial(tmp_path, falls=False)
    try:
        assert engines.run(trial, death) == -signal.SIGKILL, (trial.folder / "output.txt").read_text()
        trial.mend_journal()
        filed = {str(event.body["client_order_id"]) for event in read_events(trial.emergency_file, [EventKind.INTENT])}
        in_sql = {body["client_order_id"] for body in bodies(trial.journal(), EventKind.INTENT)}
        sent = {row["tag"] for row in trial.broker("SELECT tag FROM orders")}
        assert sent - in_sql
        assert sent - in_sql <= filed
        assert engines.run(trial, None) == 0, (trial.folder / "output.txt").read_text()
        summary = trial.end_of_day()
        events = trial.journal()
        check_orders(trial, events)
        check_fills(trial, events)
        check_money(trial, summary)
        check_ledger(trial, events, summary)
        assert not bodies(events, EventKind.HALT)
        assert not trial.emergency_file.exists()
    finally:
        EmbeddedRedis(trial.var / "redis").stop()
