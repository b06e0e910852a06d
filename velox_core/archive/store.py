"""The archive of a date's logs: compressed files in a folder of their own, and a manifest that says which of them count.

- The manifest is replaced last: it never names a file that was not written, read back and compared.
- An archive is only ever added to: what is no continuation of what it has becomes a file beside it. What lies in its folder
  besides is nobody's business here.
- Whatever fails leaves the archive as it was, and the live files untouched.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import date
from io import BufferedReader
from pathlib import Path
from typing import Any, Final

import orjson

from velox_core.archive.lines import BLOCK_BYTES, DateLines, date_lines, line_date, log_files, snapshot
from velox_core.archive.writing import write_lines
from velox_core.domain.errors import VeloxError

MANIFEST_FILE: Final = "manifest.json"
FORMAT: Final = 1
SPACE_SHARE: Final = 3  # text compresses to less than a third
SPACE_RESERVE_BYTES: Final = 16_000_000
FILES_MAX: Final = 10_000  # of one log in one archive


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchivedFile:
    """One file of an archive, with lines of `log`; sizes in bytes, `sha256` of the lines, `stored_sha256` of the file."""

    name: str
    log: str
    lines: int
    size: int
    sha256: str
    stored_size: int
    stored_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What an archive holds. `whole` is False when rotation may have removed lines of the date before it was made."""

    date: str
    files: tuple[ArchivedFile, ...]
    archived_wall_ms: int
    whole: bool

    @property
    def lines(self) -> int:
        """Return the number of lines."""
        return sum(file.lines for file in self.files)

    @property
    def stored_size(self) -> int:
        """Return the bytes on disk."""
        return sum(file.stored_size for file in self.files)


def read_manifest(folder: Path) -> Manifest | None:
    """Return the manifest of an archive, None when there is none. Raises VeloxError for one that cannot be read."""
    path = folder / MANIFEST_FILE
    try:
        body = orjson.loads(path.read_bytes())
        files = tuple(ArchivedFile(**entry) for entry in body["files"])
        return Manifest(
            date=str(body["date"]), files=files, archived_wall_ms=int(body["archived_wall_ms"]), whole=body["whole"] is True
        )
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise VeloxError(
            f"{path} is no manifest of an archive ({error}): move its folder away, and archive the date again"
        ) from None


def archive_date(
    source: Path,
    target: Path,
    on: date,
    logs: Iterable[str],
    *,
    keep_files: int,
    wall_ms: int,
    free_bytes: Callable[[Path], int] | None = None,
) -> Manifest:
    """Archive the lines of a date; a second time adds what has come since.

    Args:
        source: the folder of the live files.
        target: the archive's folder; made when it is missing.
        on: the date.
        logs: the names of the logs, such as 'system.log'.
        keep_files: the number at which rotation removes a file.
        wall_ms: now, epoch ms of the machine's clock.
        free_bytes: the room where a folder lies; the disk's own when it is left out.
    Returns: the manifest, of files that were read back and compared.
    Raises: VeloxError when it cannot be read or written, or there is no room; the archive is then as it was.
    """
    logs = tuple(logs)
    try:
        target.mkdir(parents=True, exist_ok=True)
        before = read_manifest(target)
        _require_room(source, target, logs, free_bytes or _free_bytes)
        files: list[ArchivedFile] = []
        whole = True
        for log in logs:
            kept = [file for file in before.files if file.log == log] if before is not None else []
            with snapshot(source, log) as opened:
                lost = _may_have_lost(opened, on, keep_files)
                found, goes_on = _archive_log(opened, target, log, on, kept)
            files += found
            whole = whole and (not lost or (goes_on and before is not None and before.whole))
        manifest = Manifest(date=on.isoformat(), files=tuple(files), archived_wall_ms=wall_ms, whole=whole)
        if before is not None and (before.files, before.whole) == (manifest.files, manifest.whole):
            return before
        _write_manifest(target, manifest)
        _remove_superseded(target, before, manifest)
        return manifest
    except OSError as error:
        raise VeloxError(
            f"the logs of {on} cannot be archived in {target}: {error.strerror or error}. Make the folder writable and free "
            "some disk; the live files are untouched"
        ) from error


def _free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).free


def _require_room(source: Path, target: Path, logs: Iterable[str], free_bytes: Callable[[Path], int]) -> None:
    sizes = 0
    for log in logs:
        for path in log_files(source, log):
            with suppress(FileNotFoundError):
                sizes += path.stat().st_size
    needed, free = sizes // SPACE_SHARE + SPACE_RESERVE_BYTES, free_bytes(target)
    if free < needed:
        raise VeloxError(
            f"the disk of {target} has {free / 1e6:.0f} MB free, and archiving {sizes / 1e6:.0f} MB of logs may need "
            f"{needed / 1e6:.0f} MB: free some, or move var and logs with VELOX__VAR. Nothing was written"
        )


def _may_have_lost(opened: Sequence[BufferedReader], on: date, keep_files: int) -> bool:
    """Return whether rotation may have removed lines of the date: all numbers are taken, the oldest file begins with it."""
    if len(opened) <= keep_files:
        return False
    first = line_date(opened[0].readline())
    opened[0].seek(0)
    return first >= on.isoformat().encode()


def _archive_log(
    opened: Sequence[BufferedReader], target: Path, log: str, on: date, kept: list[ArchivedFile]
) -> tuple[list[ArchivedFile], bool]:
    """Return the archive's files of one log: those it had, the newest of them replaced where there is more of it now.

    And whether what is there now goes on from what the archive had.
    """
    newest = kept[-1] if kept else None
    name = _next_name(target, log, kept)
    scratch = target / f".{name}.{os.getpid()}"
    try:
        picked = DateLines(on)
        found = write_lines(
            date_lines(opened, picked), scratch, before=None if newest is None else (newest.size, newest.sha256)
        )
        written = ArchivedFile(
            name=name,
            log=log,
            lines=picked.count,
            size=found.size,
            sha256=found.sha256,
            stored_size=found.stored_size,
            stored_sha256=found.stored_sha256,
        )
        if newest is not None and not written.lines:
            return kept, True
        if newest is not None and written.sha256 == newest.sha256 and not _problem(target, newest):
            return kept, True
        scratch.replace(target / name)
    finally:
        scratch.unlink(missing_ok=True)
    return [*(kept[:-1] if found.continues else kept), written], found.continues


def _next_name(target: Path, log: str, kept: Sequence[ArchivedFile]) -> str:
    """Return a name that no file of the archive has, nor one that a crash left behind counts for."""
    taken = {file.name for file in kept}
    names = (f"{log}.zst" if number == 1 else f"{log.removesuffix('.log')}.{number}.log.zst" for number in range(1, FILES_MAX))
    return next(name for name in names if name not in taken)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_back(path: Path, expected: ArchivedFile) -> None:
    digest = hashlib.sha256()
    for block in read_lines(path):
        digest.update(block)
    if digest.hexdigest() != expected.sha256:
        raise VeloxError(f"{path} does not read back as it was written: the disk is failing. The archive is as it was")


def read_lines(path: Path) -> Iterator[bytes]:
    """Yield the content of a file of an archive, in blocks. Raises VeloxError when it is damaged, OSError when it is gone."""
    import zstandard

    try:
        with path.open("rb") as raw, zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True) as packed:
            while block := packed.read(BLOCK_BYTES):
                yield block
    except zstandard.ZstdError as error:
        raise VeloxError(f"{path} is damaged ({error}): restore it from a copy") from error


def _write_manifest(target: Path, manifest: Manifest) -> None:
    body: dict[str, Any] = {"format": FORMAT, **asdict(manifest)}
    scratch = target / f".{MANIFEST_FILE}.{os.getpid()}"
    try:
        with scratch.open("wb") as file:
            file.write(orjson.dumps(body, option=orjson.OPT_INDENT_2))
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(target / MANIFEST_FILE)
    finally:
        scratch.unlink(missing_ok=True)
    folder = os.open(target, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _remove_superseded(target: Path, before: Manifest | None, now: Manifest) -> None:
    counted = {file.name for file in now.files}
    for file in before.files if before is not None else ():
        if file.name not in counted:
            (target / file.name).unlink(missing_ok=True)


def _problem(folder: Path, file: ArchivedFile) -> str:
    path = folder / file.name
    try:
        if _digest(path) != file.stored_sha256:
            return f"{path} is not what the manifest says: it was changed or damaged"
        _read_back(path, file)
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"
    except VeloxError as error:
        return str(error)
    return ""


def archive_problems(folder: Path) -> list[str]:
    """Return what is wrong with an archive, one sentence each: every file is read and compared with the manifest."""
    try:
        manifest = read_manifest(folder)
    except VeloxError as error:
        return [str(error)]
    if manifest is None:
        return [f"{folder} has no {MANIFEST_FILE}"]
    return [problem for file in manifest.files if (problem := _problem(folder, file))]
