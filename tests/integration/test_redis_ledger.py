"""The Redis ledger against a real server that refuses, hangs, restarts or fills up."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest
import redis

from velox_core.domain.errors import LedgerUnavailable
from velox_core.domain.halts import HaltKind, HaltRecord
from velox_core.domain.orders import Side
from velox_core.ledger.connect import connect_to
from velox_core.ledger.redis import PAUSE_SECONDS, TIMEOUT_SECONDS, RedisLedger
from velox_core.redis_server import EmbeddedRedis
from velox_core.risk.ledger import Claim, Committed, LedgerChange, RiskSnapshot

DAY = date(2024, 1, 15)
SCOPE = "simulated:primary"
HALT = HaltRecord(halt_id="h1", kind=HaltKind.LOSS, trading_date=DAY, reason="r", by="engine", at_ms=1)
CHANGE = LedgerChange(opens_risk=True, put_claim=Claim("i1", "orb", "TCS", Side.BUY, 1, 5, 5))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    made = EmbeddedRedis(tmp_path / "redis")
    made.start()
    yield made
    with redis.Redis.from_url(made.url.replace("unix://", "unix://admin:secret@")) as client:
        try:
            client.ping()
            client.acl_setuser("default", enabled=True, nopass=True, commands=["+@all"], keys=["*"])
        except redis.RedisError:
            pass
    made.stop()


@pytest.fixture
def client(server: EmbeddedRedis) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(server.url) as made:
        yield made


@pytest.fixture
def ledger(server: EmbeddedRedis) -> Iterator[RedisLedger]:
    made = RedisLedger(server.url, SCOPE, DAY)
    made.rebuild(RiskSnapshot())
    yield made
    made.close()


def test_uncontended_commit_is_one_command_and_so_is_a_conflict(ledger: RedisLedger, client: redis.Redis) -> None:
    version = ledger.snapshot().version

    def commands() -> int:
        return int(client.info("stats")["total_commands_processed"])

    before = commands()
    ledger.commit(version, 0, CHANGE, "c1")
    inside_script, own = 5, 1  # what the script calls is counted by the server as well
    assert commands() - before <= 1 + inside_script + own
    calls = client.info("commandstats")["cmdstat_evalsha"]["calls"]
    ledger.commit(version, 0, CHANGE, "c2")
    assert client.info("commandstats")["cmdstat_evalsha"]["calls"] == calls + 1


def test_server_that_was_killed_and_came_back_needs_a_rebuild(
    ledger: RedisLedger, server: EmbeddedRedis, client: redis.Redis
) -> None:
    version = ledger.snapshot().version
    os.kill(int(client.info("server")["process_id"]), signal.SIGKILL)
    with pytest.raises(LedgerUnavailable):
        ledger.commit(version, 0, CHANGE, "c1")
    server.start()
    with pytest.raises(LedgerUnavailable, match="rebuilt from journal and broker"):
        ledger.commit(version, 0, CHANGE, "c2")
    fresh = ledger.rebuild(RiskSnapshot())
    assert isinstance(ledger.commit(fresh.version, 0, CHANGE, "c3"), Committed)


@pytest.mark.parametrize("epoch", [b"1", None])
def test_server_that_went_back_to_an_older_epoch_takes_the_lease_from_nobody(
    ledger: RedisLedger, client: redis.Redis, epoch: bytes | None
) -> None:
    for _ in range(3):
        held = ledger.acquire_lease("here")
    scope = next(key for key in client.scan_iter() if key.endswith(b":scope"))
    if epoch is None:
        client.hdel(scope, "epoch")
    else:
        client.hset(scope, "epoch", epoch)
    with pytest.raises(LedgerUnavailable, match="does not know the lease"):
        ledger.renew_lease(held)
    ledger.rebuild(RiskSnapshot())
    assert ledger.renew_lease(held)


def test_server_that_hangs_is_asked_once_and_then_left_alone_for_a_while(client: redis.Redis, server: EmbeddedRedis) -> None:
    assert TIMEOUT_SECONDS == 0.25  # what the engine's loop waits at most; here ten times that, for a busy machine
    connects: list[float] = []
    seconds = [0.0]
    connect = connect_to(server.url)

    def counting(timeout_seconds: float) -> redis.Redis:
        connects.append(timeout_seconds)
        return connect(timeout_seconds)

    ledger = RedisLedger(counting, SCOPE, DAY, timeout_seconds=2.5, monotonic=lambda: seconds[0])
    version = ledger.rebuild(RiskSnapshot()).version
    pid = int(client.info("server")["process_id"])
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(LedgerUnavailable, match="cannot be asked about"):
            ledger.commit(version, 0, CHANGE, "c1")
        for _ in range(50):
            with pytest.raises(LedgerUnavailable):
                ledger.put_mark("heartbeat", "1")
    finally:
        os.kill(pid, signal.SIGCONT)
    assert connects == [pytest.approx(1.5), pytest.approx(1.0)]  # request and question together: 2.5 s at most
    seconds[0] += PAUSE_SECONDS
    reader = RedisLedger(server.url, SCOPE, DAY)
    late = reader.snapshot()  # the request was on its way: it may have taken effect after all
    fresh = ledger.rebuild(RiskSnapshot())
    assert fresh.version > late.version
    assert not fresh.claims
    reader.close()
    ledger.close()


def test_full_server_refuses_commits_naming_the_way_out(ledger: RedisLedger, client: redis.Redis) -> None:
    version = ledger.snapshot().version
    client.config_set("maxmemory", "1")
    with pytest.raises(LedgerUnavailable, match="out of memory"):
        ledger.commit(version, 0, CHANGE, "c1")
    client.config_set("maxmemory", "0")
    assert ledger.snapshot().version == version
    assert isinstance(ledger.commit(version, 0, CHANGE, "c2"), Committed)


def test_read_only_server_refuses_commits_naming_the_way_out(ledger: RedisLedger, client: redis.Redis) -> None:
    version = ledger.snapshot().version
    client.replicaof("127.0.0.1", 1)
    with pytest.raises(LedgerUnavailable, match="read-only replica"):
        ledger.commit(version, 0, CHANGE, "c1")
    with pytest.raises(LedgerUnavailable, match="read-only replica"):
        ledger.latch_halt(HALT)
    client.replicaof("NO", "ONE")
    assert ledger.snapshot().halts == ()


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
def test_evicting_server_is_refused_at_once(server: EmbeddedRedis, client: redis.Redis, policy: str) -> None:
    client.config_set("maxmemory-policy", policy)
    with pytest.raises(LedgerUnavailable, match=f"may evict keys.*{policy}"):
        RedisLedger(server.url, SCOPE, DAY).rebuild(RiskSnapshot())
    assert client.keys("velox:*") == []


def test_password_that_is_missing_or_wrong_is_refused_and_not_shown(server: EmbeddedRedis, client: redis.Redis) -> None:
    client.acl_setuser("admin", enabled=True, passwords=["+secret"], commands=["+@all"], keys=["*"])
    client.acl_setuser("default", enabled=False)
    path = server.url.removeprefix("unix://")
    for user, says in (("", "password"), ("admin:hunter2@", "user or password")):
        ledger = RedisLedger(f"unix://{user}{path}", SCOPE, DAY)
        with pytest.raises(LedgerUnavailable, match=says) as caught:
            ledger.snapshot()
        assert "hunter2" not in str(caught.value)
    right = RedisLedger(f"unix://admin:secret@{path}", SCOPE, DAY)
    assert right.rebuild(RiskSnapshot()).version > 0
    right.close()


def test_user_without_permission_is_refused_naming_the_way_out(server: EmbeddedRedis, client: redis.Redis) -> None:
    client.acl_setuser("poor", enabled=True, passwords=["+pw"], commands=["+@all"], keys=["other:*"])
    ledger = RedisLedger(f"unix://poor:pw@{server.url.removeprefix('unix://')}", SCOPE, DAY)
    with pytest.raises(LedgerUnavailable, match="permission"):
        ledger.rebuild(RiskSnapshot())
    ledger.close()


def test_server_that_is_absent_is_refused_quickly_and_again(tmp_path: Path) -> None:
    ledger = RedisLedger(f"unix://{tmp_path / 'absent.sock'}", SCOPE, DAY, monotonic=lambda: 0.0)
    with pytest.raises(LedgerUnavailable, match=r"absent\.sock"):
        ledger.snapshot()
    with pytest.raises(LedgerUnavailable, match="a moment ago"):
        ledger.snapshot()
    with pytest.raises(LedgerUnavailable, match=r"absent\.sock.*velox check"):
        ledger.latch_halt(HALT)
