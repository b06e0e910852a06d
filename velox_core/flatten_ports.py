"""What a flattening from outside the engine works with: its ports, its rules, and how it sees the account's engine.

- The engine is known by its lock and by what it publishes; nothing here reads either, the composition root does.
- What a closer journals is what it does itself: what it finds of others is the engine's to write down.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Final, Protocol

from velox_core.closing_progress import NO_PROGRESS, EngineProgress
from velox_core.domain.charges import ChargeSchedule
from velox_core.domain.events import Body, EventKind, JournalEvent
from velox_core.domain.halts import HaltKind, HaltRecord
from velox_core.domain.market.ticks import Instrument
from velox_core.domain.orders import Actor
from velox_core.domain.positions import ADOPTED_TRADE
from velox_core.lost_exits import Recalled
from velox_core.ports import Alerts, Broker, CloserLock, HaltFile, Journal, RiskLedger, SendQueue
from velox_core.risk.limits import RiskLimits

BOUND_MS: Final = 180_000  # above the search for an UNKNOWN order
_OWN_KINDS: Final = frozenset({EventKind.INTENT, EventKind.ORDER, EventKind.DECISION, EventKind.HALT, EventKind.EXIT_PLAN})


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineWord:
    """What can be seen of the account's engine from outside.

    Attributes:
        runs: whether a process has the engine's lock.
        acknowledges: whether it says that it acts on the halt that was asked about.
        says_flat: whether it says that it holds nothing and works nothing.
        pid: of that process, 0 when it is not known.
        beat: any value that changes with each status it writes.
        progress: what it says of its closing.
    """

    runs: bool
    acknowledges: bool = False
    says_flat: bool = False
    pid: int = 0
    beat: object = None
    progress: EngineProgress = NO_PROGRESS


class EngineWatch(Protocol):
    """The account's engine, seen from outside. `killed` are the ids of the processes that the last take-over ended."""

    killed: tuple[int, ...]

    def look(self, halt_id: str) -> EngineWord:
        """Return what it says now. Raises VeloxError when it cannot be found out whether one runs."""
        ...

    def take_over(self, halt: HaltRecord, *, stalled_pid: int = 0) -> bool:
        """Free the account's locks from a process that does not answer, within bounds: see `take_over`.

        Args:
            halt: the one that was latched.
            stalled_pid: a process that answers and closes nothing: it is ended all the same; 0 for none.
        Returns: True when the locks are free, False when the holder answers after all. Raises VeloxError when neither.
        """
        ...

    def closer_hangs(self) -> bool:
        """Return whether the process that has the closer's lock has shown no sign of life for long."""
        ...


class NoEngine:
    """An account without an engine: whoever flattens it is alone, but for other closers that live."""

    killed: tuple[int, ...] = ()

    def look(self, halt_id: str) -> EngineWord:
        """Return that none runs."""
        return EngineWord(runs=False)

    def take_over(self, halt: HaltRecord, *, stalled_pid: int = 0) -> bool:
        """Return that the locks are free."""
        return True

    def closer_hangs(self) -> bool:
        """Return that a closer lives."""
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class FlattenPorts:
    """The outside of one flattening.

    Attributes:
        broker: the account's.
        journal: durable without SQL; it is given what is sent and done here, and nothing else.
        ledger: never asked: exits do not need it, and this process has no lease. A halt goes there through `latches`.
        halt_file: takes the halt first.
        latches: the other halt stores by name, each called before anything is sent, and again while it raises.
        alerts: told what a person must know.
        closer_lock: the account's.
        monotonic: real seconds that never go back: the bounds about processes.
        engine: the account's engine, seen from outside.
        recall: reads what earlier processes have on record, once the closer's lock is ours; never raises, bounded.
        sends: of a broker that is called off the caller's thread; None when sends are inline.
        instrument: what is known of a symbol, given the broker's last price in paise (0 for none); None for nothing.
    """

    broker: Broker
    journal: Journal
    ledger: RiskLedger
    halt_file: HaltFile
    alerts: Alerts
    closer_lock: CloserLock
    monotonic: Callable[[], float]
    engine: EngineWatch = field(default_factory=NoEngine)
    latches: Mapping[str, Callable[[HaltRecord], None]] = field(default_factory=dict)
    recall: Callable[[], Recalled] = Recalled
    sends: SendQueue | None = None
    instrument: Callable[[str, int], Instrument | None] = lambda symbol, price_paise: None


@dataclass(frozen=True, slots=True, kw_only=True)
class FlattenRules:
    """Why, as whom and within which bounds.

    Attributes:
        trading_date: of the run; halts and ids belong to it.
        limits, schedule: the account's; charges are booked by the schedule.
        actor, epoch, first_sequence: make the client order ids of this process unlike any other's.
        halt_id, kind, reason, by: of the halt that is latched; the id is new, the kind one that closes.
        bound_ms: real time after which it is NOT_FLAT.
        request_ms: real; so long a request of a process that is gone may still be on its way; no FLAT before.
        close_foreign: whether positions that this system never opened are closed too.
    """

    trading_date: date
    limits: RiskLimits
    schedule: ChargeSchedule
    actor: Actor
    epoch: int
    halt_id: str
    reason: str
    by: str
    kind: HaltKind = HaltKind.MANUAL
    first_sequence: int = 1
    bound_ms: int = BOUND_MS
    request_ms: int = 0
    close_foreign: bool = True


class OwnEvents:
    """A journal that keeps what one closer does, and leaves to the engine what it finds of others."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._own: set[str] = set()  # orders decided here: two closers that begin at one time share their ids' prefix

    def append(self, kind: EventKind, ts_ms: int, body: Body) -> None:
        """Add one event, if it is about our own orders, a position that we found, or a halt."""
        about = str(body.get("client_order_id", ""))
        if kind is EventKind.INTENT or kind is EventKind.DECISION:
            self._own.add(about)
        is_own = about in self._own if about else kind is not EventKind.FILL
        found = kind is EventKind.FILL and str(body["trade_id"]).startswith(ADOPTED_TRADE)
        if found or (is_own and (kind in _OWN_KINDS or kind is EventKind.FILL)):
            self._journal.append(kind, ts_ms, body)

    def commit(self) -> None:
        """Make it durable. Raises JournalUnavailable."""
        self._journal.commit()

    def events(self, kinds: Iterable[EventKind] | None = None) -> Iterator[JournalEvent]:
        """Return what the journal holds. Raises JournalUnavailable."""
        return self._journal.events(kinds)

    def newest_halt(self) -> int:
        """Return the sequence of the journal's newest halt or clear record. Raises JournalUnavailable."""
        return self._journal.newest_halt()
