"""Backups of a day: what is in them, what is found when something is wrong, and that no half one has a good name."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import fsspec
import pytest
import zstandard
from fsspec.implementations.memory import MemoryFileSystem

from tests.fakes.journals import DAY, RUN_ID, day_events, tamper, write_journal
from velox_core.backup import folder_place, make, proof, room, store
from velox_core.backup.folder_place import FolderDestination
from velox_core.backup.manifest import BackupError, read_manifest
from velox_core.backup.naming import MANIFEST_FILE
from velox_core.backup.packing import unpack
from velox_core.backup.url_place import UrlDestination
from velox_core.brokers.book import SqliteBook
from velox_core.journal.schema import HEAD_REVISION
from velox_core.journal.verify import head_of_day, run_heads
from velox_core.operations.backup import backup_day, restore
from velox_core.operations.backup_places import list_backups, verify_backups
from velox_core.settings import Paths, Settings, load_settings

Load = Callable[..., Settings]
pytestmark = pytest.mark.usefixtures("places_here")
RUN_FOLDER = f"replay/primary/{RUN_ID}"


@pytest.fixture
def run(paths: Paths) -> Path:
    """Return the folder of a run with journal, book, halt file and status."""
    folder = paths.var / RUN_FOLDER
    write_journal(folder / "journal.db", count=3)
    SqliteBook(folder / "broker.db").close()
    (folder / "halt.jsonl").write_text('{"halt_id": "h1"}\n')
    (folder / "status.json").write_text("{}")
    (folder / "engine.lock").write_text("not saved")
    return folder


def stored(paths: Paths) -> Path:
    return paths.var / "backups" / "simulated" / "primary"


def names(paths: Paths) -> list[str]:
    return sorted(path.name for path in stored(paths).iterdir())


# -- what is in it -------------------------------------------------------------------------------------------------


def test_backup_holds_the_days_stores_and_says_so_in_its_manifest(run: Path, settings_with: Load, paths: Paths) -> None:
    settings = settings_with()
    outcome = backup_day(settings, paths, DAY)
    assert (outcome.name, outcome.good, outcome.exit_code) == ("2024-01-15", True, 0)
    manifest = read_manifest((stored(paths) / outcome.name / MANIFEST_FILE).read_bytes(), "it")
    assert manifest == outcome.manifest
    assert manifest.verified
    assert manifest.verified_wall_ms >= manifest.made_wall_ms > 0
    assert manifest.config_hash == settings.config_hash
    assert {"velox", "python", "sqlite", "zstandard"} <= set(manifest.versions)
    parts = {part.path: part for part in manifest.parts}
    assert {f"{RUN_FOLDER}/{name}.zst" for name in ("journal.db", "broker.db", "halt.jsonl", "status.json")} <= set(parts)
    assert f"{RUN_FOLDER}/engine.lock.zst" not in parts
    assert {"config/config/charges.yaml.zst", "config/config/nse_calendar.yaml.zst", "config/config/system.yaml.zst"} <= set(
        parts
    )
    journal = parts[f"{RUN_FOLDER}/journal.db.zst"]
    assert journal.revision == HEAD_REVISION
    assert journal.tables["event"].rows == len(day_events(3))
    assert journal.tables["fill"].rows == 3
    heads = run_heads(f"sqlite:///{run / 'journal.db'}")
    assert list(journal.heads) == heads
    assert manifest.head == head_of_day(heads) == outcome.head
    assert sorted(path.name for path in stored(paths).iterdir()) == ["2024-01-15"]
    assert not (paths.var / "simulated" / "primary" / store.STAGING).exists()


def test_backup_taken_again_gets_the_next_number_and_the_older_one_of_the_date_goes(
    run: Path, settings_with: Load, paths: Paths
) -> None:
    first = backup_day(settings_with(), paths, DAY)
    second = backup_day(settings_with(), paths, DAY)
    assert (first.name, second.name) == ("2024-01-15", "2024-01-15-2")
    assert second.deliveries[0].removed == ("2024-01-15",)
    assert names(paths) == ["2024-01-15-2"]


def test_backup_holds_no_secret_and_leaves_a_file_with_one_out(run: Path, settings_with: Load, paths: Paths) -> None:
    secret = "hunter2-hunter2"
    source = settings_with().source
    environ = {"VELOX__METRICS__INFLUXDB__TOKEN": secret}
    assert backup_day(load_settings(source, environ), paths, DAY).good
    contents = b""
    for packed in stored(paths).rglob("*.zst"):
        unpack(packed, paths.var / "content")
        contents += (paths.var / "content").read_bytes()
        (paths.var / "content").unlink()
    assert b'"(set)"' in contents
    assert secret.encode() not in contents
    charges = source.parent / "charges.yaml"
    shutil.copyfile(Path("config/charges.yaml"), charges)
    charges.write_text(f"{charges.read_text()}# {secret}\n")
    outcome = backup_day(load_settings(source, environ), paths, DAY)
    assert outcome.name == "2024-01-15-2.incomplete"
    assert "holds a secret in plain text" in outcome.manifest.missing[0]
    assert secret not in json.dumps(outcome.to_json())


def test_backup_without_anything_to_save_but_configuration_has_no_head(settings_with: Load, paths: Paths) -> None:
    outcome = backup_day(settings_with(), paths, DAY)
    assert outcome.good
    assert outcome.head == ""


# -- what goes wrong -----------------------------------------------------------------------------------------------


def test_damaged_database_makes_an_incomplete_backup_with_everything_else(run: Path, settings_with: Load, paths: Paths) -> None:
    backup_day(settings_with(), paths, DAY)
    with (run / "journal.db").open("r+b") as file:
        file.seek(5 * 4096)
        file.write(b"\xff" * 4096)
    outcome = backup_day(settings_with(), paths, DAY)
    assert (outcome.name, outcome.good, outcome.exit_code) == ("2024-01-15-2.incomplete", False, 1)
    assert f"{RUN_FOLDER}/journal.db" in outcome.manifest.missing[0]
    assert f"{RUN_FOLDER}/broker.db.zst" in {part.path for part in outcome.manifest.parts}
    assert names(paths) == ["2024-01-15", "2024-01-15-2.incomplete"]
    assert [stored_.manifest is not None and stored_.manifest.good for stored_ in list_backups(settings_with(), paths)] == [
        True,
        False,
    ]


def test_journal_with_a_broken_chain_is_kept_and_named(run: Path, settings_with: Load, paths: Paths) -> None:
    tamper(run / "journal.db", "UPDATE event SET body = '{}' WHERE sequence = 3")
    outcome = backup_day(settings_with(), paths, DAY)
    assert "the hash chain is broken, run 2024-01-15-1: event 3 was edited" in outcome.manifest.missing[0]
    assert f"{RUN_FOLDER}/journal.db.zst" in {part.path for part in outcome.manifest.parts}
    assert not outcome.good


def test_part_that_does_not_come_back_as_it_was_is_left_out(
    run: Path, settings_with: Load, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make.pack

    def torn(source: Path, target: Path) -> object:
        packed = whole(source, target)
        if target.name == "broker.db.zst":
            target.write_bytes(target.read_bytes()[:-9])
        return packed

    monkeypatch.setattr(make, "pack", torn)
    outcome = backup_day(settings_with(), paths, DAY)
    assert "broker.db.zst" in outcome.manifest.missing[0]
    assert outcome.name.endswith(".incomplete")
    assert not list(stored(paths).rglob("broker.db.zst"))


def test_one_flipped_bit_in_any_file_of_a_backup_is_found(run: Path, settings_with: Load, paths: Paths) -> None:
    settings = settings_with()
    name = backup_day(settings, paths, DAY).name
    assert [verdict.problems for verdict in verify_backups(settings, paths)] == [()]
    files = [path for path in sorted((stored(paths) / name).rglob("*")) if path.is_file()]
    assert len(files) > 6
    for file in files:
        content = file.read_bytes()
        middle = len(content) // 2
        file.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
        (verdict,) = verify_backups(settings, paths)
        assert len(verdict.problems) == 1, file
        file.write_bytes(content)
    (stored(paths) / name / f"{RUN_FOLDER}/halt.jsonl.zst").unlink()
    (verdict,) = verify_backups(settings, paths, name=name)
    assert "halt.jsonl.zst" in verdict.problems[0]
    with pytest.raises(BackupError, match="there is no backup 2024-02-01"):
        verify_backups(settings, paths, name="2024-02-01")


def test_part_that_was_exchanged_for_another_whole_file_is_found(run: Path, settings_with: Load, paths: Paths) -> None:
    settings = settings_with()
    folder = stored(paths) / backup_day(settings, paths, DAY).name / RUN_FOLDER
    (paths.var / "other").write_text("something else")
    (folder / "status.json.zst").unlink()
    make.pack(paths.var / "other", folder / "status.json.zst")
    content = zstandard.ZstdDecompressor().decompressobj().decompress((folder / "halt.jsonl.zst").read_bytes())
    (folder / "halt.jsonl.zst").write_bytes(zstandard.ZstdCompressor(level=19).compress(content + b" ")[:-1] + b"x")
    (verdict,) = verify_backups(settings, paths)
    assert [problem.partition(": ")[2] for problem in verdict.problems if "status" in problem] == [
        "the file is not the one that was written"
    ]
    assert len(verdict.problems) == 2


def test_database_whose_rows_can_be_read_and_whose_index_is_damaged_is_found(
    run: Path, settings_with: Load, paths: Paths
) -> None:
    with closing(sqlite3.connect(run / "journal.db")) as connection:
        query = "SELECT rootpage FROM sqlite_master WHERE type = 'index' AND tbl_name = 'run' AND sql IS NULL"
        page = connection.execute(query).fetchone()[0]
        page_bytes = connection.execute("PRAGMA page_size").fetchone()[0]
    with (run / "journal.db").open("r+b") as file:
        file.seek((page - 1) * page_bytes)
        file.write(b"\xff" * page_bytes)
    outcome = backup_day(settings_with(), paths, DAY)
    assert "SQLite finds it damaged" in outcome.manifest.missing[0]
    assert not outcome.good


def test_two_backups_at_once_are_refused_with_the_process_that_works(run: Path, settings_with: Load, paths: Paths) -> None:
    with (
        store.alone(paths.var / "simulated" / "primary"),
        pytest.raises(BackupError, match=rf"another backup or restore of this account works \(process {os.getpid()}\)"),
    ):
        backup_day(settings_with(), paths, DAY)
    assert not stored(paths).exists()
    assert backup_day(settings_with(), paths, DAY).good


def test_disk_that_is_full_while_it_is_packed_leaves_nothing_behind(
    run: Path, settings_with: Load, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: Path, target: Path) -> object:
        target.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(make, "pack", full)
    monkeypatch.setattr(make, "_takes_a_file", lambda folder: False)
    with pytest.raises(BackupError, match=r"takes nothing more: No space left on device, while .* was saved, .* MB free: "):
        backup_day(settings_with(), paths, DAY)
    assert not stored(paths).exists()
    assert not (paths.var / "simulated" / "primary" / store.STAGING).exists()


def test_disk_without_room_is_told_before_anything_is_written(
    run: Path, settings_with: Load, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "free_bytes", lambda folder: 1_000)
    with pytest.raises(BackupError, match=r"MB free, a backup needs"):
        backup_day(settings_with(), paths, DAY)
    assert not stored(paths).exists()


@pytest.mark.parametrize(
    ("module", "step"),
    [
        (make, "snapshot"),
        (make, "pack"),
        (proof, "unpack"),
        (proof, "row_counts"),
        (store, "write_durably"),
        (store, "sync_tree"),
        (folder_place, "copy_durably"),
        (folder_place, "sync_tree"),
        (folder_place, "sync_folder"),
    ],
)
def test_backup_killed_at_any_step_leaves_no_half_one_with_a_good_name(
    module: object, step: str, run: Path, settings_with: Load, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_with()
    child = os.fork()
    if child == 0:
        monkeypatch.setattr(module, step, _die)
        try:
            backup_day(settings, paths, DAY)
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    listed = [each.name for each in list_backups(settings, paths) if each.unfinished is None]
    assert listed == (["2024-01-15"] if step == "sync_folder" else [])
    assert all(not verdict.problems for verdict in (verify_backups(settings, paths) if listed else []))
    assert backup_day(settings, paths, DAY).good
    assert not [path.name for path in stored(paths).iterdir() if path.name.startswith(".")]


def _die(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


# -- destinations --------------------------------------------------------------------------------------------------


class FailingStore(MemoryFileSystem):  # type: ignore[misc]
    """A store whose disk fills, or whose connection goes, after some files; or that returns something else."""

    protocol = "failing"
    store: dict[str, object] = {}  # noqa: RUF012
    pseudo_dirs = [""]  # noqa: RUF012
    files_left = 0
    error: Exception | None = None
    bends = False

    def put_file(self, lpath: str, rpath: str, **kwargs: object) -> None:
        type(self).files_left -= 1
        if self.error is not None and self.files_left < 0:
            raise self.error
        super().put_file(lpath, rpath, **kwargs)
        if self.bends:
            self.pipe_file(rpath, b"bent")


@pytest.fixture
def failing() -> type[FailingStore]:
    fsspec.register_implementation("failing", FailingStore, clobber=True)
    FailingStore.store, FailingStore.pseudo_dirs = {}, [""]
    FailingStore.files_left, FailingStore.error, FailingStore.bends = 3, None, False
    return FailingStore


def test_backup_goes_to_every_destination_and_each_can_be_verified(
    run: Path, settings_with: Load, paths: Paths, failing: type[FailingStore], tmp_path: Path
) -> None:
    extra = f"\n  backup: {{copies: ['{tmp_path / 'second'}', 'failing://far/velox']}}\n"
    settings = settings_with(extra)
    outcome = backup_day(settings, paths, DAY)
    assert outcome.good
    verdicts = verify_backups(settings, paths)
    assert [(verdict.where.rpartition("//")[2].split("/")[0], verdict.problems) for verdict in verdicts][2] == ("far", ())
    assert [verdict.problems for verdict in verdicts] == [(), (), ()]
    assert backup_day(settings, paths, DAY).deliveries[2].removed == ("2024-01-15",)
    assert UrlDestination("failing://far/velox", "simulated/primary").names() == ["2024-01-15-2"]


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), ConnectionError("reset"), RuntimeError("the store's own")]
)
def test_destination_that_fills_or_goes_half_way_is_told_and_stops_no_other(
    error: Exception, run: Path, settings_with: Load, paths: Paths, failing: type[FailingStore]
) -> None:
    failing.error = error
    settings = settings_with("\n  backup: {destination: 'failing://far', copies: [near]}\n")
    outcome = backup_day(settings, paths, DAY)
    assert (outcome.good, outcome.exit_code) == (False, 1)
    first, second = outcome.deliveries
    assert first.where in first.problem
    assert str(error.args[-1]) in first.problem
    assert second.problem == ""
    assert UrlDestination("failing://far", "simulated/primary").names() == []
    assert [key for key in failing.store if "partial" in key] == []
    assert FolderDestination(settings.root / "near" / "simulated" / "primary").names() == ["2024-01-15"]


def test_destination_that_gives_back_something_else_is_no_backup(
    run: Path, settings_with: Load, paths: Paths, failing: type[FailingStore]
) -> None:
    failing.bends = True
    (delivery,) = backup_day(settings_with("\n  backup: {destination: 'failing://far'}\n"), paths, DAY).deliveries
    assert "was read back as something else" in delivery.problem
    assert UrlDestination("failing://far", "simulated/primary").names() == []


@pytest.mark.parametrize("place", ["shared", "failing://far/velox"])
def test_hosts_that_share_a_place_take_nothing_from_each_other(
    place: str, run: Path, settings_with: Load, paths: Paths, failing: type[FailingStore], tmp_path: Path
) -> None:
    failing.files_left = 1_000
    settings = settings_with(f"\n  backup: {{destination: '{place}', keep_days: 1, keep_weeks: 0, keep_months: 0}}\n")
    other = Paths(var=tmp_path / "other", logs=tmp_path / "other-logs")
    first = backup_day(settings, paths, DAY)
    second = backup_day(settings, other, DAY)
    assert (first.name, second.name) == ("2024-01-15", "2024-01-15-2")
    assert first.manifest.made_by != second.manifest.made_by
    assert second.deliveries[0].others == ("2024-01-15",)
    assert "kept, though due, since another host made them: 2024-01-15" in "\n".join(second.sentences)
    third = backup_day(settings, paths, DAY)
    assert (third.name, third.deliveries[0].removed, third.deliveries[0].others) == (
        "2024-01-15-3",
        ("2024-01-15",),
        ("2024-01-15-2",),
    )
    assert [verdict.problems for verdict in verify_backups(settings, paths)] == [(), ()]


@pytest.mark.parametrize("first", [0, 1])
def test_each_host_of_a_shared_place_keeps_so_many_days_of_its_own(
    first: int, settings_with: Load, paths: Paths, tmp_path: Path
) -> None:
    settings = settings_with("\n  backup: {destination: shared, keep_days: 2, keep_weeks: 0, keep_months: 0}\n")
    hosts = [paths, Paths(var=tmp_path / "other", logs=tmp_path / "other-logs")]
    origins = {}
    for day in range(5):
        for number in (first, 1 - first):
            made = backup_day(settings, hosts[number], DAY + timedelta(days=day))
            assert (made.good, made.deliveries[0].problem) == (True, "")
            origins[number] = made.manifest.made_by
    manifests = [entry.manifest for entry in list_backups(settings, paths) if entry.manifest is not None]
    kept = [(manifest.made_by, manifest.trading_date.day) for manifest in manifests]
    assert sorted(kept) == sorted((origin, day) for origin in origins.values() for day in (18, 19))


def test_restore_takes_this_hosts_own_backup_and_anothers_only_where_it_has_none(
    run: Path, settings_with: Load, paths: Paths, tmp_path: Path
) -> None:
    settings = settings_with("\n  backup: {destination: shared}\n")
    other, third = (Paths(var=tmp_path / name, logs=tmp_path / name) for name in ("other", "third"))
    assert [backup_day(settings, host, DAY).name for host in (paths, other)] == ["2024-01-15", "2024-01-15-2"]
    chosen = [restore(settings, host, DAY, to=str(tmp_path / "there"), dry_run=True).name for host in (paths, other, third)]
    assert chosen == ["2024-01-15", "2024-01-15-2", "2024-01-15-2"]
    named = restore(settings, paths, DAY, to=str(tmp_path / "there"), dry_run=True, name="2024-01-15-2")
    assert named.name == "2024-01-15-2"
    (manifest,) = tmp_path.rglob(f"2024-01-15-2/{MANIFEST_FILE}")
    manifest.write_text("{")  # another host's stands in nobody's way
    assert restore(settings, paths, DAY, to=str(tmp_path / "there"), dry_run=True).name == "2024-01-15"


@pytest.mark.parametrize("place", ["there", "memory://velox-parts"])
def test_backup_that_lost_a_part_on_its_way_never_gets_the_good_name(
    place: str, run: Path, settings_with: Load, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_with(f"\n  backup: {{destination: '{place}'}}\n")
    with monkeypatch.context() as patch:
        if "://" in place:
            move = MemoryFileSystem.mv

            def lossy(fs: MemoryFileSystem, source: str, target: str, **options: object) -> None:
                fs.rm_file(next(path for path in fs.find(source) if path.endswith("journal.db.zst")))
                move(fs, source, target, **options)

            patch.setattr(MemoryFileSystem, "mv", lossy)
        else:
            patch.setattr(folder_place, "sync_tree", lambda folder: next(folder.rglob("journal.db.zst")).unlink())
        (delivery,) = backup_day(settings, paths, DAY).deliveries
    assert "journal.db.zst is gone" in delivery.problem
    assert [entry.name for entry in list_backups(settings, paths) if entry.unfinished is None] == []
    again = backup_day(settings, paths, DAY)  # what is left of the other one stops nobody
    assert (again.exit_code, again.deliveries[0].problem) == (0, "")
    assert [verdict.problems for verdict in verify_backups(settings, paths)] == [()]


def test_old_backup_whose_manifest_cannot_be_read_is_kept_and_told(run: Path, settings_with: Load, paths: Paths) -> None:
    settings = settings_with("\n  backup: {keep_days: 1, keep_weeks: 0, keep_months: 0}\n")
    backup_day(settings, paths, DAY)
    manifest = stored(paths) / DAY.isoformat() / MANIFEST_FILE
    manifest.write_text(manifest.read_text().replace('"format": ', '"format": 9'))
    outcome = backup_day(settings, paths, DAY + timedelta(days=1))
    (delivery,) = outcome.deliveries
    assert (delivery.removed, delivery.is_there, outcome.exit_code) == ((), True, 1)
    assert "the manifests of 2024-01-15 cannot be read" in delivery.problem
    assert f"in {stored(paths)}; but {delivery.problem}" in outcome.sentences
    assert names(paths) == ["2024-01-15", "2024-01-16"]


def test_backup_without_the_journal_that_an_earlier_one_has_is_incomplete_and_displaces_nothing(
    run: Path, settings_with: Load, paths: Paths
) -> None:
    settings = settings_with("\n  backup: {keep_days: 1, keep_weeks: 0, keep_months: 0}\n")
    backup_day(settings, paths, DAY)
    (run / "journal.db").unlink()
    outcome = backup_day(settings, paths, DAY)
    assert (outcome.name, outcome.good, outcome.exit_code) == ("2024-01-15-2.incomplete", False, 1)
    gone = f"{RUN_FOLDER}/journal.db is not there any more, and backup 2024-01-15 has it"
    assert outcome.manifest.missing == (f"{gone}: put it back (velox restore --date {DAY})",)
    assert names(paths) == ["2024-01-15", "2024-01-15-2.incomplete"]


def test_host_that_sends_under_a_name_that_another_sends_gives_way(
    run: Path, settings_with: Load, paths: Paths, failing: type[FailingStore], tmp_path: Path
) -> None:
    settings = settings_with("\n  backup: {destination: 'failing://far'}\n")
    other = Paths(var=tmp_path / "other", logs=tmp_path / "other-logs")
    outcomes = []
    put = FailingStore.put_file

    def meanwhile(self: FailingStore, lpath: str, rpath: str, **kwargs: object) -> None:
        type(self).put_file = put  # type: ignore[method-assign]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(store, "_taken_names", lambda destinations: set())  # it looked before the first one began
            put(self, lpath, rpath, **kwargs)
            outcomes.append(backup_day(settings, other, DAY))

    FailingStore.files_left = 1_000
    FailingStore.put_file = meanwhile  # type: ignore[method-assign]
    try:
        first = backup_day(settings, paths, DAY)
    finally:
        FailingStore.put_file = put  # type: ignore[method-assign]
    (second,) = outcomes
    assert (first.name, second.name) == ("2024-01-15", "2024-01-15")
    assert first.good
    assert "is being written by another host" in second.deliveries[0].problem
    assert [verdict.problems for verdict in verify_backups(settings, paths)] == [()]
    again = backup_day(settings, other, DAY)
    assert (again.name, again.good) == ("2024-01-15-2", True)


def test_what_a_killed_host_left_under_way_takes_its_name_and_stops_nobody(
    run: Path, settings_with: Load, paths: Paths
) -> None:
    left = stored(paths) / ".partial-2024-01-15.elsewhere-0123abcd"
    left.mkdir(parents=True)
    assert backup_day(settings_with(), paths, DAY).name == "2024-01-15-2"
    assert left.is_dir()


def test_destination_that_cannot_be_written_or_read_is_told(run: Path, settings_with: Load, paths: Paths) -> None:
    (paths.var / "backups").write_text("a file where the folder should be")
    settings = settings_with()
    (delivery,) = backup_day(settings, paths, DAY).deliveries
    assert "cannot write" in delivery.problem
    settings = settings_with("\n  backup: {destination: 'nosuchscheme://x'}\n")
    (listed,) = list_backups(settings, paths)
    assert "cannot read nosuchscheme://x" in listed.problem


def test_what_is_made_anew_from_the_journal_makes_no_backup_incomplete_and_is_told(
    run: Path, settings_with: Load, paths: Paths
) -> None:
    (paths.var / "redis").mkdir(parents=True)
    (paths.var / "redis" / "redis.lock").mkdir()  # no server can be started there
    influx = "\n  metrics: {influxdb: {enabled: true, url: 'http://127.0.0.1:1'}}\n"
    outcome = backup_day(settings_with(influx), paths, DAY)
    assert outcome.name == "2024-01-15"
    assert outcome.manifest.good
    assert [text.partition(":")[0] for text in outcome.manifest.without] == ["redis-dump/dump.rdb", "metrics/day"]
    assert (outcome.good, outcome.exit_code) == (False, 1)
    assert "without (it is made anew from the journal): redis-dump/dump.rdb: the embedded Redis" in outcome.sentences[1]
    (verdict,) = verify_backups(settings_with(influx), paths)
    assert verdict.problems == ()


# -- what is left of those that were killed ------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["shared", "failing://far/velox"])
def test_cleaning_that_fails_after_a_delivery_is_a_warning_and_the_backup_is_there(
    place: str,
    run: Path,
    settings_with: Load,
    paths: Paths,
    failing: type[FailingStore],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failing.files_left = 1_000
    settings = settings_with(f"\n  backup: {{destination: '{place}'}}\n")
    made_by = backup_day(settings, paths, DAY).manifest.made_by
    left = f".partial-2024-01-14.{made_by}~0"
    if "://" in place:
        FailingStore().pipe_file(f"failing://far/velox/simulated/primary/{left}/part", b"half")
        remove = FailingStore.rm

        def refuse(fs: FailingStore, path: str, **options: object) -> None:
            if left in path:
                raise PermissionError("no right to delete")
            remove(fs, path, **options)

        monkeypatch.setattr(FailingStore, "rm", refuse)
    else:
        (settings.root / place / "simulated" / "primary" / left).mkdir()

        remove_tree = shutil.rmtree

        def refuse_tree(path: Path, ignore_errors: bool = False) -> None:
            if left not in str(path):
                remove_tree(path, ignore_errors=ignore_errors)
            elif not ignore_errors:
                raise PermissionError(errno.EPERM, "no right to delete")

        monkeypatch.setattr(shutil, "rmtree", refuse_tree)
    outcome = backup_day(settings, paths, DAY + timedelta(days=1))
    (delivery,) = outcome.deliveries
    assert (delivery.is_there, delivery.problem, outcome.exit_code) == (True, "", 0)
    assert "what killed backups left there was not removed: cannot remove what is left in" in delivery.warning
    assert "no right to delete" in delivery.warning
    assert f"warning: {delivery.warning}" in outcome.sentences
    (told,) = outcome.to_json()["destinations"]
    assert (told["is_there"], told["problem"], told["warning"]) == (True, "", delivery.warning)


def test_destination_that_did_not_get_it_says_so_in_its_json(
    run: Path, settings_with: Load, paths: Paths, failing: type[FailingStore]
) -> None:
    failing.error = ConnectionError("reset")
    outcome = backup_day(settings_with("\n  backup: {destination: 'failing://far'}\n"), paths, DAY)
    (told,) = outcome.to_json()["destinations"]
    assert told["is_there"] is False


@pytest.mark.parametrize("place", ["shared", "failing://far/velox"])
def test_what_a_host_left_that_never_came_back_is_listed_and_goes_once_it_is_old(
    place: str, run: Path, settings_with: Load, paths: Paths, failing: type[FailingStore]
) -> None:
    failing.files_left = 1_000
    settings = settings_with(f"\n  backup: {{destination: '{place}'}}\n")
    names = [f".partial-2024-01-1{day}.elsewhere-0123abcd~0" for day in (2, 3)]
    bounds_ms = store.LEFT_DAYS_MAX * store.MS_PER_DAY
    for name, age_ms in zip(names, (bounds_ms + 60_000, bounds_ms - 600_000), strict=True):
        touched = datetime.now(UTC) - timedelta(milliseconds=age_ms)
        if "://" in place:
            FailingStore().pipe_file(f"failing://far/velox/simulated/primary/{name}/a/part", b"half")
            failing.store[f"failing://far/velox/simulated/primary/{name}/a/part"].created = touched  # type: ignore[attr-defined]
        else:
            part = settings.root / place / "simulated" / "primary" / name / "a" / "part"
            part.parent.mkdir(parents=True)
            part.write_bytes(b"half")
            for path in (part, part.parent, part.parent.parent):
                os.utime(path, (touched.timestamp(), touched.timestamp()))
    listed = list_backups(settings, paths)
    left = [each.unfinished for each in listed if each.unfinished is not None]
    assert [(each.name, each.made_by, each.bytes) for each in left] == [(name, "elsewhere-0123abcd", 4) for name in names]
    assert all("a backup removes it once it is 7 days old" in each.remedy for each in listed)
    outcome = backup_day(settings, paths, DAY)
    assert outcome.deliveries[0].tidied == (names[0],)
    assert f"what killed backups had left removed: {names[0]}" in "\n".join(outcome.sentences)
    assert [each.name for each in list_backups(settings, paths) if each.unfinished is not None] == [names[1]]
    assert outcome.exit_code == 0


def test_folder_that_has_no_manifest_is_listed_and_never_removed(run: Path, settings_with: Load, paths: Paths) -> None:
    left = stored(paths) / "2020-01-01"
    left.mkdir(parents=True)
    os.utime(left, (1_600_000_000, 1_600_000_000))
    backup_day(settings_with(), paths, DAY)
    (listed,) = [each for each in list_backups(settings_with(), paths) if each.unfinished is not None]
    assert (listed.name, listed.remedy) == ("2020-01-01", f"rm -r {left}")
    assert left.is_dir()


def test_place_that_fails_a_look_is_never_taken_for_empty(
    run: Path, settings_with: Load, paths: Paths, failing: type[FailingStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ConnectionError("reset")

    monkeypatch.setattr(FailingStore, "info", broken)
    monkeypatch.setattr(FailingStore, "ls", broken)
    place = UrlDestination("failing://far/velox", "simulated/primary")
    for look in (place.names, place.taken, place.unfinished):
        with pytest.raises(BackupError, match="cannot read failing://far/velox/simulated/primary: reset"):
            look()
