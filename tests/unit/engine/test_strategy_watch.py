"""A call that does not come back: broken off in the strategy's own code, and nowhere else."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest

from tests.fakes.rig import UNIVERSE, entry_signal
from tests.fakes.session import Day, ScriptedStrategy, row, rows
from velox_core.domain.events import EventKind
from velox_core.domain.market.bars import MinuteRow
from velox_core.domain.orders import Signal
from velox_core.engine import strategy_watch
from velox_core.engine.strategy_host import HostedStrategy
from velox_core.engine.strategy_watch import LOOK_SECONDS, watch_strategies

BOUND_SECONDS = 2 * LOOK_SECONDS


class Hanging(ScriptedStrategy):
    """Hangs in one minute, in the way that is asked for, until it is broken off."""

    def __init__(self, how: str, at: int, script: dict[int, Any] | None = None) -> None:
        super().__init__("alpha", script)
        self.how = how
        self.at = at
        self.came_back = False

    def on_minute(self, ts_ms: int, row: MinuteRow, positions: Sequence[int]) -> list[Signal]:
        signals = super().on_minute(ts_ms, row, positions)
        if self.seen[-1] == self.at:
            if self.how == "loops":
                while True:
                    pass
            if self.how == "sleeps":
                time.sleep(3_600)
            while not self.came_back:  # swallows what it can
                try:
                    while True:
                        pass
                except Exception:
                    self.came_back = True
        return signals


def host_of(strategy: ScriptedStrategy) -> HostedStrategy:
    return HostedStrategy(strategy, (0, 1), UNIVERSE)


def test_a_call_that_loops_sleeps_or_swallows_exceptions_is_broken_off_and_named() -> None:
    for how in ("loops", "sleeps", "swallows"):
        host = host_of(Hanging(how, 10))
        with watch_strategies([host], seconds_max=BOUND_SECONDS):
            answer = host.on_minute(row(10).ts_ms, row(10))
        assert answer is None, how
        assert host.disabled == "StrategyOverrun: a call took longer than 0.5 s and was broken off", how


class Looks:
    """In place of the watch's event, whose waits end by themselves after a while: it looks when and as often as it is let."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.allowed = self.begun = 0
        self.ended = False

    def wait(self, _seconds: float) -> bool:
        """The watch waits for its next look: the one before is done."""
        with self.changed:
            self.begun += 1
            self.changed.notify_all()
            self.changed.wait_for(lambda: self.ended or self.allowed >= self.begun)
            return self.ended

    def set(self) -> None:
        with self.changed:
            self.ended = True
            self.changed.notify_all()

    def let(self, count: int) -> None:
        """Let so many looks happen, and return when they are done."""
        with self.changed:
            self.allowed += count
            self.changed.notify_all()
            self.changed.wait_for(lambda: self.begun > self.allowed)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    made = Looks()
    monkeypatch.setattr(strategy_watch, "threading", WithEvent(made))
    return made


class WithEvent:
    """The module `threading` with an event of ours."""

    def __init__(self, event: Looks) -> None:
        self.Event = lambda: event

    def __getattr__(self, name: str) -> Any:
        return getattr(threading, name)


class Slow(ScriptedStrategy):
    """Every call, or the one in the minute `at`, lasts a number of looks, and comes back if it is let."""

    def __init__(self, looks: Looks, count: int, at: int | None = None, script: dict[int, Any] | None = None) -> None:
        super().__init__("alpha", script)
        self.looks = looks
        self.count = count
        self.at = at

    def on_minute(self, ts_ms: int, row: MinuteRow, positions: Sequence[int]) -> list[Signal]:
        signals = super().on_minute(ts_ms, row, positions)
        if self.at in (None, self.seen[-1]):
            self.looks.let(self.count)
        return signals


def test_calls_that_come_back_are_left_alone_however_many(looks: Looks) -> None:
    host = host_of(Slow(looks, 2))
    with watch_strategies([host], seconds_max=BOUND_SECONDS):
        for number in range(10):  # together ten times the bound
            assert host.on_minute(row(number).ts_ms, row(number)) == []
    assert (host.disabled, host.calls) == ("", 10)


def test_a_call_that_is_under_way_at_the_look_after_the_bound_is_broken_off(looks: Looks) -> None:
    host = host_of(Slow(looks, 3))
    with watch_strategies([host], seconds_max=BOUND_SECONDS):
        assert host.on_minute(row(1).ts_ms, row(1)) is None
    assert host.disabled == "StrategyOverrun: a call took longer than 0.5 s and was broken off"


def test_a_day_with_a_strategy_that_hangs_goes_on_and_what_it_held_is_closed(looks: Looks) -> None:
    hanging = Slow(looks, 3, at=13, script={10: [entry_signal("AAA")]})
    other = ScriptedStrategy("beta", {15: [entry_signal("BBB", strategy="beta")]})
    day = Day(rows(*[10_000] * 10), hanging, other)
    with watch_strategies(day.hosts, seconds_max=BOUND_SECONDS):
        result = day.run()
    assert (result.flat, result.fault, result.halted) == (True, "", False)
    assert day.sent[:3] == [("AAA", "BUY", 1, "ENTRY"), ("AAA", "SELL", 1, "STOP"), ("BBB", "BUY", 1, "ENTRY")]
    (body,) = day.rig.journal.bodies(EventKind.STRATEGY_DISABLED)
    assert body["strategy"] == "alpha"
    assert "broken off" in str(body["reason"])
    assert hanging.seen[-1] == 13
    assert other.seen[-1] == 19


def test_nothing_outside_a_strategys_call_is_ever_interrupted(looks: Looks) -> None:
    host = host_of(ScriptedStrategy("alpha"))
    host.on_minute(row(1).ts_ms, row(1))
    with watch_strategies([host], seconds_max=BOUND_SECONDS):
        looks.let(8)  # the engine itself may take long: that is not a strategy's overrun
    assert host.disabled == ""


def test_the_signal_handler_before_comes_back_and_without_the_main_thread_nothing_is_installed() -> None:
    before = signal.getsignal(signal.SIGALRM)
    with watch_strategies([], seconds_max=BOUND_SECONDS):
        assert signal.getsignal(signal.SIGALRM) is not before
    assert signal.getsignal(signal.SIGALRM) is before
    seen = []

    def elsewhere() -> None:
        with watch_strategies([]):
            seen.append(signal.getsignal(signal.SIGALRM))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen == [before]
