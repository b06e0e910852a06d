"""An engine killed with -9 while it holds a position, and what the next one does, store by store."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.stopped import is_stopped
from velox_core.bootstrap import RunRequest, SessionOutcome, run_engine
from velox_core.domain.errors import ConfigError, VeloxError
from velox_core.domain.events import EventKind, JournalEvent
from velox_core.journal.queries import JournalReader
from velox_core.redis_server import EmbeddedRedis
from velox_core.settings import Paths, load_settings

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "config" / "system_simulated.yaml"
DAY = date(2024, 1, 15)
RUN_ID = "2024-01-15-1"
WAIT_SECONDS = 240.0

pytestmark = pytest.mark.slow


class Trial:
    """One var folder, and the engines that live in it one after another."""

    def __init__(self, var: Path) -> None:
        self.var = var
        self.folder = var / "replay" / "primary" / RUN_ID

    def start_process(self) -> subprocess.Popen[bytes]:
        """Start an engine as a process of its own, a minute each 60 ms."""
        command = [sys.executable, "-m", "velox_core.cli", "run", "--json", "--config", str(CONFIG)]
        return subprocess.Popen(
            [*command, "--date", DAY.isoformat(), "--speed", "1000"],
            env={**os.environ, "VELOX__VAR": str(self.var)},
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def kill_while_holding(self, *, fills: int) -> None:
        """Start an engine and kill it with -9 once it holds a position after so many fills."""
        process = self.start_process()
        self.stop_while_holding(process, fills=fills)
        os.kill(process.pid, signal.SIGKILL)
        process.wait(timeout=WAIT_SECONDS)

    def stop_while_holding(self, process: subprocess.Popen[Any], *, fills: int = 1) -> None:
        """Stop an engine with SIGSTOP once it holds a position after so many fills.

        What its status said may have changed before the signal reached it, so the broker's book is asked while it stands
        still; one that holds nothing any more goes on to its next position.
        """
        deadline = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < deadline:
            status = self.status()
            assert process.poll() is None, "the engine ended before it held a position"
            if status.get("positions") and int(str(status.get("fills", 0))) >= fills and status.get("pid") == process.pid:
                os.kill(process.pid, signal.SIGSTOP)
                wait_until_stopped(process)
                if self.held_at_the_broker():
                    return
                os.kill(process.pid, signal.SIGCONT)
            time.sleep(0.005)
        raise AssertionError(f"the engine never stood still with a position: {self.status()}")

    def held_at_the_broker(self) -> dict[str, int]:
        """Return the net positions by the broker's trades."""
        held: dict[str, int] = {}
        for symbol, side, quantity in self.book("SELECT symbol, side, quantity FROM trades"):
            held[symbol] = held.get(symbol, 0) + (quantity if side == "BUY" else -quantity)
        return {symbol: quantity for symbol, quantity in held.items() if quantity}

    def book(self, query: str) -> list[tuple[Any, ...]]:
        """Ask the broker's own book."""
        with closing(sqlite3.connect(self.folder / "broker.db", timeout=WAIT_SECONDS)) as connection:
            return connection.execute(query).fetchall()

    def status(self) -> dict[str, object]:
        """Return what the engine last published."""
        try:
            found = json.loads((self.folder / "status.json").read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def run_again(self, environ: dict[str, str] | None = None, data: Path | None = None) -> SessionOutcome:
        """Take the run up in this process, at full speed."""
        settings = load_settings(CONFIG, environ or {})
        paths = Paths(var=self.var, logs=self.var / "logs")
        return run_engine(settings, paths, RunRequest(date=DAY, speed=0.0, data=data))

    def events(self) -> list[JournalEvent]:
        """Return the run's journal."""
        reader = JournalReader(f"sqlite:///{self.folder / 'journal.db'}")
        run = reader.latest_run(DAY)
        assert run is not None
        assert run.run_key is not None
        events = reader.events(run.run_key)
        reader.close()
        return events


def wait_until_stopped(process: subprocess.Popen[Any]) -> None:
    """Wait until SIGSTOP has stopped a process."""
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, "the engine ended before it stopped"
        if is_stopped(process.pid):
            return
        time.sleep(0.01)
    raise AssertionError("the engine never stopped")


@pytest.fixture
def trial(tmp_path: Path) -> Iterator[Trial]:
    """A trial whose embedded Redis is ended afterwards."""
    yield Trial(tmp_path / "var")
    EmbeddedRedis(tmp_path / "var" / "redis").stop()


def entries(events: list[JournalEvent]) -> list[str]:
    """Return the client order ids of the entries."""
    return [str(e.body["client_order_id"]) for e in events if e.kind is EventKind.INTENT and e.body["role"] == "ENTRY"]


def test_restart_after_kill_resumes_at_once_and_ends_flat_without_a_second_order(trial: Trial) -> None:
    trial.kill_while_holding(fills=1)
    before = entries(trial.events())
    outcome = trial.run_again()
    events = trial.events()
    assert (outcome.exit_code, outcome.flat, outcome.run.run_id) == (0, True, RUN_ID)
    ids = [str(e.body["client_order_id"]) for e in events if e.kind is EventKind.INTENT]
    assert len(ids) == len(set(ids))
    assert entries(events)[: len(before)] == before
    trade_ids = [str(e.body["trade_id"]) for e in events if e.kind is EventKind.FILL]
    assert len(trade_ids) == len(set(trade_ids))


def test_restart_with_redis_away_closes_what_is_held_and_opens_nothing(trial: Trial, tmp_path: Path) -> None:
    trial.kill_while_holding(fills=3)  # the second position, held for a second and a half; the later ones are shorter
    before = entries(trial.events())
    outcome = trial.run_again({"VELOX__STORES__REDIS__URL": f"unix://{tmp_path / 'nobody.sock'}"})
    assert outcome.flat
    assert entries(trial.events()) == before
    exits = [e.body for e in trial.events() if e.kind is EventKind.INTENT and e.body["role"] == "EXIT"]
    assert exits


def test_restart_with_an_unreadable_journal_closes_what_the_broker_holds(trial: Trial) -> None:
    trial.kill_while_holding(fills=1)
    for name in ("journal.db", "journal.db-wal", "journal.db-shm"):
        (trial.folder / name).unlink(missing_ok=True)
    (trial.folder / "journal.db").write_bytes(b"this is no database" * 300)
    outcome = trial.run_again()
    assert outcome.flat
    assert outcome.halted
    assert (trial.folder / "emergency.jsonl").stat().st_size > 0


def test_restart_with_another_configuration_only_exits(trial: Trial) -> None:
    trial.kill_while_holding(fills=1)
    before = entries(trial.events())
    outcome = trial.run_again({"VELOX__RISK__FIXED_LOT_SIZE": "2", "VELOX__RISK__MAX_POSITION_SIZE": "9000"})
    assert outcome.flat
    assert entries(trial.events()) == before


def test_restart_with_other_data_is_refused_and_changes_nothing(trial: Trial, tmp_path: Path) -> None:
    trial.kill_while_holding(fills=1)
    other = tmp_path / "OTHER.csv"
    other.write_text((ROOT / "data" / "tcs_2024-01-15.csv").read_text())
    before = len(trial.events())
    with pytest.raises(ConfigError, match="begun on"):
        trial.run_again(data=other)
    assert len(trial.events()) == before


def test_second_engine_on_one_run_is_refused_while_the_first_lives(trial: Trial) -> None:
    process = trial.start_process()
    try:
        deadline = time.monotonic() + WAIT_SECONDS
        while trial.status().get("pid") != process.pid and time.monotonic() < deadline:
            assert process.poll() is None, "the engine ended before it said anything"
            time.sleep(0.01)
        with pytest.raises(VeloxError, match=f"process {process.pid}"):
            trial.run_again()
    finally:
        process.terminate()
        assert process.wait(timeout=WAIT_SECONDS) == 0
