"""One episode: a seeded half hour with a faulty broker, failing stores, manual trades, crashes and restarts.

- Everything that outlives an engine process is here, with the script of troubles; `invariants` says what must hold.
- An exit that appears after it was given up and replaced (design, section 6) may close more than is open, which no client
  without reduce-only orders can rule out; `invariants` bounds it.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from unittest.mock import patch

from tests.simulation.invariants import Invariants
from tests.simulation.market import DAY, MINUTES, OPEN_MS, TICK_PAISE, RandomStrategy, make_rows
from tests.simulation.senders import SENDERS, Flights, SimOffLoop
from tests.simulation.stores import (
    CloserHolder,
    Crash,
    Outages,
    SimAlerts,
    SimClock,
    SimCloserLock,
    SimControl,
    SimHaltFile,
    SimJournal,
    SimLedger,
)
from tests.simulation.troubles import Troubles
from tests.simulation.verdict import InvariantBroken
from velox_core.brokers.faults import FaultPlan
from velox_core.brokers.simulated import SimulatedBroker
from velox_core.brokers.simulated_market import SimulatedMarket
from velox_core.brokers.simulated_orders import SimulationConfig
from velox_core.clock import ReplayClock
from velox_core.domain.charges import ChargeSchedule
from velox_core.domain.errors import BrokerError, VeloxError
from velox_core.domain.halts import HaltKind, HaltRecord
from velox_core.domain.market.bars import DayColumns, MinuteRow
from velox_core.domain.market.ticks import Instrument, SecurityClass
from velox_core.domain.orders import Side
from velox_core.domain.time import MS_PER_MINUTE
from velox_core.engine import owed
from velox_core.engine.assembly import Engine, EnginePorts, EngineRules, assemble
from velox_core.engine.plan import SessionPlan
from velox_core.engine.session import SessionResult
from velox_core.engine.strategy_host import HostedStrategy
from velox_core.feeds.replay import ReplayFeed
from velox_core.ports import BrokerFill, BrokerOrder, BrokerPosition, ControlRequest, Funds, OrderUpdate, SendOutcome
from velox_core.risk.approval import ApprovedOrder
from velox_core.risk.limits import RiskLimits

CRASH_PLACES = ("before commit", "after commit", "after claim", "before send", "after send", "after ledger")
RESTARTS_MAX = 9
OFF_LOOP_SHARE = 0.25  # of the episodes
SCHEDULE = ChargeSchedule(
    label="simulation",
    brokerage_ppb=300_000,
    brokerage_cap_paise=2_000,
    stt_sell_ppb=250_000,
    exchange_ppb=33_500,
    sebi_ppb=1_000,
    stamp_buy_ppb=30_000,
    gst_ppb=180_000_000,
)


@dataclass(slots=True)
class Outcome:
    """What an episode came to. Counts over all engine processes of the episode."""

    seed: int
    result: SessionResult | None = None
    orders: int = 0
    fills: int = 0
    crashes: int = 0
    faults: int = 0
    over_exits: int = 0
    rarer: list[str] = field(default_factory=list)
    halted: bool = False
    flat: bool = False
    journal: SimJournal | None = None  # None where it cannot be read

    @property
    def export(self) -> list[tuple[str, int, str]]:
        """Return what was journaled, empty where it cannot be read."""
        return [] if self.journal is None else [(e.kind.value, e.ts_ms, repr(e.body)) for e in self.journal.events()]


class WatchedBroker:
    """The broker as the engine sees it, with every send judged against the truth first."""

    name = "simulated"

    def __init__(self, world: World) -> None:
        self._world = world
        self._broker = world.broker

    def place(self, order: ApprovedOrder, now_ms: int) -> SendOutcome:
        """Judge, then send."""
        self._world.invariants.on_send(order)
        self._world.outages.step("before send")
        now_ms = self._world.clock.now_ms()  # the broker's clock is its own
        outcome = self._broker.place(order, now_ms)
        self._world.outages.step("after send")
        return outcome

    def cancel(self, broker_order_id: str, now_ms: int) -> SendOutcome:
        """Pass on."""
        outcome = self._broker.cancel(broker_order_id, self._world.clock.now_ms())
        self._world.outages.step("after cancel")
        return outcome

    def drain_events(self) -> list[OrderUpdate | BrokerFill]:
        """Pass on."""
        events = self._broker.drain_events()
        if events:
            self._world.outages.step("after news")
        if self._world.rarer.is_silent:
            return [event for event in events if event.client_order_id]
        return events

    def orders(self) -> list[BrokerOrder]:
        """Pass on."""
        return self._broker.orders()

    def trades(self) -> list[BrokerFill]:
        """Pass on."""
        return self._broker.trades()

    def positions(self) -> list[BrokerPosition]:
        """Pass on."""
        return self._broker.positions()

    def funds(self) -> Funds:
        """Pass on."""
        return self._broker.funds()


class World:
    """Everything that outlives the engine's processes, and the episode's script of troubles."""

    def __init__(self, seed: int, forced: tuple[str, ...] = ()) -> None:
        self.seed = seed
        self.random = Random(seed)
        random = self.random
        symbols = random.randint(1, 4)
        self.universe = tuple(f"SYM{number}" for number in range(symbols))
        self.instruments = {
            s: Instrument(symbol=s, security_class=SecurityClass.CASH, tick_paise=TICK_PAISE) for s in self.universe
        }
        self.rows = make_rows(random, symbols)
        self.seconds = 0.0
        self.is_off_loop = SENDERS in forced or Random(f"off loop {seed}").random() < OFF_LOOP_SHARE
        self.tick_seconds = 0.0001 if self.is_off_loop else 0.01  # one look at the clock; off the loop a step is short
        self.flights = Flights(self)
        self.outages = Outages()
        self.clock = ReplayClock(OPEN_MS, monotonic=self.monotonic)
        self.engine_clock = SimClock(self.clock)
        self.closer = CloserHolder()
        self.hard_stop_minute = MINUTES
        self.journal = SimJournal(self.outages)
        self.ledger = SimLedger(self.outages, self.monotonic)
        self.halt_file = SimHaltFile(self.outages)
        self.control = SimControl()
        self.alerts = SimAlerts()
        self.faults = self._fault_plan()
        self.broker = SimulatedBroker(
            self.universe,
            instruments=self.instruments,
            config=SimulationConfig(
                seed=seed,
                slippage_bps=random.choice((0, 2, 10)),
                slippage_ticks=random.choice((0, 1)),
                latency_ms=random.choice((0, 50, 2_000)),
                partial_fill_probability=random.choice((0.0, 0.3)),
                reject_probability=random.choice((0.0, 0.05)),
                margin_multiplier=5,
                capital_paise=10_000_000_00,
            ),
            faults=self.faults,
        )
        day = DayColumns(trading_date=DAY, universe=self.universe, rows=self.rows, source="simulation", synthetic=True)
        self.feed = SimulatedMarket(TroubledFeed(ReplayFeed(day, self.clock, 0.0), self), self.broker, self.clock)
        lot = random.choice((1, 1, 3))
        self.limits = RiskLimits(
            max_daily_loss_paise=random.choice((5_000, 20_000, 200_000)) * lot,
            max_daily_loss_bps=200,
            initial_capital_paise=10_000_000,
            fixed_lot_size=lot,
            dedup_window_ms=random.choice((5_000, 90_000)),
            max_position_size_paise=random.choice((300_000, 1_000_000)) * lot,
            max_positions_per_strategy=random.randint(1, 2),
            max_total_positions=random.randint(2, 3),
            orders_per_second_max=random.choice((1, 8)),
        )
        self.troubles = self._troubles()
        self.schedule = SCHEDULE
        self.hand_ms: dict[str, int] = {}  # symbol to when it was last traded in the broker's app
        self.crashes = 0
        self.engine_name = ""
        self._plans: dict[int, SessionPlan] = {}
        self.engine: Engine | None = None
        self.rarer = Troubles(self, forced)
        self.invariants = Invariants(self)

    def monotonic(self) -> float:
        """Return virtual seconds; every look at the clock takes a little."""
        self.seconds += self.tick_seconds
        return self.seconds

    def _fault_plan(self) -> FaultPlan:
        plan = FaultPlan.seeded(self.seed, intensity=self.random.choice((0.0, 0.1, 0.3)))
        return FaultPlan(self.seed, rates=plan.rates, delays_ms=(1_000, 10_000, 90_000, 200_000))

    def _troubles(self) -> dict[int, list[str]]:
        """Return by minute what happens before it."""
        random = self.random
        troubles: dict[int, list[str]] = {}

        def at(minute: int, what: str) -> None:
            troubles.setdefault(minute, []).append(what)

        for store in ("journal", "ledger", "halt_file"):
            if random.random() < 0.3:
                start = random.randrange(1, MINUTES - 8)
                at(start, f"{store} down")
                at(start + random.randrange(1, 6), f"{store} up")
        if random.random() < 0.15:
            at(random.randrange(2, MINUTES - 8), "ledger lost")
        for _ in range(random.choice((0, 0, 1, 2))):
            at(random.randrange(1, MINUTES - 4), f"crash {random.choice(CRASH_PLACES)}")
        for _ in range(random.choice((0, 0, 0, 1))):
            at(random.randrange(2, MINUTES - 8), "manual trade")
        if random.random() < 0.1:
            at(random.randrange(5, MINUTES - 5), "stop")
        outside = Random(f"halt {self.seed}")  # of its own: the other troubles of a seed stay as they are
        if outside.random() < 0.1:
            at(outside.randrange(2, MINUTES - 8), outside.choice(("halt keeping", "halt closing")))
        return troubles

    def before_minute(self, minute: int) -> None:
        """Let the troubles of a minute happen."""
        self.rarer.before_minute(minute)
        for what in self.troubles.get(minute, ()):
            head, _, rest = what.partition(" ")
            if head == "crash":
                self.outages.crash_at = rest
            elif what == "ledger lost":
                self.ledger.lose_content()
                self.invariants.on_ledger_lost()
            elif what == "manual trade":
                self._trade_by_hand()
            elif head == "halt":
                self._halt_from_outside(keeps_positions=rest == "keeping")
            elif what == "stop":
                self.control.requests.append(ControlRequest("stop", "episode", "asked for"))
            else:
                setattr(self.outages, head, rest == "down")

    def _halt_from_outside(self, *, keeps_positions: bool) -> None:
        """Latch a halt as another process does, unless the ledger is away: it alone stops entries before the next look."""
        if self.outages.ledger:
            return
        record = HaltRecord(
            halt_id=f"{DAY:%Y%m%d}-MANUAL-outside",
            kind=HaltKind.MANUAL,
            trading_date=DAY,
            reason="asked for",
            by="episode",
            at_ms=self.clock.now_ms(),
            keeps_positions=keeps_positions,
        )
        with suppress(VeloxError):
            self.halt_file.append(record)
        self.ledger.latch_halt(record)

    def _trade_by_hand(self) -> None:
        symbol = self.random.choice(self.universe)
        try:
            self.broker.desk.trade_foreign(symbol, self.random.choice((Side.BUY, Side.SELL)), 1, self.clock.now_ms())
        except BrokerError:
            return
        self.hand_ms[symbol] = self.clock.now_ms()

    # -- the episode ------------------------------------------------------------------------------------------

    def plan(self, resumed_ms: int) -> SessionPlan:
        """Return the half hour's plan: entries for 22 minutes, square-off in the 25th."""
        if resumed_ms not in self._plans:
            self._plans[resumed_ms] = self._make_plan(resumed_ms)
        return self._plans[resumed_ms]

    def _make_plan(self, resumed_ms: int) -> SessionPlan:
        return SessionPlan(
            trading_date=DAY,
            universe=self.universe,
            open_ms=OPEN_MS,
            entries_from_ms=OPEN_MS,
            entry_until_ms=OPEN_MS + 22 * MS_PER_MINUTE,
            flat_by_ms=OPEN_MS + 25 * MS_PER_MINUTE,
            hard_stop_ms=OPEN_MS + self.hard_stop_minute * MS_PER_MINUTE,
            tick_paise=(TICK_PAISE,) * len(self.universe),
            resume_after_ms=resumed_ms,
            reconcile_seconds=30.0,
            heartbeat_seconds=600.0,  # nobody reads the status
            source="simulation",
            synthetic=True,
        )

    def start_engine(self) -> Engine:
        """Start a new engine process on what the old one left."""
        self.seconds += 3_600.0  # the old process' lease has run out
        down, self.outages.ledger = self.outages.ledger, False
        epoch = self.ledger.acquire_lease("simulation")
        self.outages.ledger = down
        self.engine_name = f"engine {epoch}"
        hosts = tuple(
            HostedStrategy(
                RandomStrategy(name, self.seed + 1000 * self.crashes, faulty=name == "b"),
                tuple(range(len(self.universe))),
                self.universe,
            )
            for name in ("a", "b")
        )
        self.flights.engine_starts()
        watched = WatchedBroker(self)
        off_loop = SimOffLoop(watched, self.flights) if self.is_off_loop else None
        ports = EnginePorts(
            clock=self.engine_clock,
            feed=self.feed,
            broker=off_loop or watched,
            sends=off_loop,
            journal=self.journal,
            ledger=self.ledger,
            halt_file=self.halt_file,
            control=self.control,
            alerts=self.alerts,
            closer_lock=SimCloserLock(self.closer, self.engine_name),
        )
        rules = EngineRules(limits=self.limits, schedule=SCHEDULE, instruments=self.instruments, strategies=hosts, epoch=epoch)
        self.engine = None
        self.invariants.on_start()
        engine = assemble(self.plan(0), ports, rules)
        engine.risk_manager.readiness.armed = True
        self.engine = engine
        return engine

    def run(self) -> Outcome:
        """Live through the half hour, with as many engine processes as it takes."""
        with patch.object(owed, "time", self.flights):  # its pauses are virtual
            return self._run()

    def _run(self) -> Outcome:
        result = None
        for _ in range(RESTARTS_MAX):
            try:
                engine = self.start_engine()
                result = engine.session(self.plan(self.clock.now_ms() if self.crashes else 0)).run()
                break
            except Crash:
                self.crashes += 1
                self.invariants.on_crash()
                self.journal.lose_buffer()
                self.outages.crash_at = ""
                if self.closer.holder == self.engine_name:
                    self.closer.holder = ""
        if result is None or self.engine is None:
            raise InvariantBroken("the engine never came through")
        return self._end(self.engine, result)

    def _end(self, engine: Engine, result: SessionResult) -> Outcome:
        self.invariants.at_end(engine, result)
        orders = engine.order_manager
        journal = None if self.journal.is_unreadable else self.journal
        return Outcome(
            seed=self.seed,
            result=result,
            orders=len(orders.orders),
            fills=orders.fill_count,
            crashes=self.crashes,
            faults=len(self.faults.injected),
            rarer=[*self.rarer.happened, *self.flights.told()],
            over_exits=self.invariants.over_exits.seen,
            halted=result.halted,
            flat=result.flat,
            journal=journal,
        )


class TroubledFeed:
    """The feed, with the episode's troubles let loose before each minute."""

    def __init__(self, feed: ReplayFeed, world: World) -> None:
        self._feed = feed
        self._world = world

    @property
    def universe(self) -> tuple[str, ...]:
        """Return the symbols."""
        return self._feed.universe

    @property
    def ended(self) -> bool:
        """Return whether every minute was delivered."""
        return self._feed.ended

    def next_row(self, wait_seconds: float) -> MinuteRow | None:
        """Have the step that is over judged, let the troubles happen, then deliver."""
        if self._world.engine is not None:
            self._world.invariants.on_step(self._world.engine)
        self._world.before_minute(MINUTES - self._feed.remaining_rows)
        self._world.seconds += 60.0
        return self._feed.next_row(wait_seconds)

    def hasten(self) -> None:
        """Stop pacing."""
        self._feed.hasten()


def run_episode(seed: int, forced: tuple[str, ...] = ()) -> Outcome:
    """Run one seed; `forced` are kinds of `troubles` that must happen in it."""
    return World(seed, forced).run()
