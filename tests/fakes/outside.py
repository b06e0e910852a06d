"""Clock, feed, control and alerts, as a test wants them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from velox_core.domain.market.bars import MinuteRow
from velox_core.ports import CloserHold, ControlRequest, Severity


class FakeClock:
    """Engine time and monotonic time, both moved by hand. `tick_seconds` passes at every look at the monotonic clock."""

    def __init__(self, now_ms: int = 0, *, tick_seconds: float = 0.0) -> None:
        self.now = now_ms
        self.seconds = 0.0
        self.tick_seconds = tick_seconds

    def now_ms(self) -> int:
        return self.now

    def monotonic(self) -> float:
        self.seconds += self.tick_seconds
        return self.seconds


class FakeFeed:
    """Rows in order; None in the list is a wait without a row; an exception in it is raised. It moves the clock.

    `before` is called with each item's position before it is delivered, so that a test can act between minutes.
    """

    def __init__(
        self,
        universe: tuple[str, ...],
        items: Sequence[MinuteRow | None | Exception],
        clock: FakeClock,
        before: Callable[[int], None] | None = None,
    ) -> None:
        self.universe = universe
        self.items = list(items)
        self.clock = clock
        self.before = before
        self.position = 0
        self.calls = 0
        self.hastened = False

    @property
    def ended(self) -> bool:
        return self.position >= len(self.items)

    def next_row(self, wait_seconds: float) -> MinuteRow | None:
        self.calls += 1
        if self.before is not None:
            self.before(self.position)
        if self.ended:
            return None
        item = self.items[self.position]
        self.position += 1
        if isinstance(item, Exception):
            raise item
        if item is not None:
            self.clock.now = item.ts_ms
        return item

    def hasten(self) -> None:
        self.hastened = True


class FakeControl:
    """Requests waiting to be taken, and every status that was published."""

    def __init__(self, *requests: ControlRequest) -> None:
        self.requests = list(requests)
        self.published: list[Mapping[str, object]] = []

    def poll(self) -> ControlRequest | None:
        return self.requests.pop(0) if self.requests else None

    def publish(self, status: Mapping[str, object]) -> None:
        self.published.append(status)

    @property
    def states(self) -> list[object]:
        return [status["state"] for status in self.published]


class FakeAlerts:
    """Every alert that was sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[Severity, str, str]] = []

    def send(self, severity: Severity, title: str, text: str) -> None:
        self.sent.append((severity, title, text))

    @property
    def titles(self) -> list[str]:
        return [title for _, title, _ in self.sent]


class FakeCloserLock:
    """A closer's lock that answers what the test says; `takes` and `returns` count what was asked of it."""

    holder = "process 4711"

    def __init__(self, hold: CloserHold = CloserHold.UNBROKEN) -> None:
        self.hold = hold
        self.held = False
        self.takes = 0
        self.returns = 0

    def take(self) -> CloserHold:
        self.takes += 1
        if self.hold is CloserHold.ELSEWHERE:
            self.held = False
            return self.hold
        answer = CloserHold.UNBROKEN if self.held else self.hold
        self.held, self.hold = True, CloserHold.UNBROKEN
        return answer

    def give_back(self) -> None:
        self.returns += self.held
        self.held = False
