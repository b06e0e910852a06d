"""The account's own journal, shared by all its days: where checklists, approvals and day passes are kept.

- It lies below `var/<broker>/<account>`, or where `stores.journal.url` says; a replay's journal lies beside its run instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from velox_core.domain.errors import VeloxError
from velox_core.domain.scope import Scope
from velox_core.journal.queries import JournalReader
from velox_core.journal.records import JournalRecords
from velox_core.settings import Paths, Settings


def account_scope(settings: Settings) -> Scope:
    """Return the account's own scope, shared by all its days and replays."""
    return Scope(broker_type=settings.broker.type.value, account=settings.account)


def account_folder(settings: Settings, paths: Paths) -> Path:
    """Return the account's own folder below `var`."""
    return paths.var / account_scope(settings).folder


def has_journal(settings: Settings, paths: Paths) -> bool:
    """Return whether there is a journal to read; a server is taken to be there."""
    return settings.stores.journal.url is not None or _file(settings, paths).exists()


@contextmanager
def open_records(settings: Settings, paths: Paths) -> Iterator[JournalRecords]:
    """Open the journal for writing, made if need be. Raises JournalUnavailable, VeloxError."""
    folder = account_folder(settings, paths)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise VeloxError(f"{folder} cannot be made: {error.strerror}. Make it writable, or set VELOX__VAR.") from error
    records = JournalRecords(_url(settings, paths))
    try:
        yield records
    finally:
        records.close()


@contextmanager
def open_reader(settings: Settings, paths: Paths) -> Iterator[JournalReader]:
    """Open the journal for reading. Raises JournalUnavailable."""
    reader = JournalReader(_url(settings, paths))
    try:
        yield reader
    finally:
        reader.close()


def _file(settings: Settings, paths: Paths) -> Path:
    return account_folder(settings, paths) / "journal.db"


def _url(settings: Settings, paths: Paths) -> str:
    return settings.stores.journal.url or f"sqlite:///{_file(settings, paths)}"
