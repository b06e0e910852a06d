"""What may go: archives by their age and by the room that all of them take, and the files that rotation left, by their age.

- An archive goes only when every file of it is what its manifest says; a damaged one stays, and is told: a person decides.
- A rotated file goes only when each of its lines is in a sound archive.
- Age counts from when an archive was made, not from its date: the archive of an old replay is new. The newest few always stay,
  whatever the machine's clock says.
- Only files that a manifest names are removed; a folder goes when nothing else is in it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from hashlib import blake2b
from pathlib import Path
from typing import Final

from velox_core.archive.lines import line_date, log_files, whole_lines
from velox_core.archive.store import MANIFEST_FILE, Manifest, archive_problems, read_lines, read_manifest
from velox_core.domain.errors import VeloxError

DAY_MS: Final = 86_400_000
ARCHIVES_KEPT_MIN: Final = 5
DIGEST_BYTES: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """What retention did. `removed` names what is gone, `kept` why something that is due stays; `freed` in bytes."""

    removed: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    freed: int = 0


def archive_folder(root: Path, on: date, environment: str) -> Path:
    """Return where the archive of a date lies below `logs/backup`: 20240115/<environment>."""
    return root / f"{on:%Y%m%d}" / environment


def prune_archives(
    root: Path, environment: str, *, keep_days: int, bytes_max: int, wall_ms: int, kept_min: int = ARCHIVES_KEPT_MIN
) -> Pruned:
    """Remove an environment's archives that are older than `keep_days`, then the oldest until the rest fits into `bytes_max`.

    Raises: OSError when something cannot be removed.
    """
    found: list[tuple[Path, Manifest]] = []
    kept: list[str] = []
    for path in sorted(root.glob(f"*/{environment}/{MANIFEST_FILE}")):
        try:
            manifest = read_manifest(path.parent)
        except VeloxError as error:
            kept.append(str(error))
            continue
        if manifest is not None:
            found.append((path.parent, manifest))
    found.sort(key=lambda item: (item[1].archived_wall_ms, item[1].date))
    total = sum(manifest.stored_size for _, manifest in found)
    removed, freed = [], 0
    for folder, manifest in found[: max(0, len(found) - kept_min)]:
        is_old = manifest.archived_wall_ms < wall_ms - keep_days * DAY_MS
        if not is_old and total - freed <= bytes_max:
            continue
        if problems := archive_problems(folder):
            kept.append(f"{folder} stays, it is not sound: {problems[0]}")
            continue
        _remove(folder, manifest)
        removed.append(str(folder))
        freed += manifest.stored_size
    return Pruned(removed=tuple(removed), kept=tuple(kept), freed=freed)


def _remove(folder: Path, manifest: Manifest) -> None:
    for file in manifest.files:
        (folder / file.name).unlink(missing_ok=True)
    (folder / MANIFEST_FILE).unlink()
    for empty in (folder, folder.parent):
        if not any(empty.iterdir()):
            empty.rmdir()


def prune_rotated(source: Path, root: Path, environment: str, logs: Iterable[str], *, keep_days: int, wall_ms: int) -> Pruned:
    """Remove rotated files last written more than `keep_days` ago whose every line is in a sound archive. Raises OSError."""
    removed, kept, freed = [], [], 0
    for log in logs:
        for path in log_files(source, log):
            if path.name == log or path.stat().st_mtime * 1_000 >= wall_ms - keep_days * DAY_MS:
                continue
            missing = _not_archived(path, log, root, environment)
            if missing:
                kept.append(f"{path} stays: {missing}")
                continue
            freed += path.stat().st_size
            path.unlink()
            removed.append(str(path))
    return Pruned(removed=tuple(removed), kept=tuple(kept), freed=freed)


def _not_archived(path: Path, log: str, root: Path, environment: str) -> str:
    """Return why a rotated file may not go, '' when each of its lines is in a sound archive of its date."""
    by_date: dict[bytes, Counter[bytes]] = {}
    last = b""
    with path.open("rb") as file:
        for block in whole_lines([file]):
            for line in block.splitlines(keepends=True):
                last = line_date(line) or last
                by_date.setdefault(last, Counter())[_digest(line)] += 1
    for day, lines in by_date.items():
        text = day.decode()
        if not text:
            return "it begins with lines that belong to no date"
        try:
            on = date.fromisoformat(text)
        except ValueError:
            return f"a line of it names {text}, which is no date"
        problem = _missing(archive_folder(root, on, environment), log, lines)
        if problem:
            return f"{problem}; velox eod --date {text} archives what is missing"
    return ""


def _missing(folder: Path, log: str, lines: Counter[bytes]) -> str:
    """Return why lines are not in an archive, '' when all are."""
    if problems := archive_problems(folder):
        return problems[0]
    manifest = read_manifest(folder)
    names: Sequence[str] = [file.name for file in manifest.files if file.log == log] if manifest is not None else []
    for name in names:
        rest = b""
        for block in read_lines(folder / name):
            block = rest + block
            cut = block.rfind(b"\n") + 1
            rest = block[cut:]
            for line in block[:cut].splitlines(keepends=True):
                if (digest := _digest(line)) in lines:
                    lines[digest] -= 1
    missing = sum(count for count in lines.values() if count > 0)
    return f"{missing} of its lines are not in {folder}" if missing else ""


def _digest(line: bytes) -> bytes:
    return blake2b(line, digest_size=DIGEST_BYTES).digest()
