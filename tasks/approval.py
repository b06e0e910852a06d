"""A person's yes or no after the checklist, for configurations that ask for it: the run pauses, with a form in the UI.

- The same answer can be given by `velox check --approve-as`: the paused run sees it on record and goes on.
- No, no answer in time, a server that is lost while waiting: nothing is armed. The record decides (`operations.approval`).
- Only the run that asks is paused; nothing that trades runs yet.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any, Final, Literal
from uuid import UUID

import httpx
import prefect.runtime
from prefect import get_client
from prefect.client.schemas.objects import State
from prefect.exceptions import FlowPauseTimeout, PrefectException
from prefect.flow_runs import apause_flow_run
from prefect.input import RunInput
from prefect.states import Failed
from pydantic import Field, ValidationError

from tasks.policy import once
from tasks.summary import summary_logger
from velox_core.domain.errors import VeloxError
from velox_core.operations.approval import NAME_LENGTH_MAX, NOTE_LENGTH_MAX, record_answer, standing_approval
from velox_core.operations.checklist import ItemResult, Verdict, verdict_line
from velox_core.operations.day import Day
from velox_core.operations.handover import leave_waiting
from velox_core.operations.market_open import NotApproved, wait_for_approval

NOT_APPROVED: Final = "NotApproved"
POLL_SECONDS: Final = 1
RECORD_POLL_SECONDS: Final = 1.0
SECONDS_PER_MINUTE: Final = 60.0
GRACE_SECONDS: Final = 30  # Prefect's own time-out comes later than ours, so that the run ends in a state with a name


class DayApproval(RunInput):
    """The form: who says whether the day may be traded."""

    approve: Literal["no", "yes"] = Field(
        title="May the day be traded?", description="yes arms the day; no leaves it unarmed, and nothing trades."
    )
    name: str = Field(
        title="Your name", description="Kept in the day pass and the journal.", min_length=1, max_length=NAME_LENGTH_MAX
    )
    note: str = Field(default="", title="Note", description="Why, in one line; kept with it.", max_length=NOTE_LENGTH_MAX)


@once("await-approval")
def hold_day(day: Day, results: Sequence[ItemResult]) -> bool:
    """Keep the checklist without arming the day, and tell a person; returns whether one must be asked at all."""
    return wait_for_approval(day, results)


@once("record-approval")
def keep_answer(day: Day, *, approved: bool, by: str, note: str) -> None:
    """Keep what was answered in the account's journal."""
    record_answer(day.settings, day.paths, day.trading_date, approved=approved, by=by, note=note)


async def ask_approval(day: Day, results: Sequence[ItemResult]) -> State[Any] | None:
    """Wait for a person's answer where one is asked for; returns None to go on, else the state in which the run ends."""
    if not day.settings.checklist.approval.required or not hold_day(day, results):
        return None
    answer, why = await _answer(day, results)
    leave_waiting(day.paths, "")
    if answer is None and standing_approval(day.settings, day.paths, day.trading_date) is not None:
        return None  # somebody said yes meanwhile, and this form was left: silence takes no yes back
    if answer is not None and answer.approve == "yes":
        if standing_approval(day.settings, day.paths, day.trading_date) is None:
            keep_answer(day, approved=True, by=answer.name, note=answer.note)
        summary_logger().info("%s is approved by %s: %s", day.trading_date, answer.name, answer.note or "no note")
        return None
    by, note = (answer.name, answer.note) if answer is not None else ("", why)
    keep_answer(day, approved=False, by=by, note=note)
    said = f"{by} said no{f' ({note})' if note else ''}" if by else why
    message = f"{day.trading_date} is not armed: {said}. To trade it after all, run market_open again and approve it"
    return Failed(name=NOT_APPROVED, message=message, data=NotApproved(message))


async def _answer(day: Day, results: Sequence[ItemResult]) -> tuple[DayApproval | None, str]:
    """Pause until somebody answers; returns the answer, or None and why there is none."""
    minutes = day.settings.checklist.approval.minutes
    seconds = minutes * SECONDS_PER_MINUTE
    form = DayApproval.with_initial_data(description=_description(day, results, minutes))
    watcher = asyncio.create_task(_resume_when_on_record(day))
    try:
        async with asyncio.timeout(seconds):
            return await apause_flow_run(form, timeout=round(seconds) + GRACE_SECONDS, poll_interval=POLL_SECONDS), ""
    except (TimeoutError, FlowPauseTimeout):
        return None, f"nobody approved it within {minutes} minutes"
    except ValidationError as error:
        return None, f"the answer could not be read ({error.error_count()} fields are wrong)"
    finally:
        watcher.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watcher


async def _resume_when_on_record(day: Day) -> None:
    """Go on with this run as soon as the command line's yes is on record."""
    run_id = UUID(prefect.runtime.flow_run.id)
    while True:
        await asyncio.sleep(RECORD_POLL_SECONDS)
        try:
            found = await asyncio.to_thread(standing_approval, day.settings, day.paths, day.trading_date)
            if found is None:
                continue
            async with get_client() as client:
                given = {"approve": "yes", "name": found.by, "note": found.note}
                await client.resume_flow_run(run_id, run_input=given)
        except (VeloxError, PrefectException, httpx.HTTPError) as error:
            summary_logger().warning("the approval on record could not be looked at, it is tried again: %s", error)


def _description(day: Day, results: Sequence[ItemResult], minutes: int) -> str:
    """Return what stands above the form: which day, its limits, and what the checklist warned of."""
    warned = [f"- **{line.title}**: {line.measured}" for line in results if line.verdict is not Verdict.PASSED]
    lines = [
        f"## May {day.trading_date} be traded?",
        f"{day.settings.environment}, broker {day.settings.broker.type.value}, account {day.settings.account}.",
        f"Checklist: {verdict_line(list(results))}.",
        *warned,
        f"Without a yes within {minutes} minutes nothing is armed.",
    ]
    return "\n\n".join(lines)
