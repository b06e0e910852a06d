"""Picking the lines of one date out of the files of a log, while they are written and rotated.

- A line belongs to the date of its engine time, else of its wall time; what is no line of ours goes with the one before.
- Only whole lines are taken; one that is being written is there for the next time. The files are only read.
- Rotation meanwhile loses nothing: the files are opened together, and again when one of them has come in between.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import date
from io import BufferedReader
from pathlib import Path
from typing import Final

from velox_core.domain.errors import VeloxError

BLOCK_BYTES: Final = 1 << 20
SNAPSHOTS_MAX: Final = 20  # looks at the files of one log until no rotation came in between
LEVEL_AT: Final = 30  # bytes before the level in a line: `2026-11-23 09:31:00,120+05:30 `
_ROTATED: Final = re.compile(r"\.(\d{1,4})")
_LINE: Final = re.compile(rb"(\d{4}-\d\d-\d\d) [0-9:,+]+ [A-Z]+ \[~?(\d{4}-\d\d-\d\d|-)")


def log_files(folder: Path, log: str) -> list[Path]:
    """Return the files of one log, the oldest first: those that were rotated away, then the live one."""
    rotated = []
    for path in folder.glob(f"{log}.*"):
        match = _ROTATED.fullmatch(path.name.removeprefix(log))
        if match is not None:
            rotated.append((int(match[1]), path))
    return [*(path for _, path in sorted(rotated, reverse=True)), *([folder / log] if (folder / log).exists() else [])]


@contextmanager
def snapshot(folder: Path, log: str) -> Iterator[list[BufferedReader]]:
    """Open every file of a log, the oldest first, none missed although it rotates meanwhile.

    Raises: OSError; VeloxError when it rotates without end.
    """
    for _ in range(SNAPSHOTS_MAX):
        with ExitStack() as stack:
            opened: dict[tuple[int, int], BufferedReader] = {}
            for path in log_files(folder, log):
                with suppress(FileNotFoundError):
                    file = stack.enter_context(path.open("rb"))
                    opened.setdefault(_identity(os.fstat(file.fileno())), file)
            now = []
            for path in log_files(folder, log):
                with suppress(FileNotFoundError):
                    now.append(_identity(path.stat()))
            if set(now) <= set(opened):
                yield [opened[key] for key in dict.fromkeys(now)]
                return
    raise VeloxError(f"{folder / log} is rotated faster than it can be opened: set system.logs.max_megabytes higher")


def _identity(stat: os.stat_result) -> tuple[int, int]:
    return stat.st_dev, stat.st_ino


class DateLines:
    """Picks the lines of one date out of blocks of whole lines; it remembers the date of the last line, and counts."""

    def __init__(self, on: date) -> None:
        self._on = on.isoformat().encode()
        # a line that does not say the date where the writer of our logs puts it; the first line of a block is not looked at
        self._other = re.compile(rb"\n(?!.{%d}[A-Z]+ \[~?%s )" % (LEVEL_AT, self._on), re.DOTALL)
        self._last = b""
        self.count = 0  # lines picked so far

    def pick(self, block: bytes) -> bytes:
        """Return the block's lines of the date, all of them or none at once where that can be told."""
        if line_date(block) == self._on and self._other.search(block, 0, len(block) - 1) is None:
            self._last = self._on
            self.count += block.count(b"\n")
            return block
        if self._on not in block and self._last != self._on:
            return b""
        kept = []
        for line in block.splitlines(keepends=True):
            self._last = line_date(line) or self._last
            if self._last == self._on:
                kept.append(line)
        self.count += len(kept)
        return b"".join(kept)


def line_date(line: bytes) -> bytes:
    """Return the date that a line belongs to, as ISO text; empty for what is no line of a log."""
    match = _LINE.match(line)
    return b"" if match is None else match[1] if match[2] == b"-" else match[2]


def whole_lines(files: Sequence[BufferedReader]) -> Iterator[bytes]:
    """Yield the files' content in blocks of whole lines. What the last file, the live one, ends with may not be whole yet."""
    buffer = bytearray(BLOCK_BYTES)  # one for all blocks: new memory for each costs more than reading it
    for number, file in enumerate(files):
        held = 0
        while got := file.readinto(memoryview(buffer)[held:]):
            held += got
            cut = buffer.rfind(b"\n", 0, held) + 1
            if cut:
                yield bytes(memoryview(buffer)[:cut])
                buffer[: held - cut] = buffer[cut:held]
                held -= cut
            elif held == len(buffer):
                buffer += bytes(BLOCK_BYTES)  # a line longer than a block
        if held and number < len(files) - 1:
            yield bytes(memoryview(buffer)[:held]) + b"\n"


def date_lines(files: Sequence[BufferedReader], lines: DateLines) -> Iterator[bytes]:
    """Yield the lines of a date in blocks, as near to BLOCK_BYTES as they come: small ones compress badly."""
    parts: list[bytes] = []
    size = 0
    for block in whole_lines(files):
        picked = lines.pick(block)
        if parts and size + len(picked) > BLOCK_BYTES:
            yield b"".join(parts)
            parts, size = [], 0
        if picked:
            parts.append(picked)
            size += len(picked)
    if parts:
        yield b"".join(parts)
