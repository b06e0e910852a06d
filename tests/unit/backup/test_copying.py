"""What is copied is compared with what is read back, and a lock or a full disk is told as what it is."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from velox_core.backup import databases, make, room
from velox_core.backup.databases import snapshot
from velox_core.backup.faults import BackupError
from velox_core.backup.folder_place import FolderDestination
from velox_core.backup.make import Extra, make_parts
from velox_core.backup.manifest import PartKind
from velox_core.backup.naming import MANIFEST_FILE
from velox_core.backup.packing import BLOCK_BYTES, copy_durably
from velox_core.backup.sources import Source

MEGABYTES = 3


def bending(target: Callable[[], Path]) -> Callable[[int], None]:
    """Return what bends the last byte of a file once its first block was read back."""
    calls = []

    def moved(count: int) -> None:
        calls.append(count)
        if len(calls) == MEGABYTES + 1:
            with target().open("r+b") as file:
                file.seek(-1, os.SEEK_END)
                file.write(b"\xff")

    return moved


def test_copy_that_is_read_back_as_something_else_is_told(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(bytes(MEGABYTES * BLOCK_BYTES))
    moved: list[int] = []
    assert copy_durably(source, target, moved.append)
    assert sum(moved) == 2 * MEGABYTES * BLOCK_BYTES
    assert target.read_bytes() == source.read_bytes()
    assert not copy_durably(source, target, bending(lambda: target))


def test_folder_that_gives_back_something_else_is_no_backup(tmp_path: Path) -> None:
    staged, folder = tmp_path / "staged", tmp_path / "far"
    staged.mkdir()
    (staged / "part").write_bytes(bytes(MEGABYTES * BLOCK_BYTES))
    (staged / MANIFEST_FILE).write_text("{}")
    with pytest.raises(BackupError, match="part was read back as something else") as told:
        FolderDestination(folder, bending(lambda: next(folder.rglob("part")))).put(staged, "2024-01-15", "me-00000000")
    assert told.value.advice == "see the health of its disk"
    assert list(folder.iterdir()) == []


def test_removal_that_breaks_off_is_ended_by_the_next_tidying(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    staged, place = tmp_path / "staged", FolderDestination(tmp_path / "far")
    staged.mkdir()
    (staged / MANIFEST_FILE).write_text('{"made_by": "me-00000000"}')
    place.put(staged, "2024-01-15", "me-00000000")

    def broken(path: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", broken)
        with pytest.raises(BackupError, match="Input/output error"):
            place.remove("2024-01-15")
    assert place.names() == []
    (left,) = place.unfinished()
    assert left.made_by == "me-00000000"
    assert place.tidy("me-00000000", 0) == [left.name]
    assert list(place.folder.iterdir()) == []


@pytest.mark.parametrize("mode", ["DELETE", "WAL"])
def test_snapshot_of_a_database_that_another_keeps_locked_ends_with_a_clear_error(
    mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(databases, "LOCKED_SECONDS_MAX", 0.2)
    monkeypatch.setattr(databases, "BUSY_SECONDS", 0.05)
    path = tmp_path / "journal.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute(f"PRAGMA journal_mode={mode}")
        writer.execute("PRAGMA locking_mode=EXCLUSIVE")
        writer.execute("CREATE TABLE t (x)")
        writer.execute("BEGIN EXCLUSIVE")
        writer.execute("INSERT INTO t VALUES (1)")
        with pytest.raises(BackupError, match=r"journal.db cannot be copied: another process has locked it") as told:
            snapshot(path, tmp_path / "copy.db")
        assert "fuser -v" in told.value.advice
        writer.execute("COMMIT")
    (tmp_path / "copy.db").unlink(missing_ok=True)
    snapshot(path, tmp_path / "copy.db")
    with closing(sqlite3.connect(tmp_path / "copy.db")) as copy:
        assert copy.execute("SELECT x FROM t").fetchall() == [(1,)]


def test_snapshot_of_a_database_that_another_recovers_is_told_as_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def recovering(path: Path) -> sqlite3.Connection:
        error = sqlite3.OperationalError("database is locked")
        error.sqlite_errorcode = sqlite3.SQLITE_BUSY_RECOVERY
        raise error

    monkeypatch.setattr(databases, "_reading", recovering)
    with pytest.raises(BackupError, match=r"cannot be copied: another process has locked it for more than 5 s"):
        snapshot(tmp_path / "journal.db", tmp_path / "copy.db")


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    for name in ("staging", "scratch"):
        (tmp_path / name).mkdir()
    return tmp_path / "staging", tmp_path / "scratch"


def full(source: Path, target: Path) -> object:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))


def test_disk_that_fills_while_one_thread_packs_is_told_though_the_other_fails_too(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = tmp_path / "broker.db"
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("CREATE TABLE t (x)")

    def unreadable(path: Path) -> object:
        raise BackupError(f"{path} cannot be read")

    monkeypatch.setattr(make, "pack", full)
    monkeypatch.setattr(make, "table_checks", unreadable)
    source = Source(kind=PartKind.BOOK, origin="broker.db", path=database)
    with pytest.raises(BackupError) as told:
        make_parts([source], [], *folders)
    assert told.value.problem.startswith(f"{folders[0]} takes nothing more: No space left on device, while broker.db was saved")
    assert " MB free" in told.value.problem
    assert "free its disk" in told.value.advice


def test_metrics_without_room_cost_the_backup_nothing_else(folders: tuple[Path, Path], tmp_path: Path) -> None:
    def fills(target: Path) -> dict[str, object]:
        target.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))

    state = tmp_path / "status.json"
    state.write_text("{}")
    sources = [Source(kind=PartKind.STATE, origin="status.json", path=state)]
    metrics = Extra(kind=PartKind.METRICS, path="metrics/day", origin="", save=fills)
    made = make_parts(sources, [metrics], *folders)
    assert [part.path for part in made.parts] == ["status.json.zst"]
    assert (len(made.without), made.missing) == (1, ())
    assert "has no room for it: free some space" in made.without[0]
    assert list(folders[1].iterdir()) == []
    journal = Extra(kind=PartKind.JOURNAL, path="server/journal.db", origin="", save=fills)
    with pytest.raises(BackupError, match=r"takes nothing more: No space left on device, while server/journal.db was saved"):
        make_parts(sources, [journal], *folders)


def test_room_is_asked_for_what_is_no_file_yet_and_once_more_when_it_is_one(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def save(target: Path) -> dict[str, object]:
        asked.append(target)
        target.write_bytes(bytes(1_000_000))
        monkeypatch.setattr(room, "free_bytes", lambda folder: 1_499_999)
        return {}

    def made(expected_bytes: int) -> make.Made:
        extra = Extra(
            kind=PartKind.REDIS, path="redis-dump/dump.rdb", origin="", save=save, expected_bytes=lambda: expected_bytes
        )
        return make_parts([], [extra], *folders)

    with pytest.raises(BackupError, match=r"MB free, a backup needs 250000000000050 MB while it is made: free some space"):
        made(10**20)
    assert asked == []
    without = made(0).without
    assert len(asked) == 1
    assert "redis-dump/dump.rdb is 1 MB; to pack it takes 2 MB" in without[0]
    assert "has 1 MB free: free some space" in without[0]
