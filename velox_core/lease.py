"""The account's lease as one engine holds it: what was confirmed a moment ago still holds when a request leaves.

- The last thing before a request leaves is a look at the age of the confirmation. A process that was stopped anywhere
  between its decision and that look finds an old one, also where another host took the lease meanwhile.
- An entry with an old confirmation does not leave. An exit or cancel has the lease confirmed first: one that is lost keeps
  it back for good, a ledger that does not answer keeps it back never.
- `SEND_AGE_SECONDS_MAX` and the longest request together are shorter than the lease's life: what leaves has arrived, or
  never will, before another host can have the lease. So whoever takes it over then reads all of it in the broker's book.
- The age counts from before the question, in seconds that go on while this process is stopped and this machine sleeps.
- An engine that got no lease at its start (the ledger was down) sends no entry; its exits go by the kernel's lock alone.
- Called from the loop and from sender threads; one of them asks, the others wait for its answer.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from velox_core.domain.errors import LedgerUnavailable
from velox_core.ports import CloserHold, CloserLock, RiskLedger

LEASE_SECONDS: Final = 15.0  # so long a lease lives without a renewal
REQUEST_SECONDS_MAX: Final = 10.0  # the longest time-out of a request to a live broker
SEND_AGE_SECONDS_MAX: Final = 4.0  # with a request's longest time still below the lease's life
DECIDE_AGE_SECONDS_MAX: Final = 1.0  # older ones are renewed before an entry is decided on
NEVER: Final = float("-inf")

_BOOT_CLOCK: Final[int] = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # the second where the first is not known
_TAKEN_OVER: Final = "not sent: another engine took the lease over"

_log: Final = logging.getLogger("velox.risk")


def seconds_since_boot() -> float:
    """Return seconds that never go back, and go on while the process is stopped or the machine sleeps."""
    return time.clock_gettime(_BOOT_CLOCK)


class HeldLease:
    """The lease of one epoch.

    Args:
        ledger, epoch: where the lease is, and under which epoch it was taken.
        confirmed: `seconds` from before it was taken; NEVER for an engine that got none.
        seconds: a clock that goes on while this process is stopped.
    """

    def __init__(
        self, ledger: RiskLedger, epoch: int, *, confirmed: float, seconds: Callable[[], float] = seconds_since_boot
    ) -> None:
        self._ledger = ledger
        self._epoch = epoch
        self._confirmed = confirmed
        self._was_had = confirmed != NEVER
        self._seconds = seconds
        self._lost = False
        self._asking = threading.Lock()

    def renew(self) -> bool:
        """Prolong the lease. Returns False once it is not ours. Raises LedgerUnavailable."""
        with self._asking:
            return self._renew()

    @property
    def is_due(self) -> bool:
        """Return whether it is to be renewed before an entry is decided on."""
        return self._seconds() - self._confirmed > DECIDE_AGE_SECONDS_MAX

    @property
    def is_out_of_sight(self) -> bool:
        """Return whether another host may have had it for all we know: its life is over, and nobody could be asked."""
        return self._was_had and self._seconds() - self._confirmed > LEASE_SECONDS

    @property
    def is_lost(self) -> bool:
        """Return whether another engine took it."""
        return self._lost

    def lose(self) -> None:
        """Take it for lost: the ledger named a later epoch."""
        self._lost = True

    def withholds(self, *, entry: bool) -> str:
        """Return why a request may not leave now, '' when it may. Asks the ledger only for an exit, where it must."""
        if self._lost:
            return _TAKEN_OVER
        age_seconds = self._seconds() - self._confirmed
        if age_seconds <= SEND_AGE_SECONDS_MAX:
            return ""
        if entry:
            return f"not sent: the lease was not confirmed for {age_seconds:.1f} s" if self._was_had else "not sent: no lease"
        return self._confirm_for_exit() if self._was_had else ""

    def _confirm_for_exit(self) -> str:
        with self._asking:
            if not self._lost and self._seconds() - self._confirmed > SEND_AGE_SECONDS_MAX:
                try:
                    self._renew()
                except LedgerUnavailable as error:
                    _log.warning("[LEDGER] an exit leaves with a lease that cannot be confirmed: %s", error)
            return _TAKEN_OVER if self._lost else ""

    def _renew(self) -> bool:
        if self._lost:
            return False
        asked = self._seconds()
        is_ours = self._ledger.renew_lease(self._epoch)
        if is_ours:
            self._confirmed = asked
        elif self._was_had:
            self._lost = True
        return is_ours


class LeasedCloser:
    """A closer that must still hold the account's lease: an engine of another host may have taken over during a pause.

    Args:
        lock: the closer's lock of this host.
        lease: the account's; it was had.
        seconds: the clock that the lease goes by.

    A ledger that does not answer refuses no exit. But once the lease's life is over another host may have closed, so until
    the ledger answers the book is read (FRESH) before an exit, at most once in each such life.
    """

    def __init__(self, lock: CloserLock, lease: HeldLease, *, seconds: Callable[[], float] = seconds_since_boot) -> None:
        self._lock = lock
        self._lease = lease
        self._seconds = seconds
        self._looked = NEVER

    def take(self) -> CloserHold:
        """Take the lock if nobody has it and the lease is ours. One that is held stays so: an exit may be on its way."""
        if self._lease.withholds(entry=False):
            return CloserHold.ELSEWHERE
        hold = self._lock.take()
        if hold is CloserHold.UNBROKEN and self._lease.is_out_of_sight and self._seconds() - self._looked > LEASE_SECONDS:
            self._looked = self._seconds()
            return CloserHold.FRESH
        return hold

    def give_back(self) -> None:
        """Give the lock back."""
        self._lock.give_back()

    @property
    def holder(self) -> str:
        """Return who closes instead, for people."""
        return "an engine that took the lease over" if self._lease.is_lost else self._lock.holder
