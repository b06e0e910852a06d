"""An engine that is stopped anywhere and goes on a minute later, when another host has taken the account over.

Kernel locks do not reach the other host: the lease alone keeps the two apart. At each step of an entry's and an exit's life
the first engine stops, 60 s pass by the boot clock, a second engine takes the lease, closes everything and finds the broker
flat. Then the first goes on, with all the news it missed. It opens nothing and reverses nothing, inline and off the loop.
The clock that ages requests stands still meanwhile, as it does when a machine sleeps: the lease is what is under test.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from tests.fakes.broker import FakeBroker
from tests.fakes.outside import FakeClock, FakeCloserLock
from tests.fakes.rig import NOW_MS, Rig
from tests.fakes.stores import FakeLedger
from velox_core.brokers.answers import ReadBounds
from velox_core.brokers.off_loop import OffLoopBroker
from velox_core.domain.events import EventKind
from velox_core.domain.orders import ExitRank, OrderIntent, OrderState
from velox_core.engine.resume import reconcile
from velox_core.lease import HeldLease, LeasedCloser
from velox_core.ports import BrokerFill, CloserHold
from velox_core.risk.layers import Refusal

STOP_SECONDS = 60.0
PRICE_PAISE = 10_000


class OneMarket(FakeBroker):
    """One broker as each host reaches it: the same book, and news for each."""

    def __init__(self, twin: OneMarket | None = None) -> None:
        super().__init__()
        self.now_ms = NOW_MS
        self.twins: list[OneMarket] = []
        if twin is not None:
            self.book, self.trade_list = twin.book, twin.trade_list
            self.twins.append(twin)
            twin.twins.append(self)

    def fill(self, *arguments: object, **keywords: object) -> BrokerFill:  # type: ignore[override]
        fill = super().fill(*arguments, **keywords)  # type: ignore[arg-type]
        for twin in self.twins:
            twin.news.append(fill)
        return fill

    def tell(self, *arguments: object, **keywords: object) -> None:  # type: ignore[override]
        super().tell(*arguments, **keywords)  # type: ignore[arg-type]
        for twin in self.twins:
            twin.news.append(self.news[-1])


class Host(Rig):
    """An engine of one host on the shared ledger and broker."""

    def __init__(self, name: str, broker: OneMarket, ledger: FakeLedger, boot: FakeClock, *, off_loop: bool = False) -> None:
        self.boot = boot
        super().__init__(broker=broker, ledger=ledger, host=name, wrap=self._wrap if off_loop else None)

    def _wrap(self, broker: FakeBroker) -> OffLoopBroker:
        made = OffLoopBroker(broker, read_bounds=ReadBounds(spacing_seconds=0.0), monotonic=FakeClock().monotonic)
        made._lease = self  # type: ignore[assignment]  # the lease is made after the broker
        return made

    def withholds(self, *, entry: bool) -> str:
        """Pass on what the sender thread asks."""
        assert self.lease is not None
        return self.lease.withholds(entry=entry)

    def restart(self) -> None:
        self.lease = HeldLease(self.ledger, self.epoch, confirmed=self.boot.seconds, seconds=self.boot.monotonic)
        lock = FakeCloserLock(CloserHold.FRESH)  # of this host: a new process finds another one's name in the file
        self.closer_lock = LeasedCloser(lock, self.lease, seconds=self.boot.monotonic)  # type: ignore[assignment]
        super().restart()

    def settle(self) -> None:
        """Wait for the answers that are owed, and take them."""
        if self.off_loop is not None:
            assert self.off_loop._sends.wait_until_answered(30)
        self.orders.poll(NOW_MS)

    def live_for(self, seconds: int, from_ms: int) -> None:
        """Do what a session does, second after second."""
        for second in range(seconds):
            now_ms = from_ms + second * 1_000
            self.orders.poll(now_ms)
            self.emergency.check(now_ms)
            self.recovery.work(now_ms)
            self.door.work(now_ms)
            self.settle()
            self.risk.renew_lease()
            self.boot.seconds += 1.0


class Stage:
    """Two hosts of one account, and the moment at which the first is stopped."""

    def __init__(self, *, off_loop: bool) -> None:
        self.clock = FakeClock()
        self.ledger = FakeLedger(monotonic=self.clock.monotonic)
        self.market = OneMarket()
        self.first = Host("first", self.market, self.ledger, self.clock, off_loop=off_loop)
        self.placed_before = -1  # orders that the first had sent when it stopped; -1 before that
        self.armed = False

    @property
    def was_stopped(self) -> bool:
        return self.placed_before >= 0

    def stop(self) -> None:
        """Stop the first engine here, once: the other host takes over and closes everything."""
        if not self.armed or self.was_stopped:
            return
        self.placed_before = len(self.market.placed)
        self.clock.seconds += STOP_SECONDS
        second = Host("second", OneMarket(self.market), self.ledger, self.clock)
        assert second.epoch == self.first.epoch + 1
        now_ms = NOW_MS + int(STOP_SECONDS * 1_000)
        second.broker.fill_prices = dict.fromkeys(second.instruments, PRICE_PAISE)
        reconcile(second.broker, second.orders, second.risk, second.alerts, now_ms)
        second.emergency.trigger("taken over", "test", now_ms)
        second.live_for(5, now_ms)
        assert not second.emergency.closing
        assert self.held() == {}

    def fill_what_works(self) -> bool:
        """Have the first engine's order trade before anybody hears of it."""
        line = list(self.market.book.values())[-1]
        if self.armed and not self.was_stopped:
            self.market.fill(line.broker_order_id, line.quantity, PRICE_PAISE)
        return True

    def held(self) -> dict[str, int]:
        """Return what the broker holds."""
        return {line.symbol: line.quantity for line in self.market.positions() if line.quantity}

    def go_on(self) -> None:
        """Let the first live through what follows, and judge what it did and what the account came to."""
        assert self.was_stopped, "the engine never came to the point"
        self.first.settle()
        assert len(self.market.placed) == self.placed_before, "it sent something when it went on"
        self.first.live_for(40, NOW_MS + int(STOP_SECONDS * 1_000) + 10_000)
        assert len(self.market.placed) == self.placed_before, "it sent something later"
        assert self.held() == {}
        assert not [order for order in self.first.orders.live.values() if order.is_entry and order.broker_order_id]
        quantity = 0
        for trade in self.market.trade_list:
            quantity += trade.side.sign * trade.quantity
            assert 0 <= quantity <= 1, "a trade reversed the position"
        answer = self.first.ask(now_ms=NOW_MS + 200_000)
        assert isinstance(answer, Refusal)


def around(owner: object, name: str, before: Callable[..., None], after: Callable[..., None]) -> None:
    """Call something before and after a method of one object, with the method's arguments."""
    inner = getattr(owner, name)

    def wrapped(*arguments: object, **keywords: object) -> object:
        before(*arguments, **keywords)
        answer = inner(*arguments, **keywords)
        after(*arguments, **keywords)
        return answer

    setattr(owner, name, wrapped)


def nothing(*arguments: object, **keywords: object) -> None:
    pass


def stop_at(stage: Stage, point: str) -> None:
    """Have the first engine stop at a point from now on."""
    first, side = stage.first, point.rpartition(" ")[2]
    first_moments = {"before": (0,), "after": (1,)}[side]

    def hook(is_meant: Callable[..., bool]) -> tuple[Callable[..., None], Callable[..., None]]:
        def act(*arguments: object, **keywords: object) -> None:
            if is_meant(*arguments, **keywords):
                stage.stop()

        return tuple(act if moment in first_moments else nothing for moment in (0, 1))  # type: ignore[return-value]

    def is_intent(kind: EventKind, *_: object) -> bool:
        return kind is EventKind.INTENT

    def holds_intent() -> bool:
        return any(body["client_order_id"] in first.orders.live for body in first.journal.bodies(EventKind.INTENT))

    def on_a_thread(*, entry: bool) -> bool:
        return threading.current_thread() is not threading.main_thread()

    def in_the_loop(*, entry: bool) -> bool:
        return not on_a_thread(entry=entry)

    what = point.rpartition(" ")[0]
    targets: dict[str, tuple[object, str, Callable[..., bool]]] = {
        "claim": (first.ledger, "commit", lambda *_: True),
        "decision": (first.journal, "append", lambda kind, *_: kind is EventKind.DECISION),
        "intent": (first.journal, "append", is_intent),
        "commit": (first.journal, "commit", holds_intent),
        "look in the loop": (first.lease, "withholds", in_the_loop),
        "look on the thread": (first.lease, "withholds", on_a_thread),
        "call": (stage.market, "place", lambda *_: True),
        "filled call": (stage.market, "place", lambda *_: stage.fill_what_works()),
        "cancel": (first.orders, "send_cancel", lambda *_: True),
        "closer's lock": (first.closer._lock, "take", lambda *_: True),
    }
    owner, name, is_meant = targets[what]
    around(owner, name, *hook(is_meant))
    stage.armed = True


ENTRY_POINTS = (
    "claim before",
    "claim after",
    "decision before",
    "decision after",
    "intent before",
    "intent after",
    "commit before",
    "commit after",
    "look in the loop before",
    "call after",
    "filled call after",
)
EXIT_POINTS = (
    "closer's lock before",
    "closer's lock after",
    "decision before",
    "decision after",
    "intent before",
    "intent after",
    "commit before",
    "commit after",
    "look in the loop before",
    "call after",
    "filled call after",
)
ON_THE_THREAD = ("look on the thread before",)


def both_ways(points: tuple[str, ...]) -> list[tuple[str, bool]]:
    return [(point, off_loop) for point in points for off_loop in (False, True)] + [(point, True) for point in ON_THE_THREAD]


@pytest.mark.parametrize(("point", "off_loop"), both_ways(ENTRY_POINTS))
def test_engine_stopped_in_an_entry_and_taken_over_opens_nothing_when_it_goes_on(point: str, off_loop: bool) -> None:
    stage = Stage(off_loop=off_loop)
    stop_at(stage, point)
    answer = stage.first.ask()
    if not isinstance(answer, Refusal):
        order = stage.first.orders.submit(answer, OrderIntent("alpha", "test"), NOW_MS)
        stage.first.settle()
        assert order.state is (OrderState.FILLED if point == "filled call after" else OrderState.CANCELLED)
    stage.go_on()
    assert [order.rank for order in stage.market.placed] == [None] * point.endswith("call after")


@pytest.mark.parametrize(("point", "off_loop"), both_ways(EXIT_POINTS))
def test_engine_stopped_in_an_exit_and_taken_over_reverses_nothing_when_it_goes_on(point: str, off_loop: bool) -> None:
    stage = Stage(off_loop=off_loop)
    hold(stage)
    stop_at(stage, point)
    stage.first.door.want("AAA", ExitRank.STOP, "test")
    stage.first.door.work(NOW_MS)
    stage.first.settle()
    stage.go_on()
    sent = [order.rank for order in stage.market.placed]
    assert sent == [None] + [ExitRank.STOP] * point.endswith("call after")


@pytest.mark.parametrize("off_loop", [False, True])
@pytest.mark.parametrize("what", ["entry", "exit"])
def test_engine_stopped_before_a_cancel_and_taken_over_sends_neither_cancel_nor_exit(what: str, off_loop: bool) -> None:
    stage = Stage(off_loop=off_loop)
    first = stage.first
    if what == "entry":
        first.enter()
        first.settle()
    else:
        hold(stage)
        first.door.want("AAA", ExitRank.TARGET, "test")
        first.door.work(NOW_MS)
        first.settle()
    stop_at(stage, "cancel before")
    (order,) = first.orders.live.values()
    cancels_before = len(stage.market.cancels)
    first.orders.cancel(order, "test", NOW_MS)
    first.settle()
    assert len(stage.market.cancels) == cancels_before
    stage.go_on()
    assert len(stage.market.cancels) == cancels_before


@pytest.mark.parametrize("off_loop", [False, True])
def test_stopped_engine_whose_ledger_is_gone_looks_into_the_book_before_it_closes(off_loop: bool) -> None:
    """The ledger went down after the take-over: nothing can be asked, but the book says that somebody closed."""
    stage = Stage(off_loop=off_loop)
    hold(stage)
    stage.first.closer._lock._lock.hold = CloserHold.UNBROKEN  # type: ignore[attr-defined]  # it closed before
    stage.armed = True
    stage.stop()
    stage.ledger.down = True
    stage.market.news.clear()  # what happened meanwhile comes late
    stage.first.door.want("AAA", ExitRank.STOP, "test")
    stage.first.door.work(NOW_MS + 70_000)
    stage.first.live_for(10, NOW_MS + 71_000)
    assert len(stage.market.placed) == stage.placed_before
    assert stage.held() == {}


def test_engine_that_was_not_taken_over_goes_on_with_its_exit_after_a_stop() -> None:
    """A stop alone takes nothing from an engine: its old entry stays, its exit leaves."""
    stage = Stage(off_loop=False)
    hold(stage)
    stage.clock.seconds += STOP_SECONDS
    stage.first.door.want("AAA", ExitRank.STOP, "test")
    stage.first.door.work(NOW_MS)
    assert [order.rank for order in stage.market.placed] == [None, ExitRank.STOP]


def hold(stage: Stage) -> None:
    """Have the first engine hold a share."""
    order = stage.first.enter()
    stage.first.settle()
    stage.market.fill(order.broker_order_id, 1, PRICE_PAISE)
    stage.first.settle()
    assert stage.first.quantity() == 1
