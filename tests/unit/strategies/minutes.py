"""Hand-made sessions and minutes for the strategy tests. Prices in paise, one minute after another from the open."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, time

from velox_core.domain.market.bars import MinuteRow
from velox_core.domain.time import ist_ms
from velox_core.strategies.base import StrategySession

DAY = date(2024, 1, 15)
OPEN_MS = ist_ms(DAY, time(9, 15))
MINUTE_MS = 60_000


def session(
    universe: tuple[str, ...] = ("TCS",),
    *,
    columns: tuple[int, ...] | None = None,
    entry_minutes: int = 330,
    tick_paise: int = 5,
) -> StrategySession:
    return StrategySession(
        trading_date=DAY,
        universe=universe,
        columns=tuple(range(len(universe))) if columns is None else columns,
        open_ms=OPEN_MS,
        entry_until_ms=OPEN_MS + entry_minutes * MINUTE_MS,
        tick_paise=(tick_paise,) * len(universe),
    )


def minute(number: int, *bars: int | Sequence[int]) -> MinuteRow:
    """Return the row that ends `number` minutes after the open; a bar is (open, high, low, close), one price, or 0."""
    quads = [bar if not isinstance(bar, int) else (bar, bar, bar, bar) for bar in bars]
    opens, highs, lows, closes = (list(column) for column in zip(*quads, strict=True))
    return MinuteRow(OPEN_MS + number * MINUTE_MS, opens, highs, lows, closes, [100] * len(quads))


def told(signals) -> list[tuple[object, ...]]:
    """Return what matters of signals, as tuples that compare."""
    return [(s.symbol, s.side.value, s.kind.value, s.quantity, s.stop_paise, s.target_paise) for s in signals]
