"""Our books brought to the broker's word before everything is closed.

- What is closed is what the broker's positions say: a position that no trade of today explains (carried over, or its trades
  cannot be read) is booked as found, and one that is not there any more is booked as gone. From then on it is like any other.
- A difference counts when it stood still: the same in two looks, longer after any trade, and while no order of ours
  works in the symbol. Positions that lag behind the trades must not make an exit leave twice, nor a position count as gone:
  what was held before the newest trades is believed only when those are older than `broker_reads.LAG_MS_MAX`.
- While the broker says less than we do, no exit of the symbol leaves: it could reverse the position. That is bounded.
- Trades that cannot be read keep nothing open for long: after a bound the positions count without them, and what such a
  trade says later is not booked a second time.
  Exits then leave only in symbols in which nothing of others works: what that trades meanwhile would not be seen.
- Only the day's product is closed, holdings never. Shares that left it for another product were converted: they are named.
- Positions that this system never opened are left alone where the configuration says so, and so are the orders beside them:
  a person's stop protects a person's position.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from typing import Final

from velox_core.domain.errors import BrokerError
from velox_core.domain.orders import TERMINAL_STATES, Product, Side
from velox_core.domain.positions import ADOPTED_TRADE
from velox_core.lost_exits import LostExits
from velox_core.order_manager import OrderManager
from velox_core.ports import Broker, BrokerFill, BrokerOrder, BrokerPosition
from velox_core.risk_manager import RiskManager
from velox_core.unheard_ends import book_unheard, take_what_needs_no_trades, unheard_ends

LOOK_INTERVAL_MS: Final = 1_000
SETTLE_MS: Final = 1_000  # a difference that stood still for so long counts
SETTLE_AFTER_FILL_MS: Final = 5_000  # for so long where anybody's order traded a moment ago
RECENT_FILL_MS: Final = 10_000
DOUBT_MS_MAX: Final = 15_000  # a difference that never stands still counts after this

_OWN_TAG: Final = re.compile(r"\d{6}[EGC]\d{11}")
_log: Final = logging.getLogger("velox.emergency")


class _Doubt:
    """A difference that was seen and does not count yet."""

    __slots__ = ("difference", "first_ms", "own", "since_ms")

    def __init__(self, difference: int, own: int, since_ms: int, first_ms: int) -> None:
        self.difference = difference
        self.own = own
        self.since_ms = since_ms
        self.first_ms = first_ms


class Look:
    """What one look at the broker found: working orders and positions of the day's product, not those left alone."""

    __slots__ = ("positions", "working")

    def __init__(self, working: list[BrokerOrder], positions: list[BrokerPosition]) -> None:
        self.working = working
        self.positions = positions

    @property
    def lines(self) -> list[str]:
        """Return what is open, as text; empty when nothing is."""
        held = [f"{p.quantity} {p.symbol} {p.product.value}" for p in self.positions]
        return held + [f"{o.state.value} order {o.broker_order_id} {o.symbol}" for o in self.working]


class Adoption:
    """The broker's positions as what closes must go by.

    Args:
        broker: asked for its book and positions.
        order_manager, risk_manager: whose books are brought up.
        close_foreign: whether positions are closed that no order of this system traded in.
        marks: whether the broker's last prices are taken as marks, where there is no feed.
        lost: told which tags are in the broker's book.

    Attributes:
        converted: symbol to signed shares that left the day's product for another one.
        kept: symbol to signed shares that are left alone, being nobody's of this system.
        left_alone: symbols in which nobody's order is cancelled.
        unsettled: symbols in which no exit may leave now.
    """

    def __init__(
        self,
        *,
        broker: Broker,
        order_manager: OrderManager,
        risk_manager: RiskManager,
        close_foreign: bool = True,
        marks: bool = False,
        lost: LostExits | None = None,
    ) -> None:
        self.converted: dict[str, int] = {}
        self.kept: dict[str, int] = {}
        self.left_alone: frozenset[str] = frozenset()
        self.unsettled: frozenset[str] = frozenset()
        self.newest: Look | None = None  # None when the newest look failed
        self._broker = broker
        self._orders = order_manager
        self._risk = risk_manager
        self._close_foreign = close_foreign
        self._marks = marks
        self._lost = lost
        self._has_compared = False
        self._beside: list[BrokerOrder] = []  # working orders beside what is kept
        self._doubts: dict[str, _Doubt] = {}
        self._ours: set[str] = set()  # symbols in which an order of this system is in the book
        self._next_look_ms = 0
        self._without_trades: dict[str, int] = {}  # symbol to the time until which its trades are in what was adopted
        order_manager.is_adopted = self._is_adopted

    @property
    def agrees(self) -> bool:
        """Return whether the newest look found our books and the broker's positions alike, with nothing of ours at work."""
        return self.newest is not None and not self._doubts and not self._orders.live

    def working_beside(self, symbol: str) -> list[str]:
        """Return the broker's ids of the orders that work beside a position that is left alone."""
        return [f"order {line.broker_order_id}" for line in self._beside if line.symbol == symbol]

    def look_again(self) -> None:
        """Have the next `look` ask the broker at once."""
        self._next_look_ms = 0

    def look(self, now_ms: int) -> Look | None:
        """Ask the broker, at most once a second, and adopt what stood still.

        Returns what it said, None when it was not asked now or did not answer.
        """
        if now_ms < self._next_look_ms:
            return None
        self._next_look_ms = now_ms + LOOK_INTERVAL_MS
        self.newest = None
        if self._marks and self._orders.tradeless.lasts(now_ms):  # until this look has an answer: nothing else tells of trades
            self.unsettled = frozenset(p.symbol for p in self._orders.open_positions())
        book, tradeless = self._read_book(now_ms)
        if book is None:
            return None
        try:
            positions = self._broker.positions()
        except BrokerError as error:
            _log.error("The broker's book could not be read: %s", error)
            return None
        self._ours.update(line.symbol for line in book if _OWN_TAG.fullmatch(line.tag))
        if self._lost is not None:
            self._lost.note_book(line.tag for line in book)
        if tradeless:
            take_what_needs_no_trades(self._orders, book, now_ms)
        if not tradeless or self._orders.tradeless.lasts(now_ms):
            self._compare(positions, now_ms, book=book if tradeless else (), tradeless=tradeless)
        product = self._risk.product
        working = [line for line in book if line.state not in TERMINAL_STATES and line.product is product]
        if tradeless and self._marks:  # whoever closes from outside cancels them; what they trade meanwhile is not seen
            self.unsettled |= {line.symbol for line in working if line.tag not in self._orders.live}
        self.left_alone = frozenset(self.kept)
        if not self._close_foreign and not self._has_compared:  # what is kept is not known yet
            self.left_alone |= {line.symbol for line in working if not self._is_ours(line.symbol)}
        self._beside = [line for line in working if line.symbol in self.kept]
        self.newest = Look(
            [line for line in working if line.symbol not in self.kept],
            [p for p in positions if p.quantity and p.product is product and p.symbol not in self.kept],
        )
        return self.newest

    def _read_book(self, now_ms: int) -> tuple[list[BrokerOrder] | None, bool]:
        """Return the order book, and whether it had to be read without the trades."""
        book = self._orders.read_book(now_ms)
        if book is not None:
            return book, False
        return self._orders.read_orders(now_ms), True

    def _compare(self, positions: list[BrokerPosition], now_ms: int, *, book: Sequence[BrokerOrder], tradeless: bool) -> None:
        """Compare; `book` is what was read without the trades, so that it may show ends that are not heard of."""
        self._has_compared = True
        product = self._risk.product
        lines = {p.symbol: p for p in positions if p.product is product}
        others = {p.symbol: p.quantity for p in positions if p.product is not product and p.quantity}
        self.converted = {symbol: shares for symbol, shares in self.converted.items() if symbol in others}
        self.kept = {}
        working = {order.symbol for order in self._orders.live.values()}
        own = {p.symbol: p.quantity for p in self._orders.open_positions()}
        unsettled = set()
        for symbol in dict.fromkeys((*lines, *own)):
            line, held = lines.get(symbol), own.get(symbol, 0)
            there = 0 if line is None else line.quantity
            if there and not self._close_foreign and not self._is_ours(symbol):
                self.kept[symbol] = there
            if self._marks and line is not None and line.last_price_paise and held and symbol not in self._risk.unexplained:
                self._orders.count_unexplained(symbol, None, line.last_price_paise)  # marks what we hold, and counts nothing
            ended = unheard_ends(self._orders, book, symbol, there - held) if symbol in working else []
            if there == held or (symbol in working and not ended):
                self._doubts.pop(symbol, None)
            elif self._stands_still(
                symbol, there - held, held, now_ms, is_elsewhere=symbol in others
            ) and self._knows_conversion(symbol, held, there - held, others.get(symbol, 0)):
                del self._doubts[symbol]
                price_paise = self._orders.mark_of(symbol) or (line.last_price_paise if line is not None else 0)
                if ended:
                    book_unheard(self._orders, ended, price_paise, now_ms)
                else:
                    self._adopt(symbol, held, there, price_paise, now_ms)
                if tradeless and not ended:
                    self._without_trades[symbol] = now_ms
            elif held and there * (1 if held > 0 else -1) < abs(held):
                unsettled.add(symbol)
        self.unsettled = frozenset(unsettled)

    def _is_ours(self, symbol: str) -> bool:
        return symbol in self._ours or any(order.symbol == symbol for order in self._orders.orders.values())

    def _stands_still(self, symbol: str, difference: int, own: int, now_ms: int, *, is_elsewhere: bool) -> bool:
        """Return whether a difference may be believed. A new one, or one that moved, waits.

        So does one that is what was held before the newest trades: the positions lag, unless shares stand in another product.
        """
        doubt = self._doubts.get(symbol)
        if doubt is None:
            self._doubts[symbol] = _Doubt(difference, own, now_ms, now_ms)
            return False
        if not is_elsewhere and self._orders.recent_trades.hide(symbol, difference, now_ms):
            return False
        if now_ms - doubt.first_ms >= DOUBT_MS_MAX:
            return True
        if (doubt.difference, doubt.own) != (difference, own):
            self._doubts[symbol] = _Doubt(difference, own, now_ms, doubt.first_ms)
            return False
        traded = now_ms - self._orders.last_trade_ms.get(symbol, -RECENT_FILL_MS) < RECENT_FILL_MS
        return now_ms - doubt.since_ms >= (SETTLE_AFTER_FILL_MS if traded else SETTLE_MS)

    def _knows_conversion(self, symbol: str, held: int, difference: int, elsewhere: int) -> bool:
        """Note shares that left the day's product and stand in another one, beyond what trades of that one explain.

        Returns False when that cannot be told now: without it, what was converted would count as gone.
        """
        if not elsewhere or held * difference >= 0:  # a conversion only takes shares away
            return True
        try:
            trades = self._broker.trades()
        except BrokerError as error:
            _log.warning("Whether %s was converted is not known: %s", symbol, error)
            return False
        product = self._risk.product
        surplus = elsewhere - sum(t.side.sign * t.quantity for t in trades if t.symbol == symbol and t.product is not product)
        converted = min(-difference, surplus) if difference < 0 < surplus else 0
        converted = max(-difference, surplus) if surplus < 0 < difference else converted
        if converted:
            self.converted[symbol] = converted
            _log.critical("%s %s were converted to another product: they are not closed here", converted, symbol)
        return True

    def _adopt(self, symbol: str, held: int, there: int, price_paise: int, now_ms: int) -> None:
        difference = there - held
        counted = self._risk.unexplained.get(symbol)
        if counted is not None:
            if counted.quantity == difference:
                price_paise = abs(counted.cost_paise) // abs(difference)
            self._orders.count_unexplained(symbol, None, price_paise)
        _log.warning("The broker holds %s %s, our books say %s: the broker's word counts", there, symbol, held)
        side = Side.BUY if difference > 0 else Side.SELL
        product: Product = self._risk.product
        before = self._orders.fill_count
        for number in range(1, 1 + self._orders.fill_count + len(self._doubts) + 100):
            trade_id = f"{ADOPTED_TRADE}{symbol}-{held}-{there}-{number}"
            fill = BrokerFill(now_ms, trade_id, "", "", symbol, side, abs(difference), price_paise, product)
            self._orders.apply_fill(fill, now_ms)
            if self._orders.fill_count != before:  # else this id was used earlier in the day
                return

    def _is_adopted(self, fill: BrokerFill) -> bool:
        """Return whether a trade that nobody here made is in a position that was adopted without its trades."""
        until_ms = self._without_trades.get(fill.symbol, 0)
        return fill.ts_ms <= until_ms and not fill.trade_id.startswith(ADOPTED_TRADE)
