"""Journal and control channel as the engine uses them, with the metrics told what passed: nothing else is changed.

- An event counts when its commit has returned; one that the journal refused is not told.
- What is told is a reference in a list: no event is copied, encoded or looked at here.
- Metrics that are off have neither of these in the way.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from velox_core.domain.errors import IntentRefused
from velox_core.domain.events import Body, EventKind, JournalEvent
from velox_core.ports import Control, ControlRequest, Journal, JournalFact, Metrics

STAGED_MAX: Final = 50_000  # events of a journal that cannot commit; the oldest are not told, the journal keeps them
_UNTOLD: Final = frozenset({EventKind.SESSION, EventKind.EXIT_PLAN})


class ObservedJournal:
    """`ports.Journal` that tells the metrics what it committed.

    Args:
        journal: the journal itself.
        metrics: told of each event, once, after its commit.
        monotonic: seconds that never go back.
    """

    def __init__(self, journal: Journal, metrics: Metrics, monotonic: Callable[[], float]) -> None:
        self._journal = journal
        self._metrics = metrics
        self._monotonic = monotonic
        self._staged: deque[JournalFact] = deque(maxlen=STAGED_MAX)

    def append(self, kind: EventKind, ts_ms: int, body: Body) -> None:
        """Add one event, in order."""
        self._journal.append(kind, ts_ms, body)
        if kind not in _UNTOLD:
            self._staged.append(JournalFact(kind, ts_ms, body, self._monotonic()))

    def commit(self) -> None:
        """Make every appended event durable, then tell of them. Raises JournalUnavailable, IntentRefused."""
        try:
            self._journal.commit()
        except IntentRefused:  # it took the rest
            self._tell(without=EventKind.INTENT)
            raise
        if self._staged:
            self._tell()

    def events(self, kinds: Iterable[EventKind] | None = None) -> Iterator[JournalEvent]:
        """Return the run's committed events, oldest first. Raises JournalUnavailable."""
        return self._journal.events(kinds)

    def newest_halt(self) -> int:
        """Return the sequence of the newest committed halt or clear record. Raises JournalUnavailable."""
        return self._journal.newest_halt()

    def _tell(self, *, without: EventKind | None = None) -> None:
        durable = self._monotonic()
        facts = [fact for fact in self._staged if fact.kind is not without]
        self._staged.clear()
        for fact in facts:
            fact.durable = durable
        self._metrics.committed(facts)


class ObservedControl:
    """`ports.Control` that tells the metrics each status that is published."""

    def __init__(self, control: Control, metrics: Metrics) -> None:
        self._control = control
        self._metrics = metrics

    def poll(self) -> ControlRequest | None:
        """Return the newest request."""
        return self._control.poll()

    def publish(self, status: Mapping[str, object]) -> None:
        """Publish the status, then tell of it."""
        self._control.publish(status)
        self._metrics.status(status)
