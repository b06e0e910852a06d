"""`velox flatten` as a process: beside an engine that was killed, one that hangs, one that lives, and another flatten."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.test_take_over import (
    WAIT_SECONDS,
    Account,
    assert_flat_and_as_journaled,
    never_reversed,
    stop_while_holding,
)
from velox_core.domain.events import EventKind
from velox_core.operations.reconcile import reconcile_run
from velox_core.operations.recorded import find_run
from velox_core.redis_server import EmbeddedRedis
from velox_core.settings import Paths, load_settings

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "config" / "system_simulated.yaml"

pytestmark = pytest.mark.slow


@pytest.fixture
def account(tmp_path: Path) -> Iterator[Account]:
    """An account whose embedded Redis is ended afterwards."""
    yield Account(tmp_path / "var")
    EmbeddedRedis(tmp_path / "var" / "redis").stop()


def flatten(account: Account) -> subprocess.Popen[str]:
    return account.velox("flatten", "--reason", "test", "--yes", "--json")


def answer(process: subprocess.Popen[str]) -> dict[str, object]:
    """Wait for a flatten and return what it said."""
    said, progress = process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == 0, progress
    body = json.loads(said)
    assert (body["state"], body["exit_code"]) == ("FLAT", 0)
    assert isinstance(body["first_request_monotonic"], float)
    return dict(body)


def resumes_halted_and_agrees(account: Account) -> None:
    """The next engine of the run closes nothing and opens nothing, and its books are the broker's."""
    orders = account.book("SELECT count(*) FROM orders")
    outcome = account.run_again()
    assert (outcome.flat, outcome.halted, outcome.result.fault) == (True, True, "")
    assert account.book("SELECT count(*) FROM orders") == orders
    assert_flat_and_as_journaled(account)
    settings = load_settings(CONFIG, {})
    paths = Paths(var=account.var, logs=account.var / "logs")
    assert reconcile_run(settings, find_run(settings, paths)).exit_code == 0


def test_two_flattens_at_once_after_a_kill_close_once_and_the_next_engine_agrees(account: Account) -> None:
    engine = stop_while_holding(account)
    engine.kill()
    engine.communicate()
    assert account.held_at_the_broker()
    both = [flatten(account), flatten(account)]
    answers = [answer(process) for process in both]
    assert account.held_at_the_broker() == {}
    assert never_reversed(account)
    by_command_line = account.book("SELECT tag FROM orders WHERE substr(tag, 7, 1) = 'C'")
    assert len(by_command_line) == 1
    assert len({body["halt_id"] for body in answers}) == 2
    resumes_halted_and_agrees(account)
    intents = [str(e.body["client_order_id"]) for e in account.events() if e.kind is EventKind.INTENT]
    assert [tag for (tag,) in by_command_line] == [tag for tag in intents if tag[6] == "C"]
    assert not list(account.folder.glob("emergency-*.jsonl"))


def test_engine_that_hangs_is_ended_and_its_account_closed(account: Account) -> None:
    engine = stop_while_holding(account)
    body = answer(flatten(account))
    assert body["closed_by"] == "this process"
    assert engine.wait(timeout=WAIT_SECONDS) == -signal.SIGKILL
    engine.communicate()
    assert account.held_at_the_broker() == {}
    assert never_reversed(account)


def test_signals_do_not_end_it_and_nothing_but_the_book_is_needed(account: Account) -> None:
    engine = stop_while_holding(account)
    engine.kill()
    engine.communicate()
    EmbeddedRedis(account.var / "redis").stop()
    (account.folder / "journal.db").rename(account.folder / "moved.db")
    process = flatten(account)
    for line in process.stderr or ():
        if "latched" in line:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                os.kill(process.pid, number)
            break
    body = answer(process)
    assert account.held_at_the_broker() == {}
    assert body["not_imported"]
    assert not (account.folder / "journal.db").exists()
    assert len(list(account.folder.glob("emergency-*.jsonl"))) == 1
