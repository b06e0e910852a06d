"""The journal as one who sends uses it: durable before a request leaves, its faults told once.

- An entry whose intent cannot be made durable does not leave. An exit leaves all the same; its events stay buffered.
- An id under which the journal knows another order never leaves, whatever it is.
"""

from __future__ import annotations

import logging

from velox_core.domain.errors import IntentRefused, JournalUnavailable
from velox_core.domain.orders import Order
from velox_core.entry_faults import EntryFaults
from velox_core.ports import Journal
from velox_core.risk.gate import Readiness

_log = logging.getLogger("velox.orders")


class KeptBack:
    """Why an order does not leave.

    `is_foreign_id`: the journal knows another order under its id, so nothing is journaled of it. `frees_slot`: its claim is
    certain to hold nothing any more.
    """

    __slots__ = ("frees_slot", "is_foreign_id", "reason")

    def __init__(self, reason: str, *, frees_slot: bool = True, is_foreign_id: bool = False) -> None:
        self.reason = reason
        self.frees_slot = frees_slot
        self.is_foreign_id = is_foreign_id


class DurableJournal:
    """Commits of one engine's journal.

    Args:
        journal: what was appended to it is made durable here.
        faults, readiness: entries are refused while it does not answer.
    """

    def __init__(self, journal: Journal, faults: EntryFaults, readiness: Readiness) -> None:
        self._journal = journal
        self._faults = faults
        self._readiness = readiness

    def commit(self) -> bool:
        """Make what was appended durable. Returns False, and has entries refused, when the journal does not answer."""
        try:
            self._journal.commit()
        except IntentRefused as error:  # of an exit that left while the journal was away; all else is durable
            _log.error("[JOURNAL] an intent that was sent is refused: %s", error)
        except JournalUnavailable as error:
            self._faults.journal_failed(error)
            return False
        if self._readiness.journal_fault:
            self._faults.journal_is_back()
        return True

    def commit_intent(self, order: Order, now_ms: int) -> KeptBack | None:
        """Make an order's intent durable. Returns why the order may not leave, or None."""
        try:
            self._journal.commit()
        except IntentRefused as error:
            if order.client_order_id in error.durable_ids:  # an older exit's intent is the one refused
                return KeptBack(f"nothing was sent: {error}") if order.is_entry else None
            _log.error("[JOURNAL] %s is not sent: %s", order.client_order_id, error, extra={"engine_ms": now_ms})
            return KeptBack(str(error), is_foreign_id=True)
        except JournalUnavailable as error:
            self._faults.journal_failed(error)
            reason = "the intent could not be journaled; nothing was sent"
            return KeptBack(reason, frees_slot=False) if order.is_entry else None
        if self._readiness.journal_fault:
            self._faults.journal_is_back()
        return None
