"""Makes one backup in a staging folder: snapshots, packs, and restores each part into an empty place before it is called good.

- What cannot be saved or does not pass is named in the manifest, with the reason; everything else goes on.
- A journal whose hash chain is broken is kept, as evidence, and named.
- A database is packed, and restored from what was packed, while the tables of its snapshot are read: two cores share the work.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from velox_core.backup.databases import journal_checks, snapshot, table_checks
from velox_core.backup.faults import BackupError
from velox_core.backup.manifest import DATABASES, MADE_ANEW, Part, PartKind, Saved
from velox_core.backup.packing import SUFFIX, Packed, pack
from velox_core.backup.proof import Restored, remove_database, restore_database, verify_part, what_differs
from velox_core.backup.room import (
    is_full,
    nothing_more,
    require_room,
    require_room_to_deliver,
    require_room_to_pack,
    size_of_folder,
)
from velox_core.backup.sources import Source
from velox_core.domain.errors import VeloxError


@dataclass(frozen=True, slots=True, kw_only=True)
class Extra:
    """Something that is no file yet: `save` writes it to a path and returns what to check later. `path` is its place.

    `expected_bytes` says how large it may become, where that can be told beforehand.
    """

    kind: PartKind
    path: str
    origin: str
    save: Callable[[Path], Mapping[str, Any]]
    expected_bytes: Callable[[], int] = int


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """The same, of files that belong together: all of them are saved, or none. `name` is what it is called when it is none.

    `save` puts them into a folder one after the other; each is taken from there, verified and removed before the next.
    """

    kind: PartKind
    name: str
    save: Callable[[Path], Iterator[Saved]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """The verified parts of a staged backup, what is missing, and what is missing but can be made anew."""

    parts: tuple[Part, ...]
    missing: tuple[str, ...]
    without: tuple[str, ...] = ()


def make_parts(sources: Sequence[Source], extras: Sequence[Extra | Bundle], staging: Path, scratch: Path) -> Made:
    """Save everything into `staging`, and verify it there.

    Args:
        sources: files.
        extras: what has to be asked of somebody.
        staging: an empty folder, which becomes the backup.
        scratch: a folder for snapshots, and for what is restored of them.
    Raises: BackupError when there is no room for it, or the staging folder takes nothing.
    """
    _require_room(sources, extras, staging)
    parts: list[Part] = []
    missing: list[str] = []
    without: list[str] = []
    works = [(source.origin, source.kind, _saver_of(source)) for source in sources] + [
        (extra.name, extra.kind, _saver_of_bundle(extra))
        if isinstance(extra, Bundle)
        else (extra.path, extra.kind, _saver_of_extra(extra))
        for extra in extras
    ]
    for name, kind, save in works:
        try:
            saved = save(staging, scratch)
        except VeloxError as error:
            (without if kind in MADE_ANEW else missing).append(f"{name}: {error}")
            continue
        except OSError as error:
            if is_full(error) or not _takes_a_file(staging):
                raise nothing_more(error, staging, name) from error
            (without if kind in MADE_ANEW else missing).append(f"{name}: cannot be read: {error.strerror}")
            continue
        for part, problem in saved:
            if problem:
                (without if kind in MADE_ANEW else missing).append(f"{part.path}: {problem}")
                (staging / part.path).unlink(missing_ok=True)
                continue
            parts.append(part)
            missing.extend(f"{name}: the hash chain is broken, {text}" for text in part.notes.get("broken", ()))
    return Made(parts=tuple(parts), missing=tuple(missing), without=tuple(without))


# of what others answer: whatever is wrong with it, it is no reason to have no journal in the backup
UNFORESEEN: Final = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)
_Saved = tuple[Part, str]  # and what is wrong with what was restored of it, '' for nothing
_Save = Callable[[Path, Path], list[_Saved]]


def _saver_of(source: Source) -> _Save:
    def save(staging: Path, scratch: Path) -> list[_Saved]:
        folder = "config/" if source.kind is PartKind.CONFIG else ""
        path = f"{folder}{source.origin}{SUFFIX}"
        target = _target(staging, path)
        if source.path is None:
            file = scratch / "content"
            file.write_bytes(source.content)
            return [_verified(_part(source.kind, path, source.origin, pack(file, target)), target, scratch)]
        if source.kind not in DATABASES:
            return [_verified(_part(source.kind, path, source.origin, pack(source.path, target)), target, scratch)]
        copy = scratch / "copy.db"
        try:
            snapshot(source.path, copy)
            return [_database(source.kind, path, source.origin, copy, target)]
        finally:
            remove_database(copy)

    return save


def _saver_of_extra(extra: Extra) -> _Save:
    def save(staging: Path, scratch: Path) -> list[_Saved]:
        file = scratch / "extra"
        target = _target(staging, f"{extra.path}{SUFFIX}")
        try:
            notes = dict(extra.save(file))
            require_room_to_pack(file, extra.path, restores=True)
            if extra.kind in DATABASES:
                return [_database(extra.kind, f"{extra.path}{SUFFIX}", extra.origin, file, target)]
            part = _part(extra.kind, f"{extra.path}{SUFFIX}", extra.origin, pack(file, target))
            return [_verified(replace(part, notes=notes), target, scratch)]
        except OSError as error:
            target.unlink(missing_ok=True)
            if extra.kind not in MADE_ANEW or not is_full(error):
                raise
            raise BackupError(f"the disk of {staging} has no room for it", "free some space") from error  # the rest goes on
        finally:
            remove_database(file)

    return save


def _saver_of_bundle(bundle: Bundle) -> _Save:
    def save(staging: Path, scratch: Path) -> list[_Saved]:
        try:
            with ExitStack() as on_failure, TemporaryDirectory(dir=scratch) as room:
                made, staged = [], size_of_folder(staging)
                for file in bundle.save(Path(room)):
                    made.append(_taken(bundle.kind, file, staging, scratch, on_failure))
                    staged += made[-1][0].bytes
                    require_room_to_deliver(staged, staging)  # else nothing at all is delivered, the journal neither
                on_failure.pop_all()
            return made
        except UNFORESEEN as error:
            raise BackupError(f"what was saved of it has another form than this VELOX reads: {error!r:.200}") from error
        except OSError as error:
            if not is_full(error):
                raise
            # its files are removed, and the rest of the backup has room again
            raise BackupError(f"the disk of {staging} has no room for it: free some space") from error

    return save


def _taken(kind: PartKind, saved: Saved, staging: Path, scratch: Path, on_failure: ExitStack) -> _Saved:
    """Pack and verify one file of a bundle and remove it. Raises BackupError when it does not come back."""
    path = f"{saved.path}{SUFFIX}"
    target = _target(staging, path)
    on_failure.callback(target.unlink, missing_ok=True)
    part = replace(_part(kind, path, "", pack(saved.file, target)), notes=dict(saved.notes))
    saved.file.unlink()
    if problem := verify_part(part, target, scratch):
        raise BackupError(f"{path}: {problem}")
    return part, ""


def _verified(part: Part, target: Path, scratch: Path) -> _Saved:
    return part, verify_part(part, target, scratch)


def _database(kind: PartKind, path: str, origin: str, copy: Path, target: Path) -> _Saved:
    """Pack a snapshot and restore it from there; read the snapshot's tables meanwhile, and compare."""
    with ThreadPoolExecutor(1, "backup-pack") as beside:
        packing = beside.submit(_pack_and_restore, copy, target)
        try:
            if kind is PartKind.JOURNAL:
                checks = journal_checks(copy)
                tables, revision, heads = checks.tables, checks.revision, checks.heads
                notes: dict[str, Any] = {"broken": list(checks.broken)} if checks.broken else {}
            else:
                tables, revision, heads, notes = table_checks(copy), "", (), {}
        except (BackupError, OSError) as error:
            wrong = packing.exception()
            target.unlink(missing_ok=True)
            if isinstance(wrong, OSError) and is_full(wrong):
                raise wrong from error  # a full disk makes the snapshot unreadable, too: it is told as what it is
            raise
        packed, restored = packing.result()
    part = replace(_part(kind, path, origin, packed), tables=tables, revision=revision, heads=heads, notes=notes)
    return part, restored if isinstance(restored, str) else what_differs(part, restored)


def _pack_and_restore(copy: Path, target: Path) -> tuple[Packed, Restored | str]:
    """Return what was packed, and what came out of it again, or why nothing did. Raises OSError when it cannot be packed."""
    packed = pack(copy, target)
    try:
        return packed, restore_database(target, copy.with_name("restored"))
    except OSError as error:
        if is_full(error):
            raise
        return packed, f"it cannot be restored: {error.strerror}"
    except BackupError as error:
        return packed, str(error)


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


def _target(staging: Path, path: str) -> Path:
    target = staging / path
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


def _require_room(sources: Sequence[Source], extras: Sequence[Extra | Bundle], staging: Path) -> None:
    sizes = [extra.expected_bytes() for extra in extras if isinstance(extra, Extra)]  # a bundle minds its own
    for source in sources:
        with suppress(OSError):
            sizes.append(0 if source.path is None else source.path.stat().st_size)
    require_room(sizes, staging)


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


def empty_folder(path: Path) -> Path:
    """Return the folder, new and empty. Raises BackupError."""
    try:
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(mode=0o700, parents=True)
        return path
    except OSError as error:
        raise BackupError(f"{path} cannot be made: {error.strerror}: make its folder writable, or free its disk") from error
