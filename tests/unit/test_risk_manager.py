from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from tests.fakes.own_records import own_records
from tests.fakes.rig import DAY, NOW_MS, PREFIX, Rig, entry_signal, make_instrument, make_limits
from velox_core.domain.errors import InvariantError, LedgerUnavailable
from velox_core.domain.events import EventKind
from velox_core.domain.halts import HaltKind, HaltRecord
from velox_core.domain.orders import ExitRank, OrderType, Product, Side, Signal
from velox_core.ledger.memory import MemoryLedger
from velox_core.risk.approval import ApprovedOrder
from velox_core.risk.gate import ExitRequest, Quote
from velox_core.risk.layers import ReasonCode, Refusal
from velox_core.risk.ledger import Claim, Conflict, LedgerChange, OpenPosition, RiskSnapshot
from velox_core.risk_manager import COMMIT_ATTEMPTS_MAX, RiskManager

HALT = HaltRecord(halt_id="20240116-MANUAL-1", kind=HaltKind.MANUAL, trading_date=DAY, reason="r", by="b", at_ms=NOW_MS)
CLEAR = HaltRecord(
    halt_id="20240116-MANUAL-1-CLEAR",
    kind=HaltKind.MANUAL,
    trading_date=DAY,
    reason="r",
    by="b",
    at_ms=NOW_MS,
    clears=HALT.halt_id,
)
Attempt = Callable[[Rig], ApprovedOrder | Refusal]


def exit_request(
    *,
    open_quantity: int = 1,
    working: int = 0,
    working_rank: ExitRank | None = None,
    rank: ExitRank = ExitRank.STOP,
    limit_price_paise: int = 0,
) -> ExitRequest:
    return ExitRequest(
        strategy_id="alpha",
        symbol="AAA",
        side=Side.SELL,
        open_quantity=open_quantity,
        working_quantity=working,
        working_rank=working_rank,
        rank=rank,
        reason="test",
        limit_price_paise=limit_price_paise,
    )


def with_ready(**changes: object) -> Attempt:
    """Return an attempt to enter after some of the readiness was changed."""

    def attempt(rig: Rig) -> ApprovedOrder | Refusal:
        for name, value in changes.items():
            setattr(rig.risk.readiness, name, value)
        return rig.ask()

    return attempt


def with_ledger(**changes: object) -> Attempt:
    """Return an attempt to enter after the ledger was told to misbehave."""

    def attempt(rig: Rig) -> ApprovedOrder | Refusal:
        for name, value in changes.items():
            setattr(rig.ledger, name, value)
        return rig.ask()

    return attempt


def stale_marks(rig: Rig) -> ApprovedOrder | Refusal:
    now_ms = NOW_MS + 90_001
    return rig.risk.request_entry(
        entry_signal(), make_instrument(), Quote(10_000, now_ms), loss_paise=0, cost_paise=0, now_ms=now_ms
    )


def locked(rig: Rig) -> ApprovedOrder | Refusal:
    rig.risk.note_lock("AAA", "test")
    return rig.ask()


def latched(rig: Rig) -> ApprovedOrder | Refusal:
    rig.ledger.inner.latch_halt(HALT)  # by another process: this one's snapshot knows nothing of it
    return rig.ask()


def after_entries(*entries: tuple[str, str], ask: str = "EEE", gap_ms: int = 1_000) -> Attempt:
    def attempt(rig: Rig) -> ApprovedOrder | Refusal:
        now_ms = NOW_MS
        for symbol, strategy in entries:
            assert isinstance(rig.ask(entry_signal(symbol, strategy=strategy), now_ms), ApprovedOrder)
            now_ms += gap_ms
        return rig.ask(entry_signal(ask), now_ms)

    return attempt


def by_a_rule(rig: Rig) -> Refusal:
    """Refuse as the engine's trade rules do, before the gate is asked."""
    refusal = Refusal(0, ReasonCode.REENTRY_RULE, "Re-entry: 1 entries today, 1 are allowed")
    rig.risk.refuse(entry_signal(), refusal, NOW_MS)
    return refusal


REFUSALS: list[tuple[ReasonCode, int, Attempt]] = [
    (ReasonCode.NOT_ARMED, 0, with_ready(armed=False)),
    (ReasonCode.OUTSIDE_ENTRY_HOURS, 0, with_ready(entry_until_ms=NOW_MS)),
    (ReasonCode.STOPPING, 0, with_ready(stopping="asked for")),
    (ReasonCode.INVALID_SIGNAL, 0, lambda rig: rig.ask(entry_signal(quantity=0))),
    (ReasonCode.UNKNOWN_SYMBOL, 0, lambda rig: rig.ask(entry_signal("ZZZ"))),
    (ReasonCode.NOT_TRADABLE, 0, lambda rig: rig.ask(instrument=make_instrument(tradable=False))),
    (ReasonCode.STALE_PRICE, 0, lambda rig: rig.ask(quote=None)),
    (ReasonCode.BAD_PRICE, 0, lambda rig: rig.ask(quote=Quote(10_001, NOW_MS))),
    (ReasonCode.NEAR_BAND, 0, lambda rig: rig.ask(instrument=make_instrument(upper_band_paise=10_000))),
    (ReasonCode.SYMBOL_LOCKED, 0, locked),
    (ReasonCode.STALE_MARKS, 0, stale_marks),
    (ReasonCode.LEDGER_UNAVAILABLE, 0, with_ledger(down=True)),
    (ReasonCode.JOURNAL_UNAVAILABLE, 0, with_ready(journal_fault="full")),
    (ReasonCode.LEASE_LOST, 0, with_ledger(fenced_by=9)),
    (ReasonCode.RECONCILE_OVERDUE, 0, with_ready(reconcile_fault="silent for 100 s")),
    (ReasonCode.EXIT_UNKNOWN, 0, with_ready(doubtful_exits="X2")),
    (ReasonCode.ORDER_RATE, 0, after_entries(("AAA", "alpha"), ("BBB", "alpha"), gap_ms=0)),
    (ReasonCode.REENTRY_RULE, 0, by_a_rule),
    (ReasonCode.EMERGENCY_EXIT_ACTIVE, 1, latched),
    (ReasonCode.DUPLICATE_ORDER, 2, after_entries(("AAA", "alpha"), ask="AAA")),
    (ReasonCode.POSITION_EXISTS, 3, after_entries(("AAA", "beta"), ask="AAA")),
    (ReasonCode.POSITION_SIZE, 4, lambda rig: rig.ask(quote=Quote(20_000, NOW_MS))),
    (ReasonCode.STRATEGY_POSITIONS, 5, after_entries(("AAA", "alpha"), ("BBB", "alpha"))),
    (ReasonCode.TOTAL_POSITIONS, 6, after_entries(("AAA", "beta"), ("BBB", "beta"), ("CCC", "gamma"))),
    (ReasonCode.DAILY_LOSS, 7, lambda rig: rig.ask(loss_paise=199_990, cost_paise=10)),
    (ReasonCode.NOTHING_TO_EXIT, 0, lambda rig: rig.risk.request_exit(exit_request(open_quantity=0), NOW_MS)),
    (ReasonCode.EXIT_WORKING, 0, lambda rig: rig.risk.request_exit(exit_request(working=1), NOW_MS)),
]


def test_refusal_table_is_complete() -> None:
    assert [code for code, _, _ in REFUSALS] == list(ReasonCode)


@pytest.mark.parametrize(("code", "layer", "attempt"), REFUSALS, ids=[code.value for code, _, _ in REFUSALS])
def test_refused_request_is_journaled_and_leaves_no_trace_elsewhere(code: ReasonCode, layer: int, attempt: Attempt) -> None:
    limits = make_limits(
        max_positions_per_strategy=2, max_total_positions=3, max_position_size_paise=15_000, orders_per_second_max=2
    )
    rig = Rig(limits)
    answer = attempt(rig)
    assert isinstance(answer, Refusal)
    assert (answer.code, answer.layer) == (code, layer)
    body = rig.journal.bodies(EventKind.DECISION)[-1]
    assert (body["approved"], body["code"], body["layer"], body["reason"]) == (False, code.value, layer, answer.text)
    assert body["client_order_id"] == ""
    approved = sum(1 for decision in rig.journal.bodies(EventKind.DECISION) if decision["approved"])
    assert len(rig.ledger.inner.snapshot().claims) == approved
    assert rig.broker.placed == []
    assert rig.journal.commits == 0
    assert rig.risk.decision_counts[code.value] == 1


# -- approvals ---------------------------------------------------------------------------------------------------


def test_approved_entry_is_the_lot_claimed_and_journaled_with_its_numbers() -> None:
    rig = Rig(make_limits(fixed_lot_size=3))
    order = rig.ask(entry_signal(quantity=10), loss_paise=1_500, cost_paise=40)
    assert isinstance(order, ApprovedOrder)
    assert (order.client_order_id, order.symbol, order.side, order.quantity) == (f"{PREFIX}0000001", "AAA", Side.BUY, 3)
    assert (order.order_type, order.limit_price_paise, order.product, order.rank) == (OrderType.MARKET, 0, Product.MIS, None)
    assert order.protection_bps == 100
    claim = rig.ledger.inner.snapshot().claims[order.client_order_id]
    assert (claim.quantity, claim.notional_paise, claim.created_ms) == (3, 30_300, NOW_MS)
    body = rig.journal.bodies(EventKind.DECISION)[0]
    assert (body["approved"], body["code"], body["asked"], body["quantity"]) == (True, "OK", 10, 3)
    numbers = body["numbers"]
    assert isinstance(numbers, dict)
    assert (numbers["notional"], numbers["loss"], numbers["entry_cost"], numbers["loss_limit"]) == (30_300, 1_500, 40, 200_000)
    assert rig.risk.snapshot.version == rig.ledger.inner.snapshot().version


def test_order_ids_ascend_over_entries_and_exits_and_refusals_take_none() -> None:
    rig = Rig()
    first = rig.ask()
    assert isinstance(rig.ask(), Refusal)
    second = rig.risk.request_exit(exit_request(), NOW_MS)
    third = rig.ask(entry_signal("BBB"))
    ids = [order.client_order_id[-2:] for order in (first, second, third) if isinstance(order, ApprovedOrder)]
    assert ids == ["01", "02", "03"]


@pytest.mark.parametrize("signal", [entry_signal(stop=10_000), entry_signal(target=10_000)], ids=["stop", "target"])
def test_entry_with_a_stop_or_target_on_the_wrong_side_of_the_price_is_refused(signal: Signal) -> None:
    rig = Rig()
    answer = rig.ask(signal)
    assert isinstance(answer, Refusal)
    assert answer.code is ReasonCode.INVALID_SIGNAL
    assert rig.ledger.commits == []


def test_rate_is_not_used_up_by_refusals() -> None:
    rig = Rig(make_limits(orders_per_second_max=1))
    assert isinstance(rig.ask(quote=None), Refusal)
    assert isinstance(rig.ask(), ApprovedOrder)


# -- the guide's log lines -----------------------------------------------------------------------------------------


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "velox.risk"]


def test_log_of_a_duplicate_is_the_guides_line(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig()
    rig.ask(entry_signal(strategy="strategy", symbol="symbol"), instrument=make_instrument("symbol"))
    rig.ask(entry_signal(strategy="strategy", symbol="symbol"), instrument=make_instrument("symbol"))
    assert messages(caplog) == ["[RISK_CHECK] strategy/symbol: REJECTED - Duplicate order prevented"]


def test_log_of_an_existing_position_is_the_guides_line(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig()
    rig.hold("AAA", strategy="other")
    rig.ask(entry_signal(strategy="strategy"))
    assert messages(caplog) == ["[RISK_CHECK] strategy/AAA: REJECTED - Position already exists"]


def test_log_of_the_fixed_lot_is_the_guides_line_and_precedes_the_decision(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "velox.risk")
    rig = Rig()
    rig.ask(entry_signal(strategy="strategy", quantity=10))
    assert messages(caplog) == [
        "[RISK_CHECK] strategy/AAA: Lot size adjusted 10 -> 1 (fixed lot size)",
        f"[RISK_CHECK] strategy/AAA: APPROVED - BUY 1, 0 of 3 strategy positions, {PREFIX}0000001",
    ]
    assert all(record.__dict__["engine_ms"] == NOW_MS for record in own_records(caplog))


def test_log_of_a_signal_that_asks_for_the_lot_says_nothing_of_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "velox.risk")
    Rig().ask(entry_signal(quantity=1))
    assert not any("Lot size" in message for message in messages(caplog))


# -- the ledger under the gate -------------------------------------------------------------------------------------


def test_conflict_is_judged_again_on_the_fresh_snapshot_and_refused() -> None:
    rig = Rig()

    def rival(inner: MemoryLedger) -> None:
        current = inner.snapshot()
        claim = Claim("RIVAL", "guard", "AAA", Side.SELL, 1, 1, NOW_MS)
        inner.commit(current.version, rig.epoch, LedgerChange(put_claim=claim), "RIVAL")

    rig.ledger.conflicts, rig.ledger.rival = 1, rival
    answer = rig.ask()
    assert isinstance(answer, Refusal)
    assert answer.code is ReasonCode.POSITION_EXISTS
    assert list(rig.ledger.inner.snapshot().claims) == ["RIVAL"]


def test_conflicts_within_the_bound_are_overcome() -> None:
    rig = Rig()
    rig.ledger.conflicts = COMMIT_ATTEMPTS_MAX - 1
    assert isinstance(rig.ask(), ApprovedOrder)
    assert rig.risk.readiness.ledger_fault == ""


def test_conflicts_without_end_refuse_the_entry_only() -> None:
    rig = Rig()
    rig.ledger.conflicts = COMMIT_ATTEMPTS_MAX
    answer = rig.ask()
    assert isinstance(answer, Refusal)
    assert (answer.code, answer.layer) == (ReasonCode.LEDGER_UNAVAILABLE, 0)
    assert rig.risk.readiness.ledger_fault == ""
    assert isinstance(rig.ask(), ApprovedOrder)


def test_ledger_that_failed_refuses_until_it_is_opened_again() -> None:
    rig = Rig()
    rig.ledger.down = True
    rig.ask()
    rig.ledger.down = False
    answer = rig.ask()
    assert isinstance(answer, Refusal)
    assert answer.code is ReasonCode.LEDGER_UNAVAILABLE
    assert rig.ledger.commits == []
    rig.risk.open_ledger()
    assert isinstance(rig.ask(), ApprovedOrder)


def test_claim_whose_reply_was_lost_burns_its_order_id() -> None:
    rig = Rig()
    rig.ledger.lose_reply = True
    assert isinstance(rig.ask(entry_signal("AAA")), Refusal)
    rig.risk.open_ledger()
    order = rig.ask(entry_signal("BBB"))
    assert isinstance(order, ApprovedOrder)
    assert order.client_order_id == f"{PREFIX}0000002"
    claims = rig.ledger.inner.snapshot().claims
    assert {claim.intent_id: claim.symbol for claim in claims.values()} == {
        f"{PREFIX}0000001": "AAA",
        f"{PREFIX}0000002": "BBB",
    }


def test_claim_answered_with_a_version_that_was_not_due_is_refused() -> None:
    rig = Rig()
    current = rig.ledger.inner.snapshot()
    order_id = f"{PREFIX}0000001"
    rig.ledger.inner.commit(current.version, rig.epoch, LedgerChange(), order_id)  # somebody used this change id before
    rig.ledger.inner.commit(current.version + 1, rig.epoch, LedgerChange(), "other")
    rig.risk.open_ledger()
    answer = rig.ask()
    assert isinstance(answer, Refusal)
    assert (answer.code, answer.layer) == (ReasonCode.LEDGER_UNAVAILABLE, 0)
    assert answer.text == f"Risk ledger unavailable: {rig.risk.readiness.ledger_fault}"
    assert "version 1 where 3 was due" in rig.risk.readiness.ledger_fault
    assert dict(rig.risk.snapshot.claims) == {}


def test_fenced_engine_refuses_entries_for_good_and_exits_never() -> None:
    rig = Rig()
    rig.ledger.fenced_by = 2
    rig.ask()
    rig.ledger.fenced_by = 0
    answer = rig.ask()
    assert isinstance(answer, Refusal)
    assert answer.code is ReasonCode.LEASE_LOST
    assert isinstance(rig.risk.request_exit(exit_request(), NOW_MS), ApprovedOrder)


def test_conflict_journals_the_numbers_of_the_snapshot_that_decided() -> None:
    rig = Rig()

    def rival(inner: MemoryLedger) -> None:
        held = OpenPosition("BBB", "guard", 1, 10_000, NOW_MS)
        inner.commit(inner.snapshot().version, rig.epoch, LedgerChange(put_position=held), "RIVAL")

    stale = rig.risk.snapshot.version
    rig.ledger.conflicts, rig.ledger.rival = 1, rival
    assert isinstance(rig.ask(), ApprovedOrder)
    numbers = rig.journal.bodies(EventKind.DECISION)[0]["numbers"]
    assert isinstance(numbers, dict)
    assert (numbers["positions"], numbers["ledger_version"]) == (1, stale + 1)


def test_fill_gets_in_at_once_on_what_others_committed_and_brings_their_state_back() -> None:
    rig = Rig()
    rivals = OpenPosition("BBB", "beta", 1, 10_000, NOW_MS)

    def rival(inner: MemoryLedger) -> None:
        version = inner.snapshot().version
        inner.commit(version, rig.epoch, LedgerChange(put_position=rivals), f"RIVAL-{version}")

    rig.ledger.conflicts, rig.ledger.rival = 1, rival
    held = OpenPosition("AAA", "alpha", 1, 10_000, NOW_MS)
    rig.risk.record_fill("T1", symbol="AAA", position=held, resolved_claim=None, realised_paise=0, charges_paise=5)
    assert rig.risk.readiness.ledger_fault == ""
    assert [change_id for change_id, _ in rig.ledger.commits] == ["T1"]
    assert sorted(rig.ledger.inner.snapshot().positions) == sorted(rig.risk.snapshot.positions) == ["AAA", "BBB"]
    assert rig.risk.snapshot.version == rig.ledger.inner.snapshot().version


def test_fill_on_what_others_committed_keeps_a_halt_that_the_ledger_does_not_know() -> None:
    rig = Rig()
    halt = HaltRecord(halt_id="H1", kind=HaltKind.MANUAL, trading_date=DAY, reason="test", by="test", at_ms=NOW_MS)
    rig.risk.note_halt(halt)
    rig.ledger.conflicts = 1
    rig.risk.record_fill("T1", symbol="AAA", position=None, resolved_claim=None, realised_paise=0, charges_paise=5)
    assert rig.risk.snapshot.halts == (halt,)
    assert rig.risk.ledger_halts == ()


def rebuilt_again_and_again(rig: Rig) -> None:
    """Have the ledger answer every commit with a content that was rebuilt just now."""
    rig.ledger.commit = lambda *_: Conflict(rig.ledger.inner.snapshot())  # type: ignore[method-assign]


def test_fill_that_cannot_be_committed_is_a_fault_that_refuses_entries() -> None:
    rig = Rig()
    rebuilt_again_and_again(rig)
    held = OpenPosition("AAA", "alpha", 1, 10_000, NOW_MS)
    rig.risk.record_fill("T1", symbol="AAA", position=held, resolved_claim=None, realised_paise=0, charges_paise=5)
    assert rig.risk.readiness.ledger_fault != ""
    answer = rig.ask(entry_signal("BBB"))
    assert isinstance(answer, Refusal)
    assert answer.code is ReasonCode.LEDGER_UNAVAILABLE


def test_fill_and_resolved_claim_are_one_commit() -> None:
    rig = Rig()
    order = rig.ask()
    assert isinstance(order, ApprovedOrder)
    version = rig.risk.snapshot.version
    held = OpenPosition("AAA", "alpha", 1, 10_000, NOW_MS)
    rig.risk.record_fill(
        "T1", symbol="AAA", position=held, resolved_claim=order.client_order_id, realised_paise=0, charges_paise=5
    )
    stored = rig.ledger.inner.snapshot()
    assert (stored.version, dict(stored.claims), dict(stored.positions), stored.charges_paise) == (
        version + 1,
        {},
        {"AAA": held},
        5,
    )


def test_fill_with_the_ledger_known_to_be_down_does_not_ask_it() -> None:
    rig = Rig()
    rig.risk.readiness.ledger_fault = "down"
    rig.risk.record_fill("T1", symbol="AAA", position=None, resolved_claim=None, realised_paise=0, charges_paise=0)
    assert rig.ledger.commits == []


def test_resolve_claim_frees_the_slot_once() -> None:
    rig = Rig()
    order = rig.ask()
    assert isinstance(order, ApprovedOrder)
    rig.risk.resolve_claim(order.client_order_id)
    assert dict(rig.ledger.inner.snapshot().claims) == {}
    commits = len(rig.ledger.commits)
    rig.risk.resolve_claim(order.client_order_id)
    rig.risk.resolve_claim("never there")
    assert len(rig.ledger.commits) == commits


def test_rebuilt_ledger_is_trusted() -> None:
    rig = Rig()
    rig.risk.readiness.ledger_fault = "lost"
    rig.risk.rebuild_ledger(RiskSnapshot(epoch=rig.epoch))
    assert rig.risk.readiness.ledger_fault == ""
    assert rig.risk.snapshot.version == rig.ledger.inner.snapshot().version
    rig.ledger.down = True
    with pytest.raises(LedgerUnavailable):
        rig.risk.rebuild_ledger(RiskSnapshot())


def test_ledger_that_is_down_is_named_in_the_refusal_and_in_the_fault() -> None:
    rig = Rig()
    rig.ledger.down = True
    answer = rig.ask()
    assert isinstance(answer, Refusal)
    assert answer.text == "Risk ledger unavailable: the ledger does not answer (fake)"
    assert rig.risk.readiness.ledger_fault == "the ledger does not answer (fake)"


def test_fill_that_cannot_be_committed_says_why_in_the_fault() -> None:
    rig = Rig()
    rebuilt_again_and_again(rig)
    rig.risk.record_fill("T1", symbol="AAA", position=None, resolved_claim=None, realised_paise=0, charges_paise=5)
    assert rig.risk.readiness.ledger_fault == f"Risk ledger changed {COMMIT_ATTEMPTS_MAX} times while deciding"


def test_fill_under_a_lost_lease_is_no_fault_of_the_ledger() -> None:
    rig = Rig()
    rig.ledger.fenced_by = 9
    rig.risk.record_fill("T1", symbol="AAA", position=None, resolved_claim=None, realised_paise=0, charges_paise=5)
    assert (rig.risk.readiness.fenced, rig.risk.readiness.ledger_fault) == (True, "")
    assert "the lease of epoch 1 is no longer ours: epoch 9 took it over" in rig.alerts.sent[0][2]


def test_commits_go_on_under_the_snapshot_of_the_last_one() -> None:
    rig = Rig()
    for symbol in ("AAA", "BBB", "CCC"):
        assert isinstance(rig.ask(entry_signal(symbol)), ApprovedOrder)
    assert len(rig.ledger.commits) == 3  # no conflict on the way: each commit knew the version before it
    assert list(rig.risk.snapshot.claims) == list(rig.ledger.inner.snapshot().claims)


# -- the lease -----------------------------------------------------------------------------------------------------


def test_renewed_lease_keeps_entries_possible() -> None:
    rig = Rig()
    rig.risk.renew_lease()
    assert not rig.risk.readiness.fenced
    assert isinstance(rig.ask(), ApprovedOrder)


def test_lease_that_is_not_renewed_stops_entries_and_says_whose_it_was() -> None:
    rig = Rig()
    rig.ledger.inner.release_lease(rig.epoch)
    rig.risk.renew_lease()
    answer = rig.ask()
    assert isinstance(answer, Refusal)
    assert answer.code is ReasonCode.LEASE_LOST
    assert "the lease of epoch 1 is no longer ours: it was taken over or given back" in rig.alerts.sent[0][2]


@pytest.mark.parametrize("known", [{"fenced": True}, {"ledger_fault": "lost"}], ids=["fenced", "ledger fault"])
def test_lease_of_a_ledger_that_is_not_trusted_is_not_renewed(known: dict[str, object]) -> None:
    rig = Rig()
    for name, value in known.items():
        setattr(rig.risk.readiness, name, value)
    rig.ledger.down = True  # whoever asks it changes the fault
    rig.risk.renew_lease()
    assert rig.risk.readiness.ledger_fault == known.get("ledger_fault", "")


def test_lease_whose_renewal_is_not_answered_is_a_fault_of_the_ledger() -> None:
    rig = Rig()
    rig.ledger.down = True
    rig.risk.renew_lease()
    assert (rig.risk.readiness.fenced, rig.risk.readiness.ledger_fault) == (False, "the ledger does not answer (fake)")


# -- order numbers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seen", "following"),
    [
        ([], 1),
        ([f"{PREFIX}0000007"], 8),
        ([f"{PREFIX}0000007", f"{PREFIX}0000003"], 8),
        (["240115E00010000009", "240116G00010000009", "240116E00020000009"], 1),  # another date, actor, epoch
        ([f"{PREFIX}ABC", "", "12"], 1),
        ([f"X{PREFIX}0000007", f"7{PREFIX}"], 1),
    ],
    ids=["none", "one", "the highest", "of somebody else", "no numbers", "prefix elsewhere"],
)
def test_order_numbers_go_on_above_those_of_the_same_date_actor_and_epoch(seen: list[str], following: int) -> None:
    rig = Rig()
    rig.risk.continue_after(seen)
    order = rig.ask()
    assert isinstance(order, ApprovedOrder)
    assert order.client_order_id == f"{PREFIX}{following:07d}"


def test_order_numbers_never_go_back() -> None:
    rig = Rig()
    rig.ask()
    rig.ask(entry_signal("BBB"))
    rig.risk.continue_after([f"{PREFIX}0000001"])
    order = rig.ask(entry_signal("CCC"))
    assert isinstance(order, ApprovedOrder)
    assert order.client_order_id == f"{PREFIX}0000003"


def test_risk_manager_begins_at_its_first_number_with_its_own_product() -> None:
    rig = Rig()
    risk = RiskManager(
        limits=rig.limits,
        ledger=rig.ledger,
        journal=rig.journal,
        id_prefix=PREFIX,
        epoch=rig.epoch,
        product=Product.CNC,
        first_sequence=41,
    )
    risk.open_ledger()
    order = risk.request_exit(exit_request(), NOW_MS)
    assert isinstance(order, ApprovedOrder)
    assert (order.client_order_id, order.product, risk.product) == (f"{PREFIX}0000041", Product.CNC, Product.CNC)


# -- halts ---------------------------------------------------------------------------------------------------------


def test_refresh_sees_a_halt_that_somebody_else_latched() -> None:
    rig = Rig()
    rig.ledger.inner.latch_halt(HALT)
    assert rig.risk.ledger_halts == ()
    rig.risk.refresh()
    assert [halt.halt_id for halt in rig.risk.ledger_halts] == [HALT.halt_id]
    assert [halt.halt_id for halt in rig.risk.snapshot.halts] == [HALT.halt_id]


def test_refresh_that_fails_is_a_fault_and_keeps_what_was_known() -> None:
    rig = Rig()
    rig.risk.latch(HALT)
    rig.ledger.down = True
    rig.risk.refresh()
    assert rig.risk.readiness.ledger_fault == "the ledger does not answer (fake)"
    assert [halt.halt_id for halt in rig.risk.snapshot.halts] == [HALT.halt_id]


def test_refresh_of_a_ledger_that_is_not_trusted_does_not_read_it() -> None:
    rig = Rig()
    rig.risk.readiness.ledger_fault = "lost"
    rig.ledger.inner.latch_halt(HALT)
    rig.risk.refresh()
    assert (rig.risk.readiness.ledger_fault, rig.risk.snapshot.halts) == ("lost", ())


def test_noted_halt_is_not_taken_for_one_that_the_ledger_has() -> None:
    rig = Rig()
    rig.risk.note_halt(HALT)
    rig.risk.refresh()
    assert rig.risk.ledger_halts == ()
    assert refused_by_halt(rig)


def test_noted_halt_stays_over_a_fill_that_meets_no_conflict() -> None:
    rig = Rig()
    rig.risk.note_halt(HALT)
    held = OpenPosition("AAA", "alpha", 1, 10_000, NOW_MS)
    rig.risk.record_fill("T1", symbol="AAA", position=held, resolved_claim=None, realised_paise=0, charges_paise=5)
    assert [halt.halt_id for halt in rig.risk.snapshot.halts] == [HALT.halt_id]
    assert dict(rig.risk.snapshot.positions) == {"AAA": held}
    assert rig.risk.snapshot.version == rig.ledger.inner.snapshot().version


def test_forgotten_halt_is_left_to_the_ledger() -> None:
    rig = Rig()
    rig.risk.note_halt(HALT)
    rig.risk.forget_halt("another halt")
    assert refused_by_halt(rig)
    rig.risk.forget_halt(HALT.halt_id)
    assert isinstance(rig.ask(), ApprovedOrder)
    rig.risk.latch(HALT)
    rig.risk.forget_halt(HALT.halt_id)  # the ledger has it, whatever this process noted
    assert refused_by_halt(rig)


def refused_by_halt(rig: Rig) -> bool:
    answer = rig.ask(entry_signal("EEE"))
    return isinstance(answer, Refusal) and answer.code is ReasonCode.EMERGENCY_EXIT_ACTIVE


def test_latched_halt_refuses_entries_until_it_is_cleared() -> None:
    rig = Rig()
    rig.risk.latch(HALT)
    assert refused_by_halt(rig)
    rig.risk.latch(CLEAR)
    assert isinstance(rig.ask(), ApprovedOrder)


def test_halt_that_the_ledger_did_not_take_survives_every_fresh_snapshot() -> None:
    rig = Rig()
    rig.risk.note_halt(HALT)
    rig.risk.note_halt(HALT)
    assert [halt.halt_id for halt in rig.risk.snapshot.halts] == [HALT.halt_id]
    rig.ledger.conflicts = 1
    rig.risk.record_fill("T1", symbol="AAA", position=None, resolved_claim=None, realised_paise=0, charges_paise=0)
    assert refused_by_halt(rig)
    rig.risk.open_ledger()
    assert refused_by_halt(rig)
    rig.risk.rebuild_ledger(rig.risk.snapshot)
    assert refused_by_halt(rig)
    assert [halt.halt_id for halt in rig.ledger.inner.snapshot().halts] == [HALT.halt_id]


def test_noted_halt_ends_with_its_own_clear_record_only() -> None:
    rig = Rig()
    rig.risk.note_halt(HALT)
    other = HaltRecord(
        halt_id="x-CLEAR", kind=HaltKind.MANUAL, trading_date=DAY, reason="r", by="b", at_ms=NOW_MS, clears="20240116-MANUAL-2"
    )
    rig.risk.latch(other)
    assert refused_by_halt(rig)
    rig.risk.latch(CLEAR)
    assert isinstance(rig.ask(), ApprovedOrder)


# -- exits ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "trouble",
    [
        lambda rig: rig.risk.latch(HALT),
        lambda rig: setattr(rig.ledger, "down", True),
        lambda rig: setattr(rig.risk.readiness, "ledger_fault", "down"),
        lambda rig: setattr(rig.risk.readiness, "journal_fault", "down"),
        lambda rig: setattr(rig.risk.readiness, "armed", False),
        lambda rig: setattr(rig.risk.readiness, "feed_ts_ms", 0),
        lambda rig: setattr(rig.risk.readiness, "entry_until_ms", 0),
        lambda rig: setattr(rig.risk.readiness, "stopping", "yes"),
        lambda rig: setattr(rig.risk.readiness, "fenced", True),
        lambda rig: rig.risk.note_lock("AAA", "unexplained"),
    ],
    ids=["halt", "ledger", "ledger fault", "journal", "not armed", "stale", "late", "stopping", "fenced", "locked"],
)
@pytest.mark.parametrize("rank", list(ExitRank))
def test_exit_is_never_refused_by_trouble(trouble: Callable[[Rig], None], rank: ExitRank) -> None:
    rig = Rig(make_limits(orders_per_second_max=0, max_position_size_paise=1, max_total_positions=0))
    trouble(rig)
    order = rig.risk.request_exit(exit_request(open_quantity=7, rank=rank), NOW_MS)
    assert isinstance(order, ApprovedOrder)
    assert (order.quantity, order.side, order.rank) == (7, Side.SELL, rank)
    assert rig.ledger.commits == []


def test_exit_is_for_what_is_open_less_what_works() -> None:
    order = Rig().risk.request_exit(exit_request(open_quantity=7, working=3, working_rank=ExitRank.TARGET), NOW_MS)
    assert isinstance(order, ApprovedOrder)
    assert order.quantity == 4


def test_exit_is_for_the_symbol_that_was_asked_under_the_limits_protection() -> None:
    order = Rig(make_limits(protection_bps=70)).risk.request_exit(exit_request(), NOW_MS)
    assert isinstance(order, ApprovedOrder)
    assert (order.symbol, order.side, order.product, order.protection_bps) == ("AAA", Side.SELL, Product.MIS, 70)


def test_exit_with_a_limit_price_is_a_limit_order() -> None:
    order = Rig().risk.request_exit(exit_request(limit_price_paise=9_900), NOW_MS)
    assert isinstance(order, ApprovedOrder)
    assert (order.order_type, order.limit_price_paise) == (OrderType.LIMIT, 9_900)


def test_exit_refused_again_for_the_same_reason_is_journaled_once() -> None:
    rig = Rig()
    for _ in range(3):
        rig.risk.request_exit(exit_request(working=1), NOW_MS)
    assert len(rig.journal.bodies(EventKind.DECISION)) == 1
    rig.risk.request_exit(exit_request(open_quantity=0), NOW_MS)
    rig.risk.request_exit(exit_request(), NOW_MS)
    rig.risk.request_exit(exit_request(open_quantity=0), NOW_MS)
    codes = [body["code"] for body in rig.journal.bodies(EventKind.DECISION)]
    assert codes == ["EXIT_WORKING", "NOTHING_TO_EXIT", "OK", "NOTHING_TO_EXIT"]
    assert rig.risk.decision_counts == {"EXIT_WORKING": 1, "NOTHING_TO_EXIT": 2, "EXIT_OK": 1}


def test_refuse_journals_and_logs_a_signal_that_was_not_judged(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig()
    rig.risk.refuse(entry_signal(), Refusal(0, ReasonCode.INVALID_SIGNAL, "It is malformed"), NOW_MS)
    assert rig.journal.bodies(EventKind.DECISION)[0]["code"] == "INVALID_SIGNAL"
    assert messages(caplog) == ["[RISK_CHECK] alpha/AAA: REJECTED - It is malformed"]


# -- locks ---------------------------------------------------------------------------------------------------------


def test_lock_with_two_reasons_opens_when_both_are_gone() -> None:
    rig = Rig()
    rig.risk.lock("AAA", "first", NOW_MS)
    rig.risk.lock("AAA", "second", NOW_MS)
    rig.risk.lock("AAA", "second", NOW_MS)
    assert rig.risk.locks == {"AAA": "first; second"}
    rig.risk.unlock("AAA", "second", NOW_MS)
    assert rig.risk.locks == {"AAA": "first"}
    rig.risk.unlock("AAA", "second", NOW_MS)
    answer = rig.ask()
    assert isinstance(answer, Refusal)
    assert answer.code is ReasonCode.SYMBOL_LOCKED
    rig.risk.unlock("AAA", "first", NOW_MS)
    assert isinstance(rig.ask(), ApprovedOrder)
    assert [b["reason"] for b in rig.journal.bodies(EventKind.LOCK)] == ["first", "second"]
    assert [b["reason"] for b in rig.journal.bodies(EventKind.UNLOCK)] == ["second", "first"]


def test_lock_touches_one_symbol_only() -> None:
    rig = Rig()
    rig.risk.lock("AAA", "first", NOW_MS)
    assert isinstance(rig.ask(entry_signal("BBB")), ApprovedOrder)


# -- the emergency exit manager --------------------------------------------------------------------------------------


def test_emergency_exit_manager_is_reachable_once_attached() -> None:
    rig = Rig()
    with pytest.raises(InvariantError, match="no emergency exit manager"):
        rig.risk.get_emergency_exit_manager()
    rig.risk.attach_emergency_exit_manager(rig.emergency)
    assert rig.risk.get_emergency_exit_manager() is rig.emergency
