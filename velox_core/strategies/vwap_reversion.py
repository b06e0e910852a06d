"""VWAP mean reversion: buy a close stretched below the session's VWAP, leave when the price is back at it.

- The session's VWAP of a symbol's own bars is compared with each close, exactly; nothing is said before `warmup_minutes`
  from the open, when the average still follows the first prints, or when the day's first minutes were missed.
- Entry: flat, and a close more than `entry_bps` below the VWAP, optionally short above it. One entry for each stretch: the
  price must come back to the VWAP before the same side is entered again, so that a stop is not followed by the same trade.
- Exit: a close at the VWAP or past it, or within `exit_bps` before it. Stop and target are distances from the entry's close.
- By default a position is left after 60 minutes (rule `time_stop_minutes`): what has not reverted by then seldom does.

Sources: Berkowitz, Logue, Noser, "The Total Cost of Transactions on the NYSE", Journal of Finance 43(1), 1988 (VWAP as the
day's fair price); trading its distance is common practice, the distances here are our own and not tuned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from velox_core.domain.market.bars import MinuteRow
from velox_core.domain.orders import Side, Signal, SignalKind
from velox_core.domain.time import MS_PER_MINUTE
from velox_core.strategies.base import ParameterSpec, ParameterValue, Strategy, StrategySession
from velox_core.strategies.brackets import bracket_prices
from velox_core.strategies.indicators import SessionVwap

_FIRST_ROW_LATE_MS_MAX = 2 * MS_PER_MINUTE  # the first bar ends one minute after the open; one more may be missing


class _Watched:
    """One symbol: its VWAP, and whether each side may be entered."""

    __slots__ = ("buy_armed", "column", "sell_armed", "symbol", "tick_paise", "vwap")

    def __init__(self, column: int, symbol: str, tick_paise: int) -> None:
        self.column = column
        self.symbol = symbol
        self.tick_paise = tick_paise
        self.vwap = SessionVwap()
        self.buy_armed = True
        self.sell_armed = True


class VwapReversion(Strategy):
    """The reversion rule over the columns of the strategy."""

    parameter_specs: tuple[ParameterSpec, ...] = (
        ParameterSpec(
            name="entry_bps", default=60, help="distance from the VWAP that is bought or sold, bps", minimum=1, maximum=5_000
        ),
        ParameterSpec(
            name="exit_bps",
            default=5,
            help="so close to the VWAP counts as back, bps; below entry_bps",
            minimum=0,
            maximum=4_999,
        ),
        ParameterSpec(
            name="warmup_minutes", default=30, help="no entries so long after the open, minutes", minimum=1, maximum=300
        ),
        ParameterSpec(name="allow_short", default=False, help="also sell a close above the VWAP"),
        ParameterSpec(
            name="quantity", default=1, help="shares of an entry; the fixed lot overrides it", minimum=1, maximum=1_000_000
        ),
        ParameterSpec(
            name="stop_bps", default=60, help="stop distance from the close, bps; 0 for none", minimum=0, maximum=5_000
        ),
        ParameterSpec(
            name="target_bps", default=0, help="target distance from the close, bps; 0: the VWAP", minimum=0, maximum=5_000
        ),
    )
    rule_defaults: Mapping[str, ParameterValue] = {"time_stop_minutes": 60}

    def __init__(self, strategy_id: str, parameters: Mapping[str, object]) -> None:
        """Validate parameters. Raises ValueError, also when `exit_bps` is not below `entry_bps`."""
        super().__init__(strategy_id, parameters)
        values = self.parameters
        self._entry_bps = int(values["entry_bps"])
        self._exit_bps = int(values["exit_bps"])
        if self._exit_bps >= self._entry_bps:
            raise ValueError(
                f"parameter 'exit_bps' is {self._exit_bps}; it must be below 'entry_bps', which is {self._entry_bps}"
            )
        self._warmup_ms = int(values["warmup_minutes"]) * MS_PER_MINUTE
        self._allow_short = bool(values["allow_short"])
        self._quantity = int(values["quantity"])
        self._stop_bps = int(values["stop_bps"])
        self._target_bps = int(values["target_bps"])
        self._watched: list[_Watched] = []

    def start_session(self, session: StrategySession) -> None:
        """Forget the day before."""
        self._watched = [_Watched(column, session.universe[column], session.tick_paise[column]) for column in session.columns]
        self._first_row_by_ms = session.open_ms + _FIRST_ROW_LATE_MS_MAX
        self._entry_from_ms = session.open_ms + self._warmup_ms
        self._entry_until_ms = session.entry_until_ms
        self._saw_open = False

    def on_minute(self, ts_ms: int, row: MinuteRow, positions: Sequence[int]) -> list[Signal]:
        """Answer one minute: take the bars into the averages, then look for what is stretched or back."""
        self._saw_open = self._saw_open or ts_ms <= self._first_row_by_ms
        may_enter = self._saw_open and self._entry_from_ms <= ts_ms <= self._entry_until_ms
        closes, highs, lows, volumes = row.closes, row.highs, row.lows, row.volumes
        signals: list[Signal] = []
        for watched in self._watched:
            column = watched.column
            close = closes[column]
            if not close:
                continue
            vwap = watched.vwap
            vwap.add(highs[column], lows[column], close, volumes[column])
            is_back_up = not vwap.is_below(close, self._exit_bps)
            is_back_down = not vwap.is_above(close, self._exit_bps)
            watched.buy_armed = watched.buy_armed or is_back_up
            watched.sell_armed = watched.sell_armed or is_back_down
            position = positions[column]
            if position > 0:
                if is_back_up:
                    signals.append(self._exit(watched, Side.SELL, position))
            elif position < 0:
                if is_back_down:
                    signals.append(self._exit(watched, Side.BUY, -position))
            elif may_enter:
                if watched.buy_armed and vwap.is_below(close, self._entry_bps):
                    watched.buy_armed = False
                    signals.append(self._enter(watched, Side.BUY, close))
                elif self._allow_short and watched.sell_armed and vwap.is_above(close, self._entry_bps):
                    watched.sell_armed = False
                    signals.append(self._enter(watched, Side.SELL, close))
        return signals

    def _exit(self, watched: _Watched, side: Side, quantity: int) -> Signal:
        return Signal(self.strategy_id, watched.symbol, side, quantity, SignalKind.EXIT, "back at the VWAP")

    def _enter(self, watched: _Watched, side: Side, close_paise: int) -> Signal:
        stop_paise, target_paise = bracket_prices(side, close_paise, watched.tick_paise, self._stop_bps, self._target_bps)
        stands = "below" if side is Side.BUY else "above"
        return Signal(
            self.strategy_id,
            watched.symbol,
            side,
            self._quantity,
            SignalKind.ENTRY,
            f"close more than {self._entry_bps} bps {stands} the VWAP",
            stop_paise=stop_paise,
            target_paise=target_paise,
        )
