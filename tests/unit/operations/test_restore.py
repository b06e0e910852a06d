"""Putting a backup back: what is newer stays, nothing is deleted, and a damaged backup changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.fakes.journals import DAY, RUN, RUN_ID, tamper, write_journal
from velox_core.backup import redis_copy, store
from velox_core.backup import restore as restoring
from velox_core.backup.folder_place import FolderDestination
from velox_core.backup.journal_copy import load_server_journal, save_server_journal
from velox_core.backup.manifest import BackupError
from velox_core.brokers.book import SqliteBook
from velox_core.domain.events import EventKind
from velox_core.engine_lock import EngineLock
from velox_core.journal.run import RunIdentity
from velox_core.journal.verify import run_heads, verify_runs
from velox_core.operations.backup import RestoreOutcome, backup_day, restore
from velox_core.settings import Paths, Settings

Load = Callable[..., Settings]
RUN_FOLDER = f"replay/primary/{RUN_ID}"


@pytest.fixture
def settings(settings_with: Load) -> Settings:
    return settings_with()


@pytest.fixture
def run(paths: Paths, settings: Settings) -> Path:
    """Return the folder of a run that has a backup."""
    folder = paths.var / RUN_FOLDER
    write_journal(folder / "journal.db", count=2)
    SqliteBook(folder / "broker.db").close()
    (folder / "halt.jsonl").write_text('{"halt_id": "h1"}\n')
    (folder / "run.json").write_text('{"state": "BEGUN"}')
    assert backup_day(settings, paths, DAY).good
    return folder


def actions(outcome: RestoreOutcome) -> dict[str, str]:
    return {step.target.name: step.action.value for step in outcome.steps}


def journal_url(run: Path) -> str:
    return f"sqlite:///{run / 'journal.db'}"


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.suffix != ".lock"}


def test_restore_of_what_is_there_already_changes_nothing(run: Path, settings: Settings, paths: Paths) -> None:
    before = content(run)
    outcome = restore(settings, paths, DAY)
    assert set(actions(outcome).values()) == {"same"}
    assert outcome.moved == ()
    assert content(run) == before


def test_journal_that_is_gone_comes_back_whole(run: Path, settings: Settings, paths: Paths) -> None:
    heads = run_heads(journal_url(run))
    (run / "journal.db").unlink()
    stray = run / "journal.db-wal"
    stray.write_bytes(b"of the lost file")
    dry = restore(settings, paths, DAY, dry_run=True)
    assert actions(dry)["journal.db"] == "replace"
    assert not dry.done
    assert not (run / "journal.db").exists()
    outcome = restore(settings, paths, DAY)
    assert run_heads(journal_url(run)) == heads
    assert [verdict.problem for verdict in verify_runs(journal_url(run), heads)] == [""]
    assert len(outcome.moved) == 1  # not beside a database that it does not belong to
    assert [path.read_bytes() for path in (paths.var / "moved-aside").rglob("journal.db-wal")] == [b"of the lost file"]


def test_damaged_journal_is_moved_aside_and_replaced(run: Path, settings: Settings, paths: Paths) -> None:
    damaged = run / "journal.db"
    with damaged.open("r+b") as file:
        file.seek(5 * 4096)
        file.write(b"\xff" * 4096)
    kept = damaged.read_bytes()
    (run / "run.json").write_text('{"state": "CLOSED"}')
    outcome = restore(settings, paths, DAY)
    assert actions(outcome) == {"journal.db": "replace", "broker.db": "same", "halt.jsonl": "same", "run.json": "replace"}
    assert [path.read_bytes() for path in (paths.var / "moved-aside").rglob("journal.db")] == [kept]
    assert (run / "run.json").read_text() == '{"state": "BEGUN"}'
    assert verify_runs(journal_url(run))[0].problem == ""


def test_journal_that_is_newer_stays_unless_it_is_asked_for_in_so_many_words(
    run: Path, settings: Settings, paths: Paths
) -> None:
    saved = run_heads(journal_url(run))
    write_journal(run / "journal.db", events=[(EventKind.MARK, {"realised": 9})])
    newer = run_heads(journal_url(run))
    before = content(run)
    with pytest.raises(BackupError, match=r"is newer than 2024-01-15.*run 2024-01-15-1 has .* events.*--force"):
        restore(settings, paths, DAY)
    assert content(run) == before
    assert actions(restore(settings, paths, DAY, dry_run=True))["journal.db"] == "newer"
    restore(settings, paths, DAY, force=True)
    assert run_heads(journal_url(run)) == saved
    (aside,) = (paths.var / "moved-aside").rglob("journal.db")
    assert run_heads(f"sqlite:///{aside}") == newer


def test_book_with_more_orders_is_newer_too(run: Path, settings: Settings, paths: Paths) -> None:
    tamper(run / "broker.db", "INSERT INTO prices VALUES ('TCS', 390000)")
    with pytest.raises(BackupError, match="table prices has 1 rows, the backup 0"):
        restore(settings, paths, DAY)


def test_halt_file_that_is_there_is_never_replaced(run: Path, settings: Settings, paths: Paths) -> None:
    (run / "halt.jsonl").write_text('{"halt_id": "h1"}\n{"halt_id": "h2"}\n')
    (run / "journal.db").unlink()
    outcome = restore(settings, paths, DAY, force=True)
    assert actions(outcome)["halt.jsonl"] == "keep"
    assert "h2" in (run / "halt.jsonl").read_text()
    (run / "halt.jsonl").unlink()
    restore(settings, paths, DAY)
    assert (run / "halt.jsonl").read_text() == '{"halt_id": "h1"}\n'


def test_restore_while_an_engine_or_a_backup_works_is_refused(run: Path, settings: Settings, paths: Paths) -> None:
    (run / "journal.db").unlink()
    lock = EngineLock(paths.var / "replay" / "primary" / "2024-01-16-1" / "engine.lock")  # any run of the account
    try:
        with pytest.raises(BackupError, match="an engine works in"):
            restore(settings, paths, DAY)
    finally:
        lock.release()
    with store.alone(paths.var / "simulated" / "primary"), pytest.raises(BackupError, match="another backup or restore"):
        restore(settings, paths, DAY)
    assert not (run / "journal.db").exists()
    assert restore(settings, paths, DAY).done


def test_backup_that_was_damaged_restores_nothing_at_all(run: Path, settings: Settings, paths: Paths) -> None:
    (run / "journal.db").unlink()
    (run / "run.json").unlink()
    packed = paths.var / "backups" / "simulated" / "primary" / "2024-01-15" / RUN_FOLDER / "run.json.zst"
    packed.write_bytes(packed.read_bytes()[:-1])
    with pytest.raises(BackupError, match=r"run\.json\.zst of 2024-01-15 cannot be used.*Nothing was changed"):
        restore(settings, paths, DAY)
    assert not (run / "journal.db").exists()


def test_restore_that_breaks_off_goes_on_when_it_is_repeated(
    run: Path, settings: Settings, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    (run / "journal.db").unlink()
    (run / "run.json").unlink()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(restoring, "sync_folder", full)
        with pytest.raises(BackupError, match="No space left on device: free its disk"):
            restore(settings, paths, DAY)
    outcome = restore(settings, paths, DAY)
    assert actions(outcome) == {"journal.db": "same", "broker.db": "same", "halt.jsonl": "same", "run.json": "restore"}


def test_restore_into_an_empty_folder_holds_everything_and_is_a_var_of_its_own(
    run: Path, settings: Settings, paths: Paths, tmp_path: Path
) -> None:
    folder = tmp_path / "elsewhere"
    outcome = restore(settings, paths, DAY, to=str(folder))
    assert outcome.done
    assert run_heads(f"sqlite:///{folder / RUN_FOLDER / 'journal.db'}") == run_heads(journal_url(run))
    assert (folder / "config/config/charges.yaml").read_bytes() == Path("config/charges.yaml").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []
    with pytest.raises(BackupError, match="is not empty"):
        restore(settings, paths, DAY, to=str(folder))


def test_incomplete_backup_is_restored_only_when_it_is_named(run: Path, settings: Settings, paths: Paths) -> None:
    FolderDestination(paths.var / "backups" / "simulated" / "primary").remove("2024-01-15")
    (run / "broker.db").write_bytes(b"no database")
    name = backup_day(settings, paths, DAY).name
    (run / "journal.db").unlink()
    with pytest.raises(BackupError, match=r"no good backup of 2024-01-15: 2024-01-15\.incomplete in .* is incomplete"):
        restore(settings, paths, DAY)
    assert actions(restore(settings, paths, DAY, name=name))["journal.db"] == "restore"


# -- a journal on a server (any database that SQLAlchemy speaks to) --------------------------------------------------


def test_server_journal_is_saved_account_by_account_and_loaded_into_an_empty_database(tmp_path: Path) -> None:
    server, copy, other = tmp_path / "server.db", tmp_path / "copy.db", tmp_path / "other.db"
    write_journal(server, count=2)
    write_journal(server, RunIdentity(scope_key="simulated:primary", trading_date=DAY), count=1)
    write_journal(server, RunIdentity(scope_key="simulated:primary_2", trading_date=DAY), count=1)
    save_server_journal(f"sqlite:///{server}", "simulated:primary", copy)
    saved = run_heads(f"sqlite:///{copy}")
    assert saved == run_heads(f"sqlite:///{server}")[:2]
    assert [verdict.problem for verdict in verify_runs(f"sqlite:///{copy}")] == ["", ""]
    assert load_server_journal(copy, f"sqlite:///{other}") == 2
    assert run_heads(f"sqlite:///{other}") == saved
    with pytest.raises(BackupError, match="has runs already"):
        load_server_journal(copy, f"sqlite:///{other}")


def test_journal_of_a_server_is_part_of_the_backup_and_goes_back_into_a_database(
    settings_with: Load, paths: Paths, tmp_path: Path
) -> None:
    server = tmp_path / "server.db"
    write_journal(server, RUN, count=2)
    settings = settings_with(f"\n  stores: {{journal: {{url: 'sqlite:///{server}'}}}}\n")
    outcome = backup_day(settings, paths, DAY)
    assert outcome.good
    assert outcome.manifest.heads == tuple(run_heads(f"sqlite:///{server}"))
    target = tmp_path / "target.db"
    assert restore(settings, paths, DAY, to=f"sqlite:///{target}").done
    assert run_heads(f"sqlite:///{target}") == run_heads(f"sqlite:///{server}")
    server.unlink()
    lost = backup_day(settings, paths, DAY)
    assert lost.name == "2024-01-15-2.incomplete"
    assert "there is no journal" in lost.manifest.missing[0]
    with closing(SqliteBook(paths.var / RUN_FOLDER / "broker.db")):
        pass
    assert restore(settings, paths, DAY, dry_run=True).steps == ()


def test_restore_on_a_machine_whose_redis_cannot_load_the_dump_brings_everything_all_the_same(
    run: Path, settings: Settings, paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(folder: Path, scope_key: str, target: Path) -> dict[str, object]:
        target.write_bytes(b"a dump of a newer server")
        return {"method": "BGSAVE", "redis": "9.0.0", "keys": []}

    (paths.var / "redis").mkdir()
    monkeypatch.setattr(redis_copy, "save_embedded", save)
    monkeypatch.setattr(redis_copy, "check", lambda saved, notes: "")
    name = backup_day(settings, paths, DAY).name
    monkeypatch.setattr(redis_copy, "check", lambda saved, notes: "a scratch redis-server does not load it")
    folder = tmp_path / "elsewhere"
    assert restore(settings, paths, DAY, to=str(folder)).done
    assert (folder / "redis-dump" / "dump.rdb").read_bytes() == b"a dump of a newer server"
    stored = paths.var / "backups" / "simulated" / "primary" / name / "redis-dump" / "dump.rdb.zst"
    stored.write_bytes(stored.read_bytes()[:-1] + b"!")
    with pytest.raises(BackupError, match=r"dump\.rdb\.zst of .* cannot be used"):
        restore(settings, paths, DAY, to=str(tmp_path / "again"))
