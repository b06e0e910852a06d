"""The schema and its migrations: the same tables both ways, old journals brought up, unknown ones refused."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import date
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateIndex, CreateTable

from velox_core.domain.errors import JournalUnavailable
from velox_core.domain.events import EventKind
from velox_core.journal.database import open_database
from velox_core.journal.migrate import alembic_config, upgrade
from velox_core.journal.queries import JournalReader
from velox_core.journal.run import RunIdentity
from velox_core.journal.schema import HEAD_REVISION, JournalTable
from velox_core.journal.sql import SqlJournal

RUN = RunIdentity(scope_key="simulated:primary", trading_date=date(2024, 1, 15))


def migrated(path: Path, revision: str = "head") -> Path:
    """Create a database by the migrations alone."""
    engine = create_engine(f"sqlite:///{path}")
    upgrade(engine, revision)
    engine.dispose()
    return path


def schema(path: Path) -> dict[str, tuple[object, ...]]:
    """What SQLite itself says about tables, columns, keys and indexes; without the order of the text."""
    with closing(sqlite3.connect(path)) as connection:
        names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type='table' ORDER BY name")]
        found: dict[str, tuple[object, ...]] = {}
        for name in names:
            columns = sorted(row[1:] for row in connection.execute(f"PRAGMA table_info({name})"))
            foreign = sorted(row[2:5] for row in connection.execute(f"PRAGMA foreign_key_list({name})"))
            text = connection.execute("SELECT sql FROM sqlite_master WHERE type='table' AND name=?", (name,)).fetchone()[0]
            found[name] = (columns, foreign, "WITHOUT ROWID" in text, "uq_run_identity" in text)
        indexes = connection.execute("SELECT name, sql FROM sqlite_master WHERE type='index' AND sql IS NOT NULL")
        found["indexes"] = tuple(sorted(indexes.fetchall()))
    return found


def test_migrations_make_the_schema_that_a_new_journal_has(tmp_path: Path) -> None:
    open_database(f"sqlite:///{tmp_path / 'new.db'}").dispose()
    assert schema(migrated(tmp_path / "migrated.db")) == schema(tmp_path / "new.db")


def test_migrations_leave_nothing_for_autogenerate(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{migrated(tmp_path / 'journal.db')}")
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), JournalTable.metadata) == []
    engine.dispose()


def test_head_revision_is_the_newest_migration() -> None:
    assert ScriptDirectory.from_config(alembic_config()).get_heads() == [HEAD_REVISION]


def test_migrations_can_go_back_to_nothing(tmp_path: Path) -> None:
    from alembic import command

    engine = create_engine(f"sqlite:///{migrated(tmp_path / 'journal.db')}")
    config = alembic_config()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
    engine.dispose()
    assert set(schema(tmp_path / "journal.db")) == {"alembic_version", "indexes"}


def test_journal_of_an_older_revision_is_migrated_and_keeps_its_events(tmp_path: Path) -> None:
    path = migrated(tmp_path / "journal.db", "0001")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(
            "INSERT INTO run VALUES (1, 'simulated:primary', '2024-01-15', '', 'replay', '', '', 0, NULL, 'RUNNING')"
        )
        connection.commit()
    journal = SqlJournal(f"sqlite:///{path}", RUN)
    journal.append(EventKind.MARK, 1, {"loss": 1})
    journal.commit()
    journal.close()
    reader = JournalReader(f"sqlite:///{path}")
    assert journal.run_key == 1
    assert reader.session_summary(1) is None
    assert reader.verify_chain(1) is None
    reader.close()


def test_reader_does_not_migrate_an_older_journal(tmp_path: Path) -> None:
    path = migrated(tmp_path / "journal.db", "0001")
    with pytest.raises(JournalUnavailable, match="revision 0001"):
        JournalReader(f"sqlite:///{path}")
    assert "day_pass" not in schema(path)


def test_journal_of_an_unknown_revision_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = migrated(tmp_path / "journal.db")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()
    before = schema(path)
    with pytest.raises(JournalUnavailable, match="newer VELOX"):
        SqlJournal(f"sqlite:///{path}", RUN)
    assert schema(path) == before


def test_database_of_another_program_is_refused_or_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE run (whatever TEXT)")
        connection.commit()
    with pytest.raises(JournalUnavailable):
        SqlJournal(f"sqlite:///{path}", RUN)
    assert set(schema(path)) == {"run", "indexes"}


def test_migration_works_from_any_folder_without_an_ini_file(tmp_path: Path) -> None:
    path = migrated(tmp_path / "journal.db", "0001")
    code = f"from velox_core.journal.database import open_database; open_database('sqlite:///{path}')"
    root = Path(__file__).resolve().parents[3]
    environ = {**os.environ, "PYTHONPATH": str(root)}
    subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=tmp_path, env=environ, check=True)
    assert "day_pass" in schema(path)


def test_schema_and_statements_can_be_said_in_postgresql() -> None:
    dialect = postgresql.dialect()
    tables = JournalTable.metadata.sorted_tables
    said = "\n".join(str(CreateTable(table).compile(dialect=dialect)) for table in tables)
    indexes = [str(CreateIndex(index).compile(dialect=dialect)) for table in tables for index in table.indexes]
    assert "ts_ms BIGINT NOT NULL" in said
    assert "WITHOUT ROWID" not in said
    assert any("UNIQUE" in index and "WHERE role = 'ENTRY' AND live" in index for index in indexes)
