"""A journal on a real PostgreSQL server: saved beside a writer, verified, restored into another database, and traded on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.fakes.journals import DAY, RUN, day_events
from tests.fakes.postgresql import make_database, running_server, server_folder
from velox_core.backup.manifest import BackupError
from velox_core.journal.run import RunIdentity
from velox_core.journal.sql import SqlJournal
from velox_core.journal.verify import run_heads, verify_runs
from velox_core.operations.backup import backup_day, restore
from velox_core.operations.backup_places import verify_backups
from velox_core.operations.journal_check import day_head, verify_journals
from velox_core.settings import Paths, Settings, load_settings

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server() -> Iterator[Path]:
    programs = server_folder()
    if programs is None:
        pytest.skip("no PostgreSQL server on this machine (Debian: apt-get install postgresql)")
    pytest.importorskip("psycopg", reason="the driver is not installed: pip install velox[postgresql]")
    with running_server(programs) as folder:
        yield folder


def settings_at(url: str, folder: Path) -> Settings:
    text = (ROOT / "config" / "system_simulated.yaml").read_text(encoding="utf-8")
    text = text.replace("data/tcs_2024-01-15.csv", str(ROOT / "data" / "tcs_2024-01-15.csv"))
    path = folder / "system.yaml"
    path.write_text(f"{text.rstrip()}\n  stores: {{journal: {{url: '{url}'}}}}\n", encoding="utf-8")
    return load_settings(path, {})


def write(url: str, run: RunIdentity, count: int) -> None:
    with closing(SqlJournal(url, run)) as journal:
        for number, (kind, body) in enumerate(day_events(count), start=1):
            journal.append(kind, number * 1_000, body)
        journal.commit()


def test_journal_on_a_server_is_saved_beside_a_writer_and_restored_into_another_database(server: Path, tmp_path: Path) -> None:
    url, other_url = make_database(server, "velox"), make_database(server, "restored")
    paths = Paths(var=tmp_path / "var", logs=tmp_path / "logs")
    paths.var.mkdir()
    settings = settings_at(url, tmp_path)
    write(url, RUN, 3)
    write(url, RunIdentity(scope_key="simulated:another", trading_date=DAY), 1)
    stop, written = threading.Event(), []

    def write_on() -> None:
        run = RunIdentity(scope_key="simulated:primary:2024-01-15-2", trading_date=DAY, run_id="2024-01-15-2")
        kind, body = day_events()[2]
        with closing(SqlJournal(url, run)) as journal:
            while not stop.is_set():
                journal.append(kind, len(written) + 1, body)
                journal.commit()
                written.append(1)

    writer = threading.Thread(target=write_on)
    writer.start()
    try:
        while not written:
            assert writer.is_alive()
        outcome = backup_day(settings, paths, DAY)
        beside = len(written)
        while len(written) == beside:  # the copy's transaction has held up nobody
            assert writer.is_alive()
    finally:
        stop.set()
        writer.join()
    assert outcome.good, outcome.sentences
    assert [verdict.problems for verdict in verify_backups(settings, paths)] == [()]
    saved = {head.run_id: head for head in outcome.manifest.heads}
    assert set(saved) == {"2024-01-15-1", "2024-01-15-2"}  # and not the other account's
    assert saved["2024-01-15-1"] in run_heads(url)
    assert 0 < saved["2024-01-15-2"].events <= len(written)
    assert verify_journals(settings, paths).ok

    assert restore(settings, paths, DAY, to=other_url, dry_run=True).done is False
    assert restore(settings, paths, DAY, to=other_url).done
    assert run_heads(other_url) == list(outcome.manifest.heads)
    assert [verdict.problem for verdict in verify_runs(other_url)] == ["", ""]
    assert day_head(settings_at(other_url, tmp_path), paths, DAY) == outcome.head
    with pytest.raises(BackupError, match="has runs already"):
        restore(settings, paths, DAY, to=other_url)
    write(other_url, RunIdentity(scope_key="simulated:primary", trading_date=DAY), 1)  # keys go on behind the loaded ones
    assert len(run_heads(other_url)) == 3


def test_server_that_is_gone_makes_an_incomplete_backup_with_the_place_and_no_password(server: Path, tmp_path: Path) -> None:
    paths = Paths(var=tmp_path / "var", logs=tmp_path / "logs")
    paths.var.mkdir()
    outcome = backup_day(settings_at(f"postgresql://velox@/velox?host={tmp_path}/gone", tmp_path), paths, DAY)
    assert outcome.name.endswith(".incomplete")
    assert outcome.exit_code == 1
    assert "server/journal.db" in outcome.manifest.missing[0]
    assert "journal postgresql+psycopg://velox@" in outcome.manifest.missing[0]
