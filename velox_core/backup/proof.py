"""Whether a part of a backup is what was saved: restored into an empty place, and compared.

- When it is made: a database's bytes are those of its snapshot, it is sound by SQLite's integrity check, and has its rows. The
  snapshot's tables and hash chains are read once, while it is packed: equal bytes are equal tables.
- Later, and before a restore: the checksum of each table and the hash chains are computed from what was restored, too.
- Nothing of what is restored stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from velox_core.backup.databases import check_integrity, journal_checks, row_counts, table_checks
from velox_core.backup.manifest import DATABASES, BackupError, Part, PartKind
from velox_core.backup.packing import Packed, unpack

SOUND = "ok"  # what SQLite's integrity check says of a database without damage


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """A database as it came back: sizes and hashes, SQLite's verdict ('ok'), and the rows of each table when it is sound."""

    found: Packed
    integrity: str
    rows: Mapping[str, int]


def restore_database(packed: Path, place: Path) -> Restored:
    """Unpack a database into an empty place, look at it and remove it. Raises BackupError, OSError."""
    try:
        found = unpack(packed, place, sync=False)
        integrity = check_integrity(place)
        return Restored(found=found, integrity=integrity, rows=row_counts(place) if integrity == SOUND else {})
    finally:
        remove_database(place)


def what_differs(part: Part, restored: Restored) -> str:
    """Return '' when a database came back as the part says, else what is wrong."""
    if problem := _other_file(part, restored.found):
        return problem
    if restored.integrity != SOUND:
        return f"SQLite finds it damaged: {restored.integrity}"
    wanted, found = {name: check.rows for name, check in part.tables.items()}, restored.rows
    wrong = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
    return f"table {wrong[0]} has {found.get(wrong[0])} rows, {wanted.get(wrong[0])} were saved" if wrong else ""


def verify_part(part: Part, packed: Path, scratch: Path, *, loads: bool = True) -> str:
    """Restore one part into an empty place and compare everything. Returns '' when it is what it was, else what is wrong.

    Args:
        part: what it must be.
        packed: its file.
        scratch: where it is restored.
        loads: have a server load what is no file of ours. Without it equal bytes are enough: it was loaded when it was saved.
    """
    restored = scratch / "restored"
    try:
        if problem := _other_file(part, unpack(packed, restored, sync=False)):
            return problem
        if part.kind in DATABASES:
            return _differs_in_depth(part, restored)
        if part.kind is PartKind.REDIS and loads:
            from velox_core.backup import redis_copy  # client libraries: only where there is something for them

            return redis_copy.check(restored, part.notes)
        if part.kind is PartKind.METRICS and loads:
            from velox_core.backup import metrics_export

            return metrics_export.check(restored, part.notes)
        return ""
    except FileNotFoundError:
        return "the file is missing"
    except OSError as error:
        return f"it cannot be restored: {error.strerror}"
    except BackupError as error:
        return str(error)
    finally:
        remove_database(restored)


def _other_file(part: Part, found: Packed) -> str:
    if (found.bytes, found.sha256) != (part.bytes, part.sha256):
        return "the file is not the one that was written"
    if (found.content_bytes, found.content_sha256) != (part.content_bytes, part.content_sha256):
        return "it does not unpack to what was packed"
    return ""


def _differs_in_depth(part: Part, restored: Path) -> str:
    with ThreadPoolExecutor(1, "backup-integrity") as beside:
        checking = beside.submit(check_integrity, restored)
        differs = _other_tables(part, restored)
        integrity = checking.result()
    return differs if integrity == SOUND else f"SQLite finds it damaged: {integrity}"


def _other_tables(part: Part, restored: Path) -> str:
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


def remove_database(path: Path) -> None:
    """Remove a database and what SQLite keeps beside it. Raises OSError."""
    for name in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
        name.unlink(missing_ok=True)
