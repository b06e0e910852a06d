"""The rate of requests: never more than the limit in any second at the broker, exits first, and no exit stuck behind a hang."""

from __future__ import annotations

import time

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fakes.threads import join_named
from velox_core.brokers.rate_limit import ARRIVAL_SECONDS_MAX, WINDOW_SECONDS, RateLimit
from velox_core.brokers.sends import Answer, Ask, Request, RequestKind, SendBounds, Sends, launch_thread
from velox_core.ports import SendOutcome, SendStatus


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    per_second=st.integers(1, 10),
    requests=st.lists(
        st.tuples(st.floats(0, 0.5), st.floats(0, ARRIVAL_SECONDS_MAX), st.floats(0, 3), st.booleans()), max_size=60
    ),
)
def test_no_second_at_the_broker_sees_more_than_the_limit(
    per_second: int, requests: list[tuple[float, float, float, bool]]
) -> None:
    """Each request arrives some time after it left, and is answered some time after it arrived."""
    rate, now, arrivals, flying = RateLimit(per_second), 0.0, [], []
    for pause, travel, answer, is_entry in requests:
        now += pause
        while (wait := rate.wait_seconds(now, is_entry=is_entry)) > 0:
            now += wait
        for due, departure in [pair for pair in flying if pair[0] <= now]:
            rate.answered(departure, due)
        flying = [pair for pair in flying if pair[0] > now]
        arrivals.append(now + travel)
        flying.append((now + travel + answer, rate.leave(now)))
    arrivals.sort()
    for first in arrivals:
        assert sum(first <= other < first + WINDOW_SECONDS - 1e-9 for other in arrivals) <= per_second


def test_entries_leave_places_that_exits_may_take() -> None:
    rate = RateLimit(8)
    for _ in range(rate.entries_per_second):
        assert rate.wait_seconds(0.0, is_entry=True) == 0.0
        rate.leave(0.0)
    assert rate.entries_per_second == 6
    assert rate.wait_seconds(0.0, is_entry=True) > 0
    assert rate.wait_seconds(0.0, is_entry=False) == 0.0


def test_requests_that_hang_free_their_places_after_a_bound() -> None:
    rate = RateLimit(2)
    rate.leave(0.0), rate.leave(0.0)
    bound = ARRIVAL_SECONDS_MAX + WINDOW_SECONDS
    assert rate.wait_seconds(0.0, is_entry=False) == bound
    assert rate.wait_seconds(bound, is_entry=False) == 0.0


def test_limit_of_one_lets_entries_leave_too() -> None:
    assert RateLimit(1).entries_per_second == 1


class Departures:
    """Notes what leaves when, on the thread that lets it leave: when a thread of its own gets to run is not ours to say."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.at: list[float] = []
        self.called: set[str] = set()

    def launch(self, request: Request, ask: Ask, answer: Answer) -> None:
        self.names.append(request.name)
        self.at.append(request.since)
        launch_thread(request, ask, answer)

    def request(self, kind: RequestKind, name: str) -> Request:
        def call() -> SendOutcome:
            self.called.add(name)
            return SendOutcome(SendStatus.ACKNOWLEDGED, f"B-{name}")

        return Request(kind, name, name, call)


def test_sends_keep_the_rate_wake_by_themselves_and_let_exits_pass_entries() -> None:
    broker, rate, began = Departures(), RateLimit(4), time.monotonic()
    goes_on: list[float] = []  # from when on time passes: not while the requests come in, however long that takes
    bounds = SendBounds(entry_wait_seconds=300.0, exit_wait_seconds=300.0, answer_seconds=300.0)
    sends = Sends(
        bounds,
        rate=rate,
        launch=broker.launch,
        monotonic=lambda: began + (time.monotonic() - goes_on[0] if goes_on else 0.0),
    )
    for number in range(6):
        assert sends.add(broker.request(RequestKind.ENTRY, f"entry{number}")) == ""
    for number in range(4):
        sends.add(broker.request(RequestKind.EXIT if number % 2 else RequestKind.CANCEL, f"exit{number}"))
    goes_on.append(time.monotonic())
    while len(broker.names) < 10:  # nobody looks at the reports meanwhile: the queue wakes by itself
        time.sleep(0.01)
    assert sends.wait_until_answered(120.0)
    assert broker.called == set(broker.names)
    assert broker.names[:4] == ["entry0", "entry1", "entry2", "exit0"]
    assert max(broker.names.index(f"exit{n}") for n in range(4)) < min(broker.names.index(f"entry{n}") for n in (3, 4, 5))
    for first in broker.at:
        assert sum(first <= other < first + 0.999 for other in broker.at) <= 4


def test_entry_that_waits_for_its_place_can_be_withdrawn() -> None:
    broker = Departures()
    sends = Sends(SendBounds(entry_wait_seconds=30.0), monotonic=lambda: 0.0, rate=RateLimit(1), launch=broker.launch)
    sends.add(broker.request(RequestKind.ENTRY, "first"))
    sends.add(broker.request(RequestKind.ENTRY, "second"))
    assert sends.withdraw("second")
    assert sends.wait_until_answered(120.0)
    assert broker.names == ["first"]
    join_named("send-pace")
