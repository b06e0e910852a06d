"""Market data that stays away while something is held: an alert first, and after a bound everything is closed blind."""

from __future__ import annotations

from velox_core.engine.parts import SessionParts
from velox_core.ports import Severity

FEED_SILENT_MS_MAX = 300_000  # so long after the alert, positions without market data are closed


class FeedWatch:
    """The age of one session's market data. `started_ms` is when the session began, epoch ms of engine time."""

    def __init__(self, parts: SessionParts) -> None:
        self._parts = parts
        self._is_alarmed = False
        self.started_ms = 0

    def judge(self, now_ms: int) -> None:
        """Judge the age while something is held."""
        parts = self._parts
        age_ms = now_ms - max(parts.risk_manager.readiness.feed_ts_ms, self.started_ms)
        overdue_ms = age_ms - parts.risk_manager.limits.mark_age_ms_max
        if overdue_ms <= 0:
            self._is_alarmed = False
        elif not self._is_alarmed:
            self._is_alarmed = True
            parts.alerts.send(
                Severity.CRITICAL,
                "No market data while positions are open",
                f"The newest price is {age_ms // 1000} s old. Entries are refused; "
                f"in {FEED_SILENT_MS_MAX // 1000} s everything is closed without prices.",
            )
        elif overdue_ms > FEED_SILENT_MS_MAX and not parts.emergency.closing:
            parts.emergency.fault(f"no market data for {age_ms // 1000} s while positions are open", now_ms)
