"""The right to close: one process of the account at a time, and only with what others left in the book in view.

- Neither broker has reduce-only orders: the closer's lock is what keeps two closes from becoming a reversal.
- It is taken before the first exit and given back when no goal stands and no exit of ours is live.
- While another process has it, the exit waits and its goal stands; after a bound a person is told. The loop goes on.
- Whoever gets it after another process reads the broker's book first; what others still work there counts as working.
- When the right is lost, exits that have not left are withdrawn, and the lock goes back once no request for one of our
  exits is on its way: within the search for an UNKNOWN order at the latest.
- An engine whose lease another host took over has no closer's lock, and closes nothing: the other one does.
- What earlier processes sent and nobody knows the end of is read from their records after that, and keeps exits back
  (`lost_exits`). A record that cannot be read keeps nothing back; a person is told.
- Where trades cannot be read for long, the order book alone will do for a closer outside the engine: its books are the
  broker's positions, which then count without trades (`adoption`).
- Each tenure is written to the journal before its first intent. No store can refuse it.
"""

from __future__ import annotations

import logging

from velox_core.domain.events import EventKind
from velox_core.domain.orders import TERMINAL_STATES, Side
from velox_core.lost_exits import LostExits
from velox_core.order_manager import OrderManager
from velox_core.ports import Alerts, BrokerOrder, CloserHold, CloserLock, Journal, Severity
from velox_core.risk_manager import RiskManager

CLOSER_WAIT_MS_MAX = 10_000  # so long an exit waits for another closer before a person is told
BOOK_INTERVAL_MS = 1_000
LOST_ALERT_MS = 60_000  # so often a person is told of a symbol in which nothing more is sent

_ELSEWHERE, _FRESH = CloserHold.ELSEWHERE, CloserHold.FRESH  # by a module name: reading one off its class costs 0.09 us
_NOT_WAITING = -1

_log = logging.getLogger("velox.orders")


class Closer:
    """The closer's lock as one engine holds it.

    Args:
        lock: the account's.
        order_manager: reads the book and knows which orders are ours.
        risk_manager: knows the product whose orders count.
        journal: takes the note of a new tenure.
        alerts: told when an exit waits too long.
        name: who closes, for the journal: date, actor and epoch, as in the client order ids.
        lost: what earlier processes sent and nobody knows the end of; None where there are none.
        goes_by_positions: whether its books are the broker's positions, so that it can do without trades where those cannot
            be read. An engine's are what it booked: blind to another closer's trades they are not to be closed.
    """

    def __init__(
        self,
        *,
        lock: CloserLock,
        order_manager: OrderManager,
        risk_manager: RiskManager,
        journal: Journal,
        alerts: Alerts,
        name: str,
        lost: LostExits | None = None,
        goes_by_positions: bool = False,
    ) -> None:
        self._goes_by_positions = goes_by_positions
        self.lost = lost or LostExits()
        self._lost_told_ms: dict[str, int] = {}  # by symbol: when a person was told last
        self._missing_told = ""
        self._lock = lock
        self._orders = order_manager
        self._risk = risk_manager
        self._journal = journal
        self._alerts = alerts
        self._name = name
        self._is_ours = False
        self._others: list[BrokerOrder] | None = []  # working orders that are not ours; None: the book must be read
        self._next_look_ms = 0
        self._waiting_since_ms = _NOT_WAITING
        self._alarmed = False

    def may_send(self, now_ms: int) -> bool:
        """Return whether an exit may leave now: the lock is ours, and the book was read if another process had it."""
        hold = self._lock.take()
        if hold is _ELSEWHERE:
            self._lose()
            return self._waits(f"{self._lock.holder} has the closer's lock", now_ms)
        self._is_ours = True
        if hold is _FRESH:
            self._others = None
            self.lost.recall_again()
            self._journal.append(EventKind.EXIT_PLAN, now_ms, {"closer": self._name})
        if self.lost.take_appeared():
            self._others = None  # it counts as working from now on, and what it traded is booked first
        if self._others is None or self._others:
            self._look(now_ms)
        if self._others is None:
            return self._waits("another process closed before, and the broker's book cannot be read", now_ms)
        self._recall(now_ms)
        self._waiting_since_ms = _NOT_WAITING
        self._alarmed = False
        return True

    @property
    def is_ours(self) -> bool:
        """Return whether the lock was ours at the last attempt to take it."""
        return self._is_ours

    def waits_for_lost(self, symbol: str, now_ms: int) -> bool:
        """Return whether exits of earlier processes keep one of this symbol back; a person is told where that is for good."""
        lost = self.lost
        if not lost.holds_back(symbol, now_ms):
            return False
        if lost.is_final(symbol) and now_ms >= self._lost_told_ms.get(symbol, now_ms):
            self._lost_told_ms[symbol] = now_ms + LOST_ALERT_MS
            text = (
                f"nobody knows what became of the exits {lost.text(symbol)} of earlier processes. Either may still trade, so "
                f"nothing more is sent in {symbol}: two closes may reverse the position"
            )
            _log.error("[EXIT] %s: %s", symbol, text, extra={"engine_ms": now_ms})
            advice = "Look in the broker's app: cancel those orders if they are there, and close the position there"
            self._alerts.send(Severity.CRITICAL, f"{symbol} is not being closed again by us", f"{text}. {advice}.")
        return True

    def look_again(self) -> None:
        """Have the book read before the next exit: what another closer sent may have arrived only now."""
        self._others = None

    def others(self, symbol: str, side: Side) -> list[BrokerOrder]:
        """Return what is not ours and works on this side of a symbol, as far as the book had to be read."""
        return [line for line in self._others or () if line.symbol == symbol and line.side is side]

    def rest(self) -> None:
        """Give the lock back when no exit of ours is live. To be called when no goal stands."""
        if self._is_ours and not any(order.rank is not None for order in self._orders.live.values()):
            self._lock.give_back()
            self._is_ours = False

    def _lose(self) -> None:
        """Have nothing of ours leave any more, and give the lock back, where it is held, once nothing is on its way."""
        sends = self._orders.sends
        sends.withdraw_exits()
        if not any(order.rank is not None and sends.is_owed(order.client_order_id) for order in self._orders.live.values()):
            self._lock.give_back()
            self._is_ours = False

    def _recall(self, now_ms: int) -> None:
        """Read what earlier processes have on record, if that is due, and pass over the numbers of their orders."""
        ids = self.lost.recall(self._orders.orders, now_ms)
        self._risk.continue_after(ids)
        missing = self.lost.missing
        if missing and missing != self._missing_told:
            self._missing_told = missing
            text = f"What earlier processes sent is not all known: {missing}. It is closed by the broker's book alone"
            _log.error("[EXIT] %s", text, extra={"engine_ms": now_ms})
            self._alerts.send(Severity.CRITICAL, "Closing without the record of earlier exits", f"{text}.")

    def _look(self, now_ms: int) -> None:
        if now_ms < self._next_look_ms:
            return
        self._next_look_ms = now_ms + BOOK_INTERVAL_MS
        book = self._orders.read_book(now_ms)
        if book is None and self._goes_by_positions and self._orders.tradeless.lasts(now_ms):
            book = self._orders.read_orders(now_ms)
        if book is None:
            return
        self.lost.note_book(line.tag for line in book)
        known = {line.broker_order_id for line in self._others or ()}
        self._others = [
            line
            for line in book
            if line.state not in TERMINAL_STATES and line.product is self._risk.product and line.tag not in self._orders.live
        ]
        for line in self._others:
            if line.broker_order_id not in known:
                _log.warning("[EXIT] order %s in %s works and is not ours: it counts", line.broker_order_id, line.symbol)

    def _waits(self, why: str, now_ms: int) -> bool:
        """Note that an exit waits, and tell a person once it does for long. Returns False."""
        if self._waiting_since_ms == _NOT_WAITING:
            self._waiting_since_ms = now_ms
            _log.warning("[EXIT] waits: %s", why, extra={"engine_ms": now_ms})
        elif now_ms - self._waiting_since_ms > CLOSER_WAIT_MS_MAX and not self._alarmed:
            self._alarmed = True
            self._alerts.send(
                Severity.CRITICAL,
                "Exits wait for another closer",
                f"For {CLOSER_WAIT_MS_MAX // 1_000} s: {why}. If that process hangs, `velox run --take-over` ends it.",
            )
        return False
