"""The day pass: that the checklist of a date was passed with one configuration, and nothing else.

- Kept in the account's journal beside the checklists; bound to account, date and the configuration's hash.
- Given only when no item refused; a later refusal takes it away. A changed configuration needs a new checklist.
- The intraday flow starts no engine without it. A journal that cannot be read means no pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import orjson

from velox_core.domain.errors import JournalUnavailable, VeloxError
from velox_core.domain.scope import Scope
from velox_core.journal.queries import JournalReader
from velox_core.journal.records import JournalRecords
from velox_core.operations.checklist import ItemResult, Verdict, refusals
from velox_core.settings import Paths, Settings

ARMED_BY = "market_open"
REFUSED_BY = "refused by the checklist"


def account_scope(settings: Settings) -> Scope:
    """Return the account's own scope, shared by all its days and replays."""
    return Scope(broker_type=settings.broker.type.value, account=settings.account)


def account_folder(settings: Settings, paths: Paths) -> Path:
    """Return the account's own folder below `var`."""
    return paths.var / account_scope(settings).folder


def record_checklist(
    settings: Settings, paths: Paths, trading_date: date, results: Sequence[ItemResult], *, taken_wall_ms: int
) -> None:
    """Keep a checklist, and give the date its pass when no item refused, else take it away.

    Args:
        settings, paths: whose day.
        trading_date: the date that was checked.
        results: all lines of the checklist.
        taken_wall_ms: wall clock, epoch ms.
    Raises: JournalUnavailable, VeloxError.
    """
    passed = not refusals(list(results))
    key = account_scope(settings).key
    with _records(settings, paths) as records:
        records.save_checklist(
            scope_key=key,
            trading_date=trading_date,
            config_hash=settings.config_hash,
            at_wall_ms=taken_wall_ms,
            passed=passed,
            items=[dict(result.to_json()) for result in results],
        )
        records.save_day_pass(
            scope_key=key,
            trading_date=trading_date,
            config_hash=settings.config_hash if passed else "",
            armed_by=ARMED_BY if passed else REFUSED_BY,
            armed_wall_ms=taken_wall_ms,
        )


def check_day_pass(settings: Settings, paths: Paths, trading_date: date) -> str:
    """Return '' when the date may be traded with this configuration, else the reason why not."""
    if not _journal_exists(settings, paths):
        return _no_pass(trading_date)
    try:
        with _reader(settings, paths) as reader:
            found = reader.day_pass(account_scope(settings).key, trading_date)
    except JournalUnavailable as error:
        return f"the day pass of {trading_date} cannot be read: {error}"
    if found is None:
        return _no_pass(trading_date)
    if found.armed_by == REFUSED_BY:
        return f"the last checklist refused {trading_date}: mend what it names, then run market_open again"
    if found.config_hash != settings.config_hash:
        return f"the configuration changed since the checklist of {trading_date} was passed: run market_open again"
    return ""


def newest_checklist(settings: Settings, paths: Paths, trading_date: date) -> list[ItemResult]:
    """Return the newest checklist of a date, empty when there is none. Raises JournalUnavailable."""
    if not _journal_exists(settings, paths):
        return []
    with _reader(settings, paths) as reader:
        row = reader.checklist(account_scope(settings).key, trading_date)
    return (
        [] if row is None else [ItemResult(**{**line, "verdict": Verdict(line["verdict"])}) for line in orjson.loads(row.items)]
    )


def _no_pass(trading_date: date) -> str:
    return f"{trading_date} has no day pass: the pre-production checklist was not passed. Run market_open, or velox day."


def _journal_file(settings: Settings, paths: Paths) -> Path:
    return account_folder(settings, paths) / "journal.db"


def _journal_url(settings: Settings, paths: Paths) -> str:
    return settings.stores.journal.url or f"sqlite:///{_journal_file(settings, paths)}"


def _journal_exists(settings: Settings, paths: Paths) -> bool:
    return settings.stores.journal.url is not None or _journal_file(settings, paths).exists()


@contextmanager
def _records(settings: Settings, paths: Paths) -> Iterator[JournalRecords]:
    folder = account_folder(settings, paths)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise VeloxError(f"{folder} cannot be made: {error.strerror}. Make it writable, or set VELOX__VAR.") from error
    records = JournalRecords(_journal_url(settings, paths))
    try:
        yield records
    finally:
        records.close()


@contextmanager
def _reader(settings: Settings, paths: Paths) -> Iterator[JournalReader]:
    reader = JournalReader(_journal_url(settings, paths))
    try:
        yield reader
    finally:
        reader.close()
