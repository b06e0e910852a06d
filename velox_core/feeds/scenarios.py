"""The shapes that synthetic days can have: one pure function each, from random numbers to a path of prices.

- A scenario gets the day's shared randomness (`market`, the same for every symbol) and the symbol's own, so that a
  fall hits all symbols in the same minute while each keeps its own noise.
- Paths are rupees as floats, one entry per minute; ticks, wicks and volume come afterwards, in `synthetic`.
- Positions within the day are fractions of the session, so that a short session has the same shape.
- A scenario may leave minutes out (`PricePath.traded`): a symbol that is halted has no bars.
- The first symbol of a day is one of those that a halt or a circuit hits, so that a small day shows it too (`ordinal`).
- To add a scenario, write its function and enter it in SCENARIOS.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from velox_core.feeds.columns import Floats, Mask


@dataclass(frozen=True, slots=True, kw_only=True)
class PathInputs:
    """What a scenario makes one symbol's day from.

    Attributes:
        minutes: length of the day, at least 1.
        base_rupees: the close of the session before.
        market: randomness that every symbol of the day sees alike.
        own: randomness of this symbol.
        ordinal: a number that the symbol's name alone decides, from 0; SYN1 is 0, SYN2 is 1.
    """

    minutes: int
    base_rupees: float
    market: np.random.Generator
    own: np.random.Generator
    ordinal: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PricePath:
    """A symbol's day: float64[minutes] each. `wick` is the typical reach beyond open and close, as a fraction.

    `traded` is the minutes that have a bar, None for all of them.
    """

    opens: Floats
    closes: Floats
    wick: Floats
    volume_factor: Floats
    traded: Mask | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One kind of day. Base prices are drawn between `base_rupees_min` and `base_rupees_max`.

    `has_bands`: the exchange's price bands are part of it, `BAND_BPS` either side of the close before.
    """

    name: str
    summary: str
    base_rupees_min: float
    base_rupees_max: float
    path: Callable[[PathInputs], PricePath]
    has_bands: bool = False


def calm_path(inputs: PathInputs) -> PricePath:
    """Walk at random, about 0.9 % a day, livelier after the open, a third of it shared by all symbols."""
    count = inputs.minutes
    sigma = 0.0004 * (1.0 + 1.5 * np.exp(-np.arange(count) / 20.0))
    shocks = 0.58 * inputs.market.standard_normal(count) + 0.81 * inputs.own.standard_normal(count)
    gap = 0.001 * float(inputs.own.standard_normal())
    closes = inputs.base_rupees * np.exp(gap + np.cumsum(shocks * sigma))
    opens = _opens_at_previous_close(inputs.base_rupees * float(np.exp(gap)), closes)
    return PricePath(opens=opens, closes=closes, wick=sigma * 0.5, volume_factor=np.ones(count))


# The shape of a crash day, as fractions of the session and of the base price. On a normal day of 375 minutes the swing
# lasts 12 minutes, the rise 09:50-10:20, the fall comes at about 11:26. A long of three shares near 4,600 rupees loses
# about 2,500 rupees within the minute of the fall and 2,600 at the next open, which is less than 1 % lower, so that an
# order with a market protection of 1 % still fills.
_SWING_END = 0.032
_RISE_START, _RISE_END = 0.093, 0.173
_FALL_AT, _FALL_JITTER = 0.35, 0.02
_SWING_SIZE, _CALMED_SIZE = 0.0030, 0.0010
_RISE_SIZE, _PLATEAU_DRIFT = 0.0058, 0.0022
_FIRST_GAP, _FALL_BOTTOM, _SECOND_GAP = 0.090, 0.182, 0.188


def crash_path(inputs: PathInputs) -> PricePath:
    """Rise mildly through the morning, then fall 19 % within two minutes, in air pockets, and hardly recover.

    The first minutes swing 0.3 % both ways, so an opening range has a width; then the price leaves it
    upwards and drifts up, so that trend followers are long and neither stop nor target is near. The falling minute
    opens 9 % lower and closes 18 % lower, the next one opens lower still: no price traded where a stop could have filled.
    """
    count = inputs.minutes
    fall = _fall_minute(count, float(inputs.market.random()))
    minute = np.arange(count, dtype=np.float64)
    relative = _morning(minute, count, fall, inputs.own)
    noise = np.where(minute < _SWING_END * count, 0.00025, 0.00012) * inputs.own.standard_normal(count)
    closes = inputs.base_rupees * (1.0 + relative + noise)
    opens = _opens_at_previous_close(inputs.base_rupees, closes)
    wick = np.where(minute < fall, 0.00015, 0.0006)
    volume_factor = np.where((minute >= _RISE_START * count) & (minute < _RISE_END * count), 2.0, 1.0)
    if fall < count:
        before = float(closes[fall - 1]) if fall else inputs.base_rupees
        jitter = float(inputs.own.uniform(-0.002, 0.002))
        opens[fall] = before * (1.0 - _FIRST_GAP + jitter)
        closes[fall] = before * (1.0 - _FALL_BOTTOM + jitter)
        rest = np.arange(count - fall - 1, dtype=np.float64)
        recovery = 0.012 * (1.0 - np.exp(-rest / max(1.0, 0.3 * count)))
        walk = np.cumsum(0.0002 * inputs.own.standard_normal(rest.size))
        bottom = before * (1.0 - _SECOND_GAP + jitter)
        closes[fall + 1 :] = bottom * (1.0 + recovery + walk)
        opens[fall + 2 :] = closes[fall + 1 : -1]
        opens[fall + 1 : fall + 2] = bottom
        volume_factor[fall:] = 1.0 + 19.0 * np.exp(-np.arange(count - fall) / 8.0)
    return PricePath(opens=opens, closes=closes, wick=wick, volume_factor=volume_factor)


def _fall_minute(count: int, draw: float) -> int:
    """Return the index of the falling minute, the same for all symbols of the day. `draw` is in [0, 1)."""
    return min(count, max(1, round((_FALL_AT + _FALL_JITTER * (draw - 0.5)) * count)))


def _morning(minute: Floats, count: int, fall: int, own: np.random.Generator) -> Floats:
    """Return the smooth part of a crash day's morning, as fractions above the base price."""
    swing_end, rise_start, rise_end = _SWING_END * count, _RISE_START * count, _RISE_END * count
    phase = float(own.uniform(0.0, 2.0 * np.pi))
    size = np.where(minute < swing_end, _SWING_SIZE, _CALMED_SIZE * np.exp(-(minute - swing_end) / max(1.0, 2.0 * swing_end)))
    swing = size * np.sin(phase + 2.0 * np.pi * minute / max(1.0, swing_end))
    rise_size = _RISE_SIZE * float(own.uniform(0.95, 1.05))
    risen = np.clip((minute - rise_start) / max(1.0, rise_end - rise_start), 0.0, 1.0)
    drifted = np.clip((minute - rise_end) / max(1.0, fall - rise_end), 0.0, 1.0)
    calm_swing: Floats = swing * (1.0 - risen) + rise_size * risen * risen * (3.0 - 2.0 * risen) + _PLATEAU_DRIFT * drifted
    return calm_swing


def trend_path(inputs: PathInputs) -> PricePath:
    """Drift one way all day, about 2.5 %, with noise much smaller than the drift; three symbols of four rise."""
    count = inputs.minutes
    direction = 1.0 if inputs.ordinal % 4 != 3 else -1.0
    size = direction * float(inputs.own.uniform(0.020, 0.030))
    place = (np.arange(count) + 1.0) / count
    wave = 0.0012 * np.sin(2.0 * np.pi * 5.0 * place + float(inputs.own.uniform(0.0, 2.0 * np.pi)))
    walk = np.cumsum(0.00012 * inputs.own.standard_normal(count))
    closes = inputs.base_rupees * np.exp(size * place + wave + walk)
    return _plain_path(inputs.base_rupees, closes, wick=0.0003)


# Eleven minutes up, eleven down: an average of ten closes crosses one of thirty each way, always near the turn.
_WHIPSAW_MINUTES = 22
_WHIPSAW_SIZE = 0.0075


def whipsaw_path(inputs: PathInputs) -> PricePath:
    """Swing 0.75 % up and down in turns of about 22 minutes, going nowhere: every signal comes late and is undone."""
    count = inputs.minutes
    phase = float(inputs.own.uniform(0.0, 2.0 * np.pi))
    swing = _WHIPSAW_SIZE * np.sin(phase + 2.0 * np.pi * np.arange(count) / _WHIPSAW_MINUTES)
    noise = 0.00025 * inputs.own.standard_normal(count)
    closes = inputs.base_rupees * (1.0 + swing - swing[:1] + noise)
    return _plain_path(inputs.base_rupees, closes, wick=0.0006)


_GAP_AT, _GAP_SIZE = 0.35, 0.030


def gap_path(inputs: PathInputs) -> PricePath:
    """Open 2 % above the day before, rise like a crash day's morning, then open 3 % lower within the day: past every stop.

    No minute lasts between the two prices: the bar before the gap ends above it, the next one begins below.
    """
    count = inputs.minutes
    fall = max(1, round(_GAP_AT * count))
    first = inputs.base_rupees * (1.02 + float(inputs.own.uniform(-0.002, 0.002)))
    minute = np.arange(count, dtype=np.float64)
    relative = _morning(minute, count, min(fall, count), inputs.own)
    noise = np.where(minute < _SWING_END * count, 0.00025, 0.00012) * inputs.own.standard_normal(count)
    closes = first * (1.0 + relative + noise)
    opens = _opens_at_previous_close(first, closes)
    if fall < count:
        closes[fall:] *= 1.0 - _GAP_SIZE
        opens[fall + 1 :] *= 1.0 - _GAP_SIZE
        opens[fall] = closes[fall]
    return PricePath(opens=opens, closes=closes, wick=np.full(count, 0.0002), volume_factor=np.where(minute == fall, 8.0, 1.0))


_HALT_AT, _RESUME_AT = 0.40, 0.70


def halted_path(inputs: PathInputs) -> PricePath:
    """Rise like a crash day's morning; every second symbol stops trading at about 11:45, some for good, some until about 13:40.

    Of those that stop, every second one (the first symbol of a day among them) never trades again that day.
    """
    count = inputs.minutes
    path = _calm_morning(inputs)
    if inputs.ordinal % 2:
        return path
    minute = np.arange(count)
    halted = minute >= round(_HALT_AT * count)
    if inputs.ordinal % 4:
        halted &= minute < round(_RESUME_AT * count)
    return PricePath(opens=path.opens, closes=path.closes, wick=path.wick, volume_factor=path.volume_factor, traded=~halted)


BAND_BPS = 1_000
GRID_PAISE = 10
_LOCK_AT, _UNLOCK_AT = 0.40, 0.80


def circuit_path(inputs: PathInputs) -> PricePath:
    """Rise like a crash day's morning, then every second symbol is locked at its lower band: sellers, and no buyer.

    The whole bar stands at the band, so nothing that sells can fill. Of the locked symbols every second one (the first symbol
    of a day among them) stays so to the end; the others trade again from about 14:15, a little above the band.
    """
    count = inputs.minutes
    path = _calm_morning(inputs)
    if inputs.ordinal % 2:
        return path
    lock, unlock = max(1, round(_LOCK_AT * count)), round(_UNLOCK_AT * count)
    end = count if inputs.ordinal % 4 == 0 else unlock
    band = price_band_paise(round(inputs.base_rupees * 100))[0] / 100
    opens, closes, wick = path.opens.copy(), path.closes.copy(), path.wick.copy()
    opens[lock:end] = closes[lock:end] = band
    wick[lock:end] = 0.0
    if end < count:
        rest = np.cumsum(0.0003 * inputs.own.standard_normal(count - end))
        closes[end:] = band * (1.01 + np.clip(rest, -0.004, 0.004))
        opens[end] = band * 1.01
        opens[end + 1 :] = closes[end:-1]
    return PricePath(opens=opens, closes=closes, wick=wick, volume_factor=path.volume_factor)


def price_band_paise(base_paise: int) -> tuple[int, int]:
    """Return the lowest and highest price of the day, paise: 10 % around the close before, on the grid, inwards."""
    lower = -(-base_paise * (10_000 - BAND_BPS) // (10_000 * GRID_PAISE)) * GRID_PAISE
    return lower, base_paise * (10_000 + BAND_BPS) // (10_000 * GRID_PAISE) * GRID_PAISE


def _calm_morning(inputs: PathInputs) -> PricePath:
    """Return a crash day's morning that never falls: a range, a rise, a plateau."""
    count = inputs.minutes
    minute = np.arange(count, dtype=np.float64)
    relative = _morning(minute, count, count, inputs.own)
    noise = np.where(minute < _SWING_END * count, 0.00025, 0.00012) * inputs.own.standard_normal(count)
    return _plain_path(inputs.base_rupees, inputs.base_rupees * (1.0 + relative + noise), wick=0.0002)


def _plain_path(first_open: float, closes: Floats, *, wick: float) -> PricePath:
    """Return a path whose bars open where the bar before closed, at even volume."""
    return PricePath(
        opens=_opens_at_previous_close(first_open, closes),
        closes=closes,
        wick=np.full(closes.size, wick),
        volume_factor=np.ones(closes.size),
    )


def _opens_at_previous_close(first_open: float, closes: Floats) -> Floats:
    return np.concatenate([np.array([first_open]), closes[:-1]])


SCENARIOS: Mapping[str, Scenario] = MappingProxyType(
    {
        scenario.name: scenario
        for scenario in (
            Scenario(
                name="calm",
                summary="an ordinary day: prices wander less than 1 %",
                base_rupees_min=300.0,
                base_rupees_max=3_000.0,
                path=calm_path,
            ),
            Scenario(
                name="trend",
                summary="every symbol goes one way all day, most of them up, about 2.5 %",
                base_rupees_min=300.0,
                base_rupees_max=3_000.0,
                path=trend_path,
            ),
            Scenario(
                name="crash",
                summary="a rising morning, then 19 % down within two minutes, past every stop",
                base_rupees_min=4_400.0,
                base_rupees_max=4_700.0,
                path=crash_path,
            ),
            Scenario(
                name="whipsaw",
                summary="swings of 0.75 % in turns of 22 minutes: many signals, each undone",
                base_rupees_min=300.0,
                base_rupees_max=3_000.0,
                path=whipsaw_path,
            ),
            Scenario(
                name="gap",
                summary="opens 2 % higher, rises, then gaps 3 % down within the day, through every stop",
                base_rupees_min=300.0,
                base_rupees_max=3_000.0,
                path=gap_path,
            ),
            Scenario(
                name="halted",
                summary="a rising morning, then every second symbol stops trading, some of them for good",
                base_rupees_min=300.0,
                base_rupees_max=3_000.0,
                path=halted_path,
            ),
            Scenario(
                name="circuit",
                summary="every second symbol is locked at its lower band of 10 %, some of them to the close",
                base_rupees_min=300.0,
                base_rupees_max=3_000.0,
                path=circuit_path,
                has_bands=True,
            ),
        )
    }
)
