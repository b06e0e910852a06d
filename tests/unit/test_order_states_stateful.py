"""Orders under any order, loss, delay and repetition of the broker's news: each fill counts once, and an end is an end."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.fakes.broker import BookLine, FakeBroker
from tests.fakes.rig import NOW_MS, UNIVERSE, Rig, entry_signal, make_limits
from velox_core.domain.events import EventKind
from velox_core.domain.orders import TERMINAL_STATES, TRANSITIONS, OrderState, Side
from velox_core.ports import BrokerFill, OrderUpdate, SendStatus
from velox_core.risk.layers import Refusal

LOT = 6
ANSWERS = st.sampled_from((SendStatus.ACKNOWLEDGED, SendStatus.ACKNOWLEDGED, SendStatus.REJECTED, FakeBroker.LOST))
PRICES = st.integers(9_000, 11_000)
News = OrderUpdate | BrokerFill


class OrderMachine(RuleBasedStateMachine):
    """One order manager, and a broker whose news arrive in any order, more than once, late, or not at all."""

    def __init__(self) -> None:
        super().__init__()
        self.rig = Rig(make_limits(fixed_lot_size=LOT, max_positions_per_strategy=5, orders_per_second_max=100))
        self.now_ms = NOW_MS
        self.on_the_way: list[News] = []
        self.told: list[News] = []
        self.ended: dict[str, OrderState] = {}

    # -- orders -----------------------------------------------------------------------------------------------------

    @rule(symbol=st.sampled_from(UNIVERSE), side=st.sampled_from(Side), answer=ANSWERS)
    def enter(self, symbol: str, side: Side, answer: SendStatus | str) -> None:
        self.now_ms += 6_000
        signal = entry_signal(symbol, side)
        self.rig.broker.answers.append(answer)
        sent = len(self.rig.broker.placed)
        if symbol in {order.symbol for order in self.rig.orders.live.values()} or self.rig.quantity(symbol):
            assert isinstance(self.rig.ask(signal, self.now_ms), Refusal)
        elif not self.rig.risk.locks.get(symbol):
            self.rig.enter(signal, self.now_ms)
        if len(self.rig.broker.placed) == sent:
            self.rig.broker.answers.clear()

    @precondition(lambda self: self.rig.orders.open_positions())
    @rule(data=st.data(), answer=ANSWERS)
    def leave(self, data: st.DataObject, answer: SendStatus | str) -> None:
        symbol = data.draw(st.sampled_from([p.symbol for p in self.rig.orders.open_positions()]))
        if not any(order.symbol == symbol for order in self.rig.orders.live.values()):
            self.rig.broker.answers.append(answer)
            self.rig.exit_now(symbol, now_ms=self.now_ms)

    # -- the market ---------------------------------------------------------------------------------------------------

    def working(self) -> list[BookLine]:
        return [line for line in self.rig.broker.book.values() if line.state not in TERMINAL_STATES]

    @precondition(lambda self: self.working())
    @rule(data=st.data(), shares=st.integers(1, LOT), price=PRICES, chatty=st.booleans())
    def trade(self, data: st.DataObject, shares: int, price: int, chatty: bool) -> None:
        line = data.draw(st.sampled_from(self.working()))
        self.trade_line(line, shares, price)
        if chatty:
            self.rig.broker.tell(line.broker_order_id, line.state, line.filled)
        self.collect()

    @precondition(lambda self: self.working())
    @rule(data=st.data(), state=st.sampled_from((OrderState.CANCELLED, OrderState.REJECTED)))
    def end(self, data: st.DataObject, state: OrderState) -> None:
        line = data.draw(st.sampled_from(self.working()))
        self.rig.broker.end(line.broker_order_id, state)
        self.collect()

    @precondition(lambda self: self.working())
    @rule(data=st.data(), shares=st.integers(1, LOT - 1), price=PRICES)
    def end_is_told_before_what_was_traded(self, data: st.DataObject, shares: int, price: int) -> None:
        line = data.draw(st.sampled_from(self.working()))
        self.trade_line(line, shares, price)
        self.rig.broker.end(line.broker_order_id, OrderState.CANCELLED)
        *earlier, end = self.rig.broker.news
        self.on_the_way += earlier
        self.tell([end])

    def trade_line(self, line: BookLine, shares: int, price: int) -> None:
        self.rig.broker.fill(line.broker_order_id, min(shares, line.quantity - line.filled), price)

    def collect(self) -> None:
        """Take the broker's news away before the engine hears of it."""
        self.on_the_way += self.rig.broker.news
        self.rig.broker.news = []

    # -- the news -----------------------------------------------------------------------------------------------------

    def tell(self, news: list[News]) -> None:
        self.rig.broker.news = list(news)
        self.told += news
        self.rig.orders.poll(self.now_ms)

    @precondition(lambda self: self.on_the_way)
    @rule(data=st.data())
    def some_news_arrive_in_any_order(self, data: st.DataObject) -> None:
        shuffled = data.draw(st.permutations(self.on_the_way))
        count = data.draw(st.integers(1, len(shuffled)))
        self.on_the_way = shuffled[count:]
        self.tell(shuffled[:count])

    @precondition(lambda self: self.told)
    @rule(data=st.data())
    def old_news_arrive_again(self, data: st.DataObject) -> None:
        old = data.draw(st.lists(st.sampled_from(self.told), min_size=1, max_size=4))
        before = self.books()
        for news in old:
            if isinstance(news, BrokerFill):
                self.rig.orders.apply_fill(news, self.now_ms)
            else:
                self.rig.orders.apply_update(news, self.now_ms)
        repeated_fills = all(isinstance(news, BrokerFill) for news in old)
        assert self.books()[0] == before[0], "a fill counted twice"
        assert not repeated_fills or self.books() == before

    @precondition(lambda self: self.on_the_way)
    @rule(data=st.data())
    def one_piece_of_news_is_lost(self, data: st.DataObject) -> None:
        self.on_the_way.remove(data.draw(st.sampled_from(self.on_the_way)))

    @rule()
    def book_is_read(self) -> None:
        """What was lost or is late is in the book, and is still booked once when it arrives after all."""
        self.rig.orders.fetch_order_ends(self.now_ms)
        lines = {line.tag: line for line in self.rig.broker.book.values()}
        for order_id, order in self.rig.orders.orders.items():
            line = lines.get(order_id)
            if line is not None and order.is_live:
                assert (order.filled_quantity, line.state in TERMINAL_STATES) == (line.filled, False)
        self.compare_with_broker()

    def compare_with_broker(self) -> None:
        theirs = {p.symbol: p.quantity for p in self.rig.broker.positions() if p.quantity}
        assert {p.symbol: p.quantity for p in self.rig.orders.open_positions()} == theirs

    def books(self) -> tuple[object, ...]:
        orders = self.rig.orders
        fills = len(self.rig.journal.bodies(EventKind.FILL))
        positions = {p.symbol: (p.quantity, p.cost_paise, p.realised_paise) for p in orders.positions.values()}
        money = (orders.day_loss.realised_paise, orders.day_loss.charges_paise)
        return (fills, positions, money), {key: order.state for key, order in orders.orders.items()}, self.rig.journal.length

    # -- what always holds --------------------------------------------------------------------------------------------

    @invariant()
    def an_ended_order_stays_as_it_ended(self) -> None:
        for order_id, order in self.rig.orders.orders.items():
            if order_id in self.ended:
                assert order.state is self.ended[order_id], f"{order_id} left {self.ended[order_id]}"
            elif order.state in TERMINAL_STATES:
                self.ended[order_id] = order.state
                line = next((line for line in self.rig.broker.book.values() if line.tag == order_id), None)
                assert line is None or (line.filled == order.filled_quantity and line.state in TERMINAL_STATES), (
                    "ended too early"
                )
        live = {order_id for order_id, order in self.rig.orders.orders.items() if order.is_live}
        assert set(self.rig.orders.live) == live

    @invariant()
    def journal_tells_only_of_transitions_of_the_table(self) -> None:
        states: dict[str, list[OrderState]] = defaultdict(lambda: [OrderState.SUBMITTING])
        for body in self.rig.journal.bodies(EventKind.ORDER):
            states[str(body["client_order_id"])].append(OrderState(str(body["state"])))
        for order_id, path in states.items():
            assert all(after in TRANSITIONS[before] for before, after in pairwise(path)), f"{order_id}: {path}"

    @invariant()
    def each_trade_is_booked_once_and_by_its_own_order(self) -> None:
        bodies = self.rig.journal.bodies(EventKind.FILL)
        trades = {trade.trade_id: trade for trade in self.rig.broker.trade_list}
        booked = [str(body["trade_id"]) for body in bodies]
        assert len(booked) == len(set(booked))
        filled: dict[str, int] = defaultdict(int)
        held: dict[str, int] = defaultdict(int)
        for trade in (trades[trade_id] for trade_id in booked):
            filled[trade.client_order_id] += trade.quantity
            held[trade.symbol] += trade.side.sign * trade.quantity
        assert {order_id: o.filled_quantity for order_id, o in self.rig.orders.orders.items() if o.filled_quantity} == filled
        assert {p.symbol: p.quantity for p in self.rig.orders.positions.values()} == held
        assert all(order.filled_quantity <= order.quantity for order in self.rig.orders.orders.values())

    @invariant()
    def money_is_what_the_booked_trades_make(self) -> None:
        orders = self.rig.orders
        trades = {trade.trade_id: trade for trade in self.rig.broker.trade_list}
        booked = (trades[str(body["trade_id"])] for body in self.rig.journal.bodies(EventKind.FILL))
        cash_paise = -sum(trade.side.sign * trade.quantity * trade.price_paise for trade in booked)
        at_cost = sum(position.cost_paise for position in orders.positions.values())
        assert cash_paise + at_cost == orders.day_loss.realised_paise

    def teardown(self) -> None:
        """In the end everything arrives, and both sides agree."""
        self.tell(self.on_the_way)
        self.on_the_way = []
        self.book_is_read()
        assert self.rig.orders.fill_count == len(self.rig.broker.trade_list)


TestOrders = OrderMachine.TestCase
TestOrders.settings = settings(max_examples=120, stateful_step_count=30, deadline=None, derandomize=True)
