"""What earlier processes of a run sent, for a closer that must not send it again: emergency files first, then the journal.

- Light: a SQLite journal is read by the standard library; SQLAlchemy is loaded only where the journal is on a server.
- Files are read whether they were imported or not, so that a journal that is gone hides little.
- Bounded: the records are read on a thread of their own; what is not there by then is missing, and said to be.
- Never raises for what the outside does: a closer goes on without a record.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

import orjson

from velox_core.domain.errors import VeloxError
from velox_core.domain.events import EventKind
from velox_core.journal.file import read_events
from velox_core.lost_exits import Recalled, RecordedEvent, recalled

READ_SECONDS_MAX: Final = 5.0  # a closer waits no longer for the records, once for each time that another one closed
EMERGENCY_FILES: Final = "emergency*.jsonl*"  # of the engine and of closers outside it, imported ones too
_KINDS: Final = (EventKind.INTENT, EventKind.ORDER)
_BUSY_SECONDS: Final = 1.0
_SQLITE: Final = "sqlite:///"
_FAILURES: Final = (VeloxError, OSError, sqlite3.Error, LookupError, ValueError, TypeError, ImportError)


def recall_run(folder: Path, journal_url: str, scope_key: str, *, seconds_max: float = READ_SECONDS_MAX) -> Recalled:
    """Return what a run has on record.

    Args:
        folder: the run's, with its emergency files.
        journal_url: SQLAlchemy URL of its journal; a SQLite file that is not there holds nothing.
        scope_key: the run's, as the journal has it.
        seconds_max: real time for the journal; what the files say stands without it.
    """
    sources: list[list[RecordedEvent]] = []
    missing: list[str] = []
    for path in _emergency_files(folder, missing):
        sources.append([])
        try:
            for event in read_events(path, _KINDS):
                sources[-1].append((event.kind, event.ts_ms, event.body))
        except _FAILURES as error:
            if path.exists():  # else it was imported meanwhile, under another name or in the journal
                missing.append(f"{path.name}: {error}")
    journal = _within(seconds_max, journal_url, scope_key)
    if isinstance(journal, str):
        missing.append(f"the journal: {journal}")
    else:
        sources.append(journal)
    return _joined(sources, missing)


def _emergency_files(folder: Path, missing: list[str]) -> list[Path]:
    try:
        return sorted(folder.glob(EMERGENCY_FILES))
    except OSError as error:
        missing.append(f"the emergency files: {error}")
        return []


def _joined(sources: list[list[RecordedEvent]], missing: list[str]) -> Recalled:
    try:
        return recalled(sources, "; ".join(missing))
    except _FAILURES as error:
        missing.append(f"a damaged event: {error!r}")
    readable = []
    for source in sources:
        try:
            recalled([source])
            readable.append(source)
        except _FAILURES:
            continue
    return recalled(readable, "; ".join(missing))


def _within(seconds_max: float, journal_url: str, scope_key: str) -> list[RecordedEvent] | str:
    """Return the journal's events, or why they are not there in time."""
    answers: list[list[RecordedEvent] | str] = []

    def read() -> None:
        try:
            answers.append(list(_journal_events(journal_url, scope_key)))
        except _FAILURES as error:
            answers.append(str(error) or repr(error))

    thread = threading.Thread(target=read, name="recall", daemon=True)
    thread.start()
    thread.join(seconds_max)
    return answers[0] if answers else f"it did not answer within {seconds_max:g} s"


def _journal_events(journal_url: str, scope_key: str) -> Iterator[RecordedEvent]:
    if journal_url.startswith(_SQLITE):
        yield from _sqlite_events(Path(journal_url.removeprefix(_SQLITE)), scope_key)
        return
    from velox_core.journal.queries import JournalReader

    with closing(JournalReader(journal_url)) as reader:
        run = reader.latest_run(scope_key=scope_key)
        for event in reader.events(run.run_key, _KINDS) if run is not None and run.run_key is not None else ():
            yield event.kind, event.ts_ms, event.body


def _sqlite_events(path: Path, scope_key: str) -> Iterator[RecordedEvent]:
    if not path.exists():
        return
    query = (
        "SELECT ts_ms, kind, body FROM event JOIN run ON run.run_key = event.run_key"
        " WHERE run.scope_key = ? AND kind IN (?, ?) ORDER BY event.run_key, sequence"
    )
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=_BUSY_SECONDS)) as connection:
        for ts_ms, kind, body in connection.execute(query, (scope_key, *(kind.value for kind in _KINDS))):
            yield EventKind(kind), int(ts_ms), orjson.loads(body)
