"""Packing: files into zstd and out of it again, hashed on the way; and what brings files to the disk.

- zstd -3, one thread; the hash is made beside the compressor, which runs without Python's lock.
- Bounded memory: a few blocks, whatever the size of the file.
- What cannot be written leaves nothing under its name. A packed file is not synced: it is staged, and its copy in a
  destination is.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import zstandard

from velox_core.backup.faults import BackupError

LEVEL: Final = 3
BLOCK_BYTES: Final = 1 << 20
SYNC_EVERY_BYTES: Final = 8 << 20  # a file that is written out bit by bit holds up no other writer's fsync for long
SUFFIX: Final = ".zst"


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """Sizes and SHA-256 (hex) of a packed file, and of what is in it."""

    bytes: int
    sha256: str
    content_bytes: int
    content_sha256: str


def blocks(path: Path) -> Iterator[bytes]:
    """Return a file's content in blocks. Raises OSError."""
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            yield block


def pack(source: Path, target: Path) -> Packed:
    """Compress a file. Raises OSError; then there is no target."""
    compressor = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True).compressobj()  # no size: a file may still grow
    packed, content = hashlib.sha256(), hashlib.sha256()
    sizes = [0, 0]

    def write(file: IO[bytes], block: bytes) -> None:
        packed.update(block)
        file.write(block)
        sizes[0] += len(block)

    with ExitStack() as on_failure:
        on_failure.callback(target.unlink, missing_ok=True)
        with target.open("xb") as file, ThreadPoolExecutor(1, "backup-hash") as beside:
            for block in blocks(source):
                hashed = beside.submit(content.update, block)
                write(file, compressor.compress(block))
                hashed.result()
                sizes[1] += len(block)
            write(file, compressor.flush())
        on_failure.pop_all()
    return Packed(bytes=sizes[0], sha256=packed.hexdigest(), content_bytes=sizes[1], content_sha256=content.hexdigest())


def private_opener(path: str, flags: int) -> int:
    """Open a new file that only its owner may read, for `open`."""
    return os.open(path, flags, 0o600)


def copy_durably(source: Path, target: Path, moved: Callable[[int], None], wanted: str = "", *, private: bool = False) -> bool:
    """Copy a file, never link it: two copies are to be two. It is on the disk when this returns. Raises OSError.

    It is hashed on its way and read back, from the disk itself where the kernel lets go of its copy of it.

    Args:
        source, target: the files.
        moved: told how many bytes were written or read back, block by block.
        wanted: the SHA-256 (hex) that it has to have, '' for that of what was written.
        private: whether only its owner may read a target that is new.
    Returns: whether what is read back is that.
    """
    written, read = hashlib.sha256(), hashlib.sha256()
    since_sync = 0
    with open(target, "wb", opener=private_opener if private else None) as file:
        for block in blocks(source):
            file.write(block)
            written.update(block)
            moved(len(block))
            since_sync += len(block)
            if since_sync >= SYNC_EVERY_BYTES:
                file.flush()
                os.fsync(file.fileno())
                since_sync = 0
        file.flush()
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    for block in blocks(target):
        read.update(block)
        moved(len(block))
    return read.hexdigest() == (wanted or written.hexdigest())


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
