"""What stops every entry until it is over: a store or the lease that is lost, a position without a price.

- Each change is told to a person once: when it begins, and when it is over.
- Nothing here touches an exit.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from velox_core.domain.errors import JournalUnavailable, LedgerUnavailable
from velox_core.ports import Alerts, Severity
from velox_core.risk.gate import Readiness

_ledger_log = logging.getLogger("velox.risk")
_journal_log = logging.getLogger("velox.orders")


class EntryFaults:
    """The faults of one engine, as the gate's `Readiness` shows them.

    Args:
        readiness: where they are kept.
        alerts: who is told; None tells nobody (the log has it all the same).
    """

    def __init__(self, readiness: Readiness, alerts: Alerts | None) -> None:
        self._readiness = readiness
        self.alerts = alerts
        self._ledger_is_told = False  # a ledger not yet read at the start is a fault that nobody needs to hear of
        self._unmarked: dict[str, bool] = {}  # symbols outside the feed that traded: whether held now
        self._unpriced: frozenset[str] = frozenset()  # held by the broker beyond our books, without any price

    def ledger_failed(self, error: LedgerUnavailable) -> None:
        """Refuse entries until the ledger was read or rebuilt."""
        self._readiness.ledger_fault = str(error)
        if not self._ledger_is_told:
            self._ledger_is_told = True
            _ledger_log.error("[LEDGER] unavailable: %s; entries are refused, exits go on", error)
            self.tell(Severity.CRITICAL, "Risk ledger unavailable", f"{error}. Entries are refused, exits go on.")

    def ledger_is_back(self) -> None:
        """Trust the ledger: it was read, or rebuilt from our books."""
        self._readiness.ledger_fault = ""
        if self._ledger_is_told:
            self._ledger_is_told = False
            self.tell(Severity.WARNING, "Risk ledger is back", "It agrees with our books; entries are possible again.")

    def lease_lost(self, epoch: int, why: str) -> None:
        """Refuse entries for good: another engine has the lease of our `epoch`."""
        if not self._readiness.fenced:
            self._readiness.fenced = True
            text = f"the lease of epoch {epoch} is no longer ours: {why}; no entries any more"
            _ledger_log.error("[LEDGER] %s", text)
            self.tell(
                Severity.CRITICAL, "Lease lost", f"{text}. Exits go on, unless another engine has it: then that one closes."
            )

    def journal_failed(self, error: JournalUnavailable) -> None:
        """Refuse entries until the journal takes events again."""
        if not self._readiness.journal_fault:
            _journal_log.error("[JOURNAL] unavailable: %s; entries are refused, exits go on", error)
            self.tell(Severity.CRITICAL, "Journal unavailable", f"{error}. Entries are refused, exits go on.")
        self._readiness.journal_fault = str(error) or "it does not answer"

    def journal_is_back(self) -> None:
        """Allow entries again, as far as the journal is concerned."""
        self._readiness.journal_fault = ""
        self.tell(Severity.WARNING, "Journal is back", "What was kept for it is written; entries are possible again.")

    def note_unmarked(self, symbol: str, held: int) -> None:
        """Take the signed shares of a symbol that the feed does not price: while any are held, entries are refused."""
        if held and symbol not in self._unmarked:
            text = f"{held} {symbol} are held and the feed has no price of it: the day's loss cannot be known"
            self.tell(Severity.CRITICAL, f"{symbol} has no price", f"{text}. Entries are refused until it is flat.")
        self._unmarked[symbol] = held != 0
        self._readiness.unmarked = ", ".join(name for name, is_held in self._unmarked.items() if is_held)

    def note_unpriced(self, held: Mapping[str, int]) -> None:
        """Take the signed shares that the broker holds beyond our books and of which nobody knows a price: all there are."""
        for symbol in self._unpriced - held.keys():
            self.note_unmarked(symbol, 0)
        for symbol, quantity in held.items():
            self.note_unmarked(symbol, quantity)
        self._unpriced = frozenset(held)

    def tell(self, severity: Severity, title: str, text: str) -> None:
        """Send an alert, if there is anybody to tell."""
        if self.alerts is not None:
            self.alerts.send(severity, title, text)
