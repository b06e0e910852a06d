"""Requests to a broker on threads of their own, so that nobody who trades waits for an answer.

- One request is in flight per lane (a symbol). The others of the lane wait in order, exits and cancels before entries.
- An exit or a cancel waits at most `aside_seconds` for another request of its lane, then it leaves beside it. Two exit
  orders of one lane are never in flight together: they could close more than is open.
- An entry that has waited for `entry_wait_seconds` never leaves: it is reported NOT_SENT, which is certain. So is an exit
  or a cancel after `exit_wait_seconds`; whoever wants it asks again. The age is judged when a request is taken up, and on
  its own thread just before the call: a process that was stopped meanwhile sends nothing that is old.
- The last thing before a call, on its thread, is `withholds`: what it names does not leave, and is reported NOT_SENT.
- While a read of the book is overdue (`holds_entries`) no entry leaves: a broker that is slower to read than orders are
  sent would never be read to the end. Exits and cancels are not held back.
- A request without an answer after `answer_seconds` is reported UNKNOWN and gives its lane free. Its late answer is
  reported all the same. One whose thread has not come to the call by then never makes it: NOT_SENT, which is certain.
  Its thread counts as hung until it ends; entries and cancels get only a share of the hung ones, and a cancel of one
  order is asked for again while at most one earlier request for it hangs.
- With a rate limit a request waits for its place in the second (`rate_limit`): exits and cancels first, and entries leave
  them some places. A thread wakes the queue when a place becomes free.
- A request leaves once. What was withdrawn, or waited too long, cannot leave any more: one lock decides.
- `generation` grows with every order that is added, leaves, is answered or is given up: a read that began before cannot
  say of it that it is absent. Cancels do not count: none makes an order or a position that a read could miss, and one that
  is asked for again each second would keep every slow read from being used.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from velox_core.brokers.rate_limit import Departure, RateLimit
from velox_core.ports import SendOutcome, SendReport, SendStatus

WAIT_STEP_SECONDS = 0.05  # so often one who waits for answers looks at what became overdue

_log = logging.getLogger("velox.orders")


class RequestKind(Enum):
    """What a request asks for."""

    ENTRY = "entry"
    EXIT = "exit"
    CANCEL = "cancel"


@dataclass(frozen=True, slots=True, kw_only=True)
class SendBounds:
    """The bounds of sending, in monotonic seconds and in requests.

    Attributes:
        answer_seconds: so long an answer is waited for.
        entry_wait_seconds, exit_wait_seconds: so long a request may wait to leave; cancels as exits.
        aside_seconds: so long an exit or cancel waits for another request of its lane.
        in_flight_max, entries_in_flight_max: requests in flight that are not overdue, and entries among them.
        waiting_max, entries_waiting_max: requests that wait to leave, and entries among them.
        hung_max: overdue requests at which nothing leaves any more.
        entries_hung_max, cancels_hung_max: the same for an entry and for a cancel.
    """

    answer_seconds: float = 5.0
    entry_wait_seconds: float = 1.0
    exit_wait_seconds: float = 10.0
    aside_seconds: float = 1.0
    in_flight_max: int = 32
    entries_in_flight_max: int = 4
    waiting_max: int = 256
    entries_waiting_max: int = 32
    hung_max: int = 96
    entries_hung_max: int = 16
    cancels_hung_max: int = 48


class Request:
    """One call to the broker. `name` is the client order id, or for a cancel the broker's order id."""

    __slots__ = ("added", "call", "departure", "fate", "kind", "lane", "name", "since")

    def __init__(self, kind: RequestKind, lane: str, name: str, call: Callable[[], SendOutcome]) -> None:
        self.kind = kind
        self.lane = lane
        self.name = name
        self.call = call
        self.added = 0.0  # monotonic
        self.since = 0.0  # monotonic: when it began to wait, then when it left
        self.departure: Departure | None = None  # its place in the rate, once it left
        self.fate = threading.Lock()  # whoever has it decided: its thread that the call is made, or the queue that it never is


Ask = Callable[[Request], SendOutcome]
Answer = Callable[[Request, SendOutcome], None]
Launch = Callable[[Request, Ask, Answer], None]


class Sends:
    """All requests of one account that have not been answered.

    Args:
        bounds: how long, and how many.
        monotonic: seconds that never go back.
        holds_entries: asked, with the lock held, whether entries must wait.
        withholds: asked on a sender thread, without the lock, why an entry (or else an exit or cancel) may not leave.
        launch: begins a request elsewhere, returns at once, and sees that it is asked and its answer given; None: on a thread.
        rate: how many may leave in a second; None for any number.
    """

    def __init__(
        self,
        bounds: SendBounds,
        monotonic: Callable[[], float] = time.monotonic,
        holds_entries: Callable[[], bool] = lambda: False,
        withholds: Callable[[bool], str] = lambda is_entry: "",
        launch: Launch | None = None,
        rate: RateLimit | None = None,
    ) -> None:
        self._rate = rate
        self._is_paced = False  # a thread waits for the next place in the rate
        self.generation = 0
        self._holds_entries = holds_entries
        self._withholds = withholds
        self._launch = launch or launch_thread
        self._bounds = bounds
        self._monotonic = monotonic
        self._changed = threading.Condition()
        self._waiting: list[Request] = []
        self._flying: list[Request] = []
        self._hung: list[Request] = []
        self._revoked: list[Request] = []  # started, never begun, and given up: their threads send nothing any more
        self._reports: list[SendReport] = []

    def add(self, request: Request) -> str:
        """Let a request leave as soon as it may. Returns '', or why it never will; a cancel under way is not repeated."""
        bounds = self._bounds
        with self._changed:
            if request.kind is RequestKind.CANCEL and self._is_asked_for(request.name):
                return ""
            if len(self._waiting) >= bounds.waiting_max:
                return f"{len(self._waiting)} requests wait for the broker already"
            if request.kind is RequestKind.ENTRY:
                if self._stuck_count() >= bounds.entries_hung_max:
                    return f"the broker owes {self._stuck_count()} answers"
                if sum(other.kind is RequestKind.ENTRY for other in self._waiting) >= bounds.entries_waiting_max:
                    return f"{bounds.entries_waiting_max} entries wait for the broker already"
            self._note_change(request)
            request.added = request.since = self._monotonic()
            self._waiting.append(request)
            self._start_what_may()
        return ""

    def withdraw(self, name: str) -> bool:
        """Keep an entry or exit order that still waits from ever leaving. Returns whether it waited; no other is touched."""
        with self._changed:
            waiting = [r for r in self._waiting if r.name == name and r.kind is not RequestKind.CANCEL]
            for request in waiting:
                self._give_up(request, "withdrawn before it was sent")
        return bool(waiting)

    def withdraw_all(self, kind: RequestKind) -> None:
        """Keep every request of a kind that still waits from ever leaving."""
        with self._changed:
            for request in [r for r in self._waiting if r.kind is kind]:
                self._give_up(request, "withdrawn before it was sent")

    @property
    def depth(self) -> int:
        """Return how many requests have not ended, read without the lock."""
        return len(self._waiting) + len(self._flying) + len(self._hung)

    def is_owed(self, name: str) -> bool:
        """Return whether an entry or exit order still waits, or has left and its request has not ended, hung ones included."""
        with self._changed:
            requests = self._waiting + self._flying + self._hung
            return any(r.name == name and r.kind is not RequestKind.CANCEL for r in requests)

    def take(self) -> Sequence[SendReport]:
        """Return what became of requests since the last call, after giving up what is overdue. Never waits for an answer."""
        if not (self._flying or self._waiting or self._reports):
            return ()
        with self._changed:
            self._judge_age(self._monotonic())
            self._start_what_may()
            reports, self._reports = self._reports, []
        return reports

    def wait_until_answered(self, seconds: float) -> bool:
        """Wait until nothing waits and nothing is in flight, hung requests included. Returns whether it came to that."""
        deadline = self._monotonic() + seconds
        with self._changed:
            while self._waiting or self._flying or self._hung:
                now = self._monotonic()
                if now >= deadline:
                    return False
                self._judge_age(now)
                self._start_what_may()
                self._changed.wait(min(deadline - now, WAIT_STEP_SECONDS))
        return True

    # -- with the lock held -----------------------------------------------------------------------------------

    def _stuck_count(self) -> int:
        """Return how many threads are overdue, whether their call began or not."""
        return len(self._hung) + len(self._revoked)

    def _note_change(self, request: Request) -> None:
        if request.kind is not RequestKind.CANCEL:
            self.generation += 1

    def _is_asked_for(self, name: str) -> bool:
        """Return whether a cancel is under way, or hangs twice already."""
        under_way, hung = (
            sum(request.kind is RequestKind.CANCEL and request.name == name for request in requests)
            for requests in (self._waiting + self._flying, self._hung)
        )
        return under_way > 0 or hung > 1

    def _judge_age(self, now: float) -> None:
        bounds = self._bounds
        for request in [r for r in self._flying if now - r.since >= bounds.answer_seconds]:
            is_revoked = request.fate.acquire(blocking=False)
            self._flying.remove(request)
            (self._revoked if is_revoked else self._hung).append(request)
            self._note_change(request)
            status = SendStatus.NOT_SENT if is_revoked else SendStatus.UNKNOWN
            reason = f"{'not begun' if is_revoked else 'no answer'} within {bounds.answer_seconds:g} s"
            _log.error("[SEND] %s %s %s: %s", request.kind.value, request.lane, request.name, reason)
            self._report(request, SendOutcome(status, "", reason))
        for request in [r for r in self._waiting if self._is_too_late(r, now)]:
            self._give_up(request, _too_late_text(request, now))

    def _is_too_late(self, request: Request, now: float) -> bool:
        is_entry = request.kind is RequestKind.ENTRY
        return now - request.added >= (self._bounds.entry_wait_seconds if is_entry else self._bounds.exit_wait_seconds)

    def _give_up(self, request: Request, reason: str) -> None:
        self._waiting.remove(request)
        self._note_change(request)
        self._report(request, SendOutcome(SendStatus.NOT_SENT, "", reason))

    def _report(self, request: Request, outcome: SendOutcome) -> None:
        if request.kind is not RequestKind.CANCEL:
            self._reports.append(SendReport(request.name, outcome))
        elif outcome.status is not SendStatus.ACKNOWLEDGED:  # the update says what became of the order
            _log.warning("[ORDER] cancel of %s: %s %s", request.name, outcome.status.value, outcome.reason)

    def _start_what_may(self) -> None:
        while (request := self._next(self._monotonic())) is not None:
            self._waiting.remove(request)
            request.since = self._monotonic()
            if self._rate is not None:
                request.departure = self._rate.leave(request.since)
            self._flying.append(request)
            self._note_change(request)
            try:
                self._launch(request, self._ask, self._finish)
            except RuntimeError as error:  # the system has no thread left
                self._flying.remove(request)
                self._report(request, SendOutcome(SendStatus.NOT_SENT, "", f"no thread to send it on: {error}"))
        if self._rate is not None and self._waiting:
            self._pace()

    def _pace(self) -> None:
        """Have somebody wait for the next place in the rate, if there is anything to wait for."""
        if self._is_paced:
            self._changed.notify_all()  # it looks again
        elif self._seconds_to_place() > 0:
            thread = threading.Thread(target=self._wake, name="send-pace", daemon=True)
            try:
                thread.start()
                self._is_paced = True
            except RuntimeError as error:  # the system has no thread left: the next look at the reports starts what may
                _log.error("[SEND] no thread to pace requests on: %s", error)

    def _seconds_to_place(self) -> float:
        """Return how long until some waiting request finds a place that it has not got now, 0.0 when none lacks one."""
        if self._rate is None or not self._waiting:
            return 0.0
        now = self._monotonic()
        for_exits = self._rate.wait_seconds(now, is_entry=False)
        return for_exits or self._rate.wait_seconds(now, is_entry=True)

    def _next(self, now: float) -> Request | None:
        """Return the request that leaves next, or None."""
        bounds, flying = self._bounds, self._flying
        if not self._waiting or len(flying) >= bounds.in_flight_max or self._stuck_count() >= bounds.hung_max:
            return None
        if self._rate is not None and self._rate.wait_seconds(now, is_entry=False) > 0:
            return None
        busy = {request.lane for request in flying}
        closing = {request.lane for request in flying if request.kind is RequestKind.EXIT}
        cancels_may = self._stuck_count() < bounds.cancels_hung_max
        for request in self._waiting:
            if request.kind is RequestKind.ENTRY or (request.kind is RequestKind.CANCEL and not cancels_may):
                continue
            if self._is_too_late(request, now):
                continue
            may_pass = now - request.since >= bounds.aside_seconds and not (
                request.kind is RequestKind.EXIT and request.lane in closing
            )
            if request.lane not in busy or may_pass:
                return request
        if self._rate is not None and self._rate.wait_seconds(now, is_entry=True) > 0:
            return None
        if self._holds_entries() or sum(r.kind is RequestKind.ENTRY for r in flying) >= bounds.entries_in_flight_max:
            return None
        for request in self._waiting:
            if request.kind is RequestKind.ENTRY and request.lane not in busy and not self._is_too_late(request, now):
                return request
        return None

    # -- on threads of their own ------------------------------------------------------------------------------

    def _wake(self) -> None:
        """Start what may leave whenever a place in the rate becomes free, until nothing waits for one."""
        with self._changed:
            while (seconds := self._seconds_to_place()) > 0:
                self._changed.wait(seconds)
                self._start_what_may()
            self._is_paced = False

    def _ask(self, request: Request) -> SendOutcome:
        """Make the call, unless it may not be made any more."""
        now = self._monotonic()
        if self._is_too_late(request, now) or not request.fate.acquire(blocking=False):
            return SendOutcome(SendStatus.NOT_SENT, "", _too_late_text(request, now))
        if withheld := self._withholds(request.kind is RequestKind.ENTRY):
            return SendOutcome(SendStatus.NOT_SENT, "", withheld)
        return request.call()

    def _finish(self, request: Request, outcome: SendOutcome) -> None:
        with self._changed:
            if request in self._revoked:
                self._revoked.remove(request)  # reported long ago, and nothing left
                self._start_what_may()
                return
            if request in self._flying:
                self._flying.remove(request)
            else:
                self._hung.remove(request)
                _log.warning("[SEND] %s %s: answered late: %s", request.lane, request.name, outcome.status.value)
            if self._rate is not None and request.departure is not None:
                self._rate.answered(request.departure, self._monotonic())
            self._note_change(request)
            self._report(request, outcome)
            self._start_what_may()
            self._changed.notify_all()


def launch_thread(request: Request, ask: Ask, answer: Answer) -> None:
    """Perform one request on a thread of its own. Raises RuntimeError when the system has none left."""

    def perform() -> None:
        outcome = SendOutcome(SendStatus.UNKNOWN, "", "the send broke off")
        try:
            outcome = ask(request)
        finally:
            answer(request, outcome)

    threading.Thread(target=perform, name=f"send-{request.lane}", daemon=True).start()


def _too_late_text(request: Request, now: float) -> str:
    return f"not sent: it could not leave within {now - request.added:.1f} s"
