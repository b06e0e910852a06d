"""`velox halt` and `velox reset` as processes of their own, beside an engine that runs, that was killed, and none."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from velox_core.bootstrap import RunRequest, SessionOutcome, open_run, run_engine
from velox_core.domain.events import EventKind, JournalEvent
from velox_core.domain.halts import HaltKind, HaltRecord, active_halts
from velox_core.halt_file import HALT_FILE, JsonLinesHaltFile
from velox_core.journal.queries import JournalReader
from velox_core.operations.day import DayRequest, open_day
from velox_core.operations.eod import find_session, prove_flat, reset_day
from velox_core.operations.halt import request_halt
from velox_core.operations.reset import request_reset
from velox_core.redis_server import EmbeddedRedis
from velox_core.runs import RunState, read_state, write_state
from velox_core.settings import Paths, Settings, load_settings

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "config" / "system_simulated.yaml"
DAY = date(2024, 1, 15)
RUN_ID = "2024-01-15-1"
WAIT_SECONDS = 240.0
HELD_DAY = date(2024, 1, 16)
HELD_RUN_ID = f"{HELD_DAY}-calm-1"
HELD_CONFIG = """
system:
  environment: simulated
  account: primary
  broker: {{type: simulated, capital: 100000}}
  risk:
    max_daily_loss: 2000
    max_daily_loss_pct: 2.0
    initial_capital: 100000
    fixed_lot_size: 1
    enable_deduplication: true
    max_position_size: 5000
    max_positions_per_strategy: 3
    max_total_positions: 3
  feed: {{scenario: calm, symbols: [SYN1, SYN2], speed: 30}}
  strategies:
    - name: hold
      class_path: tests.integration.asking_strategy:HoldAndAsk
      parameters: {{asks_when: {asks_when}}}
"""

pytestmark = pytest.mark.slow


class Trial:
    """One var folder with the run of the committed day in it."""

    config, day, run_id = CONFIG, DAY, RUN_ID

    def __init__(self, var: Path) -> None:
        self.var = var
        self.folder = var / "replay" / "primary" / self.run_id
        self.paths = Paths(var=var, logs=var / "logs")

    @property
    def settings(self) -> Settings:
        return load_settings(self.config, {})

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "velox_core.cli", arguments[0], "--config", str(self.config), *arguments[1:]]

    @property
    def environ(self) -> dict[str, str]:
        return {**os.environ, "VELOX__VAR": str(self.var), "PYTHONPATH": str(ROOT)}

    def start(self) -> subprocess.Popen[bytes]:
        """Start an engine as a process of its own."""
        return subprocess.Popen(
            self.command("run", "--json", "--date", self.day.isoformat()),
            env=self.environ,
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def velox(self, *arguments: str) -> tuple[int, dict[str, Any]]:
        """Run a command to its end. Returns its exit code and its JSON."""
        done = subprocess.run(
            self.command(*arguments, "--json"),
            env=self.environ,
            cwd=ROOT,
            capture_output=True,
            timeout=WAIT_SECONDS,
            check=False,
        )
        return done.returncode, json.loads(done.stdout or b"{}")

    def status(self) -> dict[str, Any]:
        try:
            found = json.loads((self.folder / "status.json").read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def wait(self, process: subprocess.Popen[bytes], condition: Callable[[dict[str, Any]], bool]) -> None:
        """Wait until the engine's status satisfies a condition."""
        deadline = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < deadline:
            status = self.status()
            if status.get("pid") == process.pid and condition(status):
                return
            assert process.poll() is None, "the engine ended too early"
            time.sleep(0.01)
        raise AssertionError("the engine did not get there")

    def run_again(self) -> SessionOutcome:
        """Take the run up in this process, at full speed."""
        return run_engine(self.settings, self.paths, RunRequest(date=self.day, speed=0.0))

    def events(self, *kinds: EventKind) -> list[JournalEvent]:
        reader = JournalReader(f"sqlite:///{self.folder / 'journal.db'}")
        run = reader.latest_run(self.day)
        assert run is not None
        assert run.run_key is not None
        assert reader.verify_chain(run.run_key) is None
        events = reader.events(run.run_key, kinds)
        reader.close()
        return events

    def entries(self) -> list[str]:
        return [str(e.body["client_order_id"]) for e in self.events(EventKind.INTENT) if e.body["role"] == "ENTRY"]

    def refusals(self) -> list[str]:
        return [str(e.body["code"]) for e in self.events(EventKind.DECISION) if not e.body["approved"]]

    def begin(self) -> None:
        """Leave a run behind that was begun and has traded nothing, with all its stores."""
        with open_run(self.settings, self.paths, RunRequest(date=DAY)) as opened:
            opened.journal.commit()
        write_state(self.folder, RunState.BEGUN)

    def halt(self) -> str:
        """Halt the run, no engine running, and return the halt's id."""
        outcome = request_halt(self.settings, self.paths, reason="enough", by="a person", wait_seconds=0.0)
        assert (outcome.exit_code, outcome.missing, outcome.pid) == (0, {}, 0)
        return outcome.halt_id


class HeldTrial(Trial):
    """A synthetic day whose one position is held to its end, however long a busy machine takes for the commands beside it.

    `asks` is the file that makes the strategy ask for another entry each minute.
    """

    day, run_id = HELD_DAY, HELD_RUN_ID

    def __init__(self, folder: Path) -> None:
        self.asks = folder / "asks"
        self.config = folder / "config" / "system.yaml"
        self.config.parent.mkdir()
        self.config.write_text(HELD_CONFIG.format(asks_when=self.asks), encoding="utf-8")
        super().__init__(folder / "var")


@pytest.fixture
def trial(tmp_path: Path) -> Iterator[Trial]:
    """A trial whose embedded Redis is ended afterwards."""
    yield Trial(tmp_path / "var")
    EmbeddedRedis(tmp_path / "var" / "redis").stop()


@pytest.fixture
def held(tmp_path: Path) -> Iterator[HeldTrial]:
    """The same with the day that holds."""
    yield HeldTrial(tmp_path)
    EmbeddedRedis(tmp_path / "var" / "redis").stop()


@pytest.fixture
def engine(held: HeldTrial) -> Iterator[subprocess.Popen[bytes]]:
    """An engine that holds its position."""
    process = held.start()
    try:
        held.wait(process, lambda status: bool(status["positions"]))
        yield process
    finally:
        process.kill()
        process.wait(timeout=WAIT_SECONDS)


ASK = ("--reason", "enough", "--by", "a person")


def test_halt_beside_a_running_engine_stops_entries_keeps_positions_and_is_acknowledged(
    held: HeldTrial, engine: subprocess.Popen[bytes]
) -> None:
    code, answer = held.velox("halt", *ASK)
    status = held.status()
    assert (code, answer["acknowledged"], answer["not_written"], answer["engine_pid"]) == (0, True, {}, engine.pid)
    assert status["acknowledged_halts"] == [answer["halt_id"]]
    assert (status["state"], len(status["positions"])) == ("RUNNING", 1)
    code, refused = held.velox("reset", *ASK)
    assert (code, refused["cleared"]) == (4, [])
    code, shown = held.velox("status")
    assert [(halt["kind"], halt["by"], halt["reason"]) for halt in shown["halts"]] == [("MANUAL", "a person", "enough")]
    held.asks.touch()
    held.wait(engine, lambda status: status["refusals"] > 0)
    assert held.status()["acknowledged_halts"] == [answer["halt_id"]]
    engine.send_signal(signal.SIGTERM)
    assert engine.wait(timeout=WAIT_SECONDS) == 0
    assert len(held.entries()) == 1
    assert set(held.refusals()) == {"EMERGENCY_EXIT_ACTIVE"}
    exits = [e.body["rank"] for e in held.events(EventKind.INTENT) if e.body["role"] == "EXIT"]
    assert len(exits) == 1
    assert not any("emergency" in str(e.body["reason"]) for e in held.events(EventKind.INTENT))
    assert {e.body["halt_id"] for e in held.events(EventKind.HALT)} == {answer["halt_id"]}
    assert read_state(held.folder) is RunState.ENDED_HALTED


def test_halt_outlives_its_engine_and_is_reset_only_when_the_broker_says_flat(
    held: HeldTrial, engine: subprocess.Popen[bytes]
) -> None:
    _, answer = held.velox("halt", *ASK)
    engine.kill()
    engine.wait(timeout=WAIT_SECONDS)
    code, refused = held.velox("reset", *ASK)
    assert code == 4
    assert "not flat" in refused["message"]
    held.asks.touch()
    outcome = held.run_again()
    assert (outcome.exit_code, outcome.flat, outcome.halted) == (0, True, True)
    assert len(held.entries()) == 1
    assert "EMERGENCY_EXIT_ACTIVE" in held.refusals()
    code, cleared = held.velox("reset", *ASK)
    assert (code, cleared["cleared"]) == (0, [answer["halt_id"]])
    assert active_halts(JsonLinesHaltFile(held.folder / HALT_FILE).records()) == ()
    assert read_state(held.folder) is RunState.ENDED


def test_halt_with_redis_and_journal_down_reaches_the_engine_by_the_file(
    held: HeldTrial, engine: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    (held.folder / "journal.db").rename(tmp_path / "journal.db")
    (held.folder / "journal.db").mkdir()
    settings = load_settings(held.config, {"VELOX__STORES__REDIS__URL": f"unix://{tmp_path / 'nobody.sock'}"})
    outcome = request_halt(settings, held.paths, reason="enough", by="a person", wait_seconds=WAIT_SECONDS)
    assert (outcome.exit_code, outcome.acknowledged, sorted(outcome.missing)) == (0, True, ["journal", "ledger"])
    assert held.status()["acknowledged_halts"] == [outcome.halt_id]
    assert engine.poll() is None


# -- any one store left is enough ----------------------------------------------------------------------------------


def lose_file(trial: Trial) -> None:
    (trial.folder / HALT_FILE).unlink()


def lose_journal(trial: Trial) -> None:
    for name in ("journal.db", "journal.db-wal", "journal.db-shm"):
        (trial.folder / name).unlink(missing_ok=True)


def lose_ledger(trial: Trial) -> None:
    flush(trial)


def spoil_file(trial: Trial) -> None:
    content = (trial.folder / HALT_FILE).read_bytes()
    (trial.folder / HALT_FILE).write_bytes(content[: len(content) // 2])


def spoil_journal(trial: Trial) -> None:
    lose_journal(trial)
    (trial.folder / "journal.db").write_bytes(b"this is no database" * 300)


def flush(trial: Trial) -> None:
    import redis

    client = redis.Redis(unix_socket_path=str(EmbeddedRedis(trial.var / "redis").socket_path))
    client.flushall()
    client.close()


@pytest.mark.parametrize(
    "losses",
    [
        (lose_file, lose_journal),
        (lose_file, lose_ledger),
        (lose_journal, lose_ledger),
        (spoil_file, spoil_journal),
        (spoil_file, lose_ledger),
        (spoil_journal, lose_ledger),
    ],
    ids=lambda pair: " and ".join(one.__name__ for one in pair),
)
def test_halt_that_one_store_is_left_of_still_refuses_every_entry(
    trial: Trial, losses: tuple[Callable[[Trial], None], ...]
) -> None:
    trial.begin()
    trial.halt()
    for lose in losses:
        lose(trial)
    outcome = trial.run_again()
    assert outcome.halted
    assert (trial.status()["orders"], trial.status()["fills"]) == (0, 0)
    assert outcome.flat


def test_halt_that_was_copied_back_outlives_the_loss_of_the_store_it_came_from(trial: Trial) -> None:
    trial.begin()
    halt_id = trial.halt()
    lose_file(trial)
    lose_ledger(trial)
    trial.run_again()
    lose_journal(trial)
    outcome = trial.run_again()
    assert outcome.halted
    assert trial.status()["acknowledged_halts"] == [halt_id]


def test_reset_while_redis_is_away_is_refused_and_clears_nothing(trial: Trial, tmp_path: Path) -> None:
    trial.begin()
    halt_id = trial.halt()
    settings = load_settings(CONFIG, {"VELOX__STORES__REDIS__URL": f"unix://{tmp_path / 'nobody.sock'}"})
    outcome = request_reset(settings, trial.paths, reason="over", by="a person", wait_seconds=0.0)
    assert (outcome.exit_code, outcome.cleared) == (1, ())
    assert [halt.halt_id for halt in active_halts(JsonLinesHaltFile(trial.folder / HALT_FILE).records())] == [halt_id]
    assert trial.events(EventKind.HALT_CLEARED) == []


def test_loss_halt_is_not_reset_on_its_own_date_and_ended_by_the_end_of_day(trial: Trial) -> None:
    trial.begin()
    loss = HaltRecord(
        halt_id="20240115-LOSS-1", kind=HaltKind.LOSS, trading_date=DAY, reason="limit", by="engine", at_ms=1_705_300_000_000
    )
    JsonLinesHaltFile(trial.folder / HALT_FILE).append(loss)
    outcome = request_reset(trial.settings, trial.paths, reason="over", by="a person", wait_seconds=0.0)
    assert (outcome.exit_code, outcome.cleared) == (1, ())
    assert "end of day" in outcome.refusal
    assert trial.events(EventKind.HALT_CLEARED) == []
    day = open_day(DayRequest(config=CONFIG, date=DAY), trial.environ)
    assert prove_flat(day.settings, find_session(day)).flat
    assert reset_day(day, find_session(day)) == ["20240115-LOSS-1"]
    assert active_halts(JsonLinesHaltFile(trial.folder / HALT_FILE).records()) == ()


def test_run_that_is_over_has_nothing_to_halt_and_a_reset_of_none_clears_nothing(trial: Trial) -> None:
    assert trial.run_again().exit_code == 0
    assert trial.velox("halt", *ASK)[0] == 1
    assert not (trial.folder / HALT_FILE).exists()
    code, answer = trial.velox("reset", *ASK)
    assert (code, answer["cleared"]) == (0, [])
    assert trial.velox("halt", "--reason", " ", "--by", "a person")[0] == 2
