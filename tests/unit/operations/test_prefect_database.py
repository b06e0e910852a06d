from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from velox_core.operations.prefect_database import DatabaseSize, database_file, database_size


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite+aiosqlite:////var/prefect/prefect.db", "/var/prefect/prefect.db"),
        ("sqlite+aiosqlite:////a/b.db?timeout=5", "/a/b.db"),
        ("sqlite+aiosqlite:///file::memory:?cache=shared", None),
        ("postgresql+asyncpg://u@h/prefect", None),
        ("", None),
    ],
)
def test_database_file_is_that_of_an_sqlite_url_only(url: str, path: str | None) -> None:
    assert database_file(url) == (None if path is None else Path(path))


def test_size_counts_what_deleting_freed_inside_the_file_while_a_writer_holds_it(tmp_path: Path) -> None:
    path = tmp_path / "prefect.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE log (text TEXT)")
        connection.executemany("INSERT INTO log VALUES (?)", [("x" * 1000,)] * 2000)
        connection.commit()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        before = database_size(path)
        connection.execute("DELETE FROM log")
        connection.commit()
        connection.execute("BEGIN IMMEDIATE")
        after = database_size(path)
        connection.rollback()
    assert before is not None
    assert after is not None
    assert before.total_bytes > 2_000_000
    assert (before.free_bytes, after.total_bytes >= before.total_bytes) == (0, True)
    assert after.free_bytes > 1_900_000


@pytest.mark.parametrize("content", [None, b"no database at all" * 1000])
def test_size_of_what_is_not_there_or_no_database_is_unknown(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "prefect.db"
    if content is not None:
        path.write_bytes(content)
    assert database_size(path) is None
    assert path.exists() is (content is not None)


def test_size_is_told_in_megabytes() -> None:
    assert str(DatabaseSize(total_bytes=12_340_000, free_bytes=4_560_000)) == "12.3 MB, 4.6 MB of it free"
