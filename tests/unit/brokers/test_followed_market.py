"""Two sessions on one book: the engine's, and a second process that follows the market and may have to make it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.brokers.simulated_day import DAY, MINUTE_MS, START_MS, UNIVERSE, SimulatedDay
from velox_core.brokers.book import SqliteBook
from velox_core.brokers.followed_market import FollowedMarket
from velox_core.brokers.simulated import SimulatedBroker
from velox_core.domain.market.bars import DayColumns, MinuteRow
from velox_core.domain.orders import OrderState, Side
from velox_core.guard_account import Price

PRICES = ((390_000, 150_000), (391_000, 0), (392_000, 152_000), (393_000, 153_000))


def rows() -> list[MinuteRow]:
    """Return four minutes; the second has no bar of INFY."""
    return [
        MinuteRow(START_MS + index * MINUTE_MS, list(p), list(p), list(p), list(p), [100, 100])
        for index, p in enumerate(PRICES)
    ]


class Two:
    """The engine's session and the guard's, on one book file."""

    def __init__(self, folder: Path) -> None:
        self.engine = SimulatedDay(book=SqliteBook(folder / "broker.db"), first_price_paise=0, slippage_bps=0)
        config, instruments = self.engine.config, self.engine.instruments
        self.broker = SimulatedBroker(UNIVERSE, instruments=instruments, config=config, book=SqliteBook(folder / "broker.db"))
        self.broker.advance(1 << 60)
        self.market = FollowedMarket(DayColumns(trading_date=DAY, universe=UNIVERSE, rows=rows(), source="test"), self.broker)

    def engine_sees(self, index: int) -> None:
        """The engine's market passes one minute."""
        row = rows()[index]
        self.engine.now_ms = row.ts_ms
        self.engine.broker.on_row(row, row.ts_ms)


@pytest.fixture
def two(tmp_path: Path) -> Two:
    return Two(tmp_path)


def test_prices_are_the_newest_close_of_each_symbol_at_the_time_of_the_newest_minute(two: Two) -> None:
    two.market.follow(START_MS - 1)
    assert two.market.prices() == {}
    two.market.follow(START_MS + MINUTE_MS + 30_000)
    at_ms = START_MS + MINUTE_MS
    assert two.market.prices() == {"TCS": Price(paise=391_000, feed_ms=at_ms), "INFY": Price(paise=150_000, feed_ms=at_ms)}
    two.market.follow(START_MS)
    assert two.market.prices()["TCS"] == Price(paise=390_000, feed_ms=START_MS)


def test_following_fills_nothing_and_leaves_the_market_to_the_engine(two: Two) -> None:
    two.engine_sees(0)
    two.engine.send(Side.BUY, 1)
    assert [order.state for order in two.broker.orders()] == [OrderState.OPEN]
    two.market.follow(START_MS + 3 * MINUTE_MS)
    assert two.broker.trades() == []
    two.engine_sees(1)
    assert [fill.price_paise for fill in two.broker.trades()] == [391_000]


def test_making_fills_from_where_the_engine_had_come_each_order_once(two: Two) -> None:
    two.engine_sees(0)
    two.engine.send(Side.BUY, 1)
    two.market.follow(START_MS + 2 * MINUTE_MS)
    two.market.make(START_MS + 2 * MINUTE_MS, START_MS)
    two.market.make(START_MS + 2 * MINUTE_MS, START_MS)
    assert [fill.price_paise for fill in two.broker.trades()] == [391_000]
    two.engine_sees(1)  # an engine that lives after all makes the same minute again
    two.engine_sees(2)
    assert [fill.trade_id for fill in two.engine.broker.trades()] == ["T1"]
    assert two.engine.held() == 1


def test_making_gives_each_minute_once_and_in_order() -> None:
    class Recording:
        def __init__(self) -> None:
            self.minutes: list[int] = []

        def quote(self, closes: list[int], heard_ms: list[int]) -> None:
            assert closes
            assert not heard_ms

        def on_row(self, row: MinuteRow, now_ms: int) -> None:
            assert now_ms == row.ts_ms
            self.minutes.append((row.ts_ms - START_MS) // MINUTE_MS)

        def settle(self, now_ms: int) -> None:
            self.minutes.append(-1)

    broker = Recording()
    day = DayColumns(trading_date=DAY, universe=UNIVERSE, rows=rows(), source="test")
    market = FollowedMarket(day, broker)  # type: ignore[arg-type]
    for minutes in (0, 1, 2, 2, 3, 4, 5):
        market.follow(START_MS + minutes * MINUTE_MS)
        market.make(START_MS + minutes * MINUTE_MS, START_MS)
    assert broker.minutes == [1, 2, 3, -1]


def test_order_of_the_second_process_fills_once_whichever_process_makes_the_market(two: Two) -> None:
    two.engine_sees(0)
    two.engine.send(Side.BUY, 1)
    two.engine_sees(1)
    two.market.follow(START_MS + MINUTE_MS)
    two.broker.place(two.engine.order(Side.SELL, 1, tag="240115G0001000000001"), START_MS + MINUTE_MS)
    two.engine_sees(2)
    two.market.make(START_MS + 2 * MINUTE_MS, START_MS + MINUTE_MS)
    assert [(fill.trade_id, fill.price_paise) for fill in two.broker.trades()] == [("T1", 391_000), ("T2", 392_000)]
    assert two.engine.held() == 0


def test_making_past_the_last_minute_fills_at_the_last_price(two: Two) -> None:
    two.engine_sees(0)
    two.engine.send(Side.BUY, 1)
    end_ms = START_MS + 3 * MINUTE_MS
    two.market.follow(end_ms)
    two.market.make(end_ms, START_MS)
    two.broker.place(two.engine.order(Side.SELL, 1, tag="240115G0001000000001"), end_ms + 1_000)
    two.market.make(end_ms + MINUTE_MS, START_MS)
    assert [order.state for order in two.broker.orders()] == [OrderState.FILLED, OrderState.OPEN]
    two.market.make(end_ms + MINUTE_MS + 1, START_MS)
    assert [fill.price_paise for fill in two.broker.trades()] == [391_000, 393_000]
