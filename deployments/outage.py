"""Whether the process that serves the deployments still hears of a cancel, and when it gives way to a new one.

- After an outage of the server with a run in flight, cancelling is silently dead for the rest of that process (measured on
  Prefect 3.8.8: from 9 s). So any outage from `OUTAGE_SECONDS` on makes it deaf, run or no run.
- A deaf process ends (`EXIT_AGAIN`) to be started again, when the server answers and no run is in flight: its end cancels runs.
- With a run in flight it goes on and says so once; `velox stop` and `velox flatten` never needed Prefect.
- Values in, values out: the time and the answers are given.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

OUTAGE_SECONDS: Final = 5.0


class Step(StrEnum):
    """What the process does now. TELL: go on, and say once that a cancel does not reach the run in flight."""

    GO_ON = "GO_ON"
    TELL = "TELL"
    END = "END"


class ServerWatch:
    """The outages of a server as one process saw them."""

    __slots__ = ("_away_from", "_has_told", "answers", "longest_seconds")

    def __init__(self) -> None:
        self._away_from: float | None = None
        self._has_told = False
        self.answers = True
        self.longest_seconds = 0.0

    @property
    def is_deaf(self) -> bool:
        """Return whether a cancel may no longer be heard."""
        return self.longest_seconds >= OUTAGE_SECONDS

    def look(self, now: float, *, answers: bool, runs_in_flight: int) -> Step:
        """Take in whether the server answered, and say what to do.

        Args:
            now: monotonic seconds.
            answers: whether its health was given within the bound.
            runs_in_flight: runs that this process has started and that have not ended.
        """
        self.answers = answers
        if answers:
            if self._away_from is not None:
                self.longest_seconds = max(self.longest_seconds, now - self._away_from)
            self._away_from = None
        elif self._away_from is None:
            self._away_from = now
        else:
            self.longest_seconds = max(self.longest_seconds, now - self._away_from)
        if not self.is_deaf:
            return Step.GO_ON
        if runs_in_flight == 0:
            return Step.END if answers else Step.GO_ON
        if self._has_told:
            return Step.GO_ON
        self._has_told = True
        return Step.TELL
