"""In-memory stores that fail when the episode says so, and the crash that no code of the engine can catch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from velox_core.clock import ReplayClock
from velox_core.domain.errors import JournalUnavailable, LedgerUnavailable, VeloxError
from velox_core.domain.events import Body, EventKind, JournalEvent
from velox_core.domain.halts import HaltRecord
from velox_core.ledger.memory import MemoryLedger
from velox_core.ports import CloserHold, ControlRequest, Severity
from velox_core.risk.ledger import CommitResult, LedgerChange, RiskSnapshot


class Crash(BaseException):
    """The engine process dies here: nothing of it runs any further."""


class Outages:
    """Which stores are down now, switched by the episode; and where the next crash is due."""

    def __init__(self) -> None:
        self.journal = False
        self.ledger = False
        self.halt_file = False
        self.journal_full = False  # it can be read
        self.journal_back_after_crash = False
        self.reply_lost = False  # of the ledger's next change
        self.crash_at = ""

    @property
    def journal_blocked(self) -> bool:
        """Return whether nothing can be written to the journal now."""
        return self.journal or self.journal_full

    def step(self, place: str) -> None:
        """Die here when it is due."""
        if self.crash_at == place:
            self.crash_at = ""
            if self.journal_back_after_crash:
                self.journal = self.journal_back_after_crash = False
            raise Crash(place)


class SimJournal:
    """A journal whose buffer dies with the engine; its committed events do not, nor does what is in the emergency file.

    The file takes what a locked journal does not, as `FallbackJournal` has it; a full disk takes neither. It is imported as
    soon as the journal answers.

    Attributes:
        intents: client order id to strategy, of every intent that is committed.
        known_intents: those in the buffer too.
        filed: client order ids of the intents that are or were in the file.
    """

    def __init__(self, outages: Outages) -> None:
        self.intents: dict[str, str] = {}
        self.known_intents: dict[str, str] = {}
        self.filed: set[str] = set()
        self._newest_halt = 0  # its sequence
        self._filed_count = 0  # how much of the buffer is in the file
        self._left: list[tuple[EventKind, int, Body]] = []  # what a dead engine left in it
        self._outages = outages
        self._committed: list[JournalEvent] = []
        self._buffer: list[tuple[EventKind, int, Body]] = []
        self._bodies: dict[EventKind, list[Body]] = {}  # committed or not, as this process would read them

    def append(self, kind: EventKind, ts_ms: int, body: Body) -> None:
        """Buffer one event."""
        self._buffer.append((kind, ts_ms, body))
        if kind is EventKind.INTENT:
            self.known_intents[str(body["client_order_id"])] = str(body["strategy"])
        self._bodies.setdefault(kind, []).append(body)

    def commit(self) -> None:
        """Make the buffer durable, unless the store is down."""
        if not self._buffer:
            return
        self._outages.step("before commit")
        if self._outages.journal_blocked:
            self._file()
            raise JournalUnavailable("the journal is locked, or its disk full (simulated)")
        self._write(self._left)
        self._write(self._buffer)
        self._filed_count = 0
        self._outages.step("after commit")

    def _file(self) -> None:
        if not self._outages.journal_full:
            self._filed_count = len(self._buffer)
            self.filed.update(str(body["client_order_id"]) for body in self.buffered(EventKind.INTENT))
            self._outages.step("after commit")

    def filed_events(self) -> list[tuple[EventKind, int, Body]]:
        """Return what is in the emergency file: anybody can read it, whatever becomes of the journal."""
        return self._left + self._buffer[: self._filed_count]

    def _write(self, events: list[tuple[EventKind, int, Body]]) -> None:
        for kind, ts_ms, body in events:
            self._committed.append(JournalEvent(len(self._committed) + 1, ts_ms, kind, body, ""))
            if kind is EventKind.INTENT:
                self.intents[str(body["client_order_id"])] = str(body["strategy"])
            elif kind in (EventKind.HALT, EventKind.HALT_CLEARED):
                self._newest_halt = len(self._committed)
        events.clear()

    @property
    def is_unreadable(self) -> bool:
        """Return whether an engine that starts now cannot read what happened."""
        return self._outages.journal or (self._outages.journal_full and bool(self._left))

    def events(self, kinds: Iterable[EventKind] | None = None) -> Iterator[JournalEvent]:
        """Return what is committed."""
        if self.is_unreadable:
            raise JournalUnavailable("the journal is locked, or an emergency file could not be imported (simulated)")
        if not self._outages.journal_blocked:
            self._write(self._left)
        wanted = None if kinds is None else frozenset(kinds)
        return (event for event in list(self._committed) if wanted is None or event.kind in wanted)

    def newest_halt(self) -> int:
        """Return the sequence of the newest halt or clear record that is committed."""
        if self.is_unreadable:
            raise JournalUnavailable("the journal is locked, or an emergency file could not be imported (simulated)")
        return self._newest_halt

    def write_outside(self, kind: EventKind, ts_ms: int, body: Body) -> None:
        """Write one event as another process does, if the store is up."""
        if not self._outages.journal_blocked:
            self._committed.append(JournalEvent(len(self._committed) + 1, ts_ms, kind, body, ""))
            self._bodies.setdefault(kind, []).append(body)
            if kind in (EventKind.HALT, EventKind.HALT_CLEARED):
                self._newest_halt = len(self._committed)

    def lose_buffer(self) -> None:
        """Forget what was neither committed nor filed, as a killed process does."""
        self._left += self._buffer[: self._filed_count]
        self._buffer.clear()
        self._filed_count = 0
        self.known_intents = dict(self.intents)
        self._bodies = {}
        for event in self._committed:
            self._bodies.setdefault(event.kind, []).append(event.body)
        for kind, _, body in self._left:
            self._bodies.setdefault(kind, []).append(body)
            if kind is EventKind.INTENT:
                self.known_intents[str(body["client_order_id"])] = str(body["strategy"])

    def bodies(self, kind: EventKind) -> list[Body]:
        """Return the bodies of a kind, buffered ones included, in the order of their appending. Not to be changed."""
        return self._bodies.get(kind, [])

    def buffered(self, kind: EventKind) -> list[Body]:
        """Return the bodies of a kind that a crash now would lose."""
        return [body for buffered, _, body in self._buffer if buffered is kind]


class SimLedger:
    """A MemoryLedger that can be down, or come back empty."""

    def __init__(self, outages: Outages, monotonic: Callable[[], float]) -> None:
        self._outages = outages
        self._monotonic = monotonic
        self._inner = MemoryLedger(monotonic=monotonic)
        self._lost = False
        self._epoch = 0

    def lose_content(self) -> None:
        """Come back empty: every commit is refused until the ledger is rebuilt."""
        self._inner = MemoryLedger(monotonic=self._monotonic)
        self._lost = True

    def truth(self) -> RiskSnapshot:
        """Return what the store holds, whether it answers or not."""
        return self._inner.snapshot()

    @property
    def lost(self) -> bool:
        """Return whether the content was lost and not rebuilt yet."""
        return self._lost

    def _check(self, *, trusted: bool = True) -> None:
        if self._outages.ledger:
            raise LedgerUnavailable("the ledger does not answer (simulated)")
        if trusted and self._lost:
            raise LedgerUnavailable("the ledger came back empty (simulated)")

    def acquire_lease(self, holder: str) -> int:
        """Hand out an epoch above every earlier one, lost or not."""
        self._check(trusted=False)
        epoch = self._inner.acquire_lease(holder)
        while epoch <= self._epoch:
            self._inner.release_lease(epoch)
            epoch = self._inner.acquire_lease(holder)
        self._epoch = epoch
        return epoch

    def renew_lease(self, epoch: int) -> bool:
        """Prolong the lease."""
        self._check(trusted=False)
        return self._inner.renew_lease(epoch)

    def release_lease(self, epoch: int) -> None:
        """Give the lease back."""
        self._check(trusted=False)
        self._inner.release_lease(epoch)

    def snapshot(self) -> RiskSnapshot:
        """Return the state."""
        self._check()
        return self._inner.snapshot()

    def commit(self, expected_version: int, epoch: int, change: LedgerChange, change_id: str) -> CommitResult:
        """Commit, unless down or untrusted."""
        self._check()
        result = self._inner.commit(expected_version, epoch, change, change_id)
        if self._outages.reply_lost:
            self._outages.reply_lost = False
            self._lost = True
            raise LedgerUnavailable(f"the reply to change {change_id} was lost (simulated)")
        self._outages.step("after claim" if change.put_claim is not None else "after ledger")
        return result

    def latch_halt(self, record: HaltRecord) -> None:
        """Latch."""
        self._check(trusted=False)
        self._inner.latch_halt(record)

    def rebuild(self, snapshot: RiskSnapshot) -> RiskSnapshot:
        """Take the rebuilt content and be trusted again."""
        self._check(trusted=False)
        self._lost = False
        return self._inner.rebuild(snapshot)

    def put_mark(self, key: str, value: str) -> None:
        """Publish."""
        self._check(trusted=False)
        self._inner.put_mark(key, value)

    def get_mark(self, key: str) -> str | None:
        """Read."""
        self._check(trusted=False)
        return self._inner.get_mark(key)


class SimClock:
    """The clock of the machine the engine runs on: the market's, off by what the episode says."""

    def __init__(self, market: ReplayClock) -> None:
        self.ahead_ms_max = 0
        self._market = market
        self._off_ms = 0

    def set_off(self, off_ms: int) -> None:
        """Jump."""
        self._off_ms = off_ms
        self.ahead_ms_max = max(self.ahead_ms_max, off_ms)

    def now_ms(self) -> int:
        """Return what the machine believes."""
        return self._market.now_ms() + self._off_ms

    def monotonic(self) -> float:
        """Return seconds that no jump touches."""
        return self._market.monotonic()


class CloserHolder:
    """Who has the account's closer's lock, and who had it last.

    `look_is_due`: the engine was told FRESH and sent nothing since.
    """

    def __init__(self) -> None:
        self.holder = ""
        self.last = ""
        self.look_is_due = False


class SimCloserLock:
    """The closer's lock, as one engine process has it."""

    def __init__(self, shared: CloserHolder, name: str) -> None:
        self._shared = shared
        self._name = name

    def take(self) -> CloserHold:
        """Take it if nobody has it."""
        shared = self._shared
        if shared.holder not in ("", self._name):
            return CloserHold.ELSEWHERE
        is_fresh = shared.last != self._name
        shared.holder = shared.last = self._name
        shared.look_is_due = shared.look_is_due or is_fresh
        return CloserHold.FRESH if is_fresh else CloserHold.UNBROKEN

    def give_back(self) -> None:
        """Give it back, or lose it with the process."""
        if self._shared.holder == self._name:
            self._shared.holder = ""

    @property
    def holder(self) -> str:
        """Return who has it."""
        return self._shared.holder


class SimHaltFile:
    """Halt records on a disk that can be full."""

    def __init__(self, outages: Outages) -> None:
        self._outages = outages
        self._records: list[HaltRecord] = []

    def records(self) -> list[HaltRecord]:
        """Return all records; reading works on a full disk."""
        return list(self._records)

    def append(self, record: HaltRecord) -> None:
        """Add one."""
        if self._outages.halt_file:
            raise VeloxError("the disk is full (simulated)")
        self._records.append(record)

    def stamp(self) -> int:
        """Return how many there are."""
        return len(self._records)


class SimControl:
    """Requests put in by the episode; nobody watches."""

    def __init__(self) -> None:
        self.requests: list[ControlRequest] = []

    def poll(self) -> ControlRequest | None:
        """Return the next request."""
        return self.requests.pop(0) if self.requests else None

    def publish(self, status: Mapping[str, object]) -> None:
        """Show it to nobody."""


class SimAlerts:
    """Remembers every alert."""

    def __init__(self) -> None:
        self.sent: list[tuple[Severity, str, str]] = []

    def send(self, severity: Severity, title: str, text: str) -> None:
        """Remember one."""
        self.sent.append((severity, title, text))

    def titles(self) -> list[str]:
        """Return the titles so far."""
        return [title for _, title, _ in self.sent]
