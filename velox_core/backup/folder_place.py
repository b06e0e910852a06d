"""Backups in a folder of this machine: copied, on the disk, read back from there, renamed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from uuid import uuid4

from velox_core.backup.destinations import (
    AGAIN,
    FREE_BYTES_MINIMUM,
    PROBE,
    Destination,
    Unfinished,
    compare_sizes,
    failed,
    files_of,
)
from velox_core.backup.faults import BackupError
from velox_core.backup.naming import MANIFEST_FILE, date_of, in_order, leaving_name, maker_of, partial_name, taken
from velox_core.backup.packing import copy_durably, sync_folder, sync_tree
from velox_core.backup.staged import unlike, verified_of

MS_PER_SECOND: Final = 1_000
METRICS_FOLDER: Final = "metrics"  # in a backup; InfluxDB's own holds that server's tokens


def moves_on(count: int) -> None:
    """Take no notice of so many bytes that were moved."""


class FolderDestination(Destination):
    """Backups in a folder of this machine.

    Args:
        folder: the account's.
        moved: told how many bytes were copied, block by block.
    """

    def __init__(self, folder: Path, moved: Callable[[int], None] = moves_on) -> None:
        self.folder = folder
        self.where = str(folder)
        self._moved = moved

    def names(self) -> list[str]:
        """Return the backups that are there, oldest first."""
        with self._told("read"):
            return in_order(name for name in self._entries() if (self.folder / name / MANIFEST_FILE).is_file())

    def manifest_content(self, name: str) -> bytes:
        """Return the manifest file of one."""
        with self._told("read"):
            return (self.folder / name / MANIFEST_FILE).read_bytes()

    def taken(self) -> set[str]:
        """Return the names that are there or on their way."""
        with self._told("read"):
            return taken(self._entries())

    def unfinished(self) -> list[Unfinished]:
        """Return what is there and is no backup."""
        with self._told("read"):
            return [self._look(name) for name in self._entries() if self._is_unfinished(name)]

    def probe(self) -> str:
        """Write, read back and remove a small file, and look at the free space; returns what was seen."""
        with self._told("write"):
            self.folder.mkdir(parents=True, exist_ok=True)
            file = self.folder / f".probe-{uuid4().hex[:8]}"
            file.write_bytes(PROBE)
            read = file.read_bytes()
            file.unlink()
            if read != PROBE:
                raise BackupError(f"{self.where}: what was written is read back as something else", "see the disk's health")
            free = shutil.disk_usage(self.folder).free
        if free < FREE_BYTES_MINIMUM:
            raise BackupError(f"{self.where} has {free / 1e9:.1f} GB free", "free some space: a backup needs 0.5 GB")
        return f"{self.where} is writable, {free / 1e9:.1f} GB free"

    def put(self, staged: Path, name: str, made_by: str) -> None:
        """Take a whole backup: each file copied, on the disk and read back, then renamed."""
        partial = self.folder / partial_name(name, made_by)
        with self._told("write"):
            self.folder.mkdir(parents=True, exist_ok=True)
            for left in self._entries():
                if maker_of(left) == made_by:  # of one that was killed
                    shutil.rmtree(self.folder / left, ignore_errors=True)
            verified = verified_of(staged)
            try:
                for source in files_of(staged):
                    inside = source.relative_to(staged)
                    wanted, target = verified.get(inside.as_posix(), ""), partial / inside
                    target.parent.mkdir(parents=True, exist_ok=True)
                    if not copy_durably(source, target, self._moved, wanted, private=inside.parts[0] == METRICS_FOLDER):
                        raise unlike(self.where, source, wanted, "see the health of its disk")
                sync_tree(partial)
                compare_sizes(self.where, staged, lambda inside: (partial / inside).stat().st_size)
                if (self.folder / name).exists():
                    raise BackupError(f"{self.folder / name} is there already", AGAIN)
                partial.rename(self.folder / name)
                sync_folder(self.folder)
            finally:
                shutil.rmtree(partial, ignore_errors=True)

    def tidy(self, made_by: str, before_wall_ms: int) -> list[str]:
        """Remove what this maker left under way, and any maker's that nobody has touched since; returns their names."""
        removed = []
        with self._told("remove what is left in"):
            for name in self._entries():
                maker = maker_of(name)
                if maker and (maker == made_by or 0 < self._look(name).touched_wall_ms < before_wall_ms):
                    shutil.rmtree(self.folder / name)
                    removed.append(name)
        return removed

    def fetch(self, name: str, path: str, target: Path) -> None:
        """Copy one file of a backup."""
        with self._told("read"):
            if not copy_durably(self.folder / name / path, target, self._moved):
                raise BackupError(f"{target} was read back as something else", "see the health of its disk")

    def remove(self, name: str) -> None:
        """Remove a backup: first its name, so that what is left of it is tidied away like one under way."""
        with self._told("remove from"):
            manifest = self.folder / name / MANIFEST_FILE
            leaving = self.folder / leaving_name(name, manifest.read_bytes() if manifest.is_file() else b"")
            os.utime(self.folder / name)  # it is young: no other host takes it for left
            (self.folder / name).rename(leaving)
            sync_folder(self.folder)
            shutil.rmtree(leaving)

    def _entries(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir()) if self.folder.is_dir() else []

    def _is_unfinished(self, name: str) -> bool:
        return bool(maker_of(name)) or (date_of(name) is not None and not (self.folder / name / MANIFEST_FILE).is_file())

    def _look(self, name: str) -> Unfinished:
        sizes, moments = [0], [(self.folder / name).stat().st_mtime]
        for path in (self.folder / name).rglob("*"):
            found = path.lstat()
            sizes.append(found.st_size if path.is_file() else 0)
            moments.append(found.st_mtime)
        touched_ms = int(max(moments) * MS_PER_SECOND)
        return Unfinished(name=name, made_by=maker_of(name), bytes=sum(sizes), touched_wall_ms=touched_ms)

    @contextmanager
    def _told(self, doing: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise failed(self.where, doing, error) from error
