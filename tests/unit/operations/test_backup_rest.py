"""A backup that was made comes to the places that lack it: the very same one, or one with the next number."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from tests.fakes.journals import DAY, RUN_ID, write_journal
from velox_core.backup import store
from velox_core.backup.databases import snapshot
from velox_core.backup.destinations import Destination
from velox_core.backup.faults import BackupError
from velox_core.backup.folder_place import FolderDestination
from velox_core.backup.make import Extra
from velox_core.backup.manifest import Manifest, PartKind
from velox_core.backup.naming import MANIFEST_FILE
from velox_core.backup.opening import open_here
from velox_core.backup.retention import Retention
from velox_core.backup.store import Delivery
from velox_core.brokers.book import SqliteBook
from velox_core.operations import backup_extras
from velox_core.operations.backup import BackupOutcome, backup_day, bring_rest
from velox_core.operations.backup_places import verify_backups
from velox_core.settings import Paths, Settings

Load = Callable[..., Settings]
pytestmark = pytest.mark.usefixtures("places_here")
RUN_FOLDER = f"replay/primary/{RUN_ID}"
ACCOUNT = "simulated/primary"
NAME = DAY.isoformat()


@pytest.fixture
def run(paths: Paths) -> Path:
    """Return the folder of a run with a journal."""
    write_journal(paths.var / RUN_FOLDER / "journal.db", count=3)
    return paths.var / RUN_FOLDER


def backup_while_away(place: Path, settings: Settings, paths: Paths) -> BackupOutcome:
    """Take a backup that one place does not get."""
    place.write_text("no folder")
    made = backup_day(settings, paths, DAY)
    assert [each.where for each in made.deliveries if not each.is_there] == [f"{place}/{ACCOUNT}"]
    place.unlink()
    return made


# -- what stands under the name at the other place -----------------------------------------------------------------


@pytest.fixture
def other_host(tmp_path: Path) -> Paths:
    """Another host with the same account, and a day of its own."""
    found = Paths(var=tmp_path / "other", logs=tmp_path / "other-logs")
    write_journal(found.var / RUN_FOLDER / "journal.db", count=2)
    return found


@pytest.mark.parametrize("first", ["shared", "near"])
def test_another_hosts_backup_of_the_same_name_is_not_taken_for_ours(
    first: str, run: Path, settings_with: Load, paths: Paths, other_host: Paths, tmp_path: Path
) -> None:
    shared, near = tmp_path / "shared", tmp_path / "near"
    second = near if first == "shared" else shared
    settings = settings_with(f"\n  backup: {{destination: '{tmp_path / first}', copies: ['{second}']}}\n")
    ours = backup_while_away(shared, settings, paths)
    theirs = backup_day(settings_with(f"\n  backup: {{destination: '{shared}'}}\n"), other_host, DAY)
    settings = settings_with(f"\n  backup: {{destination: '{tmp_path / first}', copies: ['{second}']}}\n")
    assert ours.name == theirs.name == NAME
    assert bring_rest(settings, paths, DAY) is None
    again = backup_day(settings, paths, DAY)
    assert (again.name, again.exit_code) == (f"{NAME}-2", 0)
    place = FolderDestination(shared / ACCOUNT)
    assert [place.manifest(name) for name in place.names()] == [theirs.manifest, again.manifest]
    assert bring_rest(settings, paths, DAY) is not None
    assert [verdict.problems for verdict in verify_backups(settings, paths)] == [()] * 3


def test_two_of_this_hosts_own_that_got_one_name_while_the_places_were_away_in_turn_are_two(
    run: Path, settings_with: Load, paths: Paths, tmp_path: Path
) -> None:
    near, far, aside = tmp_path / "near", tmp_path / "far", tmp_path / "aside"
    settings = settings_with(f"\n  backup: {{destination: '{near}', copies: ['{far}']}}\n")
    first = backup_while_away(far, settings, paths)
    near.rename(aside)
    second = backup_while_away(near, settings, paths)
    aside.rename(near)
    assert (first.name, second.name) == (NAME, NAME)
    assert bring_rest(settings, paths, DAY) is None
    again = backup_day(settings, paths, DAY)
    assert (again.name, again.exit_code) == (f"{NAME}-2", 0)
    assert [FolderDestination(place / ACCOUNT).manifest(again.name) for place in (near, far)] == [again.manifest] * 2


@pytest.mark.parametrize("left", [NAME, f".partial-{NAME}.elsewhere-0123abcd~0"])
def test_half_a_backup_under_the_name_costs_it_its_number_and_nothing_else(
    left: str, run: Path, settings_with: Load, paths: Paths, tmp_path: Path
) -> None:
    settings = settings_with(f"\n  backup: {{copies: ['{tmp_path / 'far'}']}}\n")
    backup_while_away(tmp_path / "far", settings, paths)
    (tmp_path / "far" / ACCOUNT / left).mkdir(parents=True)
    assert bring_rest(settings, paths, DAY) is None
    again = backup_day(settings, paths, DAY)
    assert (again.name, again.exit_code) == (f"{NAME}-2", 0)


def test_what_this_host_left_under_way_keeps_the_very_same_backup_from_no_place(
    run: Path, settings_with: Load, paths: Paths, tmp_path: Path
) -> None:
    settings = settings_with(f"\n  backup: {{copies: ['{tmp_path / 'far'}']}}\n")
    made = backup_while_away(tmp_path / "far", settings, paths)
    (tmp_path / "far" / ACCOUNT / f".partial-{NAME}.{made.manifest.made_by}~0").mkdir(parents=True)
    rest = bring_rest(settings, paths, DAY)
    assert rest is not None
    assert (rest.name, rest.exit_code) == (NAME, 0)
    assert FolderDestination(tmp_path / "far" / ACCOUNT).manifest(NAME) == made.manifest
    assert [path.name for path in (tmp_path / "far" / ACCOUNT).iterdir()] == [NAME]


def test_manifest_that_cannot_be_read_hides_no_other_of_its_place(
    run: Path, settings_with: Load, paths: Paths, tmp_path: Path
) -> None:
    near, shared, third = (tmp_path / name for name in ("near", "shared", "third"))
    settings = settings_with(f"\n  backup: {{destination: '{near}', copies: ['{shared}', '{third}']}}\n")
    (shared / ACCOUNT / NAME).mkdir(parents=True)
    (shared / ACCOUNT / NAME / MANIFEST_FILE).write_text("{")  # another host's
    made = backup_while_away(third, settings, paths)
    assert made.name == f"{NAME}-2"
    rest = bring_rest(settings, paths, DAY)
    assert rest is not None
    assert (rest.name, [delivery.is_there for delivery in rest.deliveries]) == (made.name, [True] * 3)
    assert [bool(delivery.problem) for delivery in rest.deliveries] == [False, True, False]  # that one is kept, and told
    assert FolderDestination(third / ACCOUNT).names() == [made.name]


def test_backup_is_brought_from_the_next_place_where_the_first_has_lost_a_bit(
    run: Path, settings_with: Load, paths: Paths, tmp_path: Path
) -> None:
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    settings = settings_with(f"\n  backup: {{destination: '{first}', copies: ['{second}', '{third}']}}\n")
    made = backup_while_away(third, settings, paths)
    (first / ACCOUNT / NAME / RUN_FOLDER / "journal.db.zst").write_bytes(b"bent")
    rest = bring_rest(settings, paths, DAY)
    assert rest is not None
    assert (rest.name, rest.deliveries[2].is_there) == (made.name, True)
    assert [bool(verdict.problems) for verdict in verify_backups(settings, paths)] == [True, False, False]
    (second / ACCOUNT / NAME / RUN_FOLDER / "journal.db.zst").write_bytes(b"bent")
    shutil.rmtree(third)
    with pytest.raises(BackupError, match=r"of .*first.* is not the one that was verified; .*of .*second"):
        bring_rest(settings, paths, DAY)


# -- what happened since it was made -------------------------------------------------------------------------------


@pytest.mark.parametrize("since", ["nothing", "a run", "a book", "a server"])
def test_backup_is_brought_only_while_it_holds_what_there_is(
    since: str, run: Path, settings_with: Load, paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_with(f"\n  backup: {{copies: ['{tmp_path / 'far'}']}}\n")
    if since == "a server":
        server = Extra(kind=PartKind.JOURNAL, path="journal-of-server/journal.db", origin="", save=saved_from(run))
        monkeypatch.setattr(backup_extras, "extras", lambda *_: [server])
    made = backup_while_away(tmp_path / "far", settings, paths)
    if since == "a run":
        write_journal(run.with_name(f"{NAME}-2") / "journal.db")
    elif since == "a book":
        SqliteBook(run / "broker.db").close()
    rest = bring_rest(settings, paths, DAY)
    if since == "nothing":
        assert rest is not None
        assert (rest.name, rest.exit_code) == (made.name, 0)
        return
    assert rest is None
    again = backup_day(settings, paths, DAY)
    assert (again.name, again.exit_code) == (f"{NAME}-2", 0)


def saved_from(run: Path) -> Callable[[Path], dict[str, object]]:
    """Return what saves a journal as one of a database server."""

    def save(target: Path) -> dict[str, object]:
        snapshot(run / "journal.db", target)
        return {}

    return save


# -- a bit that flips between the verification and the delivery ----------------------------------------------------


@pytest.fixture
def memory() -> Iterator[str]:
    """Return a place in memory, empty."""
    MemoryFileSystem.store.clear()
    yield "memory://rest"
    MemoryFileSystem.store.clear()


@pytest.mark.parametrize("at", ["folder", "memory"])
@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("journal.db.zst", "journal.db.zst is no longer what was verified"),
        (MANIFEST_FILE, "is not the one that was made"),
    ],
)
def test_bit_that_flips_in_the_staged_backup_is_no_good_delivery(
    file: str,
    said: str,
    at: str,
    memory: str,
    run: Path,
    settings_with: Load,
    paths: Paths,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = memory if at == "memory" else str(tmp_path / "far")
    settings = settings_with(f"\n  backup: {{destination: '{place}'}}\n")
    deliver = store._deliver

    def flip(destination: Destination, staged: Path, manifest: Manifest, rule: Retention) -> Delivery:
        (staged_file,) = staged.rglob(file)
        content = bytearray(staged_file.read_bytes())
        content[len(content) // 2] ^= 1
        staged_file.write_bytes(content)
        return deliver(destination, staged, manifest, rule)

    monkeypatch.setattr(store, "_deliver", flip)
    outcome = backup_day(settings, paths, DAY)
    (delivery,) = outcome.deliveries
    assert (delivery.is_there, outcome.good, outcome.exit_code) == (False, False, 1)
    assert said in delivery.problem
    assert open_here(place, ACCOUNT).names() == []
