"""The same signal again, by every way it can come: one order."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.fakes.broker import FakeBroker
from tests.fakes.outside import FakeAlerts
from tests.fakes.rig import DAY, NOW_MS, entry_signal
from tests.integration.same_signal import SCOPE, WINDOW_MS, Decider
from velox_core.domain.orders import OrderState, Side
from velox_core.engine.resume import RESUME_KINDS, align_ledger, reconcile, restore
from velox_core.ledger.redis import RedisLedger
from velox_core.redis_server import EmbeddedRedis
from velox_core.risk.ledger import RiskSnapshot

ROOT = Path(__file__).resolve().parents[2]
WAIT_SECONDS = 240.0
ROUNDS = 10

pytestmark = pytest.mark.slow


class Account:
    """One Redis and one folder of journals, with the lease taken."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.url = url
        self.ledger = self.open()
        self.epoch = self.ledger.acquire_lease("test")
        self.ledger.rebuild(RiskSnapshot(epoch=self.epoch))
        self.broker = FakeBroker()
        self.broker.now_ms = NOW_MS

    def open(self) -> RedisLedger:
        """Return a ledger with a connection of its own."""
        return RedisLedger(self.url, SCOPE, DAY, timeout_seconds=30.0)

    def decider(self, number: int = 0) -> Decider:
        """Return one more decider under the account's epoch, with order numbers of its own."""
        made = Decider(self.open(), self.journal(number), number * 1_000_000 + 1, self.epoch, self.broker)
        made.risk.open_ledger()
        return made

    def journal(self, number: int) -> Path:
        """Return a decider's journal."""
        return self.folder / f"journal-{number}.db"

    def process(self, number: int, then: str) -> subprocess.Popen[str]:
        """Start a decider as a process of its own and wait until it is ready to ask."""
        arguments = (self.url, str(self.journal(number)), str(number * 1_000_000 + 1), str(self.epoch), then)
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.same_signal", *arguments],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server = EmbeddedRedis(tmp_path_factory.mktemp("redis"))
    yield server.start()
    server.stop()


@pytest.fixture
def account(url: str, tmp_path: Path) -> Iterator[Account]:
    with redis.Redis.from_url(url) as client:
        client.flushall()
    made = Account(tmp_path, url)
    yield made
    made.ledger.close()


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def test_signal_twice_in_one_tick_is_one_order(account: Account) -> None:
    decider = account.decider()
    assert [decider.ask(), decider.ask()] == ["OK", "DUPLICATE_ORDER"]
    assert len(account.broker.placed) == 1
    decider.close()


@pytest.mark.parametrize("after_ms", [WINDOW_MS - 1, WINDOW_MS, WINDOW_MS + 1, 100 * WINDOW_MS])
def test_signal_again_while_the_order_is_not_terminal_is_one_order_at_any_time(account: Account, after_ms: int) -> None:
    decider = account.decider()
    assert [decider.ask(), decider.ask(NOW_MS + after_ms)] == ["OK", "DUPLICATE_ORDER"]
    assert len(account.broker.placed) == 1
    decider.close()


@pytest.mark.parametrize(("after_ms", "again"), [(WINDOW_MS - 1, False), (WINDOW_MS, True), (WINDOW_MS + 1, True)])
def test_signal_again_after_the_order_ended_waits_for_the_window(account: Account, after_ms: int, again: bool) -> None:
    decider = account.decider()
    decider.ask()
    (order,) = decider.orders.live.values()
    decider.orders.cancel(order, "test", NOW_MS)
    decider.orders.poll(NOW_MS)
    assert order.state is OrderState.CANCELLED
    assert decider.ask(NOW_MS + after_ms) == ("OK" if again else "DUPLICATE_ORDER")
    assert len(account.broker.placed) == 1 + again
    decider.close()


def test_signal_from_two_threads_at_once_is_one_order(account: Account) -> None:
    deciders = [account.decider(number) for number in (1, 2)]
    for number in range(ROUNDS):
        barrier = threading.Barrier(2)
        now_ms = NOW_MS + number * WINDOW_MS
        answers: list[str] = []

        def ask(
            decider: Decider, barrier: threading.Barrier = barrier, now_ms: int = now_ms, said: list[str] = answers
        ) -> None:
            barrier.wait()
            said.append(decider.ask(now_ms))

        for decider in deciders:
            decider.risk.open_ledger()
        threads = [threading.Thread(target=ask, args=(decider,)) for decider in deciders]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(answers) == ["DUPLICATE_ORDER", "OK"]
        assert len(account.broker.placed) == number + 1
        for decider in deciders:
            for order in list(decider.orders.live.values()):
                decider.orders.cancel(order, "test", now_ms)
                decider.orders.poll(now_ms)
    for decider in deciders:
        decider.close()


def test_signal_from_two_processes_at_once_is_one_order(account: Account) -> None:
    processes = [account.process(number, "ask") for number in (1, 2)]
    for process in processes:
        go(process)
    said = [process.communicate(timeout=WAIT_SECONDS)[0].strip() for process in processes]
    assert sorted(said) == ["DUPLICATE_ORDER", "OK"]
    assert len(account.ledger.snapshot().claims) == 1


@pytest.mark.parametrize("after_ms", [0, WINDOW_MS - 1, WINDOW_MS, WINDOW_MS + 1])
def test_signal_again_after_kill_and_restart_is_one_order(account: Account, after_ms: int) -> None:
    process = account.process(1, "hang")
    go(process)
    assert process.stdout is not None
    assert process.stdout.readline() == "sent\n"
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=WAIT_SECONDS)
    account.ledger.release_lease(account.epoch)
    account.epoch = account.ledger.acquire_lease("next")
    (claim,) = account.ledger.snapshot().claims.values()
    reached = account.broker.foreign(entry_signal().symbol, Side.BUY, 1, 10_000, works=True)  # before the kill
    account.broker.book[reached].tag = claim.intent_id
    engine = account.decider(1)
    restore(engine.journal.events(RESUME_KINDS), engine.orders, engine.risk)
    assert reconcile(account.broker, engine.orders, engine.risk, FakeAlerts(), NOW_MS) == []
    align_ledger(engine.orders, engine.risk)
    assert engine.ask(NOW_MS + after_ms) == "DUPLICATE_ORDER"
    assert account.broker.placed == []
    assert [order.state for order in engine.orders.live.values()] == [OrderState.OPEN]
    engine.close()
