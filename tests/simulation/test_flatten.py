"""Simultaneous triggers as a test: some hundred seeds, the same story twice, and proof that the invariants can fail."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from tests.simulation import flatten_processes
from tests.simulation.flatten_processes import CLOSES_NOTHING, IS_DEAF
from tests.simulation.flatten_world import FlattenOutcome, FlattenWorld, run_flattening
from tests.simulation.stores import SimCloserLock
from tests.simulation.verdict import InvariantBroken
from velox_core.adoption import Look
from velox_core.domain.halts import HaltKind
from velox_core.flat_proof import FlattenState
from velox_core.lost_exits import Recalled
from velox_core.ports import BrokerPosition, CloserHold
from velox_core.take_over import take_over

SEEDS = 200


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logger = logging.getLogger("velox")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    yield
    logger.setLevel(before)


def test_flattening_from_several_sides_never_reverses_a_position() -> None:
    outcomes = [run_flattening(seed) for seed in range(1, SEEDS + 1)]
    # the episodes must have had something to survive
    assert sum(outcome.trades for outcome in outcomes) > SEEDS * 2
    assert sum(outcome.kills for outcome in outcomes) > SEEDS // 5
    assert sum(outcome.flat for outcome in outcomes) > SEEDS
    assert sum(outcome.not_flat for outcome in outcomes) > 0
    assert sum(outcome.lost for outcome in outcomes) > SEEDS // 10


def test_flattening_of_one_seed_twice_is_the_same_story() -> None:
    for seed in (5, 26, 92):
        first, second = FlattenWorld(seed), FlattenWorld(seed)
        for world in (first, second):
            world.run()
        told = [
            [(t.ts_ms, t.client_order_id, t.quantity, t.price_paise) for t in w.broker.exchange.trades] for w in (first, second)
        ]
        assert told[0] == told[1]
        assert first.now_ms == second.now_ms
        assert first.alerts.sent == second.alerts.sent


def test_exit_on_its_way_when_another_hand_trades_may_turn_the_position_and_is_counted() -> None:
    assert run_flattening(50_586).over == 1


def test_lost_exit_that_arrives_after_the_last_look_at_the_orders_may_turn_the_position_and_is_counted() -> None:
    assert run_flattening(50_703).over == 1


def test_closer_without_a_record_says_flat_and_says_what_it_could_not_read_before_a_lost_exit_arrives() -> None:
    world = FlattenWorld(54_887)
    outcome = world.run()
    said = {closing.name: closing.flattener.result() for closing in world.closings}["closer 3"]
    assert said.state is FlattenState.FLAT
    assert "the journal is locked" in said.not_recalled
    assert outcome.left_open == []


def _calm(outcome: FlattenOutcome) -> bool:
    """Return whether nothing but the engine was in trouble."""
    return not any(word in trouble for trouble in outcome.what for word in ("half", "a closer", "cannot trade"))


@pytest.mark.parametrize("trouble", [CLOSES_NOTHING, IS_DEAF])
def test_engine_that_acknowledges_and_closes_nothing_is_ended_and_its_account_closed(trouble: str) -> None:
    outcomes = [run_flattening(seed, trouble) for seed in range(1, 51)]
    calm = [outcome for outcome in outcomes if _calm(outcome)]
    assert all(f"the engine {trouble}" in outcome.what for outcome in outcomes)
    assert sum(outcome.kills > 0 for outcome in outcomes) > 35
    assert len(calm) >= 10
    assert sum(not outcome.left_open for outcome in calm) >= len(calm) - 1  # one's broker fails too many reads


def test_engine_that_closes_nothing_stays_when_nobody_watches_its_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("velox_core.closing_progress.ProgressWatch.is_stalled", False)
    outcomes = [run_flattening(seed, CLOSES_NOTHING) for seed in range(1, 11)]
    assert sum(bool(outcome.left_open) for outcome in outcomes) > 5


def test_flatten_that_comes_while_the_engine_closes_its_own_breach_leaves_it_flat_and_reverses_nothing() -> None:
    beside = []
    for seed in (*range(31, 51), *range(91, 116)):
        world = FlattenWorld(seed, "lives")
        shock_percent = 85 if seed % 2 else 115
        world.at(world._trouble_ms - 1_000, partial(setattr, world, "shock_percent", shock_percent))
        outcome = world.run()  # raises when a position was reversed
        halts = [record.kind for record in world.halt_file.records()]
        if halts[:2] == [HaltKind.LOSS, HaltKind.MANUAL] and not any("half" in trouble for trouble in outcome.what):
            beside.append(outcome)
    assert len(beside) >= 3
    assert all((outcome.left_open, outcome.over, outcome.not_flat) == ([], 0, 0) for outcome in beside)
    assert all(outcome.flat for outcome in beside)


def _first_break(seeds: range) -> str:
    for seed in seeds:
        try:
            run_flattening(seed)
        except InvariantBroken as broken:
            return str(broken)
    return ""


def test_flattening_without_the_closers_lock_breaks_an_invariant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("velox_core.closer.Closer.may_send", lambda self, now_ms: True)
    assert "has the lock" in _first_break(range(1, 40))


def test_flattening_with_a_lock_that_two_hold_breaks_an_invariant(monkeypatch: pytest.MonkeyPatch) -> None:
    def take(self: SimCloserLock) -> CloserHold:
        self._shared.holder = self._name
        return CloserHold.UNBROKEN

    monkeypatch.setattr("tests.simulation.stores.SimCloserLock.take", take)
    assert " replaces 240115C" in _first_break(range(1, 60))  # each takes the other's exit for lost


def test_flattening_without_a_look_after_another_closer_sends_beside_lost_exits(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = SimCloserLock.take

    def take(self: SimCloserLock) -> CloserHold:
        hold = plain(self)
        return CloserHold.UNBROKEN if hold is CloserHold.FRESH else hold

    monkeypatch.setattr("tests.simulation.stores.SimCloserLock.take", take)
    assert "beside the lost" in _first_break(range(265, 275))


def test_flattening_beside_the_orders_of_a_dead_closer_reverses_a_position(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("velox_core.closer.Closer.others", lambda self, symbol, side: [])
    assert " made " in _first_break(range(451, 452))


def test_take_over_that_waits_for_no_request_reverses_a_position(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wait and the record of earlier exits each keep it from that; here nobody has the record."""

    def hasty(ports: Any, halt: Any, **bounds: float) -> Any:
        return take_over(ports, halt, **bounds | {"request_seconds": 0.0})

    monkeypatch.setattr(FlattenWorld, "recall", lambda self: Recalled())
    assert _first_break(range(26, 27)) == ""
    monkeypatch.setattr(flatten_processes, "take_over", hasty)
    assert " made " in _first_break(range(26, 27))


def test_take_over_that_does_not_kill_breaks_an_invariant(monkeypatch: pytest.MonkeyPatch) -> None:
    def kill(self: FlattenWorld, pid: int) -> bool:
        process = self.processes[pid]
        for shared, lock in ((self.holder, "holder"), (self, "engine_holder")):
            if getattr(shared, lock) == process.name:
                setattr(shared, lock, "")
        return True

    monkeypatch.setattr("tests.simulation.flatten_world.FlattenWorld.kill", kill)
    assert "has the lock" in _first_break(range(1, 120))


def test_engine_that_starts_without_reading_halts_breaks_an_invariant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("velox_core.emergency_exit_manager.EmergencyExitManager.load", lambda self: ())
    assert "heeds none of them" in _first_break(range(1, 5))


def test_flat_that_leaves_out_working_orders_breaks_an_invariant(monkeypatch: pytest.MonkeyPatch) -> None:
    def of_positions_only(self: Look, working: object, positions: list[BrokerPosition]) -> None:
        self.working, self.positions = [], positions

    monkeypatch.setattr("velox_core.adoption.Look.__init__", of_positions_only)
    assert "says FLAT, and" in _first_break(range(50, 70))


def test_closer_that_knows_nothing_of_earlier_ones_replaces_an_exit_too_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FlattenWorld, "recall", lambda self: Recalled())
    assert "beside the lost" in _first_break(range(3, 4))


def test_flat_said_of_an_engine_that_lost_an_exit_breaks_an_invariant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("velox_core.flattening.Flattener._engine_lost_nothing", lambda self, now_ms: True)
    assert "said FLAT, and then" in _first_break(range(167, 168))
