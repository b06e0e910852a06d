"""The journal with an emergency file behind it: what SQL cannot take is in the file before an order leaves.

- A commit that SQL refuses as unavailable writes everything that waits to the file and syncs it, then still raises:
  entries are refused, and an exit leaves with its intent on the disk.
- When SQL takes the events after all, the file is set aside. Whoever dies before that leaves it to the next start, whose
  import drops what the run holds already.
- A file that was there before this process is never set aside here: it may hold what this process does not know.
- A file that cannot be written stops nothing: the events wait in memory as they do for SQL, and a person is told.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

from velox_core.domain.errors import IntentRefused, JournalUnavailable
from velox_core.domain.events import Body, EventKind, JournalEvent
from velox_core.journal.file import FileJournal
from velox_core.journal.imports import set_aside, sync_folder
from velox_core.ports import Alerts, Journal, Severity

_log = logging.getLogger("velox.system")


class FallbackJournal:
    """`ports.Journal` over a journal that may go away, and a file for as long as it is away.

    Args:
        journal: keeps what it could not commit, in order, and commits it later.
        path: the emergency file; it is created when it is needed.
        alerts: told when the file cannot be written either.
        not_imported: why an older emergency file is not in the journal: what happened cannot be read then.
    """

    def __init__(self, journal: Journal, path: Path, alerts: Alerts, *, not_imported: JournalUnavailable | None = None) -> None:
        self._journal = journal
        self._path = path
        self._alerts = alerts
        self._not_imported = not_imported
        self._waiting: list[tuple[EventKind, int, Body]] = []  # what the journal has not committed
        self._in_file = 0  # how many of them the file was given
        self._file: FileJournal | None = None
        self._is_ours = False
        self._is_told = False

    def append(self, kind: EventKind, ts_ms: int, body: Body) -> None:
        """Add one event, in order. The body is not to be changed afterwards."""
        self._journal.append(kind, ts_ms, body)
        self._waiting.append((kind, ts_ms, body))

    def commit(self) -> None:
        """Make every appended event durable. Raises JournalUnavailable (they are in the file then), IntentRefused."""
        try:
            self._journal.commit()
        except IntentRefused:  # it dropped what it refused and took the rest
            self._end_waiting()
            raise
        except JournalUnavailable:
            self._keep_in_file()
            raise
        self._end_waiting()

    def events(self, kinds: Iterable[EventKind] | None = None) -> Iterator[JournalEvent]:
        """Return the run's committed events, oldest first. Raises JournalUnavailable, also when they are not all."""
        if self._not_imported is not None:
            raise self._not_imported
        return self._journal.events(kinds)

    def newest_halt(self) -> int:
        """Return the sequence of the newest halt or clear record. Raises JournalUnavailable as `events` does."""
        if self._not_imported is not None:
            raise self._not_imported
        return self._journal.newest_halt()

    def close(self) -> None:
        """Close the file, if it is open. What is in it stays for the next start; the journal is not closed."""
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _keep_in_file(self) -> None:
        """Sync to the file what waits and is not in it. Raises nothing: no store may hold up an exit."""
        try:
            file = self._file or self._open_file()
            for kind, ts_ms, body in self._waiting[self._in_file :]:
                file.append(kind, ts_ms, body)
                self._in_file += 1
            file.commit()
        except JournalUnavailable as error:
            if not self._is_told:
                self._is_told = True
                _log.critical("[JOURNAL] nor can the emergency file be written: %s", error)
                self._alerts.send(
                    Severity.CRITICAL,
                    "Emergency file unavailable",
                    f"{error}. Exits go on; their intents are in memory alone and are lost if the engine dies.",
                )
        else:
            self._is_told = False

    def _open_file(self) -> FileJournal:
        try:
            is_ours = not self._path.exists() or self._path.stat().st_size == 0
            file = FileJournal(self._path, fsync=True)
            sync_folder(self._path.parent)
        except OSError as error:
            raise JournalUnavailable(f"cannot open {self._path}: {error.strerror}") from error
        if is_ours:
            _log.warning("[JOURNAL] what it cannot take is written to %s", self._path)
        self._file, self._is_ours = file, is_ours
        return file

    def _end_waiting(self) -> None:
        """Forget what the journal has now, and set the file aside: the journal knows all that is in it."""
        self._waiting.clear()
        if self._file is None:
            return
        file, self._file, self._in_file = self._file, None, 0
        digest = file.digest
        file.close()
        if not self._is_ours:
            return
        try:
            _log.warning("[JOURNAL] it has what was written to %s", set_aside(self._path, digest))
        except OSError as error:
            _log.error("[JOURNAL] %s could not be set aside: %s; the next start does", self._path, error)
