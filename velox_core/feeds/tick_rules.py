"""Which ticks may become a mark: the rules by name, one tick at a time, the same for a file and for a live feed.

- A tick is used as it is or refused as a whole; no rule changes a price. The first rule that it breaks names it.
- Ticks are judged in the order in which they come, and a late one is refused, not sorted in: it is no newest price. At
  one stamp the cumulative volume says which tick is the older.
- A stamp far ahead would make every later tick an old one: it is refused, live by the clock (STAMP_AHEAD_MS_MAX), in a file
  by the rows on both sides of it.
- A print far off waits for the next one. It is refused when it lies more than FAR_OFF_BPS from the newest price, or outside
  the day's band, unless the print before it was refused for the same on the same side: then the price has really moved,
  and this one is used. So a real crash is seen one print late, and a single wrong print never. Prints that go far off
  to both sides in turn are used after FAR_OFF_RUN_MAX refusals: no price can be kept out for longer than that.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Final

from velox_core.domain.market.bars import RowDrops

STAMP_AHEAD_MS_MAX: Final = 2_000  # live: so far a tick may be stamped ahead of our clock; also how far the clocks may differ
FAR_OFF_BPS: Final = 500  # hundredths of a percent: the step by which NSE widens the band of a stock with derivatives
FAR_OFF_RUN_MAX: Final = 3  # prints far off in a row that are refused, whatever their side
_BPS: Final = 10_000


class TickRule(StrEnum):
    """Why a tick was refused (`VOLUME_BACKWARDS`: counted only). The order is the order of judgement."""

    BROKEN_ROW = "wrong number of fields"
    UNREADABLE_TIME = "unreadable time"
    IMPOSSIBLE_DATE = "impossible date"
    BAD_SYMBOL = "not a symbol"
    NOT_A_NUMBER = "not a number"
    NOT_POSITIVE = "price not positive"
    TOO_LARGE = "price beyond any share"
    BAD_VOLUME = "volume negative, fractional or impossible"
    DUPLICATE = "duplicate"
    OFF_SESSION = "off session"
    AHEAD = "stamp ahead of the clock or of the ticks around it"
    OUT_OF_ORDER = "out of order (older than the newest tick)"
    OFF_TICK = "price not on the tick"
    FAR_OFF = "price far off, not confirmed by the next print"
    VOLUME_BACKWARDS = "volume ran backwards (price kept)"


# Members by a module name: reading one off its class costs 0.09 us.
_NOT_POSITIVE: Final = TickRule.NOT_POSITIVE
_DUPLICATE: Final = TickRule.DUPLICATE
_OFF_SESSION: Final = TickRule.OFF_SESSION
_OUT_OF_ORDER: Final = TickRule.OUT_OF_ORDER
_OFF_TICK: Final = TickRule.OFF_TICK
_FAR_OFF: Final = TickRule.FAR_OFF


class TickTally:
    """Counts refused ticks by rule and symbol, with the first example of each rule."""

    __slots__ = ("_counts", "_examples")

    def __init__(self) -> None:
        self._counts: dict[TickRule, dict[str, int]] = {}
        self._examples: dict[TickRule, str] = {}

    def add(self, rule: TickRule, symbol: str, count: int, example: str) -> None:
        """Count `count` ticks of a symbol ('' where it is not known) under `rule`; the first example stays."""
        if count:
            counts = self._counts.setdefault(rule, {})
            counts[symbol] = counts.get(symbol, 0) + count
            self._examples.setdefault(rule, example)

    def drops(self) -> tuple[RowDrops, ...]:
        """Return what was counted, in the order of the rules, symbols by name."""
        return tuple(
            RowDrops(
                rule=rule.value,
                count=sum(self._counts[rule].values()),
                example=self._examples[rule],
                by_symbol=tuple(sorted((symbol, count) for symbol, count in self._counts[rule].items() if symbol)),
                kept=rule is TickRule.VOLUME_BACKWARDS,
            )
            for rule in TickRule
            if rule in self._counts
        )


class TickSieve:
    """Judges the ticks of a universe as they come.

    Args:
        windows_ms: half-open [start, end) of the date's continuous trading, epoch ms.
        ticks_paise: tick size by column; 0 where it is not known.
        references_paise: the previous close by column, what the first print is held against; 0 where it is not known.
        bands_paise: lower and upper price band by column, inclusive; (0, 0) where it is not known.
    """

    __slots__ = ("_bands", "_newest", "_prices", "_run", "_run_side", "_seen", "_ticks", "_windows")

    def __init__(
        self,
        windows_ms: Sequence[tuple[int, int]],
        ticks_paise: Sequence[int],
        references_paise: Sequence[int] = (),
        bands_paise: Sequence[tuple[int, int]] = (),
    ) -> None:
        width = len(ticks_paise)
        self._windows = tuple(windows_ms)
        self._ticks = list(ticks_paise)
        self._prices = list(references_paise) or [0] * width  # the newest price used
        self._bands = list(bands_paise) or [(0, 0)] * width
        self._seen: list[tuple[int, int, int]] = [(0, 0, 0)] * width  # the newest tick that came, used or not
        self._newest: list[tuple[int, int]] = [(0, -1)] * width  # stamp and cumulative volume of the newest tick used
        self._run = [0] * width  # prints far off in a row
        self._run_side = [False] * width  # whether the last of them was above

    def judge(self, column: int, ts_ms: int, price_paise: int, volume: int) -> TickRule | None:
        """Return the rule that a tick breaks, or None when it is used. Prices in paise, volume cumulative."""
        if price_paise <= 0:
            return _NOT_POSITIVE
        tick = (ts_ms, price_paise, volume)
        if tick == self._seen[column]:
            return _DUPLICATE
        self._seen[column] = tick
        for start_ms, end_ms in self._windows:
            if start_ms <= ts_ms < end_ms:
                break
        else:
            return _OFF_SESSION
        if (ts_ms, volume) < self._newest[column]:
            return _OUT_OF_ORDER
        size = self._ticks[column]
        if size and price_paise % size:
            return _OFF_TICK
        before = self._prices[column]
        if self._is_far(column, price_paise, before) and self._waits(column, is_above=price_paise > before):
            return _FAR_OFF
        self._run[column] = 0
        self._prices[column] = price_paise
        self._newest[column] = (ts_ms, volume)
        return None

    def _is_far(self, column: int, price_paise: int, before_paise: int) -> bool:
        lower, upper = self._bands[column]
        if (upper and price_paise > upper) or price_paise < lower:
            return True
        return before_paise > 0 and abs(price_paise - before_paise) * _BPS > before_paise * FAR_OFF_BPS

    def _waits(self, column: int, *, is_above: bool) -> bool:
        """Return whether a print far off is refused, and remember it."""
        run = self._run[column]
        if run >= FAR_OFF_RUN_MAX or (run and self._run_side[column] is is_above):
            return False
        self._run[column] = run + 1
        self._run_side[column] = is_above
        return True
