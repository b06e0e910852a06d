"""The guard as a process beside an engine process: kill -9, SIGSTOP of either, and what comes after."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import date, datetime
from pathlib import Path

import pytest

from tests.fakes.starvation import seconds_without_a_core
from tests.integration.test_restart import wait_until_stopped
from velox_core.bootstrap import RunRequest, run_engine
from velox_core.control import GUARD_MARK, LedgerControl
from velox_core.domain.halts import active_halts
from velox_core.domain.time import IST
from velox_core.halt_file import JsonLinesHaltFile
from velox_core.ledger.redis import RedisLedger
from velox_core.operations.reconcile import reconcile_run
from velox_core.operations.recorded import RecordedRun
from velox_core.redis_server import EmbeddedRedis
from velox_core.settings import Paths, load_settings

ROOT = Path(__file__).resolve().parents[2]
STOPPING_GUARD = str(ROOT / "tests" / "integration" / "stopping_guard.py")
STOPPING_ENGINE = str(ROOT / "tests" / "integration" / "stopping_engine.py")
CLI = ("-m", "velox_core.cli")
DAY = date(2024, 1, 16)
RUN_ID = f"{DAY}-calm-1"
SYMBOLS = ("SYN1", "SYN2", "SYN3")
BOUND_SECONDS = 6  # an engine that a busy machine holds up for some seconds is not silent yet
WAIT_SECONDS = 240.0
CONFIG = f"""
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
  feed: {{scenario: calm, symbols: [{", ".join(SYMBOLS)}], speed: 60}}
  strategies:
    - name: hold
      class_path: tests.integration.holding_strategy:BuyAndHold
"""
SHORT_BOUND = f"  guard: {{heartbeat_timeout_seconds: {BOUND_SECONDS}}}\n"
DEFAULT_BOUND_SECONDS = 20  # of the configuration
FLAT_SECONDS_MAX = 30  # after a kill -9 of the engine, with that bound, on a machine that has a core for the guard

pytestmark = pytest.mark.slow


class GuardedDay:
    """A var folder with an engine and a guard, each a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.var = folder / "var"
        self.config = folder / "config" / "system.yaml"
        self.config.parent.mkdir(parents=True)
        self.config.write_text(CONFIG + SHORT_BOUND, encoding="utf-8")
        self.folder = self.var / "replay" / "primary" / RUN_ID
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, *arguments: str, runner: tuple[str, ...] = CLI) -> subprocess.Popen[bytes]:
        """Start a command on the account."""
        process = subprocess.Popen(
            [sys.executable, *runner, *arguments, "--config", str(self.config)],
            env={**os.environ, "VELOX__VAR": str(self.var), "PYTHONPATH": str(ROOT)},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.processes.append(process)
        return process

    def start_both_and_hold(
        self, *, guard_by: tuple[str, ...] = CLI, engine_by: tuple[str, ...] = CLI
    ) -> tuple[subprocess.Popen[bytes], subprocess.Popen[bytes]]:
        """Start guard and engine, and wait until three positions are open and the guard watches them."""
        guard = self.start("guard", runner=guard_by)
        engine = self.start("run", "--json", "--date", DAY.isoformat(), runner=engine_by)
        self.wait(lambda: len(self.held()) == len(SYMBOLS), engine)
        self.wait(lambda: any(view["exposed"] for view in self.guard_views()), guard)
        return guard, engine

    def wait(self, done: Callable[[], bool], *alive: subprocess.Popen[bytes]) -> None:
        """Wait until something is so; the processes named must live on meanwhile."""
        deadline = time.monotonic() + WAIT_SECONDS
        while not done():
            assert time.monotonic() < deadline, self.log()
            for process in alive:
                assert process.poll() is None, f"process {process.pid} ended: {self.log()}"
            time.sleep(0.1)

    def guard_views(self) -> list[dict[str, object]]:
        try:
            body = json.loads((self.var / "simulated" / "primary" / "guard.json").read_text())
        except (OSError, ValueError):
            return []
        return [view for view in body["runs"] if "exposed" in view]

    def book(self, query: str) -> list[tuple]:  # type: ignore[type-arg]
        """Ask the broker's own book."""
        try:
            with closing(sqlite3.connect(f"file:{self.folder / 'broker.db'}?mode=ro", uri=True)) as connection:
                return connection.execute(query).fetchall()
        except sqlite3.OperationalError:
            return []

    def held(self) -> dict[str, int]:
        return dict(self.book("SELECT symbol, quantity FROM positions WHERE quantity <> 0"))

    def log(self) -> str:
        try:
            return (self.var / "logs" / "simulated" / "emergency_exit.log").read_text(encoding="utf-8")
        except OSError:
            return ""

    def told(self, *parts: str) -> bool:
        """Return whether the log tells all of it, in this order."""
        return re.search(".*".join(re.escape(part) for part in parts), self.log(), re.DOTALL) is not None

    def pid_of_the_status(self) -> object:
        """Return the process that the run's status is of."""
        try:
            return json.loads((self.folder / "status.json").read_text()).get("pid")
        except (OSError, ValueError):
            return None

    def assert_each_closed_once(self, by: str = "EG") -> None:
        """Each symbol was bought once and sold once, by whomever, and nothing works."""
        trades = self.book("SELECT symbol, side, quantity, tag FROM trades ORDER BY number")
        assert sorted((symbol, side, quantity) for symbol, side, quantity, _ in trades) == sorted(
            (symbol, side, 1) for symbol in SYMBOLS for side in ("BUY", "SELL")
        )
        assert {tag[6] for _, side, _, tag in trades if side == "SELL"} <= set(by)
        assert self.held() == {}
        assert self.book("SELECT tag FROM orders WHERE state NOT IN ('FILLED', 'CANCELLED', 'REJECTED')") == []

    def assert_closed_once_by_the_guard(self) -> None:
        """Each symbol was bought once by the engine and sold once by the guard, and nothing else was traded."""
        trades = self.book("SELECT symbol, side, quantity, tag FROM trades ORDER BY number")
        assert sorted((symbol, side, quantity, tag[6]) for symbol, side, quantity, tag in trades) == sorted(
            [(symbol, "BUY", 1, "E") for symbol in SYMBOLS] + [(symbol, "SELL", 1, "G") for symbol in SYMBOLS]
        )
        assert self.held() == {}
        assert self.book("SELECT tag FROM orders WHERE state NOT IN ('FILLED', 'CANCELLED', 'REJECTED')") == []

    def sent_by_the_guard(self) -> bool:
        return bool(self.book("SELECT tag FROM orders WHERE substr(tag, 7, 1) = 'G'"))

    def wait_for_the_first_exit(self, guard: subprocess.Popen[bytes]) -> None:
        """Wait until the guard has stopped itself in the middle of closing: it sent something, and nothing is proven."""
        wait_until_stopped(guard)
        assert self.sent_by_the_guard()
        assert not self.told("FLAT, the broker confirms it")

    def end(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.communicate()
        EmbeddedRedis(self.var / "redis").stop()


@pytest.fixture
def day(tmp_path: Path) -> Iterator[GuardedDay]:
    made = GuardedDay(tmp_path)
    yield made
    made.end()


def test_engine_killed_with_three_positions_is_closed_by_the_guard_and_comes_back_reconciled(day: GuardedDay) -> None:
    day.config.write_text(CONFIG, encoding="utf-8")  # with the default bound
    guard, engine = day.start_both_and_hold()
    with closing(RedisLedger(EmbeddedRedis(day.var / "redis").url, "simulated:primary", DAY, timeout_seconds=30.0)) as ledger:
        heard = LedgerControl(ledger, status_mark=GUARD_MARK).status()
    assert heard is not None
    assert (heard["pid"], heard["watching"]) == (guard.pid, [RUN_ID])
    redis = int((day.var / "redis" / "redis.pid").read_text().split()[0])
    starved = seconds_without_a_core(guard.pid, redis)
    killed = datetime.now(IST).replace(tzinfo=None)  # as the log tells it
    engine.kill()
    day.wait(lambda: day.told("[GUARD]", "FLAT, the broker confirms it"), guard)
    starved = seconds_without_a_core(guard.pid, redis) - starved
    assert day.told(
        f"[GUARD] {RUN_ID}: the engine has shown no sign of life", "EMERGENCY EXIT TRIGGERED", "Daily P&L: ",
        "[GUARD]", "this guard closes", "[GUARD]", "FLAT, the broker confirms it",
    )  # fmt: skip
    silent = re.search(r"no sign of life for (\d+) s", day.log())
    assert silent is not None
    assert int(silent[1]) >= DEFAULT_BOUND_SECONDS  # by the guard's own clock
    flat_after = (_told_at(day.log(), "FLAT, the broker") - killed).total_seconds()
    away = day.log().count("this guard was away for")  # the machine held it up so long that it begins its bound again
    assert flat_after <= FLAT_SECONDS_MAX + starved + away * DEFAULT_BOUND_SECONDS, f"{starved} s without a core, {away} pauses"
    day.assert_closed_once_by_the_guard()
    orders = day.book("SELECT * FROM orders")
    assert [halt.by for halt in active_halts(JsonLinesHaltFile(day.folder / "halt.jsonl").records())] == ["guard"]
    guard.terminate()
    assert guard.wait(WAIT_SECONDS) == 0
    assert day.told("[GUARD] process", "ends")

    settings = load_settings(day.config, {})
    again = run_engine(settings, Paths(var=day.var, logs=day.var / "logs"), RunRequest(date=DAY, speed=0.0))
    assert (again.exit_code, again.flat, again.halted, again.run.run_id) == (0, True, True, RUN_ID)
    assert day.book("SELECT * FROM orders") == orders
    report = reconcile_run(settings, RecordedRun(run=again.run, trading_date=DAY))
    assert (report.exit_code, report.exposure, report.differences, report.locks) == (0, [], [], {})


def test_engine_and_guard_stopped_the_guard_waits_one_bound_and_takes_over_and_the_engine_never_trades(
    day: GuardedDay,
) -> None:
    guard, engine = day.start_both_and_hold()
    guard.send_signal(signal.SIGSTOP)
    engine.send_signal(signal.SIGSTOP)
    time.sleep(BOUND_SECONDS + 1.0)
    held = day.held()
    guard.send_signal(signal.SIGCONT)
    day.wait(lambda: day.told("[GUARD]", "FLAT, the broker confirms it"), guard)
    engine.send_signal(signal.SIGCONT)
    assert engine.wait(WAIT_SECONDS) == -signal.SIGKILL
    assert len(held) == len(SYMBOLS)
    assert day.told("this guard was away for", "no sign of life", "taken over", "killed", "this guard closes")
    back, verdict = (_told_at(day.log(), part) for part in ("this guard was away for", "no sign of life"))
    assert (verdict - back).total_seconds() >= BOUND_SECONDS - 0.01  # what a pause must cost at least
    day.assert_closed_once_by_the_guard()


def test_guard_killed_in_the_middle_of_a_closing_goes_on_when_it_starts_again(day: GuardedDay) -> None:
    guard, engine = day.start_both_and_hold(guard_by=(STOPPING_GUARD,))
    engine.kill()
    day.wait_for_the_first_exit(guard)
    guard.kill()
    assert guard.wait(WAIT_SECONDS) == -signal.SIGKILL
    assert not day.told("FLAT, the broker confirms it")
    again = day.start("guard")
    day.wait(lambda: day.told("an earlier guard was closing everything", "FLAT, the broker confirms it"), again)
    day.assert_closed_once_by_the_guard()


def test_guard_stopped_in_the_middle_of_a_closing_beside_an_engine_that_comes_back_reverses_nothing(day: GuardedDay) -> None:
    guard, engine = day.start_both_and_hold(guard_by=(STOPPING_GUARD,))
    engine.kill()
    day.wait_for_the_first_exit(guard)
    back = day.start("run", "--json", "--date", DAY.isoformat())
    day.wait(lambda: day.told("EMERGENCY EXIT TRIGGERED") and day.pid_of_the_status() == back.pid, back)
    time.sleep(1.0)
    guard.send_signal(signal.SIGCONT)
    day.wait(lambda: day.told("this guard closes", "FLAT, the broker confirms it"), guard)
    day.assert_each_closed_once()


def test_engine_stopped_in_the_middle_of_its_own_closing_is_closed_once_by_the_guard(day: GuardedDay) -> None:
    guard, engine = day.start_both_and_hold(engine_by=(STOPPING_ENGINE, "after", "exit"))
    engine.terminate()
    wait_until_stopped(engine)  # by itself, right after its second exit: a signal from outside may come when all is closed
    assert not day.told("FLAT, the broker confirms it")
    day.wait(lambda: day.told("no sign of life", "FLAT, the broker confirms it"), guard)
    engine.send_signal(signal.SIGCONT)
    assert engine.wait(WAIT_SECONDS) == -signal.SIGKILL
    day.assert_each_closed_once()


def test_engine_that_is_interrupted_again_and_again_while_it_closes_ends_flat(day: GuardedDay) -> None:
    engine = day.start("run", "--json", "--date", DAY.isoformat())
    day.wait(lambda: len(day.held()) == len(SYMBOLS), engine)
    for number in (signal.SIGINT, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        engine.send_signal(number)
        time.sleep(0.1)
    assert engine.wait(WAIT_SECONDS) == 0
    day.assert_each_closed_once(by="E")


def _told_at(log: str, part: str) -> datetime:
    line = next(line for line in log.splitlines() if part in line)
    return datetime.strptime(line[:23], "%Y-%m-%d %H:%M:%S,%f")
