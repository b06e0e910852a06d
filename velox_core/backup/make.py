"""Makes one backup in a staging folder: snapshots, packs, and restores each part into an empty place before it is called good.

- What cannot be saved or does not pass is named in the manifest, with the reason; everything else goes on.
- A journal whose hash chain is broken is kept, as evidence, and named.
- The packed copy of a database is unpacked again: it is byte for byte the snapshot, sound by SQLite's integrity check, and has
  its rows.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from velox_core.backup.databases import check_integrity, journal_checks, row_counts, snapshot, table_checks
from velox_core.backup.manifest import DATABASES, MADE_ANEW, BackupError, Part, PartKind
from velox_core.backup.packing import SUFFIX, Packed, pack, unpack
from velox_core.backup.sources import Source
from velox_core.domain.errors import VeloxError

SPACE_FOR_THE_REST_BYTES: Final = 50_000_000
_PACKED_SHARE: Final = 0.5  # of a database, at most, when it is packed


@dataclass(frozen=True, slots=True, kw_only=True)
class Extra:
    """Something that is no file yet: `save` writes it to a path and returns what to check later. `path` is its place."""

    kind: PartKind
    path: str
    origin: str
    save: Callable[[Path], Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """The parts of a staged backup, what is missing, and what is missing but can be made anew."""

    parts: tuple[Part, ...]
    missing: tuple[str, ...]
    without: tuple[str, ...] = ()


def make_parts(sources: Sequence[Source], extras: Sequence[Extra], staging: Path, scratch: Path) -> Made:
    """Save everything into `staging`.

    Args:
        sources: files.
        extras: what has to be asked of somebody.
        staging: an empty folder, which becomes the backup.
        scratch: a folder for snapshots.
    Raises: BackupError when there is no room for it, or the staging folder takes nothing.
    """
    _require_room(sources, staging)
    parts: list[Part] = []
    missing: list[str] = []
    without: list[str] = []
    works = [(source.origin, source.kind, _saver_of(source)) for source in sources] + [
        (extra.path, extra.kind, _saver_of_extra(extra)) for extra in extras
    ]
    for name, kind, save in works:
        try:
            part = save(staging, scratch)
        except VeloxError as error:
            (without if kind in MADE_ANEW else missing).append(f"{name}: {error}")
            continue
        except OSError as error:
            if not _takes_a_file(staging):
                raise BackupError(
                    f"{staging} takes nothing more: {error.strerror}: free its disk, or make it writable"
                ) from error
            missing.append(f"{name}: cannot be read: {error.strerror}")
            continue
        parts.append(part)
        missing.extend(f"{name}: the hash chain is broken, {text}" for text in part.notes.get("broken", ()))
    return Made(parts=tuple(parts), missing=tuple(missing), without=tuple(without))


_Save = Callable[[Path, Path], Part]


def _saver_of(source: Source) -> _Save:
    def save(staging: Path, scratch: Path) -> Part:
        folder = "config/" if source.kind is PartKind.CONFIG else ""
        path = f"{folder}{source.origin}{SUFFIX}"
        target = _target(staging, path)
        if source.path is None:
            file = scratch / "content"
            file.write_bytes(source.content)
            return _part(source.kind, path, source.origin, pack(file, target))
        if source.kind not in DATABASES:
            return _part(source.kind, path, source.origin, pack(source.path, target))
        copy = scratch / "copy.db"
        try:
            snapshot(source.path, copy)
            return _database(source.kind, path, source.origin, copy, target)
        finally:
            _remove_database(copy)

    return save


def _saver_of_extra(extra: Extra) -> _Save:
    def save(staging: Path, scratch: Path) -> Part:
        file = scratch / "extra"
        target = _target(staging, f"{extra.path}{SUFFIX}")
        try:
            notes = dict(extra.save(file))
            if extra.kind in DATABASES:
                return _database(extra.kind, f"{extra.path}{SUFFIX}", extra.origin, file, target)
            return replace(_part(extra.kind, f"{extra.path}{SUFFIX}", extra.origin, pack(file, target)), notes=notes)
        finally:
            _remove_database(file)

    return save


def _database(kind: PartKind, path: str, origin: str, copy: Path, target: Path) -> Part:
    """Pack a snapshot, and read its tables meanwhile."""
    with ThreadPoolExecutor(1, "backup-pack") as beside:
        packing = beside.submit(pack, copy, target)
        try:
            if kind is PartKind.JOURNAL:
                checks = journal_checks(copy)
                tables, revision, heads = checks.tables, checks.revision, checks.heads
                notes: dict[str, Any] = {"broken": list(checks.broken)} if checks.broken else {}
            else:
                tables, revision, heads, notes = table_checks(copy), "", (), {}
        except BackupError:
            with suppress(OSError):
                packing.result()
            target.unlink(missing_ok=True)
            raise
        packed = packing.result()
    return replace(_part(kind, path, origin, packed), tables=tables, revision=revision, heads=heads, notes=notes)


def _part(kind: PartKind, path: str, origin: str, packed: Packed) -> Part:
    return Part(
        path=path,
        kind=kind,
        origin=origin,
        bytes=packed.bytes,
        sha256=packed.sha256,
        content_bytes=packed.content_bytes,
        content_sha256=packed.content_sha256,
    )


def verify_part(part: Part, packed: Path, scratch: Path, *, in_depth: bool) -> str:
    """Restore one part into an empty place and compare. Returns '' when it is what it was, else what is wrong.

    Args:
        part: what it must be.
        packed: its file.
        scratch: where it is restored; nothing of it stays.
        in_depth: compute the checksum of each table and follow the hash chains again. Without it the equality of all bytes
            with the snapshot, whose tables were read when it was made, says the same.
    """
    from velox_core.backup import metrics_export, redis_copy  # client libraries: only where something is verified

    restored = scratch / "restored"
    try:
        found = unpack(packed, restored, sync=False)
        if (found.bytes, found.sha256) != (part.bytes, part.sha256):
            return "the file is not the one that was written"
        if (found.content_bytes, found.content_sha256) != (part.content_bytes, part.content_sha256):
            return "it does not unpack to what was packed"
        if part.kind in DATABASES:
            return _compare_database(part, restored, in_depth=in_depth)
        if part.kind is PartKind.REDIS:
            return redis_copy.check(restored, part.notes)
        if part.kind is PartKind.METRICS:
            return metrics_export.check(restored, part.notes)
        return ""
    except FileNotFoundError:
        return "the file is missing"
    except OSError as error:
        return f"it cannot be restored: {error.strerror}"
    except BackupError as error:
        return str(error)
    finally:
        _remove_database(restored)


def _compare_database(part: Part, restored: Path, *, in_depth: bool) -> str:
    with ThreadPoolExecutor(1, "backup-integrity") as beside:
        checking = beside.submit(check_integrity, restored)
        differs = _differs_in_depth(part, restored) if in_depth else _differs(part, restored)
        integrity = checking.result()
    return differs if integrity == "ok" else f"SQLite finds it damaged: {integrity}"


def _differs(part: Part, restored: Path) -> str:
    wanted = {name: check.rows for name, check in part.tables.items()}
    found = row_counts(restored)
    wrong = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
    return f"table {wrong[0]} has {found.get(wrong[0])} rows, {wanted.get(wrong[0])} were saved" if wrong else ""


def _differs_in_depth(part: Part, restored: Path) -> str:
    if part.kind is not PartKind.JOURNAL:
        tables = table_checks(restored)
    else:
        checks = journal_checks(restored)
        tables = checks.tables
        if checks.revision != part.revision:
            return f"its schema revision is {checks.revision}, {part.revision} was saved"
        if checks.heads != part.heads:
            return "its hash chains end elsewhere than when it was saved"
    wrong = sorted(name for name in tables.keys() | part.tables.keys() if tables.get(name) != part.tables.get(name))
    return f"table {wrong[0]} has other rows than were saved" if wrong else ""


def _target(staging: Path, path: str) -> Path:
    target = staging / path
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


def _require_room(sources: Sequence[Source], staging: Path) -> None:
    sizes = []
    for source in sources:
        with suppress(OSError):
            sizes.append(0 if source.path is None else source.path.stat().st_size)
    needed = int(2 * max(sizes, default=0) + sum(sizes) * _PACKED_SHARE) + SPACE_FOR_THE_REST_BYTES
    space = os.statvfs(staging)
    free = space.f_bavail * space.f_frsize
    if free < needed:
        raise BackupError(
            f"{staging} has {free / 1e6:.0f} MB free, a backup needs {needed / 1e6:.0f} MB while it is made: free some space"
        )


def _takes_a_file(folder: Path) -> bool:
    probe = folder / ".probe"
    try:
        with probe.open("wb") as file:
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
        return True
    except OSError:
        return False
    finally:
        with suppress(OSError):
            probe.unlink(missing_ok=True)


def _remove_database(path: Path) -> None:
    for name in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
        name.unlink(missing_ok=True)


def empty_folder(path: Path) -> Path:
    """Return the folder, new and empty. Raises BackupError."""
    try:
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        return path
    except OSError as error:
        raise BackupError(f"{path} cannot be made: {error.strerror}: make its folder writable, or free its disk") from error
