from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.fakes.rig import NOW_MS, Rig, entry_signal, make_limits
from velox_core.domain.charges import ChargeSchedule
from velox_core.domain.errors import BrokerError, LedgerUnavailable
from velox_core.domain.events import EventKind
from velox_core.domain.orders import Order, OrderState, Product, Side, unknown_lock
from velox_core.domain.positions import FOREIGN
from velox_core.engine.resume import RESUME_KINDS, _rest, align_ledger, disabled_strategies, reconcile, restore
from velox_core.order_recovery import SEARCH_MS_MAX
from velox_core.ports import SendStatus
from velox_core.reconciliation.differences import DifferenceKind as Kind
from velox_core.reconciliation.differences import position_lock
from velox_core.risk.approval import ApprovedOrder
from velox_core.risk.layers import ReasonCode, Refusal
from velox_core.risk.ledger import LedgerChange

S = OrderState


def resume(rig: Rig) -> int:
    """Die with what was not committed, start again, and take back what the journal kept."""
    rig.journal.buffer.clear()
    rig.restart()
    return restore(rig.journal.events(RESUME_KINDS), rig.orders, rig.risk)


def reconciled(rig: Rig, **changes: Any) -> list[tuple[Kind, str]]:
    rows = reconcile(rig.broker, rig.orders, rig.risk, rig.alerts, NOW_MS, **changes)
    return [(row.kind, row.symbol) for row in rows]


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
    assert reconciled(rig) == [(Kind.POSITION_HERE_ONLY, "AAA")]
    assert rig.alerts.titles == ["Our books and the broker's differ"]
    assert rig.risk.locks == {"AAA": position_lock(0, 1)}
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
    assert reconciled(rig, working=frozenset({"AAA"})) == [(Kind.POSITION_HERE_ONLY, "BBB")]
    assert list(rig.risk.locks) == ["BBB"]


# -- what nobody explains --------------------------------------------------------------------------------------------


def unlocks(rig: Rig) -> list[tuple[str, str, str]]:
    return [(str(b["symbol"]), str(b["reason"]), str(b.get("why", ""))) for b in rig.journal.bodies(EventKind.UNLOCK)]


def seen_at_broker(rig: Rig, symbol: str, quantity: int, price_paise: int = 10_000) -> None:
    rig.broker.unseen[symbol] = quantity
    rig.broker.last_prices[symbol] = price_paise


def test_unexplained_position_takes_a_slot_and_counts_in_the_loss_of_the_day() -> None:
    rig = Rig(make_limits(max_total_positions=1, max_daily_loss_paise=4_000))
    seen_at_broker(rig, "BBB", 4)
    assert reconciled(rig) == [(Kind.POSITION_AT_BROKER_ONLY, "BBB")]
    stored = rig.ledger.inner.snapshot().positions["BBB"]
    assert (stored.quantity, stored.strategy_id, stored.cost_paise) == (4, FOREIGN, 40_000)
    answer = rig.ask(entry_signal("AAA"))
    assert isinstance(answer, Refusal)
    assert answer.code is ReasonCode.TOTAL_POSITIONS
    rig.day_loss.mark_row([0, 9_000, 0, 0, 0])
    assert rig.day_loss.loss_paise == 4_000
    rig.emergency.check(NOW_MS)
    assert rig.emergency.active
    assert rig.orders.positions == {}


def test_unexplained_position_is_counted_by_the_days_turnover_where_that_makes_it_up() -> None:
    rig = Rig()
    rig.broker.foreign("BBB", Side.BUY, 2, 10_000)
    rig.broker.drain_events()
    bought = rig.broker.positions()[0]
    line = replace(bought, bought_quantity=2, bought_paise=20_000, last_price_paise=9_000)
    assert _rest(line, 0, None, 9_000, NOW_MS).cost_paise == 20_000
    assert _rest(replace(line, bought_quantity=3), 0, None, 9_000, NOW_MS).cost_paise == 18_000


def test_unexplained_position_keeps_its_cost_over_looks_and_restarts_and_grows_at_the_price_of_now() -> None:
    rig = Rig()
    seen_at_broker(rig, "BBB", 2)
    reconciled(rig)
    seen_at_broker(rig, "BBB", 2, 9_000)
    reconciled(rig)
    assert rig.risk.unexplained["BBB"].cost_paise == 20_000
    seen_at_broker(rig, "BBB", 3, 9_000)
    rig.day_loss.mark_row([0, 9_000, 0, 0, 0])
    reconciled(rig)
    assert rig.risk.unexplained["BBB"].cost_paise == 29_000
    loss = rig.day_loss.loss_paise
    rig.orders.commit_journal()
    resume(rig)
    reconciled(rig)
    assert (rig.risk.unexplained["BBB"].quantity, rig.risk.unexplained["BBB"].cost_paise) == (3, 29_000)
    assert rig.day_loss.loss_paise == loss == 2_000
    assert position_lock(3, 0) in rig.risk.locks["BBB"]
    align_ledger(rig.orders, rig.risk)
    assert rig.ledger.inner.snapshot().positions["BBB"].quantity == 3


def test_unexplained_position_without_any_price_refuses_every_entry_until_there_is_one() -> None:
    rig = Rig()
    seen_at_broker(rig, "BBB", 2, 0)
    reconciled(rig)
    answer = rig.ask(entry_signal("AAA"))
    assert isinstance(answer, Refusal)
    assert answer.code is ReasonCode.STALE_MARKS
    assert rig.day_loss.open_marks == {}
    seen_at_broker(rig, "BBB", 2)
    reconciled(rig)
    assert isinstance(rig.ask(entry_signal("AAA")), ApprovedOrder)
    assert rig.risk.unexplained["BBB"].quantity == 2


def test_unexplained_rest_keeps_the_slot_when_our_own_part_is_closed() -> None:
    rig = Rig()
    rig.hold("AAA")
    seen_at_broker(rig, "AAA", 2)
    assert reconciled(rig) == [(Kind.POSITION_DIFFERS, "AAA")]
    order = rig.exit_now("AAA")
    rig.broker.fill(order.broker_order_id, 1, 10_000)
    rig.orders.poll(NOW_MS)
    assert rig.quantity("AAA") == 0
    assert rig.ledger.inner.snapshot().positions["AAA"].quantity == 2
    assert next(iter(rig.day_loss.open_marks.values())).quantity == 2


def test_position_that_trades_explain_later_is_unlocked_with_the_reason_and_counts_once() -> None:
    rig = Rig()
    rig.broker.foreign("BBB", Side.BUY, 2, 10_000, told=False)
    trades, rig.broker.trade_list = rig.broker.trade_list, []
    seen_at_broker(rig, "BBB", 2)
    reconciled(rig)
    assert rig.risk.locks == {"BBB": position_lock(2, 0)}
    rig.broker.unseen, rig.broker.trade_list = {}, trades
    assert reconciled(rig) == []
    assert unlocks(rig) == [("BBB", position_lock(2, 0), "trades arrived since: the broker's trades explain it")]
    assert rig.risk.locks == {"BBB": "an order that this system did not make traded"}
    assert (rig.risk.unexplained, rig.quantity("BBB")) == ({}, 2)
    assert rig.ledger.inner.snapshot().positions["BBB"].quantity == 2
    assert next(iter(rig.day_loss.open_marks.values())).quantity == 2


def test_position_difference_that_goes_away_by_itself_stays_locked() -> None:
    rig = Rig()
    seen_at_broker(rig, "BBB", 2)
    reconciled(rig)
    rig.broker.unseen = {}
    assert reconciled(rig) == []
    assert rig.risk.locks == {"BBB": position_lock(2, 0)}
    assert unlocks(rig) == []
    assert dict(rig.ledger.inner.snapshot().positions) == {}
    assert rig.day_loss.open_marks == {}


def test_foreign_order_locks_while_it_works_and_unlocks_when_it_ended_without_trading() -> None:
    rig = Rig()
    order_id = rig.broker.foreign("BBB", Side.BUY, 1, 9_000, works=True)
    assert reconciled(rig) == [(Kind.FOREIGN_ORDER, "BBB")]
    assert order_id in rig.risk.locks["BBB"]
    assert rig.broker.cancels == []
    rig.broker.end(order_id, S.CANCELLED)
    assert reconciled(rig) == []
    assert rig.risk.locks == {}
    assert unlocks(rig)[0][2] == f"order {order_id} ended at the broker: CANCELLED"


def test_order_that_the_book_does_not_have_locks_when_it_is_missing_twice_and_until_it_is_found() -> None:
    rig = Rig()
    order = rig.enter()
    line = rig.broker.book.pop(order.broker_order_id)
    first = reconcile(rig.broker, rig.orders, rig.risk, rig.alerts, NOW_MS)
    assert rig.risk.locks == {}
    assert [row.kind for row in first] == [Kind.ORDER_MISSING]
    reconciled(rig, seen=frozenset(row.reason for row in first))
    assert order.client_order_id in rig.risk.locks["AAA"]
    rig.broker.book[order.broker_order_id] = line
    assert reconciled(rig) == []
    assert rig.risk.locks == {}


def test_intent_without_an_answer_locks_its_symbol_until_it_is_found() -> None:
    rig = Rig()
    rig.broker.answers.append(RuntimeError("killed here"))
    with pytest.raises(RuntimeError):
        rig.enter()
    tag = rig.broker.placed[0].client_order_id
    resume(rig)
    assert rig.risk.locks == {"AAA": f"order {tag} is UNKNOWN"}
    rig.broker._enter(tag, "AAA", Side.BUY, 1, NOW_MS)
    reconciled(rig)
    assert rig.risk.locks == {}


def given_up(rig: Rig, *, is_exit: bool) -> Order:
    if is_exit:
        rig.hold()
    rig.broker.answers.append(SendStatus.UNKNOWN)
    order = rig.exit_now() if is_exit else rig.enter()
    for after_ms in range(0, SEARCH_MS_MAX + 1, 1_000):
        rig.recovery.work(NOW_MS + after_ms)
    assert order.client_order_id in rig.orders.not_placed
    rig.orders.commit_journal()
    return order


@pytest.mark.parametrize("is_exit", [False, True])
def test_order_that_was_given_up_stays_watched_over_a_restart(is_exit: bool) -> None:
    rig = Rig()
    order = given_up(rig, is_exit=is_exit)
    resume(rig)
    reconciled(rig)
    align_ledger(rig.orders, rig.risk)
    assert rig.recovery.watching
    assert rig.risk.locks == {"AAA": unknown_lock(order)}
    assert (order.client_order_id in rig.ledger.inner.snapshot().claims) is not is_exit
    line = rig.broker._enter(order.client_order_id, "AAA", order.side, 1, NOW_MS)
    rig.recovery.work(NOW_MS + SEARCH_MS_MAX + 30_000)
    assert rig.broker.cancels == [line.broker_order_id]
    rig.recovery.work(NOW_MS + SEARCH_MS_MAX + 60_000)
    assert not rig.recovery.watching
    assert dict(rig.ledger.inner.snapshot().claims) == {}
    assert rig.risk.locks == {"AAA": unknown_lock(order)}
    assert len(rig.broker.placed) == (2 if is_exit else 1)


def test_over_exit_is_known_again_after_a_restart() -> None:
    rig = Rig()
    rig.hold()
    order = rig.exit_now()
    rig.broker.fill(order.broker_order_id, 1, 10_000)
    rig.orders.poll(NOW_MS)
    rig.broker.fill(order.broker_order_id, 1, 10_000)
    rig.orders.poll(NOW_MS)
    assert rig.orders.overshot == {"AAA"}
    resume(rig)
    assert (rig.quantity(), rig.orders.overshot) == (-1, {"AAA"})
