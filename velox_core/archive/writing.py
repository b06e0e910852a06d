"""Writing one file of an archive: the lines are compressed, hashed and read back at the same time.

- The caller's thread picks and hashes the lines; one thread compresses and writes; one reads back what is in the file so far
  and unpacks it. None of the three holds Python's lock for long.
- What is read back is the file: its hash is that of what the compressor gave, and it unpacks to what the compressor was given,
  by the checksum that the compressor made of it. It is on the disk when this returns.
- Bounded memory: a few blocks wait for the compressor, and none for the reader.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import zstandard

from velox_core.archive.lines import BLOCK_BYTES
from velox_core.domain.errors import VeloxError

ZSTD_LEVEL: Final = 3
ZSTD_THREADS: Final = 2
BLOCKS_WAITING_MAX: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What was written: sizes in bytes and SHA-256 (hex) of the lines and of the file.

    `continues`: whether the lines begin with all of those that the archive had.
    """

    size: int
    sha256: str
    stored_size: int
    stored_sha256: str
    continues: bool


class _Lines:
    """The lines as they go by: hashed, and compared with what the archive had (its size and SHA-256)."""

    def __init__(self, before: tuple[int, str] | None) -> None:
        self._before = before
        self._digest = hashlib.sha256()
        self.size = 0
        self.continues = before is not None and before[0] == 0

    def add(self, block: bytes) -> None:
        edge = 0
        if self._before is not None and self.size < self._before[0] <= self.size + len(block):
            edge = self._before[0] - self.size
            self._digest.update(memoryview(block)[:edge])
            self.continues = self._digest.hexdigest() == self._before[1]
        self._digest.update(memoryview(block)[edge:])
        self.size += len(block)

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()


class _Compressor:
    """The file's writing side, in a thread of its own."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._compressor = zstandard.ZstdCompressor(level=ZSTD_LEVEL, threads=ZSTD_THREADS, write_checksum=True).compressobj()
        self._digest = hashlib.sha256()
        self.stored_size = 0

    def write(self, block: bytes) -> int:
        """Compress a block; returns how much is in the file."""
        return self._put(self._compressor.compress(block))

    def end(self) -> int:
        """Write what the compressor still holds; returns how much is in the file."""
        return self._put(self._compressor.flush())

    def _put(self, packed: bytes) -> int:
        rest = memoryview(packed)
        while rest:  # an unbuffered file may take a part, and says that the disk is full only when it takes nothing
            rest = rest[self._file.write(rest) :]
        self._digest.update(packed)
        self.stored_size += len(packed)
        return self.stored_size

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()


class _Reader:
    """The file's reading side, in a thread of its own: it follows the writing."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._decompressor = zstandard.ZstdDecompressor().decompressobj()
        self._digest = hashlib.sha256()
        self._at = self._size = 0

    def read(self, until: int) -> None:
        """Read and unpack what the file has gained. Raises ZstdError also for a frame whose checksum is another one."""
        while self._at < until:
            packed = os.pread(self._file.fileno(), min(BLOCK_BYTES, until - self._at), self._at)
            if not packed:
                return  # it is shorter than what was written, so its hash is another one
            self._at += len(packed)
            self._digest.update(packed)
            self._size += len(self._decompressor.decompress(packed))

    def found(self) -> tuple[int, str]:
        """Return the size of the lines and the SHA-256 of the file, (-1, '') when its end is missing."""
        return (self._size, self._digest.hexdigest()) if self._decompressor.eof else (-1, "")


def write_lines(blocks: Iterable[bytes], path: Path, *, before: tuple[int, str] | None = None) -> Written:
    """Write blocks of whole lines as one zstd file, durably, and read it back.

    Args:
        blocks: the lines.
        path: the file; it stays when something fails, for the caller to remove.
        before: size and SHA-256 of the lines that the archive has.
    Raises: OSError; VeloxError when the file does not read back as it was written.
    """
    lines = _Lines(before)
    with ExitStack() as stack:
        # unbuffered: what was written is there for the reader
        file = stack.enter_context(path.open("w+b", buffering=0))
        writing, reading = _threads(stack)
        compressor, reader = _Compressor(file), _Reader(file)
        waiting: deque[Future[int]] = deque()
        read: list[Future[None]] = []
        for block in blocks:
            waiting.append(writing.submit(compressor.write, block))
            lines.add(block)
            if len(waiting) >= BLOCKS_WAITING_MAX:
                read = [*_unfinished(read), reading.submit(reader.read, waiting.popleft().result())]
        waiting.append(writing.submit(compressor.end))
        for written in waiting:
            read.append(reading.submit(reader.read, written.result()))
        os.fsync(file.fileno())
        try:
            for each in read:
                each.result()
        except zstandard.ZstdError as error:
            raise _fails(path) from error
    if reader.found() != (lines.size, compressor.sha256):
        raise _fails(path)
    return Written(
        size=lines.size,
        sha256=lines.sha256,
        stored_size=compressor.stored_size,
        stored_sha256=compressor.sha256,
        continues=lines.continues,
    )


def _threads(stack: ExitStack) -> tuple[ThreadPoolExecutor, ThreadPoolExecutor]:
    """Return a thread to write and one to read; when something fails, what waits for them is dropped."""
    writing, reading = ThreadPoolExecutor(1, "archive-write"), ThreadPoolExecutor(1, "archive-read")
    for each in (reading, writing):
        stack.callback(each.shutdown, cancel_futures=True)
    return writing, reading


def _unfinished(futures: list[Future[None]]) -> list[Future[None]]:
    """Return those that are not done. Raises what went wrong in one that is."""
    for future in futures:
        if future.done():
            future.result()
    return [future for future in futures if not future.done()]


def _fails(path: Path) -> VeloxError:
    return VeloxError(f"{path} does not read back as it was written: the disk is failing. The archive is as it was")
