"""What goes wrong with a backup: the problem, and what to do about it."""

from __future__ import annotations

from velox_core.domain.errors import VeloxError


class BackupError(VeloxError):
    """A backup that could not be made, read, verified or restored.

    Attributes:
        problem: what failed, on what.
        advice: what to do, '' where the problem says it.
    """

    def __init__(self, problem: str, advice: str = "") -> None:
        self.problem = problem
        self.advice = advice
        super().__init__(f"{problem}: {advice}" if advice else problem)
