"""The feed wrapper: the broker sees each minute first, and is settled when the data ends."""

from __future__ import annotations

from tests.unit.brokers.simulated_day import START_MS
from velox_core.brokers.simulated_market import SimulatedMarket
from velox_core.domain.market.bars import MinuteRow


class ListFeed:
    universe = ("TCS",)

    def __init__(self, rows):
        self._rows = rows
        self.hastened = False

    @property
    def ended(self):
        return not self._rows

    def next_row(self, wait_seconds):
        return self._rows.pop(0) if self._rows else None

    def hasten(self):
        self.hastened = True


class RecordingBroker:
    def __init__(self):
        self.heard = []

    def on_row(self, row, now_ms):
        self.heard.append((row.ts_ms, now_ms))

    def settle(self, now_ms):
        self.heard.append(("settle", now_ms))


class FixedClock:
    def now_ms(self):
        return START_MS + 7

    def monotonic(self):
        return 0.0


def row(ts_ms):
    return MinuteRow(ts_ms, [1], [1], [1], [1], [1])


def test_row_reaches_the_broker_before_the_caller_with_engine_time():
    broker = RecordingBroker()
    first = row(START_MS)
    market = SimulatedMarket(ListFeed([first]), broker, FixedClock())
    assert market.next_row(0.0) is first
    assert broker.heard == [(START_MS, START_MS + 7)]


def test_wait_that_ran_out_settles_nothing_and_the_end_settles():
    broker = RecordingBroker()
    market = SimulatedMarket(ListFeed([None, row(START_MS)]), broker, FixedClock())
    assert market.next_row(0.0) is None
    assert broker.heard == []
    assert not market.ended
    market.next_row(0.0)
    assert market.ended
    assert market.next_row(0.0) is None
    assert broker.heard[-1] == ("settle", START_MS + 7)


def test_everything_else_passes_through():
    feed = ListFeed([row(START_MS)])
    market = SimulatedMarket(feed, RecordingBroker(), FixedClock())
    market.hasten()
    assert (market.universe, market.ended, feed.hastened) == (("TCS",), False, True)
