"""The risk ledger inside one process: for replays, sweeps and tests.

- The same meaning as on Redis, held to it by one contract suite: fence, idempotent change ids, conflict, halt.
- The hot path keeps the snapshot object and compares integers; nothing is serialised.
- Threads may share one ledger: each call is atomic.
- Content lives as long as the object; it cannot be lost, so it is usable without a first `rebuild`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from velox_core.domain.errors import LedgerUnavailable, VeloxError
from velox_core.domain.halts import HaltRecord, active_halts
from velox_core.lease import LEASE_SECONDS
from velox_core.risk.ledger import (
    CommitResult,
    Committed,
    Conflict,
    Fenced,
    LedgerChange,
    RiskSnapshot,
    apply_change,
    replace_snapshot,
)


class MemoryLedger:
    """One account's shared limits for one date, in memory.

    Args:
        snapshot: the state to begin with; its halts are latched. None is an empty day.
        lease_seconds: how long a lease lives without a renewal.
        monotonic: seconds that never go back.
    """

    def __init__(
        self,
        snapshot: RiskSnapshot | None = None,
        *,
        lease_seconds: float = LEASE_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        start = RiskSnapshot() if snapshot is None else snapshot
        self._lock = threading.Lock()
        self._generation = 1
        self._records: list[HaltRecord] = list(start.halts)
        self._known = {_record_key(record) for record in start.halts}
        self._snapshot = replace_snapshot(start, generation="memory-1", halts=active_halts(self._records))
        self._applied: dict[str, int] = {}
        self._marks: dict[str, str] = {}
        self._lease_seconds = lease_seconds
        self._monotonic = monotonic
        self._holder = ""
        self._lease_until = 0.0

    def commit(self, expected_version: int, epoch: int, change: LedgerChange, change_id: str) -> CommitResult:
        """Apply a change if version and epoch still hold, a fact whatever the version. A known `change_id` changes nothing."""
        with self._lock:
            current = self._snapshot
            if epoch != current.epoch:
                return Fenced(current.epoch)
            applied = self._applied
            if change_id in applied:
                return Committed(applied[change_id])
            if (expected_version != current.version and not change.is_fact) or (current.halts and change.opens_risk):
                return Conflict(current)
            self._snapshot = fresh = apply_change(current, change)
            applied[change_id] = fresh.version
            return Committed(fresh.version, fresh)

    def snapshot(self) -> RiskSnapshot:
        """Return the current state; after a commit it is the very next snapshot, at no cost."""
        return self._snapshot

    def acquire_lease(self, holder: str) -> int:
        """Become the one engine: return an epoch one above the last. Raises VeloxError when another live holder has it."""
        with self._lock:
            left_seconds = self._lease_until - self._monotonic()
            if self._holder and self._holder != holder and left_seconds > 0:
                raise VeloxError(
                    f"the account's lease is held by {self._holder} (epoch {self._snapshot.epoch}, {left_seconds:.1f} s left): "
                    "stop that engine, or wait until its lease runs out"
                )
            self._snapshot = replace_snapshot(self._snapshot, epoch=self._snapshot.epoch + 1)
            self._holder = holder
            self._lease_until = self._monotonic() + self._lease_seconds
            return self._snapshot.epoch

    def renew_lease(self, epoch: int) -> bool:
        """Prolong the lease; False when the epoch is no longer ours, or was given back."""
        with self._lock:
            if epoch != self._snapshot.epoch or not self._holder:
                return False
            self._lease_until = self._monotonic() + self._lease_seconds
            return True

    def release_lease(self, epoch: int) -> None:
        """Give the lease back, if it is still ours."""
        with self._lock:
            if epoch == self._snapshot.epoch:
                self._holder = ""

    def latch_halt(self, record: HaltRecord) -> None:
        """Add a halt or a clear record, whatever the version. A record that is known already changes nothing."""
        with self._lock:
            if _record_key(record) in self._known:
                return
            self._known.add(_record_key(record))
            self._records.append(record)
            current = self._snapshot
            self._snapshot = replace_snapshot(current, version=current.version + 1, halts=active_halts(self._records))

    def rebuild(self, snapshot: RiskSnapshot) -> RiskSnapshot:
        """Replace the content: a new generation and a higher version; halts and epoch stay, the snapshot's halts join them.

        Raises LedgerUnavailable when the snapshot comes from an epoch that was taken over.
        """
        with self._lock:
            current = self._snapshot
            if 0 < snapshot.epoch < current.epoch:
                raise LedgerUnavailable(
                    f"rebuild by epoch {snapshot.epoch}, but the lease is at epoch {current.epoch}: another engine took over"
                )
            self._records += [record for record in snapshot.halts if _record_key(record) not in self._known]
            self._known.update(_record_key(record) for record in snapshot.halts)
            self._generation += 1
            self._applied = {}
            self._snapshot = replace_snapshot(
                snapshot,
                version=max(current.version, snapshot.version) + 1,
                epoch=max(current.epoch, snapshot.epoch),
                generation=f"memory-{self._generation}",
                halts=active_halts(self._records),
            )
            return self._snapshot

    def put_mark(self, key: str, value: str) -> None:
        """Publish one value beside the version."""
        self._marks[key] = value

    def get_mark(self, key: str) -> str | None:
        """Return a published value, or None."""
        return self._marks.get(key)


def _record_key(record: HaltRecord) -> tuple[str, bool]:
    """Return what makes a record a repeat of another: the halt it is about, and whether it clears it."""
    return record.clears or record.halt_id, bool(record.clears)
