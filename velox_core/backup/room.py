"""Room on the disk where a backup is made: asked for before, and told of when it ran out all the same."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from velox_core.backup.faults import BackupError

SPACE_FOR_THE_REST_BYTES: Final = 50_000_000
MEGABYTE: Final = 1_000_000
_PACKED_SHARE: Final = 0.5  # of a database, at most, when it is packed


def require_room(sizes: Iterable[int], staging: Path, spare: int = SPACE_FOR_THE_REST_BYTES) -> None:
    """Raise BackupError unless files of these sizes (bytes) can be copied, packed and restored one after the other."""
    known = list(sizes)
    needed = int(2 * max(known, default=0) + sum(known) * _PACKED_SHARE) + spare
    free = free_bytes(staging)
    if free < needed:
        raise BackupError(
            f"{staging} has {free / MEGABYTE:.0f} MB free, a backup needs {needed / MEGABYTE:.0f} MB while it is made",
            "free some space",
        )


def require_room_to_pack(file: Path, name: str, *, restores: bool) -> None:
    """Raise BackupError unless there is room to pack a file that lies there already, and to restore it beside where it is."""
    size = file.stat().st_size
    needed, free = int(size * (_PACKED_SHARE + restores)), free_bytes(file.parent)
    if free < needed:
        raise BackupError(
            f"{name} is {size / MEGABYTE:.0f} MB; to pack it takes {needed / MEGABYTE:.0f} MB, {file.parent} has "
            f"{free / MEGABYTE:.0f} MB free",
            "free some space",
        )


def require_room_to_deliver(staged_bytes: int, staging: Path, spare: int = SPACE_FOR_THE_REST_BYTES) -> None:
    """Raise BackupError unless what is staged fits once more on its disk: there is, by default, its destination."""
    needed, free = staged_bytes + spare, free_bytes(staging)
    if free < needed:
        raise BackupError(
            f"{staging} has {free / MEGABYTE:.0f} MB free, a copy of all that is saved needs {needed / MEGABYTE:.0f} MB",
            "free some space",
        )


def free_bytes(folder: Path) -> int:
    """Return what anybody may still write there. Raises OSError."""
    space = os.statvfs(folder)
    return space.f_bavail * space.f_frsize


def size_of_folder(folder: Path) -> int:
    """Return the bytes of the files in a folder and below, as far as they can be seen."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except OSError:
            continue
    return total


def nothing_more(error: OSError, staging: Path, name: str) -> BackupError:
    """Return what to raise when the disk takes nothing more while a part is made: which disk, and how much is free there."""
    place = Path(error.filename) if isinstance(error.filename, str) else staging
    try:
        near = next(folder for folder in (place, *place.parents) if folder.is_dir())
        free = f", {shutil.disk_usage(near).free / MEGABYTE:.1f} MB free"
    except (OSError, StopIteration):
        free = ""
    where = staging if staging in place.parents else place
    return BackupError(
        f"{where} takes nothing more: {error.strerror}, while {name} was saved{free}", "free its disk, or make it writable"
    )


def is_full(error: OSError) -> bool:
    """Return whether a disk, or what one may use of it, is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)
