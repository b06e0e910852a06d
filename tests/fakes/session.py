"""A trading session over a rig: a scripted strategy, minutes made from prices, and the broker filling between them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests.fakes.outside import FakeClock, FakeControl, FakeFeed
from tests.fakes.rig import DAY, OPEN_MS, UNIVERSE, Rig
from velox_core.domain.market.bars import MinuteRow
from velox_core.domain.orders import Signal
from velox_core.engine.plan import SessionPlan
from velox_core.engine.session import SessionParts, SessionResult, TradingSession
from velox_core.engine.strategy_host import HostedStrategy
from velox_core.strategies.base import Strategy, StrategySession

MINUTE_MS = 60_000
WARM_MINUTES = 10  # the first row ends here, so that rig times and session times agree


def row(number: int, *closes: int, low: int = 0, high: int = 0) -> MinuteRow:
    """Return the row that ends `number` minutes after the open. Columns without a price have no bar."""
    prices = list(closes) + [0] * (len(UNIVERSE) - len(closes))
    highs = [price and max(price, high) for price in prices]
    lows = [price and (min(price, low) if low else price) for price in prices]
    return MinuteRow(OPEN_MS + number * MINUTE_MS, list(prices), highs, lows, list(prices), [100] * len(prices))


def rows(*prices: int, start: int = 10) -> list[MinuteRow]:
    """Return one minute per price of the first symbol; the others stand at 100 rupees."""
    return [row(start + number, price, *[10_000] * 4) for number, price in enumerate(prices)]


def _columns(item: MinuteRow) -> tuple[list[int], ...]:
    return list(item.opens), list(item.highs), list(item.lows), list(item.closes), list(item.volumes)


class ScriptedStrategy(Strategy):
    """Answers by minute after the open: a list of signals, an exception to raise, or anything that is not signals."""

    def __init__(self, strategy_id: str = "alpha", script: Mapping[int, Any] | None = None, *, bad_start: bool = False) -> None:
        super().__init__(strategy_id, {})
        self.script = dict(script or {})
        self.bad_start = bad_start
        self.sessions: list[StrategySession] = []
        self.seen: list[int] = []
        self.positions_seen: list[list[int]] = []

    def start_session(self, session: StrategySession) -> None:
        if self.bad_start:
            raise ValueError("cannot start")
        self.sessions.append(session)

    def on_minute(self, ts_ms: int, row: MinuteRow, positions: Sequence[int]) -> list[Signal]:
        number = (ts_ms - OPEN_MS) // MINUTE_MS
        self.seen.append(number)
        self.positions_seen.append(list(positions))
        answer = self.script.get(number, [])
        if isinstance(answer, BaseException):
            raise answer
        return answer  # type: ignore[no-any-return]


def make_plan(**changes: Any) -> SessionPlan:
    """Return a plan: entries until minute 60, flat by minute 70, hard stop at minute 80."""
    values: dict[str, Any] = {
        "trading_date": DAY,
        "universe": UNIVERSE,
        "open_ms": OPEN_MS,
        "entries_from_ms": OPEN_MS,
        "entry_until_ms": OPEN_MS + 60 * MINUTE_MS,
        "flat_by_ms": OPEN_MS + 70 * MINUTE_MS,
        "hard_stop_ms": OPEN_MS + 80 * MINUTE_MS,
        "tick_paise": (5,) * len(UNIVERSE),
    }
    return SessionPlan(**(values | changes))


class Day:
    """One session over a rig. `fills` makes every order fill at the next minute's price of its symbol."""

    def __init__(
        self,
        items: Sequence[MinuteRow | None | Exception],
        *strategies: ScriptedStrategy,
        rig: Rig | None = None,
        fills: bool = True,
        control: FakeControl | None = None,
        before: Callable[[int], None] | None = None,
        tick_seconds: float = 1.0,
        **plan: Any,
    ) -> None:
        self.rig = rig or Rig()
        self.clock = FakeClock(OPEN_MS, tick_seconds=tick_seconds)
        self.strategies = strategies
        self.hosts = [HostedStrategy(s, tuple(range(len(UNIVERSE))), UNIVERSE) for s in strategies]
        self.control = control or FakeControl()
        self.feed = FakeFeed(UNIVERSE, items, self.clock, self._before)
        self._user_before = before
        self._fills = fills
        self.plan = make_plan(**plan)
        rig_ = self.rig
        self.session = TradingSession(
            self.plan,
            SessionParts(
                clock=self.clock,
                feed=self.feed,
                journal=rig_.journal,
                control=self.control,
                alerts=rig_.alerts,
                risk_manager=rig_.risk,
                order_manager=rig_.orders,
                order_recovery=rig_.recovery,
                exit_door=rig_.door,
                emergency=rig_.emergency,
                strategies=self.hosts,
                instruments=rig_.instruments,
                schedule=rig_.schedule,
                broker=rig_.port,
                sends=rig_.off_loop,
            ),
        )
        rig_.orders.on_position = self.session.on_position

    def _before(self, position: int) -> None:
        if self._user_before is not None:
            self._user_before(position)
        items = self.feed.items
        item = items[position] if position < len(items) else None
        self.rig.broker.now_ms = item.ts_ms if isinstance(item, MinuteRow) else self.clock.now
        if self._fills and isinstance(item, MinuteRow):
            self.rig.broker.fill_prices = {s: price for s, price in zip(UNIVERSE, item.opens, strict=True) if price}

    def run(self) -> SessionResult:
        """Run the session. Rows are shared: whoever changes one changes what the gate and the others see."""
        rows_given = [item for item in self.feed.items if isinstance(item, MinuteRow)]
        before = [_columns(item) for item in rows_given]
        result = self.session.run()
        if [_columns(item) for item in rows_given] != before:
            raise AssertionError("a row was changed while the session ran")
        return result

    @property
    def sent(self) -> list[tuple[str, str, int, str]]:
        """Return what was sent: symbol, side, quantity, and the rank or 'ENTRY'."""
        return [
            (o.symbol, o.side.value, o.quantity, "ENTRY" if o.rank is None else o.rank.name) for o in self.rig.broker.placed
        ]
