"""The process that works on a place with backups, which stops before a file is sent until a test lets it go on.

Run as `python -m tests.fakes.paused_courier FOLDER NUMBER`: before file NUMBER it writes FOLDER/reached and reads FOLDER/go.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from velox_core.backup.courier import Moved, main
from velox_core.backup.destinations import Destination
from velox_core.backup.url_place import UrlDestination

REACHED, GO = "reached", "go"


class PausedUrl(UrlDestination):
    """A URL that waits for the test once."""

    sent = 0

    def _send(self, fs: Any, source: Path, target: str) -> None:
        self.sent += 1
        if self.sent == int(sys.argv[2]):
            (Path(sys.argv[1]) / REACHED).write_bytes(b"x")
            (Path(sys.argv[1]) / GO).read_bytes()
        super()._send(fs, source, target)


def open_at(place: str, account_folder: str, moved: Moved) -> Destination:
    """Return the place."""
    return PausedUrl(place, account_folder)


@contextmanager
def when_reached(folder: Path, act: Callable[[], None]) -> Iterator[None]:
    """Do something when the process has reached its file, then let it go on; what was done has no error."""
    for name in (REACHED, GO):
        os.mkfifo(folder / name)

    def wait() -> None:
        (folder / REACHED).read_bytes()
        try:
            act()
        finally:
            (folder / GO).write_bytes(b"x")

    with ThreadPoolExecutor(1) as beside:
        waiting = beside.submit(wait)
        yield
        waiting.result(120)


if __name__ == "__main__":
    main(open_at)
