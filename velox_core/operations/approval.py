"""A person's answer to whether a day may be traded, for configurations that ask one after the checklist.

- An answer is kept for one account, date and configuration; the newest one of the date counts, and silence is a no.
- A refusal by the checklist ends an earlier yes: whoever said it had seen another checklist.
- The record alone decides. Whether it came from Prefect's form or from the command line makes no difference.
- Who somebody is, nobody here can prove: the name is what was written.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import date
from typing import Final

from velox_core.domain.errors import ConfigError
from velox_core.operations.account_journal import account_scope, has_journal, open_reader, open_records
from velox_core.operations.hints import velox
from velox_core.settings import Paths, Settings

NAME_LENGTH_MAX: Final = 64
NOTE_LENGTH_MAX: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """A person's yes: who, what they noted, and when (wall clock, epoch ms)."""

    by: str
    note: str
    at_wall_ms: int


def is_approval_required(settings: Settings) -> bool:
    """Return whether the configuration asks a person before a day is armed."""
    return settings.checklist.approval.required


def record_answer(settings: Settings, paths: Paths, trading_date: date, *, approved: bool, by: str, note: str) -> None:
    """Keep an answer; `by` is '' when nobody gave one, which is a no.

    Raises: ConfigError for a yes without a name, or text that is no line; JournalUnavailable; VeloxError.
    """
    name, words = _line("name", by, NAME_LENGTH_MAX), _line("note", note, NOTE_LENGTH_MAX)
    if approved and not name:
        raise ConfigError("an approval needs the name of whoever gives it")
    with open_records(settings, paths) as records:
        records.save_approval(
            scope_key=account_scope(settings).key,
            trading_date=trading_date,
            config_hash=settings.config_hash,
            approved=approved,
            by=name,
            note=words,
            at_wall_ms=time.time_ns() // 1_000_000,
        )


def standing_approval(settings: Settings, paths: Paths, trading_date: date) -> Approval | None:
    """Return the yes that stands for a date under this very configuration, None without one. Raises JournalUnavailable."""
    if not has_journal(settings, paths):
        return None
    with open_reader(settings, paths) as reader:
        row = reader.approval(account_scope(settings).key, trading_date)
    if row is None or not row.approved or row.config_hash != settings.config_hash:
        return None
    return Approval(by=row.by, note=row.note, at_wall_ms=row.at_wall_ms)


def approve_command(settings: Settings, trading_date: date) -> str:
    """Return the command line that approves a date."""
    said = ("--approve-as", "YOUR-NAME", "--note", "WHY")
    return velox("check", "--date", trading_date.isoformat(), *said, settings=settings)


def _line(what: str, text: str, length_max: int) -> str:
    line = text.strip()
    if len(line) > length_max or not line.isprintable():
        raise ConfigError(f"the {what} of an approval is refused: allowed is one line of at most {length_max} characters")
    return line
