"""The exit door's work in one step, where sends leave the loop: bounded, and every goal gets its turn."""

from __future__ import annotations

from tests.fakes.rig import NOW_MS, UNIVERSE, Rig
from velox_core.domain.orders import ExitRank
from velox_core.exit_door import STEP_SECONDS_MAX


class SlowDisk:
    """Monotonic seconds that grow by what each order costs."""

    def __init__(self, rig: Rig, seconds: float) -> None:
        self._rig = rig
        self._seconds = seconds

    def __call__(self) -> float:
        return len(self._rig.broker.placed) * self._seconds


def rig_with(seconds: float) -> Rig:
    rig = Rig()
    for symbol in UNIVERSE[:3]:
        rig.hold(symbol)
    rig.door._monotonic = SlowDisk(rig, seconds)
    rig.door.want_all(ExitRank.EMERGENCY, "test")
    return rig


def closed(rig: Rig) -> list[str]:
    return [order.symbol for order in rig.broker.placed[3:]]


def test_work_without_a_clock_takes_every_goal_in_one_call() -> None:
    rig = rig_with(1.0)
    rig.door._monotonic = None
    rig.door.work(NOW_MS)
    assert (closed(rig), rig.door.is_behind) == (list(UNIVERSE[:3]), False)


def test_work_within_its_time_takes_every_goal() -> None:
    rig = rig_with(STEP_SECONDS_MAX / 4)
    rig.door.work(NOW_MS)
    assert (closed(rig), rig.door.is_behind) == (list(UNIVERSE[:3]), False)


def test_work_on_a_slow_disk_takes_one_goal_at_least_and_the_others_at_the_next_calls() -> None:
    rig = rig_with(STEP_SECONDS_MAX * 10)
    for number in range(1, 4):
        rig.door.work(NOW_MS)
        assert (closed(rig), rig.door.is_behind) == (list(UNIVERSE[:number]), True)
    rig.door.work(NOW_MS)
    assert (closed(rig), rig.door.is_behind) == (list(UNIVERSE[:3]), False)
