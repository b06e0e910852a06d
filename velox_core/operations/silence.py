"""How long a living service has not done its work: what the supervisor judges a hang by.

- Counted from the first look that found it unready to the last one, over looks that follow one another.
- A gap between two looks starts the count again: the machine slept or stood still, and what wakes with it needs a moment.
- Its first start has a longer bound, which also holds for one that was silent already when the supervisor came.
"""

from __future__ import annotations

from typing import Final

LOOK_GAP_SECONDS_MAX: Final = 5.0  # ten looks; what lies between two further apart is not known
FIRST_SECONDS_MAX: Final = 300.0  # of one that was never ready: an empty database takes its time on a slow machine


class Silence:
    """The silence of one process. All times are seconds of one clock that never goes back."""

    __slots__ = ("_looked_at", "_since", "was_ready")

    def __init__(self) -> None:
        self.was_ready = False  # at any look
        self._since: float | None = None  # the first look of those that found it unready, None: the last one did not
        self._looked_at = 0.0

    def look(self, now: float, *, is_ready: bool) -> None:
        """Note one look."""
        if is_ready:
            self.was_ready, self._since = True, None
        elif self._since is None or now - self._looked_at > LOOK_GAP_SECONDS_MAX:
            self._since = now
        self._looked_at = now

    def restart(self) -> None:
        """Count anew from the next look on."""
        self._since = None

    @property
    def is_unready(self) -> bool:
        """Return whether the last look found it unready."""
        return self._since is not None

    @property
    def seconds(self) -> float:
        """Return how long it has been unready, as far as it was looked at."""
        return 0.0 if self._since is None else self._looked_at - self._since

    def is_hang(self, bound_seconds: float) -> bool:
        """Return whether that is too long: the bound for one that has been ready, and the first start's for any other."""
        if self._since is None:
            return False
        return self.seconds >= (bound_seconds if self.was_ready else max(bound_seconds, FIRST_SECONDS_MAX))
