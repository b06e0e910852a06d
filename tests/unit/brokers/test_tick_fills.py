"""Fills on ticks: the first tick after the latency, slippage, limits, parts, bands; and a second process on ticks."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.brokers.simulated_day import DAY, START_MS, UNIVERSE, SimulatedDay, fills_of, instrument
from velox_core.brokers.book import SqliteBook
from velox_core.brokers.followed_market import FollowedMarket
from velox_core.brokers.simulated import SimulatedBroker
from velox_core.brokers.simulated_exchange import QUIET_MINUTES_MAX
from velox_core.brokers.simulated_market import SimulatedMarket
from velox_core.domain.market.bars import DayColumns, MinuteRow, TickBatch
from velox_core.domain.orders import OrderState, Side
from velox_core.guard_account import Price


class TickDay(SimulatedDay):
    """The same broker, on ticks. Times are ms after the start."""

    def tick(self, after_ms: int, tcs: int = 0, infy: int = 0) -> list[tuple[int, int, int]]:
        """Let ticks pass; return the fills as (ms, quantity, price)."""
        self.now_ms = START_MS + after_ms
        pairs = [(column, price) for column, price in enumerate((tcs, infy)) if price]
        batch = TickBatch(self.now_ms, [c for c, _ in pairs], [p for _, p in pairs], [0] * len(pairs))
        self.broker.on_ticks(batch, self.now_ms)
        return [(fill.ts_ms - START_MS, fill.quantity, fill.price_paise) for fill in fills_of(self.broker.drain_events())]


def day(**config: int | float | bool) -> TickDay:
    made = TickDay(first_price_paise=0, **config)
    assert made.tick(0, 390_000, 150_000) == []
    return made


@pytest.mark.parametrize(("after_ms", "filled"), [(0, False), (99, False), (100, True), (101, True)])
def test_market_order_fills_at_the_first_tick_that_is_not_before_the_latency(after_ms: int, filled: bool) -> None:
    market = day()
    market.send(Side.BUY)
    assert market.tick(after_ms, 390_100) == ([(after_ms, 10, 390_100)] if filled else [])
    assert market.tick(1_000, 390_200) == ([] if filled else [(1_000, 10, 390_200)])


def test_market_order_waits_for_a_tick_of_its_own_symbol() -> None:
    market = day()
    market.send(Side.SELL)
    assert market.tick(1_000, infy=150_000) == []
    assert market.tick(2_000, 389_000, 150_000) == [(2_000, 10, 389_000)]


def test_market_order_pays_the_slippage_on_the_tick_away_from_us() -> None:
    market = day(slippage_bps=2, slippage_ticks=1)
    market.send(Side.BUY)
    market.send(Side.SELL, 10, symbol="INFY")
    assert market.tick(1_000, 390_005, 150_005) == [(1_000, 10, 390_090), (1_000, 10, 149_965)]


def test_limit_order_that_is_marketable_fills_at_the_tick_never_past_its_limit() -> None:
    market = day(slippage_ticks=10)
    market.send(Side.BUY, 10, limit_price_paise=390_020)
    assert market.tick(1_000, 390_000) == [(1_000, 10, 390_020)]


def test_limit_order_at_rest_fills_at_its_limit_by_a_tick_beyond_it_not_by_a_touch() -> None:
    for side, beyond in ((Side.BUY, -5), (Side.SELL, 5)):
        market = day()
        market.send(side, 10, limit_price_paise=390_000 + 20 * beyond)
        assert market.tick(1_000, 390_000) == []
        assert market.tick(2_000, 390_000 + 20 * beyond) == []
        assert market.tick(3_000, 390_000 + 21 * beyond) == [(3_000, 10, 390_000 + 20 * beyond)]


def test_market_order_beyond_its_protection_rests_there_and_fills_at_the_bound() -> None:
    market = day()
    market.send(Side.SELL, protection_bps=100)
    assert market.tick(1_000, 380_000) == []
    assert market.tick(2_000, 386_200) == [(2_000, 10, 386_100)]


def test_order_in_parts_fills_at_two_ticks() -> None:
    market = day(partial_fill_probability=1.0)
    market.send(Side.BUY)
    first, second = market.tick(1_000, 390_000), market.tick(2_000, 390_500)
    assert first[0][1] + second[0][1] == 10
    assert (first[0][2], second[0][2]) == (390_000, 390_500)
    assert market.held() == 10


def test_locked_band_finds_nobody_on_the_other_side() -> None:
    market = TickDay(first_price_paise=0, tcs=instrument("TCS", lower_band_paise=380_000, upper_band_paise=400_000))
    market.tick(0, 380_500)
    market.send(Side.SELL)
    assert market.tick(1_000, 380_000) == []
    assert market.tick(2_000, 380_005) == [(2_000, 10, 380_000)]


class Events:
    universe = UNIVERSE

    def __init__(self, *events: MinuteRow | TickBatch) -> None:
        self.left = list(events)

    @property
    def ended(self) -> bool:
        return not self.left

    def next_row(self, wait_seconds: float) -> MinuteRow | TickBatch | None:
        return self.left.pop(0) if self.left else None

    def hasten(self) -> None:
        raise AssertionError("nobody asked")


def test_market_on_ticks_trades_at_ticks_and_not_at_the_minute_built_from_them() -> None:
    market = day()
    row = MinuteRow(START_MS + 60_000, *([390_000, 150_000] for _ in range(5)))
    feed = SimulatedMarket(
        Events(row, TickBatch(START_MS + 61_000, [0], [391_000], [1])), market.broker, _Clock(market), on_ticks=True
    )
    market.send(Side.BUY)
    assert feed.next_row(0.0) is row
    assert market.broker.drain_events() == []
    assert isinstance(feed.next_row(0.0), TickBatch)
    assert [fill.price_paise for fill in fills_of(market.broker.drain_events())] == [391_000]
    market.send(Side.SELL)
    assert feed.next_row(0.0) is None  # the end settles at the last price
    assert [fill.price_paise for fill in fills_of(market.broker.drain_events())] == [391_000]


class _Clock:
    def __init__(self, market: TickDay) -> None:
        self._market = market

    def now_ms(self) -> int:
        return self._market.now_ms

    def monotonic(self) -> float:
        return 0.0


def test_broker_with_a_book_trades_on_ticks_and_the_book_has_it(tmp_path: Path) -> None:
    market = TickDay(first_price_paise=0, book=SqliteBook(tmp_path / "broker.db"))
    market.tick(0, 390_000)
    market.send(Side.BUY)
    assert market.tick(1_000, 390_500) == [(1_000, 10, 390_500)]
    market.broker.close()
    again = TickDay(first_price_paise=0, book=SqliteBook(tmp_path / "broker.db"))
    assert again.held() == 10
    again.broker.close()


def test_second_process_follows_ticks_and_makes_the_market_of_them(tmp_path: Path) -> None:
    ticks = [TickBatch(START_MS + second * 1_000, [0], [390_000 + second], [second]) for second in range(5)]
    data = DayColumns(trading_date=DAY, universe=UNIVERSE, rows=[], source="test", ticks=ticks)
    market = TickDay(first_price_paise=0, book=SqliteBook(tmp_path / "broker.db"))
    market.tick(0, 390_000)
    market.send(Side.BUY)
    guard = SimulatedBroker(
        UNIVERSE, instruments=market.instruments, config=market.config, book=SqliteBook(tmp_path / "broker.db")
    )
    followed = FollowedMarket(data, guard)
    followed.follow(START_MS + 2_500)
    assert followed.prices() == {"TCS": Price(paise=390_002, feed_ms=START_MS + 2_000)}
    assert guard.trades() == []
    followed.make(START_MS + 2_500, START_MS)
    assert [(fill.ts_ms - START_MS, fill.price_paise) for fill in guard.trades()] == [(1_000, 390_005)]
    assert [order.state for order in guard.orders()] == [OrderState.FILLED]
    followed.follow(START_MS)
    assert followed.prices()["TCS"].paise == 390_000
    guard.close()
    market.broker.close()


HALT_MS = QUIET_MINUTES_MAX * 60_000  # TCS trades once, at the start; INFY goes on


def halted_ticks(last_ms: int) -> list[TickBatch]:
    return [
        TickBatch(START_MS + 1_000, [0, 1], [390_000, 150_000], [1, 1]),
        TickBatch(START_MS + 1_000 + last_ms, [1], [151_000], [2]),
    ]


@pytest.mark.parametrize(("last_ms", "closed"), [(HALT_MS - 1, True), (HALT_MS, False)])
def test_share_halted_to_the_end_of_a_day_of_ticks_has_nobody_to_trade_with(last_ms: int, closed: bool) -> None:
    market = day()
    feed = SimulatedMarket(Events(*halted_ticks(last_ms)), market.broker, _Clock(market), on_ticks=True)
    market.send(Side.BUY)
    market.send(Side.BUY, symbol="INFY")
    while feed.next_row(0.0) is not None:
        pass
    assert (market.held(), market.held("INFY")) == (10, 10)
    market.send(Side.SELL)
    market.send(Side.SELL, symbol="INFY")
    feed.next_row(0.0)
    assert (market.held(), market.held("INFY")) == (0 if closed else 10, 0)


@pytest.mark.parametrize("follows", [True, False])  # the broker has the day from its follower, or from ticks of its own
@pytest.mark.parametrize(("last_ms", "closed"), [(HALT_MS - 1, True), (HALT_MS, False)])
def test_second_process_closes_no_share_that_was_halted_to_the_end_of_a_day_of_ticks(
    tmp_path: Path, last_ms: int, closed: bool, follows: bool
) -> None:
    market = TickDay(first_price_paise=0, book=SqliteBook(tmp_path / "broker.db"))
    market.tick(0, 390_000)
    market.send(Side.BUY)
    market.tick(1_000, 390_000, 150_000)
    guard = SimulatedBroker(
        UNIVERSE, instruments=market.instruments, config=market.config, book=SqliteBook(tmp_path / "broker.db")
    )
    data = DayColumns(trading_date=DAY, universe=UNIVERSE, rows=[], source="test", ticks=halted_ticks(last_ms))
    followed = FollowedMarket(data, guard)
    end_ms = START_MS + 1_000 + last_ms
    if follows:
        followed.follow(end_ms)
    followed.make(end_ms, end_ms if follows else START_MS)
    market.now_ms = end_ms
    market.send(Side.SELL)  # by another process: the guard reads the book anew, and still knows who traded when
    followed.make(end_ms + 60_001, START_MS)
    assert sum(line.quantity for line in guard.positions()) == (0 if closed else 10)
    guard.close()
    market.broker.close()
