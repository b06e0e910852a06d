"""Two processes on one ledger, through commits, conflicts, lost replies, halts, take-overs and rebuilds, against a dictionary.

The model knows nothing of snapshots and scripts: it is a version, some dictionaries and who may write. Each ledger must
answer every step as the model does, and hold what the model holds after it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from typing import Any

import fakeredis
import pytest
import redis
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from velox_core.domain.errors import LedgerUnavailable, VeloxError
from velox_core.domain.halts import HaltKind, HaltRecord
from velox_core.domain.orders import Side
from velox_core.ledger.memory import MemoryLedger
from velox_core.ledger.redis import RedisLedger
from velox_core.ports import RiskLedger
from velox_core.risk.ledger import Claim, Committed, Conflict, Fenced, LedgerChange, OpenPosition, RiskSnapshot

DAY = date(2024, 1, 15)
PROCESSES = st.sampled_from(("one", "two"))
SYMBOLS = st.sampled_from(("TCS", "M&M", "INFY"))
STRATEGIES = st.sampled_from(("orb", "sma cross"))
SIDES = st.sampled_from(Side)
PAISE = st.integers(-(2**53), 2**53)
LEASE_SECONDS = 3_600.0  # nothing expires by itself here


@dataclass
class Model:
    """What a ledger should hold, in plain values."""

    epoch: int = 0
    holder: str = ""
    halts: dict[str, HaltRecord] = field(default_factory=dict)
    claims: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    positions: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    last_entry_ms: dict[tuple[str, str, Side], int] = field(default_factory=dict)
    realised_paise: int = 0
    charges_paise: int = 0
    applied: dict[str, int] = field(default_factory=dict)


class LedgerMachine(RuleBasedStateMachine):
    """Drives two processes on one store. A subclass opens the ledgers and says whether the store can lose anything."""

    loses = False

    def open(self, name: str) -> RiskLedger:
        """Open the ledger of one process."""
        raise AssertionError("a machine is of one kind of ledger")

    def __init__(self) -> None:
        super().__init__()
        self.losses: list[str] = []
        self.model = Model()
        self.version = 0
        self.epochs = {"one": 0, "two": 0}  # what each process believes
        self.untrusting: set[str] = set()  # processes that lost a reply and must rebuild
        self.emptied = False
        self.number = 0
        self.ledgers = {name: self.open(name) for name in self.epochs}

    def next_number(self) -> int:
        self.number += 1
        return self.number

    @initialize()
    def first_engine_builds_the_ledger(self) -> None:
        self.take_lease("one")
        self.rebuild("one")

    # -- who may write ------------------------------------------------------------------------------------------

    @precondition(lambda self: not self.emptied)
    @rule(name=PROCESSES)
    def take_lease(self, name: str) -> None:
        model = self.model
        if model.holder not in ("", name):
            with pytest.raises(VeloxError, match=model.holder):
                self.ledgers[name].acquire_lease(name)
            return
        epoch = self.ledgers[name].acquire_lease(name)
        assert epoch == model.epoch + 1
        model.epoch = self.epochs[name] = epoch
        model.holder = name

    @precondition(lambda self: not self.emptied)
    @rule(name=PROCESSES)
    def give_lease_back(self, name: str) -> None:
        if not self.epochs[name]:
            return
        self.ledgers[name].release_lease(self.epochs[name])
        if self.epochs[name] == self.model.epoch:
            self.model.holder = ""

    # -- commits --------------------------------------------------------------------------------------------------

    def commit(self, name: str, change: LedgerChange, *, behind: int, change_id: str, loss: str = "") -> None:
        """Commit, and check the answer against the model's; the model moves only when the change got in."""
        ledger, model = self.ledgers[name], self.model
        known, epoch = self.version - behind, self.epochs[name]
        if name in self.untrusting or self.emptied:
            with pytest.raises(LedgerUnavailable):
                ledger.commit(known, epoch, change, change_id)
            return
        if loss:
            self.losses.append(loss)
            self.untrusting.add(name)
        if loss == "before":
            if epoch == model.epoch and change_id in model.applied:
                assert isinstance(ledger.commit(known, epoch, change, change_id), Committed)
            else:
                with pytest.raises(LedgerUnavailable):
                    ledger.commit(known, epoch, change, change_id)
            return
        result_is_lost = bool(loss)
        refusing: type | None = None
        if epoch != model.epoch:
            refusing = Fenced
        elif change_id in model.applied:
            result = ledger.commit(known, epoch, change, change_id)
            assert isinstance(result, Committed)
            assert result.version == model.applied[change_id]
            return
        elif (behind and not change.is_fact) or (change.opens_risk and model.halts):
            refusing = Conflict
        if refusing is not None and result_is_lost:  # refused or not, it is not in
            with pytest.raises(LedgerUnavailable):
                ledger.commit(known, epoch, change, change_id)
            return
        result = ledger.commit(known, epoch, change, change_id)
        if refusing is not None:
            assert isinstance(result, refusing)
            if isinstance(result, Conflict):
                self.compare(result.snapshot)
            return
        assert isinstance(result, Committed)
        assert result.version == self.version + 1
        self.apply(change, change_id)
        if behind and not loss:  # a reply that was lost is asked about: the version is all there is
            assert result.snapshot is not None
            self.compare(result.snapshot)

    def apply(self, change: LedgerChange, change_id: str) -> None:
        model = self.model
        self.version += 1
        model.applied[change_id] = self.version
        if change.drop_claim is not None:
            model.claims.pop(change.drop_claim, None)
        if change.put_claim is not None:
            claim = change.put_claim
            model.claims[claim.intent_id] = values_of(claim)
            model.last_entry_ms[claim.strategy_id, claim.symbol, claim.side] = claim.created_ms
        if change.drop_position is not None:
            model.positions.pop(change.drop_position, None)
        if change.put_position is not None:
            model.positions[change.put_position.symbol] = values_of(change.put_position)
        if change.realised_paise is not None:
            model.realised_paise = change.realised_paise
        if change.charges_paise is not None:
            model.charges_paise = change.charges_paise

    def loss_of(self, drawn: str) -> str:
        return drawn if self.loses else ""

    @rule(
        name=PROCESSES,
        strategy=STRATEGIES,
        symbol=SYMBOLS,
        side=SIDES,
        notional=st.integers(0, 2**53),
        behind=st.sampled_from((0, 0, 0, 1)),
        loss=st.sampled_from(("", "", "", "", "before", "after")),
    )
    def claim(self, name: str, strategy: str, symbol: str, side: Side, notional: int, behind: int, loss: str) -> None:
        number = self.next_number()
        claim = Claim(f"i{number}", strategy, symbol, side, 1 + number % 9, notional, number)
        change = LedgerChange(opens_risk=True, put_claim=claim)
        self.commit(name, change, behind=behind, change_id=claim.intent_id, loss=self.loss_of(loss))

    @precondition(lambda self: self.model.claims)
    @rule(
        name=PROCESSES,
        data=st.data(),
        realised=PAISE,
        charges=PAISE,
        loss=st.sampled_from(("", "", "", "before", "after")),
        behind=st.sampled_from((0, 0, 1)),
    )
    def claim_becomes_a_position(
        self, name: str, data: st.DataObject, realised: int, charges: int, loss: str, behind: int
    ) -> None:
        intent_id = data.draw(st.sampled_from(sorted(self.model.claims)))
        _, strategy, symbol, *_ = self.model.claims[intent_id]
        change = LedgerChange(
            is_fact=True,
            drop_claim=intent_id,
            put_position=OpenPosition(symbol, strategy, -3, realised, 4),
            realised_paise=realised,
            charges_paise=charges,
        )
        self.commit(name, change, behind=behind, change_id=f"t{self.next_number()}", loss=self.loss_of(loss))

    @rule(name=PROCESSES, symbol=SYMBOLS, realised=PAISE, behind=st.sampled_from((0, 0, 1)))
    def position_ends(self, name: str, symbol: str, realised: int, behind: int) -> None:
        change = LedgerChange(drop_position=symbol, realised_paise=realised)
        self.commit(name, change, behind=behind, change_id=f"t{self.next_number()}")

    @precondition(lambda self: self.model.applied)
    @rule(name=PROCESSES, data=st.data(), behind=st.sampled_from((0, 1)), loss=st.sampled_from(("", "", "before", "after")))
    def change_is_repeated(self, name: str, data: st.DataObject, behind: int, loss: str) -> None:
        change_id = data.draw(st.sampled_from(sorted(self.model.applied)))
        change = LedgerChange(drop_position="TCS", realised_paise=-1, charges_paise=-1)
        if self.epochs[name] == self.model.epoch:
            self.commit(name, change, behind=behind, change_id=change_id, loss=self.loss_of(loss))

    # -- halts, and what a store loses ------------------------------------------------------------------------------

    @precondition(lambda self: not self.emptied)
    @rule(name=PROCESSES, again=st.booleans())
    def halt(self, name: str, again: bool) -> None:
        repeated = again and bool(self.model.halts)
        halt_id = next(iter(self.model.halts)) if repeated else f"h{self.next_number()}"
        self.ledgers[name].latch_halt(halt_record(halt_id))
        if not repeated:
            self.model.halts[halt_id] = halt_record(halt_id)
            self.version += 1

    @precondition(lambda self: self.model.halts and not self.emptied)
    @rule(name=PROCESSES, data=st.data())
    def clear(self, name: str, data: st.DataObject) -> None:
        halt_id = data.draw(st.sampled_from(sorted(self.model.halts)))
        self.ledgers[name].latch_halt(halt_record(f"{halt_id}-CLEAR", clears=halt_id))
        del self.model.halts[halt_id]
        self.version += 1

    @precondition(lambda self: self.loses and not self.emptied)
    @rule()
    def server_loses_everything(self) -> None:
        self.flush()
        self.emptied = True

    @rule(name=PROCESSES, symbol=SYMBOLS)
    def rebuild(self, name: str, symbol: str = "TCS") -> None:
        """Rebuild from 'journal and broker': one position, no claims; the halts of the halt file join."""
        epoch = self.epochs[name]
        if not epoch or (self.emptied and epoch != self.model.epoch):
            return  # an engine has a lease before it rebuilds, and an old one would not know of a flush
        held = OpenPosition(symbol, "orb", 2, 700, 5)
        halts = tuple(self.model.halts.values())
        fresh = RiskSnapshot(version=self.version, epoch=epoch, positions={symbol: held}, halts=halts, charges_paise=7)
        if epoch < self.model.epoch:
            with pytest.raises(LedgerUnavailable, match="took over"):
                self.ledgers[name].rebuild(fresh)
            return
        snapshot = self.ledgers[name].rebuild(fresh)
        assert snapshot.version > self.version
        self.version = snapshot.version
        model = self.model
        self.model = Model(epoch=epoch, holder=model.holder, halts=model.halts, charges_paise=7)
        self.model.positions = {symbol: values_of(held)}
        self.untrusting.discard(name)
        if self.emptied:
            self.emptied = False
            self.model.holder = ""  # the lease went with everything else

    def flush(self) -> None:
        """Empty the store."""

    # -- what always holds --------------------------------------------------------------------------------------------

    def compare(self, snapshot: RiskSnapshot) -> None:
        model = self.model
        assert snapshot.version == self.version
        assert snapshot.epoch == model.epoch
        assert {halt.halt_id for halt in snapshot.halts} == set(model.halts)
        assert {key: values_of(claim) for key, claim in snapshot.claims.items()} == model.claims
        assert {key: values_of(held) for key, held in snapshot.positions.items()} == model.positions
        assert dict(snapshot.last_entry_ms) == model.last_entry_ms
        assert (snapshot.realised_paise, snapshot.charges_paise) == (model.realised_paise, model.charges_paise)

    @invariant()
    def every_process_sees_what_the_model_holds_or_nothing(self) -> None:
        if not self.version:
            return
        for name, ledger in self.ledgers.items():
            if name in self.untrusting or self.emptied:
                with pytest.raises(LedgerUnavailable):
                    ledger.snapshot()
            else:
                self.compare(ledger.snapshot())


def values_of(item: Claim | OpenPosition) -> tuple[Any, ...]:
    """Return a claim or position as plain values, in the order of its constructor."""
    if isinstance(item, Claim):
        return (item.intent_id, item.strategy_id, item.symbol, item.side, item.quantity, item.notional_paise, item.created_ms)
    return (item.symbol, item.strategy_id, item.quantity, item.cost_paise, item.opened_ms)


def halt_record(halt_id: str, clears: str = "") -> HaltRecord:
    return HaltRecord(
        halt_id=halt_id, kind=HaltKind.MANUAL, trading_date=DAY, reason="a test", by="a test", at_ms=1, clears=clears
    )


class LossyClient:
    """A client that loses a reply when the list says so, before or after the server ran the script."""

    def __init__(self, client: Any, losses: list[str]) -> None:
        self._client = client
        self._losses = losses

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def evalsha(self, *arguments: Any) -> Any:
        loss = self._losses.pop(0) if self._losses else ""
        answer = None if loss == "before" else self._client.evalsha(*arguments)
        if loss:
            raise redis.TimeoutError(f"the network ate it {loss} it ran")
        return answer


class MemoryMachine(LedgerMachine):
    """Both processes hold the one ledger in memory."""

    def __init__(self) -> None:
        self.memory = MemoryLedger(lease_seconds=LEASE_SECONDS)
        super().__init__()

    def open(self, name: str) -> RiskLedger:
        return self.memory


class RedisMachine(LedgerMachine):
    """Each process has a connection of its own to one fake server."""

    loses = True

    def __init__(self) -> None:
        self.server = fakeredis.FakeServer()
        self.seconds = 0.0
        super().__init__()

    def later(self) -> float:
        """Return a time at which every pause of the call before is over."""
        self.seconds += 10.0
        return self.seconds

    def open(self, name: str) -> RiskLedger:
        losses = self.losses

        def connect(seconds: float) -> Any:
            return LossyClient(fakeredis.FakeRedis(server=self.server), losses)

        return RedisLedger(connect, "simulated:primary", DAY, lease_seconds=LEASE_SECONDS, monotonic=self.later)

    def flush(self) -> None:
        fakeredis.FakeRedis(server=self.server).flushall()


FEW = settings(max_examples=60, stateful_step_count=25, deadline=None, derandomize=True, phases=(Phase.generate,))
TestMemoryLedger = MemoryMachine.TestCase
TestMemoryLedger.settings = FEW
TestRedisLedger = RedisMachine.TestCase
TestRedisLedger.settings = FEW
