"""The simulation as a test: many seeds, the same bytes twice, and proof that the invariants can fail."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from tests.simulation.world import InvariantBroken, run_episode
from velox_core.risk import layers
from velox_core.risk.gate import judge_exit
from velox_core.risk.layers import EntryRequest, Refusal
from velox_core.risk.ledger import RiskSnapshot
from velox_core.risk.limits import RiskLimits

SEEDS = 400


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logger = logging.getLogger("velox")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    yield
    logger.setLevel(before)


def test_simulation_many_seeds_break_no_invariant() -> None:
    outcomes = [run_episode(seed) for seed in range(1, SEEDS + 1)]
    # the episodes must have had something to survive
    assert sum(outcome.fills for outcome in outcomes) > SEEDS
    assert sum(outcome.crashes for outcome in outcomes) > SEEDS // 10
    assert sum(outcome.faults for outcome in outcomes) > SEEDS // 10
    assert sum(outcome.halted for outcome in outcomes) > SEEDS // 50
    assert sum(outcome.flat for outcome in outcomes) > SEEDS * 3 // 4


def test_simulation_same_seed_gives_the_same_journal() -> None:
    for seed in (3, 7, 19, 42):
        first, second = run_episode(seed), run_episode(seed)
        assert first.export, f"seed {seed} journaled nothing"
        assert first.export == second.export
        assert (first.orders, first.fills, first.crashes) == (second.orders, second.fills, second.crashes)


def _first_break(seeds: range) -> str:
    for seed in seeds:
        try:
            run_episode(seed)
        except InvariantBroken as broken:
            return str(broken)
    return ""


def _blind(request: EntryRequest, snapshot: RiskSnapshot, limits: RiskLimits) -> Refusal | None:
    return None


@pytest.mark.parametrize(
    ("blinded", "expected"),
    [
        ((layers.duplicate, layers.position_exists), "which"),
        ((layers.total_positions,), "would be position"),
        ((layers.position_size,), "above the position size"),
    ],
)
def test_simulation_without_a_layer_breaks_an_invariant(
    monkeypatch: pytest.MonkeyPatch, blinded: tuple[layers.Layer, ...], expected: str
) -> None:
    kept = tuple(_blind if layer in blinded else layer for layer in layers.LAYERS)
    monkeypatch.setattr("velox_core.risk.gate.LAYERS", kept)
    assert expected in _first_break(range(1, 300))


def test_simulation_with_an_exit_door_that_sends_too_much_breaks_an_invariant(monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(open_quantity: int, working_quantity: int, working_rank: object, rank: object) -> object:
        quantity, refusal = judge_exit(open_quantity, 0, None, rank)  # type: ignore[arg-type]
        return quantity, refusal

    monkeypatch.setattr("velox_core.risk_manager.judge_exit", careless)
    assert "working" in _first_break(range(1, 400))


def test_simulation_sending_before_the_intent_is_durable_breaks_an_invariant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("velox_core.order_manager.OrderManager._may_leave", lambda self, order, now_ms: True)
    assert "without a durable intent" in _first_break(range(1, 50))
