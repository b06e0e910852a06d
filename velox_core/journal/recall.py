"""What earlier processes of a run sent, for a closer that must not send it again: emergency files first, then the journal.

- Light: a SQLite journal is read by the standard library; SQLAlchemy is loaded only where the journal is on a server.
- Files are read whether they were imported or not, so that a journal that is gone hides little.
- Of the one trading date alone: orders have DAY validity, so those of an earlier date hold nothing back today.
- Bounded: the records are read on a thread of their own; what is not there by then is missing, and said to be.
- Never raises for what the outside does: a closer goes on without a record.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import Final

import orjson

from velox_core.domain.errors import JournalUnavailable, VeloxError
from velox_core.domain.events import EventKind
from velox_core.journal.file import read_events
from velox_core.lost_exits import Recalled, RecordedEvent, recalled

READ_SECONDS_MAX: Final = 5.0  # a closer waits no longer for the records, once for each time that another one closed
EMERGENCY_FILES: Final = "emergency*.jsonl*"  # of the engine and of closers outside it, imported ones too
_KINDS: Final = (EventKind.INTENT, EventKind.ORDER)
_BUSY_SECONDS: Final = 1.0
_SQLITE: Final = "sqlite:///"
_FAILURES: Final = (VeloxError, OSError, sqlite3.Error, LookupError, ValueError, TypeError, ImportError)


def recall_run(
    folder: Path,
    journal_url: str,
    scope_key: str,
    *,
    trading_date: date,
    begun: tuple[str, ...] = (),
    seconds_max: float = READ_SECONDS_MAX,
) -> Recalled:
    """Return what a run has on record of one trading date.

    Args:
        folder: the run's, with its emergency files.
        journal_url: SQLAlchemy URL of its journal; a SQLite file that is not there holds nothing where the run never began.
        scope_key: the run's, as the journal has it.
        trading_date: whose orders count; an account's folder without run ids has those of earlier dates too.
        begun: files of the folder of which any one says that the run began, so that its journal has to be there.
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
    journal = _within(seconds_max, lambda: _journal_events(folder, journal_url, scope_key, trading_date, begun))
    if isinstance(journal, str):
        missing.append(f"the journal: {journal}")
    else:
        sources.append(journal)
    return _joined(sources, missing, f"{trading_date:%y%m%d}")


def _emergency_files(folder: Path, missing: list[str]) -> list[Path]:
    try:
        return sorted(folder.glob(EMERGENCY_FILES))
    except OSError as error:
        missing.append(f"the emergency files: {error}")
        return []


def _joined(sources: list[list[RecordedEvent]], missing: list[str], of_date: str) -> Recalled:
    try:
        return recalled(sources, "; ".join(missing), of_date)
    except _FAILURES as error:
        missing.append(f"a damaged event: {error!r}")
    readable = []
    for source in sources:
        try:
            recalled([source], of_date=of_date)
            readable.append(source)
        except _FAILURES:
            continue
    return recalled(readable, "; ".join(missing), of_date)


def _within(seconds_max: float, events: Callable[[], Iterator[RecordedEvent]]) -> list[RecordedEvent] | str:
    """Return the journal's events, or why they are not there in time."""
    answers: list[list[RecordedEvent] | str] = []

    def read() -> None:
        try:
            answers.append(list(events()))
        except Exception as error:  # of a thread of its own: whoever waits is told, whatever it is
            answers.append(str(error) or repr(error))

    thread = threading.Thread(target=read, name="recall", daemon=True)
    thread.start()
    thread.join(seconds_max)
    return answers[0] if answers else f"it did not answer within {seconds_max:g} s"


def _journal_events(
    folder: Path, journal_url: str, scope_key: str, trading_date: date, begun: tuple[str, ...]
) -> Iterator[RecordedEvent]:
    if journal_url.startswith(_SQLITE):
        path = Path(journal_url.removeprefix(_SQLITE))
        if path.exists():
            yield from _sqlite_events(path, scope_key, trading_date)
        elif said := [name for name in begun if (folder / name).exists()]:
            raise JournalUnavailable(f"{path.name} is not in {folder}, though {said[0]} says that the run began")
        return
    from velox_core.journal.queries import JournalReader

    with closing(JournalReader(journal_url)) as reader:
        run = reader.latest_run(trading_date, scope_key=scope_key)
        for event in reader.events(run.run_key, _KINDS) if run is not None and run.run_key is not None else ():
            yield event.kind, event.ts_ms, event.body


def _sqlite_events(path: Path, scope_key: str, trading_date: date) -> Iterator[RecordedEvent]:
    query = (
        "SELECT ts_ms, kind, body FROM event JOIN run ON run.run_key = event.run_key"
        " WHERE run.scope_key = ? AND run.trading_date = ? AND kind IN (?, ?) ORDER BY event.run_key, sequence"
    )
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=_BUSY_SECONDS)) as connection:
        for ts_ms, kind, body in connection.execute(
            query, (scope_key, trading_date.isoformat(), *(kind.value for kind in _KINDS))
        ):
            yield EventKind(kind), int(ts_ms), orjson.loads(body)
