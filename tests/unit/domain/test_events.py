"""Journal events: what an export leaves out."""

from __future__ import annotations

from velox_core.domain.events import EXPORTED_KINDS, EventKind, JournalEvent


def test_exported_kinds_leave_out_the_facts_of_a_process_only() -> None:
    assert set(EventKind) - EXPORTED_KINDS == {EventKind.SESSION, EventKind.EXIT_PLAN}


def test_journal_event_keeps_what_it_was_given() -> None:
    event = JournalEvent(1, 7, EventKind.MARK, {"realised": 5}, "ab")
    assert (event.sequence, event.ts_ms, event.kind, event.body, event.digest) == (1, 7, EventKind.MARK, {"realised": 5}, "ab")
