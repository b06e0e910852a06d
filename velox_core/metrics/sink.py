"""The sink: takes events and statuses from the trading loop, sends points from a thread of its own, bounded in every way.

- The loop puts a reference into a bounded list and goes on: no lock, no encoding, no wait. Where a list is full the oldest
  is dropped and counted; a backfill brings back what comes from the journal.
- The thread makes the points, encodes them, and posts at most `BATCH_LINES` at a time. A failed request is tried again after
  a growing pause, or when the server says; a refused token or a missing bucket pauses for minutes and is told once.
- `close` lets what waits leave within a bound, and never longer: the thread is a daemon and is left behind if it hangs.
- State changes are logged, not each failure. The token is in no text (`server` cuts it out).
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Final, Protocol

from velox_core.metrics.delivery import Answer, AnswerKind, deliver
from velox_core.metrics.facts import FactPoints
from velox_core.metrics.gauges import GaugePoints, alert_queue
from velox_core.metrics.points import Point, encode
from velox_core.ports import Alerts, JournalFact, Severity

ROUND_SECONDS: Final = 1.0  # between two looks at what came in
BATCH_LINES: Final = 1_000
FACTS_WAITING_MAX: Final = 20_000
STATUSES_WAITING_MAX: Final = 120
LINES_WAITING_MAX: Final = 50_000  # some 10 MB; a calm day has about 10,000
PAUSES_SECONDS: Final = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0)  # after the first, second, … failure in a row
REFUSED_PAUSE_SECONDS: Final = 300.0  # a token or a bucket is not put right within seconds
OUTAGE_TOLD_SECONDS: Final = 300.0  # so long a server may be away before a person is told
FLUSH_SECONDS_MAX: Final = 2.0
BACKFILL_ADVICE: Final = "velox metrics backfill --date DATE writes what is in the journal again"

_log: Final = logging.getLogger("velox.system")


class Server(Protocol):
    """Where points go; `server.MetricsServer` over HTTP."""

    def post(self, lines: Sequence[str]) -> Answer:
        """Write lines. Never raises, and is bounded."""
        ...

    def close(self) -> None:
        """Give back what it holds."""
        ...


class MetricsSink:
    """`ports.Metrics` to a server.

    Args:
        server: where points go; used by the sink's thread alone.
        facts: makes points of events; it may have seen the run's earlier ones.
        common_tags: of every point (see `schema.COMMON_TAGS`).
        alerts: told once when the server refuses us, or is away for long.
        sends: how many orders and cancels are on their way; None where there is no such queue.
        monotonic, wall_ms: clocks.
    """

    def __init__(
        self,
        server: Server,
        facts: FactPoints,
        common_tags: Mapping[str, str],
        alerts: Alerts,
        *,
        sends: Callable[[], int] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self.sends = sends
        self._server = server
        self._facts = facts
        self._gauges = GaugePoints()
        self._tags = dict(common_tags)
        self._alerts = alerts
        self._monotonic = monotonic
        self._wall_ms = wall_ms
        self._facts_waiting: deque[JournalFact] = deque(maxlen=FACTS_WAITING_MAX)
        self._statuses: deque[tuple[int, Mapping[str, object], int]] = deque(maxlen=STATUSES_WAITING_MAX)
        self._lines: deque[str] = deque(maxlen=LINES_WAITING_MAX)
        self._batch_lines = BATCH_LINES
        self._next_try = 0.0  # monotonic
        self._failures_in_row = 0
        self._failing_since = 0.0  # monotonic
        self._is_told = False
        self._is_malformed_told = False
        self._written = self._malformed = self._failed = 0
        self._dropped_in = self._dropped_out = 0  # by the loop, by the thread: each has one writer
        self._last_failure = ""
        self._last_failure_wall_ms = self._last_written_wall_ms = 0
        self._closing = threading.Event()
        self._deadline = 0.0
        self._thread: threading.Thread | None = None

    # -- on the trading loop ----------------------------------------------------------------------------------

    def committed(self, facts: Sequence[JournalFact]) -> None:
        """Take what the journal just made durable."""
        waiting = self._facts_waiting
        overflow = len(waiting) + len(facts) - FACTS_WAITING_MAX
        if overflow > 0:
            self._dropped_in += overflow
        waiting.extend(facts)

    def status(self, status: Mapping[str, object]) -> None:
        """Take the status that was just published."""
        if len(self._statuses) >= STATUSES_WAITING_MAX:
            self._dropped_in += 1
        self._statuses.append((self._wall_ms(), status, 0 if self.sends is None else self.sends()))

    def counters(self) -> dict[str, object]:
        """Return what became of the points so far, as JSON values. `failed` counts requests, the others points."""
        return {
            "state": "failing" if self._failures_in_row else "writing",
            "written": self._written,
            "waiting": len(self._lines) + len(self._facts_waiting) + len(self._statuses),
            "dropped": self._dropped_in + self._dropped_out,
            "malformed": self._malformed,
            "failed": self._failed,
            "last_failure": self._last_failure,
            "last_failure_wall_ms": self._last_failure_wall_ms,
            "last_written_wall_ms": self._last_written_wall_ms,
        }

    # -- life -------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._serve, name="metrics", daemon=True)
        self._thread.start()

    def close(self, seconds: float = FLUSH_SECONDS_MAX) -> bool:
        """Let what waits leave, within a bound, then end. Returns whether nothing was left over."""
        self._deadline = self._monotonic() + seconds
        self._closing.set()
        if self._thread is not None:
            self._thread.join(timeout=seconds)
        left, dropped = len(self._lines) + len(self._facts_waiting), self._dropped_in + self._dropped_out
        if left or dropped:
            _log.warning(
                "[METRICS] %s points were not written, %s dropped before: %s. %s",
                left, dropped, self._last_failure or "the server did not answer in time", BACKFILL_ADVICE,
            )  # fmt: skip
        return not left

    # -- on the sink's thread ---------------------------------------------------------------------------------

    def _serve(self) -> None:
        while not self._closing.wait(ROUND_SECONDS):
            self._guarded_pump()
        self._next_try = 0.0  # one more attempt, whatever pause was on
        self._guarded_pump()
        self._server.close()

    def _guarded_pump(self) -> None:
        try:
            self.pump()
        except Exception as error:  # the thread's outermost loop: metrics must go on, and nothing else knows of it
            self._failed += 1
            _log.exception("[METRICS] a round failed: %s", error)

    def pump(self) -> None:
        """Do one round: make lines of what came in, and send what may leave now."""
        self._collect()
        while self._lines and self._monotonic() >= self._next_try:
            if self._closing.is_set() and self._monotonic() >= self._deadline:
                return
            self._send()

    def _collect(self) -> None:
        while self._facts_waiting:
            fact = self._facts_waiting.popleft()
            try:
                points = self._facts.take(fact)
            except (KeyError, TypeError, ValueError) as error:
                self._count_malformed(1, f"{fact.kind} event: {error!r}")
                continue
            self._keep(points)
        while self._statuses:
            wall_ms, status, sends = self._statuses.popleft()
            queues = {
                "alerts": alert_queue(status),
                "metrics": {
                    "waiting": len(self._lines),
                    "dropped": self._dropped_in + self._dropped_out,
                    "failed": self._failed,
                },
                "sends": {} if self.sends is None else {"waiting": sends},
            }
            self._keep(self._gauges.take(status, wall_ms, queues))

    def _keep(self, points: Sequence[Point]) -> None:
        for point in points:
            line = encode(point, self._tags)
            if line is None:
                self._count_malformed(1, f"{point.measurement} has no valid line")
                continue
            if len(self._lines) >= LINES_WAITING_MAX:
                self._dropped_out += 1
            self._lines.append(line)

    def _send(self) -> None:
        batch = list(islice(self._lines, self._batch_lines))
        delivery = deliver(self._server.post, batch)
        for _ in range(len(batch) - len(delivery.left)):
            self._lines.popleft()
        if delivery.left:  # in order, but perhaps others than those at the front
            for number, line in enumerate(delivery.left):
                self._lines[number] = line
        self._written += delivery.written
        if delivery.written:
            self._last_written_wall_ms = self._wall_ms()
        if delivery.shrink:
            self._batch_lines = max(self._batch_lines // 2, 1)
        if delivery.malformed:
            text = "" if delivery.answer is None else delivery.answer.text
            self._count_malformed(delivery.malformed, f"the server refuses: {text}")
        if delivery.left and delivery.answer is not None:
            self._note_failure(delivery.answer)
        elif not delivery.left:
            self._note_success()

    def _count_malformed(self, number: int, text: str) -> None:
        self._malformed += number
        self._last_failure, self._last_failure_wall_ms = text, self._wall_ms()
        if not self._is_malformed_told:
            self._is_malformed_told = True
            _log.error("[METRICS] a point was dropped (later ones are counted only): %s", text)

    def _note_success(self) -> None:
        self._next_try = 0.0
        if self._failures_in_row:
            away = self._monotonic() - self._failing_since
            _log.warning("[METRICS] the server takes points again after %.0f s", away)
            if self._is_told:
                self._alerts.send(Severity.INFO, "Metrics are written again", f"After {away:.0f} s. {BACKFILL_ADVICE}.")
        self._failures_in_row, self._is_told = 0, False

    def _note_failure(self, answer: Answer) -> None:
        now = self._monotonic()
        self._failed += 1
        self._last_failure, self._last_failure_wall_ms = answer.text, self._wall_ms()
        if not self._failures_in_row:
            self._failing_since = now
            _log.warning("[METRICS] not written: %s", answer.text)
        pause = PAUSES_SECONDS[min(self._failures_in_row, len(PAUSES_SECONDS) - 1)]
        self._failures_in_row += 1
        refused = answer.kind in (AnswerKind.UNAUTHORISED, AnswerKind.MISSING, AnswerKind.REFUSED)
        if refused:
            pause = REFUSED_PAUSE_SECONDS
        elif answer.retry_after_seconds is not None:
            pause = max(answer.retry_after_seconds, PAUSES_SECONDS[0])
        self._next_try = now + pause
        if not self._is_told and (refused or now - self._failing_since >= OUTAGE_TOLD_SECONDS):
            self._is_told = True
            text = f"{answer.text}. Trading is not affected. To look: velox metrics check"
            self._alerts.send(Severity.WARNING, "Metrics are not written", text)
