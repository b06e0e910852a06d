"""Loading file journals into SQL, and the export that two runs share."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest

from velox_core.domain.errors import JournalUnavailable
from velox_core.domain.events import EventKind, JournalEvent
from velox_core.journal import imports
from velox_core.journal.export import export_events
from velox_core.journal.file import FileJournal
from velox_core.journal.imports import import_emergency_file, import_file_journal
from velox_core.journal.queries import JournalReader
from velox_core.journal.run import RunIdentity
from velox_core.journal.sql import SqlJournal

FILL = {
    "client_order_id": "240115E00010000001",
    "strategy": "orb",
    "symbol": "TCS",
    "side": "BUY",
    "quantity": 1,
    "price": 390_000,
    "charges": 12,
    "realised": 0,
    "position": 1,
    "cost": 390_000,
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path / "journal.jsonl", range(1, 8))


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[SqlJournal]:
    opened = SqlJournal(f"sqlite:///{tmp_path / 'journal.db'}", RunIdentity(scope_key="s", trading_date=date(2024, 1, 15)))
    yield opened
    opened.close()


def write(path: Path, numbers: range) -> Path:
    journal = FileJournal(path)
    for number in numbers:
        journal.append(EventKind.FILL, number, {"trade_id": f"T{number}", **FILL})  # type: ignore[dict-item]
        journal.append(EventKind.SESSION, number, {"phase": "₹", "pid": number})
        journal.commit()
    journal.close()
    return path


def test_import_keeps_events_digests_and_projections(
    file: Path, journal: SqlJournal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imports, "EVENTS_PER_COMMIT", 4)
    assert import_file_journal(file, journal) == 14
    source = FileJournal(file)
    wanted = [(e.sequence, e.ts_ms, e.kind, e.body, e.digest) for e in source.events()]
    source.close()
    assert [(e.sequence, e.ts_ms, e.kind, e.body, e.digest) for e in journal.events()] == wanted
    reader = JournalReader(f"sqlite:///{tmp_path / 'journal.db'}")
    assert len(reader.fills(journal.run_key)) == 7
    assert reader.verify_chain(journal.run_key) is None
    reader.close()


def test_import_again_adds_only_what_is_new(file: Path, journal: SqlJournal) -> None:
    import_file_journal(file, journal)
    assert import_file_journal(file, journal) == 0
    write(file, range(8, 10))
    assert import_file_journal(file, journal) == 4
    assert len(list(journal.events())) == 18


def test_import_into_a_run_with_other_events_is_refused(file: Path, journal: SqlJournal, tmp_path: Path) -> None:
    journal.append(EventKind.SESSION, 1, {"phase": "OTHER"})
    journal.commit()
    with pytest.raises(JournalUnavailable, match="another digest"):
        import_file_journal(file, journal)
    assert len(list(journal.events())) == 1


def test_import_of_a_shorter_file_is_refused(file: Path, journal: SqlJournal, tmp_path: Path) -> None:
    import_file_journal(file, journal)
    with pytest.raises(JournalUnavailable, match="another digest"):
        import_file_journal(write(tmp_path / "short.jsonl", range(1, 3)), journal)


def test_import_of_a_broken_file_stops_before_the_break(file: Path, journal: SqlJournal) -> None:
    file.write_bytes(file.read_bytes().replace(b'"T6"', b'"T9"'))
    with pytest.raises(JournalUnavailable, match="breaks at event 11"):
        import_file_journal(file, journal)
    assert list(journal.events()) == []


def test_emergency_file_is_appended_once_and_set_aside(file: Path, journal: SqlJournal) -> None:
    journal.append(EventKind.SESSION, 1, {"phase": "OPENED"})
    journal.commit()
    assert import_emergency_file(file, journal) == 14
    assert import_emergency_file(file, journal) == 0
    assert [event.kind for event in journal.events()][:2] == [EventKind.SESSION, EventKind.FILL]
    assert not file.exists()
    assert len(list(file.parent.glob("journal.jsonl.imported-*"))) == 1


def test_emergency_file_that_was_imported_before_a_crash_is_not_imported_again(file: Path, journal: SqlJournal) -> None:
    copy = file.read_bytes()
    import_emergency_file(file, journal)
    number = len(list(journal.events()))
    file.write_bytes(copy)
    assert import_emergency_file(file, journal) == 0
    assert len(list(journal.events())) == number
    assert not file.exists()


def test_emergency_file_without_events_is_set_aside(journal: SqlJournal, tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_bytes(b"")
    assert import_emergency_file(tmp_path / "empty.jsonl", journal) == 0
    assert list(journal.events()) == []
    assert not (tmp_path / "empty.jsonl").exists()


def test_export_leaves_out_sessions_and_digests_and_numbers_anew() -> None:
    events = [
        JournalEvent(1, 5, EventKind.SESSION, {"pid": 4}, "aa"),
        JournalEvent(2, 6, EventKind.MARK, {"b": 1, "a": "₹"}, "bb"),
        JournalEvent(3, 7, EventKind.LOCK, {"symbol": "TCS"}, "cc"),
    ]
    assert (
        export_events(events)
        == (
            '{"sequence":1,"ts_ms":6,"kind":"MARK","body":{"b":1,"a":"₹"}}\n'
            '{"sequence":2,"ts_ms":7,"kind":"LOCK","body":{"symbol":"TCS"}}\n'
        ).encode()
    )
    assert export_events([]) == b""
