"""Eight processes on one account and one Redis: no limit is passed at any instant, and every claim is resolved.

The deciders share the ledger as an engine, its guard and the command line do: under one lease epoch. Their journals,
merged by ledger version, are the whole history of the ledger; it is played again and judged after every commit.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.shared_limits_worker import DAY, LIMITS, SCOPE
from velox_core.domain.events import EventKind, JournalEvent
from velox_core.journal.file import read_events
from velox_core.ledger.redis import RedisLedger
from velox_core.redis_server import EmbeddedRedis
from velox_core.risk.ledger import RiskSnapshot

ROOT = Path(__file__).resolve().parents[2]
DECIDERS = 8
SECONDS = float(os.environ.get("HAMMER_SECONDS") or (20 if os.environ.get("CI") == "true" else 3))
WAIT_SECONDS = 240.0

pytestmark = pytest.mark.slow


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    server = EmbeddedRedis(tmp_path / "redis")
    yield server.start()
    server.stop()


class History:
    """The ledger's content, played again from the journals, judged after every version."""

    def __init__(self) -> None:
        self.claims: dict[str, tuple[str, str, int]] = {}  # intent id: strategy, symbol, created_ms
        self.positions: dict[str, str] = {}  # symbol: strategy
        self.entered_ms: dict[tuple[str, str, str], int] = {}
        self.most_total = self.most_of_a_strategy = 0

    def take(self, event: JournalEvent) -> None:
        """Apply one commit and judge what is then there."""
        body = event.body
        if event.kind is EventKind.INTENT:
            self._claim(str(body["client_order_id"]), event)
        elif event.kind is EventKind.ORDER:
            assert body["state"] == "CANCELLED"
            del self.claims[str(body["client_order_id"])]
        else:
            if body["resolved"] is not None:
                del self.claims[str(body["resolved"])]
            if body["position"]:
                self.positions[str(body["symbol"])] = str(body["strategy"])
            else:
                del self.positions[str(body["symbol"])]
        self._judge()

    def _claim(self, intent_id: str, event: JournalEvent) -> None:
        body = event.body
        strategy, symbol = str(body["strategy"]), str(body["symbol"])
        assert intent_id not in self.claims
        assert symbol not in self.positions, "an entry in a symbol that is held"
        assert symbol not in [of for _, of, _ in self.claims.values()], "an entry in a symbol that is being entered"
        key = (strategy, symbol, str(body["side"]))
        assert event.ts_ms - self.entered_ms.get(key, 0) >= LIMITS.dedup_window_ms, "a duplicate within the window"
        self.entered_ms[key] = event.ts_ms
        self.claims[intent_id] = (strategy, symbol, event.ts_ms)

    def _judge(self) -> None:
        owners = {symbol: strategy for strategy, symbol, _ in self.claims.values()} | self.positions
        of_strategy = Counter(owners.values())
        self.most_total = max(self.most_total, len(owners))
        self.most_of_a_strategy = max(self.most_of_a_strategy, *of_strategy.values(), 0)
        assert len(owners) <= LIMITS.max_total_positions
        assert all(count <= LIMITS.max_positions_per_strategy for count in of_strategy.values())


def hammer(url: str, folder: Path, epoch: int, seed: int) -> list[Path]:
    """Run the deciders side by side and return their journals."""
    paths = [folder / f"decider-{number}.jsonl" for number in range(DECIDERS)]
    processes = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.integration.shared_limits_worker", url, str(path)),
                *(str(number), str(epoch), str(seed), str(SECONDS)),
            ],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number, path in enumerate(paths)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        codes = [process.wait(timeout=SECONDS + WAIT_SECONDS) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert codes == [0] * DECIDERS
    return paths


def test_eight_processes_on_one_account_never_pass_a_limit_and_resolve_every_claim(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = int(os.environ.get("HAMMER_SEED", "0")) or random.SystemRandom().randrange(1, 1_000_000)
    ledger = RedisLedger(url, SCOPE, DAY, timeout_seconds=30.0)
    epoch = ledger.acquire_lease("hammer")
    first_version = ledger.rebuild(RiskSnapshot(epoch=epoch)).version
    paths = hammer(url, tmp_path, epoch, seed)
    events = [event for path in paths for event in read_events(path)]
    decisions = Counter(str(event.body["code"]) for event in events if event.kind is EventKind.DECISION)
    commits = sorted((e for e in events if e.kind is not EventKind.DECISION), key=lambda e: int(str(e.body["ledger_version"])))
    with capsys.disabled():
        print(f"\nHAMMER_SEED={seed}: {len(commits)} commits in {SECONDS:.0f} s, decisions {dict(decisions)}")
    final = ledger.snapshot()
    ledger.close()
    versions = [int(str(event.body["ledger_version"])) for event in commits]
    assert versions == list(range(first_version + 1, final.version + 1)), "a commit is missing from the journals, or is twice"
    history = History()
    for event in commits:
        history.take(event)
    assert (history.claims, history.positions) == ({}, {})
    assert (dict(final.claims), dict(final.positions)) == ({}, {})
    approved = [event for event in events if event.kind is EventKind.DECISION and event.body["approved"]]
    notionals = [int(str(dict(event.body["numbers"])["notional"])) for event in approved]  # type: ignore[arg-type,call-overload]
    assert max(notionals) <= LIMITS.max_position_size_paise
    assert (
        len(approved)
        == len({event.body["client_order_id"] for event in approved})
        == len([event for event in events if event.kind is EventKind.INTENT])
    )
    assert (history.most_total, history.most_of_a_strategy) == (LIMITS.max_total_positions, LIMITS.max_positions_per_strategy)
    reached = {"OK", "DUPLICATE_ORDER", "POSITION_EXISTS", "POSITION_SIZE", "STRATEGY_POSITIONS", "TOTAL_POSITIONS"}
    assert reached <= set(decisions) <= reached | {"LEDGER_UNAVAILABLE"}, decisions
