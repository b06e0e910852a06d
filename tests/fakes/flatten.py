"""A flattening over fakes: an account's broker and stores, any number of flatteners on them, and time that a test moves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tests.fakes.broker import FakeBroker
from tests.fakes.outside import FakeAlerts, FakeCloserLock
from tests.fakes.rig import DAY, FREE, NOW_MS, make_instrument, make_limits
from tests.fakes.stores import FakeHaltFile, FakeJournal
from velox_core.domain.errors import VeloxError
from velox_core.domain.halts import HaltRecord
from velox_core.domain.market.ticks import Instrument
from velox_core.domain.orders import Actor, Side
from velox_core.flat_proof import FlattenResult, SymbolLine
from velox_core.flatten_ports import EngineWatch, EngineWord, FlattenPorts, FlattenRules, NoEngine
from velox_core.flattening import Flattener
from velox_core.ledger.memory import MemoryLedger
from velox_core.lost_exits import Recalled, recalled
from velox_core.ports import CloserHold
from velox_core.risk.approval import ApprovedOrder

STEP_MS = 250


class FakeEngine:
    """An engine as it is seen from outside. `on_take_over` answers a take-over: True, False, or an error to raise."""

    def __init__(self, **word: Any) -> None:
        self.word = EngineWord(**({"runs": True} | word))
        self.on_take_over: bool | VeloxError = True
        self.taken_over = 0
        self.killed: tuple[int, ...] = ()
        self.looks = 0
        self.hangs = False
        self.beats = True
        self.unseen = False
        self.stalled_pids: list[int] = []

    def look(self, halt_id: str) -> EngineWord:
        self.looks += 1
        word = self.word
        beat = self.looks if self.beats else 0
        if self.unseen:
            raise VeloxError("the lock cannot be read (fake)")
        return replace(word, beat=beat)

    def take_over(self, halt: HaltRecord, *, stalled_pid: int = 0) -> bool:
        self.taken_over += 1
        self.stalled_pids.append(stalled_pid)
        if isinstance(self.on_take_over, VeloxError):
            raise self.on_take_over
        if self.on_take_over:
            self.killed = (self.word.pid,)
            self.word = EngineWord(runs=False)
        return self.on_take_over

    def closer_hangs(self) -> bool:
        return self.hangs


class FlattenRig:
    """An account that is to be flattened. The lock is fresh, as it is for a new process."""

    def __init__(self, engine: EngineWatch | None = None, **instrument_changes: Any) -> None:
        self.broker = FakeBroker()
        self.broker.now_ms = NOW_MS
        self.journal = FakeJournal()
        self.halt_file = FakeHaltFile()
        self.alerts = FakeAlerts()
        self.lock = FakeCloserLock(CloserHold.FRESH)
        self.engine = engine or NoEngine()
        self.latched: list[str] = []
        self.latches_down: set[str] = set()
        self.instrument_changes = instrument_changes
        self.now_ms = NOW_MS
        self.real_ms = 5_000
        self.jump_ms = 0  # by which engine time runs ahead with each step
        self.news: list[str] = []
        self.journals: list[FakeJournal] = []  # of every process so far
        self.unreadable = ""  # why what earlier processes wrote cannot be read
        self._count = 0

    def hold(
        self, symbol: str = "AAA", quantity: int = 10, price_paise: int = 10_000, *, tag: str = "240116E00010000001"
    ) -> None:
        """Have the account hold something that an engine of this system bought or sold. No news of it comes."""
        side = Side.BUY if quantity > 0 else Side.SELL
        broker_order_id = self.broker.foreign(symbol, side, abs(quantity), price_paise, told=False)
        self.broker.book[broker_order_id].tag = tag
        self.broker.trade_list[-1].client_order_id = tag

    def working(self, symbol: str, side: Side, quantity: int = 10, *, tag: str = "240116E00010000002") -> str:
        """Have an order of an engine work. Returns the broker's id."""
        broker_order_id = self.broker.foreign(symbol, side, quantity, 0, works=True)
        self.broker.book[broker_order_id].tag = tag
        return broker_order_id

    def flattener(self, *, lock: FakeCloserLock | None = None, journal: FakeJournal | None = None, **rules: Any) -> Flattener:
        """Return a new flattener on the account."""
        self._count += 1
        values: dict[str, Any] = {
            "trading_date": DAY,
            "limits": make_limits(),
            "schedule": FREE,
            "actor": Actor.COMMAND_LINE,
            "epoch": self._count,
            "halt_id": f"20240116-MANUAL-c{self._count}",
            "reason": "asked",
            "by": "a person",
        }
        self.journals.append(journal or self.journal)
        ports = FlattenPorts(
            broker=self.broker,
            journal=journal or self.journal,
            ledger=MemoryLedger(),
            halt_file=self.halt_file,
            latches={store: self._latch(store) for store in ("ledger", "journal")},
            alerts=self.alerts,
            closer_lock=lock or self.lock,
            monotonic=lambda: self.real_ms / 1_000,
            engine=self.engine,
            instrument=self._instrument,
            recall=self._recall,
        )
        return Flattener(ports, FlattenRules(**(values | rules)))

    def run(
        self,
        flattener: Flattener | None = None,
        *,
        seconds: float = 30.0,
        before: Callable[[int], None] | None = None,
        **rules: Any,
    ) -> FlattenResult:
        """Step until it has ended or so much real time passed. `before` is called with the time before each step."""
        flattener = flattener or self.flattener(**rules)
        until_ms = self.real_ms + int(seconds * 1_000)
        while not flattener.ended and self.real_ms < until_ms:
            if before is not None:
                before(self.now_ms)
            flattener.step(self.now_ms)
            self.news += flattener.news()
            self.now_ms += STEP_MS + self.jump_ms
            self.real_ms += STEP_MS
            self.broker.now_ms = self.now_ms
        return flattener.result()

    def net(self, symbol: str = "AAA") -> int:
        """Return what the broker holds of the day's product."""
        return sum(p.quantity for p in self.positions_of(symbol))

    def positions_of(self, symbol: str) -> list[Any]:
        failing, self.broker.failing = self.broker.failing, set()
        flaky, self.broker.flaky = self.broker.flaky, None
        found = [p for p in self.broker.positions() if p.symbol == symbol and p.product.value == "MIS"]
        self.broker.reads.pop()
        self.broker.failing, self.broker.flaky = failing, flaky
        return found

    @property
    def sent(self) -> list[tuple[str, str, int]]:
        """Return symbol, side and quantity of what was sent."""
        return [(order.symbol, order.side.value, order.quantity) for order in self.broker.placed]

    @property
    def orders(self) -> list[ApprovedOrder]:
        return self.broker.placed

    def line(self, result: FlattenResult, symbol: str = "AAA") -> SymbolLine:
        return next(line for line in result.lines if line.symbol == symbol)

    def _recall(self) -> Recalled:
        if self.unreadable:
            return Recalled(missing=self.unreadable)
        return recalled([(e.kind, e.ts_ms, e.body) for e in journal.committed] for journal in self.journals)

    def _latch(self, store: str) -> Callable[[HaltRecord], None]:
        def latch(record: HaltRecord) -> None:
            if store in self.latches_down:
                raise VeloxError(f"the {store} is down (fake)")
            self.latched.append(store)

        return latch

    def _instrument(self, symbol: str, price_paise: int) -> Instrument:
        return make_instrument(symbol, **self.instrument_changes)
