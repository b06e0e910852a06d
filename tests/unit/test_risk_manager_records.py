"""What the risk manager writes down: `velox explain`, the dashboard and the reports read these records field by field."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from tests.fakes.own_records import own_records
from tests.fakes.rig import NOW_MS, PREFIX, Rig, entry_signal, make_limits
from velox_core.domain.events import EventKind
from velox_core.domain.orders import ExitRank, OrderType, Side, SignalKind
from velox_core.risk.approval import ApprovedOrder
from velox_core.risk.gate import ExitRequest, Quote
from velox_core.risk.layers import ReasonCode, Refusal
from velox_core.risk.ledger import LedgerChange, OpenPosition

LIMITS = make_limits(fixed_lot_size=2, max_position_size_paise=25_000, max_positions_per_strategy=2, max_total_positions=4)
ENTRY = {"strategy": "alpha", "symbol": "CCC", "side": Side.SELL, "kind": SignalKind.ENTRY, "signal_reason": "test entry"}
NUMBERS = {"notional_limit": 25_000, "strategy_limit": 2, "total_limit": 4, "loss_limit": 200_000}


def rig_with_one_position_and_two_claims() -> Rig:
    """Return a rig whose counts of positions, claims and versions all differ."""
    rig = Rig(LIMITS)
    held = OpenPosition("AAA", "alpha", 1, 10_000, NOW_MS)
    rig.risk.record_fill("T1", symbol="AAA", position=held, resolved_claim=None, realised_paise=0, charges_paise=0)
    for symbol in ("BBB", "EEE"):
        rig.ask(entry_signal(symbol, strategy="beta"))
    rig.journal.buffer.clear()
    return rig


def ask(rig: Rig, **changes: Any) -> ApprovedOrder | Refusal:
    return rig.ask(entry_signal("CCC", Side.SELL, quantity=10), loss_paise=1_500, cost_paise=40, **changes)


def exit_request(*, working: int, working_rank: ExitRank | None = None) -> ExitRequest:
    return ExitRequest(
        strategy_id="alpha",
        symbol="AAA",
        side=Side.SELL,
        open_quantity=7,
        working_quantity=working,
        working_rank=working_rank,
        rank=ExitRank.SQUARE_OFF,
        reason="end of the day",
    )


def test_approved_entry_is_journaled_field_by_field() -> None:
    rig = rig_with_one_position_and_two_claims()
    version = rig.risk.snapshot.version
    order = ask(rig)
    assert isinstance(order, ApprovedOrder)
    body = {
        **ENTRY,
        "asked": 10,
        "quantity": 2,
        "approved": True,
        "layer": 0,
        "code": "OK",
        "reason": "",
        "client_order_id": f"{PREFIX}0000003",
        "numbers": {
            **NUMBERS,
            "worst_price": 10_100,
            "notional": 20_200,
            "positions": 1,
            "claims": 2,
            "loss": 1_500,
            "entry_cost": 40,
            "ledger_version": version,
        },
    }
    assert rig.journal.buffer == [(EventKind.DECISION, NOW_MS, body)]


def test_refused_entry_is_journaled_field_by_field() -> None:
    rig = rig_with_one_position_and_two_claims()
    version = rig.risk.snapshot.version
    refusal = ask(rig, quote=Quote(15_000, NOW_MS))
    assert isinstance(refusal, Refusal)
    body = {
        **ENTRY,
        "asked": 10,
        "quantity": 2,
        "approved": False,
        "layer": 4,
        "code": "POSITION_SIZE",
        "reason": refusal.text,
        "client_order_id": "",
        "numbers": {
            **NUMBERS,
            "worst_price": 15_150,
            "notional": 30_300,
            "positions": 1,
            "claims": 2,
            "loss": 1_500,
            "entry_cost": 40,
            "ledger_version": version,
        },
    }
    assert rig.journal.buffer == [(EventKind.DECISION, NOW_MS, body)]


def test_entry_refused_before_the_layers_is_journaled_with_the_newest_snapshot_and_no_price() -> None:
    rig = rig_with_one_position_and_two_claims()
    ask(rig)  # judged on a snapshot that its own claim then replaced
    rig.journal.buffer.clear()
    assert isinstance(ask(rig, quote=None), Refusal)
    numbers = rig.journal.bodies(EventKind.DECISION)[0]["numbers"]
    assert isinstance(numbers, dict)
    assert (numbers["worst_price"], numbers["notional"]) == (0, 0)
    assert (numbers["claims"], numbers["ledger_version"]) == (3, rig.risk.snapshot.version)


def test_signal_that_was_never_judged_is_journaled_with_zeroes() -> None:
    rig = rig_with_one_position_and_two_claims()
    rig.risk.refuse(
        entry_signal("CCC", Side.SELL, quantity=10), Refusal(0, ReasonCode.INVALID_SIGNAL, "It is malformed"), NOW_MS
    )
    body = {
        **ENTRY,
        "asked": 10,
        "quantity": 0,
        "approved": False,
        "layer": 0,
        "code": "INVALID_SIGNAL",
        "reason": "It is malformed",
        "client_order_id": "",
        "numbers": {
            **NUMBERS,
            "worst_price": 0,
            "notional": 0,
            "positions": 1,
            "claims": 2,
            "loss": 0,
            "entry_cost": 0,
            "ledger_version": rig.risk.snapshot.version,
        },
    }
    assert rig.journal.buffer == [(EventKind.DECISION, NOW_MS, body)]


@pytest.mark.parametrize("working", [3, 7])
def test_exit_is_journaled_field_by_field_whether_it_leaves_or_not(working: int) -> None:
    rig = Rig()
    answer = rig.risk.request_exit(exit_request(working=working, working_rank=ExitRank.STOP), NOW_MS)
    leaves = working < 7
    assert isinstance(answer, ApprovedOrder if leaves else Refusal)
    assert not isinstance(answer, ApprovedOrder) or (answer.order_type, answer.limit_price_paise) == (OrderType.MARKET, 0)
    body = {
        "strategy": "alpha",
        "symbol": "AAA",
        "side": Side.SELL,
        "kind": SignalKind.EXIT,
        "asked": 7,
        "quantity": 4 if leaves else 0,
        "approved": leaves,
        "layer": 0,
        "code": "OK" if leaves else "EXIT_WORKING",
        "reason": "" if leaves else "An exit of rank STOP already works the whole quantity",
        "client_order_id": f"{PREFIX}0000001" if leaves else "",
        "signal_reason": "end of the day",
        "numbers": {"open_quantity": 7, "working_quantity": working, "rank": int(ExitRank.SQUARE_OFF)},
    }
    assert rig.journal.buffer == [(EventKind.DECISION, NOW_MS, body)]


def test_decisions_are_counted_by_their_codes() -> None:
    rig = Rig()
    for symbol in ("AAA", "AAA", "BBB", "AAA"):
        rig.ask(entry_signal(symbol))
    for _ in range(2):
        rig.risk.request_exit(exit_request(working=0), NOW_MS)
    assert rig.risk.decision_counts == {"OK": 2, "DUPLICATE_ORDER": 2, "EXIT_OK": 2}


def test_log_of_an_approval_counts_the_strategys_own_positions_before_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "velox.risk")
    rig = rig_with_one_position_and_two_claims()
    caplog.clear()
    rig.ask(entry_signal("CCC", Side.SELL, quantity=2))
    assert [(record.levelname, record.getMessage(), record.__dict__["engine_ms"]) for record in own_records(caplog)] == [
        (
            "INFO",
            f"[RISK_CHECK] alpha/CCC: APPROVED - SELL 2, 1 of 2 strategy positions, {PREFIX}0000003",
            NOW_MS,
        )
    ]


def test_log_of_a_refusal_is_a_warning_in_engine_time(caplog: pytest.LogCaptureFixture) -> None:
    Rig().ask(quote=None)
    assert [(record.levelname, record.__dict__["engine_ms"]) for record in own_records(caplog)] == [("WARNING", NOW_MS)]


def test_lock_and_unlock_are_journaled_and_logged_once_each(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig()
    assert rig.risk.lock("AAA", "order X is UNKNOWN", NOW_MS)
    assert not rig.risk.lock("AAA", "order X is UNKNOWN", NOW_MS + 1)
    rig.risk.unlock("AAA", "never a reason", NOW_MS + 2)
    rig.risk.unlock("AAA", "order X is UNKNOWN", NOW_MS + 3, why="it was found")
    rig.risk.unlock("BBB", "never locked", NOW_MS + 4)
    body = {"symbol": "AAA", "reason": "order X is UNKNOWN"}
    ended = {**body, "why": "it was found"}
    assert rig.journal.buffer == [(EventKind.LOCK, NOW_MS, body), (EventKind.UNLOCK, NOW_MS + 3, ended)]
    assert [(record.levelname, record.getMessage(), record.__dict__["engine_ms"]) for record in own_records(caplog)] == [
        ("WARNING", "[LOCK] AAA: order X is UNKNOWN", NOW_MS),
        ("WARNING", "[UNLOCK] AAA: order X is UNKNOWN - it was found", NOW_MS + 3),
    ]


def test_three_reasons_for_a_lock_are_all_named() -> None:
    rig = Rig()
    for reason in ("one", "two", "three"):
        rig.risk.note_lock("AAA", reason)
    rig.risk.note_unlock("AAA", "one")
    assert rig.risk.locks == {"AAA": "two; three"}


# -- what reaches the ledger ----------------------------------------------------------------------------------------


def last_commit(rig: Rig) -> tuple[str, dict[str, object]]:
    """Return the newest change and its id, by the names of what it changes."""
    change_id, change = rig.ledger.commits[-1]
    untouched = LedgerChange()
    names = [name for name in LedgerChange.__slots__ if getattr(change, name) != getattr(untouched, name)]
    return change_id, {name: getattr(change, name) for name in names}


def test_entry_claims_its_slot_field_by_field() -> None:
    rig = Rig(LIMITS)
    order = ask(rig)
    assert isinstance(order, ApprovedOrder)
    change_id, changed = last_commit(rig)
    claim = changed.pop("put_claim")
    assert (change_id, changed) == (order.client_order_id, {"opens_risk": True})
    assert {name: getattr(claim, name) for name in ("intent_id", "strategy_id", "symbol", "side")} == {
        "intent_id": order.client_order_id,
        "strategy_id": "alpha",
        "symbol": "CCC",
        "side": Side.SELL,
    }


def test_fill_that_leaves_a_position_reaches_the_ledger_field_by_field() -> None:
    rig = Rig()
    held = OpenPosition("AAA", "alpha", 5, 50_000, NOW_MS)
    rig.risk.record_fill("T1", symbol="AAA", position=held, resolved_claim="I1", realised_paise=-70, charges_paise=9)
    expected = {"is_fact": True, "drop_claim": "I1", "put_position": held, "realised_paise": -70, "charges_paise": 9}
    assert last_commit(rig) == ("T1", expected)


def test_fill_that_closes_a_position_takes_it_from_the_ledger() -> None:
    rig = Rig()
    held = OpenPosition("AAA", "alpha", 5, 50_000, NOW_MS)
    rig.risk.record_fill("T1", symbol="AAA", position=held, resolved_claim=None, realised_paise=0, charges_paise=9)
    rig.risk.record_fill("T2", symbol="AAA", position=None, resolved_claim=None, realised_paise=-70, charges_paise=18)
    assert last_commit(rig) == ("T2", {"is_fact": True, "drop_position": "AAA", "realised_paise": -70, "charges_paise": 18})
    stored = rig.ledger.inner.snapshot()
    assert (dict(stored.positions), stored.realised_paise, stored.charges_paise) == ({}, -70, 18)


def test_end_of_a_claim_has_a_change_id_of_its_own() -> None:
    rig = Rig()
    order = rig.ask()
    assert isinstance(order, ApprovedOrder)
    rig.risk.resolve_claim(order.client_order_id)
    assert last_commit(rig) == (f"{order.client_order_id}:end", {"is_fact": True, "drop_claim": order.client_order_id})
