"""Days that no market made: seeded minutes for a date, labelled synthetic wherever they are shown.

- The same seed, date, symbol and scenario give the same minutes, whatever other symbols are asked for and in whichever
  order. The base price depends on seed, symbol and scenario only, so that a symbol stays near itself from day to day.
- Prices lie on a grid of 10 paise, which is a legal tick between 250 and 5,000 rupees under every tick table so far.
- Every minute of continuous trading of the classes with derivatives has a bar, in the hours of the date's session, unless the
  scenario halts the symbol.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import date

import numpy as np

from velox_core.domain.errors import ConfigError, InvariantError
from velox_core.domain.market.bars import DayColumns, MinuteRow
from velox_core.domain.market.sessions import SessionDay
from velox_core.domain.market.ticks import SecurityClass
from velox_core.domain.time import MS_PER_MINUTE
from velox_core.feeds.columns import Floats, Ints
from velox_core.feeds.scenarios import GRID_PAISE, SCENARIOS, PathInputs, Scenario, price_band_paise

__all__ = ["GRID_PAISE", "SCENARIOS", "SYNTHETIC_SYMBOLS", "default_symbols", "synthetic_day"]

SYNTHETIC_SYMBOLS = ("SYN1", "SYN2", "SYN3", "SYN4", "SYN5")


def default_symbols(scenario: str, count: int = len(SYNTHETIC_SYMBOLS)) -> tuple[str, ...]:
    """Return `count` symbols of a scenario when nobody names any. Raises ConfigError for an unknown scenario."""
    _shape(scenario)
    return tuple(f"SYN{number}" for number in range(1, count + 1))


def synthetic_day(day: date, symbols: Sequence[str], scenario: str, session: SessionDay, *, seed: int) -> DayColumns:
    """Make one day.

    Args:
        day: the trading date.
        symbols: the universe, in column order; empty means SYNTHETIC_SYMBOLS.
        scenario: a name in SCENARIOS.
        session: the date's session; it gives the minutes.
        seed: any integer.
    Raises: ConfigError for an unknown scenario or a symbol named twice; InvariantError for the session of another date.
    """
    shape = _shape(scenario)
    universe = tuple(symbols) or default_symbols(scenario)
    if len(set(universe)) < len(universe):
        raise ConfigError(f"a symbol is named twice in {', '.join(universe)}; name each once")
    if session.trading_date != day:
        raise InvariantError(f"synthetic day {day} with the session of {session.trading_date}")
    ends = _minute_ends_ms(session)
    bases = [_base_paise(symbol, shape, seed) for symbol in universe]
    days = [_bars(day, symbol, shape, base, ends.size, seed) for symbol, base in zip(universe, bases, strict=True)]
    table = np.stack(days, axis=2)
    rows = [MinuteRow(*columns) for columns in zip(ends.tolist(), *table.tolist(), strict=True) if any(columns[4])]
    return DayColumns(
        trading_date=day,
        universe=universe,
        rows=rows,
        source=f"synthetic {scenario} seed {seed}",
        synthetic=True,
        previous_close_paise=tuple(bases),
        bands_paise=tuple(price_band_paise(base) for base in bases) if shape.has_bands else (),
    )


def _shape(scenario: str) -> Scenario:
    shape = SCENARIOS.get(scenario)
    if shape is None:
        raise ConfigError(f"scenario {scenario!r} is not known; choose one of {', '.join(SCENARIOS)}")
    return shape


def _minute_ends_ms(session: SessionDay) -> Ints:
    windows = session.continuous_windows(SecurityClass.DERIVATIVE)
    starts = [np.arange(window.start_ms, window.end_ms, MS_PER_MINUTE, dtype=np.int64) for window in windows]
    return np.concatenate(starts) + MS_PER_MINUTE


def _generator(*parts: object) -> np.random.Generator:
    """Return a generator that depends on the text of `parts` alone."""
    digest = hashlib.sha256("|".join(str(part) for part in parts).encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "big")))


def _base_paise(symbol: str, shape: Scenario, seed: int) -> int:
    """Draw the close of the session before, on the grid, evenly on a log scale."""
    low, high = np.log(shape.base_rupees_min), np.log(shape.base_rupees_max)
    rupees = float(np.exp(_generator("base", seed, shape.name, symbol).uniform(low, high)))
    return round(rupees * 100 / GRID_PAISE) * GRID_PAISE


def _bars(day: date, symbol: str, shape: Scenario, base_paise: int, minutes: int, seed: int) -> Ints:
    """Return int64[5, minutes]: open, high, low, close in paise, volume in shares."""
    own = _generator("symbol", seed, day.isoformat(), shape.name, symbol)
    path = shape.path(
        PathInputs(
            minutes=minutes,
            base_rupees=base_paise / 100,
            market=_generator("market", seed, day.isoformat(), shape.name),
            own=own,
            ordinal=_ordinal(symbol),
        )
    )
    opens, closes = _on_grid(path.opens), _on_grid(path.closes)
    upper, lower = np.abs(own.standard_normal((2, minutes))) * path.wick
    highs = np.maximum(_on_grid(np.maximum(path.opens, path.closes) * (1.0 + upper)), np.maximum(opens, closes))
    lows = np.minimum(_on_grid(np.minimum(path.opens, path.closes) * (1.0 - lower)), np.minimum(opens, closes))
    bars = np.stack([opens, highs, np.maximum(lows, GRID_PAISE), closes, _volumes(own, path.volume_factor)])
    return bars if path.traded is None else bars * path.traded


def _ordinal(symbol: str) -> int:
    """Return the number that a symbol's name alone decides: SYN1 is 0, SYN2 is 1; any other name is one of 0 to 255."""
    number = symbol.removeprefix("SYN")
    if number != symbol and number.isascii() and number.isdigit() and number[0] != "0":
        return int(number) - 1
    return hashlib.sha256(symbol.encode()).digest()[0]


def _on_grid(rupees: Floats) -> Ints:
    """Round rupees to paise on the grid, never below one step."""
    steps: Ints = np.floor(rupees * 100.0 / GRID_PAISE + 0.5).astype(np.int64)
    return np.maximum(steps, 1) * GRID_PAISE


def _volumes(own: np.random.Generator, factor: Floats) -> Ints:
    """Draw shares per minute: twice the midday's at both ends of the day, scattered by about half."""
    place = np.linspace(-1.0, 1.0, factor.size)
    typical = float(own.uniform(3_000.0, 20_000.0)) * (1.0 + 1.5 * place**2) * factor
    shares: Ints = np.maximum(typical * np.exp(0.5 * own.standard_normal(factor.size)), 1.0).astype(np.int64)
    return shares
