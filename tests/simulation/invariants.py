"""What must hold in every episode, judged by the broker's own books (`SimulatedExchange`), never by the engine's word.

At every send:
- no client order id is sent twice, and its intent is durable; only an exit may leave while the journal is down;
- an entry is exactly the fixed lot, within the position size at its protected price, in a symbol that nobody holds or is
  entering, within the limit of the account and that of its strategy; not of a disabled strategy; not on a halt that any
  of the three stores holds or ever held and no clear ended in all three (a ledger that lost its content has lost its halts
  too); a LOSS halt is never cleared; not where the loss of
  the day with the entry's own charges reaches the limit;
- no tag bears the epoch of an earlier engine; no exit leaves while another closer has the lock;
- an exit closes what is open, and all working exits together never more, those that were given up as not placed (UNKNOWN,
  and replaced once) left out: nothing else of ours reverses a position. Given-up exits hold no slot.

After every step of an engine:
- its loss of the day is the one made from scratch (`books`), at marks that are the newest closes or fill prices;
- a loss that reached the limit has a halt after the next step at the latest; one that only the broker's trades show,
  because the news is late, has one after `NEWS_MINUTES_MAX`;
- what is to be closed (a goal at the exit door, a halt that closes, after square-off time) and has no exit working at
  the broker has had an exit sent within `EXIT_MINUTES_MAX`, or within `NEWS_MINUTES_MAX` while the engine's news of the
  symbol is late, an exit of it is UNKNOWN, or the engine (blind at its start, or after another closer) first needs a look at
  the broker's book. A minute in which it needs that look and the broker fails it does not count (design, section 6: an
  UNKNOWN exit is replaced after two complete reads; section 7: nothing is sent without a read), nor does one in which
  another closer has the lock: that is told after `WAIT_MINUTES_MAX`. A second UNKNOWN exit of a symbol is never replaced: that
  is told. After the hard stop the broker closes too, and this
  no longer holds;
- a ledger that is trusted has the positions, the realised P&L and the charges of the engine's books;
- an exit that traded past its position did so in a symbol that has a given-up exit, by no more than the quantity of those;
  once the engine booked it the symbol is locked and an alert says so; before the hard stop it is closed within
  `OVER_EXIT_MINUTES_MAX` (`over_exits`), unless the broker failed in it meanwhile or its exit is UNKNOWN;
- what one engine holds for `NOT_FLAT_MINUTES` after a LOSS halt is in an alert that says NOT FLAT; it holds nothing for
  longer than `FLAT_MINUTES_MAX`, unless the broker failed (an injected fault, a refused order, a price beyond protection).

At the end:
- the account is flat, or the alert says that it is not; a given-up exit may trade after its engine's last look;
- with the journal up: its fills are the broker's trades, each charged to the paisa; realised P&L and charges in the
  engine's memory are those of the trades, crashes or not; every tag at the broker has its intent, but for exits that left
  while the journal was down and whose engine then died; with the ledger up: every claim left is of an order that is live,
  was given up as NOT_PLACED, or never left.

Not judged: a symbol in the `HAND_MINUTES` after somebody traded it in the broker's app, as to limits and over-exit (the
news may be under way); money of an engine that could not read the journal at its start (it only closes), and what it
wrote of realised P&L there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.simulation.books import Books
from tests.simulation.market import MINUTES, OPEN_MS
from tests.simulation.over_exits import OverExits
from tests.simulation.troubles import OTHER_CLOSERS_TAG
from tests.simulation.verdict import require
from velox_core.brokers.faults import FaultKind
from velox_core.domain.events import Body, EventKind
from velox_core.domain.halts import HaltKind, HaltRecord, active_halts
from velox_core.domain.orders import TERMINAL_STATES, OrderState, Side
from velox_core.domain.time import MS_PER_MINUTE

if TYPE_CHECKING:
    from tests.simulation.world import World
    from velox_core.brokers.simulated_orders import SimulatedOrder
    from velox_core.engine.assembly import Engine
    from velox_core.engine.session import SessionResult
    from velox_core.risk.approval import ApprovedOrder

EXIT_MINUTES_MAX = 1
NEWS_MINUTES_MAX = 6
NOT_FLAT_MINUTES = 3
FLAT_MINUTES_MAX = 5
HAND_MINUTES = 5
WAIT_MINUTES_MAX = 3
TAG_PREFIX = len("240115E0001")  # date, actor, epoch


class Invariants:
    """The judge of one episode. The world calls it at each start, send and step, and at the end."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._sent_entries: set[str] = set()
        self._sent_exits: set[str] = set()
        self._lost_intents: set[str] = set()
        self._latched: set[str] = set()
        self._prefixes: set[str] = set()  # of the tags: date, actor, epoch
        self._old_prefixes: set[str] = set()
        self._loss_halted = False
        self._alerts_before_loss = 0
        self._faults_before = 0
        self._faults_last_step = 0
        self._truth = Books(world.schedule)  # of the broker's trades
        self._late_breaches = 0
        self.over_exits = OverExits(world, self._sent_exits)
        self._ever_blind = False
        self._start(blind=False)

    def _start(self, *, blind: bool) -> None:
        self._blind = blind
        self._ever_blind = self._ever_blind or blind
        self._books = Books(self._world.schedule)  # of the fills in the journal, the buffer included
        self._taken = 0
        self._fill_price: dict[str, int] = {}
        self._stepped = False
        self._breached = False
        self._idle: dict[str, int] = {}
        self._exits_now: set[str] = set()
        self._booked_now: set[str] = set()
        self._judged_ms = 0
        self._held_since_ms = 0
        self._reads_failed = len(self._world.faults.injected)
        self._waits = 0

    # -- an engine starts and dies ----------------------------------------------------------------------------

    def on_start(self) -> None:
        """Begin with a new engine process."""
        self._old_prefixes |= self._prefixes
        self._start(blind=self._world.journal.is_unreadable)

    def on_crash(self) -> None:
        """Note what is lost with the process: on a full disk the emergency file takes nothing either."""
        self.over_exits.given_up()
        journal = self._world.journal
        self._lost_intents |= {str(b["client_order_id"]) for b in journal.buffered(EventKind.INTENT)} - journal.filed

    def on_ledger_lost(self) -> None:
        """Forget halts that only the ledger had."""
        self._latched.clear()
        self._note_halts()

    def _note_halts(self) -> None:
        world = self._world
        halts = [*active_halts(world.halt_file.records()), *world.ledger.truth().halts]
        self._latched.update(halt.halt_id for halt in halts)
        lost = len(world.journal.buffered(EventKind.HALT))
        durable = world.journal.bodies(EventKind.HALT)
        self._latched.update(str(body["halt_id"]) for body in durable[: len(durable) - lost])
        if not self._loss_halted and any(HaltKind.LOSS.value in halt_id for halt_id in self._latched):
            self._loss_halted = True
            self._alerts_before_loss = len(world.alerts.sent)

    # -- at every send ----------------------------------------------------------------------------------------

    def on_send(self, order: ApprovedOrder) -> None:
        """Judge one order before the broker has it."""
        world, tag = self._world, order.client_order_id
        require(tag not in self._sent_entries and tag not in self._sent_exits, f"{tag} is sent a second time")
        journal, is_full = world.journal, world.outages.journal_full
        durable = tag in journal.intents or (order.rank is not None and (tag in journal.filed or is_full))
        require(durable, f"{tag} is sent without a durable intent")
        require(tag[:TAG_PREFIX] not in self._old_prefixes, f"{tag} bears the epoch of an earlier engine")
        self._prefixes.add(tag[:TAG_PREFIX])
        live = [o for o in world.broker.exchange.orders.values() if o.state not in TERMINAL_STATES]
        held = self.held()
        if order.rank is None:
            self._judge_entry(order, held, live)
            self._sent_entries.add(tag)
            return
        self._sent_exits.add(tag)
        self._exits_now.add(order.symbol)
        require(
            world.closer.holder == world.engine_name, f"exit {tag} is sent while {world.closer.holder} has the closer's lock"
        )
        world.closer.look_is_due = False
        if not self._by_hand(order.symbol):
            self._judge_exit(order, held.get(order.symbol, 0), live)

    def held(self) -> dict[str, int]:
        """Return the broker's net positions by symbol, open ones only."""
        return {p.symbol: p.quantity for p in self._world.broker.exchange.positions() if p.quantity}

    def _by_hand(self, symbol: str) -> bool:
        traded_ms = self._world.hand_ms.get(symbol)
        return traded_ms is not None and self._world.clock.now_ms() - traded_ms <= HAND_MINUTES * MS_PER_MINUTE

    def _judge_exit(self, order: ApprovedOrder, open_quantity: int, live: list[SimulatedOrder]) -> None:
        given_up = self.over_exits.given_up()
        working = sum(
            o.quantity - o.filled_quantity
            for o in live
            if o.position.symbol == order.symbol and o.is_buy is (order.side is Side.BUY) and o.tag not in given_up
        )
        closes = order.side is (Side.SELL if open_quantity > 0 else Side.BUY)
        require(
            closes and working + order.quantity <= abs(open_quantity),
            f"exit {order.client_order_id} of {order.quantity} {order.symbol} on a position of {open_quantity} "
            f"with {working} working",
        )

    def _judge_entry(self, order: ApprovedOrder, held: dict[str, int], live: list[SimulatedOrder]) -> None:
        world, symbol, tag = self._world, order.symbol, order.client_order_id
        limits = world.limits
        require(order.quantity == limits.fixed_lot_size, f"entry {tag} of {order.quantity} shares is not the lot")
        worst = self._close(symbol) * (10_000 + limits.protection_bps) // 10_000
        require(order.quantity * worst <= limits.max_position_size_paise, f"entry {tag} is above the position size")
        free = symbol not in held or self._by_hand(symbol)
        require(free, f"entry {tag} in {symbol}, which is held ({held.get(symbol)})")
        require(all(symbol != o.position.symbol for o in live), f"entry {tag} in {symbol}, which has a live order")
        given_up = self.over_exits.given_up()
        taken = {s for s in held if not self._by_hand(s)} | {o.position.symbol for o in live if o.tag not in given_up}
        require(
            len(taken) < limits.max_total_positions,
            f"entry {tag} would be position {len(taken) + 1} of {limits.max_total_positions}",
        )
        strategy = world.journal.intents[tag]
        owners = self._owners()
        own = {s for s in held if owners.get(s) == strategy and not self._by_hand(s)}
        own |= {o.position.symbol for o in live if o.tag in self._sent_entries and world.journal.intents[o.tag] == strategy}
        require(
            len(own) < limits.max_positions_per_strategy,
            f"entry {tag} would be position {len(own) + 1} of {limits.max_positions_per_strategy} of strategy {strategy}",
        )
        disabled = [str(body["strategy"]) for body in world.journal.bodies(EventKind.STRATEGY_DISABLED)]
        require(strategy not in disabled, f"entry {tag} of strategy {strategy}, which is disabled for the day")
        self._judge_entry_loss(order)
        self._note_halts()
        require(not self._halted(), f"entry {tag} while a halt is latched")

    def _judge_entry_loss(self, order: ApprovedOrder) -> None:
        engine = self._world.engine
        if engine is None or self._blind:
            return
        self._take_news(engine)
        value = order.quantity * self._close(order.symbol)
        cost = sum(self._world.schedule.breakdown(side, value).total for side in Side)
        loss = self._books.loss_paise(self._marks(engine)) + cost
        limit = self._world.limits.loss_limit_paise
        require(loss < limit, f"entry {order.client_order_id} at a loss of {loss} with its charges, the limit is {limit}")

    def _marks(self, engine: Engine) -> dict[str, int]:
        held = engine.order_manager.day_loss.open_marks
        return {self._world.universe[column]: mark.mark_paise for column, mark in held.items()}

    def _owners(self) -> dict[str, str]:
        """Return by symbol whose order opened, or turned round, the broker's position."""
        shares: dict[str, int] = {}
        owners: dict[str, str] = {}
        for trade in self._world.broker.exchange.trades:
            before = shares.get(trade.symbol, 0)
            shares[trade.symbol] = after = before + trade.side.sign * trade.quantity
            if after and (not before or (before > 0) != (after > 0)):
                owners[trade.symbol] = self._world.journal.intents.get(trade.client_order_id, "")
        return owners

    def _close(self, symbol: str) -> int:
        """Return the newest close of a symbol, 0 before the first."""
        column, newest = self._world.universe.index(symbol), self._minute()
        return next((row.closes[column] for row in reversed(self._world.rows[:newest]) if row.closes[column]), 0)

    def _minute(self) -> int:
        """Return how many minutes the engines have been shown."""
        return min((self._world.clock.now_ms() - OPEN_MS) // MS_PER_MINUTE, MINUTES)

    # -- after every step -------------------------------------------------------------------------------------

    def on_step(self, engine: Engine) -> None:
        """Judge what a step left behind. The first call of an engine comes before its first step."""
        now_ms = self._world.clock.now_ms()
        self._note_halts()
        self._take_news(engine)
        if self._stepped:
            self._judge_loss(engine)
            if now_ms > self._judged_ms:
                self._judge_late_breach()
                self._judge_wait()
                self._judge_ledger(engine)
                self._judge_exits(engine, now_ms)
                self.over_exits.judge(engine, now_ms, blind=self._blind)
                self._judge_flat_after_loss(engine, now_ms)
        if now_ms > self._judged_ms and (self._stepped or self._minute() < MINUTES):
            self._booked_now.clear()  # a fill's price is the newest until the next close; after the data there is none
        self._stepped = True
        self._judged_ms = now_ms
        self._exits_now.clear()

    def _take_news(self, engine: Engine) -> None:
        """Bring both books up to now."""
        fills = self._world.journal.bodies(EventKind.FILL)
        for body in fills[self._taken :]:
            symbol = str(body["symbol"])
            self._booked_now.add(symbol)
            self._fill_price[symbol] = _number(body, "price")
            _take_fill(self._books, body, self._world.journal.known_intents)
        self._taken = len(fills)
        for trade in self._world.broker.exchange.trades[len(self._truth.charged) :]:
            alone = trade.client_order_id not in engine.order_manager.orders
            before = self._truth.shares.get(trade.symbol, 0)
            self.over_exits.take(trade, before + trade.side.sign * trade.quantity)
            self._truth.take(
                trade.trade_id, trade.client_order_id, trade.symbol, trade.side, trade.quantity, trade.price_paise, alone=alone
            )

    def _judge_loss(self, engine: Engine) -> None:
        """The engine's loss is the one from scratch, and at the limit there is a halt after the next step."""
        if self._blind:
            return
        loss = engine.order_manager.day_loss
        marks = self._marks(engine)
        for symbol, mark in marks.items():
            column = self._world.universe.index(symbol)
            newest = self._world.rows[self._minute() - 1].closes[column] if self._minute() else 0
            allowed = {newest or self._close(symbol)}
            if not newest or symbol in self._booked_now:
                allowed.add(self._fill_price[symbol])
            require(mark in allowed, f"{symbol} is marked {mark}, the newest prices are {allowed}")
        require(
            marks.keys() == {s for s, shares in self._books.shares.items() if shares},
            f"marks of {sorted(marks)} for {self._books.shares}",
        )
        ours = self._books.loss_paise(marks)
        require(loss.loss_paise == ours, f"the loss of the day is {ours}, the engine says {loss.loss_paise}")
        reached = ours >= self._world.limits.loss_limit_paise
        require(
            not (reached and self._breached) or self._halted(),
            f"a loss of {ours} at a limit of {self._world.limits.loss_limit_paise}, and no halt",
        )
        self._breached = reached and not self._halted()

    def _halted(self) -> bool:
        latched = self._latched.union(str(body["halt_id"]) for body in self._world.journal.bodies(EventKind.HALT))
        return bool(latched - self._cleared(latched))

    def _cleared(self, latched: set[str]) -> set[str]:
        """Return those of some halts that have a clear record in file and journal and are not in the ledger."""
        bodies = self._world.journal.bodies(EventKind.HALT_CLEARED)
        if not bodies:
            return set()
        loss = [str(body["clears"]) for body in bodies if HaltKind.LOSS.value in str(body["clears"])]
        require(not loss, f"the LOSS halts {loss} are cleared on their own date")
        in_file = {record.clears for record in self._world.halt_file.records()}
        in_ledger = {halt.halt_id for halt in self._world.ledger.truth().halts}
        return {str(body["clears"]) for body in bodies} & in_file & latched - in_ledger

    def _judge_late_breach(self) -> None:
        loss = self._truth.loss_paise({s: self._close(s) for s, shares in self._truth.shares.items() if shares})
        reached = loss >= self._world.limits.loss_limit_paise and not self._halted()
        self._late_breaches = self._late_breaches + 1 if reached else 0
        require(
            self._late_breaches <= NEWS_MINUTES_MAX,
            f"a loss of {loss} by the broker's trades for {self._late_breaches} minutes, and no halt",
        )

    def _judge_exits(self, engine: Engine, now_ms: int) -> None:
        """What is to be closed has an exit sent."""
        plan = self._world.plan(0)
        idle, self._idle = self._idle, {}
        if now_ms >= plan.hard_stop_ms:
            return
        halts = [HaltRecord.from_body(dict(body)) for body in engine.emergency.get_risk_status()["halts"]]
        halts += active_halts(self._world.halt_file.records())
        all_of_it = any(halt.closes for halt in halts) or now_ms >= plan.flat_by_ms
        look_failed = self._look_failed()
        if self._world.closer.holder not in ("", self._world.engine_name):
            self._idle = idle  # another closer has the lock: nothing can leave
            return
        orders = engine.order_manager
        for symbol, quantity in self.held().items():
            works = any(o.position.symbol == symbol and o.is_buy is (quantity < 0) for o in self._world.broker.exchange.working)
            if works or symbol in self._exits_now or not (all_of_it or symbol in engine.exit_door.goals):
                continue
            if any(orders.orders[tag].symbol == symbol for tag in orders.unresolved_exits):
                title = f"{symbol} is not being closed again by us"
                require(title in self._world.alerts.titles(), f"an exit of {symbol} is not replaced, and nobody was told")
                continue
            known = orders.positions.get(symbol)
            late = (
                self._blind
                or self._world.closer.look_is_due
                or known is None
                or known.quantity != quantity
                or any(o.symbol == symbol for o in orders.live.values())
            )
            if look_failed and self._must_look(engine, symbol, now_ms, plan.hard_stop_ms):
                self._idle[symbol] = idle.get(symbol, 0)
                continue
            self._idle[symbol] = minutes = idle.get(symbol, 0) + 1
            require(
                minutes <= (NEWS_MINUTES_MAX if late else EXIT_MINUTES_MAX),
                f"{quantity} {symbol} is to be closed, and for {minutes} minutes no exit was sent",
            )

    def _look_failed(self) -> bool:
        """Return whether the broker failed a read of its book since the last call."""
        injected, self._reads_failed = self._world.faults.injected[self._reads_failed :], len(self._world.faults.injected)
        return any(fault.kind is FaultKind.READ_FAILED and fault.subject in ("trades", "orders") for fault in injected)

    def _must_look(self, engine: Engine, symbol: str, now_ms: int, hard_stop_ms: int) -> bool:
        """Return whether the design lets an exit leave only after a complete read of the broker's book.

        A blind start, a lock that another closer had, an exit that is UNKNOWN, the hard stop (by a clock that is ahead).
        """
        exits = engine.order_manager.live_orders(symbol, entries=False)
        return (
            self._blind
            or self._world.closer.look_is_due
            or any(order.state is OrderState.UNKNOWN for order in exits)
            or now_ms + self._world.engine_clock.ahead_ms_max >= hard_stop_ms
        )

    def _judge_wait(self) -> None:
        """Exits that wait for another closer are told."""
        world = self._world
        held = {p.symbol for p in world.engine.order_manager.open_positions()} if world.engine else set()
        goals = held & world.engine.exit_door.goals.keys() if world.engine else set()  # a flat one has nothing to send
        waits = bool(world.closer.holder not in ("", world.engine_name) and goals)
        self._waits = self._waits + 1 if waits else 0
        require(
            self._waits < WAIT_MINUTES_MAX or "Exits wait for another closer" in world.alerts.titles(),
            f"exits wait for {world.closer.holder} for {self._waits} minutes, and nobody is told",
        )

    def _judge_ledger(self, engine: Engine) -> None:
        """A ledger that is trusted says what the engine's books say."""
        world, readiness = self._world, engine.risk_manager.readiness
        if world.outages.ledger or world.ledger.lost or readiness.ledger_fault or readiness.fenced:
            return
        truth, orders = world.ledger.truth(), engine.order_manager
        ours = {p.symbol: p.quantity for p in orders.open_positions()}
        theirs = {symbol: p.quantity for symbol, p in truth.positions.items() if symbol not in engine.risk_manager.unexplained}
        ours = {symbol: quantity for symbol, quantity in ours.items() if symbol not in engine.risk_manager.unexplained}
        require(theirs == ours, f"the ledger holds {theirs}, the books {ours}")
        money = (truth.realised_paise, truth.charges_paise)
        due = (orders.day_loss.realised_paise, orders.day_loss.charges_paise)
        require(money == due, f"the ledger has realised P&L and charges of {money}, the books of {due}")

    def _judge_flat_after_loss(self, engine: Engine, now_ms: int) -> None:
        """After a LOSS halt nothing stays open for long, and not for a while without an alert."""
        world, held = self._world, self.held()
        if not self._loss_halted or not held:
            self._held_since_ms = 0
            self._faults_last_step = len(world.faults.injected)
            return
        if not self._held_since_ms:
            self._held_since_ms = now_ms
            self._faults_before = self._faults_last_step
        minutes = (now_ms - self._held_since_ms) // MS_PER_MINUTE
        if minutes >= NOT_FLAT_MINUTES:
            said = any("NOT FLAT" in title for _, title, _ in world.alerts.sent[self._alerts_before_loss :])
            require(said, f"{minutes} minutes after the LOSS halt {held} is held, and no alert says so")
        if minutes > FLAT_MINUTES_MAX:
            exchange = world.broker.exchange
            failed = len(world.faults.injected) > self._faults_before
            failed = failed or any(order.position.symbol in held for order in exchange.working)
            failed = failed or any(
                order.state is OrderState.REJECTED and order.placed_ms >= self._held_since_ms
                for order in exchange.orders.values()
            )
            orders = engine.order_manager
            for tag in orders.unresolved_exits:  # its answer was lost and a second one's too: it is not replaced again
                symbol = orders.orders[tag].symbol
                told = f"{symbol} is not being closed again by us" in world.alerts.titles()
                require(told, f"an exit of {symbol} is not replaced, and nobody was told")
                failed = failed or symbol in held
            require(failed, f"{minutes} minutes after the LOSS halt {held} is held, and the broker never failed")

    # -- at the end -------------------------------------------------------------------------------------------

    def at_end(self, engine: Engine, result: SessionResult) -> None:
        """Judge what the episode left behind."""
        world = self._world
        require(not result.fault, f"the engine failed: {result.fault}")
        held = self.held()
        if result.flat:
            require(not held.keys() - self.over_exits.symbols(), f"flat by our books, but the broker holds {held}")
        else:
            titles = world.alerts.titles()
            require("NOT FLAT at the end of the session" in titles, f"not flat and nobody told: {titles}")
        self._judge_claims(engine)
        if world.outages.journal_blocked or self._blind:
            return
        self._judge_intents()
        self._judge_money(engine, result)

    def _judge_intents(self) -> None:
        tags = {order.tag for order in self._world.broker.exchange.orders.values() if order.tag} - {OTHER_CLOSERS_TAG}
        missing = tags - self._world.journal.intents.keys() - (self._lost_intents & self._sent_exits)
        require(not missing, f"the broker has {sorted(missing)}, of which the journal knows nothing")

    def _judge_claims(self, engine: Engine) -> None:
        ledger = self._world.ledger
        if self._world.outages.ledger or ledger.lost or engine.risk_manager.readiness.ledger_fault:
            return
        given_up = {
            str(body["client_order_id"])
            for body in self._world.journal.bodies(EventKind.ORDER)
            if str(body["reason"]).startswith("NOT_PLACED")
        }
        for intent_id in ledger.truth().claims:
            order = engine.order_manager.orders.get(intent_id)
            excused = intent_id in given_up or intent_id not in self._sent_entries or (order is not None and order.is_live)
            require(excused, f"the claim {intent_id} is still held, and its order is {order.state if order else 'unknown'}")

    def _judge_money(self, engine: Engine, result: SessionResult) -> None:
        """The journal's fills are the broker's trades, and their money is the engine's."""
        journal, loss = self._world.journal, engine.order_manager.day_loss
        self._take_news(engine)
        trades = {trade.trade_id: trade for trade in self._world.broker.exchange.trades}
        booked: dict[str, Body] = {}
        for body in journal.bodies(EventKind.FILL):
            booked.setdefault(str(body["trade_id"]), body)
        for trade_id, body in booked.items():
            trade = trades[trade_id]
            told = (trade.client_order_id, trade.symbol, trade.side, trade.quantity, trade.price_paise)
            written = tuple(body[name] for name in ("client_order_id", "symbol", "side", "quantity", "price"))
            require(written == told, f"trade {trade_id} is {told} at the broker and {written} in the journal")
            due = self._books.charged[trade_id]
            require(body["charges"] == due, f"trade {trade_id} is charged {body['charges']} in the journal, {due} is due")
        if result.flat:
            missing = sorted(trades.keys() - booked.keys())
            require(not missing, f"the broker's trades {missing} are not in the journal")
        written_realised = sum(_number(body, "realised") for body in booked.values())
        cost = sum(position.cost_paise for position in engine.order_manager.open_positions())
        realised = self._books.cash_paise + cost
        require(
            self._ever_blind or written_realised == realised,
            f"realised {written_realised} in the journal, {realised} by the trades",
        )
        require(loss.realised_paise == realised, f"realised {loss.realised_paise} in memory, {realised} by the trades")
        due = self._books.charges_paise
        require(loss.charges_paise == due, f"charges are {loss.charges_paise} in memory, {due} by the trades")


def _take_fill(books: Books, body: Body, intents: dict[str, str]) -> None:
    """Count one journaled fill. One that was booked without its order (a hand's, or a lost intent's) is charged alone."""
    tag = str(body["client_order_id"])
    books.take(
        str(body["trade_id"]),
        tag,
        str(body["symbol"]),
        Side(str(body["side"])),
        _number(body, "quantity"),
        _number(body, "price"),
        alone=not body["strategy"] and intents.get(tag) != "",
    )


def _number(body: Body, key: str) -> int:
    value = body[key]
    if not isinstance(value, int):
        raise TypeError(f"{key} of {body} is no number")
    return value
