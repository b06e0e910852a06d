"""The processes of a flattening: the engine and the closers from outside, each with its own view of broker and locks."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from random import Random
from typing import TYPE_CHECKING, Final, TypeVar

from tests.simulation.market import DAY, OPEN_MS, TICK_PAISE
from tests.simulation.stores import Crash, Outages, SimCloserLock, SimJournal
from tests.simulation.world import SCHEDULE
from velox_core.closing_progress import read_progress
from velox_core.domain.errors import BrokerError, VeloxError
from velox_core.domain.events import EventKind
from velox_core.domain.halts import HaltKind, HaltRecord
from velox_core.domain.market.bars import MinuteRow
from velox_core.domain.orders import Actor, Side, Signal, SignalKind
from velox_core.domain.time import MS_PER_DAY, MS_PER_SECOND
from velox_core.engine.assembly import Engine, EnginePorts, EngineRules, assemble
from velox_core.engine.plan import SessionPlan
from velox_core.engine.session import SessionResult
from velox_core.engine.strategy_host import HostedStrategy
from velox_core.flatten_ports import EngineWord, FlattenPorts, FlattenRules
from velox_core.flattening import Flattener
from velox_core.ledger.memory import MemoryLedger
from velox_core.ports import (
    BrokerEvent,
    BrokerFill,
    BrokerOrder,
    BrokerPosition,
    ControlRequest,
    EndOfHolder,
    Funds,
    LockHolder,
    SendOutcome,
    SendStatus,
)
from velox_core.risk.approval import ApprovedOrder
from velox_core.strategies.base import Strategy, StrategySession
from velox_core.take_over import ACKNOWLEDGED_KEY, TakeOverPorts, TakeOverResult, take_over

if TYPE_CHECKING:
    from tests.simulation.flatten_world import FlattenWorld

Answer = TypeVar("Answer")
PLACES: Final = ("step", "before send", "in flight", "in flight", "after send", "after cancel", "after read")
LATE_MS_MAX: Final = 110_000  # below the search for a lost order
HANGS_MS: Final = MS_PER_DAY
CLOSES_NOTHING: Final = "acknowledges and closes nothing"
IS_DEAF: Final = "has lost its broker"
SIGN_OF_LIFE_MS_MAX = 15_000
REQUEST_SECONDS = 10.0
ACKNOWLEDGE_SECONDS = 3.0


class Process:
    """One process of the account, on a thread of its own: it may die anywhere, and stand still at one place.

    Of all threads and the schedule one alone runs at a time: who waits hands over to the schedule, which comes back when the
    time is over. So the interleaving is the seed's and not the machine's.
    """

    def __init__(self, world: FlattenWorld, pid: int, name: str) -> None:
        self.pid = pid
        self.name = name
        self.dead = False
        self.takes_no_time = False  # it is asked outside the schedule
        self.stands_still = False  # for good: unless somebody ends it
        self.is_deaf = False  # its session at the broker is dead: nothing arrives, nothing is answered
        self.news: deque[BrokerEvent] = deque()
        self.beat_ms = world.now_ms  # of its last sign of life
        self.book_ms = 0  # of its last look at the orders: what came later, it could not know
        self.reads_since = 0  # reads of anything else since that look
        self._world = world
        self._trouble: tuple[int, str, int] | None = None  # from when, at which place, for how long; 0 dies
        self._has_begun = self._is_over = False  # of the thread
        self._may_run = threading.Lock()
        self._may_run.acquire()
        self._thread = threading.Thread(target=self._live, name=name, daemon=True)

    def start(self) -> None:
        """Begin to live, until the first wait."""
        self._has_begun = True
        self._world.hand_over(self._thread.start)

    def _live(self) -> None:
        try:
            if not self.dead:
                self.work()
        except Crash:
            pass
        except BaseException as error:  # the verdict is the schedule's to tell
            self._world.failure = self._world.failure or error
        finally:
            self.die()
            self._is_over = True
            self._world.take_back()

    def work(self) -> None:
        """Do what this process is for. Raises Crash where it dies."""
        raise NotImplementedError

    def go_on(self) -> None:
        """Let it run until it waits again, or ends."""
        if self._has_begun and not self._is_over:
            self._world.hand_over(self._may_run.release)

    def die(self) -> None:
        """End: the kernel frees the locks."""
        self.dead = True
        world = self._world
        if world.holder.holder == self.name:
            world.holder.holder = ""
        if world.engine_holder == self.name:
            world.engine_holder = ""

    def wait(self, milliseconds: int) -> None:
        """Let time pass. Raises Crash when the process was killed meanwhile."""
        if self.takes_no_time:
            return
        self._world.at(self._world.now_ms + milliseconds, self.go_on)
        self._world.take_back()
        self._may_run.acquire()
        if self.dead:
            raise Crash(self.name)

    def reach(self, place: str) -> None:
        """Stand still, or die, where the script says so."""
        if self._trouble is None or self._world.now_ms < self._trouble[0] or self._trouble[1] not in (place, "any"):
            return
        (_, _, duration_ms), self._trouble = self._trouble, None
        if not duration_ms:
            raise Crash(place)
        self.stands_still = duration_ms >= HANGS_MS
        self.wait(duration_ms)


class WayToBroker:
    """The broker as one process reaches it: every call takes time, and a request goes on without its sender."""

    name = "simulated"

    def __init__(self, world: FlattenWorld, process: Process) -> None:
        self._world = world
        self._process = process
        self._broker = world.broker

    def place(self, order: ApprovedOrder, now_ms: int) -> SendOutcome:
        """Send one order: it arrives after a while, whatever becomes of the sender."""
        process, world = self._process, self._world
        world.invariants.on_decided(order)
        process.reach("before send")
        world.invariants.on_send(order, process)
        answer: list[SendOutcome] = []
        world.on_their_way += 1
        if order.rank is not None and world.loses_answers:
            return self._lose(order)

        def arrive() -> None:
            world.on_their_way -= 1
            answer.append(self._broker.place(order, world.now_ms))
            if answer[0].status is SendStatus.REJECTED:
                world.invariants.on_rejected(order.client_order_id)
            world.note_news()

        if process.is_deaf:
            process.wait(int(REQUEST_SECONDS * MS_PER_SECOND))
            world.on_their_way -= 1
        else:
            self._travel(arrive)
        process.reach("after send")
        return answer[0] if answer else SendOutcome(SendStatus.UNKNOWN, "", "no answer")

    def _lose(self, order: ApprovedOrder) -> SendOutcome:
        """Have an exit go without an answer: it never arrives, or long after its request broke off."""
        world = self._world

        def arrive() -> None:
            world.on_their_way -= 1
            self._broker.place(order, world.now_ms)
            world.note_news()

        late_ms = world.late_random.choice((0, 20_000, 60_000, LATE_MS_MAX))
        if late_ms:
            world.at(world.now_ms + late_ms, arrive)
        else:
            world.on_their_way -= 1
        world.lost += 1
        world.invariants.on_lost(order.client_order_id)
        self._process.reach("in flight")
        self._process.wait(world.latency_ms())
        self._process.reach("after send")
        return SendOutcome(SendStatus.UNKNOWN, "", "no answer")

    def cancel(self, broker_order_id: str, now_ms: int) -> SendOutcome:
        """Ask for a cancel."""
        answer: list[SendOutcome] = []

        def arrive() -> None:
            answer.append(self._broker.cancel(broker_order_id, self._world.now_ms))
            self._world.note_news()

        if not self._process.is_deaf:
            self._travel(arrive)
        self._process.reach("after cancel")
        return answer[0] if answer else SendOutcome(SendStatus.UNKNOWN, broker_order_id, "no answer")

    def _travel(self, arrive: Callable[[], None]) -> None:
        world = self._world
        there_ms = world.latency_ms()
        world.at(world.now_ms + there_ms, arrive)
        self._process.reach("in flight")
        self._process.wait(min(there_ms + world.latency_ms(), int(REQUEST_SECONDS * MS_PER_SECOND)))  # then it is given up

    def drain_events(self) -> Sequence[BrokerEvent]:
        """Return this process' own copy of the news."""
        if self._process.is_deaf:
            return []
        events = list(self._process.news)
        self._process.news.clear()
        return events

    def orders(self) -> list[BrokerOrder]:
        """Read after a while."""

        def read() -> list[BrokerOrder]:
            book = self._broker.orders()
            self._process.book_ms, self._process.reads_since = self._world.now_ms, 0
            return book

        return self._read(read)

    def trades(self) -> list[BrokerFill]:
        """Read after a while."""
        return self._read(self._broker.trades)

    def positions(self) -> list[BrokerPosition]:
        """Read after a while."""
        return self._read(self._broker.positions)

    def funds(self) -> Funds:
        """Read."""
        return self._broker.funds()

    def _read(self, read: Callable[[], Answer]) -> Answer:
        self._process.wait(self._world.latency_ms())
        if self._process.is_deaf:
            raise BrokerError("this session is dead (simulated)")
        self._process.reads_since += 1
        answer = read()
        self._process.wait(self._world.latency_ms())
        self._process.reach("after read")
        return answer


# -- the engine -------------------------------------------------------------------------------------------------------


class Opener(Strategy):
    """Opens a position in every symbol as long as it may, and never closes one."""

    def __init__(self, random: Random) -> None:
        super().__init__("opener", {})
        self._random = random
        self._session: StrategySession | None = None

    def start_session(self, session: StrategySession) -> None:
        """Take the universe."""
        self._session = session

    def on_minute(self, ts_ms: int, row: MinuteRow, positions: Sequence[int]) -> list[Signal]:
        """Ask for what is not held."""
        session = self._session
        if session is None:
            return []
        sides = (Side.BUY, Side.SELL)
        return [
            Signal(self.strategy_id, session.universe[column], self._random.choice(sides), 1, SignalKind.ENTRY, "chance")
            for column in session.columns
            if not positions[column] and self._random.random() < 0.6
        ]


class EngineProcess(Process):
    """The engine, the feed and the control of it: the world goes on while it waits for its feed."""

    def __init__(self, world: FlattenWorld, pid: int) -> None:
        super().__init__(world, pid, f"engine {pid}")
        self.universe = world.universe
        self.result: SessionResult | None = None
        self._requests: list[ControlRequest] = []
        self._statuses = 0
        self._step_ms = world.random.choice((250, 500, 1_000))
        self._shown_ms = 0
        self._engine: Engine | None = None

    def plan_trouble(self, random: Random, trouble_ms: int) -> None:
        """Draw what becomes of it."""
        kind = random.choice(("lives", "lives", "dies", "hangs", "stops", "stops"))
        kind = self._world.engine_trouble or kind
        self._world.what.append(f"the engine {kind}")
        place = random.choice((*PLACES, "any"))
        from_ms = trouble_ms + random.randrange(-2_000, 15_000)
        if kind == "dies":
            self._trouble = (from_ms, place, 0)
        elif kind == "hangs":
            self._trouble = (from_ms, place, HANGS_MS)
        elif kind == "stops":
            self._trouble = (from_ms, place, random.randrange(500, 40_000))
        elif kind == CLOSES_NOTHING:
            self._world.at(trouble_ms, self._close_nothing)
        elif kind == IS_DEAF:
            self._world.at(trouble_ms, self._go_deaf)

    def _close_nothing(self) -> None:
        """Do everything but close, from now on."""
        if self._engine is not None:
            self._engine.exit_door.work = lambda now_ms: None  # type: ignore[method-assign]

    def _go_deaf(self) -> None:
        self.is_deaf = True

    def ask(self, what: str, random: Random) -> None:
        """Be triggered: by a fall of prices, or by a request to stop."""
        if what == "shock":
            self._world.shock_percent = random.choice((85, 115))
        else:
            self._requests.append(ControlRequest("stop", "episode", "asked for"))

    def work(self) -> None:
        """Trade from the start of the day until the closers have ended."""
        world = self._world
        world.engine_holder = self.name
        engine = self._engine = assemble_engine(world, self, epoch=world.ledger.acquire_lease("simulation"))
        engine.risk_manager.readiness.armed = True
        self.result = engine.session(make_plan(world)).run()

    # -- the feed -----------------------------------------------------------------------------------------------

    @property
    def ended(self) -> bool:
        """Return whether the day is over: when every closer has ended."""
        return self._world.is_over

    def next_row(self, wait_seconds: float) -> MinuteRow | None:
        """Let the others go on, then deliver the newest prices, if there are any."""
        self.wait(self._step_ms)
        self.reach("step")
        world = self._world
        if world.now_ms - self._shown_ms < 2_000 or world.is_over:
            return None
        self._shown_ms = world.now_ms
        return world.row()

    def hasten(self) -> None:
        """Nothing to hasten."""

    # -- the control --------------------------------------------------------------------------------------------

    def poll(self) -> ControlRequest | None:
        """Return the next request."""
        return self._requests.pop(0) if self._requests else None

    def publish(self, status: Mapping[str, object]) -> None:
        """Show the status to everybody."""
        self._statuses += 1
        self.beat_ms = self._world.now_ms
        self._world.status = {**status, "pid": self.pid, "beat": self._statuses}
        acknowledged = status.get(ACKNOWLEDGED_KEY)
        self._world.invariants.on_acknowledged(acknowledged if isinstance(acknowledged, list) else [])

    # -- the clock ----------------------------------------------------------------------------------------------

    def now_ms(self) -> int:
        """Return engine time."""
        return self._world.now_ms

    def monotonic(self) -> float:
        """Return virtual seconds."""
        return self._world.monotonic()


def make_plan(world: FlattenWorld) -> SessionPlan:
    """Return a plan that lasts longer than any episode: only the triggers close."""
    return SessionPlan(
        trading_date=DAY,
        universe=world.universe,
        open_ms=OPEN_MS,
        entries_from_ms=OPEN_MS,
        entry_until_ms=OPEN_MS + MS_PER_DAY,
        flat_by_ms=OPEN_MS + MS_PER_DAY,
        hard_stop_ms=OPEN_MS + MS_PER_DAY,
        tick_paise=(TICK_PAISE,) * len(world.universe),
        reconcile_seconds=30.0,
        source="simulation",
        synthetic=True,
    )


def assemble_engine(world: FlattenWorld, process: EngineProcess, *, epoch: int) -> Engine:
    """Join an engine on the account's stores."""
    strategy = HostedStrategy(Opener(Random(f"opener {world.seed}")), tuple(range(len(world.universe))), world.universe)
    ports = EnginePorts(
        clock=process,
        feed=process,
        broker=WayToBroker(world, process),
        journal=world.journal,
        ledger=world.ledger,
        halt_file=world.halt_file,
        control=process,
        alerts=world.alerts,
        closer_lock=SimCloserLock(world.holder, process.name),
    )
    rules = EngineRules(
        limits=world.limits, schedule=SCHEDULE, instruments=world.instruments, strategies=(strategy,), epoch=epoch
    )
    return assemble(make_plan(world), ports, rules)


# -- the closers from outside ----------------------------------------------------------------------------------------


class Closing(Process):
    """A process that flattens: the command line's, the flow's, the dashboard's, or the guard."""

    def __init__(self, world: FlattenWorld, pid: int, random: Random) -> None:
        super().__init__(world, pid, f"closer {pid}")
        self._journal = SimJournal(Outages())  # a file of its own
        world.files.append(self._journal)
        self.flattener = Flattener(
            FlattenPorts(
                broker=WayToBroker(world, self),
                journal=self._journal,
                ledger=MemoryLedger(),
                halt_file=world.halt_file,
                latches={"ledger": self._to_ledger, "journal": self._to_journal},
                alerts=world.alerts,
                closer_lock=SimCloserLock(world.holder, self.name),
                monotonic=world.monotonic,
                engine=SeenEngine(world, self),
                instrument=lambda symbol, price_paise: world.instruments.get(symbol),
                recall=world.recall,
            ),
            FlattenRules(
                trading_date=DAY,
                limits=world.limits,
                schedule=SCHEDULE,
                actor=random.choice((Actor.COMMAND_LINE, Actor.GUARD)),
                epoch=100 + pid,
                halt_id=f"{DAY:%Y%m%d}-MANUAL-closer{pid}",
                reason="asked for",
                by=self.name,
                request_ms=int(REQUEST_SECONDS * MS_PER_SECOND),
            ),
        )
        self._step_ms = random.choice((250, 500, 1_000))

    def plan_trouble(self, random: Random, trouble_ms: int) -> None:
        """Draw what becomes of it."""
        if random.random() < (0.6 if self._world.late_share else 0.2):
            kind = random.choice(("dies", "hangs", "stops"))
            self._world.what.append(f"a closer {kind}")
            duration_ms = {"dies": 0, "hangs": HANGS_MS, "stops": random.randrange(500, 40_000)}[kind]
            self._trouble = (trouble_ms + random.randrange(20_000), random.choice((*PLACES, "any")), duration_ms)

    @property
    def ended(self) -> bool:
        """Return whether it came to a result, is gone, or stands still for good."""
        return self.dead or self.flattener.ended or self.stands_still

    @property
    def has_own_halt(self) -> bool:
        """Return whether the halt is in the file of this process, from which the next start imports it."""
        return self._journal.newest_halt() > 0

    def work(self) -> None:
        """Flatten, step by step."""
        world = self._world
        while not self.flattener.ended:
            self.reach("step")
            self.beat_ms = world.now_ms
            self.flattener.step(world.now_ms)
            if not self.flattener.ended:
                self.wait(self._step_ms)
        world.invariants.on_result(self, self.flattener.result())

    def _to_ledger(self, record: HaltRecord) -> None:
        self._world.ledger.latch_halt(record)

    def _to_journal(self, record: HaltRecord) -> None:
        world = self._world
        if world.outages.journal_blocked:
            raise VeloxError("the journal is locked (simulated)")
        world.journal.write_outside(EventKind.HALT, record.at_ms, record.to_body())


class Lock:
    """One of the account's locks, seen from outside."""

    def __init__(self, world: FlattenWorld, lock: str) -> None:
        self._world = world
        self._lock = lock

    def holder(self) -> LockHolder | None:
        """Return who has it."""
        for lock, process in self._world.holders():
            if lock == self._lock:
                return LockHolder(host="here", pid=process.pid, started=str(process.pid))
        return None


class SeenEngine:
    """The account's engine as a closer sees it, with the real take-over."""

    def __init__(self, world: FlattenWorld, own: Process) -> None:
        self.killed: tuple[int, ...] = ()
        self._world = world
        self._own = own
        self._count = 0
        self._locks = (Lock(world, "engine"), Lock(world, "closer"))

    def look(self, halt_id: str) -> EngineWord:
        """Return what the engine says now."""
        status = self._world.status
        holder = self._locks[0].holder()
        if holder is None:
            return EngineWord(runs=False)
        acknowledged = status.get(ACKNOWLEDGED_KEY)
        return EngineWord(
            runs=True,
            acknowledges=isinstance(acknowledged, list) and halt_id in acknowledged,
            says_flat=not status.get("positions") and status.get("live_orders") == 0,
            pid=holder.pid,
            beat=status.get("beat"),
            progress=read_progress(status),
        )

    def take_over(self, halt: HaltRecord, *, stalled_pid: int = 0) -> bool:
        """Free the locks from whoever does not answer."""
        self._count += 1
        asked = HaltRecord(
            halt_id=f"{halt.halt_id}-T{self._count}",
            kind=HaltKind.FAULT,
            trading_date=halt.trading_date,
            reason="take-over",
            by=halt.by,
            at_ms=self._world.now_ms,
        )
        ports = TakeOverPorts(
            locks=self._locks,
            latch=self._latch,
            statuses=lambda: self._statuses(asked.halt_id),
            end_holder=self._end,
            monotonic=self._world.monotonic,
            sleep=lambda seconds: self._own.wait(int(seconds * MS_PER_SECOND)),
        )
        done = take_over(
            ports,
            asked,
            request_seconds=REQUEST_SECONDS,
            acknowledge_seconds=ACKNOWLEDGE_SECONDS,
            stalled_pid=stalled_pid,
        )
        self.killed = done.killed
        return done.result is not TakeOverResult.ANSWERS

    def closer_hangs(self) -> bool:
        """Return whether whoever has the closer's lock has given no sign of life for long."""
        holder = self._locks[1].holder()
        return holder is not None and not self._lives(self._world.processes[holder.pid])

    def _lives(self, process: Process) -> bool:
        return self._world.now_ms - process.beat_ms <= SIGN_OF_LIFE_MS_MAX

    def _latch(self, halt: HaltRecord) -> list[str]:
        try:
            self._world.halt_file.append(halt)
        except VeloxError as error:
            return [str(error)]
        return []

    def _statuses(self, halt_id: str) -> Iterator[Mapping[str, object]]:
        yield self._world.status
        for process in self._world.processes.values():
            if isinstance(process, Closing) and not process.dead and self._lives(process):
                yield {"pid": process.pid, ACKNOWLEDGED_KEY: [halt_id]}

    def _end(self, holder: LockHolder, seconds: float) -> EndOfHolder:
        return EndOfHolder.KILLED if self._world.kill(holder.pid) else EndOfHolder.GONE
