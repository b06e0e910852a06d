"""UNKNOWN orders end to end: order manager, recovery and exit door over the simulated broker's faults, second by second.

At every second of every case: no id is sent twice, an UNKNOWN order's symbol is locked, and an entry that is live or was given
up holds its claim. What each case adds is in the tables.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tests.fakes.rig import NOW_MS, UNIVERSE, Rig, entry_signal, make_limits
from tests.fakes.session import row
from velox_core.brokers.faults import Fault, FaultKind, FaultPlan
from velox_core.brokers.simulated import SimulatedBroker
from velox_core.brokers.simulated_orders import SimulationConfig
from velox_core.domain.events import EventKind
from velox_core.domain.orders import ExitRank, Order, OrderState, Side, unknown_lock
from velox_core.engine.resume import RESUME_KINDS, restore
from velox_core.order_recovery import EXIT_REPLACE_MS_MIN, SEARCH_MS_MAX
from velox_core.ports import BrokerFill, OrderUpdate, SendOutcome, Severity
from velox_core.risk.approval import ApprovedOrder
from velox_core.risk.layers import ReasonCode, Refusal

S, F = OrderState, FaultKind
SECOND_MS, MINUTE_MS = 1_000, 60_000


class Watched(SimulatedBroker):
    """The simulated broker, noting every send and read."""

    def __init__(self, plan: FaultPlan, rig: Rig) -> None:
        config = SimulationConfig(capital_paise=10**10)
        super().__init__(UNIVERSE, instruments=rig.instruments, config=config, faults=plan)
        self.sent: list[tuple[int, ApprovedOrder]] = []
        self.book_reads: list[int] = []

    def place(self, order: ApprovedOrder, now_ms: int) -> SendOutcome:
        self.sent.append((now_ms, order))
        return super().place(order, now_ms)

    def orders(self) -> list[object]:  # type: ignore[override]
        self.book_reads.append(self._now_ms)
        return super().orders()  # type: ignore[return-value]

    def exits(self) -> list[tuple[int, ApprovedOrder]]:
        return [(at_ms, order) for at_ms, order in self.sent if order.rank is not None]

    def tags(self) -> list[str]:
        return [order.tag for order in self.exchange.orders.values()]


class Market(Rig):
    """A rig whose broker is the simulated one with scripted faults; a minute bar at 100 rupees every minute."""

    def __init__(self, *faults: Fault) -> None:
        super().__init__(make_limits(max_daily_loss_paise=10**9))
        self.broker = Watched(FaultPlan(script=faults), self)  # type: ignore[assignment]
        self.port = self.broker
        self.broker.on_row(row(10, *[10_000] * 5), NOW_MS)  # type: ignore[attr-defined]
        self.restart()
        self.now_ms = NOW_MS

    def restart(self) -> None:
        super().restart()
        self.orders.on_position = self.on_position

    def on_position(self, symbol: str) -> None:
        """Do what the session does: what an exit opened is closed at once."""
        if symbol in self.orders.overshot:
            self.door.want(symbol, ExitRank.STOP, "an exit traded past the position")

    def run(self, seconds: int) -> None:
        """Live through some seconds, and judge each."""
        for _ in range(seconds):
            self.now_ms += SECOND_MS
            if (self.now_ms - NOW_MS) % MINUTE_MS == 0:
                number = 10 + (self.now_ms - NOW_MS) // MINUTE_MS
                self.broker.on_row(row(number, *[10_000] * 5), self.now_ms)  # type: ignore[attr-defined]
            self.broker.advance(self.now_ms)  # type: ignore[attr-defined]
            self.orders.poll(self.now_ms)
            self.emergency.check(self.now_ms)
            self.recovery.work(self.now_ms)
            self.door.work(self.now_ms)
            self.judge()

    def judge(self) -> None:
        sent = [order.client_order_id for _, order in self.broker.sent]  # type: ignore[attr-defined]
        assert len(sent) == len(set(sent)), "an id was sent twice"
        assert len(self.broker.tags()) == len(set(self.broker.tags())), "an order is twice in the book"  # type: ignore[attr-defined]
        claims = self.ledger.inner.snapshot().claims
        for order in self.orders.orders.values():
            if order.state is S.UNKNOWN:
                assert unknown_lock(order) in self.risk.locks[order.symbol]
            waits = order.client_order_id in self.orders.not_placed.keys() - self.orders.found_late
            if order.is_entry and (order.is_live or waits):
                assert claims[order.client_order_id].notional_paise > 0, "the claim does not hold its notional"

    def hold(self, *arguments: object, **keywords: object) -> Order:  # type: ignore[override]
        order = self.enter(now_ms=self.now_ms)
        self.run(60)
        assert self.quantity() == 1
        return order

    def seconds_since(self, at_ms: int) -> float:
        return (self.now_ms - at_ms) / 1_000


@dataclass(frozen=True)
class EntryCase:
    """A fault of an entry: after how many seconds its fate is known, at least and at most, and what it is."""

    kind: FaultKind
    known_after: tuple[int, int]
    adopted: bool
    delay_ms: int = 0
    in_book: bool = True


ENTRIES = {
    "time-out before acceptance": EntryCase(F.TIMEOUT_BEFORE, (120, 126), adopted=False, in_book=False),
    "5xx": EntryCase(F.SERVER_ERROR, (120, 126), adopted=False, in_book=False),
    "time-out after acceptance": EntryCase(F.TIMEOUT_AFTER, (5, 11), adopted=True),
    "reply torn": EntryCase(F.TORN_REPLY, (5, 11), adopted=True),
    "appears after 90 s": EntryCase(F.APPEARS_LATE, (90, 96), adopted=True, delay_ms=90_000),
    "appears after 10 minutes": EntryCase(F.APPEARS_LATE, (120, 126), adopted=False, delay_ms=610_000),
}


@pytest.mark.parametrize("case", ENTRIES)
def test_unknown_entry_is_sent_once_locked_and_counted_until_its_fate_is_known(case: str) -> None:
    expected = ENTRIES[case]
    rig = Market(Fault(kind=expected.kind, delay_ms=expected.delay_ms))
    order = rig.enter()
    assert order.state is S.UNKNOWN
    while order.state is S.UNKNOWN:
        rig.run(1)
        assert rig.seconds_since(NOW_MS) < 130
    earliest, latest = expected.known_after
    assert earliest <= rig.seconds_since(NOW_MS) <= latest
    rig.run(180)
    answer = rig.ask(entry_signal("AAA", Side.SELL, strategy="beta"), rig.now_ms)
    assert isinstance(answer, Refusal)
    if expected.adopted:
        assert (order.state, rig.quantity(), rig.risk.locks) == (S.FILLED, 1, {})
        assert answer.code is ReasonCode.POSITION_EXISTS
        assert dict(rig.ledger.inner.snapshot().claims) == {}
    else:
        assert (order.state, rig.quantity()) == (S.CANCELLED, 0)
        assert rig.risk.locks == {"AAA": unknown_lock(order)}
        assert answer.code is ReasonCode.SYMBOL_LOCKED
        assert list(rig.ledger.inner.snapshot().claims) == [order.client_order_id]
    assert len(rig.broker.sent) == 1  # type: ignore[attr-defined]
    assert (order.client_order_id in rig.broker.tags()) is expected.in_book  # type: ignore[attr-defined]


def test_entry_that_appears_after_ten_minutes_is_cancelled_before_it_trades_and_its_symbol_stays_locked() -> None:
    rig = Market(Fault(kind=F.APPEARS_LATE, delay_ms=610_000))
    order = rig.enter()
    rig.run(700)
    line = rig.broker.exchange.orders[order.broker_order_id]  # type: ignore[attr-defined]
    assert (line.state, rig.quantity()) == (S.CANCELLED, 0)
    assert not rig.recovery.watching
    assert dict(rig.ledger.inner.snapshot().claims) == {}
    assert rig.risk.locks == {"AAA": unknown_lock(order)}
    assert f"Order {order.client_order_id} appeared late" in rig.alerts.titles
    assert len(rig.broker.sent) == 1  # type: ignore[attr-defined]


def test_entry_that_traded_late_is_booked_once_and_its_symbol_stays_locked() -> None:
    rig = Market(Fault(kind=F.APPEARS_LATE, delay_ms=655_000))
    order = rig.enter()
    rig.run(780)
    assert (rig.quantity(), order.filled_quantity) == (1, 1)
    assert rig.orders.positions["AAA"].strategy_id == "alpha"
    assert unknown_lock(order) in rig.risk.locks["AAA"]
    assert len(rig.journal.bodies(EventKind.FILL)) == 1
    assert list(rig.ledger.inner.snapshot().positions) == ["AAA"]
    assert len(rig.broker.sent) == 1  # type: ignore[attr-defined]


@dataclass(frozen=True)
class ExitCase:
    """A fault of an exit: how many exits are sent in all, and how far the position is reversed at most."""

    kind: FaultKind
    exits: int
    delay_ms: int = 0
    over_exit: int = 0


EXITS = {
    "time-out before acceptance": ExitCase(F.TIMEOUT_BEFORE, 2),
    "5xx": ExitCase(F.SERVER_ERROR, 2),
    "time-out after acceptance": ExitCase(F.TIMEOUT_AFTER, 1),
    "reply torn": ExitCase(F.TORN_REPLY, 1),
    "appears after 10 s": ExitCase(F.APPEARS_LATE, 1, delay_ms=10_000),
    "appears after 90 s, cancelled before it trades": ExitCase(F.APPEARS_LATE, 2, delay_ms=90_000),
    "appears after 10 minutes": ExitCase(F.APPEARS_LATE, 2, delay_ms=610_000),
    "appears just before a bar and trades": ExitCase(F.APPEARS_LATE, 3, delay_ms=118_000, over_exit=1),
}


@pytest.mark.parametrize("flatten", [False, True])
@pytest.mark.parametrize("case", EXITS)
def test_unknown_exit_is_replaced_at_most_once_and_leaves_the_account_flat(case: str, flatten: bool) -> None:
    expected = EXITS[case]
    rig = Market(Fault(kind=expected.kind, side=Side.SELL, delay_ms=expected.delay_ms))
    rig.hold()
    if flatten:
        rig.emergency.trigger("test", "tester", rig.now_ms)
    else:
        rig.door.want("AAA", ExitRank.STOP, "test")
        rig.door.work(rig.now_ms)
    broker: Watched = rig.broker  # type: ignore[assignment]
    (first_ms, first), reads_before = broker.exits()[0], len(broker.book_reads)
    reversed_for = furthest = 0
    for _ in range(800):
        rig.run(1)
        furthest = min(furthest, rig.quantity())
        reversed_for += rig.quantity() < 0
        if len(broker.exits()) == 2 and not rig.quantity():
            assert rig.risk.locks, "a symbol whose exit was given up takes no entries"
    exits = broker.exits()
    assert len(exits) == expected.exits
    assert (rig.quantity(), [p.quantity for p in broker.positions()]) == (0, [0])
    assert rig.orders.is_flat()
    if expected.exits > 1:
        second_ms = exits[1][0]
        reads = [at_ms for at_ms in broker.book_reads[reads_before:] if first_ms < at_ms <= second_ms]
        assert second_ms - first_ms >= EXIT_REPLACE_MS_MIN
        assert len(reads) >= 2
        assert f"Order {first.client_order_id} was not placed" in rig.alerts.titles
    assert -furthest == expected.over_exit
    if expected.over_exit:
        assert reversed_for <= 2 * 60
        assert rig.orders.overshot == set()
        told = [text for severity, title, text in rig.alerts.sent if title == "AAA is locked" and severity is Severity.CRITICAL]
        assert any("traded past the position" in text for text in told)
        assert (exits[2][1].side, exits[2][1].quantity) == (Side.BUY, 1)
    if flatten:
        assert not rig.emergency.closing


def test_unknown_exit_with_a_position_that_changed_is_not_replaced_before_the_full_search() -> None:
    rig = Market(Fault(kind=F.TIMEOUT_BEFORE, side=Side.SELL))
    rig.hold()
    rig.door.want("AAA", ExitRank.STOP, "test")
    rig.door.work(rig.now_ms)
    broker: Watched = rig.broker  # type: ignore[assignment]
    rig.run(1)
    broker.desk.trade_foreign("AAA", Side.BUY, 1, rig.now_ms, price_paise=10_000)
    rig.run(SEARCH_MS_MAX // 1_000 - 2)
    assert [order.quantity for _, order in broker.exits()] == [1, 1]  # the second is for the share that came by hand
    rig.run(10)
    assert len(broker.exits()) == 3


CANCELS = {
    "cancel lost": (F.CANCEL_LOST, S.FILLED, 1),
    "cancel unknown": (F.CANCEL_UNKNOWN, S.CANCELLED, 0),
    "cancel too late": (F.CANCEL_TOO_LATE, S.FILLED, 1),
}


@pytest.mark.parametrize("case", CANCELS)
def test_order_whose_cancel_is_unknown_lives_until_the_broker_says_otherwise(case: str) -> None:
    kind, state, held = CANCELS[case]
    rig = Market(Fault(kind=kind), Fault(kind=F.UPDATE_LOST))
    order = rig.enter()
    rig.orders.cancel(order, "test", rig.now_ms)
    assert order.is_live
    assert list(rig.ledger.inner.snapshot().claims) == [order.client_order_id]
    rig.run(75)
    assert (order.state, rig.quantity()) == (state, held)
    assert dict(rig.ledger.inner.snapshot().claims) == {}
    assert len(rig.broker.sent) == 1  # type: ignore[attr-defined]


def test_given_up_exit_that_appears_after_a_restart_is_booked_and_its_over_exit_closed() -> None:
    rig = Market(Fault(kind=F.APPEARS_LATE, side=Side.SELL, delay_ms=118_000))
    rig.hold()
    rig.door.want("AAA", ExitRank.STOP, "test")
    rig.door.work(rig.now_ms)
    rig.run(70)
    assert len(rig.orders.not_placed) == 1
    assert rig.quantity() == 0

    rig.orders.commit_journal()
    rig.restart()
    restore(rig.journal.events(RESUME_KINDS), rig.orders, rig.risk)
    rig.run(200)
    broker: Watched = rig.broker  # type: ignore[assignment]
    assert [(order.side, order.quantity) for _, order in broker.exits()] == [(Side.SELL, 1), (Side.SELL, 1), (Side.BUY, 1)]
    assert (rig.quantity(), [p.quantity for p in broker.positions()]) == (0, [0])
    news = [event for event in broker.drain_events() if isinstance(event, OrderUpdate | BrokerFill)]
    assert news == []


def two_lost_exits(*, flatten: bool) -> Market:
    """Return a market in which two exits of one position vanished without a trace."""
    rig = Market(Fault(kind=F.TIMEOUT_BEFORE, side=Side.SELL, times=2))
    rig.hold()
    if flatten:
        rig.emergency.trigger("test", "tester", rig.now_ms)
    else:
        rig.door.want("AAA", ExitRank.STOP, "test")
        rig.door.work(rig.now_ms)
    return rig


@pytest.mark.parametrize("flatten", [False, True])
def test_second_lost_exit_is_never_replaced_and_ends_with_a_close_by_hand(flatten: bool) -> None:
    rig = two_lost_exits(flatten=flatten)
    broker: Watched = rig.broker  # type: ignore[assignment]
    rig.run(900)
    assert len(broker.exits()) == 2
    assert rig.quantity() == 1
    (order_id,) = rig.orders.unresolved_exits
    assert order_id == broker.exits()[1][1].client_order_id
    if flatten:
        assert rig.emergency.closing
        told = [text for _, title, text in rig.alerts.sent if title == "Emergency exit: NOT FLAT yet"]
        assert order_id in told[-1]
        assert "it is not replaced again" in told[-1]
    broker.desk.trade_foreign("AAA", Side.SELL, 1, rig.now_ms, price_paise=10_000)
    rig.run(30)
    assert (rig.quantity(), [p.quantity for p in broker.positions()]) == (0, [0])
    assert rig.orders.is_flat()
    assert not rig.emergency.closing
    assert (len(broker.exits()), rig.orders.unresolved_exits) == (2, {})


def test_stronger_goal_replaces_a_second_lost_exit_no_more_than_a_weaker_one() -> None:
    rig = two_lost_exits(flatten=False)
    broker: Watched = rig.broker  # type: ignore[assignment]
    rig.run(60)
    rig.door.want("AAA", ExitRank.SQUARE_OFF, "square-off")
    rig.run(120)
    rig.emergency.trigger("test", "tester", rig.now_ms)
    rig.run(300)
    assert ([order.rank for _, order in broker.exits()], rig.quantity()) == ([ExitRank.STOP] * 2, 1)
    assert rig.emergency.closing


def test_second_lost_exit_is_not_replaced_after_a_restart_either() -> None:
    rig = two_lost_exits(flatten=False)
    rig.run(60)
    rig.orders.commit_journal()
    rig.restart()
    restore(rig.journal.events(RESUME_KINDS), rig.orders, rig.risk)
    rig.door.want("AAA", ExitRank.SQUARE_OFF, "square-off")
    rig.run(400)
    broker: Watched = rig.broker  # type: ignore[assignment]
    assert (len(broker.exits()), rig.quantity(), len(rig.orders.unresolved_exits)) == (2, 1, 1)


def test_second_lost_exit_that_appears_after_ten_minutes_is_cancelled_and_then_replaced() -> None:
    """Found by its tag it is UNKNOWN no more, and as old as any exit that no longer counts as working."""
    rig = Market(
        Fault(kind=F.TIMEOUT_BEFORE, side=Side.SELL), Fault(kind=F.APPEARS_LATE, side=Side.SELL, nth=2, delay_ms=610_000)
    )
    rig.hold()
    rig.door.want("AAA", ExitRank.STOP, "test")
    rig.door.work(rig.now_ms)
    broker: Watched = rig.broker  # type: ignore[assignment]
    rig.run(500)
    assert (len(broker.exits()), rig.quantity(), len(rig.orders.unresolved_exits)) == (2, 1, 1)
    furthest = 0
    for _ in range(800):
        rig.run(1)
        furthest = min(furthest, rig.quantity())
    assert (len(broker.exits()), rig.quantity(), furthest) == (3, 0, 0)
    assert rig.orders.orders[broker.exits()[1][1].client_order_id].state is S.CANCELLED
    assert rig.orders.is_flat()
