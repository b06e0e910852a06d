"""What must hold while an account is flattened from several sides, judged by the broker's own trades and books.

- No exit of anybody turns a position round or opens one: not in any interleaving, whoever died or hung meanwhile.
- An exit leaves only while its sender has the closer's lock. No client order id is sent twice.
- No entry leaves after its engine acknowledged a halt that closes, nor while a ledger that answers holds one.
- An exit without a trace is replaced once, by whichever process, and not before `REPLACE_MS_MIN`. Only what such an exit, late,
  trades beside its replacement may turn a position round, by its quantity at most. One that arrives after its sender's last
  look at the orders, which it then acted on, has left no trace to see. Where a closer could not read what was on record,
  this is not judged: it had to close all the same.
- FLAT is said only when the broker holds nothing and works nothing, and it stays so. NOT_FLAT has a reason and exit code 4.
- At the end every closer has a result, every halt stands in a store, and an engine that starts then makes no entry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.simulation.verdict import require
from velox_core.domain.halts import active_halts
from velox_core.domain.orders import TERMINAL_STATES
from velox_core.flat_proof import FlattenState

if TYPE_CHECKING:
    from tests.simulation.flatten_processes import Process
    from tests.simulation.flatten_world import FlattenWorld
    from velox_core.flat_proof import FlattenResult
    from velox_core.risk.approval import ApprovedOrder

REPLACE_MS_MIN = 5_000  # 15 s of the time at which its sender began that step; calls in it took a while
READS_AFTER_BOOK_MAX = 2  # trades and positions: who reads more than that looks at the orders again before it sends


class FlattenInvariants:
    """The judge of one episode."""

    def __init__(self, world: FlattenWorld) -> None:
        self._world = world
        self._senders: dict[str, str] = {}  # of every order sent
        self._exits: set[str] = set()
        self.over = 0  # exits that traded past their position beside their replacement
        self._unanswered: set[str] = set()  # exits whose answer was lost, or which were lost themselves
        self._sent: dict[str, tuple[str, int, int]] = {}  # exits: symbol, quantity, when they left
        self._may_turn: dict[str, int] = {}  # by symbol: shares of lost exits that were replaced
        self._sent_ms: dict[str, int] = {}  # when each exit left
        self._hand_ms: dict[str, int] = {}  # by symbol: the newest trade of another hand
        self._net: dict[str, int] = {}
        self._judged = 0
        self._acknowledged: set[str] = set()
        self._flat_said: str = ""

    def on_send(self, order: ApprovedOrder, process: Process) -> None:
        """Judge one order before it leaves."""
        world, tag = self._world, order.client_order_id
        require(tag not in self._senders, f"{tag} is sent a second time, by {process.name}")
        require(not process.dead, f"{process.name} is dead and sends {tag}")
        self._senders[tag] = process.name
        if order.rank is not None:
            self._exits.add(tag)
            self._sent_ms[tag] = world.now_ms
            self._judge_replacement(order, process)
            holder = world.holder.holder
            require(holder == process.name, f"exit {tag} of {process.name} is sent while {holder or 'nobody'} has the lock")

    def on_rejected(self, tag: str) -> None:
        """Note that the broker answered that it does not take an exit."""
        self._sent.pop(tag, None)

    def on_lost(self, tag: str) -> None:
        """Note an exit that gets no answer, and arrives late or never."""
        self._unanswered.add(tag)

    def _was_seen(self, tag: str, placed_ms: int, process: Process) -> bool:
        """Return whether a sender knew, or had to know, of an order in the broker's book."""
        acts_on_its_look = process.reads_since <= READS_AFTER_BOOK_MAX
        return not (tag in self._unanswered and acts_on_its_look and placed_ms > process.book_ms)

    def _unseen_orders(self, process: Process) -> list[str]:
        """Return the lost exits that work since a sender's last look, as `open_now` names them."""
        return [
            f"order {order.tag} {order.position.symbol}"
            for order in self._world.broker.exchange.orders.values()
            if not self._was_seen(order.tag, order.placed_ms, process)
        ]

    def _judge_replacement(self, order: ApprovedOrder, process: Process) -> None:
        """Judge an exit that leaves beside others that nobody knows the end of."""
        world, symbol = self._world, order.symbol
        orders = world.broker.exchange.orders.values()
        book = {line.tag for line in orders if self._was_seen(line.tag, line.placed_ms, process)}
        lost = [(tag, quantity, ms) for tag, (s, quantity, ms) in self._sent.items() if s == symbol and tag not in book]
        self._sent[order.client_order_id] = (symbol, order.quantity, world.now_ms)
        together = order.quantity + sum(quantity for _, quantity, _ in lost)
        if together <= abs(self._net.get(symbol, 0)):
            return  # it closes what came to the position since, and replaces nothing
        for tag, quantity, sent_ms in lost:
            self._may_turn[symbol] = self._may_turn.get(symbol, 0) + quantity
            waited_ms = world.now_ms - sent_ms
            require(
                world.forgot or waited_ms >= REPLACE_MS_MIN,
                f"{order.client_order_id} of {process.name} replaces {tag} of {self._senders[tag]} after {waited_ms} ms",
            )
        names = [tag for tag, _, _ in lost]
        require(world.forgot or len(lost) < 2, f"{process.name} sends {order.client_order_id} beside the lost {names}")

    def on_decided(self, order: ApprovedOrder) -> None:
        """Judge an entry that was just approved. One that stands still from then on may leave after a halt that came later."""
        world, tag = self._world, order.client_order_id
        if order.rank is not None:
            return
        require(not self._acknowledged, f"entry {tag} after the engine acknowledged {sorted(self._acknowledged)}")
        halts = [halt.halt_id for halt in world.ledger.truth().halts if halt.closes]
        require(world.outages.ledger or not halts, f"entry {tag} while the ledger holds {halts}")

    def on_acknowledged(self, halt_ids: list[str]) -> None:
        """Note what the engine says that it acts on."""
        self._acknowledged.update(halt_ids)

    def take_trades(self) -> None:
        """Judge the trades that are new: an exit brings its position nearer to zero, and never past it.

        But for one that was on its way when another hand traded: no broker here has reduce-only orders to prevent that.
        """
        trades = self._world.broker.exchange.trades
        for trade in trades[self._judged :]:
            before = self._net.get(trade.symbol, 0)
            self._net[trade.symbol] = after = before + trade.side.sign * trade.quantity
            if not trade.client_order_id:
                self._hand_ms[trade.symbol] = trade.ts_ms
            if trade.client_order_id in self._exits:
                sender = self._senders[trade.client_order_id]
                is_nearer = before * after >= 0 and abs(after) < abs(before)
                self.over += not is_nearer
                was_on_its_way = self._hand_ms.get(trade.symbol, 0) > self._sent_ms[trade.client_order_id]
                require(
                    is_nearer or was_on_its_way or self._world.forgot or abs(after) <= self._may_turn.get(trade.symbol, 0),
                    f"exit {trade.client_order_id} of {sender} made {after} of {before} {trade.symbol}",
                )
            require(
                not self._flat_said or not after or self._world.forgot,
                f"{self._flat_said} said FLAT, and then {trade.client_order_id} made {after} of {before} {trade.symbol}",
            )
        self._judged = len(trades)

    def open_now(self) -> list[str]:
        """Return what the broker holds and works, by its own books."""
        exchange = self._world.broker.exchange
        held = [f"{p.quantity} {p.symbol}" for p in exchange.positions() if p.quantity]
        return held + [f"order {o.tag} {o.position.symbol}" for o in exchange.orders.values() if o.state not in TERMINAL_STATES]

    def on_result(self, process: Process, result: FlattenResult) -> None:
        """Judge what a closer came to, at the moment when it says so.

        One that could not read what was on record, and says so, cannot know of a lost exit that arrives after its look.
        """
        name = process.name
        if result.state is FlattenState.FLAT:
            unseen = [] if not result.not_recalled else self._unseen_orders(process)
            held = [line for line in self.open_now() if line not in unseen]
            require(not held, f"{name} says FLAT, and the broker has {held}")
            self._flat_said = name
            require(result.exit_code == 0, f"{name} is FLAT with exit code {result.exit_code}")
        else:
            require(result.state is FlattenState.NOT_FLAT, f"{name} ended as {result.state}")
            require(bool(result.reason), f"{name} is NOT_FLAT without a reason")
            require(result.exit_code == 4, f"{name} is NOT_FLAT with exit code {result.exit_code}")

    def at_end(self) -> None:
        """Judge what the episode left behind."""
        world = self._world
        require(world.is_over, "the closers did not end")
        for closing in world.closings:
            require(closing.ended, f"{closing.name} never ended")
        if self._flat_said and not world.forgot:
            require(not self.open_now(), f"{self._flat_said} said FLAT, and in the end the broker has {self.open_now()}")
        self._judge_halts()

    def _judge_halts(self) -> None:
        """Halted until a reset: the halts stand, and an engine that starts now refuses entries."""
        world = self._world
        stored = {halt.halt_id for halt in active_halts(world.halt_file.records())}
        stored |= {halt.halt_id for halt in world.ledger.truth().halts}
        for closing in world.closings:
            result = closing.flattener.result()
            if result.state in (FlattenState.FLAT, FlattenState.NOT_FLAT):
                own = closing.has_own_halt
                require(result.halt_id in stored or own, f"{closing.name} ended, and no store holds {result.halt_id}")
        world.outages.journal = world.outages.ledger = world.outages.halt_file = False
        if stored:
            require(bool(world.restarted_halts()), f"{stored} stand, and an engine that starts heeds none of them")
