"""Backups at a URL, through fsspec: sent, read back, moved to their name. The manifest is in a folder that is renamed at once,
and comes last where files are copied one by one.

- Keys and passwords come from their own places (environment, agent, files of mode 0600), never from here.
- Nothing is taken from a cache: what a listing says is what is there. A look that fails is never "not there".
- No bucket is ever made: a bucket that is not there is a name that was mistyped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import uuid4

from velox_core.backup.destinations import AGAIN, PROBE, Destination, Unfinished, compare_sizes, failed, files_of
from velox_core.backup.faults import BackupError
from velox_core.backup.naming import (
    MANIFEST_FILE,
    PARTIAL,
    backup_of,
    date_of,
    in_order,
    leaving_name,
    maker_of,
    partial_name,
    taken,
)
from velox_core.backup.packing import BLOCK_BYTES
from velox_core.backup.staged import sha256_of, unlike, verified_of

MS_PER_SECOND: Final = 1_000
OBJECT_STORES: Final = frozenset({"s3", "s3a"})  # a folder there is but the beginning of names
SSH: Final = frozenset({"sftp", "ssh"})
RENAMED_AT_ONCE: Final = SSH  # a folder with all that is in it; fsspec's `mv` elsewhere may well copy file by file
LEAVING_FILE: Final = "leaving"  # marks a backup that is being removed where a folder cannot be renamed
CONNECT_SECONDS: Final = 10.0
ANSWER_SECONDS: Final = 60.0
TRIES: Final = 3


def unheard() -> None:
    """Take no notice of an answer."""


class UrlDestination(Destination):
    """Backups at a URL.

    Args:
        url: where, without a password.
        account_folder: the account's own part of it.
        answered: called at each answer of many that a call waits for, so that a slow line is not taken for a silent place.
    """

    def __init__(self, url: str, account_folder: str, answered: Callable[[], None] = unheard) -> None:
        self.where = f"{url.rstrip('/')}/{account_folder}"
        self._scheme = urlsplit(url).scheme
        self._opened: tuple[Any, str] | None = None
        self._answered = answered

    def names(self) -> list[str]:
        """Return the backups that are there, oldest first."""
        with self._told("read"):
            fs, root = self._open()
            found = [name for name in _listed(fs, root) if date_of(name)]
            return in_order(name for name in found if self._has(fs, f"{root}/{name}/{MANIFEST_FILE}"))

    def manifest_content(self, name: str) -> bytes:
        """Return the manifest file of one."""
        with self._told("read"):
            fs, root = self._open()
            return bytes(fs.cat_file(f"{root}/{name}/{MANIFEST_FILE}"))

    def taken(self) -> set[str]:
        """Return the names that are there or on their way."""
        with self._told("read"):
            fs, root = self._open()
            return taken(_listed(fs, root))

    def unfinished(self) -> list[Unfinished]:
        """Return what is there and is no backup."""
        with self._told("read"):
            fs, root = self._open()
            entries = _listed(fs, root)
            left = [name for name in entries if date_of(name) and not self._has(fs, f"{root}/{name}/{MANIFEST_FILE}")]
            return [self._look(fs, root, name) for name in entries if name in left or maker_of(name)]

    def probe(self) -> str:
        """Write, read back and remove a small file; returns what was seen."""
        with self._told("write"):
            fs, root = self._open()
            file = f"{root}/.probe-{uuid4().hex[:8]}"
            self._make_folder(fs, root)
            fs.pipe_file(file, PROBE)
            read = fs.cat_file(file)
            fs.rm_file(file)
            if read != PROBE:
                raise BackupError(
                    f"{self.where}: what was written is read back as something else", "see the store's own health"
                )
            return f"{self.where} is writable"

    def put(self, staged: Path, name: str, made_by: str) -> None:
        """Send a whole backup and read each file back; then it gets its name, and where that takes time the manifest last.

        It is there then: what an object store has left of its way is for `tidy`, which may fail. What fails leaves nothing.
        """
        with self._told("write"):
            fs, root = self._open()
            partial, final = f"{root}/{partial_name(name, made_by)}", f"{root}/{name}"
            with suppress(BackupError):  # what cannot be removed now is told by the tidying after a delivery
                self.tidy(made_by, 0)
            verified = verified_of(staged)
            try:
                for source in files_of(staged):
                    inside = source.relative_to(staged).as_posix()
                    if inside != MANIFEST_FILE or self._scheme in RENAMED_AT_ONCE:
                        self._send(fs, source, f"{partial}/{inside}", verified.get(inside, ""))
                self._give_way(fs, root, name, made_by)
                if self._scheme in RENAMED_AT_ONCE:
                    compare_sizes(self.where, staged, lambda inside: int(fs.size(f"{partial}/{inside}")))
                    fs.mv(partial, final)
                else:
                    self._fill(fs, staged, partial, final)
            except BaseException:
                with suppress(Exception):  # each store has errors of its own; it was the first that went wrong
                    _remove_tree(fs, partial)
                raise

    def _fill(self, fs: Any, staged: Path, partial: str, final: str) -> None:
        """Give it its name file by file, the manifest last. What fails halfway is removed: its name would stay taken."""
        own_manifest = False
        try:
            self._move(fs, staged, partial, final)
            compare_sizes(self.where, staged, lambda inside: int(fs.size(f"{final}/{inside}")), but=MANIFEST_FILE)
            own_manifest = True
            self._send(fs, staged / MANIFEST_FILE, f"{final}/{MANIFEST_FILE}", "")
        except BaseException:
            with suppress(Exception):
                if own_manifest or not _is_there(fs, f"{final}/{MANIFEST_FILE}"):  # else a copy of this `var` was faster
                    _remove_backup(fs, final)
            raise

    def tidy(self, made_by: str, before_wall_ms: int) -> list[str]:
        """Remove what this maker left under way, and any maker's that nobody has touched since; returns their names."""
        removed = []
        with self._told("remove what is left in"):
            fs, root = self._open()
            for name in _listed(fs, root):
                maker = maker_of(name)
                if maker and (maker == made_by or 0 < self._look(fs, root, name).touched_wall_ms < before_wall_ms):
                    _clear(fs, root, name)
                    removed.append(name)
        return removed

    def fetch(self, name: str, path: str, target: Path) -> None:
        """Copy one file of a backup."""
        with self._told("read"):
            fs, root = self._open()
            fs.get_file(f"{root}/{name}/{path}", str(target))

    def remove(self, name: str) -> None:
        """Remove a backup: first its name, or its manifest; what is left of it is tidied away like one under way."""
        with self._told("remove from"):
            fs, root = self._open()
            manifest = f"{root}/{name}/{MANIFEST_FILE}"
            leaving = f"{root}/{leaving_name(name, bytes(fs.cat_file(manifest)) if _is_there(fs, manifest) else b'')}"
            if self._scheme in RENAMED_AT_ONCE:
                fs.mv(f"{root}/{name}", leaving)
            else:
                self._make_folder(fs, leaving)
                fs.pipe_file(f"{leaving}/{LEAVING_FILE}", name.encode())
                _remove_backup(fs, f"{root}/{name}")
            _remove_tree(fs, leaving)

    def _send(self, fs: Any, source: Path, target: str, verified: str) -> None:
        self._make_folder(fs, target.rpartition("/")[0])
        fs.put_file(str(source), target)
        if _digest(_remote_blocks(fs, target)) != (verified or sha256_of(source)):
            raise unlike(self.where, source, verified, "see the store's own health")
        self._answered()

    def _has(self, fs: Any, path: str) -> bool:
        found = _is_there(fs, path)
        self._answered()
        return found

    def _look(self, fs: Any, root: str, name: str) -> Unfinished:
        found = list(fs.find(f"{root}/{name}", detail=True).values())
        with suppress(FileNotFoundError):  # it went meanwhile
            found.append(fs.info(f"{root}/{name}"))  # a folder may be empty
        self._answered()
        touched = [_moment_ms(each) for each in found]
        sizes = sum(int(each.get("size") or 0) for each in found if each.get("type") == "file")
        return Unfinished(name=name, made_by=maker_of(name), bytes=sizes, touched_wall_ms=max(touched, default=0))

    def _move(self, fs: Any, staged: Path, partial: str, final: str) -> None:
        """Give the folder its name; an object store has but names of files, and copies each (fsspec's own `mv` there fails)."""
        if self._scheme not in OBJECT_STORES:
            fs.mv(partial, final, recursive=True)
            return
        for source in files_of(staged):
            inside = source.relative_to(staged).as_posix()
            if inside != MANIFEST_FILE:
                fs.cp_file(f"{partial}/{inside}", f"{final}/{inside}")
                self._answered()

    def _give_way(self, fs: Any, root: str, name: str, made_by: str) -> None:
        """Raise BackupError when another host works under the name; in this order it is seen under one or the other."""
        others = [entry for entry in _listed(fs, root) if entry.startswith(f"{PARTIAL}{name}.") and maker_of(entry) != made_by]
        if others:
            raise BackupError(f"{self.where}/{name} is being written by another host ({others[0]})", AGAIN)
        if _is_there(fs, f"{root}/{name}"):
            raise BackupError(f"{self.where}/{name} is there already", AGAIN)

    def _make_folder(self, fs: Any, path: str) -> None:
        if self._scheme not in OBJECT_STORES:
            fs.makedirs(path, exist_ok=True)

    def _open(self) -> tuple[Any, str]:
        if self._opened is None:
            from fsspec.core import url_to_fs

            options: dict[str, Any] = {}
            if self._scheme in OBJECT_STORES:
                bounds = {
                    "connect_timeout": CONNECT_SECONDS,
                    "read_timeout": ANSWER_SECONDS,
                    "retries": {"max_attempts": TRIES},
                }
                options = {"use_listings_cache": False, "skip_instance_cache": True, "config_kwargs": bounds}
            if self._scheme in SSH:
                from velox_core.backup.sftp import open_sftp

                fs, root = open_sftp(self.where)
            else:
                fs, root = url_to_fs(self.where, **options)
            self._opened = fs, str(root).rstrip("/")
        return self._opened

    @contextmanager
    def _told(self, doing: str) -> Iterator[None]:
        try:
            yield
        except BackupError:
            raise
        except ImportError as error:
            advice = "install what its kind needs, velox[s3] for s3://, velox[sftp] for sftp://"
            raise BackupError(f"{self.where}: {error}", advice) from error
        except Exception as error:  # each store has errors of its own
            raise failed(self.where, doing, error) from error


def _is_there(fs: Any, path: str) -> bool:
    """Return whether something is there. fsspec's own `exists` takes a broken connection for a no."""
    try:
        fs.info(path)
    except FileNotFoundError:
        return False
    return True


def _listed(fs: Any, root: str) -> list[str]:
    """Return the names below a folder, none where it is not there."""
    fs.invalidate_cache()
    try:
        found = fs.ls(root, detail=False)
    except FileNotFoundError:
        return []
    return [str(path).rstrip("/").rpartition("/")[2] for path in found]


def _moment_ms(entry: dict[str, Any]) -> int:
    """Return when a file was written, epoch ms; 0 where its store does not say."""
    moment = entry.get("mtime") or entry.get("LastModified") or entry.get("created")
    if isinstance(moment, datetime):
        return int(moment.timestamp() * MS_PER_SECOND)
    return int(moment * MS_PER_SECOND) if isinstance(moment, int | float) else 0


def _remote_blocks(fs: Any, path: str) -> Iterator[bytes]:
    with fs.open(path, "rb") as file:
        while block := file.read(BLOCK_BYTES):
            yield block


def _digest(content: Iterator[bytes]) -> str:
    digest = hashlib.sha256()
    for block in content:
        digest.update(block)
    return digest.hexdigest()


def _clear(fs: Any, root: str, entry: str) -> None:
    """Remove what is left under way; of a backup that was being removed file by file also what is left under its name."""
    final = f"{root}/{backup_of(entry)}"
    if _is_there(fs, f"{root}/{entry}/{LEAVING_FILE}") and not _is_there(fs, f"{final}/{MANIFEST_FILE}"):
        _remove_tree(fs, final)
    _remove_tree(fs, f"{root}/{entry}")


def _remove_backup(fs: Any, path: str) -> None:
    if _is_there(fs, f"{path}/{MANIFEST_FILE}"):
        fs.rm_file(f"{path}/{MANIFEST_FILE}")
    _remove_tree(fs, path)


def _remove_tree(fs: Any, path: str) -> None:
    if _is_there(fs, path):
        fs.rm(path, recursive=True)
