"""Minutes built from ticks: open, high, low, close and volume of each symbol, in integer paise and shares.

- A tick belongs to the minute that its stamp lies in; a tick stamped 09:17:00.000 is the first of 09:17-09:18.
- Open and close are the first and last price of the minute, high and low the extremes between. A symbol without a tick in a
  minute has no bar there, as in a file of minutes.
- The volume is what the day's cumulative volume grew by, against the highest value seen so far:
  - what traded before the first tick of a symbol belongs to no minute;
  - a value below the highest takes nothing back and counts nothing until it is above again.
- A tick of a minute that was finished already counts for the next one: no minute is delivered twice.
- The same builder serves a replay and a live feed. Pure: it never looks at a clock.
"""

from __future__ import annotations

from velox_core.domain.market.bars import MinuteRow, TickBatch
from velox_core.domain.time import MS_PER_MINUTE

_NOT_SEEN = -1


def minute_end_ms(ts_ms: int) -> int:
    """Return the end of the minute that a moment lies in, epoch ms. A full minute is the start of one, not an end."""
    return ts_ms - ts_ms % MS_PER_MINUTE + MS_PER_MINUTE


class MinuteBuilder:
    """The minute under construction, of a whole universe.

    Args:
        width: how many symbols the universe has.
    Attributes:
        end_ms: the end of the minute under construction, epoch ms; 0 while no tick of one has come.
        backwards: how many ticks had a cumulative volume below the highest one before.
    """

    __slots__ = (
        "_closes",
        "_counted",
        "_finished_ms",
        "_highs",
        "_lows",
        "_opens",
        "_volumes",
        "_width",
        "backwards",
        "end_ms",
    )

    def __init__(self, width: int) -> None:
        self.end_ms = 0
        self.backwards = 0
        self._finished_ms = 0  # the end of the newest minute that was finished
        self._width = width
        self._counted = [_NOT_SEEN] * width  # the highest cumulative volume of each symbol
        self._begin()

    def _begin(self) -> None:
        width = self._width
        self._opens = [0] * width
        self._highs = [0] * width
        self._lows = [0] * width
        self._closes = [0] * width
        self._volumes = [0] * width

    def take(self, batch: TickBatch) -> None:
        """Add ticks. The caller has finished the minute before, when `batch.ts_ms` is at or past `end_ms`."""
        if not self.end_ms:
            end_ms = minute_end_ms(batch.ts_ms)
            self.end_ms = end_ms if end_ms > self._finished_ms else self._finished_ms + MS_PER_MINUTE
        highs, lows, closes, counted = self._highs, self._lows, self._closes, self._counted
        for column, price, volume in zip(batch.columns, batch.prices, batch.volumes, strict=True):
            if not closes[column]:
                self._opens[column] = highs[column] = lows[column] = price
            elif price > highs[column]:
                highs[column] = price
            elif price < lows[column]:
                lows[column] = price
            closes[column] = price
            before = counted[column]
            if volume > before:
                counted[column] = volume
                if before >= 0:
                    self._volumes[column] += volume - before
            elif volume < before:
                self.backwards += 1

    def finish(self) -> MinuteRow:
        """Return the minute under construction, with lists of its own, and begin anew."""
        row = MinuteRow(self.end_ms, self._opens, self._highs, self._lows, self._closes, self._volumes)
        self._finished_ms, self.end_ms = self.end_ms, 0
        self._begin()
        return row


def minutes_of(ticks: list[TickBatch], width: int) -> tuple[list[MinuteRow], int]:
    """Build all minutes of a day at once.

    Args:
        ticks: oldest first.
        width: how many symbols the universe has.
    Returns: one row per minute that has a tick, oldest first, and how many volumes ran backwards.
    """
    builder = MinuteBuilder(width)
    rows = []
    for batch in ticks:
        if builder.end_ms and batch.ts_ms >= builder.end_ms:
            rows.append(builder.finish())
        builder.take(batch)
    if builder.end_ms:
        rows.append(builder.finish())
    return rows, builder.backwards
