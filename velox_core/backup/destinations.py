"""Where backups are kept: a folder, or any place that fsspec knows by its URL (s3://, sftp://, memory://).

- A backup comes under another name, is on the disk (or read back and compared), and only then gets its own.
- Object stores cannot rename a folder at once: there the manifest is what makes a backup, and it is written last.
- What fails is a BackupError that names the place; another destination is not concerned.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Protocol

from velox_core.backup.manifest import MANIFEST_FILE, BackupError, Manifest, date_of, number_of, read_manifest
from velox_core.backup.packing import BLOCK_BYTES, blocks, copy_durably, sync_folder, sync_tree

PARTIAL: Final = ".partial-"


class Destination(Protocol):
    """One place with the backups of one account. Every method raises BackupError."""

    where: str  # for people

    def names(self) -> list[str]:
        """Return the backups that are there, oldest first."""
        ...

    def manifest(self, name: str) -> Manifest:
        """Return the manifest of one."""
        ...

    def put(self, staged: Path, name: str) -> None:
        """Take a whole backup under a name that is not there yet."""
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

    def put(self, staged: Path, name: str) -> None:
        """Take a whole backup: copied, synced, renamed."""
        partial = self.folder / f"{PARTIAL}{name}"
        with self._told("write"):
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                shutil.rmtree(partial, ignore_errors=True)
                for source in _files(staged):
                    target = partial / source.relative_to(staged)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    copy_durably(source, target)
                sync_tree(partial)
                if (self.folder / name).exists():
                    raise BackupError(f"{self.folder / name} is there already: take the backup again")
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
            if not fs.exists(root):
                return []
            found = (str(path).rstrip("/").rpartition("/")[2] for path in fs.ls(root, detail=False))
            return _sorted(name for name in found if date_of(name) and fs.exists(f"{root}/{name}/{MANIFEST_FILE}"))

    def manifest(self, name: str) -> Manifest:
        """Return the manifest of one."""
        with self._told("read"):
            fs, root = self._open()
            return read_manifest(fs.cat_file(f"{root}/{name}/{MANIFEST_FILE}"), f"{self.where}/{name}")

    def put(self, staged: Path, name: str) -> None:
        """Send a whole backup, read each file back, rename, and send the manifest last."""
        with self._told("write"):
            fs, root = self._open()
            partial, final = f"{root}/{PARTIAL}{name}", f"{root}/{name}"
            if fs.exists(final):
                raise BackupError(f"{self.where}/{name} is there already: take the backup again")
            try:
                _remove_tree(fs, partial)
                for source in _files(staged):
                    inside = source.relative_to(staged).as_posix()
                    if inside != MANIFEST_FILE:
                        self._send(fs, source, f"{partial}/{inside}")
                fs.mv(partial, final, recursive=True)
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


def _said(place: str, doing: str, error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    advice = "free some space there" if getattr(error, "errno", None) == 28 else "see whether it is there and yours to use"
    return f"cannot {doing} {place}: {text}: {advice}"


def _sorted(names: Iterator[str]) -> list[str]:
    return sorted((name for name in names if date_of(name)), key=lambda name: (date_of(name), number_of(name), name))


def _files(folder: Path) -> list[Path]:
    """Return the files of a staged backup, the manifest last."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return sorted(found, key=lambda path: path.name == MANIFEST_FILE)


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
