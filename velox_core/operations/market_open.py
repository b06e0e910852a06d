"""Opening a day: the verdict of the checklist on record, a person's yes where one is asked, then the pass or its refusal."""

from __future__ import annotations

import time
from collections.abc import Sequence

from velox_core.alert_setup import open_alerts
from velox_core.domain.errors import EXIT_CHECKLIST_FAILED, ConfigError, VeloxError
from velox_core.operations.approval import approve_command, is_approval_required, record_answer, standing_approval
from velox_core.operations.checklist import ItemResult, Verdict, refusals
from velox_core.operations.day import Day
from velox_core.operations.day_pass import check_day_pass, record_checklist
from velox_core.operations.earlier_halts import earlier_halt
from velox_core.operations.handover import leave_checklist, leave_waiting
from velox_core.operations.readiness import check_day
from velox_core.operations.unended_day import unended_day
from velox_core.ports import Severity


class ChecklistFailed(VeloxError):
    """At least one item refuses the day; nothing is armed."""

    exit_code = EXIT_CHECKLIST_FAILED


class NotApproved(VeloxError):
    """The configuration asks for a person's yes, and there is none; nothing is armed."""

    exit_code = EXIT_CHECKLIST_FAILED


def with_earlier_halt(day: Day, results: Sequence[ItemResult]) -> list[ItemResult]:
    """Return the lines of a checklist and, where they are due, those of an earlier date.

    A halt of it that stands refuses the day; an end of day that never ran, or left a step undone, is a warning.
    """
    standing = earlier_halt(day.settings, day.paths, day.trading_date)
    unended = unended_day(day.settings, day.paths, day.trading_date)
    return [*results, *(line for line in (standing, unended) if line is not None)]


def approve_day(day: Day, results: Sequence[ItemResult], *, by: str, note: str) -> bool:
    """Keep a person's yes for the day, unless a line refuses it; returns whether it was kept.

    Raises: ConfigError where no approval is asked for, or for a name or note that is no line of text; JournalUnavailable.
    """
    if not is_approval_required(day.settings):
        raise ConfigError(f"{day.settings.source}: system.checklist.approval.required is false: no day waits for an approval")
    if refusals(list(results)):
        return False
    record_answer(day.settings, day.paths, day.trading_date, approved=True, by=by, note=note)
    return True


def wait_for_approval(day: Day, results: Sequence[ItemResult]) -> bool:
    """Return whether a person must be asked before the day is armed; the date then has no pass, and somebody is told.

    Nobody is asked about a day that is refused anyway, nor again while an approval stands.
    Raises: ConfigError for a day that could not be traded; JournalUnavailable or VeloxError when the record cannot be written.
    """
    if not is_approval_required(day.settings):
        return False
    results = with_earlier_halt(day, results)
    if refusals(results):
        return False
    check_day(day)
    record_checklist(day.settings, day.paths, day.trading_date, results, taken_wall_ms=_now_ms())
    if standing_approval(day.settings, day.paths, day.trading_date) is not None:
        return False
    leave_checklist(day.paths, results)
    minutes = day.settings.checklist.approval.minutes
    asked = f"approve the day within {minutes} min: {approve_command(day.settings, day.trading_date)}"
    leave_waiting(day.paths, asked)
    with open_alerts(day.settings, label="market open") as alerts:
        text = f"In Prefect's UI: open the paused market-open run and press Resume. Or {asked}. No answer means no."
        alerts.send(Severity.WARNING, f"{day.trading_date} passed its checklist and waits for your approval", text)
    return True


def arm_day(day: Day, results: Sequence[ItemResult]) -> str:
    """Keep the checklist on record and give the day its pass, or take an older pass away; returns the armed date.

    A halt of an earlier date that its end of day never cleared refuses the day like an item of the checklist.
    A day that could not be traded (no bars, a strategy that does not load) is not armed, whatever the checklist says.
    Raises: ChecklistFailed with every refusal; NotApproved without the yes that the configuration asks for; ConfigError;
        JournalUnavailable or VeloxError when the record cannot be written.
    """
    results = with_earlier_halt(day, results)
    leave_checklist(day.paths, results)
    if not refusals(results):
        check_day(day)
    record_checklist(day.settings, day.paths, day.trading_date, results, taken_wall_ms=_now_ms())
    failed = refusals(results)
    if failed:
        _tell(day, failed)
        lines = [f"- {result.title}: {result.measured}. {_sentence(result.advice)}" for result in failed]
        raise ChecklistFailed("\n".join([f"the checklist refuses {day.trading_date}; nothing is armed", *lines]))
    unarmed = check_day_pass(day.settings, day.paths, day.trading_date) if is_approval_required(day.settings) else ""
    if unarmed:
        raise NotApproved(unarmed)
    return day.trading_date.isoformat()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _tell(day: Day, failed: Sequence[ItemResult]) -> None:
    """Tell a person that the day is not armed: the flow runs on a schedule, and nobody may be looking."""
    with open_alerts(day.settings, label="market open") as alerts:
        text = "; ".join(f"{result.title}: {result.measured}" for result in failed)
        alerts.send(Severity.CRITICAL, f"The checklist refuses {day.trading_date}: nothing is armed", text)


def broken_item(item: str, title: str, error: BaseException) -> ItemResult:
    """Return the line of an item whose check itself broke: it fails the day."""
    measured = f"the check broke: {type(error).__name__}: {error}"
    return ItemResult(item=item, title=title, verdict=Verdict.FAILED, measured=measured, advice="report this as a bug")


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}." if text else ""
