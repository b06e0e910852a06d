"""The process that works on a place with backups, which stops before a file is sent until a test lets it go on.

Run as `python -m tests.fakes.paused_courier FOLDER NUMBER`: before file NUMBER it makes FOLDER/reached and waits for FOLDER/go.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any, Final

from velox_core.backup.courier import Moved, main
from velox_core.backup.destinations import Destination
from velox_core.backup.url_place import UrlDestination

REACHED, GO = "reached", "go"
LOOK_SECONDS: Final = 0.02
WAIT_SECONDS_MAX: Final = 300.0


class PausedUrl(UrlDestination):
    """A URL that waits for the test once."""

    sent = 0

    def _send(self, fs: Any, source: Path, target: str, verified: str) -> None:
        self.sent += 1
        if self.sent == int(sys.argv[2]):
            (Path(sys.argv[1]) / REACHED).touch()
            _wait_for(Path(sys.argv[1]) / GO, Event())
        super()._send(fs, source, target, verified)


def open_at(place: str, account_folder: str, moved: Moved) -> Destination:
    """Return the place."""
    return PausedUrl(place, account_folder)


@contextmanager
def when_reached(folder: Path, act: Callable[[], None]) -> Iterator[None]:
    """Do something when the process has reached its file, then let it go on.

    Raises: what the block or `act` raises; AssertionError when the block has ended and the file was never reached. It holds
        nobody up: the process waits for this one, so a block whose process was let go on ends after `act`.
    """
    ended, errors = Event(), []

    def wait() -> None:
        try:
            if _wait_for(folder / REACHED, ended):
                act()
        except BaseException as error:  # raised by the test's own thread below
            errors.append(error)
        finally:
            (folder / GO).touch()

    beside = Thread(target=wait, name="when-reached", daemon=True)
    beside.start()
    try:
        yield
    finally:
        ended.set()
        beside.join(WAIT_SECONDS_MAX)
    assert not beside.is_alive(), "what was to be done when the file was reached has not ended"
    if errors:
        raise errors[0]
    assert (folder / REACHED).exists(), "the process has ended before it reached its file"


def _wait_for(file: Path, ended: Event) -> bool:
    """Return whether a file came, before the end or a bound."""
    until = time.monotonic() + WAIT_SECONDS_MAX
    while not file.exists():
        if ended.wait(LOOK_SECONDS) or time.monotonic() > until:
            return file.exists()
    return True


if __name__ == "__main__":
    main(open_at)
