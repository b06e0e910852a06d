"""`velox run` with a broker that stops the whole process (SIGSTOP) at one point of an order's life, once.

Usage: python stopping_engine.py POINT ROLE ARGUMENTS..., POINT is `before` or `after` the send, ROLE `entry` or `exit`;
the rest is what `velox` gets. The second order of the role is meant, so that something is held already.
"""

from __future__ import annotations

import os
import signal
import sys

import velox_core.bootstrap
from velox_core.brokers.simulated import SimulatedBroker
from velox_core.cli.entry import main
from velox_core.ports import SendOutcome
from velox_core.risk.approval import ApprovedOrder

POINT, ROLE = sys.argv[1], sys.argv[2]
ORDER_NUMBER = 2


class StoppingBroker(SimulatedBroker):
    """The simulated broker, and a process that stops at its point."""

    seen = 0

    def place(self, order: ApprovedOrder, now_ms: int) -> SendOutcome:
        """Send, and stop before or after."""
        is_meant = (order.rank is None) is (ROLE == "entry")
        type(self).seen += is_meant
        stops = is_meant and type(self).seen == ORDER_NUMBER
        if stops and POINT == "before":
            os.kill(os.getpid(), signal.SIGSTOP)
        outcome = super().place(order, now_ms)
        if stops and POINT == "after":
            os.kill(os.getpid(), signal.SIGSTOP)
        return outcome


if __name__ == "__main__":
    velox_core.bootstrap.SimulatedBroker = StoppingBroker  # type: ignore[misc]
    sys.argv = ["velox", *sys.argv[3:]]
    main()
