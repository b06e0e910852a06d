"""The take-over, step by step, over locks, processes and stores that do what the test says."""

from __future__ import annotations

from datetime import date

import pytest

from velox_core.domain.errors import VeloxError
from velox_core.domain.halts import HaltKind, HaltRecord
from velox_core.ports import EndOfHolder, LockHolder
from velox_core.take_over import ACKNOWLEDGE_SECONDS_MAX, TakeOver, TakeOverPorts, TakeOverResult, take_over

ENGINE = LockHolder(host="here", pid=11, started="boot:1")
GUARD = LockHolder(host="here", pid=22, started="boot:2")
HALT = HaltRecord(
    halt_id="20240115-FAULT-T1", kind=HaltKind.FAULT, trading_date=date(2024, 1, 15), reason="hangs", by="asha", at_ms=1
)


class World:
    """Two locks, the processes that hold them, their statuses, and what was done in which order."""

    def __init__(self, *holders: LockHolder | None) -> None:
        self.locks = [Lock(holder) for holder in holders]
        self.ends: dict[int, EndOfHolder] = {}
        self.acknowledge_after: dict[int, float] = {}
        self.end_by_itself_after: dict[int, float] = {}
        self.seconds = 0.0
        self.done: list[str] = []
        self.failed: list[str] = []
        self.latch_error = ""
        self.taken_after_kill: LockHolder | None = None

    def take_over(self, *, request_seconds: float = 7.0, stalled_pid: int = 0) -> TakeOver:
        ports = TakeOverPorts(
            locks=self.locks,
            latch=self.latch,
            statuses=self.statuses,
            end_holder=self.end_holder,
            monotonic=lambda: self.seconds,
            sleep=self.sleep,
        )
        return take_over(ports, HALT, request_seconds=request_seconds, stalled_pid=stalled_pid)

    def latch(self, halt: HaltRecord) -> list[str]:
        if self.latch_error:
            raise VeloxError(self.latch_error)
        self.done.append(f"latch {halt.halt_id}")
        return self.failed

    def statuses(self) -> list[dict[str, object]]:
        known = {pid: [HALT.halt_id] for pid, after in self.acknowledge_after.items() if self.seconds >= after}
        return [
            {"pid": 11, "acknowledged_halts": known.get(11, ["another halt"])},
            {"pid": 22, **({} if 22 not in known else {"acknowledged_halts": known[22]})},
            {"pid": 33, "acknowledged_halts": [HALT.halt_id]},
        ]

    def end_holder(self, holder: LockHolder, wait_seconds: float) -> EndOfHolder:
        end = self.ends.get(holder.pid, EndOfHolder.KILLED)
        self.done.append(f"{end.value} {holder.pid}")
        if end in (EndOfHolder.KILLED, EndOfHolder.GONE):
            self.free(holder.pid)
            self.locks[0].held_by = self.taken_after_kill or self.locks[0].held_by
        return end

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds
        if seconds >= 1.0:
            self.done.append(f"wait {seconds:.0f} s")
        for pid, after in self.end_by_itself_after.items():
            if self.seconds >= after:
                self.free(pid)

    def free(self, pid: int) -> None:
        for lock in self.locks:
            if lock.held_by is not None and lock.held_by.pid == pid:
                lock.held_by = None


class Lock:
    def __init__(self, held_by: LockHolder | None) -> None:
        self.held_by = held_by

    def holder(self) -> LockHolder | None:
        return self.held_by


def test_take_over_of_what_nobody_holds_latches_and_kills_nothing() -> None:
    world = World(None, None)
    assert world.take_over() == TakeOver(result=TakeOverResult.NOBODY)
    assert world.done == []


def test_take_over_of_a_silent_holder_halts_first_then_kills_then_waits_out_its_requests() -> None:
    world = World(ENGINE, ENGINE)
    outcome = world.take_over()
    assert outcome == TakeOver(result=TakeOverResult.FREE, killed=(11,))
    assert world.done == ["latch 20240115-FAULT-T1", "KILLED 11", "wait 7 s"]
    assert world.seconds >= ACKNOWLEDGE_SECONDS_MAX + 7.0


@pytest.mark.parametrize("after", [0.0, 5.0, ACKNOWLEDGE_SECONDS_MAX - 0.5])
def test_take_over_of_a_holder_that_acknowledges_in_time_leaves_it_to_it(after: float) -> None:
    world = World(ENGINE, None)
    world.acknowledge_after[11] = after
    assert world.take_over().result is TakeOverResult.ANSWERS
    assert world.done == ["latch 20240115-FAULT-T1"]


def test_take_over_of_a_holder_that_acknowledges_too_late_kills_it() -> None:
    world = World(ENGINE, None)
    world.acknowledge_after[11] = ACKNOWLEDGE_SECONDS_MAX + 1.0
    assert world.take_over().killed == (11,)


def test_take_over_of_a_holder_that_acknowledges_and_gets_nowhere_kills_it_at_once() -> None:
    world = World(ENGINE, ENGINE)
    world.acknowledge_after[11] = 0.0
    assert world.take_over(stalled_pid=11) == TakeOver(result=TakeOverResult.FREE, killed=(11,))
    assert world.done == ["latch 20240115-FAULT-T1", "KILLED 11", "wait 7 s"]
    assert world.seconds == 7.0


def test_take_over_of_a_stalled_holder_leaves_another_that_answers_and_waits_for_one_that_may() -> None:
    world = World(ENGINE, GUARD)
    world.acknowledge_after |= {11: 0.0, 22: 5.0}
    assert world.take_over(stalled_pid=11) == TakeOver(result=TakeOverResult.ANSWERS, killed=(11,))
    assert [step for step in world.done if "KILLED" in step] == ["KILLED 11"]


def test_take_over_of_a_stalled_process_that_another_one_followed_leaves_that_one() -> None:
    world = World(GUARD, None)
    world.acknowledge_after[22] = 0.0
    assert world.take_over(stalled_pid=11) == TakeOver(result=TakeOverResult.ANSWERS)


def test_take_over_with_one_of_two_holders_silent_kills_that_one_and_leaves_the_rest_to_the_other() -> None:
    world = World(ENGINE, GUARD)
    world.acknowledge_after[11] = 0.0
    assert world.take_over() == TakeOver(result=TakeOverResult.ANSWERS, killed=(22,))
    assert [step for step in world.done if "KILLED" in step] == ["KILLED 22"]


def test_take_over_of_locks_that_somebody_else_takes_meanwhile_raises() -> None:
    world = World(ENGINE, None)
    world.taken_after_kill = GUARD
    with pytest.raises(VeloxError, match="held again, by process 22"):
        world.take_over()


def test_take_over_of_a_holder_that_ends_by_itself_kills_nothing_and_waits_for_its_requests() -> None:
    world = World(ENGINE, None)
    world.end_by_itself_after[11] = 3.0
    assert world.take_over() == TakeOver(result=TakeOverResult.FREE)
    assert world.done == ["latch 20240115-FAULT-T1", "wait 7 s"]


def test_take_over_of_a_holder_that_somebody_else_killed_waits_for_its_requests_too() -> None:
    world = World(ENGINE, None)
    world.ends[11] = EndOfHolder.GONE
    assert world.take_over() == TakeOver(result=TakeOverResult.FREE)
    assert world.done[-1] == "wait 7 s"


@pytest.mark.parametrize(
    ("end", "message"), [(EndOfHolder.NOT_VERIFIED, "nothing was killed"), (EndOfHolder.SURVIVED, "has not ended")]
)
def test_take_over_of_a_holder_that_cannot_be_ended_raises_and_the_halt_stands(end: EndOfHolder, message: str) -> None:
    world = World(ENGINE, None)
    world.ends[11] = end
    with pytest.raises(VeloxError, match=message):
        world.take_over()
    assert world.done[0] == "latch 20240115-FAULT-T1"


def test_take_over_without_any_store_for_the_halt_kills_nothing() -> None:
    world = World(ENGINE, None)
    world.latch_error = "no store took it"
    with pytest.raises(VeloxError, match="no store took it"):
        world.take_over()
    assert world.done == []


def test_take_over_says_which_store_did_not_take_the_halt() -> None:
    world = World(ENGINE, None)
    world.failed = ["the ledger: down"]
    assert world.take_over().not_latched == ("the ledger: down",)
