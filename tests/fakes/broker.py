"""A broker whose book is right and whose answers and news are what the test says."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable

from velox_core.domain.errors import BrokerError
from velox_core.domain.orders import TERMINAL_STATES, OrderState, Product, Side
from velox_core.ports import BrokerFill, BrokerOrder, BrokerPosition, Funds, OrderUpdate, SendOutcome, SendStatus
from velox_core.risk.approval import ApprovedOrder


class BookLine:
    """One order at the broker."""

    def __init__(self, broker_order_id: str, tag: str, symbol: str, side: Side, quantity: int, now_ms: int) -> None:
        self.broker_order_id = broker_order_id
        self.tag = tag
        self.symbol = symbol
        self.side = side
        self.quantity = quantity
        self.placed_ms = now_ms
        self.product = Product.MIS
        self.limit_price_paise = 0
        self.filled = 0
        self.state = OrderState.OPEN
        self.reason = ""


class FakeBroker:
    """Acknowledges everything unless scripted, fills nothing by itself, tells what happens through `drain_events`.

    Attributes:
        answers: for the next places: a status, or an exception to raise. An UNKNOWN that reached the book is `LOST`.
        cancel_answers: the same for cancels; ACKNOWLEDGED cancels at once and says so.
        failing: names of reads that raise BrokerError.
        fill_prices: symbol to price at which orders fill at the next drain.
        unseen: symbol to signed shares in the positions that no trade says anything of; `last_prices` are its prices.
        converted: symbol to signed shares that the broker moved from the day's product to delivery.
        fill_quantity_max: the most shares that one drain fills of an order; 0 for all.
        flaky: half of the reads, places and cancels fail, as its numbers say.
        on_place: called with each order before it is answered.
    """

    LOST = "reply lost"
    name = "fake"

    def __init__(self) -> None:
        self.answers: deque[SendStatus | str | Exception] = deque()
        self.cancel_answers: deque[SendStatus] = deque()
        self.failing: set[str] = set()
        self.fill_prices: dict[str, int] = {}
        self.unseen: dict[str, int] = {}
        self.last_prices: dict[str, int] = {}
        self.converted: dict[str, int] = {}
        self.fill_quantity_max = 0
        self.flaky: random.Random | None = None  # half of the calls fail then
        self.on_place: Callable[[ApprovedOrder], None] | None = None
        self.placed: list[ApprovedOrder] = []
        self.place_times: list[int] = []
        self.cancels: list[str] = []
        self.reads: list[str] = []
        self.book: dict[str, BookLine] = {}
        self.trade_list: list[BrokerFill] = []
        self.news: list[OrderUpdate | BrokerFill] = []
        self.now_ms = 0

    # -- the port ---------------------------------------------------------------------------------------------

    def place(self, order: ApprovedOrder, now_ms: int) -> SendOutcome:
        self.now_ms = max(self.now_ms, now_ms)
        if self.on_place is not None:
            self.on_place(order)
        self.placed.append(order)
        self.place_times.append(now_ms)
        answer = self.answers.popleft() if self.answers else SendStatus.ACKNOWLEDGED
        if self._fails():
            answer = SendStatus.UNKNOWN if self._fails() else self.LOST
        if isinstance(answer, Exception):
            raise answer
        if answer is SendStatus.REJECTED:
            return SendOutcome(SendStatus.REJECTED, "", "refused (fake)")
        if answer is SendStatus.UNKNOWN:
            return SendOutcome(SendStatus.UNKNOWN, "", "time-out (fake)")
        line = self._enter(order.client_order_id, order.symbol, order.side, order.quantity, now_ms)
        line.limit_price_paise = order.limit_price_paise
        if answer == self.LOST:
            return SendOutcome(SendStatus.UNKNOWN, "", "reply lost (fake)")
        return SendOutcome(SendStatus.ACKNOWLEDGED, line.broker_order_id)

    def cancel(self, broker_order_id: str, now_ms: int) -> SendOutcome:
        self.cancels.append(broker_order_id)
        answer = self.cancel_answers.popleft() if self.cancel_answers else SendStatus.ACKNOWLEDGED
        line = self.book[broker_order_id]
        if self._fails():
            answer = SendStatus.UNKNOWN
        if answer is not SendStatus.ACKNOWLEDGED or line.state in TERMINAL_STATES:
            status = answer if answer is not SendStatus.ACKNOWLEDGED else SendStatus.REJECTED
            return SendOutcome(status, broker_order_id, "no (fake)")
        self.end(broker_order_id, OrderState.CANCELLED)
        return SendOutcome(SendStatus.ACKNOWLEDGED, broker_order_id)

    def drain_events(self) -> list[OrderUpdate | BrokerFill]:
        for line in self.book.values():
            price = self.fill_prices.get(line.symbol, 0)
            if price and line.state not in TERMINAL_STATES:
                left = line.quantity - line.filled
                self.fill(line.broker_order_id, min(left, self.fill_quantity_max or left), price)
        news, self.news = self.news, []
        return news

    def orders(self) -> list[BrokerOrder]:
        self._read("orders")
        return [
            BrokerOrder(
                broker_order_id=line.broker_order_id,
                tag=line.tag,
                symbol=line.symbol,
                side=line.side,
                quantity=line.quantity,
                filled_quantity=line.filled,
                state=line.state,
                product=line.product,
                limit_price_paise=line.limit_price_paise,
                placed_ms=line.placed_ms,
                reason=line.reason,
            )
            for line in self.book.values()
        ]

    def trades(self) -> list[BrokerFill]:
        self._read("trades")
        return list(self.trade_list)

    def positions(self) -> list[BrokerPosition]:
        self._read("positions")
        held: dict[tuple[str, Product], int] = {(symbol, Product.MIS): quantity for symbol, quantity in self.unseen.items()}
        for trade in self.trade_list:
            key = (trade.symbol, trade.product)
            held[key] = held.get(key, 0) + trade.side.sign * trade.quantity
        for symbol, quantity in self.converted.items():
            held[symbol, Product.MIS] = held.get((symbol, Product.MIS), 0) - quantity
            held[symbol, Product.CNC] = held.get((symbol, Product.CNC), 0) + quantity
        return [
            BrokerPosition(
                symbol=symbol,
                product=product,
                quantity=quantity,
                bought_quantity=0,
                sold_quantity=0,
                bought_paise=0,
                sold_paise=0,
                last_price_paise=self.last_prices.get(symbol, 0),
            )
            for (symbol, product), quantity in held.items()
        ]

    def funds(self) -> Funds:
        self._read("funds")
        return Funds(available_paise=10**9, margin_used_paise=0)

    # -- the test's hands ---------------------------------------------------------------------------------------

    def fill(
        self, broker_order_id: str, quantity: int, price_paise: int, *, told: bool = True, trade_id: str = ""
    ) -> BrokerFill:
        """Trade part of an order; `told` False keeps the news from coming."""
        line = self.book[broker_order_id]
        line.filled += quantity
        line.state = OrderState.FILLED if line.filled >= line.quantity else OrderState.PARTIALLY_FILLED
        fill = BrokerFill(
            self.now_ms,
            trade_id or f"T{len(self.trade_list) + 1}",
            line.tag,
            broker_order_id,
            line.symbol,
            line.side,
            quantity,
            price_paise,
            line.product,
        )
        self.trade_list.append(fill)
        if told:
            self.news.append(fill)
        return fill

    def end(self, broker_order_id: str, state: OrderState, *, told: bool = True, reason: str = "") -> None:
        """End an order."""
        line = self.book[broker_order_id]
        line.state, line.reason = state, reason
        if told:
            self.tell(broker_order_id, state, line.filled, reason)

    def tell(self, broker_order_id: str, state: OrderState, filled: int = 0, reason: str = "", *, tag: str = "") -> None:
        """Send an update, true or not."""
        line = self.book.get(broker_order_id)
        known = tag or (line.tag if line is not None else "")
        self.news.append(OrderUpdate(self.now_ms, known, broker_order_id, state, filled, reason))

    def foreign(
        self,
        symbol: str,
        side: Side,
        quantity: int,
        price_paise: int,
        *,
        product: Product = Product.MIS,
        told: bool = True,
        works: bool = False,
    ) -> str:
        """Place an order by hand in the broker's app and fill it, unless it `works`. Returns its id."""
        line = self._enter("", symbol, side, quantity, self.now_ms)
        line.product = product
        if not works:
            self.fill(line.broker_order_id, quantity, price_paise, told=told)
        return line.broker_order_id

    def id_of(self, number: int) -> str:
        """Return the broker's id of the n-th order it accepted, from 0."""
        return list(self.book)[number]

    def _enter(self, tag: str, symbol: str, side: Side, quantity: int, now_ms: int) -> BookLine:
        line = BookLine(f"B{len(self.book) + 1}", tag, symbol, side, quantity, now_ms)
        self.book[line.broker_order_id] = line
        return line

    def _read(self, what: str) -> None:
        self.reads.append(what)
        if what in self.failing or self._fails():
            raise BrokerError(f"the broker did not answer the read of {what} (fake)")

    def _fails(self) -> bool:
        return self.flaky is not None and self.flaky.random() < 0.5
