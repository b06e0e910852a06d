"""RSI reversal: buy when Wilder's RSI comes back up out of the oversold zone, leave when it is back in the middle.

- Each symbol's own bars count; a minute without a bar is skipped. Nothing is said before `period` changes were seen.
- Entry: flat, and the RSI was at or below `oversold` at the bar before and is above it now, once a stay in the zone;
  optionally short when it comes down out of the zone above `overbought`. Waiting for the way back out keeps it from
  catching a price that still falls.
- Exit of a long: RSI at or above `exit_level`; of a short: at or below 100 - `exit_level`.
- Stop and target are distances from the entry's close. By default a position is left after 90 minutes, and a symbol rests
  for 15 minutes after a trade (rules `time_stop_minutes`, `cooldown_minutes`).

Sources: J. Welles Wilder, "New Concepts in Technical Trading Systems", 1978, section VI (the index, and 30 / 70 as its zones).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from velox_core.domain.market.bars import MinuteRow
from velox_core.domain.orders import Side, Signal, SignalKind
from velox_core.strategies.base import ParameterSpec, ParameterValue, Strategy, StrategySession
from velox_core.strategies.brackets import bracket_prices
from velox_core.strategies.indicators import WilderRsi

_MIDDLE = 50.0


class _Watched:
    """One symbol: its RSI, and where it stood at the bar before."""

    __slots__ = ("before", "column", "rsi", "symbol", "tick_paise")

    def __init__(self, column: int, symbol: str, tick_paise: int, period: int) -> None:
        self.column = column
        self.symbol = symbol
        self.tick_paise = tick_paise
        self.rsi = WilderRsi(period)
        self.before = _MIDDLE


class RsiReversal(Strategy):
    """The reversal rule over the columns of the strategy."""

    parameter_specs: tuple[ParameterSpec, ...] = (
        ParameterSpec(name="period", default=14, help="changes of the close in the RSI", minimum=2, maximum=200),
        ParameterSpec(name="oversold", default=30.0, help="lower zone, RSI points", minimum=1.0, maximum=49.0),
        ParameterSpec(name="overbought", default=70.0, help="upper zone, RSI points", minimum=51.0, maximum=99.0),
        ParameterSpec(
            name="exit_level",
            default=55.0,
            help="a long leaves at this RSI, a short at 100 less it; above oversold",
            minimum=2.0,
            maximum=99.0,
        ),
        ParameterSpec(name="allow_short", default=False, help="also sell on the way down out of the upper zone"),
        ParameterSpec(
            name="quantity", default=1, help="shares of an entry; the fixed lot overrides it", minimum=1, maximum=1_000_000
        ),
        ParameterSpec(
            name="stop_bps", default=60, help="stop distance from the close, bps; 0 for none", minimum=0, maximum=5_000
        ),
        ParameterSpec(
            name="target_bps", default=120, help="target distance from the close, bps; 0 for none", minimum=0, maximum=5_000
        ),
    )
    rule_defaults: Mapping[str, ParameterValue] = {"time_stop_minutes": 90, "cooldown_minutes": 15}

    def __init__(self, strategy_id: str, parameters: Mapping[str, object]) -> None:
        """Validate parameters. Raises ValueError, also when a position would be left where it is entered."""
        super().__init__(strategy_id, parameters)
        values = self.parameters
        self._period = int(values["period"])
        self._oversold = float(values["oversold"])
        self._overbought = float(values["overbought"])
        self._long_exit = float(values["exit_level"])
        self._short_exit = 100.0 - self._long_exit
        if self._long_exit <= self._oversold:
            raise ValueError(
                f"parameter 'exit_level' is {self._long_exit}; it must be above 'oversold', which is {self._oversold}"
            )
        self._allow_short = bool(values["allow_short"])
        if self._allow_short and self._short_exit >= self._overbought:
            raise ValueError(
                f"parameter 'exit_level' is {self._long_exit}; 100 less it must be below 'overbought', "
                f"which is {self._overbought}"
            )
        self._quantity = int(values["quantity"])
        self._stop_bps = int(values["stop_bps"])
        self._target_bps = int(values["target_bps"])
        self._watched: list[_Watched] = []

    def start_session(self, session: StrategySession) -> None:
        """Forget the day before."""
        self._watched = [
            _Watched(column, session.universe[column], session.tick_paise[column], self._period) for column in session.columns
        ]
        self._entry_until_ms = session.entry_until_ms

    def on_minute(self, ts_ms: int, row: MinuteRow, positions: Sequence[int]) -> list[Signal]:
        """Answer one minute: take the closes, then look at where each index came from."""
        may_enter = ts_ms <= self._entry_until_ms
        closes = row.closes
        signals: list[Signal] = []
        for watched in self._watched:
            close = closes[watched.column]
            if not close:
                continue
            now = watched.rsi.add(close)
            if now is None:
                continue
            before, watched.before = watched.before, now
            position = positions[watched.column]
            if position > 0:
                if now >= self._long_exit:
                    signals.append(self._exit(watched, Side.SELL, position, now))
            elif position < 0:
                if now <= self._short_exit:
                    signals.append(self._exit(watched, Side.BUY, -position, now))
            elif may_enter:
                if before <= self._oversold < now:
                    signals.append(self._enter(watched, Side.BUY, close, now))
                elif self._allow_short and before >= self._overbought > now:
                    signals.append(self._enter(watched, Side.SELL, close, now))
        return signals

    def _exit(self, watched: _Watched, side: Side, quantity: int, rsi: float) -> Signal:
        return Signal(self.strategy_id, watched.symbol, side, quantity, SignalKind.EXIT, f"RSI back at {rsi:.1f}")

    def _enter(self, watched: _Watched, side: Side, close_paise: int, rsi: float) -> Signal:
        stop_paise, target_paise = bracket_prices(side, close_paise, watched.tick_paise, self._stop_bps, self._target_bps)
        zone = f"up through {self._oversold:g}" if side is Side.BUY else f"down through {self._overbought:g}"
        return Signal(
            self.strategy_id,
            watched.symbol,
            side,
            self._quantity,
            SignalKind.ENTRY,
            f"RSI {rsi:.1f} came {zone}",
            stop_paise=stop_paise,
            target_paise=target_paise,
        )
