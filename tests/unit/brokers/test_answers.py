"""When an answer of the broker's book is one: the rules that keep an old read from proving that something is absent."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from tests.fakes.broker import FakeBroker
from tests.fakes.gated_broker import GatedBroker
from tests.unit.brokers.test_sends import order, wait_until
from velox_core.brokers.answers import ReadBounds
from velox_core.brokers.off_loop import OffLoopBroker
from velox_core.brokers.sends import SendBounds
from velox_core.domain.errors import BrokerError
from velox_core.domain.orders import Side

LONG = 240.0


class Desk:
    """A broker off the loop whose reads the test holds back; a hurried question never waits here."""

    def __init__(self, *, hurried: bool = True, **bounds: float) -> None:
        self.fake = FakeBroker()
        self.gate = GatedBroker(self.fake)
        self.seconds = 0.0
        values: dict[str, float] = {"hurried_seconds": 0.0, "spacing_seconds": 0.001, "question_seconds": 1e9} | bounds
        self.broker = OffLoopBroker(
            self.gate,
            send_bounds=SendBounds(answer_seconds=1e9),
            read_bounds=ReadBounds(**values),  # type: ignore[arg-type]
            monotonic=lambda: self.seconds if hurried else time.monotonic(),
        )
        self.broker.hurry(hurried)

    def tags(self) -> list[str] | None:
        """Return the tags in the book that is handed out, None for no answer."""
        try:
            return [line.tag for line in self.broker.orders()]
        except BrokerError:
            return None

    def next_tags(self) -> list[str]:
        """Ask until there is an answer. Time passes, so that the reader may repeat itself."""
        deadline = time.monotonic() + LONG
        while (found := self.tags()) is None:
            assert time.monotonic() < deadline, "no answer came"
            self.seconds += 0.01
            time.sleep(0.001)
        return found

    def in_book(self, tag: str) -> None:
        """Let an order be in the broker's book that nobody tells of."""
        self.fake._enter(tag, "AAA", Side.BUY, 1, 0)


@pytest.fixture
def desk() -> Iterator[Desk]:
    made = Desk()
    yield made
    made.gate.open()
    made.broker.close()


def test_hurried_read_of_a_silent_broker_returns_at_once_and_the_answer_is_there_at_a_later_call(desk: Desk) -> None:
    desk.gate.shut.add("orders")
    with pytest.raises(BrokerError, match="has not answered the read of its book yet"):
        desk.broker.orders()
    desk.gate.wait_begun("orders")
    assert desk.tags() is None
    desk.gate.open()
    assert desk.next_tags() == []
    assert threading.get_ident() not in desk.gate.threads


def test_answer_read_before_it_was_asked_for_is_not_handed_out(desk: Desk) -> None:
    assert desk.next_tags() == []
    desk.in_book("LATE")
    desk.seconds += 1.6  # older than it may be: a new question
    assert desk.next_tags() == ["LATE"]


def test_answer_during_whose_read_an_order_left_is_not_handed_out(desk: Desk) -> None:
    desk.gate.shut.add("positions")
    assert desk.tags() is None
    desk.gate.wait_begun("positions")  # the order list was read, without A1
    desk.broker.place(order("A1"), 0)
    desk.gate.wait_begun("place")
    desk.gate.open()
    assert desk.next_tags() == ["A1"]


def test_answer_during_whose_read_a_cancel_left_and_was_answered_is_handed_out(desk: Desk) -> None:
    desk.in_book("A1")
    desk.gate.shut.add("positions")
    assert desk.tags() is None
    desk.gate.wait_begun("positions")
    desk.broker.cancel("B1", 0)
    desk.gate.wait_done("cancel")
    assert desk.broker._sends.wait_until_answered(LONG)
    desk.gate.open()
    assert desk.next_tags() == ["A1"]
    assert desk.gate.begun["positions"] == 1


def test_answer_before_whose_hand_over_an_order_left_is_not_handed_out(desk: Desk) -> None:
    assert desk.tags() is None
    desk.gate.wait_done("positions")
    desk.broker.place(order("A1"), 0)
    desk.gate.wait_done("place")
    assert desk.next_tags() == ["A1"]


def test_answer_before_which_news_came_is_not_handed_out(desk: Desk) -> None:
    desk.in_book("A1")
    assert desk.next_tags() == ["A1"]
    held = desk.fake.fill("B1", 1, 10_000)
    assert list(desk.broker.drain_events()) == [held]
    reads = desk.gate.begun["positions"]
    assert desk.next_tags() == ["A1"]
    assert desk.gate.begun["positions"] > reads
    assert [position.quantity for position in desk.broker.positions()] == [1]


def test_no_entry_leaves_while_a_read_is_overdue_and_exits_do(desk: Desk) -> None:
    desk.broker._sends._bounds = SendBounds(answer_seconds=1e9, entry_wait_seconds=1e9)
    desk.gate.shut.add("positions")
    assert desk.tags() is None
    desk.seconds += 4.9
    desk.broker.place(order("A1"), 0)
    desk.gate.wait_done("place")
    desk.seconds += 0.1
    assert desk.tags() is None
    desk.broker.place(order("A2", "BBB"), 0)
    desk.broker.place(order("X1", "CCC", is_exit=True), 0)
    desk.gate.wait_done("place", 2)
    desk.gate.open()
    assert sorted(desk.next_tags()) == ["A1", "X1"]
    desk.broker.drain_events()
    desk.gate.wait_done("place", 3)
    assert sorted(desk.next_tags()) == ["A1", "A2", "X1"]


def test_orders_trades_and_positions_of_one_moment_are_one_read_in_this_order(desk: Desk) -> None:
    assert desk.next_tags() == []
    assert (desk.broker.trades(), desk.broker.positions()) == ([], [])
    assert desk.fake.reads == ["orders", "trades", "positions"]


def test_failed_read_is_raised_once_and_read_again_at_the_next_question(desk: Desk) -> None:
    desk.fake.failing.add("trades")
    said = ""
    while "fake" not in said:
        with pytest.raises(BrokerError) as raised:
            desk.broker.positions()
        said = str(raised.value)
    assert said == "the broker did not answer the read of trades (fake)"
    desk.fake.failing.clear()
    assert desk.next_tags() == []


def test_read_that_hangs_is_abandoned_and_what_it_says_later_is_not_used(desk: Desk) -> None:
    desk.gate.shut.add("positions")
    assert desk.tags() is None
    desk.gate.wait_begun("positions")
    desk.seconds += 5.0
    assert desk.tags() is None
    desk.gate.wait_begun("positions", 2)
    desk.in_book("LATE")
    desk.gate.open()
    desk.gate.wait_done("positions", 2)
    desk.seconds += 1.6
    assert desk.next_tags() == ["LATE"]


def test_hung_readers_are_bounded(desk: Desk) -> None:
    desk.gate.shut.add("orders")
    for number in range(4):
        assert desk.tags() is None
        desk.gate.wait_begun("orders", number + 1)
        desk.seconds += 5.0
    for _ in range(5):
        assert desk.tags() is None
        desk.seconds += 5.0
    assert desk.gate.begun["orders"] == 4
    desk.gate.open()
    assert desk.next_tags() == []


def test_read_that_breaks_is_an_error_and_another_thread_reads_next(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    raised: list[str] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: raised.append(str(args.exc_value)))
    answers: list[object] = [ValueError("bug in the adapter")]

    def orders() -> list[object]:
        if answers:
            raise answers.pop()  # type: ignore[misc]
        return []

    monkeypatch.setattr(desk.gate, "orders", orders)
    said = ""
    while "broke off" not in said:
        with pytest.raises(BrokerError) as caught:
            desk.broker.orders()
        said = str(caught.value)
    assert desk.next_tags() == []
    wait_until(lambda: bool(raised))  # a thread leaves its error behind, and ends by it after that
    assert raised == ["bug in the adapter"]


def test_read_at_leisure_waits_and_every_call_reads_anew() -> None:
    desk = Desk(hurried=False, patient_seconds=LONG, patience_seconds=LONG)
    assert desk.tags() == []
    desk.in_book("A1")
    assert desk.tags() == ["A1"]
    assert desk.broker.funds().available_paise == 10**9
    assert desk.fake.reads == ["orders", "trades", "positions"] * 2 + ["funds"]
    desk.broker.close()


def test_patience_at_leisure_is_bounded_over_all_calls() -> None:
    desk = Desk(hurried=False, patient_seconds=0.02, patience_seconds=0.03)
    desk.gate.shut.add("orders")
    for _ in range(4):
        assert desk.tags() is None
    assert desk.broker._book._patience_left == 0.0
    desk.gate.open()
    desk.broker.close()
