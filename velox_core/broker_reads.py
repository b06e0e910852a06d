"""Reads of the broker's books that may fail: no answer is None, never an empty book.

- Trades that cannot be read keep nothing open for ever: after a bound of failed reads the rest of the books counts alone.
- Positions may lag behind the trades: what they say is told apart from what was true before the newest trades.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, TypeVar

from velox_core.domain.errors import BrokerError

Answer = TypeVar("Answer")
TRADELESS_MS_MIN: Final = 10_000  # engine time: so long trades must be unreadable before orders and positions count alone
LAG_MS_MAX: Final = 30_000  # engine time: so long positions may say what was true before a trade
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


class RecentTrades:
    """What was booked of late, by symbol: enough to know a position again that is older than the newest trades."""

    __slots__ = ("_trades",)

    def __init__(self) -> None:
        self._trades: dict[str, list[tuple[int, int]]] = {}  # when it traded, and signed shares, in the order of booking

    def note(self, symbol: str, ts_ms: int, shares: int) -> None:
        """Take one trade: engine time at which it was made, and signed shares."""
        self._trades.setdefault(symbol, []).append((ts_ms, shares))

    def hide(self, symbol: str, difference: int, now_ms: int) -> bool:
        """Return whether positions that differ from the books by so many shares are the books before the newest trades.

        Only trades that are younger than the lag's bound can be hidden: an older position is a fact.
        """
        hidden = 0
        for ts_ms, shares in reversed(self._trades.get(symbol, ())):
            if now_ms - ts_ms >= LAG_MS_MAX:
                break
            hidden += shares
            if hidden == -difference:
                return True
        return False
