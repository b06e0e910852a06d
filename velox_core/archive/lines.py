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
from pathlib import Path
from typing import BinaryIO, Final

from velox_core.domain.errors import VeloxError

BLOCK_BYTES: Final = 1 << 20
SNAPSHOTS_MAX: Final = 20  # looks at the files of one log until no rotation came in between
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
def snapshot(folder: Path, log: str) -> Iterator[list[BinaryIO]]:
    """Open every file of a log, the oldest first, none missed although it rotates meanwhile.

    Raises: OSError; VeloxError when it rotates without end.
    """
    for _ in range(SNAPSHOTS_MAX):
        with ExitStack() as stack:
            opened: dict[tuple[int, int], BinaryIO] = {}
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
        self._tags = (b" [" + self._on + b" ", b" [~" + self._on + b" ")
        self._last = b""
        self.count = 0  # lines picked so far

    def pick(self, block: bytes) -> bytes:
        """Return the block's lines of the date, all of them or none at once where that can be told."""
        lines = block.count(b"\n")
        found = 0
        for tag in self._tags:
            found += block.count(tag)
            if found == lines:
                self._last = self._on
                self.count += lines
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


def whole_lines(files: Sequence[BinaryIO]) -> Iterator[bytes]:
    """Yield the files' content in blocks of whole lines. What the last file, the live one, ends with may not be whole yet."""
    for number, file in enumerate(files):
        rest = b""
        while block := file.read(BLOCK_BYTES):
            block = rest + block
            cut = block.rfind(b"\n") + 1
            rest = block[cut:]
            if cut:
                yield block[:cut]
        if rest and number < len(files) - 1:
            yield rest + b"\n"


def date_lines(files: Sequence[BinaryIO], lines: DateLines) -> Iterator[bytes]:
    """Yield the lines of a date, in blocks."""
    return (picked for block in whole_lines(files) if (picked := lines.pick(block)))
