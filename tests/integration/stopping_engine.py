"""`velox run` with a broker that stops the whole process (SIGSTOP) at one point of an order's life, once.

Usage: python stopping_engine.py POINT ROLE ARGUMENTS..., POINT is `before` or `after` the send, or `look`: on the sender
thread, before it looks at the lease's age. ROLE is `entry` or `exit`; the rest is what `velox` gets. The second order of the
role is meant, so that something is held already.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

import velox_core.bootstrap
from velox_core.brokers.simulated import SimulatedBroker
from velox_core.cli.entry import main
from velox_core.lease import HeldLease
from velox_core.ports import SendOutcome
from velox_core.risk.approval import ApprovedOrder

POINT, ROLE = sys.argv[1], sys.argv[2]
ORDER_NUMBER = 2
seen = 0
real_look = HeldLease.withholds


def stops_now(*, entry: bool) -> bool:
    """Count the requests of the role. Returns whether this is the one."""
    global seen
    seen += entry is (ROLE == "entry")
    return entry is (ROLE == "entry") and seen == ORDER_NUMBER


def look(self: HeldLease, *, entry: bool) -> str:
    """Look at the lease's age, after a stop if this is the sender thread of the order that is meant."""
    if threading.current_thread().name.startswith("send-") and stops_now(entry=entry):
        signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)  # to this thread: it goes not one step further
    return real_look(self, entry=entry)


class StoppingBroker(SimulatedBroker):
    """The simulated broker, and a process that stops at its point."""

    def place(self, order: ApprovedOrder, now_ms: int) -> SendOutcome:
        """Send, and stop before or after."""
        stops = POINT != "look" and stops_now(entry=order.rank is None)
        if stops and POINT == "before":
            os.kill(os.getpid(), signal.SIGSTOP)
        outcome = super().place(order, now_ms)
        if stops and POINT == "after":
            os.kill(os.getpid(), signal.SIGSTOP)
        return outcome


if __name__ == "__main__":
    velox_core.bootstrap.SimulatedBroker = StoppingBroker  # type: ignore[misc]
    if POINT == "look":
        HeldLease.withholds = look  # type: ignore[method-assign]
    sys.argv = ["velox", *sys.argv[3:]]
    main()
