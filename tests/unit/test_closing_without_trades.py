"""Closing while the broker's trades cannot be read: by its order book and its positions, never twice, and to a proof."""

from __future__ import annotations

import pytest

from tests.fakes.flatten import FlattenRig
from tests.fakes.outside import FakeCloserLock
from tests.fakes.rig import NOW_MS, Rig
from velox_core.broker_reads import TRADELESS_MS_MIN
from velox_core.domain.orders import OrderState, Side
from velox_core.engine.resume import RESUME_KINDS, restore
from velox_core.flat_proof import FlattenState
from velox_core.flattening import Flattener
from velox_core.ports import CloserHold, SendStatus

S = FlattenState


def unbroken(rig: FlattenRig, **rules: bool) -> Flattener:
    """Return a flattener in a process that closed before: it need not read the book before its first exit."""
    return rig.flattener(lock=FakeCloserLock(CloserHold.UNBROKEN), **rules)


def test_no_exit_leaves_beside_an_order_whose_trades_would_not_be_seen() -> None:
    rig = FlattenRig()
    rig.hold("AAA", 10)
    rig.broker.failing = {"trades"}
    stop = rig.broker.foreign("AAA", Side.SELL, 10, 0, works=True)
    rig.broker.cancel_answers.extend([SendStatus.UNKNOWN] * 100)
    lowest: list[int] = []

    def trade(now_ms: int) -> None:
        lowest.append(rig.net("AAA"))
        if now_ms == NOW_MS + 25_000:
            rig.broker.fill(stop, 10, 9_900, told=False)
        if rig.sent:
            rig.broker.fill_prices = {"AAA": 9_900}

    result = rig.run(unbroken(rig), seconds=60, before=trade)
    assert (result.state, rig.sent, min(lowest)) == (S.FLAT, [], 0)


def test_engine_s_exit_leaves_beside_an_order_whose_trades_it_cannot_read() -> None:
    rig = Rig()
    rig.hold("AAA")
    rig.broker.failing = {"trades"}
    rig.broker.foreign("AAA", Side.SELL, 1, 0, works=True)
    rig.closer_lock.hold = CloserHold.ELSEWHERE
    rig.emergency.trigger("asked", "me", NOW_MS)
    for after_ms in range(0, 20_000, 500):
        rig.emergency.check(NOW_MS + after_ms)
    rig.closer_lock.hold = CloserHold.UNBROKEN
    rig.emergency.check(NOW_MS + 20_000)
    assert [(o.symbol, o.side, o.quantity) for o in rig.broker.placed if o.rank is not None] == [("AAA", Side.SELL, 1)]


@pytest.mark.parametrize("close_foreign", [True, False])
def test_orders_of_symbols_that_may_be_kept_are_left_until_the_first_comparison(close_foreign: bool) -> None:
    rig = FlattenRig()
    rig.broker.unseen = {"BBB": 4}
    stop = rig.broker.foreign("BBB", Side.SELL, 4, 0, works=True)
    rig.broker.failing = {"trades"}
    flattener = unbroken(rig, close_foreign=close_foreign)
    rig.run(flattener, seconds=TRADELESS_MS_MIN / 1_000 - 2)
    assert rig.broker.cancels == ([stop] if close_foreign else [])
    rig.broker.failing = set()
    rig.broker.fill_prices = {"BBB": 9_900} if close_foreign else {}
    result = rig.run(flattener)
    assert result.state is S.FLAT
    assert rig.broker.book[stop].state is (OrderState.CANCELLED if close_foreign else OrderState.OPEN)


# -- ends that nobody hears of ---------------------------------------------------------------------------------------


def sent_unheard(filled: int, state: OrderState | None, *, hidden: int = 0, heal_ms: int = 0) -> tuple[FlattenRig, Flattener]:
    """Have an exit for 10 trade so much and end, without a word: the trades cannot be read. `hidden` of it in the positions."""
    rig = FlattenRig()
    rig.hold("AAA", 10)
    rig.broker.failing = {"trades"}
    flattener = unbroken(rig)

    def trade(now_ms: int) -> None:
        if heal_ms and now_ms >= NOW_MS + heal_ms:
            rig.broker.failing = set()
            rig.broker.fill_prices = {"AAA": 9_900}
        if len(rig.sent) == 1 and not rig.broker.book[rig.broker.id_of(1)].filled:
            exit_id = rig.broker.id_of(1)
            if filled:
                rig.broker.fill(exit_id, filled, 9_900, told=False)
            if state is not None:
                rig.broker.end(exit_id, state, told=False)
            rig.broker.unseen = {"AAA": hidden}
        elif len(rig.sent) == 2 and not heal_ms:
            rig.broker.fill_prices = {"AAA": 9_900}

    rig.run(flattener, seconds=100, before=trade)
    return rig, flattener


def test_exit_that_the_book_calls_filled_is_flat_once_the_positions_say_so() -> None:
    rig, flattener = sent_unheard(10, None)
    assert (flattener.state, rig.sent, rig.net("AAA")) == (S.FLAT, [("AAA", "SELL", 10)], 0)


@pytest.mark.parametrize("hidden", [10, 5])
def test_exit_that_the_book_calls_filled_is_not_flat_while_the_positions_do_not_say_so(hidden: int) -> None:
    rig, flattener = sent_unheard(10, None, hidden=hidden)
    assert (flattener.ended, rig.sent) == (False, [("AAA", "SELL", 10)])
    assert flattener.result().lines[0].held == 10


@pytest.mark.parametrize("filled", [0, 4])
@pytest.mark.parametrize("state", [OrderState.CANCELLED, OrderState.REJECTED])
def test_rest_of_an_exit_that_ended_unheard_is_sent_again(filled: int, state: OrderState) -> None:
    rig, flattener = sent_unheard(filled, state)
    assert (flattener.state, rig.net("AAA")) == (S.FLAT, 0)
    assert rig.sent == [("AAA", "SELL", 10), ("AAA", "SELL", 10 - filled)]


def test_trades_of_an_unheard_end_are_not_booked_again_when_they_can_be_read() -> None:
    rig, flattener = sent_unheard(4, OrderState.CANCELLED, heal_ms=40_000)
    assert (flattener.state, rig.net("AAA"), rig.sent[1:]) == (S.FLAT, 0, [("AAA", "SELL", 6)])
    assert "trades" in rig.broker.reads[-3:]
    engine = Rig(broker=rig.broker)
    restore((e for e in rig.journals[0].committed if e.kind in RESUME_KINDS), engine.orders, engine.risk)
    engine.orders.fetch_trades(rig.now_ms)
    assert [order.filled_quantity for order in engine.orders.orders.values()] == [4, 6]
