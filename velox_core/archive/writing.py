"""Writing one file of an archive: the lines are compressed, hashed and read back at the same time.

- The file is a row of zstd frames, one for each block of lines: `zstd -d` and `read_lines` unpack it as one. Small frames keep
  the compressor's tables in the processor's cache, and each unpacks by itself.
- The caller's thread picks and hashes the lines; another compresses some blocks, writes them, reads them back from the file,
  compares them with what was written, unpacks them and compares that with the lines. The file is on the disk when this returns.
- Bounded memory: two groups of blocks wait for the other thread.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Final

import zstandard

from velox_core.domain.errors import VeloxError

ZSTD_LEVEL: Final = 3
GROUP_BLOCKS: Final = 4  # handed over at once: each time the other thread waits for the interpreter's lock
GROUPS_WAITING_MAX: Final = 2


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


class _Frames:
    """The file, a frame after the other; used by one thread at a time."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file = file
        self._path = path
        self._compressor = zstandard.ZstdCompressor(level=ZSTD_LEVEL, write_checksum=True)
        self._decompressor = zstandard.ZstdDecompressor()
        self._digest = hashlib.sha256()
        self.size = 0

    def add(self, blocks: list[bytes]) -> None:
        """Write each block as a frame, and read them back. Raises OSError; VeloxError when they are not what was written."""
        frames = self._pack(blocks)
        packed = b"".join(frames)
        rest = memoryview(packed)
        while rest:  # an unbuffered file may take a part, and says that the disk is full only when it takes nothing
            rest = rest[self._file.write(rest) :]
        found = self._read(len(packed))
        # compared before it is unpacked: a bent header may ask for any amount of memory
        if found != packed or not self._unpacks_to(blocks, found, [len(frame) for frame in frames]):
            raise VeloxError(
                f"{self._path} does not read back as it was written: the disk is failing. The archive is as it was"
            )
        self._digest.update(found)
        self.size += len(found)

    def _pack(self, blocks: list[bytes]) -> list[bytes]:
        """Return a frame of each block, and one that is empty when there is none: without a frame it would be no zstd file."""
        if not blocks:
            return [self._compressor.compress(b"")]
        packed = self._compressor.multi_compress_to_buffer([*blocks], threads=1)
        return [packed[number].tobytes() for number in range(len(packed))]

    def _read(self, size: int) -> bytes:
        """Return what the file has gained, less when it is shorter than what was written."""
        parts: list[bytes] = []
        while size and (part := os.pread(self._file.fileno(), size, self.size + sum(map(len, parts)))):
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def _unpacks_to(self, blocks: list[bytes], packed: bytes, sizes: list[int]) -> bool:
        """Return whether the frames, of these sizes, unpack to the blocks; the frames' own checksums are looked at too."""
        at = 0
        try:
            for block, size in zip(blocks or [b""], sizes, strict=True):
                if self._decompressor.decompress(memoryview(packed)[at : at + size]) != block:
                    return False
                at += size
        except zstandard.ZstdError:
            return False
        return True

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()


def write_lines(blocks: Iterable[bytes], path: Path, *, before: tuple[int, str] | None = None) -> Written:
    """Write blocks of whole lines as one zstd file, durably, and read it back.

    Args:
        blocks: the lines.
        path: the file; it stays when something fails, for the caller to remove.
        before: size and SHA-256 of the lines that the archive has.
    Raises: OSError; VeloxError when the file does not read back as it was written.
    """
    lines = _Lines(before)
    # unbuffered: what was written is there to be read
    with path.open("w+b", buffering=0) as file, ThreadPoolExecutor(1, "archive-write") as writing:
        frames = _Frames(file, path)
        waiting: deque[Future[None]] = deque()
        try:
            for group in _groups(blocks):
                waiting.append(writing.submit(frames.add, group))
                for block in group:
                    lines.add(block)
                if len(waiting) >= GROUPS_WAITING_MAX:
                    waiting.popleft().result()
            for each in waiting:
                each.result()
        finally:
            writing.shutdown(cancel_futures=True)  # when something fails, what waits is dropped
        os.fsync(file.fileno())
    return Written(
        size=lines.size,
        sha256=lines.sha256,
        stored_size=frames.size,
        stored_sha256=frames.sha256,
        continues=lines.continues,
    )


def _groups(blocks: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Yield the blocks some at a time; one empty group when there is no block."""
    rest = iter(blocks)
    group = list(islice(rest, GROUP_BLOCKS))
    yield group
    while group := list(islice(rest, GROUP_BLOCKS)):
        yield group
