"""The simulated broker's book file: reopening, sharing, crashes, damage."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.unit.brokers.simulated_day import CAPITAL_PAISE, SimulatedDay, fills_of, flat_bar, instrument
from velox_core.brokers.book import SqliteBook
from velox_core.brokers.faults import Fault, FaultKind, FaultPlan
from velox_core.brokers.simulated import SimulatedBroker
from velox_core.domain.errors import BrokerError
from velox_core.domain.orders import OrderState, Product, Side
from velox_core.domain.time import MS_PER_DAY
from velox_core.ports import SendStatus

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "book" / "broker.db"


def opened(path, **details):
    """Open the book as a new process would, without the fixture's first minute."""
    return SimulatedDay(book=SqliteBook(path), first_price_paise=0, **details)


def picture(broker):
    """Return all that the broker says, as values that compare."""
    fills = [
        (fill.trade_id, fill.ts_ms, fill.client_order_id, fill.side, fill.quantity, fill.price_paise)
        for fill in broker.trades()
    ]
    return broker.orders(), fills, broker.positions(), broker.funds()


def test_reopened_book_says_the_same_and_goes_on_counting(path):
    day = SimulatedDay(book=SqliteBook(path), partial_fill_probability=1.0)
    day.send(Side.BUY, 10)
    day.minute(tcs=flat_bar(390_000))
    day.send(Side.SELL, 4, symbol="INFY")
    day.send(Side.BUY, 3, limit_price_paise=380_000)
    day.send(Side.BUY, 1_000_000 // 10, product=Product.CNC)  # no margin for it: REJECTED, and in the book
    before = picture(day.broker)
    day.broker.close()
    again = opened(path, partial_fill_probability=1.0)
    assert picture(again.broker) == before
    again.now_ms = day.now_ms
    fills = fills_of(again.minute(tcs=flat_bar(391_000), infy=flat_bar(150_000)))
    assert {fill.symbol for fill in fills} == {"TCS", "INFY"}
    assert [fill.trade_id for fill in fills] == ["T2", "T3"]
    assert again.send(Side.BUY, 1).broker_order_id == "O5"
    assert again.held() == 10


def test_what_was_acknowledged_is_in_the_file_without_a_close(path):
    day = SimulatedDay(book=SqliteBook(path))
    day.send(Side.BUY, 10)
    identity = day.send(Side.BUY, 2, limit_price_paise=380_000).broker_order_id
    assert [line.state for line in opened(path).broker.orders()] == [OrderState.OPEN, OrderState.OPEN]
    day.broker.cancel(identity, day.now_ms)
    assert opened(path).broker.orders()[1].state is OrderState.CANCELLED
    day.minute(tcs=flat_bar(390_000))
    other = opened(path).broker
    assert [line.quantity for line in other.positions()] == [10]
    assert other.positions()[0].last_price_paise == 390_000
    assert other.funds() == day.broker.funds()


def test_two_processes_on_one_book_see_each_others_orders_and_share_the_counters(path):
    engine = SimulatedDay(book=SqliteBook(path))
    engine.send(Side.BUY, 10, tag="ENGINE1")
    engine.minute(tcs=flat_bar(390_000))
    flatten = opened(path)
    flatten.now_ms = engine.now_ms
    assert flatten.held() == 10
    outcome = flatten.send(Side.SELL, 10, tag="FLATTEN1")
    assert (outcome.status, outcome.broker_order_id) == (SendStatus.ACKNOWLEDGED, "O2")
    assert [line.tag for line in engine.broker.orders()] == ["ENGINE1", "FLATTEN1"]
    assert [fill.client_order_id for fill in fills_of(engine.minute(tcs=flat_bar(389_000)))] == ["FLATTEN1"]
    assert (engine.held(), flatten.held()) == (0, 0)
    assert flatten.broker.drain_events() == []  # it learns by reading
    assert flatten.broker.funds().available_paise == CAPITAL_PAISE - 10 * 1_000


def test_order_from_another_process_is_filled_on_the_next_row_though_nothing_was_pending(path):
    engine = SimulatedDay(book=SqliteBook(path))
    other = SimulatedDay(book=SqliteBook(path))
    other.send(Side.BUY, 3)
    assert [fill.quantity for fill in fills_of(engine.minute(tcs=flat_bar(390_000)))] == [3]
    assert other.minute(tcs=flat_bar(390_000)) == []
    assert (engine.held(), other.held()) == (3, 3)


def test_settle_in_a_process_without_market_fills_at_the_books_last_price(path):
    engine = SimulatedDay(book=SqliteBook(path))
    engine.send(Side.BUY, 10)
    engine.minute(tcs=flat_bar(390_500))
    flatten = opened(path)
    assert flatten.broker.place(flatten.order(Side.SELL, 10), engine.now_ms).status is SendStatus.ACKNOWLEDGED
    flatten.broker.settle(engine.now_ms)
    (fill,) = fills_of(flatten.broker.drain_events())
    assert fill.price_paise == 390_500
    assert flatten.held() == 0


def test_next_date_starts_with_an_empty_book_and_the_position(path):
    day = SimulatedDay(book=SqliteBook(path))
    day.send(Side.BUY, 10)
    day.minute(tcs=flat_bar(390_000))
    day.send(Side.SELL, 10, limit_price_paise=400_000)
    day.broker.close()
    morning = opened(path)
    morning.now_ms = day.now_ms + MS_PER_DAY
    assert morning.held() == 10
    morning.send(Side.SELL, 3)
    assert [line.quantity for line in morning.broker.orders()] == [3]
    again = opened(path)
    assert [line.quantity for line in again.broker.orders()] == [3]
    assert again.broker.trades() == []
    assert (again.held(), again.broker.positions()[0].bought_quantity) == (10, 0)


def test_position_in_a_symbol_without_market_is_shown_and_not_lost(path):
    day = SimulatedDay(book=SqliteBook(path))
    day.send(Side.BUY, 10)
    day.minute(tcs=flat_bar(390_000))
    day.broker.close()
    assert SqliteBook(path).symbols() == ("TCS",)
    only_infy = SimulatedBroker(("INFY",), instruments={"INFY": instrument("INFY")}, config=day.config, book=SqliteBook(path))
    (line,) = only_infy.positions()
    assert (line.symbol, line.quantity, line.last_price_paise) == ("TCS", 10, 390_000)
    assert only_infy.place(day.order(Side.SELL, 10), day.now_ms).status is SendStatus.REJECTED
    assert only_infy.funds().margin_used_paise == 780_000


def test_late_order_keeps_its_time_over_a_reopening(path):
    plan = FaultPlan(script=[Fault(kind=FaultKind.APPEARS_LATE, delay_ms=90_000)])
    day = SimulatedDay(book=SqliteBook(path), faults=plan)
    day.send()
    day.broker.close()
    again = opened(path)
    again.now_ms = day.now_ms
    assert again.broker.orders() == []
    assert again.minute(tcs=flat_bar(390_000)) == []
    assert len(fills_of(again.minute(tcs=flat_bar(390_000)))) == 1


def test_book_held_by_another_makes_sends_unknown_reads_errors_and_rows_wait(path, monkeypatch):
    monkeypatch.setattr("velox_core.brokers.book.LOCK_WAIT_SECONDS", 0.01)
    day = SimulatedDay(book=SqliteBook(path))
    resting = day.send(Side.BUY, 10)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    outcome = day.send(Side.BUY, 1)
    assert (outcome.status, "locked" in outcome.reason) == (SendStatus.UNKNOWN, True)
    assert day.broker.cancel(resting.broker_order_id, day.now_ms).status is SendStatus.UNKNOWN
    assert day.minute(tcs=flat_bar(390_000)) == []
    day.broker.settle(day.now_ms)
    with pytest.raises(BrokerError, match="locked"):
        day.broker.desk.trade_foreign("TCS", Side.BUY, 1, day.now_ms)
    holder.execute("ROLLBACK")
    holder.close()
    assert [line.state for line in day.broker.orders()] == [OrderState.OPEN]
    assert [fill.quantity for fill in fills_of(day.minute(tcs=flat_bar(391_000)))] == [10]
    assert day.held() == 10


def test_disk_that_takes_no_write_leaves_the_account_as_it_was(path):
    book = SqliteBook(path)
    day = SimulatedDay(book=book)
    day.send(Side.BUY, 10)
    before = picture(day.broker)
    book._connection.execute("PRAGMA query_only=ON")
    assert day.send(Side.BUY, 5).status is SendStatus.UNKNOWN
    assert day.minute(tcs=flat_bar(390_000)) == []
    assert picture(day.broker)[0] == before[0]
    assert day.broker.trades() == []
    book._connection.execute("PRAGMA query_only=OFF")
    assert [fill.trade_id for fill in fills_of(day.minute(tcs=flat_bar(390_000)))] == ["T1"]
    assert day.send(Side.BUY, 1).broker_order_id == "O2"


def test_book_that_went_away_makes_sends_unknown_and_reads_errors_and_rows_harmless(path):
    day = SimulatedDay(book=SqliteBook(path))
    identity = day.send(Side.BUY, 10).broker_order_id
    day.broker.close()
    assert day.minute(tcs=flat_bar(390_000)) == []
    assert day.send(Side.BUY, 1).status is SendStatus.UNKNOWN
    assert day.broker.cancel(identity, day.now_ms).status is SendStatus.UNKNOWN
    for read in (day.broker.orders, day.broker.trades, day.broker.positions, day.broker.funds):
        with pytest.raises(BrokerError, match="cannot be used"):
            read()
    assert [line.broker_order_id for line in opened(path).broker.orders()] == [identity]


@pytest.mark.parametrize("damage", ["garbage", "truncated", "other version", "a folder", "bad enum"])
def test_book_that_is_no_book_is_refused_with_the_way_out(path, damage):
    day = SimulatedDay(book=SqliteBook(path))
    day.send()
    day.broker.close()
    if damage == "garbage":
        path.write_bytes(b"not a database at all" * 400)
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:5_000])
    elif damage == "a folder":
        path.unlink()
        path.mkdir()
    else:
        with sqlite3.connect(path) as connection:
            statement = "PRAGMA user_version=9" if damage == "other version" else "UPDATE orders SET state = 'MAYBE'"
            connection.execute(statement)
        connection.close()
    with pytest.raises(BrokerError, match=r"broker\.db cannot be used.*(move it aside|restore a backup)"):
        opened(path)


def test_two_threads_place_at_once_and_every_order_is_counted_once(path):
    day = SimulatedDay(book=SqliteBook(path), capital_paise=10**12)
    orders = [day.order(Side.BUY, 1) for _ in range(40)]

    def place(mine):
        for order in mine:
            day.broker.place(order, day.now_ms)

    threads = [threading.Thread(target=place, args=(orders[start::2],)) for start in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(line.tag for line in day.broker.orders()) == sorted(order.client_order_id for order in orders)
    assert len({line.broker_order_id for line in day.broker.orders()}) == 40


KILLED = """
import sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from tests.unit.brokers.simulated_day import SimulatedDay, flat_bar
from velox_core.brokers.book import SqliteBook
day = SimulatedDay(book=SqliteBook(Path(sys.argv[1])), capital_paise=10**14)
while True:
    outcome = day.send(quantity=1)
    print("order", outcome.broker_order_id, flush=True)
    for fill in day.minute(tcs=flat_bar(390_000)):
        print("trade", fill.trade_id, flush=True)
"""


def test_process_killed_while_trading_loses_nothing_that_it_was_told(path):
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(path), str(ROOT)], stdout=subprocess.PIPE, text=True)
    said = [process.stdout.readline().split() for _ in range(60)]
    os.kill(process.pid, signal.SIGKILL)
    said += [line.split() for line in process.stdout if line.endswith("\n")]
    process.wait()
    process.stdout.close()
    broker = opened(path, capital_paise=10**14).broker
    trades = broker.trades()
    assert {identity for what, identity in said if what == "order"} <= {line.broker_order_id for line in broker.orders()}
    assert {identity for what, identity in said if what == "trade"} <= {fill.trade_id for fill in trades}
    assert [line.quantity for line in broker.positions()] == [len(trades)]
    filled = {line.broker_order_id for line in broker.orders() if line.state is OrderState.FILLED}
    assert filled == {fill.broker_order_id for fill in trades}
