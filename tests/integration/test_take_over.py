"""An engine stopped with SIGSTOP at a point of its day, taken over, and resumed: it opens and reverses nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import ClassVar

import pytest

from tests.integration.test_restart import Trial, entries, wait_until_stopped
from velox_core.domain.events import EventKind
from velox_core.engine_lock import LockView
from velox_core.lease import LEASE_SECONDS, SEND_AGE_SECONDS_MAX
from velox_core.ledger.redis import RedisLedger
from velox_core.ports import LockHolder
from velox_core.redis_server import EmbeddedRedis

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "config" / "system_simulated.yaml"
RUNNER = ROOT / "tests" / "integration" / "stopping_engine.py"
DAY = date(2024, 1, 15)
WAIT_SECONDS = 240.0

pytestmark = pytest.mark.slow


class Account(Trial):
    """A var folder with engines that stop, and the broker's book beside what the journal says.

    `environ` overrides settings of what is started.
    """

    environ: ClassVar[dict[str, str]] = {}

    def velox(self, *arguments: str, runner: tuple[str, ...] = ("-m", "velox_core.cli")) -> subprocess.Popen[str]:
        """Start a command on the account."""
        return subprocess.Popen(
            [sys.executable, *runner, *arguments, "--config", str(CONFIG)],
            env={**os.environ, "VELOX__VAR": str(self.var), **self.environ},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def start(self, *, point: str = "", role: str = "", speed: str = "1000") -> subprocess.Popen[str]:
        """Start an engine, by default a minute each 60 ms; with a point it stops itself there."""
        runner = (str(RUNNER), point, role) if point else ("-m", "velox_core.cli")
        return self.velox("run", "--json", "--date", DAY.isoformat(), "--speed", speed, runner=runner)

    def take_over(self) -> tuple[int, str]:
        """Take the run over at full speed. Returns the exit code and what was said."""
        asked = ("--take-over", "--reason", "it hangs", "--by", "test")
        process = self.velox("run", "--json", "--date", DAY.isoformat(), "--speed", "max", *asked)
        _, said = process.communicate(timeout=WAIT_SECONDS)
        return process.returncode, said


@pytest.fixture
def account(tmp_path: Path) -> Iterator[Account]:
    """An account whose embedded Redis is ended afterwards."""
    yield Account(tmp_path / "var")
    EmbeddedRedis(tmp_path / "var" / "redis").stop()


def wait_for_a_position(account: Account, process: subprocess.Popen[str]) -> None:
    """Wait until an engine says that it holds something."""
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline and not account.status().get("positions"):
        assert process.poll() is None, "the engine ended before it held a position"
        time.sleep(0.005)


def stop_while_holding(account: Account) -> subprocess.Popen[str]:
    """Start an engine and stop it with SIGSTOP between two minutes, once it holds a position."""
    process = account.start()
    account.stop_while_holding(process)
    return process


def resume(process: subprocess.Popen[str]) -> int:
    """Send SIGCONT to what was stopped and wait for its end. Returns how it ended."""
    process.send_signal(signal.SIGCONT)
    process.communicate(timeout=WAIT_SECONDS)
    return process.returncode


def assert_flat_and_as_journaled(account: Account) -> None:
    """The broker is flat; its orders are the journal's, each once, and its trades too."""
    assert account.held_at_the_broker() == {}
    events = account.events()
    intents = [str(e.body["client_order_id"]) for e in events if e.kind is EventKind.INTENT]
    tags = [tag for (tag,) in account.book("SELECT tag FROM orders")]
    assert len(intents) == len(set(intents))
    assert len(tags) == len(set(tags))
    assert set(tags) <= set(intents)
    traded = account.book("SELECT tag, symbol, side, quantity, price_paise FROM trades ORDER BY number")
    names = ("client_order_id", "symbol", "side", "quantity", "price")
    assert sorted(traded) == sorted(tuple(e.body[name] for name in names) for e in events if e.kind is EventKind.FILL)
    assert all(e.body["position"] in (0, 1, -1) for e in events if e.kind is EventKind.FILL)


def never_reversed(account: Account) -> bool:
    """Return whether no trade turned a position round: the shares go one up, then to zero."""
    held: dict[str, int] = {}
    for symbol, side, quantity in account.book("SELECT symbol, side, quantity FROM trades ORDER BY number"):
        before = held.get(symbol, 0)
        held[symbol] = before + (quantity if side == "BUY" else -quantity)
        if before * held[symbol] < 0:
            return False
    return True


@pytest.mark.parametrize(
    ("point", "role"), [("", ""), ("after", "exit"), ("before", "exit"), ("before", "entry"), ("after", "entry")]
)
def test_engine_stopped_and_taken_over_opens_and_reverses_nothing_when_resumed(account: Account, point: str, role: str) -> None:
    if point:
        stopped = account.start(point=point, role=role)
        wait_until_stopped(stopped)
    else:
        stopped = stop_while_holding(account)
    before = entries(account.events())
    code, said = account.take_over()
    assert (code, f"killed process {stopped.pid}" in said) == (0, True), said
    after = account.book("SELECT * FROM orders")
    assert resume(stopped) == -signal.SIGKILL
    assert account.book("SELECT * FROM orders") == after
    assert entries(account.events()) == before
    assert_flat_and_as_journaled(account)
    assert never_reversed(account)
    assert account.status()["halted"] is True


def test_take_over_of_an_engine_that_answers_leaves_the_closing_to_it(account: Account) -> None:
    engine = account.start(speed="100")
    wait_for_a_position(account, engine)
    code, said = account.take_over()
    assert (code, engine.poll()) == (0, None), said
    assert "closes everything by itself" in said
    deadline = time.monotonic() + WAIT_SECONDS
    while account.held_at_the_broker() and time.monotonic() < deadline:
        time.sleep(0.05)
    engine.terminate()
    engine.communicate(timeout=WAIT_SECONDS)
    assert engine.returncode == 0
    assert_flat_and_as_journaled(account)


def test_take_over_with_no_run_under_way_starts_nothing(account: Account) -> None:
    code, said = account.take_over()
    assert (code, "nothing to take over" in said) == (1, True), said
    assert not account.folder.exists()


def test_take_over_of_a_lock_whose_process_id_was_recycled_kills_nobody(account: Account) -> None:
    stopped = stop_while_holding(account)
    lock = account.folder / "engine.lock"
    holder = LockView(lock).holder()
    assert holder is not None
    assert holder.pid == stopped.pid
    lock.write_text(json.dumps({"host": holder.host, "pid": holder.pid, "started": "another boot:1"}))
    code, said = account.take_over()
    assert (code, "nothing was killed" in said) == (1, True), said
    assert LockView(lock).holder() == LockHolder(host=holder.host, pid=holder.pid, started="another boot:1")
    assert stopped.poll() is None
    stopped.kill()
    stopped.communicate()


def test_engine_that_lost_its_lease_to_another_host_while_stopped_opens_and_closes_nothing(account: Account) -> None:
    stopped = stop_while_holding(account)
    held, orders = account.held_at_the_broker(), account.book("SELECT * FROM orders")
    intents = [e.body["client_order_id"] for e in account.events() if e.kind is EventKind.INTENT]
    time.sleep(LEASE_SECONDS + 0.5)  # its lease runs out
    with closing(
        RedisLedger(EmbeddedRedis(account.var / "redis").url, "simulated:primary:2024-01-15-1", DAY, timeout_seconds=30.0)
    ) as other:
        assert other.acquire_lease("another-host") == 2
        assert resume(stopped) == 4
    assert held
    assert account.held_at_the_broker() == held
    assert account.book("SELECT * FROM orders") == orders
    events = account.events()
    assert [e.body["client_order_id"] for e in events if e.kind is EventKind.INTENT] == intents
    refused = {e.body["code"] for e in events if e.kind is EventKind.DECISION and not e.body["approved"]}
    assert "LEASE_LOST" in refused


@pytest.mark.parametrize("role", ["entry", "exit"])
def test_engine_stopped_on_a_sender_thread_sends_nothing_after_another_host_took_its_lease(account: Account, role: str) -> None:
    account.environ = {"VELOX__ENGINE__SENDS_OFF_LOOP": "true"}  # type: ignore[misc]
    stopped = account.start(point="look", role=role, speed="8000")
    wait_until_stopped(stopped)
    orders = account.book("SELECT tag FROM orders")
    sending = {str(e.body["client_order_id"]) for e in account.events() if e.kind is EventKind.INTENT} - {o for (o,) in orders}
    with closing(
        RedisLedger(EmbeddedRedis(account.var / "redis").url, "simulated:primary:2024-01-15-1", DAY, timeout_seconds=30.0)
    ) as other:
        other.release_lease(1)  # as when its life is over
        assert other.acquire_lease("another-host") == 2
        time.sleep(SEND_AGE_SECONDS_MAX + 0.5)
        assert resume(stopped) in (0, 4)  # 4 where it leaves a position to the other engine
    assert len(sending) == 1, "it did not stop between the intent and the send"
    assert account.book("SELECT tag FROM orders") == orders
    told = [e.body for e in account.events() if e.kind is EventKind.ORDER and e.body["client_order_id"] in sending]
    assert [body["state"] for body in told] == ["CANCELLED"]
    assert "not sent" in str(told[0]["reason"])
