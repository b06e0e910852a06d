"""When the next piece of a replay is due: pacing waits, and never changes what comes.

- A piece is due at a fixed moment after the first one, so that slow pieces do not push later ones back.
- Speed 0 does not wait at all, and `hasten` ends the waiting.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Protocol

from velox_core.domain.errors import ConfigError
from velox_core.domain.time import MS_PER_SECOND

_EARLY_SECONDS_MAX = 0.001


class MovableClock(Protocol):
    """The replay's clock, as a feed uses it."""

    def advance_to(self, ts_ms: int) -> None:
        """Move engine time forward, epoch ms."""
        ...

    def monotonic(self) -> float:
        """Return real seconds that never go back."""
        ...


class Pacing:
    """The pace of one replay.

    Args:
        clock: real seconds.
        speed: seconds of the day per second of waiting; 1.0 is true time, 0.0 does not wait at all.
        wait: sleeps for some seconds and may return early; None sleeps.
    Attributes:
        is_on: whether there is anything to wait for at all.
    Raises: ConfigError for a speed that is negative or not finite.
    """

    __slots__ = ("_clock", "_first_due", "_first_ms", "_speed", "_wait", "is_on")

    def __init__(self, clock: MovableClock, speed: float, wait: Callable[[float], None] | None = None) -> None:
        if not math.isfinite(speed) or speed < 0:
            raise ConfigError(f"replay speed {speed!r} is not possible; give a positive number, or 'max'")
        self.is_on = speed > 0
        self._clock = clock
        self._speed = speed
        self._wait: Callable[[float], None] = time.sleep if wait is None else wait
        self._first_due = 0.0
        self._first_ms = -1

    def became_due(self, ts_ms: int, wait_seconds: float) -> bool:
        """Wait for a moment of the day, at most `wait_seconds`. The first one asked for is due at once."""
        clock = self._clock
        if self._first_ms < 0:
            self._first_due, self._first_ms = clock.monotonic(), ts_ms
        due = self._first_due + (ts_ms - self._first_ms) / (MS_PER_SECOND * self._speed)
        remaining = due - clock.monotonic()
        if remaining <= 0:
            return True
        pause_seconds = min(remaining, wait_seconds)
        if pause_seconds > 0:
            self._wait(pause_seconds)
        return not self.is_on or due - clock.monotonic() < _EARLY_SECONDS_MAX
