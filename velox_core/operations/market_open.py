"""Opening a day: the verdict of the checklist on record, then the pass or its refusal."""

from __future__ import annotations

import time
from collections.abc import Sequence

from velox_core.alert_setup import open_alerts
from velox_core.domain.errors import EXIT_CHECKLIST_FAILED, VeloxError
from velox_core.operations.checklist import ItemResult, Verdict, refusals
from velox_core.operations.day import Day
from velox_core.operations.day_pass import record_checklist
from velox_core.operations.earlier_halts import earlier_halt
from velox_core.operations.handover import leave_checklist
from velox_core.operations.readiness import check_day
from velox_core.ports import Severity


class ChecklistFailed(VeloxError):
    """At least one item refuses the day; nothing is armed."""

    exit_code = EXIT_CHECKLIST_FAILED


def arm_day(day: Day, results: Sequence[ItemResult]) -> str:
    """Keep the checklist on record and give the day its pass, or take an older pass away; returns the armed date.

    A halt of an earlier date that its end of day never cleared refuses the day like an item of the checklist.
    A day that could not be traded (no bars, a strategy that does not load) is not armed, whatever the checklist says.
    Raises: ChecklistFailed with every refusal; ConfigError; JournalUnavailable or VeloxError when the record cannot be
        written.
    """
    standing = earlier_halt(day.settings, day.paths, day.trading_date)
    results = [*results, standing] if standing is not None else results
    leave_checklist(day.paths, results)
    if not refusals(list(results)):
        check_day(day)
    record_checklist(day.settings, day.paths, day.trading_date, results, taken_wall_ms=time.time_ns() // 1_000_000)
    failed = refusals(list(results))
    if failed:
        _tell(day, failed)
        lines = [f"- {result.title}: {result.measured}. {_sentence(result.advice)}" for result in failed]
        raise ChecklistFailed("\n".join([f"the checklist refuses {day.trading_date}; nothing is armed", *lines]))
    return day.trading_date.isoformat()


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
