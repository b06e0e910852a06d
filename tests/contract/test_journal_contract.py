"""One contract for every journal: the hash-chained file and SQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes.outside import FakeAlerts
from velox_core.domain.errors import InvariantError
from velox_core.domain.events import Body, EventKind
from velox_core.domain.orders import Side
from velox_core.journal.chain import GENESIS, canonical, next_digest
from velox_core.journal.export import export_events
from velox_core.journal.fallback import FallbackJournal
from velox_core.journal.file import FileJournal, verify_chain
from velox_core.journal.queries import JournalReader
from velox_core.journal.run import RunIdentity
from velox_core.journal.sql import SqlJournal

RUN = RunIdentity(scope_key="simulated:primary", trading_date=date(2024, 1, 15))
MARK: Body = {"realised": 0, "open": -5, "charges": 7, "loss": 12}


class Store:
    """Opens one journal again and again, as processes that follow each other do."""

    def __init__(self, kind: str, folder: Path, stack: ExitStack) -> None:
        self.kind = kind
        self._folder = folder
        self._stack = stack
        self._open: Any = None

    def open(self) -> Any:
        if self._open is not None:
            self._open.close()
        if self.kind == "file":
            self._open = FileJournal(self._folder / "run" / "journal.jsonl")
            return self._open
        self._open = sql = SqlJournal(f"sqlite:///{self._folder / 'run' / 'journal.db'}", RUN)
        if self.kind == "sqlite with a file behind it":
            self._stack.callback(sql.close)
            self._open = FallbackJournal(sql, self._folder / "run" / "emergency.jsonl", FakeAlerts())
        return self._open

    def close(self) -> None:
        if self._open is not None:
            self._open.close()

    def broken_at(self) -> int | None:
        if self.kind == "file":
            return verify_chain(self._folder / "run" / "journal.jsonl")
        reader = JournalReader(f"sqlite:///{self._folder / 'run' / 'journal.db'}")
        self._stack.callback(reader.close)
        return reader.verify_chain(1)


@pytest.fixture(params=["file", "sqlite", "sqlite with a file behind it"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    with ExitStack() as stack:
        found = Store(str(request.param), tmp_path, stack)
        stack.callback(found.close)
        yield found


def read(journal: Any, kinds: Any = None) -> list[tuple[int, int, str, Body]]:
    return [(event.sequence, event.ts_ms, event.kind.value, event.body) for event in journal.events(kinds)]


def test_journal_when_new_has_no_events(store: Store) -> None:
    journal = store.open()
    journal.commit()
    assert read(journal) == []
    assert store.broken_at() is None


def test_append_without_commit_is_not_readable_and_lost_on_close(store: Store) -> None:
    journal = store.open()
    journal.append(EventKind.MARK, 1, MARK)
    assert read(journal) == []
    assert read(store.open()) == []


def test_commit_makes_events_readable_in_order_without_gaps(store: Store) -> None:
    journal = store.open()
    for ts_ms in (5, 3, 9):
        journal.append(EventKind.MARK, ts_ms, {**MARK, "loss": ts_ms})
    journal.commit()
    journal.append(EventKind.SESSION, 10, {"phase": "CLOSED", "ok": True, "who": None, "list": [1, "₹"]})
    journal.commit()
    assert [(sequence, ts_ms) for sequence, ts_ms, _, _ in read(journal)] == [(1, 5), (2, 3), (3, 9), (4, 10)]
    assert read(journal)[3][3] == {"phase": "CLOSED", "ok": True, "who": None, "list": [1, "₹"]}


def test_events_of_some_kinds_keep_their_sequence(store: Store) -> None:
    journal = store.open()
    for kind in (EventKind.SESSION, EventKind.MARK, EventKind.SESSION):
        journal.append(kind, 1, MARK)
    journal.commit()
    assert [sequence for sequence, *_ in read(journal, [EventKind.SESSION])] == [1, 3]
    assert read(journal, []) == []


def test_events_carry_the_hash_chain(store: Store) -> None:
    journal = store.open()
    journal.append(EventKind.SESSION, 1, {"phase": "OPENED"})
    journal.append(EventKind.MARK, 2, MARK)
    journal.commit()
    first = next_digest(GENESIS, canonical(1, 1, "SESSION", b'{"phase":"OPENED"}'))
    second = next_digest(first, canonical(2, 2, "MARK", b'{"realised":0,"open":-5,"charges":7,"loss":12}'))
    assert [event.digest for event in journal.events()] == [first.hex(), second.hex()]
    assert store.broken_at() is None


def test_body_changed_after_append_does_not_change_the_event(store: Store) -> None:
    journal = store.open()
    body = dict(MARK)
    journal.append(EventKind.MARK, 1, body)
    body["loss"] = 999
    journal.commit()
    assert read(journal)[0][3]["loss"] == 12


def test_body_with_enums_is_kept_as_their_values(store: Store) -> None:
    journal = store.open()
    journal.append(EventKind.LOCK, 1, {"symbol": "TCS", "reason": Side.BUY})
    journal.commit()
    assert read(journal) == [(1, 1, "LOCK", {"symbol": "TCS", "reason": "BUY"})]


def test_body_that_is_not_json_is_a_bug_and_leaves_the_journal_as_it_was(store: Store) -> None:
    journal = store.open()
    journal.append(EventKind.MARK, 1, MARK)
    with pytest.raises(InvariantError, match="cannot be journaled"):
        journal.append(EventKind.MARK, 2, {"realised": object()})
    journal.append(EventKind.MARK, 3, MARK)
    journal.commit()
    assert [(sequence, ts_ms) for sequence, ts_ms, _, _ in read(journal)] == [(1, 1), (2, 3)]


def test_journal_opened_again_continues_the_chain(store: Store) -> None:
    journal = store.open()
    journal.append(EventKind.MARK, 1, MARK)
    journal.commit()
    again = store.open()
    again.append(EventKind.MARK, 2, MARK)
    again.commit()
    assert [(sequence, ts_ms) for sequence, ts_ms, _, _ in read(again)] == [(1, 1), (2, 2)]
    assert store.broken_at() is None


def test_events_read_while_appending_show_what_was_committed_before(store: Store) -> None:
    journal = store.open()
    for ts_ms in range(3):
        journal.append(EventKind.MARK, ts_ms, MARK)
    journal.commit()
    seen = []
    for event in journal.events():
        journal.append(EventKind.SESSION, 9, {"phase": "SEEN"})
        seen.append(event.sequence)
    journal.commit()
    assert seen == [1, 2, 3]
    assert len(read(journal)) == 6


SCALARS = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5)
BODIES = st.dictionaries(st.text(max_size=5), SCALARS | st.lists(SCALARS, max_size=3), max_size=4)
PLAIN_KINDS = st.sampled_from([EventKind.SESSION, EventKind.MARK, EventKind.LOCK, EventKind.STRATEGY_DISABLED])


@given(batches=st.lists(st.lists(st.tuples(PLAIN_KINDS, st.integers(-5, 2**45), BODIES), max_size=4), max_size=5))
@settings(max_examples=15, deadline=None)
def test_file_and_sql_hold_the_same_events_and_digests(
    batches: list[list[tuple[EventKind, int, Body]]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("pair")
    openers: list[Callable[[], Any]] = [
        lambda: FileJournal(folder / "journal.jsonl"),
        lambda: SqlJournal(f"sqlite:///{folder / 'journal.db'}", RUN),
    ]
    shown = []
    for opener in openers:
        journal = opener()
        for batch in batches:
            for kind, ts_ms, body in batch:
                journal.append(kind, ts_ms, body)
            journal.commit()
        events = list(journal.events())
        journal.close()
        shown.append(([(e.sequence, e.ts_ms, e.kind, e.body, e.digest) for e in events], export_events(events)))
    assert shown[0] == shown[1]


def halt_body(halt_id: str, clears: str = "") -> Body:
    texts = {"halt_id": halt_id, "kind": "MANUAL", "trading_date": "2024-01-15", "reason": "r", "by": "b", "clears": clears}
    return {**texts, "at_ms": 1, "keeps_positions": False}


def test_newest_halt_of_a_journal_with_one_writer_at_a_time_is_that_of_the_newest_record(store: Store) -> None:
    journal = store.open()
    assert journal.newest_halt() == 0
    journal.append(EventKind.HALT, 1, halt_body("h1"))
    assert journal.newest_halt() == 0
    journal.commit()
    journal.append(EventKind.MARK, 2, MARK)
    journal.append(EventKind.HALT_CLEARED, 3, halt_body("h1-CLEAR", "h1"))
    journal.append(EventKind.MARK, 4, MARK)
    journal.commit()
    newest = 0 if store.kind == "file" else 3  # a file's one writer knows what is in it
    assert journal.newest_halt() == newest
    assert store.open().newest_halt() == newest
    journal = store.open()
    journal.append(EventKind.MARK, 5, MARK)
    journal.commit()  # the look left nothing behind that a write would trip over
    assert len(read(journal)) == 5
