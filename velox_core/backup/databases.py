"""SQLite databases: a snapshot beside a live writer, and what tells that a copy is the same.

- A snapshot is one `backup` call over all pages (in steps it would begin anew with each commit of the writer), from a
  connection that only reads: in WAL mode the writer is not held up.
- A table's checksum is over its rows in the order of its key, so that two files with the same rows have the same.
- A journal's hash chain is followed in the same pass.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import orjson

from velox_core.backup.manifest import BackupError, TableCheck
from velox_core.journal.verify import EventRow, RunHead, check_chain

BUSY_SECONDS: Final = 5.0
ROWS_AT_ONCE: Final = 1_000
_EVENTS: Final = "SELECT sequence, ts_ms, kind, body, digest FROM event WHERE run_key = ? ORDER BY sequence"


def snapshot(source: Path, target: Path) -> None:
    """Copy a database as it is at one moment. Raises BackupError when it cannot be read whole."""
    try:
        with closing(_reading(source)) as origin, closing(sqlite3.connect(target)) as copy:
            copy.execute("PRAGMA journal_mode=OFF")
            copy.execute("PRAGMA synchronous=OFF")  # the copy is packed at once, and the packed file is synced
            origin.backup(copy, pages=-1)
    except sqlite3.Error as error:
        raise BackupError(
            f"{source} cannot be copied: {error}: it is damaged or its disk fails; see velox doctor, or restore an older backup"
        ) from error


def check_integrity(path: Path) -> str:
    """Return 'ok', or the first thing that SQLite finds wrong with a database."""
    try:
        with closing(_reading(path)) as connection:
            return str(connection.execute("PRAGMA integrity_check(1)").fetchone()[0])
    except sqlite3.Error as error:
        return str(error)


def row_counts(path: Path) -> dict[str, int]:
    """Return the number of rows of each table. Raises BackupError."""
    try:
        with closing(_reading(path)) as connection:
            return {
                name: int(connection.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0]) for name in _tables(connection)
            }
    except sqlite3.Error as error:
        raise BackupError(f"{path} cannot be read: {error}. Take another backup.") from error


def table_checks(path: Path) -> dict[str, TableCheck]:
    """Return rows and checksum of each table. Raises BackupError."""
    try:
        with closing(_reading(path)) as connection:
            return {name: _checked(connection, name) for name in _tables(connection)}
    except sqlite3.Error as error:
        raise BackupError(f"{path} cannot be read: {error}. Take another backup.") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalChecks:
    """What tells a journal: its tables, its schema revision, the heads of its runs, and where a run's chain is broken."""

    tables: dict[str, TableCheck]
    revision: str
    heads: tuple[RunHead, ...]
    broken: tuple[str, ...]


def journal_checks(path: Path) -> JournalChecks:
    """Read a journal through, and follow its runs' hash chains. Raises BackupError for a file that is no journal."""
    try:
        with closing(_reading(path)) as connection:
            revision = str(connection.execute("SELECT version_num FROM alembic_version").fetchone()[0])
            runs = connection.execute("SELECT run_key, scope_key, trading_date, run_id FROM run ORDER BY run_key").fetchall()
            events = _Sum()
            followed = [_followed(connection, events, *run) for run in runs]
            others = {name: _checked(connection, name) for name in _tables(connection) if name != "event"}
            return JournalChecks(
                tables={"event": events.check(), **others},
                revision=revision,
                heads=tuple(head for head, _ in followed),
                broken=tuple(f"run {head.name}: {problem}" for head, problem in followed if problem),
            )
    except (sqlite3.Error, TypeError) as error:
        raise BackupError(f"{path} is no journal that can be read: {error}. Take another backup.") from error


class _Sum:
    """The checksum of a table while its rows go by."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._rows = 0

    def add(self, rows: list[tuple[Any, ...]]) -> None:
        self._digest.update(orjson.dumps(rows, default=_as_text))
        self._rows += len(rows)

    def check(self) -> TableCheck:
        return TableCheck(rows=self._rows, sha256=self._digest.hexdigest())


def _as_text(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


def _checked(connection: sqlite3.Connection, table: str) -> TableCheck:
    columns = connection.execute(f'PRAGMA table_info("{table}")').fetchall()
    key = ", ".join(f'"{column[1]}"' for column in sorted(columns, key=lambda column: column[5]) if column[5])
    total = _Sum()
    cursor = connection.execute(f'SELECT * FROM "{table}" ORDER BY {key or "rowid"}')
    while rows := cursor.fetchmany(ROWS_AT_ONCE):
        total.add(rows)
    return total.check()


def _followed(
    connection: sqlite3.Connection, total: _Sum, run_key: int, scope_key: str, trading_date: str, run_id: str
) -> tuple[RunHead, str]:
    rows = _summed(connection.execute(_EVENTS, (run_key,)), total, run_key)
    events, digest, problem, _ = check_chain(rows)
    for _ in rows:
        pass  # behind a break: they count in the table's checksum
    return RunHead(scope_key=scope_key, trading_date=trading_date, run_id=run_id, events=events, digest=digest), problem


def _summed(cursor: sqlite3.Cursor, total: _Sum, run_key: int) -> Iterator[EventRow]:
    while rows := cursor.fetchmany(ROWS_AT_ONCE):
        total.add([(run_key, *row) for row in rows])
        yield from rows


def _tables(connection: sqlite3.Connection) -> list[str]:
    query = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%' ORDER BY name"
    return [str(row[0]) for row in connection.execute(query)]


def _reading(path: Path) -> sqlite3.Connection:
    """Open a database that is there, to read: mode rw, since one that may only read leaves SQLite's files behind it."""
    connection = sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=rw", uri=True, timeout=BUSY_SECONDS)
    connection.execute("PRAGMA query_only=ON")
    return connection
