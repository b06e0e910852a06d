"""Alerts that reach a person through the log, and the newest ones kept for status and summary.

- `send` never waits and never raises: one log call (queued) and one append to a bounded list.
- The oldest alert leaves when the list is full; `sent` counts them all.
- Channels that leave the machine are in `outbox`; what is here works without any.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass
from typing import Final

from velox_core.ports import Severity

RECENT_ALERTS_MAX: Final = 200
_LEVELS: Final = {Severity.INFO: logging.INFO, Severity.WARNING: logging.WARNING, Severity.CRITICAL: logging.CRITICAL}


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """One message as it was sent."""

    severity: Severity
    title: str
    text: str


class LogAlerts:
    """`ports.Alerts` over the system log."""

    def __init__(self) -> None:
        self._logger = logging.getLogger("velox.system")
        self._recent: deque[Alert] = deque(maxlen=RECENT_ALERTS_MAX)
        self.sent = 0

    @property
    def recent(self) -> tuple[Alert, ...]:
        """Return the newest alerts, oldest first."""
        return tuple(self._recent)

    def send(self, severity: Severity, title: str, text: str) -> None:
        """Log one message and keep it."""
        self.sent += 1
        self._recent.append(Alert(severity=severity, title=title, text=text))
        self._logger.log(_LEVELS[severity], "ALERT %s: %s", title, text)
