"""Journal, ledger and halt file that fail when they are told to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from velox_core.domain.errors import IntentRefused, JournalUnavailable, LedgerUnavailable, VeloxError
from velox_core.domain.events import Body, EventKind, JournalEvent
from velox_core.domain.halts import HaltRecord
from velox_core.ledger.memory import MemoryLedger
from velox_core.risk.ledger import CommitResult, Fenced, LedgerChange, RiskSnapshot


class FakeJournal:
    """A journal in memory. `error` is raised by the next commits; `refuse_once` by one; `unreadable` by reads.

    `refuse_older` makes the next commit refuse an intent that is not among what the test appended.
    """

    def __init__(self) -> None:
        self.committed: list[JournalEvent] = []
        self.buffer: list[tuple[EventKind, int, Body]] = []
        self.error: JournalUnavailable | None = None
        self.refuse_once: JournalUnavailable | None = None
        self.refuse_older = False
        self.unreadable = False
        self.commits = 0

    def append(self, kind: EventKind, ts_ms: int, body: Body) -> None:
        self.buffer.append((kind, ts_ms, body))

    def commit(self) -> None:
        self.commits += 1
        if self.error is not None:
            raise self.error
        if self.refuse_older:
            self.refuse_older = False
            durable = [str(body["client_order_id"]) for kind, _, body in self.buffer if kind is EventKind.INTENT]
            self.commit()
            raise IntentRefused("an older intent is refused (fake)", durable)
        if self.refuse_once is not None:
            error, self.refuse_once = self.refuse_once, None
            self.buffer.clear()
            raise error
        for kind, ts_ms, body in self.buffer:
            self.committed.append(JournalEvent(len(self.committed) + 1, ts_ms, kind, body, ""))
        self.buffer.clear()

    def events(self, kinds: Iterable[EventKind] | None = None) -> Iterator[JournalEvent]:
        if self.unreadable:
            raise JournalUnavailable("the journal cannot be read (fake)")
        wanted = frozenset(EventKind if kinds is None else kinds)
        return (event for event in list(self.committed) if event.kind in wanted)

    def newest_halt(self) -> int:
        if self.unreadable:
            raise JournalUnavailable("the journal cannot be read (fake)")
        return max((e.sequence for e in self.committed if e.kind in (EventKind.HALT, EventKind.HALT_CLEARED)), default=0)

    def bodies(self, kind: EventKind) -> list[Body]:
        """Return the bodies of one kind, committed and buffered, oldest first."""
        return [e.body for e in self.committed if e.kind is kind] + [body for k, _, body in self.buffer if k is kind]

    @property
    def length(self) -> int:
        return len(self.committed) + len(self.buffer)


class FakeLedger:
    """A MemoryLedger that can be down, fence, conflict, or lose a reply.

    `down` makes every call fail. `conflicts` is how many of the next commits meet a commit of somebody else, made by
    `rival` if it is given. `fenced_by` answers Fenced. `lose_reply` applies the next commit and then fails.
    """

    def __init__(self, snapshot: RiskSnapshot | None = None, monotonic: Callable[[], float] = lambda: 0.0) -> None:
        self.inner = MemoryLedger(snapshot, monotonic=monotonic)
        self.down = False
        self.latch_down = False
        self.conflicts = 0
        self.rival: Callable[[MemoryLedger], None] | None = None
        self.fenced_by = 0
        self.lose_reply = False
        self.commits: list[tuple[str, LedgerChange]] = []
        self.rebuilds = 0

    def _check(self) -> None:
        if self.down:
            raise LedgerUnavailable("the ledger does not answer (fake)")

    def acquire_lease(self, holder: str) -> int:
        self._check()
        return self.inner.acquire_lease(holder)

    def renew_lease(self, epoch: int) -> bool:
        self._check()
        return self.inner.renew_lease(epoch)

    def release_lease(self, epoch: int) -> None:
        self._check()
        self.inner.release_lease(epoch)

    def snapshot(self) -> RiskSnapshot:
        self._check()
        return self.inner.snapshot()

    def commit(self, expected_version: int, epoch: int, change: LedgerChange, change_id: str) -> CommitResult:
        self._check()
        if self.fenced_by:
            return Fenced(self.fenced_by)
        if self.conflicts:
            self.conflicts -= 1
            if self.rival is not None:
                self.rival(self.inner)
            else:
                current = self.inner.snapshot()
                self.inner.commit(current.version, epoch, LedgerChange(), f"rival-{current.version}")
        self.commits.append((change_id, change))
        result = self.inner.commit(expected_version, epoch, change, change_id)
        if self.lose_reply:
            self.lose_reply = False
            raise LedgerUnavailable("the reply was lost (fake)")
        return result

    def latch_halt(self, record: HaltRecord) -> None:
        self._check()
        if self.latch_down:
            raise LedgerUnavailable("the halt was not taken (fake)")
        self.inner.latch_halt(record)

    def rebuild(self, snapshot: RiskSnapshot) -> RiskSnapshot:
        self._check()
        self.rebuilds += 1
        return self.inner.rebuild(snapshot)

    def put_mark(self, key: str, value: str) -> None:
        self._check()
        self.inner.put_mark(key, value)

    def get_mark(self, key: str) -> str | None:
        self._check()
        return self.inner.get_mark(key)


class FakeHaltFile:
    """Halt records in a list; `full` refuses new ones."""

    def __init__(self, *records: HaltRecord) -> None:
        self.kept = list(records)
        self.full = False

    def records(self) -> list[HaltRecord]:
        return list(self.kept)

    def append(self, record: HaltRecord) -> None:
        if self.full:
            raise VeloxError("the disk is full (fake)")
        self.kept.append(record)

    def stamp(self) -> tuple[HaltRecord, ...]:
        return tuple(self.kept)  # not their number: a file that was lost and written again may have as many
