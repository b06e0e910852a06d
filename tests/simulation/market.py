"""A seeded half hour of a few symbols, and strategies that do what no good strategy would."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from random import Random

from velox_core.domain.market.bars import MinuteRow
from velox_core.domain.orders import ExitRank, Side, Signal, SignalKind
from velox_core.domain.time import MS_PER_MINUTE, ist_midnight_ms
from velox_core.strategies.base import Strategy, StrategySession

DAY = date(2024, 1, 15)
OPEN_MS = ist_midnight_ms(DAY) + (9 * 60 + 15) * MS_PER_MINUTE
MINUTES = 30
TICK_PAISE = 5


def make_rows(random: Random, symbols: int) -> list[MinuteRow]:
    """Return half an hour of minutes: a walk with jumps, and now and then a symbol without a bar."""
    prices = [random.randrange(30_000, 450_000, TICK_PAISE) for _ in range(symbols)]
    jumpy = random.random() < 0.4
    rows = []
    for minute in range(MINUTES):
        opens, highs, lows, closes, volumes = [], [], [], [], []
        for column in range(symbols):
            before = prices[column]
            drift = random.gauss(0, 0.004) - (0.05 if jumpy and random.random() < 0.08 else 0.0)
            after = max(int(before * (1 + drift)) // TICK_PAISE * TICK_PAISE, TICK_PAISE * 20)
            opening = max(int(before * (1 + random.gauss(0, 0.001))) // TICK_PAISE * TICK_PAISE, TICK_PAISE * 20)
            missing = random.random() < 0.03
            prices[column] = before if missing else after
            opens.append(0 if missing else opening)
            closes.append(0 if missing else after)
            highs.append(0 if missing else max(opening, after) + TICK_PAISE * random.randrange(4))
            lows.append(0 if missing else max(min(opening, after) - TICK_PAISE * random.randrange(4), TICK_PAISE))
            volumes.append(0 if missing else random.randrange(1, 10_000))
        rows.append(MinuteRow(OPEN_MS + (minute + 1) * MS_PER_MINUTE, opens, highs, lows, closes, volumes))
    return rows


class RandomStrategy(Strategy):
    """Signals by chance: entries on top of entries, exits of nothing, absurd quantities, and sometimes an exception."""

    def __init__(self, strategy_id: str, seed: int, *, faulty: bool) -> None:
        super().__init__(strategy_id, {})
        self._random = Random(f"{strategy_id} {seed}")
        self._faulty = faulty
        self._session: StrategySession | None = None

    def start_session(self, session: StrategySession) -> None:
        """Take the universe."""
        self._session = session

    def on_minute(self, ts_ms: int, row: MinuteRow, positions: Sequence[int]) -> list[Signal]:
        """Answer by chance."""
        random, session = self._random, self._session
        if session is None:
            return []
        if self._faulty and random.random() < 0.02:
            raise ZeroDivisionError("a strategy's own bug")
        signals = []
        for column in session.columns:
            price = row.closes[column]
            side = random.choice((Side.BUY, Side.SELL))
            if random.random() < 0.25:
                with_stop = price and random.random() < 0.5
                away = side.sign * (price // 100 // TICK_PAISE + 1) * TICK_PAISE
                signals.append(
                    Signal(
                        self.strategy_id,
                        session.universe[column],
                        side,
                        random.choice((0, 1, 3, 10, 10_000)),
                        SignalKind.ENTRY,
                        "chance",
                        stop_paise=price - away if with_stop else 0,
                        target_paise=price + 2 * away if with_stop else 0,
                    )
                )
            if positions[column] and random.random() < 0.25:
                closing = Side.SELL if positions[column] > 0 else Side.BUY
                signals.append(
                    Signal(
                        self.strategy_id, session.universe[column], closing, 1, SignalKind.EXIT, "chance", rank=ExitRank.TARGET
                    )
                )
        return signals
