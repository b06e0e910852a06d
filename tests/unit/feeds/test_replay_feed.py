"""The replay feed: it delivers, it waits, and waiting changes nothing."""

from __future__ import annotations

from datetime import date

import pytest

from velox_core.clock import ReplayClock
from velox_core.domain.errors import ConfigError
from velox_core.domain.market.bars import DayColumns, MinuteRow
from velox_core.feeds.replay import ReplayFeed

START_MS = 1_705_290_300_000


class FakeSeconds:
    """Real time under the test's control. `late_seconds` is how much too long every wait takes."""

    def __init__(self, late_seconds: float = 0.0) -> None:
        self.now = 100.0
        self.late_seconds = late_seconds
        self.waits: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds + self.late_seconds


def day_of(*minutes: int) -> DayColumns:
    rows = [MinuteRow(START_MS + minute * 60_000, [1], [1], [1], [1], [1]) for minute in minutes]
    return DayColumns(trading_date=date(2024, 1, 15), universe=("TCS",), rows=rows, source="test")


def feed_of(day: DayColumns, speed: float, seconds: FakeSeconds) -> tuple[ReplayFeed, ReplayClock]:
    clock = ReplayClock(START_MS, monotonic=seconds.monotonic)
    return ReplayFeed(day, clock, speed, seconds.wait), clock


def test_replay_feed_at_max_delivers_all_rows_without_waiting_and_moves_the_clock() -> None:
    seconds = FakeSeconds()
    day = day_of(1, 2, 90)
    feed, clock = feed_of(day, 0.0, seconds)
    seen = []
    for row in day.rows:
        assert not feed.ended
        assert feed.next_row(0.0) is row
        seen.append(clock.now_ms())
    assert seen == [row.ts_ms for row in day.rows]
    assert feed.ended
    assert feed.next_row(5.0) is None
    assert clock.now_ms() == day.rows[-1].ts_ms
    assert seconds.waits == []


def test_replay_feed_of_no_rows_has_ended() -> None:
    feed, clock = feed_of(day_of(), 1.0, FakeSeconds())
    assert feed.ended
    assert feed.next_row(1.0) is None
    assert clock.now_ms() == START_MS


def test_replay_feed_at_speed_waits_the_gap_divided_by_the_speed() -> None:
    seconds = FakeSeconds()
    feed, _ = feed_of(day_of(1, 2, 5), 60.0, seconds)
    moments = []
    while not feed.ended:
        assert feed.next_row(10.0) is not None
        moments.append(seconds.now - 100.0)
    assert moments == pytest.approx([0.0, 1.0, 4.0])


def test_replay_feed_row_not_due_in_time_is_none_and_the_clock_stands() -> None:
    seconds = FakeSeconds()
    feed, clock = feed_of(day_of(1, 2), 1.0, seconds)
    assert feed.next_row(0.25) is not None
    before = clock.now_ms()
    answers = [feed.next_row(0.25) for _ in range(239)]
    assert answers == [None] * 239
    assert clock.now_ms() == before
    assert seconds.now == pytest.approx(100.0 + 239 * 0.25)
    assert feed.next_row(0.25) is not None
    assert max(seconds.waits) <= 0.25


def test_replay_feed_with_late_waits_and_slow_rows_does_not_drift() -> None:
    seconds = FakeSeconds(late_seconds=0.007)
    feed, _ = feed_of(day_of(*range(1, 376)), 60.0, seconds)
    while not feed.ended:
        feed.next_row(5.0)
        seconds.now += 0.4  # the engine's own work
    assert seconds.now == pytest.approx(100.0 + 374.0 + 0.4, abs=0.01)


def test_replay_feed_behind_schedule_catches_up_without_waiting() -> None:
    seconds = FakeSeconds()
    feed, _ = feed_of(day_of(1, 2, 3, 4), 60.0, seconds)
    feed.next_row(1.0)
    seconds.now += 10.0
    assert [feed.next_row(0.0) is not None for _ in range(3)] == [True, True, True]
    assert seconds.waits == []


def test_replay_feed_hasten_delivers_the_rest_at_once() -> None:
    seconds = FakeSeconds()
    feed, _ = feed_of(day_of(1, 2, 300), 1.0, seconds)
    feed.next_row(0.0)
    assert feed.next_row(0.0) is None
    feed.hasten()
    assert feed.next_row(0.0) is not None
    assert feed.next_row(0.0) is not None
    assert feed.ended
    assert seconds.waits == []


def test_replay_feed_hastened_while_waiting_delivers_the_row() -> None:
    clock = ReplayClock(START_MS, monotonic=lambda: 0.0)
    feed = ReplayFeed(day_of(1, 2), clock, 1.0, lambda _: feed.hasten())
    feed.next_row(1.0)
    assert feed.next_row(1.0) is not None


def test_replay_feed_waiter_that_returns_early_delivers_nothing_yet() -> None:
    clock = ReplayClock(START_MS, monotonic=lambda: 0.0)
    feed = ReplayFeed(day_of(1, 2), clock, 60.0, lambda _: None)
    feed.next_row(5.0)
    assert feed.next_row(5.0) is None
    assert feed.remaining_rows == 1


def test_replay_feed_same_day_at_any_speed_is_the_same_rows() -> None:
    day = day_of(1, 2, 3)
    played = []
    for speed in (0.0, 1.0, 600.0):
        feed, _ = feed_of(day, speed, FakeSeconds())
        rows = [feed.next_row(60.0) for _ in day.rows]
        played.append(rows)
        assert feed.day is day
    assert played[0] == played[1] == played[2] == day.rows


@pytest.mark.parametrize("speed", [-1.0, float("nan"), float("inf")])
def test_replay_feed_impossible_speed_is_refused(speed: float) -> None:
    with pytest.raises(ConfigError, match="replay speed"):
        ReplayFeed(day_of(1), ReplayClock(START_MS), speed, None)


def test_replay_feed_without_a_waiter_and_a_due_row_does_not_sleep() -> None:
    feed = ReplayFeed(day_of(1), ReplayClock(START_MS), 1.0)
    assert feed.next_row(0.0) is not None
