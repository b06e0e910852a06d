"""Loading a file journal into SQL: a finished replay, or the intents that were written while SQL was away.

- A whole run keeps its digests: the chain of the file and of the database are the same.
- Loading again continues where the last load ended; a database that holds other events is refused.
- A file that its writer still has open is left to it: it is not whole yet.
- An emergency file is appended after what the run holds already, and gets new digests. Its writer may have died when SQL
  had some of it: what the run knows (the same event, or a fill of the same trade) is not appended again.
"""

from __future__ import annotations

import fcntl
import os
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TypeAlias

import orjson

from velox_core.domain.errors import IntentRefused, JournalUnavailable
from velox_core.domain.events import Body, EventKind
from velox_core.journal.file import read_raw
from velox_core.journal.sql import SqlJournal

EVENTS_PER_COMMIT = 5_000
OUTSIDE_FILES = "emergency-*.jsonl"
RawEvent: TypeAlias = tuple[int, int, EventKind, Body, bytes, str]  # as `read_raw` yields it


def import_file_journal(path: Path, journal: SqlJournal) -> int:
    """Load a run's file into SQL with the same digests, and return the number of events that were new.

    Raises: JournalUnavailable for a broken chain, or for a run that holds other events than the file.
    """
    rows = read_raw(path)
    held, digest = journal.tail()
    same = deque((row[5] for row in islice(rows, held)), maxlen=1)
    if held and list(same) != [digest]:
        raise JournalUnavailable(f"{path} is not the journal of run {journal.run_key}: event {held} has another digest")
    added = 0
    while batch := list(islice(rows, EVENTS_PER_COMMIT)):
        for _, ts_ms, kind, body, encoded, _ in batch:
            journal.append_encoded(kind, ts_ms, body, encoded)
        journal.commit()
        added += len(batch)
        if journal.tail()[1] != batch[-1][5]:
            raise JournalUnavailable(
                f"{path}: event {batch[-1][0]} has another digest in the database: load it into a new journal"
            )
    return added


def import_emergency_file(path: Path, journal: SqlJournal) -> int:
    """Append what a run lacks of an emergency file, once, and set the file aside. Returns the number of events that were new.

    A SESSION event in the same commit remembers the file.

    Raises: JournalUnavailable (the file stays, and the next call goes on), IntentRefused for an intent whose id has another
    order (the rest is in the run, and the file is set aside).
    """
    with _alone_with(path) as alone:
        return _import_whole(path, journal) if alone and path.exists() else 0


def _import_whole(path: Path, journal: SqlJournal) -> int:
    rows = list(read_raw(path))
    digest = rows[-1][5] if rows else ""
    new = _unknown(rows, journal)
    if new:
        for _, ts_ms, kind, body, encoded, _ in new:
            journal.append_encoded(kind, ts_ms, body, encoded)
        journal.append(EventKind.SESSION, rows[-1][1], {"phase": "EMERGENCY_FILE_IMPORTED", "file_digest": digest})
        try:
            journal.commit()
        except IntentRefused:
            _set_aside(path, digest)
            raise
    _set_aside(path, digest)
    return len(new)


def outside_files(folder: Path) -> list[Path]:
    """Return the emergency files that closers outside the engine left in a run's folder, oldest first."""
    return sorted(folder.glob(OUTSIDE_FILES), key=lambda path: (path.stat().st_mtime_ns, path.name))


@contextmanager
def _alone_with(path: Path) -> Iterator[bool]:
    """Keep writers and other importers away from a file. False when one of them has it, or it is not there."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield False
        return
    except OSError as error:
        raise JournalUnavailable(f"cannot read {path}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            alone = True
        except OSError:
            alone = False
        yield alone
    finally:
        os.close(descriptor)


def _set_aside(path: Path, digest: str) -> None:
    try:
        set_aside(path, digest)
    except OSError as error:
        raise JournalUnavailable(f"cannot set {path} aside: {error.strerror}") from error


def set_aside(path: Path, digest: str) -> Path:
    """Rename an emergency file whose events are all in the journal, durably, and return its new path. Raises OSError."""
    aside = path.with_name(f"{path.name}.imported-{digest[:12] or 'empty'}")
    path.rename(aside)
    sync_folder(path.parent)
    return aside


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unknown(rows: list[RawEvent], journal: SqlJournal) -> list[RawEvent]:
    """Return the rows that the run lacks: one event of a run answers for one equal row, and a trade is booked once."""
    if not rows:
        return []
    known: Counter[tuple[EventKind, int, bytes]] = Counter()
    trade_ids: set[object] = set()
    for event in journal.events():
        known[event.kind, event.ts_ms, orjson.dumps(event.body)] += 1
        if event.kind is EventKind.FILL:
            trade_ids.add(event.body["trade_id"])
    unknown = []
    for row in rows:
        _, ts_ms, kind, body, encoded, _ = row
        if known[kind, ts_ms, encoded]:
            known[kind, ts_ms, encoded] -= 1
        elif kind is not EventKind.FILL or body["trade_id"] not in trade_ids:
            unknown.append(row)
            if kind is EventKind.FILL:
                trade_ids.add(body["trade_id"])
    return unknown
