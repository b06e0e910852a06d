"""Which folder below var is worked on by the process itself: one that no other disk may stand behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from velox_core.operations import backup_places


def lies_in_var(monkeypatch: pytest.MonkeyPatch, folder: Path, mounted: str) -> bool:
    mounts = folder.parents[1] / "mounts"
    mounts.write_text(f"20 1 8:1 / / rw - ext4 /dev/a rw\n21 20 8:2 / {mounted} rw - nfs far:/x rw\n")
    monkeypatch.setattr(backup_places, "MOUNTS", mounts)
    return backup_places._lies_in_var(folder)


@pytest.mark.parametrize(
    ("mounted", "own"),
    [
        ("{root}/other", True),
        ("{root}/my\\040var/backups-old", True),
        ("{root}/my\\040var", True),  # var as a whole is there, and then all of it hangs
        ("{root}/my\\040var/backups", False),
        ("{root}/my\\040var/backups/simulated", False),
    ],
)
def test_folder_of_backups_with_a_mount_at_or_below_it_is_worked_on_apart(
    mounted: str, own: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "my var" / "backups"
    folder.mkdir(parents=True)
    assert lies_in_var(monkeypatch, folder, mounted.format(root=tmp_path)) is own


@pytest.mark.parametrize("linked", ["var", "backups"])
def test_folder_of_backups_behind_a_link_is_worked_on_apart(
    linked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "var" / "backups"
    (tmp_path / "disk").mkdir()
    link = tmp_path / "var" if linked == "var" else folder
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(tmp_path / "disk")
    assert not lies_in_var(monkeypatch, folder, "/mnt/other")
