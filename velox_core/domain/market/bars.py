"""Bars and ticks as the engine sees them: integer paise, epoch milliseconds, columns by symbol index.

- A `MinuteRow` is one minute of the whole universe: `closes[i]` belongs to `universe[i]`; 0 means no bar.
- A bar is stamped at its END: the bar of 09:15-09:16 carries 09:16:00, the first moment its close is known.
- A `TickBatch` is what traded at one moment, at most one tick of a symbol; minutes are built from ticks by `minutes`.
- `DayColumns` is one trading date of a feed, ready for the loop.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date

NO_BAR = 0
SYMBOLS_SHOWN_MAX = 12


class Bar:
    """One symbol's minute, for strategies that prefer `on_bar`. Prices in paise, volume in shares, ts at the bar's end."""

    __slots__ = ("close", "high", "low", "open", "symbol", "ts_ms", "volume")

    def __init__(self, symbol: str, ts_ms: int, open_: int, high: int, low: int, close: int, volume: int) -> None:
        self.symbol = symbol
        self.ts_ms = ts_ms
        self.open = open_
        self.high = high
        self.low = low
        self.close = close
        self.volume = volume


class MinuteRow:
    """One minute of all symbols, as columns of ints by symbol index (paise, shares); 0 in `closes` means no bar.

    `ts_ms` is the END of the minute in epoch milliseconds.
    """

    __slots__ = ("closes", "highs", "lows", "opens", "ts_ms", "volumes")

    def __init__(
        self, ts_ms: int, opens: list[int], highs: list[int], lows: list[int], closes: list[int], volumes: list[int]
    ) -> None:
        self.ts_ms = ts_ms
        self.opens = opens
        self.highs = highs
        self.lows = lows
        self.closes = closes
        self.volumes = volumes

    def bar(self, symbol: str, index: int) -> Bar | None:
        """Return one symbol's bar, or None when the minute has none."""
        if not self.closes[index]:
            return None
        return Bar(
            symbol, self.ts_ms, self.opens[index], self.highs[index], self.lows[index], self.closes[index], self.volumes[index]
        )


class TickBatch:
    """What traded at one moment, as columns of equal length: symbol index, price in paise, shares traded since the day began.

    `ts_ms` is the exchange's time in epoch milliseconds. No symbol is in it twice. It is shared: read, never changed.
    """

    __slots__ = ("columns", "prices", "ts_ms", "volumes")

    def __init__(self, ts_ms: int, columns: list[int], prices: list[int], volumes: list[int]) -> None:
        self.ts_ms = ts_ms
        self.columns = columns
        self.prices = prices
        self.volumes = volumes


MarketEvent = MinuteRow | TickBatch


@dataclass(frozen=True, slots=True, kw_only=True)
class RowDrops:
    """Rows that a feed refused, or used and noted, by rule. Counts of source rows.

    Attributes:
        rule: the rule's name (docs/data-format.md).
        count: rows.
        example: the first of them: file, row, share, time and values.
        by_symbol: rows by share, where the rule knows the share.
        kept: the rows are used as they are; the rule only says what is unusual.
    """

    rule: str
    count: int
    example: str
    by_symbol: tuple[tuple[str, int], ...] = ()
    kept: bool = False

    def to_json(self) -> dict[str, object]:
        """Return the values for the journal and the report."""
        shares = dict(self.by_symbol)
        return {"rule": self.rule, "count": self.count, "kept": self.kept, "example": self.example, "by_symbol": shares}

    @property
    def shown(self) -> str:
        """Return the example for people, with the counts of the first symbols where they are known."""
        if not self.by_symbol:
            return self.example
        counts = ", ".join(f"{symbol} {count}" for symbol, count in self.by_symbol[:SYMBOLS_SHOWN_MAX])
        more = len(self.by_symbol) - SYMBOLS_SHOWN_MAX
        return f"{self.example} ({counts}{f' and {more} symbols more' if more > 0 else ''})"


@dataclass(frozen=True, slots=True, kw_only=True)
class DayColumns:
    """One trading date of a feed.

    Attributes:
        trading_date: the date of the session.
        universe: symbols, in column order.
        rows: one MinuteRow per minute that has at least one bar, oldest first; for a day of ticks, built from them.
        source: where the bars came from, for people ("tcs_2024-01-15.csv", "synthetic crash").
        synthetic: True when no market made these prices; every output says so.
        previous_close_paise: per symbol, the last price of the session before, or 0 when unknown.
        drops: what was refused, and what is unusual, by rule.
        bar_minutes: the length of a bar; a row comes at its end.
        ticks: the ticks of a day of ticks, oldest first; None for a day of bars.
        bands_paise: per symbol, the day's lowest and highest price, empty where the source does not tell.
    """

    trading_date: date
    universe: tuple[str, ...]
    rows: list[MinuteRow]
    source: str
    synthetic: bool = False
    previous_close_paise: tuple[int, ...] = ()
    drops: tuple[RowDrops, ...] = field(default=())
    bar_minutes: int = 1
    ticks: list[TickBatch] | None = None
    bands_paise: tuple[tuple[int, int], ...] = ()

    def __iter__(self) -> Iterator[MinuteRow]:
        return iter(self.rows)

    @property
    def granularity(self) -> str:
        """Return what marks and stops rest on, for reports."""
        if self.ticks is not None:
            return "ticks; marks, stops and fills at each tick, strategies once a minute on minutes built from them"
        return f"{self.bar_minutes}-minute bars; marks at the close, a stop is taken before a target"

    def rows_by_rule(self, *, kept: bool) -> dict[str, int | str | bool | None]:
        """Return the counts of what was refused, or of what was used though it is unusual (`kept`)."""
        return {drop.rule: drop.count for drop in self.drops if drop.kept is kept}

    def quality_json(self) -> list[dict[str, object]]:
        """Return what was refused or is unusual, for the journal and the report."""
        return [drop.to_json() for drop in self.drops]

    @property
    def bar_count(self) -> int:
        """Return how many bars there are over all symbols."""
        return sum(1 for row in self.rows for close in row.closes if close)

    @property
    def tick_count(self) -> int:
        """Return how many ticks there are over all symbols; 0 for a day of bars."""
        return sum(len(batch.columns) for batch in self.ticks or ())
