"""Any path of prices and fills: the first event at which the loss reaches the limit triggers, and nothing later opens risk."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes.rig import FREE, NOW_MS, UNIVERSE, Rig, entry_signal, make_limits
from tests.simulation.books import Books
from velox_core.domain.charges import ChargeSchedule
from velox_core.domain.halts import HaltKind
from velox_core.domain.orders import OrderIntent, Side
from velox_core.risk.approval import ApprovedOrder

LIMIT_PAISE = 1_500
CHARGED = ChargeSchedule(label="charged", brokerage_flat_paise=150, stt_sell_ppb=1_000_000, stamp_buy_ppb=30_000)
PRICES = st.sampled_from(range(8_000, 12_001, 500))  # so that losses often stand exactly at the limit
EVENTS = st.one_of(
    st.tuples(st.just("enter"), st.sampled_from(UNIVERSE), st.sampled_from(Side), PRICES),
    st.tuples(st.just("price"), st.sampled_from(UNIVERSE), st.just(Side.BUY), PRICES),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(EVENTS, min_size=6, max_size=40), st.sampled_from([FREE, CHARGED]))
def test_first_event_that_reaches_the_limit_triggers_and_nothing_later_opens_risk(
    events: list[tuple[str, str, Side, int]], schedule: ChargeSchedule
) -> None:
    rig = Rig(make_limits(max_daily_loss_paise=LIMIT_PAISE, max_positions_per_strategy=5), schedule=schedule)
    books, marks = Books(schedule), dict.fromkeys(UNIVERSE, 0)
    triggered = False
    for number, event in enumerate(events):
        now_ms = NOW_MS + number * 60_000
        opened = _happen(rig, event, marks, now_ms)
        assert not (triggered and opened), f"event {number} opened risk after the limit was reached"
        for trade in rig.broker.trade_list:
            books.take(
                trade.trade_id,
                trade.client_order_id,
                trade.symbol,
                trade.side,
                trade.quantity,
                trade.price_paise,
                alone=False,
            )
        reaches = books.loss_paise(marks) >= LIMIT_PAISE
        rig.emergency.check(now_ms)
        triggered = triggered or reaches
        assert rig.emergency.active is triggered, f"event {number}: loss {books.loss_paise(marks)}"
    losses = [halt for halt in rig.halt_file.kept if halt.kind is HaltKind.LOSS]
    assert len(losses) == int(triggered)


def _happen(rig: Rig, event: tuple[str, str, Side, int], marks: dict[str, int], now_ms: int) -> bool:
    """Let one thing happen at broker and market. Returns whether an entry left."""
    what, symbol, side, price_paise = event
    rig.broker.now_ms = now_ms
    if what == "price":
        marks[symbol] = price_paise
        rig.day_loss.mark(UNIVERSE.index(symbol), price_paise)
        return False
    answer: Any = rig.ask(entry_signal(symbol, side), now_ms)
    if not isinstance(answer, ApprovedOrder):
        return False
    order = rig.orders.submit(answer, OrderIntent("alpha", "test"), now_ms)
    rig.broker.fill(order.broker_order_id, order.quantity, price_paise)
    rig.orders.poll(now_ms)
    marks[symbol] = price_paise
    return True
