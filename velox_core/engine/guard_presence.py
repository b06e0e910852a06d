"""Whether the account's guard is there, as the engine sees it: told once when it is not, and once when it is again.

- The age of the guard's heartbeat is this process' own time since it last changed.
- A guard that was there and is silent is more than one that nobody started: it may be needed now.
- Nothing is decided here: an engine trades on without a guard. Live, the checklist opens no day without one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from velox_core.ports import Alerts, Severity

LOOK_SECONDS = 1.0

_log = logging.getLogger("velox.system")


class GuardPresence:
    """The guard's heartbeat, watched.

    Args:
        read: returns what tells the guard's newest heartbeat from every other, None when there is none.
        alerts: told once of an absence, and once of its end.
        silent_seconds: how old the heartbeat may get.
    """

    def __init__(self, read: Callable[[], object], alerts: Alerts, *, silent_seconds: float) -> None:
        self._read = read
        self._alerts = alerts
        self._silent_seconds = silent_seconds
        self._next_look = 0.0
        self._newest: object = None  # what stands there at the first look may be of a guard that is gone
        self._since = -1.0
        self._was_seen = False
        self._alarmed = False

    def look(self, monotonic: float) -> None:
        """Look once a second, and tell what changed."""
        if monotonic < self._next_look:
            return
        self._next_look = monotonic + LOOK_SECONDS
        found = self._read()
        if self._since < 0:
            self._since, self._newest = monotonic, found
        elif found is not None and found != self._newest:
            self._since, self._newest, self._was_seen = monotonic, found, True
            self._tell_return()
        if monotonic - self._since > self._silent_seconds and not self._alarmed:
            self._tell_absence()

    def _tell_return(self) -> None:
        if self._alarmed:
            self._alarmed = False
            _log.warning("[GUARD] is there again")
            self._alerts.send(Severity.WARNING, "The guard is there again", "It watches this account from now on.")

    def _tell_absence(self) -> None:
        self._alarmed = True
        text = (
            f"No sign of life for {self._silent_seconds:.0f} s. If this engine dies now, nobody closes what is open. "
            "Start it: velox guard"
        )
        title = "The guard is silent" if self._was_seen else "No guard watches this run"
        _log.error("[GUARD] %s: %s", title.lower(), text)
        self._alerts.send(Severity.CRITICAL if self._was_seen else Severity.WARNING, title, text)
