from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from random import Random

import pytest

from tests.fakes.broker import FakeBroker
from tests.fakes.gated_broker import GatedBroker
from tests.fakes.outside import FakeClock
from velox_core.brokers import off_loop as off_loop_module
from velox_core.brokers import sends
from velox_core.brokers.off_loop import OffLoopBroker
from velox_core.brokers.sends import Answer, Ask, Request, RequestKind, SendBounds, launch_thread
from velox_core.domain.orders import ExitRank, OrderType, Product, Side
from velox_core.ports import SendOutcome, SendReport, SendStatus
from velox_core.risk.approval import ApprovedOrder, approve

BOUNDS = SendBounds(
    in_flight_max=6,
    entries_in_flight_max=2,
    waiting_max=8,
    entries_waiting_max=3,
    entries_hung_max=2,
    cancels_hung_max=3,
    hung_max=4,
)
ENTRY_WAIT, ASIDE, EXIT_WAIT, ANSWER = 1.0, 1.0, 10.0, 5.0


def order(tag: str, symbol: str = "AAA", *, is_exit: bool = False) -> ApprovedOrder:
    return approve(
        client_order_id=tag,
        symbol=symbol,
        side=Side.SELL if is_exit else Side.BUY,
        quantity=1,
        order_type=OrderType.MARKET,
        limit_price_paise=0,
        product=Product.MIS,
        rank=ExitRank.STOP if is_exit else None,
        protection_bps=100,
    )


def wait_until(done: Callable[[], bool], why: str = "it never came to that") -> None:
    """Wait until something is so that another thread does."""
    deadline = time.monotonic() + 120
    while not done():
        assert time.monotonic() < deadline, why
        time.sleep(0.001)


class Desk:
    """A broker off the loop, a hand on its gate, and a clock that only the test moves."""

    def __init__(self, bounds: SendBounds = BOUNDS) -> None:
        self.clock = FakeClock()
        self.fake = FakeBroker()
        self.gate = GatedBroker(self.fake)
        self.broker = OffLoopBroker(self.gate, send_bounds=bounds, monotonic=self.clock.monotonic)
        self.heard: list[SendReport] = []

    def place(self, tag: str, symbol: str = "AAA", *, is_exit: bool = False) -> SendStatus:
        return self.broker.place(order(tag, symbol, is_exit=is_exit), 0).status

    def cancel_and_hang(self, broker_order_id: str, count: int) -> None:
        """Ask for a cancel and let its time-out pass; it is the `count`-th that came in."""
        self.broker.cancel(broker_order_id, 0)
        self.gate.wait_begun("cancel", count)
        self.pass_seconds(ANSWER)

    def pass_seconds(self, seconds: float) -> dict[str, str]:
        self.clock.seconds += seconds
        return self.news()

    def news(self) -> dict[str, str]:
        """Return the reports of this drain by order."""
        reports = [event for event in self.broker.drain_events() if isinstance(event, SendReport)]
        self.heard += reports
        return {report.client_order_id: report.outcome.status.value for report in reports}

    def wait_for(self, tag: str, status: str) -> None:
        """Drain until an order has a report of this status."""

        def is_told() -> bool:
            self.news()
            return (tag, status) in [(r.client_order_id, r.outcome.status.value) for r in self.heard]

        wait_until(is_told, f"{tag} never was {status}")

    @property
    def sent(self) -> list[str]:
        return list(self.gate.order_of_sends)


@pytest.fixture
def desk() -> Iterator[Desk]:
    made = Desk()
    yield made
    made.gate.open()
    assert made.broker.close()


def test_place_returns_before_the_broker_answers_and_the_answer_is_reported_once(desk: Desk) -> None:
    desk.gate.shut.add("place")
    assert desk.place("A1") is SendStatus.PENDING
    desk.gate.wait_begun("place")
    assert desk.news() == {}
    desk.gate.open()
    desk.wait_for("A1", "ACKNOWLEDGED")
    assert (desk.heard[0].outcome.broker_order_id, desk.news()) == ("B1", {})
    assert threading.get_ident() not in desk.gate.threads


def test_rejection_is_reported_with_its_reason(desk: Desk) -> None:
    desk.fake.answers.append(SendStatus.REJECTED)
    desk.place("A1")
    desk.wait_for("A1", "REJECTED")
    assert desk.heard[0].outcome.reason == "refused (fake)"


def test_requests_of_one_symbol_leave_one_by_one_in_order_and_those_of_others_side_by_side(desk: Desk) -> None:
    desk.gate.shut.add("place AAA")
    for tag in ("A1", "A2", "A3"):
        desk.place(tag)
    desk.gate.wait_begun("place")  # which of two threads comes first is the machine's choice
    desk.place("B1", "BBB")
    desk.wait_for("B1", "ACKNOWLEDGED")
    assert desk.sent == ["A1", "B1"]
    desk.gate.open()
    for tag in ("A1", "A2", "A3"):
        desk.wait_for(tag, "ACKNOWLEDGED")
    assert desk.sent == ["A1", "B1", "A2", "A3"]
    assert desk.gate.most_at_once["AAA"] == 1


def test_exit_leaves_before_an_entry_of_its_symbol_that_was_queued_first(desk: Desk) -> None:
    desk.gate.shut.add("place")
    desk.place("A1")
    desk.place("A2")
    desk.place("X1", is_exit=True)
    desk.gate.wait_begun("place")
    desk.gate.open()
    desk.wait_for("A2", "ACKNOWLEDGED")
    assert desk.sent == ["A1", "X1", "A2"]


def test_entry_that_waited_too_long_is_reported_never_sent_and_never_leaves(desk: Desk) -> None:
    desk.gate.shut.add("place")
    desk.place("A1")
    desk.gate.wait_begun("place")
    desk.place("A2")
    assert desk.pass_seconds(ENTRY_WAIT - 0.001) == {}
    assert desk.pass_seconds(0.001) == {"A2": "NOT_SENT"}
    desk.gate.open()
    desk.wait_for("A1", "ACKNOWLEDGED")
    assert desk.broker.close()
    assert desk.sent == ["A1"]


def test_entry_that_is_too_old_when_its_turn_comes_does_not_leave_before_anybody_drained(desk: Desk) -> None:
    desk.gate.shut.add("place")
    desk.place("A1")
    desk.gate.wait_begun("place")
    desk.place("A2")
    desk.clock.seconds += ENTRY_WAIT
    desk.gate.open()
    desk.gate.wait_done("place")
    desk.wait_for("A2", "NOT_SENT")
    assert desk.sent == ["A1"]


@pytest.mark.parametrize("kind", ["exit", "cancel"])
def test_exit_or_cancel_that_is_too_old_when_its_turn_comes_does_not_leave(desk: Desk, kind: str) -> None:
    desk.place("A1")
    desk.wait_for("A1", "ACKNOWLEDGED")
    desk.gate.shut.add("place")
    before = set(threading.enumerate())  # the one of A1, or of another test, may be ending still
    desk.place("X1", is_exit=True)
    desk.gate.wait_begun("place", 2)
    sender = next(thread for thread in set(threading.enumerate()) - before if thread.name == "send-AAA")
    if kind == "exit":
        desk.place("X2", is_exit=True)
    else:
        desk.broker.cancel("B1", 0)
    desk.clock.seconds += 60.0  # the process was stopped: nobody drains
    desk.gate.open()
    sender.join(60)
    desk.wait_for("X1", "ACKNOWLEDGED")
    if kind == "exit":
        desk.wait_for("X2", "NOT_SENT")
    assert desk.broker.close()
    assert desk.sent == ["A1", "X1"]


def test_request_whose_thread_begins_too_late_never_calls_the_broker(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start

    def start_late(thread: threading.Thread) -> None:
        desk.clock.seconds += EXIT_WAIT
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_late)
    desk.place("X1", is_exit=True)
    desk.place("A1", "BBB")
    monkeypatch.undo()
    desk.wait_for("X1", "NOT_SENT")
    desk.wait_for("A1", "NOT_SENT")
    assert (desk.sent, desk.fake.placed) == ([], [])


def test_request_whose_thread_never_came_to_the_call_is_never_sent_and_the_next_exit_leaves(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[threading.Thread] = []
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", lambda thread: held.append(thread))
        desk.place("X1", is_exit=True)
    assert desk.pass_seconds(ANSWER - 0.001) == {}
    assert desk.pass_seconds(0.001) == {"X1": "NOT_SENT"}  # certain: it cannot reach the broker any more
    assert not desk.broker.is_owed("X1")
    desk.place("X2", is_exit=True)
    desk.wait_for("X2", "ACKNOWLEDGED")
    held[0].start()
    held[0].join()
    assert desk.news() == {}
    assert desk.sent == ["X2"]


def test_exit_waits_for_an_entry_in_flight_of_its_symbol_within_a_bound_only(desk: Desk) -> None:
    desk.gate.shut.add("place")
    desk.place("A1")
    desk.gate.wait_begun("place")
    desk.place("X1", is_exit=True)
    desk.pass_seconds(ASIDE - 0.001)
    assert desk.sent == ["A1"]
    desk.pass_seconds(0.001)
    desk.gate.wait_begun("place", 2)
    assert desk.sent == ["A1", "X1"]


def test_two_exits_of_one_symbol_are_never_in_flight_together(desk: Desk) -> None:
    desk.gate.shut.add("place")
    desk.place("X1", is_exit=True)
    desk.gate.wait_begun("place")
    desk.place("X2", is_exit=True)
    desk.pass_seconds(ANSWER - 0.001)
    assert desk.sent == ["X1"]
    assert desk.pass_seconds(0.001) == {"X1": "UNKNOWN"}
    desk.gate.wait_begun("place", 2)
    assert desk.sent == ["X1", "X2"]


def test_request_without_an_answer_is_unknown_at_its_time_out_and_its_late_answer_is_reported(desk: Desk) -> None:
    desk.gate.shut.add("place")
    desk.place("A1")
    desk.gate.wait_begun("place")
    assert desk.pass_seconds(ANSWER - 0.001) == {}
    assert desk.pass_seconds(0.001) == {"A1": "UNKNOWN"}
    assert desk.pass_seconds(60) == {}
    desk.gate.open()
    desk.wait_for("A1", "ACKNOWLEDGED")
    assert desk.sent == ["A1"]


def test_exit_finds_a_thread_when_entries_hang(desk: Desk) -> None:
    desk.gate.shut.add("place")
    for symbol in ("AAA", "BBB", "CCC"):
        desk.place(f"E-{symbol}", symbol)
    desk.gate.wait_begun("place", 2)
    desk.place("X1", "DDD", is_exit=True)
    desk.gate.wait_begun("place", 3)
    assert "X1" in desk.sent
    assert "E-CCC" not in desk.sent


def test_entries_are_refused_unsent_while_too_many_requests_hang_and_exits_are_not(desk: Desk) -> None:
    desk.gate.shut.add("place")
    desk.place("A1", "AAA")
    desk.place("A2", "BBB")
    desk.gate.wait_begun("place", 2)
    desk.pass_seconds(ANSWER)
    outcome = desk.broker.place(order("A3", "CCC"), 0)
    assert (outcome.status, outcome.reason) == (SendStatus.NOT_SENT, "not sent: the broker owes 2 answers")
    assert desk.place("X1", "CCC", is_exit=True) is SendStatus.PENDING
    desk.gate.wait_begun("place", 3)
    assert desk.sent[-1] == "X1"


def test_exit_that_finds_no_thread_within_its_bound_is_reported_never_sent(desk: Desk) -> None:
    desk.gate.shut.add("place")
    for number in range(4):
        desk.place(f"X{number}", f"S{number}", is_exit=True)
    desk.gate.wait_begun("place", 4)
    desk.pass_seconds(ANSWER)
    assert desk.place("Y", "YYY", is_exit=True) is SendStatus.PENDING
    assert desk.pass_seconds(EXIT_WAIT - 0.001) == {}
    assert desk.pass_seconds(0.001) == {"Y": "NOT_SENT"}
    desk.gate.open()
    desk.wait_for("X3", "ACKNOWLEDGED")
    assert "Y" not in desk.sent


def test_queue_is_bounded_for_entries_first(desk: Desk) -> None:
    desk.gate.shut.add("place")
    assert [desk.place(f"A{n}") for n in range(5)] == [SendStatus.PENDING] * 4 + [SendStatus.NOT_SENT]
    assert [desk.place(f"X{n}", is_exit=True) for n in range(6)] == [SendStatus.PENDING] * 5 + [SendStatus.NOT_SENT]


def test_withdrawn_order_never_leaves_and_one_in_flight_is_not_touched(desk: Desk) -> None:
    desk.gate.shut.add("place")
    desk.place("A1")
    desk.place("A2")
    desk.gate.wait_begun("place")
    desk.broker.withdraw("A1")
    desk.broker.withdraw("A2")
    desk.broker.withdraw("A9")
    assert desk.news() == {"A2": "NOT_SENT"}
    desk.gate.open()
    desk.wait_for("A1", "ACKNOWLEDGED")
    assert desk.sent == ["A1"]


def test_order_is_owed_until_its_request_ends_overdue_or_not(desk: Desk) -> None:
    desk.gate.shut.add("place")
    assert not desk.broker.is_owed("X1")
    desk.place("X1", is_exit=True)
    desk.gate.wait_begun("place")
    assert desk.broker.is_owed("X1")
    assert desk.pass_seconds(ANSWER) == {"X1": "UNKNOWN"}
    assert desk.broker.is_owed("X1")
    desk.gate.open()
    desk.wait_for("X1", "ACKNOWLEDGED")
    assert not desk.broker.is_owed("X1")


def test_cancel_waits_behind_its_symbol_and_is_not_repeated_while_it_is_under_way(desk: Desk) -> None:
    desk.place("A1")
    desk.wait_for("A1", "ACKNOWLEDGED")
    desk.gate.shut.update({"place", "cancel"})
    desk.place("X1", is_exit=True)
    desk.gate.wait_begun("place", 2)
    assert desk.broker.cancel("B1", 0).status is SendStatus.PENDING
    assert desk.broker.cancel("B1", 0).status is SendStatus.PENDING
    assert desk.sent == ["A1", "X1"]
    desk.gate.open("place")
    desk.gate.wait_begun("cancel")
    assert desk.broker.cancel("B1", 0).status is SendStatus.PENDING
    desk.gate.open()
    desk.wait_for("X1", "ACKNOWLEDGED")
    assert desk.broker.close()
    assert desk.fake.cancels == ["B1"]


def test_stuck_cancel_delays_an_exit_of_its_symbol_within_a_bound_and_no_other(desk: Desk) -> None:
    desk.place("A1")
    desk.wait_for("A1", "ACKNOWLEDGED")
    desk.gate.shut.add("cancel")
    desk.broker.cancel("B1", 0)
    desk.gate.wait_begun("cancel")
    desk.place("X1", is_exit=True)
    desk.place("X2", "BBB", is_exit=True)
    desk.wait_for("X2", "ACKNOWLEDGED")
    assert "X1" not in desk.sent
    desk.pass_seconds(ASIDE)
    desk.wait_for("X1", "ACKNOWLEDGED")


def test_send_that_breaks_is_unknown_and_its_symbol_goes_on(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    raised: list[str] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: raised.append(str(args.exc_value)))
    desk.fake.answers.append(RuntimeError("bug in the adapter"))
    desk.place("A1")
    desk.wait_for("A1", "UNKNOWN")
    desk.place("X1", is_exit=True)
    desk.wait_for("X1", "ACKNOWLEDGED")
    wait_until(lambda: bool(raised))  # a thread reports, and ends by its error after that
    assert raised == ["bug in the adapter"]


def test_close_waits_for_what_is_owed_and_says_when_it_did_not_come() -> None:
    desk = Desk()
    desk.gate.shut.add("place")
    desk.place("A1")
    desk.gate.wait_begun("place")
    desk.clock.tick_seconds = 1.0
    assert not desk.broker.close()
    desk.clock.tick_seconds = 0.0
    desk.gate.open()
    assert desk.broker.close()
    assert desk.news() == {"A1": "ACKNOWLEDGED"}


def test_cancel_that_hangs_is_asked_for_once_more_only(desk: Desk) -> None:
    desk.place("A1")
    desk.wait_for("A1", "ACKNOWLEDGED")
    desk.gate.shut.add("cancel")
    desk.cancel_and_hang("B1", 1)
    desk.cancel_and_hang("B1", 2)
    assert desk.broker.cancel("B1", 0).status is SendStatus.PENDING
    desk.pass_seconds(ANSWER)
    assert desk.gate.begun["cancel"] == 2
    desk.gate.open()
    assert desk.broker.close()
    desk.broker.cancel("B1", 0)
    assert desk.broker.close()
    assert desk.gate.begun["cancel"] == 3


def test_hung_cancels_leave_room_for_an_exit(desk: Desk) -> None:
    for number in range(4):
        desk.place(f"A{number}", f"S{number}")
        desk.wait_for(f"A{number}", "ACKNOWLEDGED")
    desk.gate.shut.add("cancel")
    for number in range(3):
        desk.cancel_and_hang(f"B{number + 1}", number + 1)
    desk.broker.cancel("B4", 0)
    desk.place("X1", "S0", is_exit=True)
    desk.wait_for("X1", "ACKNOWLEDGED")
    assert desk.gate.begun["cancel"] == 3


def test_request_that_gets_no_thread_is_reported_never_sent(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert desk.place("X1", is_exit=True) is SendStatus.PENDING
    assert desk.news() == {"X1": "NOT_SENT"}
    assert desk.heard[0].outcome.reason == "no thread to send it on: can't start new thread"
    monkeypatch.undo()
    desk.place("X2", is_exit=True)
    desk.wait_for("X2", "ACKNOWLEDGED")
    assert desk.sent == ["X2"]


class HastyBroker(FakeBroker):
    """Answers after a random moment, and watches which requests are let go together and who is in here together.

    An entry is judged when it is let go: an exit that may pass it a moment later can be the first of the two threads in here.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._random = Random(seed)
        self._guard = threading.Lock()
        self.flying: list[Request] = []
        self.exits_inside: list[str] = []
        self.sent: list[str] = []
        self.broken: list[str] = []

    def launch(self, request: Request, ask: Ask, answer: Answer) -> None:
        with self._guard:
            if request.kind is RequestKind.ENTRY and any(other.lane == request.lane for other in self.flying):
                self.broken.append(f"an entry of {request.lane} beside another request")
            self.flying.append(request)

        def answered(request: Request, outcome: SendOutcome) -> None:
            with self._guard:
                self.flying.remove(request)
            answer(request, outcome)

        launch_thread(request, ask, answered)

    def place(self, order: ApprovedOrder, now_ms: int) -> SendOutcome:
        is_exit = order.rank is not None
        with self._guard:
            self.sent.append(order.client_order_id)
            if is_exit and order.symbol in self.exits_inside:
                self.broken.append(f"two exits of {order.symbol} together")
            if is_exit:
                self.exits_inside.append(order.symbol)
            pause = self._random.random() * 0.004
        time.sleep(pause)
        with self._guard:
            if is_exit:
                self.exits_inside.remove(order.symbol)
            return super().place(order, now_ms)


@pytest.mark.parametrize("answer_seconds", [300.0, 0.003], ids=["answered in time", "answered late"])
@pytest.mark.parametrize("seed", range(3))
def test_many_requests_at_once_each_leave_at_most_once_and_each_is_reported(
    seed: int, answer_seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    print(f"seed {seed}")
    random, broker = Random(seed), HastyBroker(seed)
    monkeypatch.setattr(sends, "launch_thread", broker.launch)
    monkeypatch.setattr(off_loop_module, "CLOSE_SECONDS_MAX", 120.0)
    bounds = SendBounds(answer_seconds=answer_seconds, entry_wait_seconds=0.01, exit_wait_seconds=0.05, aside_seconds=0.002)
    off_loop = OffLoopBroker(broker, send_bounds=bounds)
    accepted, refused, reports = set(), set(), []
    for number in range(200):
        tag = f"T{number}"
        made = order(tag, random.choice("ABCDE"), is_exit=random.random() < 0.5)
        (accepted if off_loop.place(made, 0).status is SendStatus.PENDING else refused).add(tag)
        if random.random() < 0.1:
            off_loop.withdraw(f"T{random.randrange(number + 1)}")
        if random.random() < 0.3:
            reports += [event for event in off_loop.drain_events() if isinstance(event, SendReport)]
            time.sleep(0.001)
    assert off_loop.close()
    reports += [event for event in off_loop.drain_events() if isinstance(event, SendReport)]
    last = {report.client_order_id: report.outcome.status for report in reports}
    not_sent = {tag for tag, status in last.items() if status is SendStatus.NOT_SENT}
    assert broker.broken == [] or answer_seconds < 1  # an overdue request gives its symbol free
    assert len(set(broker.sent)) == len(broker.sent)
    assert set(last) == accepted
    assert set(broker.sent) == accepted - not_sent
    assert all(last[tag] is SendStatus.ACKNOWLEDGED for tag in broker.sent)
