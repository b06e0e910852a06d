"""Reading what was added to log files since the last look, in bounded pieces.

- Starts at the end of each file, so that a relay never repeats an older session.
- A file that was rotated or cut is read again from its start; one that is missing is waited for.
- What exceeds the bound is skipped and counted, never queued.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

READ_BYTES_MAX: Final = 256_000
TIMESTAMP_LENGTH: Final = len("2024-01-15 09:31:00,000")


class LogTail:
    """A place in each of several growing text files."""

    def __init__(self, files: Iterable[Path]) -> None:
        self._places: dict[Path, int] = {path: _size(path) for path in files}
        self.skipped_lines = 0

    def new_lines(self, lines_max: int) -> list[str]:
        """Return at most `lines_max` whole lines added since the last call, the newest when there are more."""
        lines: list[str] = []
        for path, place in self._places.items():
            size = _size(path)
            start = 0 if size < place else place
            if size == start:
                continue
            text, end = _read_lines(path, max(start, size - READ_BYTES_MAX), size)
            self._places[path] = end
            lines.extend(text)
        lines = list(dict.fromkeys(lines))  # a run's header stands in every file
        if len(lines) > lines_max:
            self.skipped_lines += len(lines) - lines_max
        return sorted(lines, key=_written_at)[-lines_max:]


def _written_at(line: str) -> str:
    """Return a line's wall time, with which it begins; the order of lines of one moment is kept."""
    return line[:TIMESTAMP_LENGTH]


def last_lines(path: Path, lines_max: int) -> list[str]:
    """Return the last lines of a file, none when it cannot be read."""
    size = _size(path)
    lines, _ = _read_lines(path, max(0, size - READ_BYTES_MAX), size)
    return lines[-lines_max:]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _read_lines(path: Path, start: int, end: int) -> tuple[list[str], int]:
    """Return the whole lines between two offsets and the offset after the last of them."""
    try:
        with path.open("rb") as file:
            file.seek(start)
            data = file.read(end - start)
    except OSError:
        return [], start
    whole = data.rfind(b"\n") + 1
    return data[:whole].decode("utf-8", errors="replace").splitlines(), start + whole
