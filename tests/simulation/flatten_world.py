"""One account, one engine and one to four closers from outside, all at once: a seeded flattening with everything failing.

- Time is virtual. Every call to the broker takes a while, and while one process waits for its answer the others go on:
  a schedule of events decides who is next, so that any step of one falls between any two steps of another.
- The engine trades until the trouble begins; then it lives on, dies, hangs, or is stopped and goes on later, between two
  steps or in the middle of a send. A closer may hang in the same way. The triggers come at random instants.
- A request is on its way by itself: it reaches the broker also when its sender was killed meanwhile.
- Gate, exit door, closer, flattener, take-over and recovery are the real ones; lock, stores, broker and time are models.
"""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from random import Random
from typing import TYPE_CHECKING

from tests.simulation.flatten_invariants import FlattenInvariants
from tests.simulation.flatten_processes import LATE_MS_MAX, Closing, EngineProcess, Process, assemble_engine
from tests.simulation.market import OPEN_MS, TICK_PAISE
from tests.simulation.stores import CloserHolder, Outages, SimAlerts, SimHaltFile, SimJournal, SimLedger
from velox_core.brokers.faults import Fault, FaultKind, FaultPlan
from velox_core.brokers.simulated import SimulatedBroker
from velox_core.brokers.simulated_orders import SimulationConfig
from velox_core.domain.errors import BrokerError, JournalUnavailable
from velox_core.domain.market.bars import MinuteRow
from velox_core.domain.market.ticks import Instrument, SecurityClass
from velox_core.domain.orders import Side
from velox_core.domain.time import MS_PER_SECOND
from velox_core.lost_exits import Recalled, recalled
from velox_core.risk.limits import RiskLimits

if TYPE_CHECKING:
    from velox_core.flat_proof import FlattenResult

REQUEST_MS_MAX = 10_000  # the longest that a request is on its way
TRADING_MS = (3_000, 12_000)  # which the engine has to itself
EPISODE_MS_MAX = 900_000
ROW_MS = 2_000


class FlattenOutcome:
    """What an episode came to."""

    __slots__ = (
        "flat",
        "kills",
        "left_open",
        "lost",
        "not_flat",
        "orders",
        "over",
        "reasons",
        "results",
        "seed",
        "trades",
        "what",
    )

    def __init__(self, seed: int, world: FlattenWorld) -> None:
        self.seed = seed
        self.results: list[FlattenResult] = [
            closing.flattener.result() for closing in world.closings if closing.flattener.ended
        ]
        self.flat = sum(result.exit_code == 0 for result in self.results)
        self.not_flat = len(self.results) - self.flat
        self.reasons = [result.reason for result in self.results if result.reason]
        self.orders = len(world.broker.exchange.orders)
        self.trades = len(world.broker.exchange.trades)
        self.kills = world.kills
        self.lost = world.lost
        self.over = world.invariants.over
        self.left_open = world.invariants.open_now()
        self.what = world.what


class FlattenWorld:
    """Everything that outlives the processes of one flattening, and its schedule.

    Args:
        seed: of everything.
        engine_trouble: what becomes of the engine, drawn when ''.
    """

    def __init__(self, seed: int, engine_trouble: str = "") -> None:
        self.seed = seed
        self.engine_trouble = engine_trouble
        self.random = random = Random(f"flatten {seed}")
        self.now_ms = OPEN_MS
        self.kills = 0
        self.on_their_way = 0  # orders that left and have not reached the broker
        self.failure: BaseException | None = None  # of a process
        self._turn_is_back = threading.Lock()
        self._turn_is_back.acquire()
        self.what: list[str] = []  # the troubles, for counts
        self._schedule: list[tuple[int, int, Callable[[], None]]] = []
        self._count = 0
        self.universe = tuple(f"SYM{number}" for number in range(random.randint(1, 3)))
        self.instruments = {
            s: Instrument(symbol=s, security_class=SecurityClass.CASH, tick_paise=TICK_PAISE) for s in self.universe
        }
        self.prices = [random.randrange(30_000, 200_000, TICK_PAISE) for _ in self.universe]
        self.shock_percent = 100
        self.outages = Outages()
        self.holder = CloserHolder()
        self.engine_holder = ""
        self.status: Mapping[str, object] = {}
        self.processes: dict[int, Process] = {}
        self.journal = SimJournal(self.outages)
        self.ledger = SimLedger(self.outages, self.monotonic)
        self.halt_file = SimHaltFile(self.outages)
        self.alerts = SimAlerts()
        self.slow_share = random.choice((0.0, 0.02, 0.15, 0.5))
        self.faults = self._fault_plan()
        self.broker = SimulatedBroker(
            self.universe,
            instruments=self.instruments,
            config=SimulationConfig(
                seed=seed,
                slippage_bps=2,
                latency_ms=random.choice((0, 500, 3_000)),
                partial_fill_probability=random.choice((0.0, 0.4)),
                reject_probability=random.choice((0.0, 0.2)),
                capital_paise=10_000_000_00,
            ),
            faults=self.faults,
        )
        lot = random.choice((1, 5))
        self.limits = RiskLimits(
            max_daily_loss_paise=random.choice((20_000, 1_000_000)) * lot,
            max_daily_loss_bps=10_000,
            initial_capital_paise=100_000_000,
            fixed_lot_size=lot,
            dedup_window_ms=5_000,
            max_position_size_paise=10_000_000,
            max_positions_per_strategy=3,
            max_total_positions=5,
        )
        self.files: list[SimJournal] = []  # of the closers
        self.forgot = False  # whether a closer could not read all that is on record
        self.lost = 0  # exits that left and got no answer
        self.late_random = Random(f"lost answers {seed}")
        self.late_share = self.late_random.choice((0.3, 0.6)) if seed % 4 == 3 else 0.0
        self.invariants = FlattenInvariants(self)
        self.closings: list[Closing] = []
        self.engine = EngineProcess(self, 1)
        self.processes[1] = self.engine
        self._script()

    def _fault_plan(self) -> FaultPlan:
        """Return none, some, or half of all calls failing. No order appears after it was searched for: `world` has that."""
        kind = self.random.choice(("none", "some", "some", "half"))
        if kind == "half":
            self.what.append("half of the calls fail")
            return FaultPlan.half_failing(self.seed)
        plan = FaultPlan.seeded(self.seed, intensity=0.3 if kind == "some" else 0.0)
        rates = {fault: rate for fault, rate in plan.rates.items() if fault is not FaultKind.APPEARS_LATE}
        return FaultPlan(self.seed, rates=rates, delays_ms=(500, 3_000, 20_000))

    def _script(self) -> None:
        """Put the triggers and troubles into the schedule."""
        random = self.random
        trouble_ms = OPEN_MS + random.choice(TRADING_MS)
        self._trouble_ms = trouble_ms
        rates, self.faults.rates = self.faults.rates, {}  # until then the engine opens positions undisturbed
        self.at(trouble_ms - random.randrange(1_500), lambda: self.faults.rates.update(rates))
        self.at(OPEN_MS, self._row)
        self.at(OPEN_MS, self.engine.start)
        down = random.choice(((), (), ("ledger",), ("journal",), ("ledger", "journal"), ("halt_file",)))
        if down:
            self.what.append(f"{' and '.join(down)} down")
            start_ms = max(trouble_ms + random.randrange(-4_000, 8_000), OPEN_MS + 100)
            self.at(start_ms, lambda: self._switch(down, is_down=True))
            if random.random() < 0.5:
                self.at(start_ms + random.randrange(1_000, 60_000), lambda: self._switch(down, is_down=False))
        if random.random() < 0.3:
            self.what.append("a position of another hand")
            self.at(OPEN_MS + random.randrange(500, 4_000), self._trade_by_hand)
        if random.random() < 0.3:
            self.what.append("a symbol that cannot trade")
            from_ms = trouble_ms + random.randrange(-2_000, 10_000)
            until_ms = from_ms + random.randrange(5_000, 90_000)
            self.faults.add(
                Fault(kind=FaultKind.LOCKED, symbol=random.choice(self.universe), from_ms=from_ms, until_ms=until_ms)
            )
        engine_asks = random.choice(("shock", "stop", ""))
        if engine_asks:
            self.what.append(f"engine: {engine_asks}")
            self.at(trouble_ms + random.randrange(0, 6_000), lambda: self.engine.ask(engine_asks, random))
        self.engine.plan_trouble(random, trouble_ms)
        apart_ms = random.choice((1, 500, 5_000, 30_000))  # 1: all of them in the same instant
        for number in range(random.randint(1, 4)):
            closing = Closing(self, 2 + number, random)
            self.closings.append(closing)
            self.processes[closing.pid] = closing
            closing.plan_trouble(random, trouble_ms)
            self.at(trouble_ms + random.randrange(apart_ms), closing.start)
        if self.late_share:
            self.what.append("lost answers")
            self._script_successors()

    def _script_successors(self) -> None:
        """Have new closers follow: each knows of its predecessors what they wrote down."""
        random, start_ms = self.late_random, self._trouble_ms
        for _ in range(random.randint(1, 3)):
            start_ms += random.randrange(10_000, 120_000)
            closing = Closing(self, 2 + len(self.closings), random)
            self.closings.append(closing)
            self.processes[closing.pid] = closing
            closing.plan_trouble(random, start_ms)
            self.at(start_ms, closing.start)

    def _switch(self, stores: tuple[str, ...], *, is_down: bool) -> None:
        for store in stores:
            setattr(self.outages, store, is_down)

    def _trade_by_hand(self) -> None:
        symbol, side = self.random.choice(self.universe), self.random.choice((Side.BUY, Side.SELL))
        with suppress(BrokerError):
            self.broker.desk.trade_foreign(symbol, side, self.random.randint(1, 5), self.now_ms)

    # -- time ---------------------------------------------------------------------------------------------------

    def monotonic(self) -> float:
        """Return virtual seconds."""
        return (self.now_ms - OPEN_MS) / MS_PER_SECOND + 1.0

    def at(self, due_ms: int, action: Callable[[], None]) -> None:
        """Schedule one event."""
        self._count += 1
        heapq.heappush(self._schedule, (due_ms, self._count, action))

    def hand_over(self, begin: Callable[[], object]) -> None:
        """Let one process run until it waits or ends; nothing else runs meanwhile. Raises what it failed with."""
        begin()
        self._turn_is_back.acquire()
        if self.failure is not None:
            raise self.failure

    def take_back(self) -> None:
        """Give the turn back to the schedule. Called by the one process that runs."""
        self._turn_is_back.release()

    def pass_time(self, milliseconds: int) -> None:
        """Let happen what is due in the next while."""
        until_ms = self.now_ms + milliseconds
        schedule = self._schedule
        while schedule and schedule[0][0] <= until_ms:
            due_ms, _, action = heapq.heappop(schedule)
            self.now_ms = max(self.now_ms, due_ms)
            action()
        self.now_ms = until_ms

    @property
    def is_over(self) -> bool:
        """Return whether every closer has ended, or the episode has lasted long enough."""
        return all(closing.ended for closing in self.closings) or self.now_ms - OPEN_MS > EPISODE_MS_MAX

    def latency_ms(self) -> int:
        """Return how long one way of a request takes."""
        random = self.random
        is_slow = self.now_ms >= self._trouble_ms - 1_500 and random.random() < self.slow_share
        return random.randrange(500, REQUEST_MS_MAX) if is_slow else random.randrange(5, 80)

    # -- the market ---------------------------------------------------------------------------------------------

    def _row(self) -> None:
        """Let the market trade once, and come again while anybody is there."""
        random = self.random
        self.prices = [
            max(int(p * (1 + random.gauss(0, 0.0005)) * self.shock_percent / 100) // TICK_PAISE * TICK_PAISE, 1_000)
            for p in self.prices
        ]
        self.shock_percent = 100
        self.broker.on_row(self.row(), self.now_ms)
        self.note_news()
        if not (self.is_over and self.engine.dead):
            self.at(self.now_ms + ROW_MS, self._row)

    def row(self) -> MinuteRow:
        """Return the newest prices as a row."""
        prices = self.prices
        return MinuteRow(self.now_ms, prices, prices, prices, prices, [100] * len(prices))

    def note_news(self) -> None:
        """Hand the broker's news to every process, and judge the trades among them."""
        for event in self.broker.drain_events():
            for process in self.processes.values():
                process.news.append(event)
        self.invariants.take_trades()

    @property
    def loses_answers(self) -> bool:
        """Draw whether the exit that leaves now gets no answer."""
        return self.now_ms >= self._trouble_ms and self.late_random.random() < self.late_share

    # -- the record ---------------------------------------------------------------------------------------------

    def recall(self) -> Recalled:
        """Return what the account's processes have on record."""
        missing = ""
        sources = [self.journal.filed_events()]
        sources += [[(e.kind, e.ts_ms, e.body) for e in journal.events()] for journal in self.files]
        try:
            sources.append([(e.kind, e.ts_ms, e.body) for e in self.journal.events()])
        except JournalUnavailable as error:
            missing, self.forgot = str(error), True
        return recalled(sources, missing)

    # -- processes ----------------------------------------------------------------------------------------------

    def kill(self, pid: int) -> bool:
        """End a process at once: the kernel frees its locks. Returns False for one that is gone."""
        process = self.processes[pid]
        if process.dead:
            return False
        process.stands_still = False
        self.kills += 1
        process.die()
        return True

    def holders(self) -> Iterator[tuple[str, Process]]:
        """Return who has the engine's and the closer's lock."""
        for lock, name in (("engine", self.engine_holder), ("closer", self.holder.holder)):
            for process in self.processes.values():
                if name and process.name == name:
                    yield lock, process

    def restarted_halts(self) -> list[str]:
        """Return the halts that a new engine heeds when it starts on what is left."""
        process = EngineProcess(self, 99)
        process.takes_no_time = True
        self.holder.holder, self.faults.rates, self.slow_share = "", {}, 0.0
        self.faults.script = ()
        self.ledger.release_lease(1)
        engine = assemble_engine(self, process, epoch=self.ledger.acquire_lease("simulation"))
        return engine.emergency.halt_ids

    def run(self) -> FlattenOutcome:
        """Live through the episode."""
        try:
            while not (self.is_over and (self.engine.dead or self.engine.stands_still)):
                self.pass_time(1_000)
            self.pass_time(LATE_MS_MAX if self.lost else REQUEST_MS_MAX)  # what is still on its way arrives
            self.note_news()
            self.invariants.at_end()
        finally:
            self._end_processes()
        return FlattenOutcome(self.seed, self)

    def _end_processes(self) -> None:
        """Unwind the threads that still wait."""
        for process in self.processes.values():
            process.dead = True
            with suppress(BaseException):
                process.go_on()


def run_flattening(seed: int, engine_trouble: str = "") -> FlattenOutcome:
    """Run one seed."""
    return FlattenWorld(seed, engine_trouble).run()
