"""Where backups are kept: a folder, or any place that fsspec knows by its URL (s3://, sftp://, memory://).

- A backup comes under another name, is on the disk (or read back and compared), and only then gets its own.
- Several hosts may share a place: what is under way has its maker in its name, so that nobody takes away or fills up
  another's, and of two that want one name at once at least one gives way.
- Object stores cannot rename a folder at once: there the manifest is what makes a backup, and it is written last.
- What fails is a BackupError that names the place; another destination is not concerned.
"""

from __future__ import annotations

import errno
import hashlib
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Protocol
from uuid import uuid4

from velox_core.backup.manifest import MANIFEST_FILE, BackupError, Manifest, date_of, number_of, read_manifest
from velox_core.backup.packing import BLOCK_BYTES, blocks, copy_durably, sync_folder, sync_tree

PARTIAL: Final = ".partial-"
PROBE: Final = b"velox"
AGAIN: Final = "take the backup again, it then has the next number"
KEYS_MISSING: Final = frozenset({"NoCredentialsError", "PartialCredentialsError", "AuthenticationException", "SSHException"})


class Destination(Protocol):
    """One place with the backups of one account. Every method raises BackupError."""

    where: str  # for people

    def names(self) -> list[str]:
        """Return the backups that are there, oldest first."""
        ...

    def manifest(self, name: str) -> Manifest:
        """Return the manifest of one."""
        ...

    def taken(self) -> set[str]:
        """Return the names that are there, whole or what is left of one, or on their way."""
        ...

    def put(self, staged: Path, name: str, made_by: str) -> None:
        """Take a whole backup under a name that is not there yet. `made_by` tells its maker from others."""
        ...

    def probe(self) -> str:
        """Write, read back and remove a small file; returns what was seen, for people."""
        ...

    def fetch(self, name: str, path: str, target: Path) -> None:
        """Copy one file of a backup."""
        ...

    def remove(self, name: str) -> None:
        """Remove a backup: its manifest first, so that what is left of it is none."""
        ...


def open_destination(text: str, account_folder: str) -> Destination:
    """Return the place that a setting or an option names.

    Args:
        text: an absolute folder, or a URL.
        account_folder: the account's own part of it, 'simulated/primary'.
    """
    if "://" in text and not text.startswith("file://"):
        return UrlDestination(text, account_folder)
    return FolderDestination(Path(text.removeprefix("file://")) / account_folder)


class FolderDestination:
    """Backups in a folder of this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.where = str(folder)

    def names(self) -> list[str]:
        """Return the backups that are there, oldest first."""
        with self._told("read"):
            if not self.folder.is_dir():
                return []
            found = (path.name for path in self.folder.iterdir() if (path / MANIFEST_FILE).is_file())
            return _sorted(found)

    def manifest(self, name: str) -> Manifest:
        """Return the manifest of one."""
        with self._told("read"):
            return read_manifest((self.folder / name / MANIFEST_FILE).read_bytes(), f"{self.folder / name}")

    def taken(self) -> set[str]:
        """Return the names that are there or on their way."""
        with self._told("read"):
            return _taken(path.name for path in self.folder.iterdir()) if self.folder.is_dir() else set()

    def probe(self) -> str:
        """Write, read back and remove a small file; returns what was seen."""
        with self._told("write"):
            self.folder.mkdir(parents=True, exist_ok=True)
            file = self.folder / f".probe-{uuid4().hex[:8]}"
            file.write_bytes(PROBE)
            read = file.read_bytes()
            file.unlink()
            if read != PROBE:
                raise BackupError(f"{self.where}: what was written is read back as something else: see the disk's health")
            return f"{self.where} is writable, {shutil.disk_usage(self.folder).free / 1e9:.1f} GB free"

    def put(self, staged: Path, name: str, made_by: str) -> None:
        """Take a whole backup: copied, synced, renamed."""
        partial = self.folder / _partial_name(name, made_by)
        with self._told("write"):
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                for left in self.folder.glob(f"{PARTIAL}*"):
                    if _made_by(left.name, made_by):  # of one that was killed
                        shutil.rmtree(left, ignore_errors=True)
                for source in _files(staged):
                    target = partial / source.relative_to(staged)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    copy_durably(source, target)
                sync_tree(partial)
                compare_sizes(self.where, staged, lambda inside: (partial / inside).stat().st_size)
                if (self.folder / name).exists():
                    raise BackupError(f"{self.folder / name} is there already: {AGAIN}")
                partial.rename(self.folder / name)
                sync_folder(self.folder)
            finally:
                shutil.rmtree(partial, ignore_errors=True)

    def fetch(self, name: str, path: str, target: Path) -> None:
        """Copy one file of a backup."""
        with self._told("read"):
            copy_durably(self.folder / name / path, target)

    def remove(self, name: str) -> None:
        """Remove a backup, its manifest first."""
        with self._told("remove from"):
            (self.folder / name / MANIFEST_FILE).unlink(missing_ok=True)
            shutil.rmtree(self.folder / name)

    @contextmanager
    def _told(self, doing: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise BackupError(_said(self.where, doing, error)) from error


class UrlDestination:
    """Backups at a URL, through fsspec. Keys and passwords come from its own places (environment, agent), never from here."""

    def __init__(self, url: str, account_folder: str) -> None:
        self.where = f"{url.rstrip('/')}/{account_folder}"
        self._opened: tuple[Any, str] | None = None

    def names(self) -> list[str]:
        """Return the backups that are there, oldest first."""
        with self._told("read"):
            fs, root = self._open()
            found = _listed(fs, root)
            return _sorted(name for name in found if date_of(name) and fs.exists(f"{root}/{name}/{MANIFEST_FILE}"))

    def manifest(self, name: str) -> Manifest:
        """Return the manifest of one."""
        with self._told("read"):
            fs, root = self._open()
            return read_manifest(fs.cat_file(f"{root}/{name}/{MANIFEST_FILE}"), f"{self.where}/{name}")

    def taken(self) -> set[str]:
        """Return the names that are there or on their way."""
        with self._told("read"):
            fs, root = self._open()
            return _taken(_listed(fs, root))

    def probe(self) -> str:
        """Write, read back and remove a small file; returns what was seen."""
        with self._told("write"):
            fs, root = self._open()
            file = f"{root}/.probe-{uuid4().hex[:8]}"
            fs.makedirs(root, exist_ok=True)
            fs.pipe_file(file, PROBE)
            read = fs.cat_file(file)
            fs.rm_file(file)
            if read != PROBE:
                raise BackupError(f"{self.where}: what was written is read back as something else: see the store's own health")
            return f"{self.where} is writable"

    def put(self, staged: Path, name: str, made_by: str) -> None:
        """Send a whole backup, read each file back, rename, and send the manifest last."""
        with self._told("write"):
            fs, root = self._open()
            partial, final = f"{root}/{_partial_name(name, made_by)}", f"{root}/{name}"
            try:
                for left in _listed(fs, root):
                    if _made_by(left, made_by):  # of one that was killed
                        _remove_tree(fs, f"{root}/{left}")
                for source in _files(staged):
                    inside = source.relative_to(staged).as_posix()
                    if inside != MANIFEST_FILE:
                        self._send(fs, source, f"{partial}/{inside}")
                # in this order: who is on the way is seen under the one name or the other
                others = [each for each in _listed(fs, root) if each.startswith(f"{PARTIAL}{name}.")]
                others = [each for each in others if not _made_by(each, made_by)]
                if others:
                    raise BackupError(f"{self.where}/{name} is being written by another host ({others[0]}): {AGAIN}")
                if fs.exists(final):
                    raise BackupError(f"{self.where}/{name} is there already: {AGAIN}")
                fs.mv(partial, final, recursive=True)
                fs.invalidate_cache()
                compare_sizes(self.where, staged, lambda inside: int(fs.size(f"{final}/{inside}")), but=MANIFEST_FILE)
                self._send(fs, staged / MANIFEST_FILE, f"{final}/{MANIFEST_FILE}")
            finally:
                _remove_tree(fs, partial)

    def fetch(self, name: str, path: str, target: Path) -> None:
        """Copy one file of a backup."""
        with self._told("read"):
            fs, root = self._open()
            fs.get_file(f"{root}/{name}/{path}", str(target))

    def remove(self, name: str) -> None:
        """Remove a backup, its manifest first."""
        with self._told("remove from"):
            fs, root = self._open()
            if fs.exists(f"{root}/{name}/{MANIFEST_FILE}"):
                fs.rm_file(f"{root}/{name}/{MANIFEST_FILE}")
            _remove_tree(fs, f"{root}/{name}")

    def _send(self, fs: Any, source: Path, target: str) -> None:
        fs.makedirs(target.rpartition("/")[0], exist_ok=True)
        fs.put_file(str(source), target)
        if _digest(_remote_blocks(fs, target)) != _digest(blocks(source)):
            raise BackupError(f"{self.where}: {source.name} was read back as something else: see the store's own health")

    def _open(self) -> tuple[Any, str]:
        if self._opened is None:
            from fsspec.core import url_to_fs

            fs, root = url_to_fs(self.where)
            self._opened = fs, str(root).rstrip("/")
        return self._opened

    @contextmanager
    def _told(self, doing: str) -> Iterator[None]:
        try:
            yield
        except BackupError:
            raise
        except ImportError as error:
            raise BackupError(
                f"{self.where}: {error}: install what its kind needs, velox[s3] for s3://, velox[sftp] for sftp://"
            ) from error
        except Exception as error:  # each store has errors of its own
            raise BackupError(_said(self.where, doing, error)) from error


def compare_sizes(where: str, staged: Path, size_of: Callable[[str], int], but: str = "") -> None:
    """Raise BackupError unless every file of a staged backup is there as long as it is; `but` is not looked at.

    Whoever copied this `var` may have taken the one under way for what is left of its own.
    """
    for source in _files(staged):
        inside = source.relative_to(staged).as_posix()
        if inside == but:
            continue
        try:
            size = size_of(inside)
        except FileNotFoundError:
            size = -1
        if size != source.stat().st_size:
            found = "is gone" if size < 0 else f"has {size} bytes"
            raise BackupError(f"{where}: {inside} {found}, somebody else works there under this host's name: {AGAIN}")


def _partial_name(name: str, made_by: str) -> str:
    """Return what a backup is called while it is on its way: no two are called the same."""
    return f"{PARTIAL}{name}.{made_by}~{uuid4().hex[:8]}"


def _made_by(entry: str, made_by: str) -> bool:
    """Return whether an entry of a place is a backup that this maker has, or had, under way."""
    return entry.startswith(PARTIAL) and entry.rpartition(".")[2].partition("~")[0] == made_by


def _said(place: str, doing: str, error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    advice = "see whether it is there and yours to use"
    if getattr(error, "errno", None) == errno.ENOSPC:
        advice = "free some space there"
    elif type(error).__name__ in KEYS_MISSING or isinstance(error, PermissionError):
        advice = (
            "its keys are missing or refused: they belong where its own tools look for them (s3: AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or ~/.aws/credentials; sftp: an ssh agent or ~/.ssh)"
        )
    return f"cannot {doing} {place}: {text}: {advice}"


def _sorted(names: Iterator[str]) -> list[str]:
    return sorted((name for name in names if date_of(name)), key=lambda name: (date_of(name), number_of(name), name))


def _files(folder: Path) -> list[Path]:
    """Return the files of a staged backup, the manifest last."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return sorted(found, key=lambda path: path.name == MANIFEST_FILE)


def _listed(fs: Any, root: str) -> list[str]:
    """Return the names below a folder, none where it is not there."""
    if not fs.exists(root):
        return []
    fs.invalidate_cache()
    return [str(path).rstrip("/").rpartition("/")[2] for path in fs.ls(root, detail=False)]


def _taken(entries: Iterable[str]) -> set[str]:
    """Return the names in use: of backups, of what is left of one that was killed, of those on their way."""
    return {
        entry.removeprefix(PARTIAL).rpartition(".")[0] if entry.startswith(PARTIAL) else entry
        for entry in entries
        if entry.startswith(PARTIAL) or date_of(entry) is not None
    }


def _remote_blocks(fs: Any, path: str) -> Iterator[bytes]:
    with fs.open(path, "rb") as file:
        while block := file.read(BLOCK_BYTES):
            yield block


def _digest(content: Iterator[bytes]) -> bytes:
    digest = hashlib.sha256()
    for block in content:
        digest.update(block)
    return digest.digest()


def _remove_tree(fs: Any, path: str) -> None:
    if fs.exists(path):
        fs.rm(path, recursive=True)
