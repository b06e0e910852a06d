"""A disk that is really full: a tiny file system for the destination of backups, for what is staged, for the log archive."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import pytest

from tests.fakes.journals import DAY, RUN_ID, write_journal
from velox_core.archive import archive_date, archive_problems, read_manifest
from velox_core.backup import make
from velox_core.backup.manifest import BackupError
from velox_core.domain.errors import VeloxError
from velox_core.operations.backup import backup_day
from velox_core.operations.backup_places import verify_backups
from velox_core.settings import Paths, Settings

Load = Callable[..., Settings]
TINY_BYTES = 600_000
LOG = "system.log"


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A file system of 600 kB."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={TINY_BYTES}", "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("this machine has no mount command")
    if done.returncode:
        pytest.skip(f"no file system can be mounted here (it takes root): {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def fill(folder: Path, *, leaving_bytes: int) -> Path:
    """Take all room of a file system but so much."""
    space = os.statvfs(folder)
    filler = folder / "filler"
    filler.write_bytes(bytes(space.f_bavail * space.f_frsize - leaving_bytes))
    return filler


def test_backup_into_a_full_destination_is_told_leaves_no_half_one_and_the_old_one_alone(
    tiny: Path, settings_with: Load, paths: Paths
) -> None:
    write_journal(paths.var / f"replay/primary/{RUN_ID}" / "journal.db", count=3)
    settings = settings_with(f"\n  backup: {{destination: '{tiny}', copies: [second]}}\n")
    first = backup_day(settings, paths, DAY)
    assert first.good
    filler = fill(tiny, leaving_bytes=12_000)
    outcome = backup_day(settings, paths, DAY)
    full, second = outcome.deliveries
    assert outcome.exit_code == 1
    assert full.problem == f"cannot write {tiny}/simulated/primary: No space left on device: free some space there"
    assert second.problem == ""
    account = tiny / "simulated" / "primary"
    assert [path.name for path in account.iterdir()] == [first.name]
    assert [verdict.problems for verdict in verify_backups(settings, paths, at=str(tiny))] == [()]
    filler.unlink()
    assert backup_day(settings, paths, DAY).good


def test_backup_whose_own_disk_fills_while_it_is_made_says_so_and_leaves_nothing(
    tiny: Path, settings_with: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = Paths(var=tiny / "var", logs=tmp_path / "logs")
    write_journal(paths.var / f"replay/primary/{RUN_ID}" / "journal.db", count=3)
    settings = settings_with(f"\n  backup: {{destination: '{tmp_path / 'far'}'}}\n")
    with pytest.raises(BackupError, match=r"MB free, a backup needs .* free some space"):
        backup_day(settings, paths, DAY)
    monkeypatch.setattr(make, "_require_room", lambda *_: None)  # the room goes only after the look
    filler = fill(tiny, leaving_bytes=60_000)
    with pytest.raises(BackupError, match=r"takes nothing more: No space left on .*journal.db was saved, 0.* MB free: "):
        backup_day(settings, paths, DAY)
    assert not (tmp_path / "far").exists()
    assert not list(tiny.rglob("*.zst"))
    filler.unlink()
    assert backup_day(settings, paths, DAY).good


def test_archive_on_a_full_disk_says_so_and_stays_as_it_was(tiny: Path, tmp_path: Path) -> None:
    source, target = tmp_path / "logs", tiny / "20240115" / "production"
    source.mkdir()
    on, numbers = date(2024, 1, 15), random.Random(1)

    def line() -> str:
        return f"2024-01-15 09:31:00,120+05:30 INFO [2024-01-15 09:31:00] {numbers.randbytes(200).hex()}\n"

    def archive(**more: object) -> None:
        archive_date(source, target, on, [LOG], keep_files=3, wall_ms=1, **more)  # type: ignore[arg-type]

    (source / LOG).write_text("".join(line() for _ in range(100)))
    with pytest.raises(VeloxError, match=r"MB free, and archiving .* Nothing was written"):
        archive()
    archive(free_bytes=lambda _: 1 << 40)
    before = {path.name: path.read_bytes() for path in target.iterdir()}
    live = (source / LOG).read_text() + "".join(line() for _ in range(6_000))
    (source / LOG).write_text(live)
    with pytest.raises(
        VeloxError, match=r"cannot be archived in .*No space left on device.*free some disk.*live files are untouched"
    ):
        archive(free_bytes=lambda _: 1 << 40)  # the room goes only after the look
    assert {path.name: path.read_bytes() for path in target.iterdir()} == before
    assert archive_problems(target) == []
    assert (source / LOG).read_text() == live
    manifest = read_manifest(target)
    assert manifest is not None
    assert manifest.lines == 100
