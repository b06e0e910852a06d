"""Sends off the loop in virtual time: the real `OffLoopBroker` and `Sends`, whose threads are events of the episode.

- A request is asked when it leaves; its answer comes at a later poll, in another order than the requests left. Some answers
  take minutes (UNKNOWN by then, and they still count), some are torn, some never come; some requests never reach the broker,
  and some are taken up so late that they must not leave.
- With the engine die the answers that are owed to it: what was asked stands at the broker.
- Reads are inline: their rules (`answers`) are waits, of which virtual time has none.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from velox_core.brokers.off_loop import OffLoopBroker
from velox_core.ports import Broker, BrokerEvent, BrokerFill, BrokerOrder, BrokerPosition, SendOutcome, SendStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.simulation.world import World
    from velox_core.brokers.sends import Answer, Ask, Request

SENDERS = "senders"  # forced: sends leave the loop, and half of them meet a trouble
TROUBLES = ("slow", "torn", "hung", "void", "late")
SHARE = 0.15  # of the requests that meet one


class Flights:
    """What is on its way for the engine that runs now. `seen` counts the troubles."""

    def __init__(self, world: World) -> None:
        self.seen: dict[str, int] = {}
        self._world = world
        self._random = Random(f"senders {world.seed}")
        self._due: list[tuple[float, Callable[[], None]]] = []

    def engine_starts(self) -> None:
        """Forget the answers that were owed to a dead engine."""
        self._due.clear()

    def told(self) -> list[str]:
        """Return what happened, each as often as it did."""
        return [f"request {kind}" for kind, times in self.seen.items() for _ in range(times)]

    def sleep(self, seconds: float) -> None:
        """Let virtual time pass instead of real one."""
        self._world.seconds += seconds

    def launch(self, request: Request, ask: Ask, answer: Answer) -> None:
        """Begin one request: ask now or never, and have the answer come when its trouble says."""
        random = self._random
        kind = random.choice(TROUBLES) if random.random() < SHARE else ""
        if kind:
            self.seen[kind] = self.seen.get(kind, 0) + 1
        later = self._world.seconds + random.choice((30.0, 90.0, 200.0))
        unknown = SendOutcome(SendStatus.UNKNOWN, "", "the send broke off")
        if kind == "late":
            self._due.append((later, lambda: answer(request, ask(request))))
        elif kind == "void":
            self._due.append((later, lambda: answer(request, unknown)))
        else:
            outcome = ask(request)
            if kind == "hung":
                return
            shown = unknown if kind == "torn" else outcome
            self._due.append((later if kind == "slow" else 0.0, lambda: answer(request, shown)))

    def land(self) -> None:
        """Give the answers that are due, in an order of the seed's."""
        now = self._world.seconds
        due = [flight for flight in self._due if flight[0] <= now]
        self._due = [flight for flight in self._due if flight[0] > now]
        self._random.shuffle(due)
        for _, give in due:
            give()


class SimOffLoop(OffLoopBroker):
    """The broker called off the loop, as one engine process has it."""

    def __init__(self, broker: Broker, flights: Flights) -> None:
        super().__init__(broker, monotonic=flights._world.monotonic, launch=flights.launch)
        self._flights = flights

    def drain_events(self) -> Sequence[BrokerEvent]:
        """Return what has come by now."""
        self._flights.land()
        return super().drain_events()

    def orders(self) -> list[BrokerOrder]:
        """Read inline."""
        return self._broker.orders()

    def trades(self) -> list[BrokerFill]:
        """Read inline."""
        return self._broker.trades()

    def positions(self) -> list[BrokerPosition]:
        """Read inline."""
        return self._broker.positions()
