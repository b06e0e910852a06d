"""A trade by hand and a foreign order while a real engine trades: locked, alerted, counted, shown, and kept over a restart."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from velox_core.brokers.book import SqliteBook
from velox_core.brokers.simulated import SimulatedBroker
from velox_core.brokers.simulated_orders import SimulationConfig
from velox_core.domain.events import EventKind, JournalEvent
from velox_core.domain.market.ticks import Instrument, SecurityClass
from velox_core.domain.orders import Side
from velox_core.journal.queries import JournalReader
from velox_core.redis_server import EmbeddedRedis

ROOT = Path(__file__).resolve().parents[2]
DAY = date(2024, 1, 15)
WAIT_SECONDS = 240.0
LATE_MS = 1_705_303_800_000  # 13:00 IST, later than the engine is when the hand trades

pytestmark = pytest.mark.slow


@dataclass
class Trial:
    """One var folder, its engines, and the account owner's hand on the same book."""

    var: Path

    @property
    def folder(self) -> Path:
        return self.var / "replay" / "primary" / "2024-01-15-1"

    @property
    def environ(self) -> dict[str, str]:
        return {**os.environ, "VELOX__VAR": str(self.var), "COLUMNS": "160"}

    def start(self, speed: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "velox_core.cli", "run", "--date", DAY.isoformat(), "--speed", speed, "--json"]
        return subprocess.Popen(
            command,
            env=self.environ,
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def doctor(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "velox_core.cli", "doctor", "--reconcile", *arguments]
        return subprocess.run(
            command, env=self.environ, cwd=ROOT, capture_output=True, text=True, timeout=WAIT_SECONDS, check=False
        )

    def status(self) -> dict[str, Any]:
        try:
            found = json.loads((self.folder / "status.json").read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def wait_for(self, process: subprocess.Popen[bytes], there: Callable[[], bool]) -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        while not there():
            assert process.poll() is None, "the engine ended too early"
            assert time.monotonic() < deadline, f"not within {WAIT_SECONDS} s; the engine says {self.status()}"
            time.sleep(0.02)

    def by_hand(self, act: Callable[[SimulatedBroker], object]) -> None:
        """Use the broker's app: another connection to the book, beside the engine."""
        instruments = {"TCS": Instrument(symbol="TCS", security_class=SecurityClass.CASH, tick_paise=5)}
        config = SimulationConfig(capital_paise=100_000_000_00)
        book = SqliteBook(self.folder / "broker.db")
        with closing(SimulatedBroker(("TCS",), instruments=instruments, config=config, book=book)) as broker:
            act(broker)

    def events(self, kind: EventKind) -> list[JournalEvent]:
        reader = JournalReader(f"sqlite:///{self.folder / 'journal.db'}")
        try:
            run = reader.latest_run(DAY)
            return [] if run is None or run.run_key is None else reader.events(run.run_key, (kind,))
        finally:
            reader.close()

    def locks(self) -> list[str]:
        return [str(event.body["reason"]) for event in self.events(EventKind.LOCK)]


@pytest.fixture
def trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Trial]:
    """A trial whose embedded Redis is ended afterwards; the hand waits for the book as long as the engine has it."""
    monkeypatch.setattr("velox_core.brokers.book.LOCK_WAIT_SECONDS", WAIT_SECONDS)
    yield Trial(tmp_path / "var")
    EmbeddedRedis(tmp_path / "var" / "redis").stop()


def test_hand_on_the_account_is_locked_alerted_counted_shown_and_kept_over_a_restart(trial: Trial) -> None:
    process = trial.start("120")
    try:
        trial.wait_for(process, lambda: trial.status().get("pid") == process.pid and trial.status().get("rows", 0) > 20)
        trial.by_hand(lambda broker: broker.desk.place_foreign("TCS", Side.BUY, 1, LATE_MS, limit_price_paise=100_000))
        trial.by_hand(lambda broker: broker.desk.trade_foreign("TCS", Side.SELL, 2, LATE_MS, price_paise=380_000))
        trial.wait_for(process, lambda: len(trial.locks()) >= 2)
        reasons = trial.locks()
        assert any(reason.startswith("unexplained order ") for reason in reasons)
        assert "an order that this system did not make traded" in reasons

        shown = trial.doctor("--json")
        assert shown.returncode == 1, shown.stderr  # the foreign order is not explained
        report = json.loads(shown.stdout)
        assert report["engine_pid"] == process.pid
        assert {(row["kind"], row["verdict"]) for row in report["differences"]} >= {
            ("FOREIGN_TRADE", "EXPLAINED"),
            ("FOREIGN_ORDER", "LOCKED"),
        }
        assert list(report["locks"]) == ["TCS"]
        table = trial.doctor().stdout
        assert "Locked for entries" in table
        assert "foreign order" in table

        trial.wait_for(process, lambda: any(p["symbol"] == "TCS" for p in trial.status().get("positions", [])))
        os.kill(process.pid, signal.SIGKILL)
        process.wait(timeout=WAIT_SECONDS)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(timeout=WAIT_SECONDS)

    foreign_fills = [e.body for e in trial.events(EventKind.FILL) if e.body["client_order_id"] == ""]
    assert [(body["side"], body["quantity"]) for body in foreign_fills] == [("SELL", 2)]
    log = "".join(path.read_text() for path in trial.var.parent.rglob("*.log"))
    assert "Our books and the broker's differ" in log
    assert "TCS is locked" in log

    entries_before = [e.body["client_order_id"] for e in trial.events(EventKind.INTENT) if e.body["role"] == "ENTRY"]
    again = trial.start("max")
    assert again.wait(timeout=WAIT_SECONDS) in (0, 4)
    entries_after = [e.body["client_order_id"] for e in trial.events(EventKind.INTENT) if e.body["role"] == "ENTRY"]
    assert entries_after == entries_before  # the lock outlived the engine
    refused = [e.body["code"] for e in trial.events(EventKind.DECISION) if e.body["kind"] == "ENTRY" and not e.body["approved"]]
    assert "SYMBOL_LOCKED" in refused
    ids = [e.body["trade_id"] for e in trial.events(EventKind.FILL)]
    assert len(ids) == len(set(ids))
