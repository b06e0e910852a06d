"""A metrics server that answers what a test says, without a network, and a sink over it with clocks moved by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests.fakes.outside import FakeAlerts
from velox_core.domain.events import Body, EventKind
from velox_core.metrics import Answer, AnswerKind, FactPoints, MetricsSink
from velox_core.ports import JournalFact

OK = Answer(kind=AnswerKind.WRITTEN)
LIMIT_PAISE = 200_000
TAGS = {"mode": "replay", "broker": "simulated", "account": "primary", "run": "2024-01-16-1"}


class FakeServer:
    """Takes lines. `answer` is what it says now; `bad` names lines that it refuses; `most` is its largest batch."""

    def __init__(self, answer: Answer = OK) -> None:
        self.answer = answer
        self.bad: Callable[[str], bool] = lambda line: False
        self.most = 1_000_000
        self.lines: list[str] = []
        self.posts: list[int] = []  # their sizes
        self.is_closed = False

    def post(self, lines: Sequence[str]) -> Answer:
        self.posts.append(len(lines))
        if self.answer.kind is not AnswerKind.WRITTEN:
            return self.answer
        if len(lines) > self.most:
            return Answer(kind=AnswerKind.TOO_LARGE, text="413 too large")
        if any(self.bad(line) for line in lines):
            return Answer(kind=AnswerKind.MALFORMED, text="400 unable to parse")
        self.lines += lines
        return OK

    def close(self) -> None:
        self.is_closed = True


class SinkRig:
    """A sink whose rounds and clocks a test moves: `seconds` is monotonic."""

    def __init__(self, server: Any = None, **changes: Any) -> None:
        self.server = FakeServer() if server is None else server
        self.alerts = FakeAlerts()
        self.seconds = 1_000.0
        self.sink = MetricsSink(
            self.server,
            FactPoints(LIMIT_PAISE),
            TAGS,
            self.alerts,
            monotonic=lambda: self.seconds,
            wall_ms=lambda: 1_700_000_000_000 + int(self.seconds * 1_000),
            **changes,
        )

    def tell(self, number: int, *, first_ms: int = 1_705_000_000_000) -> None:
        """Tell the sink of so many marks, a millisecond apart: a point each."""
        self.sink.committed([fact(EventKind.MARK, first_ms + n, mark(n)) for n in range(number)])

    def round(self, seconds: float = 1.0) -> Mapping[str, Any]:
        """Let time pass and the thread do a round. Returns the counters."""
        self.seconds += seconds
        self.sink.pump()
        return self.sink.counters()


def fact(kind: EventKind, ts_ms: int, body: Body, *, appended: float = 0.0, durable: float = 0.0) -> JournalFact:
    """Return a committed event."""
    made = JournalFact(kind, ts_ms, body, appended)
    made.durable = durable
    return made


def mark(realised: int = 0, open_paise: int = 0, charges: int = 0) -> Body:
    """Return the body of a minute's mark."""
    return {"realised": realised, "open": open_paise, "charges": charges}
