"""`velox guard` that stops its whole process (SIGSTOP) right after the first exit that it sends: in the middle of a closing.

A signal from outside would come whenever a busy machine lets it, perhaps when everything is closed already.
"""

from __future__ import annotations

import os
import signal
import sys

from velox_core.brokers.simulated import SimulatedBroker
from velox_core.cli.entry import main
from velox_core.ports import SendOutcome
from velox_core.risk.approval import ApprovedOrder

real_place = SimulatedBroker.place
stopped = False


def place(self: SimulatedBroker, order: ApprovedOrder, now_ms: int) -> SendOutcome:
    """Send, and stop after the first one."""
    global stopped
    outcome = real_place(self, order, now_ms)
    if not stopped:
        stopped = True
        os.kill(os.getpid(), signal.SIGSTOP)
    return outcome


if __name__ == "__main__":
    SimulatedBroker.place = place  # type: ignore[method-assign]
    sys.argv = ["velox", *sys.argv[1:]]
    main()
