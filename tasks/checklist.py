"""The pre-production checklist: one task run for each item, then one that keeps the verdict and arms the day."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed
from prefect.utilities.annotations import quote

from tasks.artifacts import CHECKLIST, publish_table
from tasks.events import emit_armed
from tasks.policy import once
from velox_core.operations.checklist import ITEM_TITLES, ItemResult, Verdict, run_item, verdict_line
from velox_core.operations.day import Day
from velox_core.operations.market_open import arm_day, broken_item
from velox_core.settings import CHECKLIST_ITEMS

_STATE_NAMES = {Verdict.WARNED: "Warned", Verdict.SKIPPED: "Skipped"}


@task(name="checklist-item", retries=0, cache_policy=NO_CACHE, persist_result=False)
def check_item(day: Day, item: str) -> State[Any]:
    """Measure one item; the state's name and message say how it ended, its data is the line of the checklist."""
    result = run_item(item, day.settings, day.paths)
    message = f"{result.measured}. {result.advice}".rstrip(". ")
    if result.verdict is Verdict.FAILED:
        return Failed(name="Refused", message=message, data=result)
    return Completed(name=_STATE_NAMES.get(result.verdict), message=message, data=result)


async def check_all(day: Day) -> list[ItemResult]:
    """Run every item, each as its own task run named after it, also after one has failed."""
    results = []
    for item in CHECKLIST_ITEMS:
        named: Any = check_item.with_options(name=item, task_run_name=item)
        state: State[Any] = named(quote(day), item, return_state=True)  # see tasks.policy
        answer = await state.aresult(raise_on_failure=False)
        results.append(answer if isinstance(answer, ItemResult) else broken_item(item, ITEM_TITLES[item], answer))
    return results


@once("arm-day")
def arm(day: Day, results: Sequence[ItemResult]) -> str:
    """Keep the checklist, and give the day its pass or refuse it; returns the armed date."""
    armed = arm_day(day, results)
    emit_armed(day, results)
    return armed


async def show_checklist(day: Day, results: Sequence[ItemResult]) -> None:
    """Publish the checklist as a table in the UI."""
    table = [
        {"verdict": line.verdict.value, "item": line.title, "measured": line.measured, "to do": line.advice} for line in results
    ]
    await publish_table(CHECKLIST, day.settings, table, verdict_line(list(results)))
