"""The simulation as a test: many seeds, the same bytes twice, and proof that the invariants can fail."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from copy import copy
from typing import Any

import pytest

from tests.simulation.stores import SimJournal, SimLedger
from tests.simulation.troubles import KINDS
from tests.simulation.verdict import InvariantBroken
from tests.simulation.world import RESTARTS_MAX, World, run_episode
from velox_core.brokers.faults import FaultKind, FaultPlan
from velox_core.domain.charges import ChargeSchedule
from velox_core.domain.events import Body, EventKind
from velox_core.domain.market.bars import MinuteRow
from velox_core.domain.orders import Order, OrderState, Side
from velox_core.emergency_exit_manager import EmergencyExitManager
from velox_core.engine.session import TradingSession
from velox_core.engine.strategy_host import HostedStrategy
from velox_core.exit_door import ExitGoal
from velox_core.risk import layers
from velox_core.risk.approval import ApprovedOrder
from velox_core.risk.gate import ExitRequest, judge_exit
from velox_core.risk.layers import EntryRequest, ReasonCode, Refusal
from velox_core.risk.ledger import CommitResult, LedgerChange, RiskSnapshot
from velox_core.risk.limits import RiskLimits
from velox_core.risk_manager import RiskManager

SEEDS = 300
FAILED_ONCE = (
    36, 336, 783, 2_947, 5_231, 6_104, 7_159, 8_252, 8_538, 9_166, 20_782, 21_101, 38_883, 51_320, 59_237, 61_225, 100_823,
    103_433, 104_307,
)  # fmt: skip


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
    assert sum(outcome.over_exits for outcome in outcomes) > 0
    assert sum(outcome.halted for outcome in outcomes) > SEEDS // 50
    assert sum(outcome.flat for outcome in outcomes) > SEEDS * 3 // 4


def test_simulation_same_seed_gives_the_same_journal() -> None:
    for seed in (3, 7, 19, 42):
        first, second = run_episode(seed), run_episode(seed)
        assert first.export, f"seed {seed} journaled nothing"
        assert first.export == second.export
        assert (first.orders, first.fills, first.crashes) == (second.orders, second.fills, second.crashes)


@pytest.mark.parametrize("seed", FAILED_ONCE)
def test_simulation_a_seed_that_once_failed_breaks_no_invariant(seed: int) -> None:
    assert run_episode(seed).crashes < RESTARTS_MAX


def _first_break(seeds: range, *forced: str) -> str:
    for seed in seeds:
        try:
            run_episode(seed, forced)
        except InvariantBroken as broken:
            return str(broken)
    return ""


@pytest.mark.parametrize("kind", KINDS)
def test_simulation_of_each_rarer_trouble_lets_it_happen_and_breaks_no_invariant(kind: str) -> None:
    outcomes = [run_episode(seed, (kind,)) for seed in range(1, 9)]
    assert sum(kind in outcome.rarer for outcome in outcomes) >= 6


def _blind(request: EntryRequest, snapshot: RiskSnapshot, limits: RiskLimits) -> Refusal | None:
    return None


@pytest.mark.parametrize(
    ("blinded", "expected", "first_seed"),
    [
        ((layers.duplicate, layers.position_exists), "which", 1),
        ((layers.total_positions,), "would be position", 1),
        ((layers.strategy_positions,), "of strategy", 1),
        ((layers.position_size,), "above the position size", 1),
        ((layers.daily_loss,), "with its charges", 842),
    ],
)
def test_simulation_without_a_layer_breaks_an_invariant(
    monkeypatch: pytest.MonkeyPatch, blinded: tuple[layers.Layer, ...], expected: str, first_seed: int
) -> None:
    kept = tuple(_blind if layer in blinded else layer for layer in layers.LAYERS)
    monkeypatch.setattr("velox_core.risk.gate.LAYERS", kept)
    assert expected in _first_break(range(first_seed, first_seed + 300))


def test_simulation_with_an_exit_door_that_sends_too_much_breaks_an_invariant(monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(open_quantity: int, working_quantity: int, working_rank: object, rank: object) -> object:
        quantity, refusal = judge_exit(open_quantity, 0, None, rank)  # type: ignore[arg-type]
        return quantity, refusal

    monkeypatch.setattr("velox_core.risk_manager.judge_exit", careless)
    assert "working" in _first_break(range(1, 400))


def test_simulation_sending_before_the_intent_is_durable_breaks_an_invariant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("velox_core.durable_journal.DurableJournal.commit_intent", lambda self, order, now_ms: None)
    assert "without a durable intent" in _first_break(range(1, 50))


def test_simulation_with_everything_blind_to_halts_breaks_an_invariant(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the three alone refuses entries on a halt: the first layer, the seventh (after a loss), the ledger."""
    commit = SimLedger.commit

    def blind_commit(self: SimLedger, version: int, epoch: int, change: LedgerChange, change_id: str) -> CommitResult:
        blind_change = copy(change)
        blind_change.opens_risk = False
        return commit(self, version, epoch, blind_change, change_id)

    blinded = (layers.emergency_exit, layers.daily_loss)
    monkeypatch.setattr("velox_core.risk.gate.LAYERS", tuple(_blind if x in blinded else x for x in layers.LAYERS))
    monkeypatch.setattr("tests.simulation.stores.SimLedger.commit", blind_commit)
    monkeypatch.setattr("tests.simulation.invariants.Invariants._judge_entry_loss", lambda self, order: None)
    assert "while a halt is latched" in _first_break(range(1, 200))


def test_simulation_with_a_disabled_breach_check_breaks_an_invariant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("velox_core.risk.breach.DayLoss.reaches", lambda self, limit_paise: False)
    assert "and no halt" in _first_break(range(1, 100))


def test_simulation_with_a_loss_that_leaves_out_open_positions_breaks_an_invariant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("velox_core.risk.breach.DayLoss.mark_row", lambda self, prices_paise: None)
    assert "is marked" in _first_break(range(1, 20))


def test_simulation_with_claims_that_are_never_resolved_breaks_an_invariant(monkeypatch: pytest.MonkeyPatch) -> None:
    record_fill = RiskManager.record_fill

    def keeping(self: RiskManager, change_id: str, **facts: Any) -> None:
        record_fill(self, change_id, **facts | {"resolved_claim": None})

    monkeypatch.setattr("velox_core.risk_manager.RiskManager.record_fill", keeping)
    assert "is still held" in _first_break(range(1, 20))


def test_simulation_with_charges_off_by_a_paisa_breaks_an_invariant(monkeypatch: pytest.MonkeyPatch) -> None:
    def dear(self: ChargeSchedule, side: Side, value_paise: int) -> int:
        return self.breakdown(side, value_paise).total + 1

    monkeypatch.setattr("velox_core.domain.charges.ChargeSchedule.order_charges_paise", dear)
    assert "the loss of the day is" in _first_break(range(1, 20))
    monkeypatch.setattr("tests.simulation.invariants.Invariants._judge_loss", lambda self, engine: None)
    assert "is charged" in _first_break(range(1, 20))


def test_simulation_with_exits_refused_breaks_an_invariant(monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(open_quantity: int, working_quantity: int, working_rank: object, rank: object) -> tuple[int, Refusal]:
        return 0, Refusal(0, ReasonCode.NOTHING_TO_EXIT, "refused")

    monkeypatch.setattr("velox_core.risk_manager.judge_exit", closed)
    assert "no exit was sent" in _first_break(range(1, 20))


def test_simulation_with_exits_refused_while_the_journal_is_down_breaks_an_invariant(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refusal that is rare and ends by itself is found too."""
    request_exit = RiskManager.request_exit

    def careful(self: RiskManager, request: ExitRequest, now_ms: int) -> ApprovedOrder | Refusal:
        if self.readiness.journal_fault:
            return Refusal(0, ReasonCode.JOURNAL_UNAVAILABLE, "refused")
        return request_exit(self, request, now_ms)

    monkeypatch.setattr("velox_core.risk_manager.RiskManager.request_exit", careful)
    assert "no exit was sent" in _first_break(range(1, 400))


def test_simulation_with_an_emergency_exit_that_only_halts_breaks_an_invariant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("velox_core.emergency_exit_manager.EmergencyExitManager._continue_closing", lambda self, now_ms: None)
    monkeypatch.setattr("tests.simulation.invariants.Invariants._judge_exits", lambda self, engine, now_ms: None)
    assert any("after the LOSS halt" in _first_break(range(seed, seed + 1)) for seed in range(1, 200))


OVER_EXIT_SEEDS = (35, 132, 134, 203)  # an exit that was given up appears late and trades


def _breaks_of(seeds: tuple[int, ...]) -> str:
    return " | ".join(_first_break(range(seed, seed + 1)) for seed in seeds)


def test_simulation_with_an_over_exit_that_is_left_open_breaks_an_invariant(monkeypatch: pytest.MonkeyPatch) -> None:
    on_position = TradingSession.on_position

    def careless(self: TradingSession, symbol: str) -> None:
        self._parts.order_manager.overshot.clear()
        on_position(self, symbol)

    def late(self: World) -> FaultPlan:
        return FaultPlan(self.seed, rates={FaultKind.APPEARS_LATE: 0.4}, delays_ms=(90_000, 200_000))

    monkeypatch.setattr("tests.simulation.world.World._fault_plan", late)
    assert run_episode(278).over_exits
    monkeypatch.setattr("velox_core.engine.session.TradingSession.on_position", careless)
    assert "and it is still open" in _first_break(range(278, 279))


def test_simulation_with_an_over_exit_that_nobody_locks_breaks_an_invariant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("velox_core.risk_manager.RiskManager.note_lock", lambda self, symbol, reason: False)
    monkeypatch.setattr("tests.simulation.invariants.Invariants._judge_entry", lambda *arguments: None)
    assert "and it is not locked" in _breaks_of(OVER_EXIT_SEEDS)


def test_simulation_with_exits_replaced_at_once_breaks_an_invariant(monkeypatch: pytest.MonkeyPatch) -> None:
    """An UNKNOWN exit that does not count as working is replaced without being given up first."""

    def impatient(order: Order, goal: ExitGoal, now_ms: int) -> bool:
        return order.state is not OrderState.UNKNOWN

    monkeypatch.setattr("velox_core.exit_door.ExitDoor._counts_as_working", staticmethod(impatient))
    monkeypatch.setattr("velox_core.order_manager.OrderManager.cancel", lambda self, order, reason, now_ms: self._forget(order))
    assert "working" in _breaks_of((157, 459, 511))


def test_simulation_with_a_disabled_strategy_that_goes_on_breaks_an_invariant(monkeypatch: pytest.MonkeyPatch) -> None:
    on_minute = HostedStrategy.on_minute

    def forgiving(self: HostedStrategy, ts_ms: int, row: MinuteRow) -> object:
        signals = on_minute(self, ts_ms, row)
        self.disabled = ""
        return signals

    monkeypatch.setattr("velox_core.engine.strategy_host.HostedStrategy.on_minute", forgiving)
    assert "disabled for the day" in _first_break(range(1, 200))


def test_simulation_with_fills_lost_by_the_journal_breaks_an_invariant(monkeypatch: pytest.MonkeyPatch) -> None:
    append = SimJournal.append

    def forgetful(self: SimJournal, kind: EventKind, ts_ms: int, body: Body) -> None:
        if kind is not EventKind.FILL or body["trade_id"] != "T2":
            append(self, kind, ts_ms, body)

    monkeypatch.setattr("tests.simulation.stores.SimJournal.append", forgetful)
    assert _first_break(range(1, 20))


def test_simulation_with_an_emergency_file_that_is_not_written_breaks_an_invariant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.simulation.stores.SimJournal._file", lambda self: None)
    assert "without a durable intent" in _first_break(range(1, 20), "crash without journal")


def test_simulation_with_an_emergency_file_that_is_not_imported_breaks_an_invariant(monkeypatch: pytest.MonkeyPatch) -> None:
    lose_buffer = SimJournal.lose_buffer

    def forgetful(self: SimJournal) -> None:
        lose_buffer(self)
        self._left.clear()

    monkeypatch.setattr("tests.simulation.stores.SimJournal.lose_buffer", forgetful)
    assert _first_break(range(1, 30), "crash without journal")


def test_simulation_with_exits_that_ignore_the_closers_lock_breaks_an_invariant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("velox_core.closer.Closer.may_send", lambda self, now_ms: True)
    assert "has the closer's lock" in _first_break(range(1, 60), "closer")


def test_simulation_with_exits_beside_those_of_another_closer_breaks_an_invariant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("velox_core.closer.Closer.others", lambda self, symbol, side: [])
    assert "working" in _first_break(range(1, 200), "closer", "crash after cancel", "gap")


def test_simulation_with_exits_that_wait_and_tell_nobody_breaks_an_invariant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("velox_core.closer.CLOSER_WAIT_MS_MAX", 1 << 40)
    assert "nobody is told" in _first_break(range(1, 200), "closer")


def test_simulation_with_an_engine_that_starts_without_looking_for_halts_breaks_an_invariant(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("velox_core.emergency_exit_manager.EmergencyExitManager.load", lambda self: ())
    monkeypatch.setattr("velox_core.emergency_exit_manager.EmergencyExitManager.take_up", lambda self, now_ms: False)
    assert "no exit was sent" in _first_break(range(1, 60), "take-over")


def test_simulation_with_an_epoch_that_is_used_again_breaks_an_invariant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("velox_core.engine.assembly.client_order_id_prefix", lambda date, actor, epoch: f"{date}E0001")
    assert "bears the epoch of an earlier engine" in _first_break(range(1, 60), "crash after news")


def test_simulation_with_a_reset_that_clears_a_loss_breaks_an_invariant(monkeypatch: pytest.MonkeyPatch) -> None:
    reset = EmergencyExitManager.reset

    def lenient(self: EmergencyExitManager, reason: str, by: str, now_ms: int, *, session_over: bool) -> object:
        return reset(self, reason, by, now_ms, session_over=True)

    monkeypatch.setattr("velox_core.emergency_exit_manager.EmergencyExitManager.reset", lenient)
    assert "cleared on their own date" in _first_break(range(1, 300), "reset", "gap")


def test_simulation_with_a_reset_that_forgets_the_journal_breaks_an_invariant(monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry follows, and one store holds the halt as before."""
    monkeypatch.setattr("tests.simulation.stores.SimHaltFile.append", lambda self, record: None)
    assert "while a halt is latched" in _first_break(range(1, 200), "reset")


def test_simulation_with_a_ledger_that_is_trusted_after_a_lost_reply_breaks_an_invariant(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def record_nothing(self: RiskManager, change_id: str, **facts: Any) -> None:
        """A fill that the ledger never hears of."""

    monkeypatch.setattr("velox_core.risk_manager.RiskManager.record_fill", record_nothing)
    assert "the ledger holds" in _first_break(range(1, 20), "reply")


def test_simulation_with_a_clock_that_takes_engine_time_back_breaks_an_invariant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "velox_core.engine.session.TradingSession._read_clock", lambda self, newest_bar_ms: self._parts.clock.now_ms()
    )
    assert "no exit was sent" in _first_break(range(1, 60), "clock")


def test_simulation_with_exits_after_the_hard_stop_without_a_look_breaks_an_invariant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("velox_core.exit_door.ExitDoor._foreign_order_works", lambda self, symbol, goal, now_ms: False)
    monkeypatch.setattr("velox_core.engine.upkeep.Upkeep.reconcile", lambda self, now_ms: None)  # not due just then
    assert "on a position of 0" in _first_break(range(1, 300), "cut-off")


def test_simulation_with_trades_that_a_restart_does_not_ask_for_breaks_an_invariant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("velox_core.order_manager.OrderManager.fetch_trades", lambda self, now_ms: True)
    assert _first_break(range(1, 60), "crash after news")


def test_simulation_with_an_emergency_exit_that_says_nothing_breaks_an_invariant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("velox_core.emergency_exit_manager.NOT_FLAT_ALERT_INTERVAL_MS", 1 << 40)
    assert "no alert says so" in _first_break(range(1, 400), "gap")
