"""The day pass: that the checklist of a date was passed with one configuration, and nothing else.

- Kept in the account's journal beside the checklists; bound to account, date and the configuration's hash.
- Given only when no item refused; a later refusal takes it away. A changed configuration needs a new checklist.
- Where the configuration asks a person, it carries the yes that stands; without one the date waits, and is not armed.
  A no that comes later ends the pass.
- The intraday flow starts no engine without it. A journal that cannot be read means no pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import orjson

from velox_core.domain.errors import JournalUnavailable
from velox_core.operations.account_journal import account_scope, has_journal, open_reader, open_records
from velox_core.operations.approval import approve_command, is_approval_required, standing_approval
from velox_core.operations.checklist import ItemResult, Verdict, refusals
from velox_core.settings import Paths, Settings

ARMED_BY = "market_open"
REFUSED_BY = "refused by the checklist"
WAITS_FOR_APPROVAL = "waits for a person's approval"


def record_checklist(
    settings: Settings, paths: Paths, trading_date: date, results: Sequence[ItemResult], *, taken_wall_ms: int
) -> None:
    """Keep a checklist, and give the date its pass when no item refused and nobody must still approve; else take it away.

    A refusal also ends an approval that was given before it.

    Args:
        settings, paths: whose day.
        trading_date: the date that was checked.
        results: all lines of the checklist.
        taken_wall_ms: wall clock, epoch ms.
    Raises: JournalUnavailable, VeloxError.
    """
    passed, key = not refusals(list(results)), account_scope(settings).key
    asks = is_approval_required(settings)
    with open_records(settings, paths) as records:
        approval = standing_approval(settings, paths, trading_date) if asks else None
        waits = asks and passed and approval is None
        if approval is not None and not passed:
            records.save_approval(
                scope_key=key,
                trading_date=trading_date,
                config_hash=settings.config_hash,
                approved=False,
                by=ARMED_BY,
                note=REFUSED_BY,
                at_wall_ms=taken_wall_ms,
            )
        records.save_checklist(
            scope_key=key,
            trading_date=trading_date,
            config_hash=settings.config_hash,
            at_wall_ms=taken_wall_ms,
            passed=passed,
            items=[dict(result.to_json()) for result in results],
        )
        carried = approval if passed else None
        records.save_day_pass(
            scope_key=key,
            trading_date=trading_date,
            config_hash=settings.config_hash if passed and not waits else "",
            armed_by=WAITS_FOR_APPROVAL if waits else ARMED_BY if passed else REFUSED_BY,
            armed_wall_ms=taken_wall_ms,
            approved_by=None if carried is None else carried.by,
            approval_note=None if carried is None else carried.note,
            approved_wall_ms=None if carried is None else carried.at_wall_ms,
        )


def check_day_pass(settings: Settings, paths: Paths, trading_date: date) -> str:
    """Return '' when the date may be traded with this configuration, else the reason why not."""
    if not has_journal(settings, paths):
        return _no_pass(trading_date)
    try:
        with open_reader(settings, paths) as reader:
            found = reader.day_pass(account_scope(settings).key, trading_date)
    except JournalUnavailable as error:
        return f"the day pass of {trading_date} cannot be read: {error}"
    if found is None:
        return _no_pass(trading_date)
    if found.armed_by == REFUSED_BY:
        return f"the last checklist refused {trading_date}: mend what it names, then run market_open again"
    if found.armed_by == WAITS_FOR_APPROVAL:
        return _not_approved(settings, trading_date)
    if found.config_hash != settings.config_hash:
        return f"the configuration changed since the checklist of {trading_date} was passed: run market_open again"
    if not is_approval_required(settings):
        return ""
    try:
        stands = bool(found.approved_by) and standing_approval(settings, paths, trading_date) is not None
    except JournalUnavailable as error:
        return f"the approval of {trading_date} cannot be read: {error}"
    return "" if stands else _not_approved(settings, trading_date)


def newest_checklist(settings: Settings, paths: Paths, trading_date: date) -> list[ItemResult]:
    """Return the newest checklist of a date, empty when there is none. Raises JournalUnavailable."""
    if not has_journal(settings, paths):
        return []
    with open_reader(settings, paths) as reader:
        row = reader.checklist(account_scope(settings).key, trading_date)
    return (
        [] if row is None else [ItemResult(**{**line, "verdict": Verdict(line["verdict"])}) for line in orjson.loads(row.items)]
    )


def _not_approved(settings: Settings, trading_date: date) -> str:
    return (
        f"{trading_date} passed its checklist, but nobody approved it (system.checklist.approval), so it is not armed. "
        f"Approve it: {approve_command(settings, trading_date)}  then run market_open again"
    )


def _no_pass(trading_date: date) -> str:
    return f"{trading_date} has no day pass: the pre-production checklist was not passed. Run market_open, or velox day."
