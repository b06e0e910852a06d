from __future__ import annotations

import logging
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes.broker import FakeBroker
from tests.fakes.rig import NOW_MS, PREFIX, Rig, entry_signal, make_limits
from velox_core.domain.charges import ChargeSchedule
from velox_core.domain.errors import IntentRefused, InvariantError, JournalUnavailable
from velox_core.domain.events import EventKind
from velox_core.domain.orders import TERMINAL_STATES, ExitRank, Order, OrderIntent, OrderState, Product, Side, unknown_lock
from velox_core.foreign_orders import cancel_foreign
from velox_core.ports import BrokerFill, BrokerOrder, OrderUpdate, SendStatus
from velox_core.risk.approval import ApprovedOrder

S = OrderState


def states(rig: Rig) -> list[str]:
    return [str(body["state"]) for body in rig.journal.bodies(EventKind.ORDER)]


def state_of(order: Order) -> OrderState:
    """Return the state afresh (a type checker would remember the one asserted before)."""
    return order.state


def lot(quantity: int) -> Rig:
    return Rig(make_limits(fixed_lot_size=quantity))


# -- sending -------------------------------------------------------------------------------------------------------


def test_submit_makes_the_intent_durable_before_the_send() -> None:
    rig = Rig()
    seen: list[tuple[int, list[str]]] = []
    rig.broker.on_place = lambda order: seen.append(
        (len(rig.journal.buffer), [str(e.body["client_order_id"]) for e in rig.journal.committed if e.kind is EventKind.INTENT])
    )
    order = rig.enter(entry_signal(stop=9_000, target=12_000))
    assert seen == [(0, [order.client_order_id])]
    body = rig.journal.bodies(EventKind.INTENT)[0]
    assert (body["role"], body["rank"], body["stop"], body["target"], body["ledger_version"]) == (
        "ENTRY",
        None,
        9_000,
        12_000,
        1,
    )
    assert (order.state, order.broker_order_id) == (S.OPEN, "B1")
    assert states(rig) == ["OPEN"]


def test_submit_of_one_approval_twice_sends_once() -> None:
    rig = Rig()
    approved = rig.ask()
    assert isinstance(approved, ApprovedOrder)
    rig.orders.submit(approved, OrderIntent("alpha", "r"), NOW_MS)
    length = rig.journal.length
    with pytest.raises(InvariantError, match="a second time"):
        rig.orders.submit(approved, OrderIntent("alpha", "r"), NOW_MS)
    assert len(rig.broker.placed) == 1
    assert rig.journal.length == length


def test_submit_of_what_only_looks_like_an_approval_sends_nothing() -> None:
    rig = Rig()
    approved = rig.ask()
    length = rig.journal.length
    forged = SimpleNamespace(**{name: getattr(approved, name) for name in ApprovedOrder.__slots__})
    with pytest.raises(InvariantError, match="is not approved"):
        rig.orders.submit(forged, OrderIntent("alpha", "r"), NOW_MS)  # type: ignore[arg-type]
    assert rig.broker.placed == []
    assert rig.orders.orders == {}
    assert rig.journal.length == length


def test_submit_entry_with_the_journal_down_sends_nothing_and_keeps_the_claim() -> None:
    rig = Rig()
    rig.journal.error = JournalUnavailable("disk full")
    order = rig.enter()
    assert state_of(order) is S.CANCELLED
    assert rig.broker.placed == []
    assert rig.orders.live == {}
    assert list(rig.ledger.inner.snapshot().claims) == [order.client_order_id]
    assert rig.risk.readiness.journal_fault == "disk full"
    rig.journal.error = None
    assert rig.orders.commit_journal()
    assert rig.risk.readiness.journal_fault == ""
    assert states(rig) == ["CANCELLED"]


def test_submit_exit_with_the_journal_down_is_sent_and_its_events_stay_in_order() -> None:
    rig = Rig()
    rig.hold()
    rig.journal.error = JournalUnavailable("disk full")
    order = rig.exit_now()
    assert state_of(order) is S.OPEN
    assert rig.broker.placed[-1].client_order_id == order.client_order_id
    rig.journal.error = None
    rig.orders.commit_journal()
    intents = [body["client_order_id"] for body in rig.journal.bodies(EventKind.INTENT)]
    assert intents == [f"{PREFIX}0000001", order.client_order_id]


@pytest.mark.parametrize("is_entry", [True, False])
def test_submit_of_an_intent_that_the_journal_refuses_sends_nothing(is_entry: bool) -> None:
    rig = Rig()
    if not is_entry:
        rig.hold()
    sent = len(rig.broker.placed)
    rig.journal.refuse_once = IntentRefused("the id is used")
    order = rig.enter() if is_entry else rig.exit_now()
    assert state_of(order) is S.CANCELLED
    assert len(rig.broker.placed) == sent
    assert order.client_order_id not in rig.orders.live
    assert all(body["client_order_id"] != order.client_order_id for body in rig.journal.bodies(EventKind.ORDER))
    assert rig.risk.readiness.journal_fault == ""


@pytest.mark.parametrize("is_entry", [True, False])
def test_submit_beside_an_older_intent_that_the_journal_refuses_sends_exits_only(is_entry: bool) -> None:
    rig = Rig()
    if not is_entry:
        rig.hold()
    sent = len(rig.broker.placed)
    rig.journal.refuse_older = True
    order = rig.enter() if is_entry else rig.exit_now()
    assert len(rig.broker.placed) - sent == (0 if is_entry else 1)
    assert state_of(order) is (S.CANCELLED if is_entry else S.OPEN)
    assert dict(rig.ledger.inner.snapshot().claims) == {}
    ended = [b for b in rig.journal.bodies(EventKind.ORDER) if b["client_order_id"] == order.client_order_id]
    assert [b["state"] for b in ended] == ([S.CANCELLED] if is_entry else [S.OPEN])


def test_commit_journal_with_a_refused_intent_of_an_exit_that_left_is_no_fault() -> None:
    rig = Rig()
    rig.journal.refuse_once = IntentRefused("the id is used")
    assert rig.orders.commit_journal()
    assert rig.risk.readiness.journal_fault == ""


def test_rejected_entry_frees_its_slot() -> None:
    rig = Rig()
    rig.broker.answers.append(SendStatus.REJECTED)
    order = rig.enter()
    assert state_of(order) is S.REJECTED
    assert dict(rig.ledger.inner.snapshot().claims) == {}
    assert rig.orders.live == {}
    assert rig.risk.locks == {}


def test_unknown_entry_locks_the_symbol_and_keeps_slot_and_life() -> None:
    rig = Rig()
    rig.broker.answers.append(SendStatus.UNKNOWN)
    order = rig.enter()
    assert state_of(order) is S.UNKNOWN
    assert rig.risk.locks == {"AAA": unknown_lock(order)}
    assert list(rig.ledger.inner.snapshot().claims) == [order.client_order_id]
    assert list(rig.orders.live) == [order.client_order_id]
    assert not rig.orders.is_flat()


def test_doubt_submitting_takes_broken_sends_for_unknown() -> None:
    rig = Rig()
    rig.broker.answers.append(RuntimeError("the adapter broke"))
    with pytest.raises(RuntimeError):
        rig.enter()
    order = rig.orders.orders[f"{PREFIX}0000001"]
    assert state_of(order) is S.SUBMITTING
    rig.orders.doubt_submitting(NOW_MS)
    assert state_of(order) is S.UNKNOWN
    assert rig.risk.locks == {"AAA": unknown_lock(order)}
    rig.orders.doubt_submitting(NOW_MS)
    assert states(rig) == ["UNKNOWN"]


def test_cancel_is_asked_once_a_second_and_the_order_lives_until_the_broker_says() -> None:
    rig = Rig()
    order = rig.enter()
    rig.broker.cancel_answers.extend([SendStatus.UNKNOWN, SendStatus.REJECTED, SendStatus.ACKNOWLEDGED])
    for after_ms in (0, 999, 1_000, 1_500, 2_000):
        rig.orders.cancel(order, "test", NOW_MS + after_ms)
        assert state_of(order) is S.OPEN
    assert rig.broker.cancels == ["B1", "B1", "B1"]
    rig.orders.poll(NOW_MS + 2_000)
    assert state_of(order) is S.CANCELLED


def test_cancel_without_a_broker_id_asks_nothing() -> None:
    rig = Rig()
    rig.broker.answers.append(SendStatus.UNKNOWN)
    rig.orders.cancel(rig.enter(), "test", NOW_MS)
    assert rig.broker.cancels == []


# -- what a broker may legally say ---------------------------------------------------------------------------------


def test_fill_before_acknowledgement_is_booked_and_the_order_goes_on() -> None:
    """A fill that comes while the request is still out finds the order SUBMITTING."""
    rig = lot(2)

    def at_once(approved: ApprovedOrder) -> None:
        fill = BrokerFill(NOW_MS, "T1", approved.client_order_id, "B1", "AAA", Side.BUY, 1, 10_000)
        rig.orders.apply_fill(fill, NOW_MS)

    rig.broker.on_place = at_once
    order = rig.enter()
    assert (order.state, order.filled_quantity, order.broker_order_id) == (S.PARTIALLY_FILLED, 1, "B1")
    assert rig.quantity() == 1


def test_filled_update_before_the_fills_waits_for_them() -> None:
    rig = lot(2)
    order = rig.enter()
    rig.broker.tell("B1", S.FILLED, 2)
    rig.orders.poll(NOW_MS)
    assert state_of(order) is S.OPEN
    assert rig.quantity() == 0
    rig.broker.fill("B1", 2, 10_000)
    rig.orders.poll(NOW_MS)
    assert state_of(order) is S.FILLED
    assert rig.quantity() == 2
    assert dict(rig.ledger.inner.snapshot().claims) == {}


def test_filled_update_whose_fill_is_lost_is_completed_from_the_trade_list() -> None:
    rig = Rig()
    order = rig.enter()
    rig.broker.fill("B1", 1, 10_000, told=False)
    rig.broker.tell("B1", S.FILLED, 1)
    rig.orders.poll(NOW_MS)
    assert (order.state, rig.quantity()) == (S.FILLED, 1)
    assert rig.broker.reads == ["trades"]


def test_cancelled_update_with_fills_due_ends_when_they_are_here() -> None:
    rig = lot(3)
    order = rig.enter()
    rig.broker.tell("B1", S.CANCELLED, 2, "rest cancelled")
    rig.orders.poll(NOW_MS)
    assert state_of(order) is S.OPEN
    rig.broker.fill("B1", 1, 10_000)
    rig.orders.poll(NOW_MS)
    assert state_of(order) is S.PARTIALLY_FILLED
    rig.broker.fill("B1", 1, 10_000)
    rig.orders.poll(NOW_MS)
    assert state_of(order) is S.CANCELLED
    stored = rig.ledger.inner.snapshot()
    assert dict(stored.claims) == {}
    assert stored.positions["AAA"].quantity == 2
    assert rig.journal.bodies(EventKind.ORDER)[-1]["reason"] == "rest cancelled"


def test_cancelled_update_that_claims_too_much_is_corrected_by_the_book() -> None:
    rig = lot(3)
    order = rig.enter()
    rig.broker.tell("B1", S.CANCELLED, 1)  # wrong: nothing traded
    rig.broker.book["B1"].state = S.CANCELLED
    rig.orders.poll(NOW_MS)
    assert order.is_live
    assert rig.orders.fetch_order_ends(NOW_MS)
    assert state_of(order) is S.CANCELLED
    assert rig.orders.live == {}


def test_rejected_after_a_part_filled_ends_as_cancelled() -> None:
    rig = lot(3)
    order = rig.enter()
    rig.broker.fill("B1", 1, 10_000)
    rig.orders.poll(NOW_MS)
    rig.broker.tell("B1", S.REJECTED, 1, "rest refused")
    rig.orders.poll(NOW_MS)
    assert (order.state, rig.quantity()) == (S.CANCELLED, 1)
    assert dict(rig.ledger.inner.snapshot().claims) == {}


def test_rejected_after_acknowledgement_frees_the_slot() -> None:
    rig = Rig()
    order = rig.enter()
    rig.broker.end("B1", S.REJECTED)
    rig.orders.poll(NOW_MS)
    assert state_of(order) is S.REJECTED
    assert dict(rig.ledger.inner.snapshot().claims) == {}


def test_cancelled_of_an_unknown_order_unlocks() -> None:
    rig = Rig()
    rig.broker.answers.append(rig.broker.LOST)
    order = rig.enter()
    rig.broker.end("B1", S.CANCELLED)
    rig.orders.poll(NOW_MS)
    assert state_of(order) is S.CANCELLED
    assert rig.risk.locks == {}


def test_open_update_of_an_unknown_order_adopts_it_and_unlocks() -> None:
    rig = Rig()
    rig.broker.answers.append(rig.broker.LOST)
    order = rig.enter()
    rig.broker.tell("B1", S.OPEN)
    rig.orders.poll(NOW_MS)
    assert (order.state, order.broker_order_id, rig.risk.locks) == (S.OPEN, "B1", {})


def test_fill_of_an_unknown_order_adopts_it_and_unlocks() -> None:
    rig = Rig()
    rig.broker.answers.append(rig.broker.LOST)
    order = rig.enter()
    rig.broker.fill("B1", 1, 10_000)
    rig.orders.poll(NOW_MS)
    assert (order.state, order.broker_order_id, rig.risk.locks, rig.quantity()) == (S.FILLED, "B1", {}, 1)


def test_repeated_and_late_updates_change_nothing() -> None:
    rig = Rig()
    order = rig.hold()
    length = rig.journal.length
    for state in (S.OPEN, S.PARTIALLY_FILLED, S.FILLED, S.CANCELLED, S.REJECTED):
        rig.broker.tell("B1", state, 1)
        rig.broker.tell("B1", state, 1)
    rig.orders.poll(NOW_MS)
    assert state_of(order) is S.FILLED
    assert rig.journal.length == length
    assert rig.broker.cancels == []


def test_repeated_fill_counts_once() -> None:
    rig = lot(2)
    rig.enter()
    fill = rig.broker.fill("B1", 1, 10_000)
    rig.broker.news.append(fill)
    rig.orders.poll(NOW_MS)
    rig.orders.fetch_trades(NOW_MS)
    assert rig.quantity() == 1
    assert len(rig.journal.bodies(EventKind.FILL)) == 1
    assert rig.orders.fill_count == 1


def test_late_fill_after_a_cancel_is_booked_and_locks_the_symbol() -> None:
    rig = lot(2)
    order = rig.enter()
    rig.broker.tell("B1", S.CANCELLED, 0)
    rig.orders.poll(NOW_MS)
    rig.broker.fill("B1", 1, 10_000)
    rig.orders.poll(NOW_MS)
    assert (order.state, rig.quantity()) == (S.CANCELLED, 1)
    assert "late fill T1" in rig.risk.locks["AAA"]
    assert rig.ledger.inner.snapshot().positions["AAA"].quantity == 1


def test_overfill_is_booked_and_locks_the_symbol() -> None:
    rig = Rig()
    order = rig.enter()
    rig.broker.fill("B1", 2, 10_000)
    rig.orders.poll(NOW_MS)
    assert (order.state, rig.quantity()) == (S.FILLED, 2)
    assert "filled 2 of 1" in rig.risk.locks["AAA"]


@pytest.mark.parametrize("filled", [-1, 2])
def test_update_with_an_impossible_quantity_locks_and_changes_nothing_else(filled: int) -> None:
    rig = Rig()
    order = rig.enter()
    rig.broker.tell("B1", S.FILLED, filled)
    rig.orders.poll(NOW_MS)
    assert state_of(order) is S.OPEN
    assert rig.risk.locks == {"AAA": f"broker reports {filled} of 1 shares filled"}


def test_update_of_an_order_that_is_not_ours_changes_nothing() -> None:
    rig = Rig()
    rig.orders.apply_update(OrderUpdate(NOW_MS, "", "B9", S.FILLED, 5), NOW_MS)
    rig.orders.apply_update(OrderUpdate(NOW_MS, "240116G00010000001", "B9", S.OPEN, 0), NOW_MS)
    assert rig.journal.length == 0
    assert rig.orders.orders == {}


def test_completion_in_the_book_of_an_order_whose_fills_are_all_here_ends_it() -> None:
    """As after a restart between the fill and the order's last event."""
    rig = Rig()
    order = rig.enter()
    order.filled_quantity = 1
    rig.orders.apply_update(OrderUpdate(NOW_MS, order.client_order_id, "B1", S.FILLED, 1), NOW_MS)
    assert state_of(order) is S.FILLED
    assert rig.orders.live == {}


NEWS = st.lists(
    st.one_of(
        st.tuples(st.just("fill"), st.integers(1, 3)),
        st.tuples(st.sampled_from([S.OPEN, S.PARTIALLY_FILLED, S.FILLED, S.CANCELLED, S.REJECTED]), st.integers(-1, 4)),
        st.tuples(st.just("again"), st.just(0)),
        st.tuples(st.just("book"), st.just(0)),
    ),
    max_size=12,
)


@settings(max_examples=200, deadline=None)
@given(news=NEWS, first=st.sampled_from([SendStatus.ACKNOWLEDGED, "reply lost", SendStatus.UNKNOWN]))
def test_any_news_in_any_order_never_breaks_the_books(news: list[tuple[str, int]], first: SendStatus | str) -> None:
    rig = lot(3)
    rig.broker.answers.append(first)
    order = rig.enter()
    sent: list[OrderUpdate | BrokerFill] = []
    for what, number in news:
        event: OrderUpdate | BrokerFill | None = None
        if what == "fill":
            event = BrokerFill(NOW_MS, f"T{len(sent)}", order.client_order_id, "B1", "AAA", Side.BUY, number, 10_000)
        elif what == "again":
            event = sent[-1] if sent else None
        elif what == "book":
            rig.orders.fetch_order_ends(NOW_MS)
        else:
            event = OrderUpdate(NOW_MS, order.client_order_id, "B1", OrderState(what), number)
        if event is not None:
            sent.append(event)
            rig.broker.news.append(event)
            rig.orders.poll(NOW_MS)
    traded = sum({f.trade_id: f.quantity for f in sent if isinstance(f, BrokerFill)}.values())
    assert rig.quantity() == order.filled_quantity == traded
    stored = rig.ledger.inner.snapshot()
    assert (stored.positions["AAA"].quantity if traded else 0) == traded
    assert order.is_live is (order.client_order_id in rig.orders.live)
    assert order.is_live is (order.client_order_id in stored.claims)
    assert len(rig.broker.placed) == 1


# -- fills and money -----------------------------------------------------------------------------------------------


def test_fill_brings_position_ledger_journal_and_loss_up_to_date() -> None:
    rig = Rig(make_limits(fixed_lot_size=2), ChargeSchedule.flat(bps=10))
    order = rig.enter(entry_signal(stop=9_000, target=12_000))
    rig.broker.fill("B1", 2, 10_000)
    seen: list[str] = []
    rig.orders.on_position = seen.append
    rig.orders.poll(NOW_MS)
    position = rig.orders.positions["AAA"]
    assert (position.quantity, position.cost_paise, position.strategy_id) == (2, 20_000, "alpha")
    assert (position.stop_paise, position.target_paise, position.opened_ms) == (9_000, 12_000, NOW_MS)
    body = rig.journal.bodies(EventKind.FILL)[0]
    assert (body["charges"], body["realised"], body["position"], body["cost"]) == (20, 0, 2, 20_000)
    assert body["client_order_id"] == order.client_order_id
    stored = rig.ledger.inner.snapshot()
    assert (stored.charges_paise, dict(stored.claims)) == (20, {})
    assert rig.day_loss.charges_paise == 20
    assert rig.orders.mark_of("AAA") == 10_000
    assert rig.orders.mark_of("BBB") == 0
    assert seen[-1] == "AAA"


def test_charges_of_an_order_in_parts_add_up_to_those_of_the_whole() -> None:
    schedule = ChargeSchedule(label="capped", brokerage_ppb=300_000_000, brokerage_cap_paise=500)
    rig = Rig(make_limits(fixed_lot_size=3), schedule)
    rig.enter()
    for _ in range(3):
        rig.broker.fill("B1", 1, 1_000)
    rig.orders.poll(NOW_MS)
    assert [body["charges"] for body in rig.journal.bodies(EventKind.FILL)] == [300, 200, 0]


def test_round_trip_realises_and_leaves_the_ledger_flat() -> None:
    rig = Rig()
    rig.hold(price_paise=10_000)
    order = rig.exit_now()
    rig.broker.fill(order.broker_order_id, 1, 9_500)
    rig.orders.poll(NOW_MS)
    stored = rig.ledger.inner.snapshot()
    assert (rig.quantity(), stored.realised_paise, dict(stored.positions)) == (0, -500, {})
    assert rig.day_loss.loss_paise == 500
    assert rig.orders.is_flat()
    assert rig.orders.open_positions() == []
    assert rig.orders.overshot == set()


def test_foreign_trade_is_the_accounts_too_and_locks_the_symbol(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "velox.orders")
    rig = Rig()
    rig.broker.foreign("BBB", Side.SELL, 5, 2_000)
    rig.broker.foreign("ZZZ", Side.BUY, 1, 500)
    rig.orders.poll(NOW_MS)
    assert (rig.quantity("BBB"), rig.quantity("ZZZ")) == (-5, 1)
    assert set(rig.risk.locks) == {"BBB", "ZZZ"}
    stored = rig.ledger.inner.snapshot()
    assert {s: p.strategy_id for s, p in stored.positions.items()} == {"BBB": "", "ZZZ": ""}
    assert len(rig.day_loss.open_marks) == 2
    assert "order foreign" in caplog.text


def test_foreign_trade_of_the_owners_holdings_is_locked_and_never_counted() -> None:
    rig = Rig()
    rig.broker.foreign("AAA", Side.BUY, 50, 10_000, product=Product.CNC)
    rig.orders.poll(NOW_MS)
    assert rig.quantity() == 0
    assert rig.orders.is_flat()
    assert rig.journal.bodies(EventKind.FILL) == []
    assert list(rig.risk.locks) == ["AAA"]


def test_exit_that_trades_past_the_position_is_overshot_until_flat() -> None:
    rig = Rig()
    rig.hold()
    order = rig.exit_now()
    rig.broker.foreign("AAA", Side.SELL, 1, 10_000)
    rig.orders.poll(NOW_MS)
    assert rig.orders.overshot == set()
    rig.broker.fill(order.broker_order_id, 1, 10_000)
    rig.orders.poll(NOW_MS)
    assert (rig.quantity(), rig.orders.overshot) == (-1, {"AAA"})
    assert "traded past the position" in rig.risk.locks["AAA"]
    rig.broker.foreign("AAA", Side.BUY, 1, 10_000)
    rig.orders.poll(NOW_MS)
    assert rig.orders.overshot == set()


def test_fill_with_the_ledger_down_is_booked_and_refuses_entries() -> None:
    rig = Rig()
    rig.enter()
    rig.ledger.down = True
    rig.broker.fill("B1", 1, 10_000)
    rig.orders.poll(NOW_MS)
    assert rig.quantity() == 1
    assert rig.risk.readiness.ledger_fault != ""
    assert len(rig.journal.bodies(EventKind.FILL)) == 1


# -- reading the book ----------------------------------------------------------------------------------------------


def test_order_that_ends_between_the_two_reads_of_the_book_is_booked_where_the_book_calls_it_ended() -> None:
    rig = lot(2)
    order = rig.enter()

    class TradesAfterFirstRead(FakeBroker):
        """What is read second knows the trade, what is read first does not."""

        def _traded(self) -> None:
            if len(self.reads) == 1:
                self.fill(order.broker_order_id, 2, 10_000, told=False)

        def orders(self) -> list[BrokerOrder]:
            answer = super().orders()
            self._traded()
            return answer

        def trades(self) -> list[BrokerFill]:
            answer = super().trades()
            self._traded()
            return answer

    rig.broker.__class__ = TradesAfterFirstRead
    book = rig.orders.read_book(NOW_MS) or []
    is_ended = [line.state in TERMINAL_STATES for line in book if line.tag == order.client_order_id]
    assert (is_ended, rig.quantity()) == ([False], 2)


@pytest.mark.parametrize("failing", ["trades", "orders"])
def test_book_that_does_not_answer_says_so_and_changes_nothing(failing: str) -> None:
    rig = Rig()
    order = rig.enter()
    rig.broker.failing = {failing}
    assert not rig.orders.fetch_order_ends(NOW_MS)
    assert rig.orders.read_book(NOW_MS) is None
    assert rig.broker.reads == ["orders", "trades", "orders", "trades"]  # what traded is booked whatever becomes of the other
    assert state_of(order) is S.OPEN


def test_fetch_order_ends_books_what_was_never_told() -> None:
    rig = lot(2)
    order = rig.enter()
    rig.broker.foreign("BBB", Side.BUY, 1, 500, told=False)
    rig.broker.fill("B1", 1, 10_000, told=False)
    rig.broker.end("B1", S.CANCELLED, told=False)
    assert rig.orders.fetch_order_ends(NOW_MS)
    assert (order.state, rig.quantity(), rig.quantity("BBB")) == (S.CANCELLED, 1, 1)


def test_cancel_foreign_spares_our_live_orders_other_products_and_ended_ones() -> None:
    rig = Rig()
    rig.enter()
    rig.broker.foreign("BBB", Side.BUY, 1, 500)
    mis = rig.broker.foreign("CCC", Side.BUY, 1, 500, works=True)
    rig.broker.foreign("DDD", Side.BUY, 1, 500, works=True, product=Product.CNC)
    cancel_foreign(rig.orders, NOW_MS)
    assert rig.broker.cancels == [mis]
    rig.broker.failing = {"orders"}
    cancel_foreign(rig.orders, NOW_MS)
    assert rig.broker.cancels == [mis]


def test_settle_not_placed_ends_the_order_and_keeps_lock_and_claim() -> None:
    rig = Rig()
    rig.broker.answers.append(SendStatus.UNKNOWN)
    order = rig.enter()
    rig.orders.settle_not_placed(order, NOW_MS)
    assert state_of(order) is S.CANCELLED
    assert rig.risk.locks == {"AAA": unknown_lock(order)}
    assert list(rig.ledger.inner.snapshot().claims) == [order.client_order_id]
    assert rig.orders.orders[order.client_order_id] is order
    assert "NOT_PLACED" in str(rig.journal.bodies(EventKind.ORDER)[-1]["reason"])


@pytest.mark.parametrize(
    ("state", "cancelled"), [(S.OPEN, True), (S.PARTIALLY_FILLED, True), (S.FILLED, False), (S.CANCELLED, False)]
)
def test_late_word_of_an_order_given_up_cancels_it_while_it_works(state: OrderState, cancelled: bool) -> None:
    rig = Rig()
    rig.broker.answers.append(SendStatus.UNKNOWN)
    order = rig.enter()
    rig.orders.settle_not_placed(order, NOW_MS)
    line = rig.broker._enter(order.client_order_id, "AAA", Side.BUY, 1, NOW_MS)
    rig.broker.tell(line.broker_order_id, state)
    rig.orders.poll(NOW_MS)
    assert (rig.broker.cancels == [line.broker_order_id]) is cancelled
    assert state_of(order) is S.CANCELLED


# -- views and resuming --------------------------------------------------------------------------------------------


def test_live_orders_are_split_into_entries_and_exits() -> None:
    rig = Rig()
    rig.hold()
    exit_order = rig.exit_now()
    entry = rig.enter(entry_signal("BBB"))
    assert rig.orders.live_orders("AAA", entries=False) == [exit_order]
    assert rig.orders.live_orders("AAA", entries=True) == []
    assert rig.orders.live_orders("BBB", entries=True) == [entry]


def test_restored_books_equal_the_old_ones() -> None:
    rig = Rig(make_limits(fixed_lot_size=2), ChargeSchedule.flat(bps=10))
    rig.hold("AAA")
    rig.hold("BBB", Side.SELL, price_paise=20_000, now_ms=NOW_MS + 60_000)
    rig.exit_now("AAA")
    before = (rig.day_loss.loss_paise, rig.day_loss.charges_paise, {s: p.cost_paise for s, p in rig.orders.positions.items()})
    old, fills = list(rig.orders.orders.values()), rig.journal.bodies(EventKind.FILL)
    rig.restart()
    for order in old:
        fresh = Order(
            client_order_id=order.client_order_id,
            strategy_id=order.strategy_id,
            symbol=order.symbol,
            side=order.side,
            quantity=order.quantity,
            order_type=order.order_type,
            limit_price_paise=0,
            product=order.product,
            rank=order.rank,
            created_ms=order.created_ms,
            reason=order.reason,
        )
        fresh.state = order.state
        rig.orders.restore(fresh)
    for trade, body in zip(rig.broker.trade_list, fills, strict=True):
        rig.orders.restore_fill(trade, charges_paise=int(str(body["charges"])))
    after = (rig.day_loss.loss_paise, rig.day_loss.charges_paise, {s: p.cost_paise for s, p in rig.orders.positions.items()})
    assert after == before
    assert [order.rank for order in rig.orders.live.values()] == [ExitRank.STOP]
    length = rig.journal.length
    rig.orders.fetch_trades(NOW_MS)
    assert rig.journal.length == length


def test_poll_without_news_commits_nothing() -> None:
    rig = Rig()
    assert rig.orders.poll(NOW_MS) == 0
    assert rig.journal.commits == 0


@pytest.mark.parametrize(
    "act", [lambda rig: rig.hold(), lambda rig: rig.broker.answers.append(SendStatus.REJECTED) or rig.enter()]
)
def test_order_manager_without_a_listener_works(act: Callable[[Rig], object]) -> None:
    rig = Rig()
    assert rig.orders.on_position is None
    act(rig)
    assert rig.orders.live == {}


def test_fill_restored_twice_counts_once() -> None:
    rig = Rig()
    fill = BrokerFill(NOW_MS, "T1", "", "B1", "AAA", Side.BUY, 1, 10_000)
    for _ in range(2):
        rig.orders.restore_fill(fill, charges_paise=3)
    assert (rig.quantity(), rig.orders.fill_count, rig.day_loss.charges_paise) == (1, 1, 3)


def test_log_tells_an_orders_life_with_its_engine_time(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "velox.orders")
    rig = Rig()
    order = rig.hold()
    rig.broker.answers.append(SendStatus.REJECTED)
    rig.exit_now()
    lines = [record.getMessage() for record in caplog.records if record.name == "velox.orders"]
    assert lines == [
        f"[ORDER] {order.client_order_id} alpha BUY 1 AAA: OPEN",
        f"[ORDER] {order.client_order_id} alpha BUY 1 AAA: FILLED",
        f"[FILL] T1 BUY 1 AAA @ 100.00, position 1, order {order.client_order_id}",
        f"[ORDER] {PREFIX}0000002 alpha SELL 1 AAA: REJECTED - refused (fake)",
    ]
    assert {record.__dict__["engine_ms"] for record in caplog.records if record.name == "velox.orders"} == {NOW_MS}


def test_read_book_with_tags_of_an_engine_we_know_nothing_of_never_uses_them_again() -> None:
    rig = Rig()
    # an earlier engine of the same epoch, whose journal is lost, sent seven orders
    rig.broker._enter(f"{PREFIX}0000007", "CCC", Side.BUY, 1, NOW_MS)
    assert rig.orders.read_book(NOW_MS) is not None
    order = rig.enter()
    assert order.client_order_id == f"{PREFIX}0000008"
    assert len({line.tag for line in rig.broker.book.values()}) == len(rig.broker.book)
