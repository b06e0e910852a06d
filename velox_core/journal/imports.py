"""Loading a file journal into SQL: a finished replay, or the intents that were written while SQL was away.

- A whole run keeps its digests: the chain of the file and of the database are the same.
- Loading again continues where the last load ended; a database that holds other events is refused.
- An emergency file is appended after what the run holds already, and gets new digests.
"""

from __future__ import annotations

from collections import deque
from itertools import islice
from pathlib import Path

from velox_core.domain.errors import JournalUnavailable
from velox_core.domain.events import Body, EventKind
from velox_core.journal.file import read_raw
from velox_core.journal.sql import SqlJournal

EVENTS_PER_COMMIT = 5_000


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
    """Append the events of an emergency file to a run, once, and set the file aside. Returns their number.

    A SESSION event in the same commit remembers the file, so that a crash before it is set aside repeats nothing.

    Raises: JournalUnavailable (the file stays, and the next call goes on), IntentRefused for an intent that is known.
    """
    if not path.exists():
        return 0
    rows = list(read_raw(path))
    remembered: Body = {"phase": "EMERGENCY_FILE_IMPORTED", "file_digest": rows[-1][5] if rows else ""}
    is_new = bool(rows) and all(event.body != remembered for event in journal.events([EventKind.SESSION]))
    if is_new:
        for _, ts_ms, kind, body, encoded, _ in rows:
            journal.append_encoded(kind, ts_ms, body, encoded)
        journal.append(EventKind.SESSION, rows[-1][1], remembered)
        journal.commit()
    path.rename(path.with_name(f"{path.name}.imported-{rows[-1][5][:12] if rows else 'empty'}"))
    return len(rows) if is_new else 0
