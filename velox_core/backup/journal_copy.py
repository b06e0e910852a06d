"""A journal on a database server, saved as a SQLite journal and loaded from one (ADR 0049).

- An account's rows alone: its scope's and its runs'; in one transaction that sees one moment.
- The copy is a whole journal of the same revision. So it is packed, verified, read and restored as any other journal, without
  a server and without the server's own tools.
- Loading wants a database without runs; what is in it already is never overwritten.
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Engine, Table, func, insert, or_, select, text
from sqlalchemy.exc import SQLAlchemyError

from velox_core.backup.manifest import BackupError
from velox_core.journal.database import connect_to_read, open_database, place_of, unavailable
from velox_core.journal.schema import JournalTable

ROWS_AT_ONCE: Final = 2_000
_TABLES: Final = JournalTable.metadata.sorted_tables
_RUN: Final = JournalTable.metadata.tables["run"]
_COUNTED: Final = (("run", "run_key"), ("checklist", "checklist_key"), ("approval", "approval_key"))  # a server counts these up


def save_server_journal(url: str, scope_key: str, target: Path) -> None:
    """Copy an account's rows from a server into a new SQLite journal. Raises JournalUnavailable."""
    server = open_database(url, create=False)  # of an older revision it is migrated first
    try:
        with connect_to_read(server) as reading:
            if server.dialect.name != "sqlite":
                reading = reading.execution_options(isolation_level="REPEATABLE READ")
            with reading.begin():
                _fill(reading, open_database(f"sqlite:///{target}"), scope_key)
    except SQLAlchemyError as error:
        raise unavailable(server, "copy", error) from error
    finally:
        server.dispose()


def load_server_journal(source: Path, url: str) -> int:
    """Load a saved journal into a database without runs, in one transaction. Returns the number of its runs.

    Raises: BackupError when the database has runs already; JournalUnavailable.
    """
    server = open_database(url)
    copy = open_database(f"sqlite:///{source}")  # a copy of an older revision is migrated
    try:
        with connect_to_read(copy) as reading, reading.begin(), server.begin() as writing:
            if writing.execute(select(func.count()).select_from(_RUN)).scalar():
                raise BackupError(f"{place_of(server)} has runs already: name a database without any")
            for table in _TABLES:
                _copy_rows(reading, writing, table, select(table))
            if server.dialect.name == "postgresql":
                for table_name, column in _COUNTED:
                    highest = f"SELECT coalesce(max({column}), 0) + 1 FROM {table_name}"
                    writing.execute(
                        text(f"SELECT setval(pg_get_serial_sequence('{table_name}', '{column}'), ({highest}), false)")
                    )
            return int(writing.execute(select(func.count()).select_from(_RUN)).scalar_one())
    except SQLAlchemyError as error:
        raise unavailable(server, "load", error) from error
    finally:
        copy.dispose()
        server.dispose()


def _fill(reading: Connection, target: Engine, scope_key: str) -> None:
    try:
        with target.begin() as writing:
            for table in _TABLES:
                _copy_rows(reading, writing, table, select(table).where(_of_scope(table, scope_key)))
    finally:
        target.dispose()


def _of_scope(table: Table, scope_key: str) -> Any:
    if "scope_key" in table.c:
        return or_(table.c.scope_key == scope_key, table.c.scope_key.startswith(f"{scope_key}:", autoescape=True))
    return table.c.run_key.in_(select(_RUN.c.run_key).where(_of_scope(_RUN, scope_key)))


def _copy_rows(reading: Connection, writing: Connection, table: Table, query: Any) -> None:
    rows = (dict(row) for row in reading.execute(query).mappings())
    while batch := list(islice(rows, ROWS_AT_ONCE)):
        writing.execute(insert(table), batch)
