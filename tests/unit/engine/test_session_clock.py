"""Engine time on a clock that jumps: exits go on, and a person is told."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.fakes.rig import NOW_MS, Rig
from tests.fakes.session import MINUTE_MS, Day, ScriptedStrategy, row, rows
from velox_core.domain.orders import ExitRank, Side, Signal, SignalKind
from velox_core.ports import SendStatus

TITLE = "The clock was set back"


def leaving() -> ScriptedStrategy:
    return ScriptedStrategy("alpha", {10: [Signal("alpha", "AAA", Side.SELL, 1, SignalKind.EXIT, "out", rank=ExitRank.TARGET)]})


def jumping(rig: Rig, jump_ms: int, *, tick_seconds: float = 1.0) -> Day:
    """Return a day whose first exit is rejected and whose clock jumps right after it."""
    rig.hold()
    day = Day([*rows(10_000), *[None] * 5], leaving(), rig=rig, fills=False, tick_seconds=tick_seconds)
    rig.broker.answers.append(SendStatus.REJECTED)

    def jump(position: int) -> None:
        if position == 1:
            day.clock.now = NOW_MS + jump_ms

    day.feed.before = jump
    return day


@pytest.mark.parametrize("jump_ms", [-600_000, -86_400_000])
def test_session_whose_clock_is_set_back_sends_a_rejected_exit_again_all_the_same(jump_ms: int) -> None:
    rig = Rig()
    day = jumping(rig, jump_ms)
    day.run()
    exits = [order for order in rig.broker.placed if order.rank is not None]
    assert len(exits) >= 2
    assert rig.broker.place_times == sorted(rig.broker.place_times)
    assert rig.broker.place_times[2] - NOW_MS < MINUTE_MS, "engine time goes on by monotonic seconds"
    assert rig.alerts.titles.count(TITLE) == 1


@pytest.mark.parametrize(("behind_ms", "told"), [(0, 0), (1, 0), (2_000, 0), (2_001, 1)])
def test_session_tells_of_a_clock_that_is_more_than_two_seconds_behind_once(behind_ms: int, told: int) -> None:
    rig = Rig()
    jumping(rig, -behind_ms, tick_seconds=0.0).run()
    assert rig.alerts.titles.count(TITLE) == told


def test_session_is_never_behind_the_newest_bar() -> None:
    rig = Rig()
    rig.hold()
    late = row(71, 10_000)
    day = Day([*rows(10_000), late], ScriptedStrategy(), rig=rig)
    feed_clock = day.clock

    class Behind:
        def now_ms(self) -> int:
            return feed_clock.now - 600_000

        def monotonic(self) -> float:
            return feed_clock.monotonic()

    day.session._parts = replace(day.session._parts, clock=Behind())
    day.run()
    squared = [order for order in rig.broker.placed if order.rank is ExitRank.SQUARE_OFF]
    assert squared, "it is past the square-off time by the market's own stamp"
    assert rig.broker.place_times[-1] >= late.ts_ms
