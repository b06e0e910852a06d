"""What became of an UNKNOWN order: looked for by its tag in the broker's book, adopted when found, never sent again.

- An UNKNOWN entry is looked for during 120 s of engine time. Not found, it is NOT_PLACED: its claim and the lock on
  its symbol stay for the day, and the tag stays known, so that a late appearance is adopted all the same.
- An UNKNOWN exit is given up, so that it can be replaced, once per symbol and day: after at least 15 s, two complete reads
  of the book without the tag, and an unchanged position; else after 120 s. So does one whose own request still hangs, as it
  may yet arrive: reads count anew from its end.
- A further UNKNOWN exit of the symbol is never replaced: it counts as working until its tag or its trades are found, or until
  the symbol is flat by our books and by the broker's positions. A person is told at once and then each minute.
- While an exit is UNKNOWN whose symbol is flat, no entry is made anywhere: what it may open would have no slot.
- A read that fails proves nothing and is not counted; the next one waits its turn all the same.
- A tag that was given up stays watched for the day, restarts included: what appears late is cancelled, and what it
  traded is booked. What an exit traded beyond its position is closed at once (`OrderManager.overshot`).
- A live order of which nothing was heard for a while is looked up too: a lost update must not hide a fill or an end.
"""

from __future__ import annotations

import logging

from velox_core.domain.orders import TERMINAL_STATES, Order, OrderState
from velox_core.lost_exits import SEARCH_MS_MAX as SEARCH_MS_MAX
from velox_core.lost_exits import LostExits
from velox_core.order_manager import OrderManager
from velox_core.ports import Alerts, BrokerOrder, OrderUpdate, Severity

EXIT_REPLACE_MS_MIN = 15_000
EXIT_READS_MIN = 2
READ_INTERVAL_MS = 5_000
QUIET_MS_MAX = 5_000
WATCH_INTERVAL_MS = 30_000
UNRESOLVED_ALERT_MS = 60_000  # so often a person is told of an exit that is UNKNOWN and not replaced again

_log = logging.getLogger("velox.orders")


class _Search:
    __slots__ = ("is_owed", "next_alert_ms", "position_changed", "position_quantity", "reads_without_tag", "since_ms")

    def __init__(self, since_ms: int, position_quantity: int) -> None:
        self.since_ms = since_ms
        self.next_alert_ms = since_ms
        self.reads_without_tag = 0
        self.is_owed = False  # at the last read our own request for it had not ended
        self.position_quantity = position_quantity
        self.position_changed = False  # at any read, though it may be what it was by now


class OrderRecovery:
    """The searches that are under way.

    Args:
        order_manager: whose orders are searched for and settled, and who reads the broker's book.
        alerts: told when a search begins and when it ends without a find.
        lost: exits that earlier processes lost; one of them in a symbol was that symbol's one replacement.
    """

    def __init__(self, order_manager: OrderManager, alerts: Alerts, lost: LostExits | None = None) -> None:
        self._lost = lost or LostExits()
        self._orders = order_manager
        self._alerts = alerts
        self._searches: dict[str, _Search] = {}
        self._appeared: set[str] = set()
        self._next_read_ms = 0
        self._next_look_ms = 0
        self._doubtful = False  # whether an exit was UNKNOWN at the last step

    @property
    def watching(self) -> bool:
        """Return whether any tag is being looked for."""
        return bool(self._searches) or len(self._orders.found_late) < len(self._orders.not_placed)

    def work(self, now_ms: int) -> None:
        """Take up new UNKNOWN orders and look for those that are due. Quick when there are none."""
        quiet = False
        unknown: list[Order] = []
        for order in self._orders.live.values():
            if order.state is OrderState.UNKNOWN:
                unknown.append(order)
            else:
                quiet = quiet or now_ms - order.updated_ms >= QUIET_MS_MAX
        for order in unknown:
            if order.client_order_id not in self._searches:
                self._begin(order, now_ms)
        if quiet and now_ms >= self._next_look_ms:
            self._next_look_ms = now_ms + READ_INTERVAL_MS
            self._orders.fetch_order_ends(now_ms)
        if self.watching and now_ms >= self._next_read_ms:
            self._next_read_ms = now_ms + (READ_INTERVAL_MS if self._searches else WATCH_INTERVAL_MS)
            self._read(now_ms)
        if unknown or self._doubtful:
            self._note_doubtful(unknown)

    def _note_doubtful(self, unknown: list[Order]) -> None:
        """Have no entry made while an exit is UNKNOWN whose symbol is flat."""
        exits = [order for order in unknown if order.rank is not None and order.state is OrderState.UNKNOWN]
        self._orders.note_doubtful_exits(", ".join(o.client_order_id for o in exits if not self._held(o.symbol)))
        self._doubtful = bool(exits)

    def _begin(self, order: Order, now_ms: int) -> None:
        if not self._searches:
            self._next_read_ms = now_ms + READ_INTERVAL_MS
        self._searches[order.client_order_id] = _Search(now_ms, self._held(order.symbol))
        self._alerts.send(
            Severity.WARNING,
            f"Order {order.client_order_id} is UNKNOWN",
            f"{order.side} {order.quantity} {order.symbol}: the broker's answer was unclear; looking for its tag",
        )

    def _held(self, symbol: str) -> int:
        position = self._orders.positions.get(symbol)
        return position.quantity if position is not None else 0

    def _read(self, now_ms: int) -> None:
        lines = self._orders.read_book(now_ms)
        if lines is None:
            _log.warning("[UNKNOWN] the order book could not be read; looked for again", extra={"engine_ms": now_ms})
            return
        book = {line.tag: line for line in lines if line.tag}
        self._adopt_late(book, now_ms)
        for tag in list(self._searches):
            order, search = self._orders.orders[tag], self._searches[tag]
            if order.state is not OrderState.UNKNOWN:
                del self._searches[tag]
                continue
            line = book.get(tag)
            if line is not None:
                del self._searches[tag]
                self._adopt(line, now_ms)
            else:
                was_owed, search.is_owed = search.is_owed, self._orders.sends.is_owed(tag)
                search.reads_without_tag = 0 if was_owed and not search.is_owed else search.reads_without_tag + 1
                search.position_changed |= self._held(order.symbol) != search.position_quantity
                self._give_up_if_due(order, search, now_ms)

    def _adopt(self, line: BrokerOrder, now_ms: int) -> None:
        _log.info("[UNKNOWN] order %s found in the book: %s", line.tag, line.state.value, extra={"engine_ms": now_ms})
        self._orders.apply_update(
            OrderUpdate(now_ms, line.tag, line.broker_order_id, line.state, line.filled_quantity, line.reason), now_ms
        )
        self._orders.fetch_trades(now_ms)

    def _adopt_late(self, book: dict[str, BrokerOrder], now_ms: int) -> None:
        for tag, order in self._orders.not_placed.items():
            line = book.get(tag)
            if line is None or tag in self._orders.found_late:
                continue
            if tag not in self._appeared:
                self._appeared.add(tag)
                self._alerts.send(
                    Severity.CRITICAL,
                    f"Order {tag} appeared late",
                    f"{order.side} {order.quantity} {order.symbol} was taken for not placed and is in the broker's book: "
                    f"{line.state.value}; what is left of it is cancelled",
                )
            order.broker_order_id = line.broker_order_id
            if line.state not in TERMINAL_STATES:
                self._orders.cancel(order, "it was given up as not placed", now_ms)
            elif order.filled_quantity >= line.filled_quantity:
                self._orders.settle_late(order)

    def _give_up_if_due(self, order: Order, search: _Search, now_ms: int) -> None:
        waited_ms = now_ms - search.since_ms
        if not order.is_entry and self._was_replaced(order.symbol):
            self._watch_unresolved(order, search, now_ms)
            return
        replaceable = (
            not order.is_entry
            and not search.is_owed
            and waited_ms >= EXIT_REPLACE_MS_MIN
            and search.reads_without_tag >= EXIT_READS_MIN
            and not search.position_changed
        )
        if not replaceable and (waited_ms < SEARCH_MS_MAX or search.reads_without_tag < EXIT_READS_MIN):
            return
        self._give_up(order, waited_ms, now_ms)

    def _was_replaced(self, symbol: str) -> bool:
        return bool(self._lost.of(symbol)) or any(
            other.symbol == symbol and not other.is_entry for other in self._orders.not_placed.values()
        )

    def _watch_unresolved(self, order: Order, search: _Search, now_ms: int) -> None:
        """Settle a further UNKNOWN exit once there is nothing left to close; until then keep a person informed."""
        waited_ms = now_ms - search.since_ms
        if waited_ms < EXIT_REPLACE_MS_MIN or search.reads_without_tag < EXIT_READS_MIN:
            return
        theirs, ours = self._orders.read_position(order.symbol, now_ms), self._held(order.symbol)
        if theirs == 0 and ours == 0 and (not search.is_owed or waited_ms >= SEARCH_MS_MAX):
            self._give_up(order, waited_ms, now_ms)
            return
        known = "cannot be read" if theirs is None else f"says {theirs}"
        text = (
            f"exit {order.client_order_id} ({order.side} {order.quantity} {order.symbol}) is UNKNOWN for {waited_ms // 1000} s "
            f"and one exit of {order.symbol} was replaced already, so it is not replaced again: two closes may reverse the "
            f"position. We hold {ours}, the broker {known}"
        )
        self._orders.unresolved_exits[order.client_order_id] = text
        if now_ms >= search.next_alert_ms:
            search.next_alert_ms = now_ms + UNRESOLVED_ALERT_MS
            advice = "If it is still open in the broker's app, close it there: that trade is seen and booked"
            self._alerts.send(Severity.CRITICAL, f"{order.symbol} is not being closed again by us", f"{text}. {advice}.")

    def _give_up(self, order: Order, waited_ms: int, now_ms: int) -> None:
        del self._searches[order.client_order_id]
        self._orders.settle_not_placed(order, now_ms)
        self._alerts.send(
            Severity.CRITICAL,
            f"Order {order.client_order_id} was not placed",
            f"{order.side} {order.quantity} {order.symbol}: not in the broker's book after {waited_ms // 1000} s; "
            "the symbol stays locked for the day",
        )
