"""The file journal: damage, torn ends, failed writes, one writer."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from velox_core.domain.errors import JournalUnavailable
from velox_core.domain.events import EventKind
from velox_core.domain.orders import Side
from velox_core.journal.file import FileJournal, read_events, verify_chain


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.jsonl"


@pytest.fixture
def journal(path: Path) -> Iterator[FileJournal]:
    opened = FileJournal(path, fsync=True)
    yield opened
    opened.close()


def write(path: Path, numbers: range, *, per_commit: int = 2) -> None:
    journal = FileJournal(path)
    for number in numbers:
        journal.append(EventKind.MARK, number, {"loss": number})
        if number % per_commit == 0:
            journal.commit()
    journal.commit()
    journal.close()


def losses(path: Path) -> list[object]:
    return [event.body["loss"] for event in read_events(path)]


def test_file_with_a_second_writer_is_refused(journal: FileJournal, path: Path) -> None:
    with pytest.raises(JournalUnavailable, match="another process"):
        FileJournal(path)


def test_file_that_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    with pytest.raises(JournalUnavailable, match="cannot open"):
        FileJournal(tmp_path)


def test_read_of_a_missing_file_is_refused(path: Path) -> None:
    with pytest.raises(JournalUnavailable, match="cannot read"):
        list(read_events(path))


@pytest.mark.parametrize("keep", range(1, 60, 7))
def test_file_torn_in_its_last_commit_keeps_the_commits_before_it(path: Path, keep: int) -> None:
    write(path, range(1, 5))
    whole = path.stat().st_size
    write(path, range(5, 7))
    os.truncate(path, whole + keep)
    assert losses(path) == [1, 2, 3, 4]
    assert verify_chain(path) is None
    write(path, range(7, 9))
    assert losses(path) == [1, 2, 3, 4, 7, 8]
    assert verify_chain(path) is None


@pytest.mark.parametrize(("needle", "value", "broken"), [(b'"loss":1', b'"loss":9', 1), (b'"loss":4', b'"loss":5', 4)])
def test_event_that_was_changed_breaks_the_chain_there(path: Path, needle: bytes, value: bytes, broken: int) -> None:
    write(path, range(1, 7))
    path.write_bytes(path.read_bytes().replace(needle, value, 1))
    assert verify_chain(path) == broken
    with pytest.raises(JournalUnavailable, match=f"breaks at event {broken}"):
        losses(path)
    with pytest.raises(JournalUnavailable, match=f"breaks at event {broken}"):
        FileJournal(path)


def test_event_that_was_removed_breaks_the_chain_there(path: Path) -> None:
    write(path, range(1, 7))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:3] + lines[4:]))
    assert verify_chain(path) == 3


def test_commit_that_was_removed_breaks_the_chain_after_it(path: Path) -> None:
    write(path, range(1, 7))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[3:]))
    assert verify_chain(path) == 1


@pytest.mark.parametrize("content", [b"SQLite format 3\x00", b"[2,5,", b"{}\n", b"\n"])
def test_file_that_is_none_of_ours_is_refused_and_left_alone(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(JournalUnavailable, match="is not a file journal"):
        FileJournal(path)
    assert path.read_bytes() == content


def test_event_of_an_unknown_kind_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = FileJournal(path)
    journal.append("FUTURE", 1, {})  # type: ignore[arg-type]
    journal.commit()
    journal.close()
    with pytest.raises(JournalUnavailable, match="newer VELOX"):
        losses(path)


def test_failed_write_keeps_the_events_and_takes_back_what_got_out(
    journal: FileJournal, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.append(EventKind.MARK, 1, {"loss": 1})
    journal.commit()
    real_write, calls = os.write, []

    def half_then_full(file: int, data: bytes) -> int:
        calls.append(len(data))
        if len(calls) == 1:
            return real_write(file, data[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("velox_core.journal.file.os.write", half_then_full)
    journal.append(EventKind.MARK, 2, {"loss": 2})
    with pytest.raises(JournalUnavailable, match="No space left"):
        journal.commit()
    assert losses(path) == [1]
    monkeypatch.undo()
    journal.append(EventKind.MARK, 3, {"loss": 3})
    journal.commit()
    assert losses(path) == [1, 2, 3]
    assert verify_chain(path) is None


def test_relaxed_journal_writes_once_enough_events_wait_and_the_rest_at_its_close(path: Path) -> None:
    relaxed = FileJournal(path, write_every_events=3)
    for number in (1, 2):
        relaxed.append(EventKind.MARK, number, {"loss": number})
        relaxed.commit()
    assert losses(path) == []
    relaxed.append(EventKind.MARK, 3, {"loss": 3})
    relaxed.commit()
    assert losses(path) == [1, 2, 3]
    relaxed.append(EventKind.MARK, 4, {"loss": 4})
    relaxed.commit()
    assert losses(path) == [1, 2, 3]
    relaxed.close()
    assert losses(path) == [1, 2, 3, 4]
    assert verify_chain(path) is None


def test_relaxed_journal_gives_back_what_it_has_not_written_yet(path: Path) -> None:
    relaxed = FileJournal(path, write_every_events=100)
    relaxed.append(EventKind.MARK, 1, {"loss": 1})
    relaxed.commit()
    assert [event.body["loss"] for event in relaxed.events()] == [1]
    relaxed.flush()
    assert losses(path) == [1]
    relaxed.close()


def test_relaxed_journal_has_the_digests_of_a_durable_one(tmp_path: Path) -> None:
    digests = []
    for every, name in ((1, "durable"), (4, "relaxed")):
        journal = FileJournal(tmp_path / name, write_every_events=every)
        for number in range(1, 8):
            journal.append(EventKind.MARK, number, {"loss": number})
            journal.commit()
        journal.close()
        digests.append([event.digest for event in read_events(tmp_path / name)])
    assert digests[0] == digests[1]
    assert len(digests[0]) == 7


def test_journal_that_is_not_relaxed_forgets_at_its_close_what_was_not_committed(path: Path) -> None:
    durable = FileJournal(path)
    durable.append(EventKind.MARK, 1, {"loss": 1})
    durable.close()
    assert losses(path) == []


def test_text_enum_is_written_as_its_value(journal: FileJournal, path: Path) -> None:
    journal.append(EventKind.LOCK, 1, {"symbol": "TCS", "side": Side.BUY})
    journal.commit()
    assert [event.body["side"] for event in read_events(path)] == ["BUY"]
    assert b'"side":"BUY"' in path.read_bytes()
