"""The two feeds of ticks: the replay's and the live one. What they deliver, in what order, and that nothing waits."""

from __future__ import annotations

import threading
from datetime import date

from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.outside import FakeClock
from velox_core.clock import ReplayClock
from velox_core.domain.market.bars import DayColumns, MinuteRow, TickBatch
from velox_core.domain.market.minutes import minutes_of
from velox_core.feeds.live_ticks import MINUTE_GRACE_MS, LiveTickFeed, TickInbox
from velox_core.feeds.replay import ReplayFeed
from velox_core.feeds.tick_replay import TickReplayFeed, replay_feed
from velox_core.feeds.tick_rules import TickSieve

START_MS = 1_705_290_300_000  # a full minute
UNIVERSE = ("TCS", "INFY")


def told(event: MinuteRow | TickBatch | None) -> object:
    if isinstance(event, TickBatch):
        return ("ticks", event.ts_ms - START_MS, event.columns, event.prices, event.volumes)
    if isinstance(event, MinuteRow):
        return ("minute", event.ts_ms - START_MS, event.opens, event.highs, event.lows, event.closes, event.volumes)
    return None


def batch(after_ms: int, **prices: int) -> TickBatch:
    columns = [UNIVERSE.index(symbol) for symbol in prices]
    return TickBatch(START_MS + after_ms, columns, list(prices.values()), [after_ms] * len(columns))


TICKS = [batch(0, TCS=100), batch(30_000, TCS=90, INFY=50), batch(60_000, TCS=80), batch(200_000, INFY=55)]


# Replay


def test_replay_a_minute_comes_at_its_end_before_the_ticks_of_that_moment() -> None:
    clock = ReplayClock(START_MS)
    feed = TickReplayFeed(UNIVERSE, TICKS, clock, 0.0)
    seen = []
    while not feed.ended:
        event = feed.next_row(0.0)
        assert event is not None
        assert clock.now_ms() == event.ts_ms
        seen.append(told(event))
    assert seen == [
        ("ticks", 0, [0], [100], [0]),
        ("ticks", 30_000, [0, 1], [90, 50], [30_000, 30_000]),
        ("minute", 60_000, [100, 50], [100, 50], [90, 50], [90, 50], [30_000, 0]),
        ("ticks", 60_000, [0], [80], [60_000]),
        ("minute", 120_000, [80, 0], [80, 0], [80, 0], [80, 0], [30_000, 0]),
        ("ticks", 200_000, [1], [55], [200_000]),
        ("minute", 240_000, [0, 55], [0, 55], [0, 55], [0, 55], [0, 170_000]),
    ]
    assert feed.next_row(1.0) is None


def test_replay_paced_delivers_the_same_in_the_time_that_the_speed_gives() -> None:
    now = [0.0]

    def wait(seconds: float) -> None:
        now[0] += seconds

    def run(speed: float) -> list[object]:
        feed = TickReplayFeed(UNIVERSE, TICKS, ReplayClock(START_MS, monotonic=lambda: now[0]), speed, wait)
        seen = []
        while not feed.ended:
            event = feed.next_row(0.25)
            if event is not None:
                seen.append(told(event))
        return seen

    assert run(600.0) == run(0.0)
    assert abs(now[0] - 0.4) < 0.001  # 240 s at 600 times


def test_replay_hastened_waits_no_more() -> None:
    feed = TickReplayFeed(UNIVERSE, TICKS, ReplayClock(START_MS, monotonic=lambda: 0.0), 1.0, lambda _: None)
    assert feed.next_row(0.0) is not None
    assert feed.next_row(0.0) is None
    feed.hasten()
    assert feed.next_row(0.0) is not None


def test_replay_feed_of_a_day_plays_what_the_day_has() -> None:
    rows, _ = minutes_of(TICKS, 2)
    day = DayColumns(trading_date=date(2024, 1, 15), universe=UNIVERSE, rows=rows, source="test", ticks=TICKS)
    assert isinstance(replay_feed(day, ReplayClock(START_MS), 0.0), TickReplayFeed)
    bars = DayColumns(trading_date=date(2024, 1, 15), universe=UNIVERSE, rows=rows, source="test")
    assert isinstance(replay_feed(bars, ReplayClock(START_MS), 0.0), ReplayFeed)
    assert (day.tick_count, bars.tick_count) == (5, 0)


# Live


def live(inbox: TickInbox, now_ms: int = START_MS) -> tuple[LiveTickFeed, FakeClock]:
    clock = FakeClock(now_ms)
    return LiveTickFeed(UNIVERSE, inbox, TickSieve([(START_MS, START_MS + 3_600_000)], [5, 5]), clock), clock


def drained(feed: LiveTickFeed) -> list[object]:
    seen = []
    while (event := feed.next_row(0.0)) is not None:
        seen.append(told(event))
    return seen


def test_inbox_full_keeps_the_newest_of_each_symbol_behind_what_waits_and_never_more() -> None:
    inbox = TickInbox(3)
    for number in range(10):
        inbox.put(START_MS + number, number % 2, 100 + number, number)
    inbox.put(START_MS + 10, 0, 500, 10)
    taken = inbox.take(0.0)
    assert [(ts_ms - START_MS, column, price) for ts_ms, column, price, _ in taken] == [
        (0, 0, 100), (1, 1, 101), (2, 0, 102), (9, 1, 109), (10, 0, 500),
    ]  # fmt: skip
    assert inbox.replaced == 6
    inbox.put(START_MS + 11, 0, 505, 11)
    assert len(inbox.take(0.0)) == 1
    assert inbox.take(0.0) == []


def test_inbox_wakes_who_waits_and_a_closed_one_keeps_nobody_waiting() -> None:
    inbox = TickInbox()
    waker = threading.Timer(0.02, inbox.put, (START_MS, 0, 100, 1))
    waker.start()
    assert inbox.take(3_600.0) == [(START_MS, 0, 100, 1)]
    waker.join()
    inbox.close()
    assert inbox.take(3_600.0) == []
    assert inbox.ended


def test_live_batches_hold_no_symbol_twice_and_minutes_come_before_later_ticks() -> None:
    inbox = TickInbox()
    feed, _ = live(inbox, START_MS + 60_001)
    for after_ms, column, price in ((5, 0, 100), (7, 1, 50), (9, 0, 105), (9, 0, 105), (8, 0, 100), (60_001, 1, 50)):
        inbox.put(START_MS + after_ms, column, price, after_ms)
    assert drained(feed) == [
        ("ticks", 7, [0, 1], [100, 50], [5, 7]),
        ("ticks", 9, [0], [105], [9]),
        ("minute", 60_000, [100, 50], [105, 50], [100, 50], [105, 50], [4, 0]),
        ("ticks", 60_001, [1], [50], [60_001]),
    ]
    drops = {drop.rule: drop.count for drop in feed.tally.drops()}
    assert drops == {"duplicate": 1, "out of order (older than the newest tick)": 1}


def test_live_minute_without_a_later_tick_comes_a_moment_after_its_end() -> None:
    inbox = TickInbox()
    feed, clock = live(inbox)
    inbox.put(START_MS + 1_000, 0, 100, 1)
    assert len(drained(feed)) == 1
    clock.now = START_MS + 60_000 + MINUTE_GRACE_MS - 1
    assert drained(feed) == []
    clock.now += 1
    assert drained(feed) == [("minute", 60_000, [100, 0], [100, 0], [100, 0], [100, 0], [0, 0])]
    assert drained(feed) == []


def test_live_late_tick_of_a_minute_that_was_delivered_counts_for_the_next_and_no_minute_comes_twice() -> None:
    inbox = TickInbox()
    feed, clock = live(inbox)
    inbox.put(START_MS + 1_000, 0, 100, 1)
    clock.now = START_MS + 60_000 + MINUTE_GRACE_MS
    assert [one[:2] for one in drained(feed)] == [("ticks", 1_000), ("minute", 60_000)]  # type: ignore[index]
    inbox.put(START_MS + 59_000, 0, 105, 2)
    assert drained(feed) == [("ticks", 59_000, [0], [105], [2])]
    inbox.put(START_MS + 62_000, 0, 110, 3)
    clock.now = START_MS + 120_000 + MINUTE_GRACE_MS
    assert drained(feed) == [
        ("ticks", 62_000, [0], [110], [3]),
        ("minute", 120_000, [105, 0], [110, 0], [105, 0], [110, 0], [2, 0]),
    ]


def test_live_stamp_ahead_of_the_clock_is_refused_and_makes_no_later_tick_old() -> None:
    inbox = TickInbox()
    feed, clock = live(inbox)
    inbox.put(clock.now + 2_000, 0, 100, 1)
    inbox.put(clock.now + 2_001, 0, 105, 2)
    inbox.put(clock.now + 1_800_000, 1, 50, 1)
    clock_ms = clock.now
    assert drained(feed) == [("ticks", clock_ms + 2_000 - START_MS, [0], [100], [1])]
    clock.now += 3_000
    inbox.put(clock.now, 0, 105, 3)
    inbox.put(clock.now, 1, 50, 2)
    assert drained(feed) == [("ticks", 3_000, [0, 1], [105, 50], [3, 2])]
    assert [(drop.count, dict(drop.by_symbol)) for drop in feed.tally.drops()] == [(2, {"INFY": 1, "TCS": 1})]


def test_live_closed_delivers_the_last_minute_and_ends() -> None:
    inbox = TickInbox()
    feed, _ = live(inbox)
    inbox.put(START_MS, 1, 50, 1)
    inbox.close()
    assert not feed.ended
    assert [one[0] for one in drained(feed)] == ["ticks", "minute"]  # type: ignore[index]
    assert feed.ended
    feed.hasten()
    assert feed.ended


@given(
    st.lists(st.tuples(st.integers(0, 1), st.sampled_from((0, 1, 500, 1_000, 40_000)), st.integers(990, 1_010)), max_size=40),
    st.lists(st.integers(1, 5), max_size=40),
)
def test_live_and_replay_build_the_same_minutes_whatever_comes_together(
    moves: list[tuple[int, int, int]], takes: list[int]
) -> None:
    """The same ticks, handed over in portions of any size, are the minutes of the file."""
    inbox = TickInbox()
    feed, clock = live(inbox)
    ts_ms, volume = START_MS, 0
    ticks, rows = [], []
    portions = iter(takes)
    left = next(portions, 1)
    for column, gap_ms, price in moves:
        ts_ms, volume = ts_ms + gap_ms, volume + 1
        clock.now = ts_ms  # never behind a stamp
        ticks.append(TickBatch(ts_ms, [column], [price * 5], [volume]))
        inbox.put(ts_ms, column, price * 5, volume)
        left -= 1
        if not left:
            left = next(portions, 1)
            rows += [event for event in drained(feed) if event[0] == "minute"]  # type: ignore[index]
    inbox.close()
    rows += [event for event in drained(feed) if event[0] == "minute"]  # type: ignore[index]
    assert rows == [told(row) for row in minutes_of(ticks, 2)[0]]
    assert feed.tally.drops() == ()
