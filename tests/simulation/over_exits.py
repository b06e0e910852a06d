"""What exits opened that were given up as not placed and appeared after all: how much, for how long, and who was told.

No client without reduce-only orders can rule it out once an UNKNOWN exit is replaced; it can be bounded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.simulation.verdict import require
from velox_core.domain.events import EventKind
from velox_core.domain.orders import NOT_PLACED, OrderState, Side

if TYPE_CHECKING:
    from tests.simulation.world import World
    from velox_core.engine.assembly import Engine
    from velox_core.ports import BrokerFill

OVER_EXIT_MINUTES_MAX = 3  # a lost update is found by the next look at the book, then an exit is sent, then it fills


class OverExits:
    """The over-exits of one episode. `seen` counts the trades by which an exit opened a position."""

    def __init__(self, world: World, sent_exits: set[str]) -> None:
        self.seen = 0
        self._world = world
        self._sent_exits = sent_exits
        self._given_up: set[str] = set()
        self._open: set[str] = set()  # symbols in which an exit opened what is still open
        self._minutes: dict[str, tuple[int, int]] = {}  # for how long, and the failures when it began

    def given_up(self) -> set[str]:
        """Return the tags of the exits that an engine gave up as not placed, as the journal has it, its buffer included."""
        bodies = self._world.journal.bodies(EventKind.ORDER)
        tags = {str(body["client_order_id"]) for body in bodies if str(body["reason"]).startswith(NOT_PLACED)}
        self._given_up |= tags & self._sent_exits
        return self._given_up

    def symbols(self) -> set[str]:
        """Return the symbols that have a given-up exit in the broker's book."""
        tags = self.given_up()
        return {o.position.symbol for o in self._world.broker.exchange.orders.values() if o.tag in tags}

    def take(self, trade: BrokerFill, after: int) -> None:
        """Take a trade that left a position: what an exit opened is no more than the given-up exits of the symbol."""
        symbol = trade.symbol
        if not after:
            self._open.discard(symbol)
        elif trade.client_order_id in self._sent_exits and (after > 0) is (trade.side is Side.BUY):
            self._open.add(symbol)
            self.seen += 1
            tags = self.given_up()
            orders = self._world.broker.exchange.orders.values()
            given_up = sum(o.quantity for o in orders if o.tag in tags and o.position.symbol == symbol)
            require(
                abs(after) <= given_up or symbol in self._world.hand_ms,
                f"exit {trade.client_order_id} left {after} {symbol}, and {given_up} were given up as not placed",
            )

    def judge(self, engine: Engine, now_ms: int, *, blind: bool) -> None:
        """After a step: what an exit opened is locked, told, and gone again within a while."""
        world, before, self._minutes = self._world, self._minutes, {}
        if now_ms >= world.plan(0).hard_stop_ms:
            return
        held = {p.symbol: p.quantity for p in world.broker.exchange.positions()}
        for symbol in self._open:
            known = engine.order_manager.positions.get(symbol)
            if known is not None and known.quantity == held.get(symbol, 0) and not blind:
                require(symbol in engine.risk_manager.locks, f"an exit opened {symbol}, and it is not locked")
                require(f"{symbol} is locked" in world.alerts.titles(), f"an exit opened {symbol}, and nobody is told")
            failed = self._failures_in(symbol)
            minutes, at_first = before.get(symbol, (0, failed))
            if any(o.symbol == symbol and o.state is OrderState.UNKNOWN for o in engine.order_manager.live.values()):
                minutes = -1  # a crash left its exit UNKNOWN: it is searched for first, and only then replaced
            self._minutes[symbol] = (minutes + 1, at_first)
            require(
                minutes < OVER_EXIT_MINUTES_MAX or failed > at_first or symbol in world.hand_ms,
                f"an exit opened {symbol} {minutes} minutes ago, the broker never failed in it since, and it is still open",
            )

    def _failures_in(self, symbol: str) -> int:
        """Return how often the broker failed in a symbol, refusals included."""
        orders = [o for o in self._world.broker.exchange.orders.values() if o.position.symbol == symbol]
        subjects = {symbol, *(order.broker_order_id for order in orders)}
        injected = sum(fault.subject in subjects for fault in self._world.faults.injected)
        return injected + sum(order.state is OrderState.REJECTED for order in orders)
