"""What every broker behind the port must do, real or simulated.

A broker joins by adding a factory to `FACTORIES`: it builds a `BrokerBench`, the broker together with the other side of
it (a simulated market here, a local fake of the broker's server there). The suite talks to the port, and to the bench
only to let the market move or the connection fail.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Protocol

import pytest

from tests.unit.brokers.simulated_day import SimulatedDay, flat_bar
from velox_core.brokers.book import SqliteBook
from velox_core.brokers.faults import Fault, FaultKind, FaultPlan
from velox_core.brokers.off_loop import OffLoopBroker
from velox_core.domain.errors import BrokerError
from velox_core.domain.orders import OrderState, OrderType, Product, Side
from velox_core.ports import Broker, BrokerEvent, BrokerFill, OrderUpdate, SendOutcome, SendReport, SendStatus
from velox_core.risk.approval import ApprovedOrder, approve

PRICE_PAISE = 390_000
TICK_PAISE = 5


class BrokerBench(Protocol):
    """A broker under test and the world on its other side. The symbol's price is `PRICE_PAISE` at first."""

    broker: Broker
    symbol: str

    @property
    def now_ms(self) -> int:
        """Return engine time."""
        ...

    def trade_at(self, price_paise: int) -> None:
        """Let the market trade at a price: marketable orders fill, and limits better than it."""
        ...

    def lose_reply(self, *, accepted: bool) -> None:
        """Let the reply to the next send get lost, after the broker accepted the order or before."""
        ...

    def fail_reads(self, times: int) -> None:
        """Let the next reads fail."""
        ...

    def close(self) -> None:
        """Tidy up."""
        ...


class SimulatedBench:
    """The simulated broker, with or without a book, with a fault plan that is scripted as the suite goes."""

    symbol = "TCS"

    def __init__(self, book: SqliteBook | None, *, faults: bool) -> None:
        self._plan = FaultPlan() if faults else None
        self._day = SimulatedDay(book=book, faults=self._plan, first_price_paise=PRICE_PAISE)
        self.broker: Broker = self._day.broker

    @property
    def now_ms(self) -> int:
        return self._day.now_ms

    def trade_at(self, price_paise: int) -> None:
        self._day.pass_minute(tcs=flat_bar(price_paise))

    def lose_reply(self, *, accepted: bool) -> None:
        self._script(FaultKind.TIMEOUT_AFTER if accepted else FaultKind.TIMEOUT_BEFORE, 1)

    def fail_reads(self, times: int) -> None:
        self._script(FaultKind.READ_FAILED, times)

    def close(self) -> None:
        self._day.broker.close()

    def _script(self, kind: FaultKind, times: int) -> None:
        if self._plan is None:
            raise AssertionError("this bench has no faults: use the fixture faulty_bench")
        self._plan.add(Fault(kind=kind, times=times))


class Awaited(OffLoopBroker):
    """A broker off the loop for one who waits: a place returns what its report says, a cancel when it was answered."""

    def __init__(self, broker: Broker) -> None:
        super().__init__(broker)
        self._kept: list[BrokerEvent] = []

    def place(self, order: ApprovedOrder, now_ms: int) -> SendOutcome:
        outcome = super().place(order, now_ms)
        deadline = time.monotonic() + 120
        while outcome.status is SendStatus.PENDING:
            assert time.monotonic() < deadline
            time.sleep(0.001)
            for event in super().drain_events():
                if isinstance(event, SendReport):
                    assert event.client_order_id == order.client_order_id
                    outcome = event.outcome
                else:
                    self._kept.append(event)
        return outcome

    def cancel(self, broker_order_id: str, now_ms: int) -> SendOutcome:
        found: list[SendOutcome] = []
        inner = self._broker.cancel
        self._broker.cancel = lambda *given: found.append(inner(*given)) or found[-1]  # type: ignore[func-returns-value]
        try:
            assert super().cancel(broker_order_id, now_ms).status is SendStatus.PENDING
            assert self._sends.wait_until_answered(120)
        finally:
            self._broker.cancel = inner
        return found[0]

    def drain_events(self) -> Sequence[BrokerEvent]:
        events = [*self._kept, *super().drain_events()]
        self._kept = []
        return events


class OffLoopBench(SimulatedBench):
    """The simulated broker with a book, called off the loop."""

    def __init__(self, book: SqliteBook) -> None:
        super().__init__(book, faults=True)
        self.broker = Awaited(self._day.broker)

    def close(self) -> None:
        assert self.broker.close()
        super().close()


Factory = Callable[[Path], BrokerBench]
FACTORIES: dict[str, Factory] = {
    "simulated in memory": lambda folder: SimulatedBench(None, faults=False),
    "simulated with faults": lambda folder: SimulatedBench(None, faults=True),
    "simulated with a book": lambda folder: SimulatedBench(SqliteBook(folder / "broker.db"), faults=True),
    "simulated off the loop": lambda folder: OffLoopBench(SqliteBook(folder / "broker.db")),
}
WITH_FAULTS = [name for name in FACTORIES if name != "simulated in memory"]
_tags = count(1)


@pytest.fixture(params=FACTORIES, ids=lambda name: name.replace(" ", "-"))
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BrokerBench]:
    built = FACTORIES[request.param](tmp_path)
    yield built
    built.close()


@pytest.fixture(params=WITH_FAULTS, ids=lambda name: name.replace(" ", "-"))
def faulty_bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BrokerBench]:
    """A bench whose connection can be made to fail."""
    built = FACTORIES[request.param](tmp_path)
    yield built
    built.close()


def order_for(
    bench: BrokerBench,
    side: Side = Side.BUY,
    quantity: int = 4,
    *,
    limit_price_paise: int = 0,
    protection_bps: int = 100,
    tag: str = "",
) -> ApprovedOrder:
    return approve(
        client_order_id=tag or f"240115E0001{next(_tags):07d}",
        symbol=bench.symbol,
        side=side,
        quantity=quantity,
        order_type=OrderType.LIMIT if limit_price_paise else OrderType.MARKET,
        limit_price_paise=limit_price_paise,
        product=Product.MIS,
        rank=None,
        protection_bps=protection_bps,
    )


def line_of(bench: BrokerBench, order: ApprovedOrder):
    """Return the order's one line in the broker's book, or None."""
    lines = [line for line in bench.broker.orders() if line.tag == order.client_order_id]
    assert len(lines) < 2
    return lines[0] if lines else None


def net_quantity(bench: BrokerBench) -> int:
    return sum(line.quantity for line in bench.broker.positions() if line.symbol == bench.symbol)


def test_place_accepted_order_stands_in_the_book_under_its_tag(bench):
    order = order_for(bench, limit_price_paise=PRICE_PAISE - 10_000)
    outcome = bench.broker.place(order, bench.now_ms)
    assert outcome.status is SendStatus.ACKNOWLEDGED
    line = line_of(bench, order)
    assert line.broker_order_id == outcome.broker_order_id != ""
    assert (line.symbol, line.side, line.quantity, line.filled_quantity) == (bench.symbol, Side.BUY, 4, 0)
    assert (line.state, line.product, line.limit_price_paise) == (OrderState.OPEN, Product.MIS, PRICE_PAISE - 10_000)
    assert net_quantity(bench) == 0
    assert bench.broker.trades() == []


def test_market_order_fills_are_announced_once_and_agree_with_book_trades_and_positions(bench):
    order = order_for(bench, Side.SELL)
    outcome = bench.broker.place(order, bench.now_ms)
    bench.trade_at(PRICE_PAISE)
    events = bench.broker.drain_events()
    fills = [event for event in events if isinstance(event, BrokerFill)]
    assert sum(fill.quantity for fill in fills) == 4
    assert {(fill.client_order_id, fill.broker_order_id, fill.symbol, fill.side) for fill in fills} == {
        (order.client_order_id, outcome.broker_order_id, bench.symbol, Side.SELL)
    }
    assert all(fill.price_paise % TICK_PAISE == 0 and fill.price_paise > 0 for fill in fills)
    assert sorted(fill.trade_id for fill in fills) == sorted(fill.trade_id for fill in bench.broker.trades())
    assert len({fill.trade_id for fill in fills}) == len(fills)
    assert all(event.filled_quantity <= 4 for event in events if isinstance(event, OrderUpdate))
    assert (line_of(bench, order).state, line_of(bench, order).filled_quantity) == (OrderState.FILLED, 4)
    (position,) = [line for line in bench.broker.positions() if line.symbol == bench.symbol]
    value = sum(fill.quantity * fill.price_paise for fill in fills)
    assert (position.quantity, position.sold_quantity, position.sold_paise, position.bought_quantity) == (-4, 4, value, 0)
    assert bench.broker.drain_events() == []


def test_limit_order_rests_until_the_market_is_through_it(bench):
    order = order_for(bench, limit_price_paise=PRICE_PAISE - 1_000)
    bench.broker.place(order, bench.now_ms)
    bench.trade_at(PRICE_PAISE)
    assert line_of(bench, order).state is OrderState.OPEN
    assert bench.broker.trades() == []
    bench.trade_at(PRICE_PAISE - 2_000)
    assert line_of(bench, order).state is OrderState.FILLED
    assert all(fill.price_paise <= PRICE_PAISE - 1_000 for fill in bench.broker.trades())


def test_cancel_working_order_is_acknowledged_announced_and_final(bench):
    order = order_for(bench, limit_price_paise=PRICE_PAISE - 1_000)
    identity = bench.broker.place(order, bench.now_ms).broker_order_id
    assert bench.broker.cancel(identity, bench.now_ms).status is SendStatus.ACKNOWLEDGED
    updates = [event for event in bench.broker.drain_events() if isinstance(event, OrderUpdate)]
    assert updates[-1].state is OrderState.CANCELLED
    assert (updates[-1].client_order_id, updates[-1].broker_order_id) == (order.client_order_id, identity)
    assert line_of(bench, order).state is OrderState.CANCELLED
    bench.trade_at(PRICE_PAISE - 2_000)
    assert bench.broker.trades() == []


def test_cancel_finished_or_unknown_order_is_rejected_with_a_reason(bench):
    identity = bench.broker.place(order_for(bench), bench.now_ms).broker_order_id
    bench.trade_at(PRICE_PAISE)
    for wrong in (identity, "999999999999999"):
        outcome = bench.broker.cancel(wrong, bench.now_ms)
        assert (outcome.status, bool(outcome.reason)) == (SendStatus.REJECTED, True)
    assert net_quantity(bench) == 4


@pytest.mark.parametrize(
    "details",
    [{"quantity": 0}, {"protection_bps": 0}, {"limit_price_paise": PRICE_PAISE + 1}, {"tag": "A" * 21}],
    ids=["no quantity", "market without protection", "off the tick", "tag too long"],
)
def test_place_impossible_order_is_rejected_with_a_reason_and_never_works(bench, details):
    outcome = bench.broker.place(order_for(bench, **details), bench.now_ms)
    assert (outcome.status, bool(outcome.reason)) == (SendStatus.REJECTED, True)
    bench.trade_at(PRICE_PAISE)
    assert net_quantity(bench) == 0
    assert bench.broker.trades() == []
    assert all(line.state is OrderState.REJECTED for line in bench.broker.orders())


def test_reply_lost_after_acceptance_is_unknown_and_the_order_is_found_once_by_its_tag(faulty_bench):
    order = order_for(faulty_bench)
    faulty_bench.lose_reply(accepted=True)
    assert faulty_bench.broker.place(order, faulty_bench.now_ms).status is SendStatus.UNKNOWN
    assert line_of(faulty_bench, order).state is OrderState.OPEN
    faulty_bench.trade_at(PRICE_PAISE)
    assert net_quantity(faulty_bench) == 4
    assert {event.client_order_id for event in faulty_bench.broker.drain_events()} == {order.client_order_id}


def test_reply_lost_before_acceptance_is_unknown_and_nothing_is_sent_again(faulty_bench):
    order = order_for(faulty_bench)
    faulty_bench.lose_reply(accepted=False)
    assert faulty_bench.broker.place(order, faulty_bench.now_ms).status is SendStatus.UNKNOWN
    faulty_bench.trade_at(PRICE_PAISE)
    assert line_of(faulty_bench, order) is None
    assert net_quantity(faulty_bench) == 0


@pytest.mark.parametrize("read", ["orders", "trades", "positions", "funds"])
def test_failed_read_raises_and_is_never_an_empty_answer(faulty_bench, read):
    faulty_bench.broker.place(order_for(faulty_bench), faulty_bench.now_ms)
    faulty_bench.trade_at(PRICE_PAISE)
    faulty_bench.fail_reads(1)
    with pytest.raises(BrokerError) as raised:
        getattr(faulty_bench.broker, read)()
    assert str(raised.value)
    assert getattr(faulty_bench.broker, read)()


def test_positions_keep_a_symbol_that_is_flat_again(bench):
    for side in (Side.BUY, Side.SELL):
        bench.broker.place(order_for(bench, side), bench.now_ms)
        bench.trade_at(PRICE_PAISE)
    (position,) = [line for line in bench.broker.positions() if line.symbol == bench.symbol]
    assert (position.quantity, position.bought_quantity, position.sold_quantity) == (0, 4, 4)


def test_funds_shrink_with_a_position_and_come_back_without_it(bench):
    before = bench.broker.funds()
    assert before.margin_used_paise == 0
    bench.broker.place(order_for(bench), bench.now_ms)
    bench.trade_at(PRICE_PAISE)
    assert bench.broker.funds().available_paise < before.available_paise
    assert bench.broker.funds().margin_used_paise > 0
    bench.broker.place(order_for(bench, Side.SELL), bench.now_ms)
    bench.trade_at(PRICE_PAISE)
    assert bench.broker.funds().margin_used_paise == 0


def test_name_is_one_of_the_broker_types(bench):
    assert bench.broker.name in {"simulated", "zerodha", "upstox"}
