"""The three halt stores as one: what they hold, whether there is news, and how a record gets into all of them.

- Read together, the strictest rules: a halt that any of them holds, and does not itself clear, is active.
- A failed read is never "no halt": the reading says so, and proves nothing cleared.
- What one store lacks is written to it, so that any one of them left is enough.
- Looking for news is cheap: one `stat` of the halt file and one read of the ledger, and every `JOURNAL_LOOK_SECONDS` the
  sequence of the newest halt record in the journal, where a record that it alone could take is found.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from velox_core.domain.errors import JournalUnavailable, LedgerUnavailable, VeloxError
from velox_core.domain.events import EventKind
from velox_core.domain.halts import HaltRecord, active_halts, named_ids
from velox_core.ports import HaltFile, Journal
from velox_core.risk_manager import RiskManager

JOURNAL_LOOK_SECONDS = 5.0  # monotonic: at most this often the journal is asked for its newest halt record

_log = logging.getLogger("velox.emergency")


@dataclass(frozen=True, slots=True, kw_only=True)
class HaltReading:
    """What the three stores held at one moment.

    Attributes:
        active: halts by id: the union of what each store holds active.
        cleared: ids that a clear record in the file or the journal names.
        in_file, in_journal: ids that were latched there, cleared or not.
        in_ledger: ids that are active there.
        journal_problem, ledger_problem: why that store could not be read, '' when it was.
    """

    active: dict[str, HaltRecord]
    cleared: frozenset[str] = frozenset()
    in_file: frozenset[str] = frozenset()
    in_journal: frozenset[str] = frozenset()
    in_ledger: frozenset[str] = frozenset()
    used_ids: frozenset[str] = field(default_factory=frozenset)
    journal_problem: str = ""
    ledger_problem: str = ""

    def proves_cleared(self, halt_id: str) -> bool:
        """Return whether a clear record ended a halt everywhere. A reading with a gap proves nothing."""
        is_whole = not self.journal_problem and not self.ledger_problem
        return is_whole and halt_id in self.cleared and halt_id not in self.active


class HaltStores:
    """The stores of one engine.

    Args:
        halt_file, journal: two of the stores.
        risk_manager: through which the ledger is reached.
        commit_journal: makes durable what was appended to the journal; False when it could not.
        monotonic: seconds that never go back, for the distance between two looks at the journal.
    """

    def __init__(
        self,
        *,
        halt_file: HaltFile,
        journal: Journal,
        risk_manager: RiskManager,
        commit_journal: Callable[[], bool],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._file = halt_file
        self._journal = journal
        self._risk = risk_manager
        self._commit_journal = commit_journal
        self._monotonic = monotonic
        self._newest_in_journal = 0  # sequence of the newest record at the last reading
        self._next_journal_look = 0.0  # monotonic
        self._file_stamp: object = None
        self._ledger_halts: tuple[HaltRecord, ...] = ()

    def has_news(self) -> bool:
        """Return whether a store changed since the last reading, as far as it was due to be looked at.

        A ledger that fails is a fault for entries. A journal that fails is no news: a failed commit is such a fault already.
        """
        self._risk.refresh()
        return (
            self._file_stamp is None
            or self._file.stamp() != self._file_stamp
            or self._risk.ledger_halts != self._ledger_halts
            or self._journal_has_news()
        )

    def _journal_has_news(self) -> bool:
        now = self._monotonic()
        if now < self._next_journal_look:
            return False
        self._next_journal_look = now + JOURNAL_LOOK_SECONDS
        try:
            return self._journal.newest_halt() > self._newest_in_journal
        except JournalUnavailable as error:
            _log.debug("no look at the journal's halts: %s", error)
            return False

    def read_again(self) -> None:
        """Make the next look find news."""
        self._file_stamp = None

    def read(self) -> HaltReading:
        """Read all three as they are now; the ledger as it was last seen."""
        self._file_stamp = self._file.stamp()  # before the content: what comes meanwhile is news
        self._ledger_halts = in_ledger = self._risk.ledger_halts
        in_file = self._file.records()
        in_journal, journal_problem = self._read_journal()
        active = {halt.halt_id: halt for halt in active_halts(in_file)}
        active.update((halt.halt_id, halt) for halt in in_ledger)
        active.update((halt.halt_id, halt) for halt in active_halts(in_journal))
        return HaltReading(
            active=active,
            cleared=frozenset(record.clears for record in (*in_file, *in_journal) if record.clears),
            in_file=frozenset(record.halt_id for record in in_file if not record.clears),
            in_journal=frozenset(record.halt_id for record in in_journal if not record.clears),
            in_ledger=frozenset(halt.halt_id for halt in in_ledger),
            used_ids=frozenset(named_ids((*in_file, *in_journal, *in_ledger))),
            journal_problem=journal_problem,
            ledger_problem=self._risk.readiness.ledger_fault,
        )

    def _read_journal(self) -> tuple[list[HaltRecord], str]:
        try:
            events = list(self._journal.events((EventKind.HALT, EventKind.HALT_CLEARED)))
            self._newest_in_journal = events[-1].sequence if events else 0
            return [HaltRecord.from_body(dict(event.body)) for event in events], ""
        except (JournalUnavailable, ValueError, KeyError) as error:
            return [], f"the journal's halt records cannot be read: {error}"

    def latch(self, record: HaltRecord) -> list[str]:
        """Write a halt to all three, the file first. Returns the names of those that did not take it, with why."""
        failed = []
        try:
            self._file.append(record)
        except VeloxError as error:
            failed.append(f"the halt file: {error}")
        self._append(record)
        if not self._commit_journal():
            failed.append("the journal")
        try:
            self._risk.latch(record)
        except LedgerUnavailable as error:
            failed.append(f"the ledger: {error}")
        return failed

    def clear(self, halt: HaltRecord, record: HaltRecord) -> str:
        """Write a clear record to one store after the other, and stop at the first that does not take it.

        The others then hold the halt as before, also when what the journal kept buffered becomes durable later. The file
        comes last, so it must hold the halt first: a full disk may have kept it out.
        Returns: '' or the store that did not take it, with why.
        """
        if not halt.is_damage and all(kept.halt_id != halt.halt_id for kept in self._file.records()):
            try:
                self._file.append(halt)
            except VeloxError as error:
                return f"the halt file: {error}"
        self._append(record)
        if not self._commit_journal():
            return "the journal"
        try:
            self._risk.latch(record)
        except LedgerUnavailable as error:
            return f"the ledger: {error}"
        try:
            self._file.append(record)
        except VeloxError as error:
            return f"the halt file: {error}"
        return ""

    def complete(self, reading: HaltReading, halts: list[HaltRecord], *, although_unread: bool) -> None:
        """Write halts to the stores that lack them.

        Args:
            reading: what the stores hold.
            halts: active ones. Left out are those on their way out, which a store has cleared, and what the halt file
                finds of its own damage, which is no record.
            although_unread: journal them also when the journal could not be read: twice is once.
        """
        records = [halt for halt in halts if not halt.is_damage and halt.halt_id not in reading.cleared]
        for halt in records:
            if halt.halt_id not in reading.in_file:
                self._try(halt, "halt file", self._file.append)
            if not reading.ledger_problem and halt.halt_id not in reading.in_ledger:
                self._try(halt, "ledger", self._risk.latch)
        if reading.journal_problem and not although_unread:
            return
        missing = [halt for halt in records if halt.halt_id not in reading.in_journal]
        for halt in missing:
            self._append(halt)
        if missing:
            self._commit_journal()

    def _append(self, record: HaltRecord) -> None:
        kind = EventKind.HALT_CLEARED if record.clears else EventKind.HALT
        self._journal.append(kind, record.at_ms, dict(record.to_body()))

    @staticmethod
    def _try(halt: HaltRecord, store: str, write: Callable[[HaltRecord], None]) -> None:
        try:
            write(halt)
        except VeloxError as error:
            _log.error("halt %s could not be copied to the %s: %s", halt.halt_id, store, error)
