"""Indicators that take one bar at a time, in constant time and memory, one object for each symbol. Pure.

- VWAP is integer sums, compared without a division, so that it is exact. RSI is floats, as everybody computes it.
- Whoever uses one decides what a bar without trades means; here each call is one bar.
"""

from __future__ import annotations


class SessionVwap:
    """The session's volume-weighted average of typical prices, (high + low + close) / 3 x volume over volume.

    `weighted` is three times the traded value (paise x shares), `shares` the volume; the average is
    weighted / (3 x shares) paise. Source: the usual session VWAP of charting packages (typical price of each bar).
    """

    __slots__ = ("shares", "weighted")

    def __init__(self) -> None:
        self.shares = 0
        self.weighted = 0

    def add(self, high_paise: int, low_paise: int, close_paise: int, volume: int) -> None:
        """Take one bar. A bar without volume changes nothing."""
        self.shares += volume
        self.weighted += (high_paise + low_paise + close_paise) * volume

    @property
    def paise(self) -> int:
        """Return the average in whole paise, rounded half up; 0 before the first share."""
        parts = 3 * self.shares
        return (2 * self.weighted + parts) // (2 * parts) if parts else 0

    def is_below(self, price_paise: int, bps: int = 0) -> bool:
        """Return whether a price is below the average by more than `bps` of it. False before the first share."""
        return price_paise * 30_000 * self.shares < self.weighted * (10_000 - bps)

    def is_above(self, price_paise: int, bps: int = 0) -> bool:
        """Return whether a price is above the average by more than `bps` of it. False before the first share."""
        return price_paise * 30_000 * self.shares > self.weighted * (10_000 + bps)


class WilderRsi:
    """The relative strength index with Wilder's smoothing, 0 to 100.

    The first averages are plain means of the first `period` changes; after that average = (average x (period - 1) +
    change) / period. Source: J. Welles Wilder, "New Concepts in Technical Trading Systems", 1978, section VI.
    """

    __slots__ = ("_gain", "_loss", "_previous", "changes", "period")

    def __init__(self, period: int) -> None:
        """Start empty. Raises ValueError for a period below 1."""
        if period < 1:
            raise ValueError(f"RSI period is {period}; the least is 1")
        self.period = period
        self.changes = 0
        self._previous = 0
        self._gain = 0.0
        self._loss = 0.0

    def add(self, close_paise: int) -> float | None:
        """Take one close and return the index, None until `period` changes were seen."""
        previous, self._previous = self._previous, close_paise
        if not previous:
            return None
        change = close_paise - previous
        gain, loss = (change, 0) if change > 0 else (0, -change)
        self.changes = changes = self.changes + 1
        period = self.period
        if changes <= period:
            self._gain += gain
            self._loss += loss
            if changes < period:
                return None
            self._gain /= period
            self._loss /= period
        else:
            self._gain = (self._gain * (period - 1) + gain) / period
            self._loss = (self._loss * (period - 1) + loss) / period
        moved = self._gain + self._loss
        return 100.0 * self._gain / moved if moved else 50.0
