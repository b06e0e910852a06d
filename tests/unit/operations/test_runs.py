"""Commands that read a run whose journal was lost: they say so, and create none."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import date

import pytest
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from velox_core.domain.errors import JournalUnavailable
from velox_core.domain.scope import Scope
from velox_core.journal.database import open_database
from velox_core.journal.migrate import upgrade
from velox_core.journal.queries import JournalReader
from velox_core.operations.recorded import RecordedRun
from velox_core.operations.runs import export_run, load_report, write_report
from velox_core.runs import RunState, run_folder, write_state
from velox_core.settings import Paths, Settings

Load = Callable[..., Settings]
DAY = date(2024, 1, 15)


@pytest.fixture
def recorded(paths: Paths) -> RecordedRun:
    run = run_folder(paths.var, Scope(broker_type="simulated", account="primary"), "2024-01-15-1")
    write_state(run.folder, RunState.BEGUN)
    return RecordedRun(run=run, trading_date=DAY)


@pytest.mark.parametrize(
    "command",
    [
        load_report,
        lambda settings, recorded: write_report(settings, recorded, {}),
        lambda settings, recorded: export_run(settings, recorded, recorded.folder / "export.jsonl"),
    ],
    ids=["report", "report to keep", "export"],
)
def test_commands_on_a_run_whose_journal_is_gone_fail_and_create_none(
    command: Callable[[Settings, RecordedRun], object], recorded: RecordedRun, settings_with: Load
) -> None:
    with pytest.raises(JournalUnavailable, match="there is no journal"):
        command(settings_with(), recorded)
    assert [path.name for path in recorded.folder.iterdir()] == ["run.json"]


def test_report_of_a_run_whose_journal_is_new_says_what_was_lost_and_begins_no_run(
    recorded: RecordedRun, settings_with: Load
) -> None:
    url = f"sqlite:///{recorded.folder / 'journal.db'}"
    open_database(url).dispose()
    with pytest.raises(JournalUnavailable, match=r"does not know the run.*Restore a backup"):
        load_report(settings_with(), recorded)
    with closing(JournalReader(url)) as reader:
        assert reader.latest_run(DAY, scope_key=recorded.run.scope.key) is None


def test_report_of_a_run_whose_journal_is_empty_says_so_and_leaves_it_empty(recorded: RecordedRun, settings_with: Load) -> None:
    path = recorded.folder / "journal.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
    with pytest.raises(JournalUnavailable, match=r"is empty: it was removed.*restore a backup"):
        load_report(settings_with(), recorded)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)


def test_report_of_a_run_in_an_older_journal_migrates_it_first(recorded: RecordedRun, settings_with: Load) -> None:
    url = f"sqlite:///{recorded.folder / 'journal.db'}"
    older = create_engine(url, poolclass=NullPool)
    upgrade(older, "0001")
    older.dispose()
    with pytest.raises(JournalUnavailable, match="does not know the run"):
        load_report(settings_with(), recorded)
    JournalReader(url).close()  # a reader opens only what is at the head revision
