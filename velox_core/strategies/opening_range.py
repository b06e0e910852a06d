"""Opening-range breakout: trade the first close outside the range of the day's first minutes.

- The range is the highest high and lowest low of a symbol's bars that end within `range_minutes` of the open.
- After it, a close above the high (plus a buffer) buys, a close below the low sells if `allow_short`; at most one
  entry per side, symbol and day, counted when it is asked for, whether or not the gate lets it through.
- The stop is the other side of the range, or `stop_percent` from the close; the target is a multiple of that risk.
- No entry for a symbol whose range is wider than `range_bps_max`, after `entry_minutes` from the open, or when the day's
  first minutes were missed (a late start): half a range is none.
- It has no exits of its own: the engine watches stop and target, and closes at the day's end.

Sources: Toby Crabel, "Day Trading with Short Term Price Patterns and Opening Range Breakout", Traders Press 1990 (the idea
of the opening range and of one attempt per side); range minutes, stop at the other side and target by risk are the common
reading of it, not his text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from velox_core.domain.market.bars import MinuteRow
from velox_core.domain.orders import Side, Signal, SignalKind
from velox_core.domain.time import MS_PER_MINUTE
from velox_core.strategies.base import ParameterSpec, Strategy, StrategySession

_FIRST_ROW_LATE_MS_MAX = 2 * MS_PER_MINUTE  # the first bar ends one minute after the open; one more may be missing


class _Range:
    """One symbol's opening range and what has been done with it. Paise."""

    __slots__ = ("column", "high_paise", "low_paise", "sides_left", "symbol", "tick_paise")

    def __init__(self, column: int, symbol: str, tick_paise: int, sides: set[Side]) -> None:
        self.column = column
        self.symbol = symbol
        self.tick_paise = tick_paise
        self.high_paise = 0
        self.low_paise = 0
        self.sides_left = sides


class OpeningRangeBreakout(Strategy):
    """The breakout rule over the columns of the strategy."""

    parameter_specs: tuple[ParameterSpec, ...] = (
        ParameterSpec(name="range_minutes", default=15, help="length of the opening range, minutes", minimum=1, maximum=180),
        ParameterSpec(
            name="buffer_bps", default=0, help="how far outside the range a close must be, bps", minimum=0, maximum=1_000
        ),
        ParameterSpec(name="allow_short", default=False, help="also sell a close below the range"),
        ParameterSpec(name="quantity", default=1, help="shares of an entry; the fixed lot overrides it", minimum=1),
        ParameterSpec(
            name="stop_percent", default=0.0, help="stop distance, percent; 0: other side", minimum=0.0, maximum=50.0
        ),
        ParameterSpec(
            name="target_multiple", default=2.0, help="target in multiples of the risk; 0: none", minimum=0.0, maximum=100.0
        ),
        ParameterSpec(name="range_bps_max", default=300, help="widest range that is traded, bps of its low; 0: any", minimum=0),
        ParameterSpec(
            name="entry_minutes", default=0, help="entries until so long after the open; 0: the session's limit", minimum=0
        ),
    )

    def __init__(self, strategy_id: str, parameters: Mapping[str, object]) -> None:
        """Validate parameters. Raises ValueError, also when no entry could come after the range."""
        super().__init__(strategy_id, parameters)
        values = self.parameters
        self._range_minutes = int(values["range_minutes"])
        self._entry_minutes = int(values["entry_minutes"])
        if 0 < self._entry_minutes <= self._range_minutes:
            raise ValueError(
                f"parameter 'entry_minutes' is {self._entry_minutes}; "
                f"it must be 0 or above 'range_minutes', which is {self._range_minutes}"
            )
        self._buffer_bps = int(values["buffer_bps"])
        self._allow_short = bool(values["allow_short"])
        self._quantity = int(values["quantity"])
        self._stop_bps = round(float(values["stop_percent"]) * 100)
        self._target_thousandths = round(float(values["target_multiple"]) * 1_000)
        self._range_bps_max = int(values["range_bps_max"])
        self._ranges: list[_Range] = []

    def start_session(self, session: StrategySession) -> None:
        """Forget the day before; the ranges are empty until their minutes come."""
        sides = {Side.BUY, Side.SELL} if self._allow_short else {Side.BUY}
        self._ranges = [
            _Range(column, session.universe[column], session.tick_paise[column], set(sides)) for column in session.columns
        ]
        self._first_row_by_ms = session.open_ms + _FIRST_ROW_LATE_MS_MAX
        self._range_until_ms = session.open_ms + self._range_minutes * MS_PER_MINUTE
        self._entry_until_ms = session.entry_until_ms
        if self._entry_minutes:
            self._entry_until_ms = min(session.entry_until_ms, session.open_ms + self._entry_minutes * MS_PER_MINUTE)
        self._saw_open = False
        self._is_judged = False

    def on_minute(self, ts_ms: int, row: MinuteRow, positions: Sequence[int]) -> list[Signal]:
        """Answer one minute: widen the ranges while they form, then look for the first close outside."""
        if ts_ms <= self._range_until_ms:
            self._saw_open = self._saw_open or ts_ms <= self._first_row_by_ms
            self._widen(row)
            return []
        if not self._is_judged:
            self._is_judged = True
            self._ranges = [range_ for range_ in self._ranges if self._saw_open and self._is_tradable(range_)]
        if ts_ms > self._entry_until_ms:
            return []
        signals: list[Signal] = []
        closes = row.closes
        for range_ in self._ranges:
            close = closes[range_.column]
            if close and not positions[range_.column]:
                side = self._broken_side(range_, close)
                if side is not None and side in range_.sides_left:
                    range_.sides_left.remove(side)
                    signals.append(self._entry(range_, side, close))
        return signals

    def _widen(self, row: MinuteRow) -> None:
        for range_ in self._ranges:
            column = range_.column
            if row.closes[column]:
                range_.high_paise = max(range_.high_paise, row.highs[column])
                range_.low_paise = min(range_.low_paise or row.lows[column], row.lows[column])

    def _is_tradable(self, range_: _Range) -> bool:
        if not range_.low_paise:
            return False
        width_bps = (range_.high_paise - range_.low_paise) * 10_000
        return not self._range_bps_max or width_bps <= self._range_bps_max * range_.low_paise

    def _broken_side(self, range_: _Range, close_paise: int) -> Side | None:
        if close_paise * 10_000 > range_.high_paise * (10_000 + self._buffer_bps):
            return Side.BUY
        if close_paise * 10_000 < range_.low_paise * (10_000 - self._buffer_bps):
            return Side.SELL
        return None

    def _entry(self, range_: _Range, side: Side, close_paise: int) -> Signal:
        tick = range_.tick_paise
        away = side.sign
        stop = range_.low_paise if side is Side.BUY else range_.high_paise
        if self._stop_bps:
            stop = close_paise - away * max(close_paise * self._stop_bps // 10_000, tick)
        stop = stop // tick * tick if side is Side.BUY else -(-stop // tick) * tick
        risk = (close_paise - stop) * away
        target = 0
        if self._target_thousandths:
            target = close_paise + away * max(risk * self._target_thousandths // 1_000, tick)
            target = -(-target // tick) * tick if side is Side.BUY else target // tick * tick
        edge = (
            f"above the {self._range_minutes}-minute high"
            if side is Side.BUY
            else f"below the {self._range_minutes}-minute low"
        )
        return Signal(
            self.strategy_id,
            range_.symbol,
            side,
            self._quantity,
            SignalKind.ENTRY,
            f"close {edge}",
            stop_paise=max(stop, 0),
            target_paise=max(target, 0),
        )
