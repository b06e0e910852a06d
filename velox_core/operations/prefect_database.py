"""How large Prefect's database is, and how much of that is free again: read beside a running server, nothing is written.

- Deleting rows frees pages inside an SQLite file; later rows use them, so the file stops growing, but does not shrink.
  Only VACUUM gives the space back, and that needs the file for itself: it is for a person, with the server stopped.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MEGABYTE: Final = 1_000_000
BUSY_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseSize:
    """Bytes: of the file with its write-ahead log, and of the pages in it that are free."""

    total_bytes: int
    free_bytes: int

    def __str__(self) -> str:
        return f"{self.total_bytes / MEGABYTE:.1f} MB, {self.free_bytes / MEGABYTE:.1f} MB of it free"


def database_file(url: str) -> Path | None:
    """Return the file of an SQLite URL, None for another database and for one in memory."""
    scheme, _, place = url.partition(":///")
    path, _, query = place.partition("?")
    if not scheme.startswith("sqlite") or not path or ":memory:" in path or "mode=memory" in query:
        return None
    return Path(path.removeprefix("file:"))


def database_size(path: Path) -> DatabaseSize | None:
    """Return how large a database is, None when it is not there or cannot be read now."""
    try:
        total = sum(part.stat().st_size for part in (path, path.with_name(path.name + "-wal")) if part.exists())
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=BUSY_SECONDS)) as connection:
            (pages,), (page_bytes,) = (
                connection.execute(f"PRAGMA {name}").fetchone() for name in ("freelist_count", "page_size")
            )
    except (OSError, sqlite3.Error):
        return None
    return DatabaseSize(total_bytes=total, free_bytes=pages * page_bytes)
