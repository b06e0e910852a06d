"""SQLite databases: a snapshot beside a live writer, and what tells that a copy is the same.

- A snapshot is one `backup` call over all pages (in steps it would begin anew with each commit of the writer), from a
  connection that only reads: in WAL mode the writer is not held up.
- A table's checksum is over its rows in the order of its key, so that two files with the same rows have the same.
- A journal's hash chain is followed in the same pass.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final
from urllib.parse import quote

from velox_core.backup.faults import BackupError
from velox_core.backup.manifest import TableCheck
from velox_core.journal.chain import GENESIS
from velox_core.journal.verify import RunHead, check_chain

BUSY_SECONDS: Final = 5.0
LOCKED_SECONDS_MAX: Final = 30.0
LOOK_AGAIN_SECONDS: Final = 0.25
ROWS_AT_ONCE: Final = 1_000
_EVENTS: Final = "SELECT sequence, ts_ms, kind, body, digest FROM event WHERE run_key = ? ORDER BY sequence"
_CANONICAL: Final = (  # what `journal.chain.canonical` makes, made by SQLite: most of the time of a large journal goes here
    """SELECT CAST('[' || sequence || ',' || ts_ms || ',"' || kind || '",' || body || ']' AS BLOB), digest"""
    " FROM event WHERE run_key = ? ORDER BY sequence"
)


def snapshot(source: Path, target: Path) -> None:
    """Copy a database as it is at one moment. Raises BackupError when it cannot be read, OSError when the disk is full."""
    try:
        with closing(_reading(source)) as origin, closing(sqlite3.connect(target)) as copy:
            copy.execute("PRAGMA journal_mode=OFF")
            copy.execute("PRAGMA synchronous=OFF")  # the copy is packed at once, and the packed file is synced
            origin.backup(copy, pages=-1, progress=_patience(source), sleep=LOOK_AGAIN_SECONDS)
    except sqlite3.Error as error:
        if _is_full(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target)) from error
        if _is_locked(error):
            raise _locked(source, BUSY_SECONDS) from error
        raise BackupError(
            f"{source} cannot be copied: {error}: it is damaged or its disk fails; see velox doctor, or restore an older backup"
        ) from error


def _patience(source: Path) -> Callable[[int, int, int], None]:
    """Return what `backup` calls after each try; by itself it would wait for a lock without end."""
    until = time.monotonic() + LOCKED_SECONDS_MAX

    def tried(status: int, remaining: int, total: int) -> None:
        if status in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED) and time.monotonic() > until:
            raise _locked(source, LOCKED_SECONDS_MAX)

    return tried


def _is_full(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL or "is full" in str(error)


def _is_locked(error: sqlite3.Error) -> bool:
    primary = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the rest says which lock
    return primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _locked(source: Path, seconds: float) -> BackupError:
    return BackupError(
        f"{source} cannot be copied: another process has locked it for more than {seconds:g} s",
        f"see who has it open (fuser -v {source}), end that, then take the backup again",
    )


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
        if _is_full(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
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
        if isinstance(error, sqlite3.Error) and _is_full(error):  # of what SQLite sorts beside it
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        raise BackupError(f"{path} is no journal that can be read: {error}. Take another backup.") from error


class _Sum:
    """The checksum of a table while its rows go by as text."""

    def __init__(self) -> None:
        self._digest = sha256()
        self._rows = 0

    def add(self, rows: list[str]) -> None:
        self._digest.update("\n".join(rows).encode() + b"\n")
        self._rows += len(rows)

    def check(self) -> TableCheck:
        return TableCheck(rows=self._rows, sha256=self._digest.hexdigest())


def _checked(connection: sqlite3.Connection, table: str) -> TableCheck:
    columns = connection.execute(f'PRAGMA table_info("{table}")').fetchall()
    key = ", ".join(f'"{column[1]}"' for column in sorted(columns, key=lambda column: column[5]) if column[5])
    names = ", ".join(f'"{column[1]}"' for column in columns)
    total = _Sum()
    cursor = connection.execute(f'SELECT json_array({names}) FROM "{table}" ORDER BY {key or "rowid"}')
    while rows := cursor.fetchmany(ROWS_AT_ONCE):
        total.add([row[0] for row in rows])
    return total.check()


def _followed(
    connection: sqlite3.Connection, total: _Sum, run_key: int, scope_key: str, trading_date: str, run_id: str
) -> tuple[RunHead, str]:
    """Follow one run's chain. Its digests are added to the table's checksum: with a whole chain they stand for the rows."""
    digest, events, whole = GENESIS, 0, True
    cursor = connection.execute(_CANONICAL, (run_key,))
    while rows := cursor.fetchmany(ROWS_AT_ONCE):
        for event, stored in rows:
            digest = sha256(digest + event).digest()
            whole = whole and digest.hex() == stored
        events += len(rows)
        total.add([f"{run_key} {stored}" for _, stored in rows])
    if whole:
        return RunHead(scope_key=scope_key, trading_date=trading_date, run_id=run_id, events=events, digest=digest.hex()), ""
    events, last, problem, _ = check_chain(connection.execute(_EVENTS, (run_key,)))
    return RunHead(scope_key=scope_key, trading_date=trading_date, run_id=run_id, events=events, digest=last), problem


def _tables(connection: sqlite3.Connection) -> list[str]:
    query = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%' ORDER BY name"
    return [str(row[0]) for row in connection.execute(query)]


def _reading(path: Path) -> sqlite3.Connection:
    """Open a database that is there, to read: mode rw, since one that may only read leaves SQLite's files behind it."""
    connection = sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=rw", uri=True, timeout=BUSY_SECONDS)
    connection.execute("PRAGMA query_only=ON")
    return connection
