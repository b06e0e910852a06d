from __future__ import annotations

from tests.fakes.outside import FakeAlerts
from velox_core.engine.guard_presence import GuardPresence
from velox_core.ports import Severity


class Guard:
    """A guard's heartbeat, seen once a second."""

    def __init__(self) -> None:
        self.beat: object = None
        self.alerts = FakeAlerts()
        self.presence = GuardPresence(lambda: self.beat, self.alerts, silent_seconds=20.0)
        self.now = 100.0
        self.number = 0

    def pass_seconds(self, seconds: int, *, alive: bool) -> None:
        for _ in range(seconds):
            self.now += 1.0
            if alive:
                self.number += 1
                self.beat = (7, self.number, 1)
            self.presence.look(self.now)


def test_presence_of_a_guard_that_lives_tells_nothing() -> None:
    guard = Guard()
    guard.pass_seconds(300, alive=True)
    assert guard.alerts.sent == []


def test_presence_without_any_guard_warns_once() -> None:
    guard = Guard()
    guard.pass_seconds(21, alive=False)
    assert guard.alerts.sent == []
    guard.pass_seconds(300, alive=False)
    assert [(severity, title) for severity, title, _ in guard.alerts.sent] == [(Severity.WARNING, "No guard watches this run")]


def test_presence_of_the_last_word_of_a_guard_that_is_gone_is_no_guard() -> None:
    guard = Guard()
    guard.beat = (7, 9, 1)
    guard.pass_seconds(60, alive=False)
    assert guard.alerts.titles == ["No guard watches this run"]


def test_presence_of_a_guard_that_goes_silent_and_returns_tells_each_once() -> None:
    guard = Guard()
    guard.pass_seconds(5, alive=True)
    guard.pass_seconds(100, alive=False)
    guard.pass_seconds(100, alive=True)
    guard.pass_seconds(100, alive=False)
    assert guard.alerts.titles == ["The guard is silent", "The guard is there again", "The guard is silent"]
    assert guard.alerts.sent[0][0] is Severity.CRITICAL


def test_presence_after_a_pause_of_the_engine_itself_tells_nothing_while_the_guard_beats() -> None:
    guard = Guard()
    guard.pass_seconds(5, alive=True)
    guard.now += 1_000.0
    guard.pass_seconds(5, alive=True)
    assert guard.alerts.sent == []


def test_presence_looks_at_most_once_a_second() -> None:
    looks: list[float] = []
    presence = GuardPresence(lambda: looks.append(1.0), FakeAlerts(), silent_seconds=20.0)
    for tenth in range(50):
        presence.look(100.0 + tenth / 10)
    assert len(looks) == 5
