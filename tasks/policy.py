"""What every task of a trading day has in common: it runs once, and what it returned is never replayed from a cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from prefect import Task, task
from prefect.cache_policies import NO_CACHE

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def once(name: str) -> Callable[[Callable[Parameters, Result]], Task[Parameters, Result]]:
    """Make a task that is tried once and never cached or persisted."""

    def wrap(function: Callable[Parameters, Result]) -> Task[Parameters, Result]:
        made: Any = task(name=name, task_run_name=name, retries=0, cache_policy=NO_CACHE, persist_result=False)(function)
        result: Task[Parameters, Result] = made
        return result

    return wrap
