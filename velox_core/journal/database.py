"""Opening the journal's database: settings, creation, migration, and a clear refusal of what cannot be trusted.

- SQLite: WAL, `synchronous=FULL`, foreign keys on, a busy time-out; transactions of a writer begin IMMEDIATE.
- A new file is built under another name and linked into place, so that nobody ever sees half a journal.
- A database at the head revision is opened without importing alembic; an older one is migrated, an unknown one refused.
- An empty, truncated or foreign file is refused: a journal that was lost must not come back as a new one.
- PostgreSQL goes the same way by its URL, without the file checks.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from velox_core.domain.errors import JournalUnavailable
from velox_core.journal.schema import HEAD_REVISION, JournalTable

BUSY_TIMEOUT_MS = 5_000
_SQLITE_MAGIC = b"SQLite format 3\x00"
_VERSION_TABLE = "alembic_version"
_READS = "velox_reads"


def open_database(
    url: str, *, busy_timeout_ms: int = BUSY_TIMEOUT_MS, writer: bool = True, create: bool = True, check: bool = False
) -> Engine:
    """Return an engine on a journal at the head revision.

    Args:
        url: SQLAlchemy URL; `sqlite:////path/journal.db` or `postgresql://…`.
        busy_timeout_ms: how long SQLite waits for another writer.
        writer: create and migrate if need be, and begin transactions IMMEDIATE. A reader does neither.
        create: False has a writer migrate what is there, and refuse what is missing or empty.
        check: read the whole file first (about 1 ms for each MB).
    Raises: JournalUnavailable that says what is wrong and what to do.
    """
    try:
        parsed = make_url(url)
        if parsed.drivername == "postgresql":  # else the driver before psycopg 3 is looked for
            parsed = parsed.set(drivername="postgresql+psycopg")
        path = _sqlite_path(url)
        if path is not None:
            _check_file(path, create=writer and create)
        engine = create_engine(parsed, poolclass=NullPool)
    except (ArgumentError, ImportError, ValueError) as error:
        raise JournalUnavailable(f"stores.journal.url cannot be used: {error}") from error
    if path is not None:
        _configure_sqlite(engine, busy_timeout_ms, writer=writer)
    with contextlib.ExitStack() as on_failure:
        on_failure.callback(engine.dispose)
        try:
            if check and path is not None:
                _quick_check(engine, path)
            _bring_to_head(engine, writer=writer, create=writer and create)
        except SQLAlchemyError as error:
            raise unavailable(engine, "open", error) from error
        on_failure.pop_all()
    return engine


def connect_to_read(engine: Engine) -> Connection:
    """Return a connection that holds up no writer, whatever the engine is for."""
    return engine.connect().execution_options(**{_READS: True})


def place_of(engine: Engine) -> str:
    """Return the database for people: a file, or an address without the password."""
    return f"journal {engine.url.database}" if engine.dialect.name == "sqlite" else f"journal {engine.url.render_as_string()}"


def unavailable(engine: Engine, doing: str, error: SQLAlchemyError) -> JournalUnavailable:
    """Return the error to raise for a database that failed while `doing` something."""
    said = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
    remedies = (
        ("malformed", "it is damaged: restore a backup, or move it away to begin a new one"),
        ("not a database", "it is damaged: restore a backup, or move it away to begin a new one"),
        ("disk I/O error", "its disk fails or the file was cut off: free or repair the disk, or restore a backup"),
        ("disk is full", "free some disk space"),
        ("locked", "another process holds it: wait, or end that process"),
        ("readonly", "make the file and its folder writable"),
        ("unable to open", "make its folder exist and be writable"),
        ("no such table", "it is not a whole journal: restore a backup, or move it away"),
    )
    remedy = next((text_ for sign, text_ in remedies if sign in said), "see the database's own log")
    return JournalUnavailable(f"cannot {doing} {place_of(engine)}: {said}: {remedy}")


class WrittenFile:
    """The file of a SQLite database while it is written: its name must go on leading to it. A server has none."""

    def __init__(self, engine: Engine) -> None:
        self._path = _sqlite_path(engine.url.render_as_string(hide_password=False))
        self._identity = None if self._path is None else _identity(self._path)

    def check(self) -> None:
        """Raise JournalUnavailable when the file was removed or replaced: what is written to it now, nobody else can read."""
        if self._path is not None and _identity(self._path) != self._identity:
            raise JournalUnavailable(
                f"{self._path} was removed or replaced while it was written: put the file back, or end the engine "
                "(velox stop), look at the broker's book, and begin another run with --fresh"
            )


def _identity(path: Path) -> tuple[int, int] | None:
    """Return what stays the same while a name leads to the same file; None when it leads nowhere."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _sqlite_path(url: str) -> Path | None:
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        return None
    if not parsed.database or parsed.database == ":memory:":
        raise JournalUnavailable("stores.journal.url names no file: a journal in memory would not survive the process")
    return Path(parsed.database)


def _check_file(path: Path, *, create: bool) -> None:
    """Refuse what is no journal, and create one where there is none. Raises JournalUnavailable."""
    try:
        with path.open("rb") as file:
            magic = file.read(len(_SQLITE_MAGIC))
    except FileNotFoundError:
        if not create:
            raise JournalUnavailable(
                f"there is no journal at {path}: nothing has run yet, or VELOX__VAR points elsewhere"
            ) from None
        _create_file(path)
        return
    except OSError as error:
        raise JournalUnavailable(f"cannot read the journal {path}: {error.strerror}: correct its rights") from error
    if magic != _SQLITE_MAGIC:
        what = "is empty" if not magic else "is not a journal"
        raise JournalUnavailable(
            f"{path} {what}: it was cut off or overwritten; restore a backup, or move it away to begin a new one"
        )


def _create_file(path: Path) -> None:
    """Build a new journal beside its place and link it there, unless another process was faster."""
    if Path(f"{path}-wal").exists():
        raise JournalUnavailable(f"{path} is gone but {path.name}-wal is there: restore a backup, or move that file away too")
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh.unlink(missing_ok=True)
        engine = create_engine(f"sqlite:///{fresh}", poolclass=NullPool)
        with engine.begin() as connection:
            _create_schema(connection)
        engine.dispose()
        with contextlib.suppress(FileExistsError):
            os.link(fresh, path)
        fresh.unlink()
    except (OSError, SQLAlchemyError) as error:
        raise JournalUnavailable(
            f"cannot create the journal {path}: {error}: make its folder writable, free the disk"
        ) from error


def _create_schema(connection: Connection) -> None:
    """Create the head schema at once; a test holds it equal to what the migrations make."""
    JournalTable.metadata.create_all(connection)
    connection.execute(text(f"CREATE TABLE {_VERSION_TABLE} (version_num VARCHAR(32) NOT NULL PRIMARY KEY)"))
    connection.execute(text(f"INSERT INTO {_VERSION_TABLE} VALUES (:revision)"), {"revision": HEAD_REVISION})


def _configure_sqlite(engine: Engine, busy_timeout_ms: int, *, writer: bool) -> None:
    @event.listens_for(engine, "connect")
    def _settings(dbapi_connection: Any, _record: object) -> None:
        dbapi_connection.isolation_level = None  # we say BEGIN ourselves
        cursor = dbapi_connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout={busy_timeout_ms}")
        if writer:
            cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        reads = not writer or connection.get_execution_options().get(_READS, False)
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


def _quick_check(engine: Engine, path: Path) -> None:
    with connect_to_read(engine) as connection:
        verdict = str(connection.exec_driver_sql("PRAGMA quick_check(1)").scalar())
    if verdict != "ok":
        raise JournalUnavailable(
            f"the journal {path} is damaged ({verdict}): restore a backup, or move it away to begin a new one"
        )


def _revision(connection: Connection) -> str | None:
    """Return the stored revision, None for a database without one."""
    if not inspect(connection).has_table(_VERSION_TABLE):
        return None
    found = connection.exec_driver_sql(f"SELECT version_num FROM {_VERSION_TABLE}").scalar()
    return None if found is None else str(found)


def _bring_to_head(engine: Engine, *, writer: bool, create: bool) -> None:
    with connect_to_read(engine) as connection:
        revision = _revision(connection)
    if revision == HEAD_REVISION:
        return
    if revision is None and not create:
        raise JournalUnavailable(
            f"{place_of(engine)} is empty: it was removed, or made by another program, and what was recorded before is not in "
            "it. End an engine that still runs, then restore a backup; without one the next `velox run` begins it anew and "
            "asks the broker what is open"
        )
    if not writer:
        raise JournalUnavailable(
            f"{place_of(engine)} has revision {revision}, this VELOX reads {HEAD_REVISION}: open it once with the engine "
            "(an older one is migrated), or update VELOX (for a newer one)"
        )
    from velox_core.journal.migrate import upgrade  # alembic takes half a second: only when there is something to do

    upgrade(engine)
