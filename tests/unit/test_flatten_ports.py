"""What a closer outside the engine journals, and what it leaves to others."""

from __future__ import annotations

from tests.fakes.stores import FakeJournal
from velox_core.domain.events import EventKind
from velox_core.flatten_ports import OwnEvents


def test_own_events_of_two_closers_with_one_prefix_are_kept_apart() -> None:
    journals = [FakeJournal(), FakeJournal()]
    closers = [OwnEvents(journal) for journal in journals]
    tag = "240115C82971928001"
    closers[0].append(EventKind.INTENT, 1, {"client_order_id": tag})
    for closer in closers:
        closer.append(EventKind.ORDER, 2, {"client_order_id": tag, "state": "FILLED"})
        closer.append(EventKind.FILL, 2, {"client_order_id": tag, "trade_id": "T2"})
        closer.commit()
    first, second = [[event.kind for event in journal.events()] for journal in journals]
    assert first == [EventKind.INTENT, EventKind.ORDER, EventKind.FILL]
    assert second == []
