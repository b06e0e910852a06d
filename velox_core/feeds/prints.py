"""What only a share's whole day shows: prints far off, frozen prices, a share that stops.

- A bar is far off when a price of it lies more than NEIGHBOUR_BPS_MAX beyond both sides: the three closes before and the
  three after. A price that stays where it went is no such bar, however far it went.
- The first and the last bar have one side only: there the band of EDGE_BPS_MAX holds. More than DAY_BPS_MAX off the day's
  middle close is far off at any length: paise for rupees, a slipped decimal point.
- A run of bars without volume and without movement is a feed that repeats itself, not a market: none of it is used, so
  that the share counts as silent. A still price with volume may be a share at its band: noted, and used.
- No price is changed. Pure numpy: values in, masks out.
"""

from __future__ import annotations

import numpy as np

from velox_core.domain.time import MS_PER_MINUTE, ist_datetime
from velox_core.feeds.columns import Floats, Ints, Mask
from velox_core.feeds.quality import DropRule, DropTally

NEIGHBOUR_BPS_MAX = 500
EDGE_BPS_MAX = 2_000  # the widest price band of a share without derivatives
DAY_BPS_MAX = 5_000
UNUSUAL_BPS_MIN = 150
FROZEN_BARS_MIN = 5
STILL_BARS_MIN = 30
STOP_MINUTES_MIN = 5
RUNNING_BARS_MIN = 30
_SIDE = 3
_BPS = 10_000


def judge_day(
    symbol: str,
    ts_ms: Ints,
    values: Ints,
    tally: DropTally,
    *,
    previous_close_paise: int,
    bar_ms: int,
    end_ms: int,
    judged: bool = False,
) -> tuple[Ints, Ints]:
    """Judge one share's day and return what may be traded on.

    Args:
        symbol: for the examples.
        ts_ms: int64[n], starts of the bars, ascending.
        values: int64[5, n]: open, high, low, close in paise, volume in shares.
        tally: takes the counts.
        previous_close_paise: the last close before the date, 0 when unknown.
        bar_ms: the length of a bar.
        end_ms: when the share's continuous trading ends.
        judged: an import dropped already what is to be dropped; only what is unusual is counted.
    """
    if ts_ms.size == 0:
        return ts_ms, values
    for rule, find in () if judged else ((DropRule.FAR_OFF, far_off), (DropRule.FROZEN, frozen)):
        bad = find(values)
        _count(rule, symbol, ts_ms, values, bad, tally)
        ts_ms, values = ts_ms[~bad], values[:, ~bad]
    _note(symbol, ts_ms, values, tally, previous_close_paise)
    _count_missing(symbol, ts_ms, tally, bar_ms)
    if ts_ms.size and (silent := (end_ms - int(ts_ms[-1]) - bar_ms) // MS_PER_MINUTE) >= STOP_MINUTES_MIN:
        last = ist_datetime(int(ts_ms[-1]) + bar_ms)
        tally.add(DropRule.STOPS_EARLY, silent, f"{symbol}: the last bar ends at {last:%Y-%m-%d %H:%M}", symbol)
    return ts_ms, values


def far_off(values: Ints) -> Mask:
    """Return which bars hold a price that neither side supports. `values`: int64[5, n] in paise."""
    reach = _reach_bps(values)
    off: Mask = reach > NEIGHBOUR_BPS_MAX
    if off.size > 1:
        off[[0, -1]] = reach[[0, -1]] > EDGE_BPS_MAX
    if off.size > 2 * _SIDE:
        middle = float(np.median(values[3]))
        off |= (np.abs(values[:4] - middle) * _BPS > DAY_BPS_MAX * middle).any(axis=0)
    else:
        off[:] = False  # too few bars to say which of them is wrong
    return off


def _reach_bps(values: Ints) -> Floats:
    """Return how far each bar reaches beyond the nearer of its two sides, in basis points, 0 when it does not."""
    count = values.shape[1]
    highs, lows = values[:4].max(axis=0), values[:4].min(axis=0)
    closes = values[3].astype(np.float64)
    if count < 2:
        return np.zeros(count)
    places = np.arange(count)
    before = _middle(closes, np.stack([np.maximum(places - step, 0) for step in range(1, _SIDE + 1)]))
    after = _middle(closes, np.stack([np.minimum(places + step, count - 1) for step in range(1, _SIDE + 1)]))
    before[0], after[-1] = after[0], before[-1]
    upper, lower = np.maximum(before, after), np.minimum(before, after)
    reach: Floats = np.maximum((highs - upper) / upper, (lower - lows) / lower) * _BPS
    return np.maximum(reach, 0.0)


def _middle(closes: Floats, places: Ints) -> Floats:
    """Return the middle of three closes each."""
    middle: Floats = np.sort(closes[places], axis=0)[_SIDE // 2]
    return middle


def frozen(values: Ints) -> Mask:
    """Return which bars belong to a run of FROZEN_BARS_MIN or more at one price without volume."""
    flat: Mask = (values[:4] == values[3]).all(axis=0) & (values[4] == 0)
    return _in_runs(flat, values[3], FROZEN_BARS_MIN)


def _in_runs(flat: Mask, closes: Ints, length_min: int) -> Mask:
    """Return the marked bars that stand in a row of at least `length_min` with the same close."""
    if flat.size < length_min or not flat.any():
        return np.zeros(flat.size, dtype=np.bool_)
    breaks = np.concatenate([[True], (closes[1:] != closes[:-1]) | ~flat[1:] | ~flat[:-1]])
    runs = np.cumsum(breaks) - 1
    long: Mask = np.bincount(runs)[runs] >= length_min
    return flat & long


def _note(symbol: str, ts_ms: Ints, values: Ints, tally: DropTally, previous_close_paise: int) -> None:
    """Count what is unusual and used as it is."""
    if ts_ms.size > 2 * _SIDE:
        _count(DropRule.UNUSUAL_PRINT, symbol, ts_ms, values, _reach_bps(values) >= UNUSUAL_BPS_MIN, tally)
    flat: Mask = (values[:4] == values[3]).all(axis=0)
    _count(DropRule.STILL_PRICE, symbol, ts_ms, values, _in_runs(flat, values[3], STILL_BARS_MIN), tally)
    if previous_close_paise:
        away = np.abs(values[:4] - previous_close_paise).max(axis=0) * _BPS > EDGE_BPS_MAX * previous_close_paise
        _count(DropRule.BEYOND_BAND, symbol, ts_ms, values, away, tally)
    volume = values[4]
    _count(DropRule.NO_VOLUME, symbol, ts_ms, values, (volume == 0) & ~flat, tally)
    if volume.size >= RUNNING_BARS_MIN and volume[-1] > volume[0] and bool((np.diff(volume) >= 0).all()):
        _count(DropRule.RUNNING_VOLUME, symbol, ts_ms, values, np.ones(volume.size, dtype=np.bool_), tally)


def _count_missing(symbol: str, ts_ms: Ints, tally: DropTally, bar_ms: int) -> None:
    """Count the minutes without a bar between the first and the last, with the longest silence as the example."""
    gaps = np.diff(ts_ms) - bar_ms
    missing = int(gaps.sum()) // MS_PER_MINUTE
    if missing > 0:
        longest = int(np.argmax(gaps))
        begin = ist_datetime(int(ts_ms[longest]) + bar_ms)
        minutes = int(gaps[longest]) // MS_PER_MINUTE
        tally.add(DropRule.MISSING, missing, f"{symbol}: {minutes} from {begin:%Y-%m-%d %H:%M}", symbol)


def _count(rule: DropRule, symbol: str, ts_ms: Ints, values: Ints, mask: Mask, tally: DropTally) -> None:
    if not mask.any():
        return
    row = int(np.argmax(mask))
    prices = " ".join(f"{name}={value / 100:.2f}" for name, value in zip("ohlc", values[:4, row].tolist(), strict=True))
    moment = ist_datetime(int(ts_ms[row]))
    tally.add(rule, int(np.count_nonzero(mask)), f"{symbol} {moment:%Y-%m-%d %H:%M} {prices} v={int(values[4, row])}", symbol)
