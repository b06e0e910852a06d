"""Instruments and their tick sizes, both by date.

- A tick size is set once a month, from the close of the last day of the month before; it is kept through splits.
- A date before the first rule has no tick size: that is an error, never a guess.
- A stock is DERIVATIVE class on the dates on which it has futures and options; all others are CASH.
- Prices in paise. Pure: the rules come as data (`config/nse_calendar.yaml`, read by `velox_core.calendar`).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from enum import StrEnum

from velox_core.domain.errors import CalendarError


class SecurityClass(StrEnum):
    """Which session rules a stock follows: DERIVATIVE has futures and options on it, CASH has not."""

    DERIVATIVE = "derivative"
    CASH = "cash"


@dataclass(frozen=True, slots=True, kw_only=True)
class TickRule:
    """The tick sizes that hold from a date on.

    Attributes:
        first_date: the first date of the rule.
        floors_paise: lower ends of the price bands, ascending, the first is 0; a close on a floor is in that band.
        ticks_paise: the tick of each band, as many as there are floors.
    """

    first_date: date
    floors_paise: tuple[int, ...]
    ticks_paise: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TickTable:
    """Tick sizes by date and price band. `rules` ascend by date; each holds until the next begins."""

    rules: tuple[TickRule, ...]

    def tick_paise(self, on: date, reference_close_paise: int) -> int:
        """Return the tick size of a stock on a date, in paise.

        Args:
            on: the trading date.
            reference_close_paise: its close on the last day of the month before `on`, paise, above 0. Where it is
                not known, pass the nearest price that is: the bands are wide.
        Raises: ValueError for a close that is not above 0; CalendarError for a date before the first rule.
        """
        if reference_close_paise <= 0:
            raise ValueError(f"a tick size needs a reference close above 0, not {reference_close_paise} paise")
        found = None
        for rule in self.rules:
            if rule.first_date > on:
                break
            found = rule
        if found is None:
            begin = self.rules[0].first_date if self.rules else "any date"
            raise CalendarError(f"no tick sizes for {on}: the table begins on {begin}; add a rule to `tick_sizes`")
        return found.ticks_paise[bisect_right(found.floors_paise, reference_close_paise) - 1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Instrument:
    """One stock on one date. Prices in paise, quantities in shares.

    Attributes:
        tick_paise: every price of an order is a multiple of it.
        lower_band_paise, upper_band_paise: the day's price band, inclusive; 0 means none is known.
        freeze_quantity: the largest order; the broker's cap of 1,00,000 shares until a list says less
            (no circular for cash equities was found, 2026-11).
        tradable: False when entries must be refused (suspended, banned, not in the broker's list).
    """

    symbol: str
    exchange: str = "NSE"
    security_class: SecurityClass
    tick_paise: int
    lower_band_paise: int = 0
    upper_band_paise: int = 0
    freeze_quantity: int = 100_000
    isin: str = ""
    tradable: bool = True

    def __post_init__(self) -> None:
        if self.tick_paise <= 0 or self.freeze_quantity <= 0:
            raise ValueError(
                f"{self.symbol}: tick {self.tick_paise} and freeze quantity {self.freeze_quantity} must be above 0"
            )
        if self.lower_band_paise < 0 or self.upper_band_paise < 0:
            raise ValueError(f"{self.symbol}: a price band is not negative")
        if self.upper_band_paise and self.lower_band_paise > self.upper_band_paise:
            raise ValueError(f"{self.symbol}: price band {self.lower_band_paise} to {self.upper_band_paise} is upside down")

    def is_on_tick(self, price_paise: int) -> bool:
        """Return whether a price is a positive multiple of the tick."""
        return price_paise > 0 and price_paise % self.tick_paise == 0

    def round_to_tick(self, price_paise: int, *, up: bool) -> int:
        """Return the nearest multiple of the tick at or above (`up`), or at or below, a price in paise."""
        below = price_paise - price_paise % self.tick_paise
        return below + self.tick_paise if up and below != price_paise else below


@dataclass(frozen=True, slots=True, kw_only=True)
class DerivativePeriod:
    """The dates on which a stock has futures and options; `last_date` None means it still has."""

    first_date: date
    last_date: date | None


@dataclass(frozen=True, slots=True, kw_only=True)
class InstrumentBook:
    """What is known of each stock without asking a broker: its tick and its class, by date."""

    tick_table: TickTable
    derivative_periods: Mapping[str, tuple[DerivativePeriod, ...]]

    def security_class(self, symbol: str, on: date) -> SecurityClass:
        """Return the class of a stock on a date; a symbol that is not listed is CASH."""
        for period in self.derivative_periods.get(symbol, ()):
            if period.first_date <= on and (period.last_date is None or on <= period.last_date):
                return SecurityClass.DERIVATIVE
        return SecurityClass.CASH

    def instrument(self, symbol: str, on: date, reference_close_paise: int) -> Instrument:
        """Return a stock as it is on a date; the arguments and errors are those of `TickTable.tick_paise`."""
        return Instrument(
            symbol=symbol,
            security_class=self.security_class(symbol, on),
            tick_paise=self.tick_table.tick_paise(on, reference_close_paise),
        )
