"""Crossing moving averages: long while the fast average of closes is above the slow one, optionally short below.

- The average of the last `fast` closes is compared with that of the last `slow` closes, of the symbol's own bars; a
  minute without a bar is skipped, not filled in. The comparison is exact: fast sum x slow against slow sum x fast.
- Entry: flat, and the averages have crossed (or, with `enter_on_level`, merely stand) on the entry's side. One entry
  for each crossing, so that a stop is not followed by the same trade again; exit when they stand on the other side.
- Nothing is said before `slow` closes were seen; indicators start afresh each day unless `reset_daily` is false.
- Stop and target are distances from the close in basis points; the stop rounds towards the entry, the target away.

Sources: Brock, Lakonishok, LeBaron, "Simple Technical Trading Rules and the Stochastic Properties of Stock Returns",
Journal of Finance 47(5), 1992 (variable-length moving average rules). The incremental form is our own: one integer per
symbol, spread = slow x fast sum - fast x slow sum, whose sign is the comparison.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import gcd
from operator import mul

from velox_core.domain.market.bars import MinuteRow
from velox_core.domain.orders import Side, Signal, SignalKind
from velox_core.strategies.base import ParameterSpec, Strategy, StrategySession
from velox_core.strategies.brackets import bracket_prices


class SmaCross(Strategy):
    """The moving average rule over all columns of the strategy at once."""

    parameter_specs: tuple[ParameterSpec, ...] = (
        ParameterSpec(name="fast", default=10, help="closes in the fast average", minimum=1, maximum=10_000),
        ParameterSpec(
            name="slow", default=30, help="closes in the slow average, more than in the fast", minimum=2, maximum=10_000
        ),
        ParameterSpec(name="quantity", default=1, help="shares of an entry; the fixed lot overrides it", minimum=1),
        ParameterSpec(name="allow_short", default=False, help="also sell when the fast average is below"),
        ParameterSpec(
            name="enter_on_level", default=False, help="enter whenever flat on the right side, not once per crossing"
        ),
        ParameterSpec(
            name="stop_bps", default=50, help="stop distance from the close, bps; 0 for none", minimum=0, maximum=5_000
        ),
        ParameterSpec(
            name="target_bps", default=0, help="target distance from the close, bps; 0 for none", minimum=0, maximum=5_000
        ),
        ParameterSpec(name="reset_daily", default=True, help="forget the closes of the day before"),
    )

    def __init__(self, strategy_id: str, parameters: Mapping[str, object]) -> None:
        """Validate parameters. Raises ValueError, also when `fast` is not below `slow`."""
        super().__init__(strategy_id, parameters)
        values = self.parameters
        self._fast = int(values["fast"])
        self._slow = int(values["slow"])
        if self._fast >= self._slow:
            raise ValueError(f"parameter 'fast' is {self._fast}; it must be below 'slow', which is {self._slow}")
        common = gcd(self._fast, self._slow)
        fast_weight, slow_weight = self._fast // common, self._slow // common  # the sign is the same, the numbers are small
        self._weights = (fast_weight, slow_weight, slow_weight - fast_weight)
        self._ready_length = 2 * self._slow  # zeros before the first close, and `slow` closes
        self._quantity = int(values["quantity"])
        self._allow_short = bool(values["allow_short"])
        self._on_level = bool(values["enter_on_level"])
        self._stop_bps = int(values["stop_bps"])
        self._target_bps = int(values["target_bps"])
        self._reset_daily = bool(values["reset_daily"])
        self._symbols: tuple[str, ...] = ()
        self._rows: list[Sequence[int]] = []  # closes by slot, a row for each minute, behind `slow` rows of zeros
        self._histories: list[list[int]] = []  # the same by slot, once a symbol missed a minute; then there are no rows
        self._spreads: list[int] = []  # slow x fast sum - fast x slow sum, reduced, by slot
        self._watched: list[int] = []  # the positions that `_watch` is for
        self._watch: list[int] = []  # by slot: a position speaks when its spread falls, a flat symbol when it rises
        self._armed: list[bool] = []  # a crossing that no entry has used yet, by slot

    def start_session(self, session: StrategySession) -> None:
        """Take the day's columns; keep closes only when `reset_daily` is false and the symbols are the same."""
        symbols = tuple(session.universe[column] for column in session.columns)
        if self._reset_daily or symbols != self._symbols:
            self._rows = [[0] * len(symbols)] * self._slow
            self._histories = []
            self._spreads = [0] * len(symbols)
            self._armed = [self._on_level] * len(symbols)
            self._watched = []
        del self._rows[: -2 * self._slow]
        for history in self._histories:
            del history[: -2 * self._slow]
        if self._histories and len({len(history) for history in self._histories}) == 1:
            self._rows = list(zip(*self._histories, strict=True))
            self._histories = []
        self._symbols = symbols
        self._columns = session.columns
        self._ticks = [session.tick_paise[column] for column in session.columns]
        self._slots = range(len(symbols))
        self._trades_all = session.columns == tuple(range(len(session.universe)))
        self._entry_until_ms = session.entry_until_ms

    def on_minute(self, ts_ms: int, row: MinuteRow, positions: Sequence[int]) -> list[Signal]:
        """Answer one minute. Integer sums, no objects until there is something to say."""
        closes: Sequence[int] = row.closes
        if not self._trades_all:
            closes = [closes[column] for column in self._columns]
            positions = [positions[column] for column in self._columns]
        slots = self._take_bars(closes) if 0 in closes or not self._rows else self._take_row(closes, positions)
        signals: list[Signal] = []
        for slot in slots:
            spread, position = self._spreads[slot], positions[slot]
            if position > 0:
                if spread < 0:
                    self._exit(signals, slot, Side.SELL, position)
            elif position < 0:
                if spread > 0:
                    self._exit(signals, slot, Side.BUY, -position)
            elif self._armed[slot] and (spread > 0 or (self._allow_short and spread < 0)) and ts_ms <= self._entry_until_ms:
                self._enter(signals, slot, Side.BUY if spread > 0 else Side.SELL, closes[slot])
        return signals

    def _take_row(self, closes: Sequence[int], held: Sequence[int]) -> Sequence[int]:
        """Add a minute in which every symbol traded: the hot path. Returns the slots that may have something to say."""
        rows, before = self._rows, self._spreads
        fast_weight, slow_weight, surplus = self._weights
        self._spreads = spreads = [
            spread + close * surplus - leaves_fast * slow_weight + leaves_slow * fast_weight
            for spread, close, leaves_fast, leaves_slow in zip(
                before, closes, rows[-self._fast], rows[-self._slow], strict=False
            )
        ]
        rows.append(closes)
        if self._on_level and not self._allow_short:
            if held != self._watched:
                self._watched = list(held)
                self._watch = [-1 if position > 0 else 1 for position in held]
            turned = list(map(mul, self._watch, spreads))
            if max(turned, default=0) <= 0 or len(rows) < self._ready_length:
                return ()
            return [slot for slot, turn in enumerate(turned) if turn > 0]
        if not self._on_level:
            for slot, old, new in zip(self._slots, before, spreads, strict=False):
                if (new > 0) is not (old > 0):
                    self._armed[slot] = len(rows) > self._ready_length
        return self._slots if len(rows) >= self._ready_length else ()

    def _take_bars(self, closes: Sequence[int]) -> Sequence[int]:
        """Add a minute in which some symbols did not trade. Returns the slots that may have something to say."""
        if self._rows:
            self._histories = [list(history) for history in zip(*self._rows, strict=True)]
            self._rows = []
        fast_weight, slow_weight, surplus = self._weights
        ready_length = self._ready_length
        slots = []
        for slot, history, close in zip(self._slots, self._histories, closes, strict=True):
            if not close:
                continue
            before = self._spreads[slot]
            leaves_fast, leaves_slow = history[-self._fast], history[-self._slow]
            spread = before + close * surplus - leaves_fast * slow_weight + leaves_slow * fast_weight
            self._spreads[slot] = spread
            history.append(close)
            if not self._on_level and (spread > 0) is not (before > 0):
                self._armed[slot] = len(history) > ready_length
            if len(history) >= ready_length:
                slots.append(slot)
        return slots

    def _exit(self, signals: list[Signal], slot: int, side: Side, quantity: int) -> None:
        stands = "below" if side is Side.SELL else "above"
        reason = f"SMA {self._fast} {stands} SMA {self._slow}"
        signals.append(Signal(self.strategy_id, self._symbols[slot], side, quantity, SignalKind.EXIT, reason))

    def _enter(self, signals: list[Signal], slot: int, side: Side, close_paise: int) -> None:
        self._armed[slot] = self._on_level
        stop_paise, target_paise = bracket_prices(side, close_paise, self._ticks[slot], self._stop_bps, self._target_bps)
        stands = "above" if side is Side.BUY else "below"
        signals.append(
            Signal(
                self.strategy_id,
                self._symbols[slot],
                side,
                self._quantity,
                SignalKind.ENTRY,
                f"SMA {self._fast} {stands} SMA {self._slow}",
                stop_paise=stop_paise,
                target_paise=target_paise,
            )
        )
