"""The two clocks: the wall for a live day, the newest row of the feed for a replay.

- Engine time is epoch milliseconds (UTC). A live day reads the wall, a replay only what its feed has delivered, so that
  a replay decides the same at any speed.
- Replay time never goes back: the feed moves it forward, one row after the other.
- Monotonic time is real seconds in both, for pacing, time-outs, leases and heartbeats.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from velox_core.domain.errors import InvariantError

_NS_PER_MS = 1_000_000


class WallClock:
    """The machine's own time."""

    __slots__ = ()

    def now_ms(self) -> int:
        """Return the wall time in epoch milliseconds."""
        return time.time_ns() // _NS_PER_MS

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return time.monotonic()


class ReplayClock:
    """Engine time of a replay: it stands still until the feed moves it.

    Args:
        start_ms: engine time before the first row, epoch ms.
        monotonic: source of real seconds; a simulation gives its own.
    """

    __slots__ = ("_monotonic", "_now_ms")

    def __init__(self, start_ms: int, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._now_ms = start_ms
        self._monotonic = monotonic

    def now_ms(self) -> int:
        """Return the engine time that the feed has reached, epoch ms."""
        return self._now_ms

    def monotonic(self) -> float:
        """Return real seconds that never go back."""
        return self._monotonic()

    def advance_to(self, ts_ms: int) -> None:
        """Move engine time forward to `ts_ms`, epoch ms. Raises InvariantError when that is in its past."""
        if ts_ms < self._now_ms:
            raise InvariantError(f"replay time cannot go back from {self._now_ms} to {ts_ms}")
        self._now_ms = ts_ms
