"""The exit door: what must be closed, worked on until it is.

- An exit is a goal per symbol, not a single order: it is worked at every step until the position is gone.
- First what is left of the entry is cancelled, and its end awaited for a bounded time; then one reduce-only order
  leaves for what is still open. A cancel that is never confirmed delays an exit, it does not prevent it.
- TARGET < STOP < SQUARE_OFF < EMERGENCY: a stronger goal replaces a weaker one. A marketable exit that is younger than
  a bound counts as working, whatever its rank; an older or resting one is cancelled, awaited and replaced. A limit at
  the price band is the best there is: it stays queued.
- Exits that would close more than is open, or the wrong side, are cancelled: together they never reverse a position.
- After the hard stop the broker closes too: nothing is sent without a look at its book that shows no foreign order. So
  too where the journal could not be read at the start: orders of an earlier engine may work unknown to us. Those, being
  no broker's, are cancelled. One that blocks an exit for long is told to a person, once.
- Nothing is sent without the closer's lock, and what another closer left in the book counts as working (`closer`).
- A symbol that stands at its price band has nobody on the other side: one limit at the band is queued there.
- A rejected exit is tried again, a bounded number of times per minute; after two rejections as a marketable LIMIT.
- Each exit waits for its intent to be durable. Where sends leave the loop, one call works `STEP_SECONDS_MAX` at most, so that
  many exits on a slow disk keep no price from being judged; `is_behind` says that goals wait for the next call.
- Nothing here asks the ledger, the journal, the session or the loss limit.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from velox_core.closer import Closer
from velox_core.closing_progress import ExitTally
from velox_core.domain.market.ticks import Instrument
from velox_core.domain.orders import TERMINAL_STATES, ExitRank, Order, OrderIntent, OrderState, OrderType, Side
from velox_core.domain.positions import Position
from velox_core.foreign_orders import cancel_foreign
from velox_core.order_manager import OrderManager
from velox_core.ports import Alerts, Severity
from velox_core.risk.approval import ApprovedOrder
from velox_core.risk.gate import ExitRequest
from velox_core.risk_manager import RiskManager

WORKING_MS_MAX: Final = 90_000  # a marketable exit older than this no longer counts as working
FOREIGN_MS_MAX: Final = 30_000  # so long an exit waits for an order that is not known to us before a person is told
ENTRY_CANCEL_MS_MAX: Final = 5_000  # so long an exit waits for the cancel of what is left of its entry
RETRY_INTERVAL_MS: Final = 1_000
STEP_SECONDS_MAX: Final = 0.025  # monotonic; at least one goal is worked on, the rest at the next step
NEVER_MS: Final = 1 << 60
REJECTIONS_BEFORE_LIMIT = 2
REJECTIONS_BEFORE_ALARM = 5

_BUY: Final = Side.BUY  # by a module name: reading a member off its class costs 0.09 us
_SELL: Final = Side.SELL
_log: Final = logging.getLogger("velox.orders")


class ExitGoal:
    """One symbol that must be closed, why, and how the attempts went."""

    __slots__ = (
        "alarmed", "attempts", "foreign_alarmed", "foreign_since_ms", "last_attempt_ms", "last_order", "rank", "reason",
        "rejections", "waiting_since_ms",
    )  # fmt: skip

    def __init__(self, rank: ExitRank, reason: str) -> None:
        self.rank = rank
        self.reason = reason
        self.attempts = 0
        self.rejections = 0
        self.last_attempt_ms = -RETRY_INTERVAL_MS
        self.waiting_since_ms = -1  # for the cancel of an entry; -1 when it does not wait
        self.foreign_since_ms = -1  # when an order that is not known to us began to block it; -1 when none does
        self.foreign_alarmed = False
        self.last_order: Order | None = None
        self.alarmed = False


class ExitDoor:
    """All exits of one engine.

    Args:
        risk_manager: seals the orders.
        order_manager: sends them and knows positions and live orders.
        instruments: for the tick and freeze quantity of a symbol.
        alerts: told when a position cannot be closed.
        closer: the right to send exits.
        monotonic: seconds that bound a call's work; None works every goal in each call, as inline sends do.

    `hard_stop_ms` is the engine time from which on the broker may square off by itself; the session sets it.
    `orders_unknown` is True where an earlier engine's orders could not be read back. `held_back` are symbols of which the
    broker holds less than our books say, `left_alone` those that are not to be closed with everything else (see `adoption`).
    """

    def __init__(
        self,
        *,
        risk_manager: RiskManager,
        order_manager: OrderManager,
        instruments: dict[str, Instrument],
        alerts: Alerts,
        closer: Closer,
        monotonic: Callable[[], float] | None = None,
    ) -> None:
        self.is_behind = False
        self._monotonic = monotonic
        self.goals: dict[str, ExitGoal] = {}
        self.tally = ExitTally()
        self.hard_stop_ms = NEVER_MS
        self.orders_unknown = False
        self.held_back: frozenset[str] = frozenset()
        self.left_alone: frozenset[str] = frozenset()
        self._risk = risk_manager
        self._orders = order_manager
        self._instruments = instruments
        self._alerts = alerts
        self._closer = closer

    def take_up(self) -> None:
        """Go on with the exits that an earlier process of this run left live."""
        for order in list(self._orders.live.values()):
            if order.rank is not None:
                self.want(order.symbol, order.rank, order.reason)

    def want(self, symbol: str, rank: ExitRank, reason: str) -> None:
        """Ask for a symbol to be closed. A weaker or equal goal than the standing one changes nothing."""
        goal = self.goals.get(symbol)
        if goal is None:
            self.goals[symbol] = ExitGoal(rank, reason)
        elif rank > goal.rank:
            goal.rank = rank
            goal.reason = reason

    def want_all(self, rank: ExitRank, reason: str) -> None:
        """Ask for everything that is held or on its way in to be closed."""
        for position in self._orders.open_positions():
            if position.symbol not in self.left_alone:
                self.want(position.symbol, rank, reason)
        for order in list(self._orders.live.values()):
            if order.is_entry:
                self.want(order.symbol, rank, reason)

    def work(self, now_ms: int) -> None:
        """Take every goal one step further, as far as the time for it allows. Quick when there are none."""
        monotonic = self._monotonic
        until = 0.0 if monotonic is None else monotonic() + STEP_SECONDS_MAX
        self.is_behind = False
        for symbol in list(self.goals):
            if self._work_one(symbol, self.goals[symbol], now_ms):
                del self.goals[symbol]
            elif monotonic is not None:
                self.goals[symbol] = self.goals.pop(symbol)  # behind those that had no turn yet
            if monotonic is not None and monotonic() >= until:
                self.is_behind = bool(self.goals)
                break
        if not self.goals:
            self._closer.rest()

    def _work_one(self, symbol: str, goal: ExitGoal, now_ms: int) -> bool:
        """Return whether the goal is reached."""
        entries = self._orders.live_orders(symbol, entries=True) if self._orders.live else []
        if entries and self._awaits_entries(entries, goal, now_ms):
            return False
        working_quantity, working_rank, blocked = self._working(symbol, goal, now_ms)
        position = self._orders.positions.get(symbol)
        if position is None or not position.quantity:
            return not blocked and not any(entry.is_live for entry in entries)
        if blocked or now_ms - goal.last_attempt_ms < RETRY_INTERVAL_MS or symbol in self.held_back:
            return False
        if not self._closer.may_send(now_ms) or self._closer.waits_for_lost(symbol, now_ms):
            return False
        if (self.orders_unknown or now_ms >= self.hard_stop_ms) and self._foreign_order_works(symbol, goal, now_ms):
            return False
        others_quantity = self._others_work(position, goal, now_ms) if position.quantity else None
        if others_quantity is not None:
            self._send(position, goal, working_quantity + others_quantity, working_rank, now_ms)
        return False

    def _awaits_entries(self, entries: list[Order], goal: ExitGoal, now_ms: int) -> bool:
        """Cancel what is left of the entries. Returns whether the exit still waits for that."""
        for entry in entries:
            if entry.state is not OrderState.UNKNOWN:
                self._orders.cancel(entry, goal.reason, now_ms)
        self._orders.poll(now_ms)
        if not any(entry.is_live for entry in entries):
            goal.waiting_since_ms = -1
            return False
        if goal.waiting_since_ms < 0:
            goal.waiting_since_ms = now_ms
        return now_ms - goal.waiting_since_ms < ENTRY_CANCEL_MS_MAX

    def _foreign_order_works(self, symbol: str, goal: ExitGoal, now_ms: int) -> bool:
        """Return whether somebody else may be closing the symbol now. A book that cannot be read may hide it."""
        book = self._orders.read_book(now_ms)
        if book is not None and not any(
            line.symbol == symbol and line.tag not in self._orders.orders and line.state not in TERMINAL_STATES for line in book
        ):
            goal.foreign_since_ms = -1
            return False
        goal.last_attempt_ms = now_ms
        self._tell_if_blocked(symbol, goal, now_ms)
        _log.warning("[EXIT] %s: not sent now, an order that is not known to us may be closing it", symbol)
        if self.orders_unknown and now_ms < self.hard_stop_ms:
            cancel_foreign(self._orders, now_ms, left_alone=self.left_alone)
        return True

    def _tell_if_blocked(self, symbol: str, goal: ExitGoal, now_ms: int) -> None:
        """Note that an unknown order may be closing the symbol, and tell a person once when that lasts."""
        if goal.foreign_since_ms < 0:
            goal.foreign_since_ms = now_ms
        elif now_ms - goal.foreign_since_ms >= FOREIGN_MS_MAX and not goal.foreign_alarmed:
            goal.foreign_alarmed = True
            self._alerts.send(
                Severity.CRITICAL,
                f"{symbol} is not being closed by us",
                f"For {FOREIGN_MS_MAX // 1_000} s an order that is not known to us, or an order book that cannot be read, "
                "has kept our exit back. Look in the broker's app; cancel that order or close the position there.",
            )

    def _others_work(self, position: Position, goal: ExitGoal, now_ms: int) -> int | None:
        """Return the shares that exits of another closer still work, None while one of them must be cancelled first."""
        quantity = 0
        closing_side = _SELL if position.quantity > 0 else _BUY
        for line in self._closer.others(position.symbol, closing_side):
            quantity += line.quantity - line.filled_quantity
            if line.limit_price_paise or now_ms - line.placed_ms > WORKING_MS_MAX or quantity > abs(position.quantity):
                goal.last_attempt_ms = now_ms
                cancel_foreign(self._orders, now_ms, position.symbol)
                return None
        return quantity

    def _working(self, symbol: str, goal: ExitGoal, now_ms: int) -> tuple[int, ExitRank | None, bool]:
        """Return the quantity and strongest rank of exits that count as working, and whether a cancel is awaited."""
        quantity, blocked = 0, False
        strongest: ExitRank | None = None
        if not self._orders.live:
            return quantity, strongest, blocked
        for order in self._orders.live_orders(symbol, entries=False):
            position = self._orders.positions.get(symbol)
            closable = 0 if position is None else -position.quantity * order.side.sign
            if quantity + order.open_quantity <= closable and self._counts_as_working(order, goal, now_ms):
                quantity += order.open_quantity
                if strongest is None or (order.rank is not None and order.rank > strongest):
                    strongest = order.rank
            else:
                self._orders.cancel(order, f"replaced by {goal.rank.name}", now_ms)
                self._orders.poll(now_ms)
                blocked = blocked or order.is_live
        return quantity, strongest, blocked

    def _counts_as_working(self, order: Order, goal: ExitGoal, now_ms: int) -> bool:
        if order.state is OrderState.UNKNOWN or order.state is OrderState.SUBMITTING:
            return True  # it may be in the market: only order recovery decides that it is not
        if order.order_type is OrderType.LIMIT:
            if order.rank is not None and goal.rank > order.rank:
                return False
            mark_paise = self._orders.mark_of(order.symbol)
            if mark_paise and (order.limit_price_paise - mark_paise) * order.side.sign < 0:
                return False  # the price left it behind: it rests
            if self._queues_at_band(order):
                return True  # nothing trades beyond the band, and a new order would stand at the end of the queue
        return now_ms - order.created_ms <= WORKING_MS_MAX

    def _queues_at_band(self, order: Order) -> bool:
        instrument = self._instruments.get(order.symbol)
        if instrument is None:
            return False
        band_paise = instrument.upper_band_paise if order.side is _BUY else instrument.lower_band_paise
        return band_paise > 0 and order.limit_price_paise == band_paise

    def _send(
        self, position: Position, goal: ExitGoal, working_quantity: int, working_rank: ExitRank | None, now_ms: int
    ) -> None:
        if goal.last_order is not None and goal.last_order.state is OrderState.REJECTED:
            self._rejected(goal.last_order, goal)
            goal.last_order = None
        side = _SELL if position.quantity > 0 else _BUY
        instrument = self._instruments.get(position.symbol)
        open_quantity = abs(position.quantity)
        if instrument is not None:
            open_quantity = min(open_quantity, working_quantity + instrument.freeze_quantity)
        approved = self._risk.request_exit(
            ExitRequest(
                strategy_id=position.strategy_id,
                symbol=position.symbol,
                side=side,
                open_quantity=open_quantity,
                working_quantity=working_quantity,
                working_rank=working_rank,
                rank=goal.rank,
                reason=goal.reason,
                limit_price_paise=self._limit_price(position, side, goal, instrument),
            ),
            now_ms,
        )
        if not isinstance(approved, ApprovedOrder):
            return
        goal.attempts += 1
        goal.last_attempt_ms = now_ms
        goal.last_order = self._orders.submit(approved, OrderIntent(position.strategy_id, goal.reason), now_ms)
        self.tally.sent(goal.last_order, now_ms)

    def _limit_price(self, position: Position, side: Side, goal: ExitGoal, instrument: Instrument | None) -> int:
        """Return 0 for MARKET; a limit within protection and band after rejections, at the band for a locked symbol."""
        mark = self._orders.mark_of(position.symbol)
        if instrument is None or mark <= 0:
            return 0
        band_paise = instrument.upper_band_paise if side is _BUY else instrument.lower_band_paise
        if band_paise and (mark - band_paise) * side.sign >= 0:
            return band_paise  # nobody is on the other side: queued once, not sent again and again
        if goal.rejections < REJECTIONS_BEFORE_LIMIT:
            return 0
        margin = mark * self._risk.limits.protection_bps // 10_000
        if side is Side.BUY:
            price = instrument.round_to_tick(mark + margin, up=True)
            return min(price, instrument.upper_band_paise) if instrument.upper_band_paise else price
        return max(instrument.round_to_tick(mark - margin, up=False), instrument.lower_band_paise, instrument.tick_paise)

    def _rejected(self, order: Order, goal: ExitGoal) -> None:
        goal.rejections += 1
        _log.error("[EXIT] %s %s: exit rejected, attempt %s", order.symbol, order.client_order_id, goal.attempts)
        if goal.rejections >= REJECTIONS_BEFORE_ALARM and not goal.alarmed:
            goal.alarmed = True
            self._alerts.send(
                Severity.CRITICAL,
                f"{order.symbol} cannot be closed",
                f"{goal.rejections} exits were rejected; the position is still open. Close it in the broker's app "
                "if it does not close by itself.",
            )
