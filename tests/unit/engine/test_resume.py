from __future__ import annotations

import pytest

from tests.fakes.rig import NOW_MS, Rig, entry_signal, make_limits
from velox_core.domain.charges import ChargeSchedule
from velox_core.domain.errors import BrokerError, LedgerUnavailable
from velox_core.domain.events import EventKind
from velox_core.domain.orders import OrderState, Product, Side, unknown_lock
from velox_core.engine.resume import RESUME_KINDS, align_ledger, disabled_strategies, reconcile, restore
from velox_core.order_recovery import SEARCH_MS_MAX
from velox_core.ports import SendStatus
from velox_core.risk.approval import ApprovedOrder
from velox_core.risk.layers import ReasonCode, Refusal
from velox_core.risk.ledger import LedgerChange

S = OrderState


def resume(rig: Rig) -> int:
    """Die with what was not committed, start again, and take back what the journal kept."""
    rig.journal.buffer.clear()
    rig.restart()
    return restore(rig.journal.events(RESUME_KINDS), rig.orders, rig.risk)


def reconciled(rig: Rig) -> list[str]:
    return reconcile(rig.broker, rig.orders, rig.risk, rig.alerts, NOW_MS)


def test_restore_of_a_fresh_run_is_empty() -> None:
    rig = Rig()
    assert resume(rig) == 0
    assert (rig.orders.orders, rig.orders.positions, rig.risk.locks) == ({}, {}, {})


def test_restore_gives_back_orders_positions_money_and_locks() -> None:
    rig = Rig(make_limits(fixed_lot_size=2), ChargeSchedule.flat(bps=10))
    order = rig.enter(entry_signal(stop=9_000, target=12_000))
    rig.broker.fill(order.broker_order_id, 2, 10_000)
    rig.orders.poll(NOW_MS)
    rig.hold("BBB", Side.SELL)
    rig.exit_now("BBB")
    rig.risk.lock("CCC", "first", NOW_MS)
    rig.risk.lock("CCC", "second", NOW_MS)
    rig.risk.lock("DDD", "gone", NOW_MS)
    rig.risk.unlock("DDD", "gone", NOW_MS)
    rig.orders.commit_journal()
    loss, charges = rig.day_loss.loss_paise, rig.day_loss.charges_paise
    newest = resume(rig)
    assert newest == NOW_MS
    position = rig.orders.positions["AAA"]
    assert (position.quantity, position.cost_paise, position.strategy_id) == (2, 20_000, "alpha")
    assert (position.stop_paise, position.target_paise) == (9_000, 12_000)
    assert (rig.quantity("BBB"), rig.day_loss.loss_paise, rig.day_loss.charges_paise) == (-2, loss, charges)
    assert [(o.symbol, o.state, o.broker_order_id) for o in rig.orders.live.values()] == [("BBB", S.OPEN, "B3")]
    assert rig.risk.locks == {"CCC": "first; second"}
    assert len(rig.broker.placed) == 3


def test_restored_order_goes_on_with_the_brokers_news() -> None:
    rig = Rig(make_limits(fixed_lot_size=3))
    order = rig.enter()
    rig.broker.fill(order.broker_order_id, 1, 10_000)
    rig.orders.poll(NOW_MS)
    resume(rig)
    rig.broker.fill("B1", 2, 10_000)
    rig.orders.poll(NOW_MS)
    assert rig.quantity() == 3
    assert rig.orders.orders[order.client_order_id].state is S.FILLED
    assert rig.orders.live == {}


def test_intent_without_an_answer_is_unknown_and_adopted_from_the_book() -> None:
    rig = Rig()
    rig.broker.answers.append(RuntimeError("killed here"))
    with pytest.raises(RuntimeError):
        rig.enter()
    tag = rig.broker.placed[0].client_order_id
    rig.broker._enter(tag, "AAA", Side.BUY, 1, NOW_MS)
    resume(rig)
    assert rig.orders.orders[tag].state is S.UNKNOWN
    assert reconciled(rig) == []
    assert rig.orders.orders[tag].state is S.OPEN
    assert len(rig.broker.placed) == 1


def test_intent_that_never_left_is_searched_for_and_then_locks_its_symbol() -> None:
    rig = Rig()
    rig.broker.answers.append(RuntimeError("killed here"))
    with pytest.raises(RuntimeError):
        rig.enter()
    tag = rig.broker.placed[0].client_order_id
    resume(rig)
    assert reconciled(rig) == []
    align_ledger(rig.orders, rig.risk)
    assert list(rig.ledger.inner.snapshot().claims) == [tag]
    for after_ms in range(0, SEARCH_MS_MAX + 1, 1_000):
        rig.recovery.work(NOW_MS + after_ms)
    assert rig.orders.orders[tag].state is S.CANCELLED
    assert rig.risk.locks == {"AAA": unknown_lock(rig.orders.orders[tag])}
    assert len(rig.broker.placed) == 1


def test_restore_of_a_damaged_event_is_refused() -> None:
    rig = Rig()
    rig.hold()
    for event in rig.journal.committed:
        if event.kind is EventKind.FILL:
            event.body["price"] = "cheap"
    rig.restart()
    with pytest.raises(ValueError, match="price 'cheap'"):
        restore(rig.journal.events(RESUME_KINDS), rig.orders, rig.risk)


# -- reconcile -----------------------------------------------------------------------------------------------------


def test_reconcile_books_what_happened_while_nobody_listened() -> None:
    rig = Rig()
    rig.hold()
    order = rig.exit_now()
    rig.broker.fill(order.broker_order_id, 1, 9_000, told=False)
    resume(rig)
    assert reconciled(rig) == []
    assert (rig.quantity(), rig.day_loss.realised_paise) == (0, -1_000)
    assert rig.orders.is_flat()
    assert rig.risk.locks == {}


def test_reconcile_of_a_position_that_no_trade_explains_locks_and_alerts() -> None:
    rig = Rig()
    rig.hold()
    rig.broker.trade_list.clear()  # the broker says flat, without a trade that says why
    assert reconciled(rig) == ["AAA: the broker holds 0, the journal 1"]
    assert rig.alerts.titles == ["Unexplained positions"]
    answer = rig.ask(entry_signal("AAA", Side.SELL, strategy="beta"))
    assert isinstance(answer, Refusal)
    assert answer.code is ReasonCode.SYMBOL_LOCKED
    assert rig.quantity() == 1


def test_reconcile_judges_the_days_product_only() -> None:
    rig = Rig()
    rig.hold()
    rig.broker.foreign("AAA", Side.BUY, 50, 10_000, product=Product.CNC)
    rig.broker.foreign("BBB", Side.BUY, 50, 10_000, product=Product.CNC)
    assert reconciled(rig) == []
    assert rig.quantity() == 1


@pytest.mark.parametrize("failing", ["trades", "orders", "positions"])
def test_reconcile_without_the_brokers_answer_is_an_error_never_flat(failing: str) -> None:
    rig = Rig()
    rig.hold()
    rig.broker.failing = {failing}
    with pytest.raises(BrokerError):
        reconciled(rig)
    assert rig.quantity() == 1
    assert rig.risk.locks == {}


# -- the ledger ----------------------------------------------------------------------------------------------------


def test_align_ledger_that_agrees_changes_nothing() -> None:
    rig = Rig()
    rig.hold()
    rig.enter(entry_signal("BBB"))
    version = rig.ledger.inner.snapshot().version
    assert not align_ledger(rig.orders, rig.risk)
    assert (rig.ledger.rebuilds, rig.ledger.inner.snapshot().version) == (0, version)


def test_align_ledger_after_an_outage_brings_positions_money_and_claims_back() -> None:
    rig = Rig(make_limits(fixed_lot_size=2), ChargeSchedule.flat(bps=10))
    rig.hold("AAA")
    entry = rig.enter(entry_signal("BBB"))
    kept = rig.risk.snapshot.claims[entry.client_order_id]
    rig.ledger.down = True
    order = rig.exit_now("AAA")
    rig.broker.fill(order.broker_order_id, 2, 9_000)
    rig.orders.poll(NOW_MS)
    rig.ledger.down = False
    assert align_ledger(rig.orders, rig.risk)
    stored = rig.ledger.inner.snapshot()
    assert (dict(stored.positions), stored.realised_paise) == ({}, -2_000)
    assert stored.charges_paise == rig.day_loss.charges_paise
    assert stored.claims == {entry.client_order_id: kept}
    assert stored.last_entry_ms[("alpha", "AAA", Side.BUY)] == NOW_MS
    assert rig.risk.readiness.ledger_fault == ""
    assert isinstance(rig.ask(entry_signal("CCC")), ApprovedOrder)


def test_align_ledger_drops_a_claim_whose_order_never_was() -> None:
    rig = Rig()
    rig.ledger.lose_reply = True
    assert isinstance(rig.ask(), Refusal)
    rig.risk.open_ledger()
    assert len(rig.risk.snapshot.claims) == 1
    assert align_ledger(rig.orders, rig.risk)
    assert dict(rig.ledger.inner.snapshot().claims) == {}


def test_align_ledger_of_an_empty_store_makes_claims_for_live_entries_at_the_worst_price() -> None:
    rig = Rig(make_limits(max_position_size_paise=20_000))
    rig.broker.answers.append(SendStatus.UNKNOWN)
    order = rig.enter()
    rig.ledger.inner.commit(rig.risk.snapshot.version, rig.epoch, LedgerChange(drop_claim=order.client_order_id), "lost")
    rig.risk.open_ledger()
    assert align_ledger(rig.orders, rig.risk)
    claim = rig.ledger.inner.snapshot().claims[order.client_order_id]
    assert (claim.symbol, claim.quantity, claim.created_ms) == ("AAA", 1, NOW_MS)
    assert claim.notional_paise >= 20_000


def test_align_ledger_of_a_store_that_is_down_raises_and_keeps_the_fault() -> None:
    rig = Rig()
    rig.risk.readiness.ledger_fault = "lost"
    rig.ledger.down = True
    with pytest.raises(LedgerUnavailable):
        align_ledger(rig.orders, rig.risk)
    assert rig.risk.readiness.ledger_fault == "lost"


def test_disabled_strategies_are_read_back_with_their_reason() -> None:
    rig = Rig()
    rig.journal.append(EventKind.STRATEGY_DISABLED, NOW_MS, {"strategy": "alpha", "reason": "a bug"})
    rig.journal.append(EventKind.LOCK, NOW_MS, {"symbol": "AAA", "reason": "test"})
    rig.journal.commit()
    assert disabled_strategies(rig.journal.events()) == {"alpha": "a bug"}


def test_reconcile_leaves_out_symbols_with_orders_at_work_and_no_others() -> None:
    rig = Rig()
    rig.hold("AAA")
    rig.hold("BBB")
    rig.broker.trade_list.clear()  # the broker holds neither any more, and no trade says why
    differences = reconcile(rig.broker, rig.orders, rig.risk, rig.alerts, NOW_MS, working=frozenset({"AAA"}))
    assert [line.split(":")[0] for line in differences] == ["BBB"]
    assert list(rig.risk.locks) == ["BBB"]
