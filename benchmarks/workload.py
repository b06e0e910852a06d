"""The common workload: seeded one-minute bars of many instruments over many days.

- Numbers as the peers are measured on: log-uniform prices within 100-3000 rupees on a 0.05 tick, 0.08 % a minute,
  375 bars a day from Monday 2025-06-02, the exchange's holidays of that span left out, volumes 10,000-500,000.
- The same seed gives the same bars to every engine; a bar is stamped at its end.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import numpy.typing as npt

from velox_core.domain.market.bars import DayColumns, MinuteRow
from velox_core.domain.time import MS_PER_MINUTE, ist_midnight_ms

BARS_PER_DAY = 375
FIRST_DAY = date(2025, 6, 2)
HOLIDAYS = frozenset({date(2025, 8, 15), date(2025, 8, 27), date(2025, 10, 2), date(2025, 10, 21), date(2025, 10, 22)})
MINUTE_SIGMA = 0.0008
TICK_RUPEES = 0.05
OPEN_MINUTE = 9 * 60 + 15

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Columns of a workload: int64[bars, instruments], prices in paise, volumes in shares; `days` in order."""

    days: tuple[date, ...]
    opens: Ints
    highs: Ints
    lows: Ints
    closes: Ints
    volumes: Ints

    @property
    def instruments(self) -> int:
        """Return how many instruments there are."""
        return int(self.closes.shape[1])

    @property
    def bars(self) -> int:
        """Return how many bars there are over all instruments."""
        return int(self.closes.size)


def make_workload(instruments: int, days: int, *, seed: int = 42) -> Workload:
    """Generate the workload. The random draws come in one fixed order: prices, returns, wicks, volumes."""
    random = np.random.default_rng(seed)
    minutes = days * BARS_PER_DAY
    start = np.exp(random.uniform(np.log(150), np.log(2500), instruments))
    returns = random.standard_normal((minutes, instruments)) * MINUTE_SIGMA
    path = start * np.exp(np.cumsum(returns - MINUTE_SIGMA * MINUTE_SIGMA / 2, axis=0))
    close = np.round(np.clip(path, 100, 3000) / TICK_RUPEES) * TICK_RUPEES
    open_ = np.vstack([close[:1], close[:-1]])
    wicks = np.abs(random.standard_normal((2, minutes, instruments))) * MINUTE_SIGMA * 0.5
    top, bottom = np.maximum(open_, close), np.minimum(open_, close)
    high = np.maximum(np.round(top * (1 + wicks[0]) / TICK_RUPEES) * TICK_RUPEES, top)
    low = np.minimum(np.round(bottom * (1 - wicks[1]) / TICK_RUPEES) * TICK_RUPEES, bottom)
    volume = random.integers(10_000, 500_000, (minutes, instruments))
    return Workload(
        days=_sessions(days),
        opens=_paise(open_),
        highs=_paise(high),
        lows=_paise(low),
        closes=_paise(close),
        volumes=volume.astype(np.int64),
    )


def _paise(rupees: npt.NDArray[np.float64]) -> Ints:
    return np.round(rupees * 100).astype(np.int64)


def _sessions(count: int) -> tuple[date, ...]:
    found: list[date] = []
    day = FIRST_DAY
    while len(found) < count:
        if day.weekday() < 5 and day not in HOLIDAYS:
            found.append(day)
        day += timedelta(days=1)
    return tuple(found)


def day_columns(workload: Workload, index: int) -> DayColumns:
    """Convert one day of the workload to the engine's rows."""
    first = index * BARS_PER_DAY
    chosen = slice(first, first + BARS_PER_DAY)
    day = workload.days[index]
    open_ms = ist_midnight_ms(day) + OPEN_MINUTE * MS_PER_MINUTE
    stamps = range(open_ms + MS_PER_MINUTE, open_ms + (BARS_PER_DAY + 1) * MS_PER_MINUTE, MS_PER_MINUTE)
    columns = (workload.opens, workload.highs, workload.lows, workload.closes, workload.volumes)
    rows = [MinuteRow(*values) for values in zip(stamps, *(column[chosen].tolist() for column in columns), strict=True)]
    universe = tuple(f"S{number:03d}" for number in range(workload.instruments))
    return DayColumns(trading_date=day, universe=universe, rows=rows, source="benchmark workload", synthetic=True)
