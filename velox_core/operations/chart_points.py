"""What a chart is made of before it is drawn: fewer points, and the ticks of its two axes.

- Pure; money in paise, times in epoch ms. Every point that is kept is one of those that came in, at its own time.
- What is left out cannot be seen: of the points that share a sliver of the width, the first, the lowest, the highest
  and the last are kept. So the worst point of the day, the first of equals, is always there.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Final

from velox_core.domain.time import MS_PER_MINUTE

BUCKETS_MAX: Final = 400  # on a curve about 850 units wide
POINTS_PER_BUCKET: Final = 4
HOUR_MS: Final = 60 * MS_PER_MINUTE
IST_OFFSET_MS: Final = 30 * MS_PER_MINUTE  # hours in India are half an hour off those of the epoch

Point = tuple[int, int]


def thin(points: Sequence[Point], buckets_max: int = BUCKETS_MAX) -> list[Point]:
    """Return points that draw the same curve, at most four for each bucket of time.

    Args:
        points: (ts_ms, paise), oldest first.
        buckets_max: how many buckets the time from the first to the last point is cut into, 1 or more.
    """
    if len(points) <= POINTS_PER_BUCKET * buckets_max:
        return list(points)
    first_ms = points[0][0]
    width_ms = (points[-1][0] - first_ms) // buckets_max + 1
    kept: list[Point] = []
    for _, bucket in groupby(range(len(points)), key=lambda index: (points[index][0] - first_ms) // width_ms):
        inside = list(bucket)
        lowest = min(inside, key=lambda index: points[index][1])  # of equals the first, as for the highest
        highest = max(inside, key=lambda index: points[index][1])
        kept += [points[index] for index in sorted({inside[0], lowest, highest, inside[-1]})]
    return kept


def money_ticks(low_paise: int, high_paise: int, *, about: int) -> list[int]:
    """Return the round amounts from low to high, 1, 2 or 5 and zeros apart: no more than `about` steps of them."""
    step = 1
    while (high_paise - low_paise) // step > about:
        decade = 10 ** (len(str(step)) - 1)
        step = next(factor * decade for factor in (2, 5, 10) if factor * decade > step)
    return list(range(-(-low_paise // step) * step, high_paise + 1, step))


def clock_ticks(first_ms: int, last_ms: int) -> list[int]:
    """Return the full hours of India's clock from first to last; the ends where there are fewer than two."""
    hour_ms = -(-(first_ms + IST_OFFSET_MS) // HOUR_MS) * HOUR_MS - IST_OFFSET_MS
    hours = list(range(hour_ms, last_ms + 1, HOUR_MS))
    return hours if len(hours) > 1 else sorted({first_ms, last_ms})
