"""Reads of the broker's books that may fail: no answer is None, never an empty book.

- Trades that cannot be read keep nothing open for ever: after a bound of failed reads the rest of the books counts alone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, TypeVar

from velox_core.domain.errors import BrokerError

Answer = TypeVar("Answer")
TRADELESS_MS_MIN: Final = 10_000  # engine time: so long trades must be unreadable before orders and positions count alone
_NEVER_MS: Final = -1

_log = logging.getLogger("velox.orders")


def answer_of(read: Callable[[], Answer], what: str, now_ms: int) -> Answer | None:
    """Return what a read answers, None when the broker does not answer; `what` names it in the log."""
    try:
        return read()
    except BrokerError as error:
        _log.warning("[ORDER] the %s could not be read: %s", what, error, extra={"engine_ms": now_ms})
        return None


class Tradeless:
    """For how long the trades could not be read. Reads further apart than the bound say nothing of the time between them."""

    __slots__ = ("_newest_ms", "_since_ms")

    def __init__(self) -> None:
        self._since_ms = self._newest_ms = _NEVER_MS

    def note(self, now_ms: int, *, answered: bool) -> None:
        """Take the outcome of one read of the trades."""
        if answered:
            self._since_ms = _NEVER_MS
        elif self._since_ms == _NEVER_MS or now_ms - self._newest_ms > TRADELESS_MS_MIN:
            self._since_ms = now_ms
        self._newest_ms = now_ms

    def lasts(self, now_ms: int) -> bool:
        """Return whether they have been unreadable for long enough that what is closed goes by orders and positions."""
        return self._since_ms != _NEVER_MS and now_ms - self._since_ms >= TRADELESS_MS_MIN
