"""What a session does beside trading: it keeps the lease, brings a failed ledger back, compares the books with the broker's.

- Lease and ledger go by monotonic time: they decide nothing while nothing is wrong.
- Reconciling books trades and locks symbols, so it goes by engine time: a replay does it at the same minutes at any speed.
- Symbols with live orders are left out of the comparison, not the others: an order at rest hides nothing elsewhere.
- A comparison that was not possible is tried again soon: a broker called off the loop may just not have answered yet.
- Books that could not be compared for `RECONCILE_INTERVALS_MAX` intervals stop entries until the broker answers again.
- A store's own server that is gone is asked to start again beside the loop, which waits a moment for it and no longer.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from velox_core.domain.errors import BrokerError, LedgerUnavailable, VeloxError
from velox_core.domain.time import MS_PER_SECOND
from velox_core.engine.guard_presence import GuardPresence
from velox_core.engine.resume import align_ledger, reconcile
from velox_core.exit_door import NEVER_MS
from velox_core.order_manager import OrderManager
from velox_core.ports import Alerts, Broker, Severity
from velox_core.risk_manager import RiskManager

LEASE_RENEWAL_SECONDS = 0.5  # an entry leaves on a young confirmation only
LEDGER_RETRY_SECONDS = 5.0
REVIVE_WAIT_SECONDS = 0.25  # so long the loop waits for a server that is starting; its start goes on beside it
RECONCILE_INTERVALS_MAX = 3
RECONCILE_RETRY_MS = 2_000

_log = logging.getLogger("velox.system")


class Upkeep:
    """The recurring care of one session.

    Args:
        broker: to reconcile with; None never does.
        order_manager, risk_manager: whose books and ledger are kept.
        alerts: told when the books could not be compared for too long, and when they can be again.
        reconcile_seconds: engine time between two comparisons; 0 for none.
        revive: starts the ledger's own server where there is none any more; None when it is somebody else's.
        guard: the account's guard, to be missed when it is not there; None where none is wanted.
    """

    def __init__(
        self,
        *,
        broker: Broker | None,
        order_manager: OrderManager,
        risk_manager: RiskManager,
        alerts: Alerts,
        reconcile_seconds: float,
        revive: Callable[[], object] | None = None,
        guard: GuardPresence | None = None,
    ) -> None:
        self.next_reconcile_ms = NEVER_MS
        self._broker = broker
        self._orders = order_manager
        self._risk = risk_manager
        self._alerts = alerts
        self._interval_ms = 0 if broker is None else int(reconcile_seconds * MS_PER_SECOND)
        self._revive = revive
        self._guard = guard
        self._reviving: threading.Thread | None = None
        self._reconciled_ms = 0
        self._seen: frozenset[str] = frozenset()  # what differed at the last comparison
        self._next_lease = 0.0
        self._next_rebuild = 0.0

    @property
    def differences(self) -> int:
        """Return how many differences the last comparison of the books found."""
        return len(self._seen)

    def start(self, now_ms: int) -> None:
        """Begin to count: the books were compared when the engine was assembled."""
        self._reconciled_ms = now_ms
        if self._interval_ms:
            self.next_reconcile_ms = now_ms + self._interval_ms

    def maintain(self, monotonic: float, now_ms: int) -> None:
        """Do what is due by monotonic time: keep the lease, miss a guard that is gone, bring a failed ledger back."""
        if monotonic >= self._next_lease:
            self._next_lease = monotonic + LEASE_RENEWAL_SECONDS
            self._risk.renew_lease()
        if self._guard is not None:
            self._guard.look(monotonic)
        if self._risk.readiness.ledger_fault and not self._risk.readiness.fenced:
            self._bring_ledger_back(monotonic, now_ms)
        if self._interval_ms:  # a clock that was set back delays no comparison
            self.next_reconcile_ms = min(self.next_reconcile_ms, now_ms + self._interval_ms)

    def reconcile(self, now_ms: int) -> None:
        """Compare our books with the broker's, symbols with live orders left out. Due when `next_reconcile_ms` is reached."""
        if self._broker is None:
            return
        self.next_reconcile_ms = now_ms + self._interval_ms
        working = frozenset(order.symbol for order in self._orders.live.values())
        try:
            rows = reconcile(
                self._broker, self._orders, self._risk, self._alerts, now_ms, working=working, only_new=True, seen=self._seen
            )
        except BrokerError as error:
            self._not_reconciled(error, now_ms)
            return
        self._reconciled_ms = now_ms
        self._seen = frozenset(row.reason for row in rows)
        if self._risk.readiness.reconcile_fault:
            self._risk.readiness.reconcile_fault = ""
            self._alerts.send(Severity.WARNING, "The broker's book can be read again", "Entries are possible again.")

    def _not_reconciled(self, error: BrokerError, now_ms: int) -> None:
        readiness = self._risk.readiness
        age_ms = now_ms - self._reconciled_ms
        self.next_reconcile_ms = now_ms + min(self._interval_ms, RECONCILE_RETRY_MS)
        _log.warning("[RECONCILE] not possible now: %s", error, extra={"engine_ms": now_ms})
        if age_ms > RECONCILE_INTERVALS_MAX * self._interval_ms and not readiness.reconcile_fault:
            readiness.reconcile_fault = f"the books could not be compared for {age_ms // MS_PER_SECOND} s: {error}"
            _log.error("[RECONCILE] %s; entries are refused", readiness.reconcile_fault, extra={"engine_ms": now_ms})
            self._alerts.send(
                Severity.CRITICAL,
                "The broker's book cannot be read",
                f"For {age_ms // MS_PER_SECOND} s: {error}. Entries are refused until it can; exits go on.",
            )

    def _bring_ledger_back(self, monotonic: float, now_ms: int) -> None:
        """Try again after an interval, or as soon as the server that was asked to start has answered."""
        if monotonic >= self._next_rebuild:
            self._next_rebuild = monotonic + LEDGER_RETRY_SECONDS
            self._start_server()
        elif self._reviving is None:
            return
        if self._reviving is not None:
            if self._reviving.is_alive():
                return
            self._reviving = None
        self._rebuild_ledger(now_ms)

    def _rebuild_ledger(self, now_ms: int) -> None:
        """Bring a ledger that failed up to our books, when broker and ledger answer again. Until then entries are refused."""
        if not self._orders.fetch_trades(now_ms):
            return
        try:
            align_ledger(self._orders, self._risk)
        except LedgerUnavailable as error:
            _log.warning("[LEDGER] still unavailable: %s", error)
            return
        _log.warning("[LEDGER] rebuilt from our books and the broker's trades; entries are possible again")

    def _start_server(self) -> None:
        """Have the ledger's server started, one attempt at a time, and wait a moment for it."""
        if self._revive is None:
            return
        if self._reviving is None:
            thread = threading.Thread(target=self._call_revive, args=(self._revive,), name="revive-ledger", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # the system has no thread left: the next interval asks again
                _log.error("[LEDGER] its server cannot be started: %s", error)
                return
            self._reviving = thread
        self._reviving.join(REVIVE_WAIT_SECONDS)

    @staticmethod
    def _call_revive(revive: Callable[[], object]) -> None:
        try:
            revive()
        except Exception as error:  # of a thread of its own: the next interval asks again
            _log.error(
                "[LEDGER] its server cannot be started: %s", error, exc_info=not isinstance(error, (VeloxError, OSError))
            )
