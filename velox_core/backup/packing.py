"""Packing: files into zstd and out of it again, hashed on the way and on the disk when it returns.

- zstd -3, one thread; the hash is made beside the compressor, which runs without Python's lock.
- Bounded memory: a few blocks, whatever the size of the file.
- What cannot be written leaves nothing under its name.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import zstandard

from velox_core.backup.manifest import BackupError

LEVEL: Final = 3
BLOCK_BYTES: Final = 1 << 20
SYNC_EVERY_BYTES: Final = 16 << 20  # a file that is written out bit by bit holds up no other writer's fsync for long
SUFFIX: Final = ".zst"


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """Sizes and SHA-256 (hex) of a packed file, and of what is in it."""

    bytes: int
    sha256: str
    content_bytes: int
    content_sha256: str


class _Hashed:
    """A file being written: hashed, counted, and brought to the disk in portions."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._since_sync = 0
        self.digest = hashlib.sha256()
        self.bytes = 0

    def write(self, block: bytes) -> None:
        self.digest.update(block)
        self._file.write(block)
        self.bytes += len(block)
        self._since_sync += len(block)
        if self._since_sync >= SYNC_EVERY_BYTES:
            self.sync()

    def sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._since_sync = 0


def blocks(path: Path) -> Iterator[bytes]:
    """Return a file's content in blocks. Raises OSError."""
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            yield block


def pack(source: Path, target: Path) -> Packed:
    """Compress a file; the target is on the disk when this returns. Raises OSError; then there is no target."""
    compressor = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True).compressobj()  # no size: a file may still grow
    content = hashlib.sha256()
    size = 0
    with ExitStack() as on_failure:
        on_failure.callback(target.unlink, missing_ok=True)
        with target.open("xb") as file, ThreadPoolExecutor(1, "backup-hash") as beside:
            out = _Hashed(file)
            for block in blocks(source):
                hashed = beside.submit(content.update, block)
                out.write(compressor.compress(block))
                hashed.result()
                size += len(block)
            out.write(compressor.flush())
            out.sync()
        on_failure.pop_all()
    return Packed(bytes=out.bytes, sha256=out.digest.hexdigest(), content_bytes=size, content_sha256=content.hexdigest())


def unpack(source: Path, target: Path | None, *, sync: bool = True) -> Packed:
    """Decompress a file, or with no target only read it through; returns what was found.

    Raises: BackupError for a file that is no whole zstd frame, OSError.
    """
    packed, content = hashlib.sha256(), hashlib.sha256()
    decompressor = zstandard.ZstdDecompressor().decompressobj()
    sizes = [0, 0]
    file = None if target is None else target.open("xb")
    try:
        with ThreadPoolExecutor(1, "backup-hash") as beside:
            for block in blocks(source):
                whole = decompressor.decompress(block)
                if decompressor.unused_data:
                    raise BackupError(f"{source} has something after its end: it was changed. Take another backup.")
                hashed = [beside.submit(packed.update, block), beside.submit(content.update, whole)]
                if file is not None:
                    file.write(whole)
                for each in hashed:
                    each.result()
                sizes[0] += len(block)
                sizes[1] += len(whole)
        if not decompressor.eof:
            raise BackupError(f"{source} is cut off. Take another backup.")
        if file is not None and sync:
            file.flush()
            os.fsync(file.fileno())
    except zstandard.ZstdError as error:
        raise BackupError(f"{source} is damaged: {error}. Take another backup.") from error
    finally:
        if file is not None:
            file.close()
    return Packed(bytes=sizes[0], sha256=packed.hexdigest(), content_bytes=sizes[1], content_sha256=content.hexdigest())


def write_durably(path: Path, content: bytes) -> None:
    """Write a file that is whole and on the disk, or not there under its name. Raises OSError."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with scratch.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Make the names in a folder and below durable. Raises OSError."""
    for path in [*(path for path in folder.rglob("*") if path.is_dir()), folder]:
        sync_folder(path)
