"""What every task of a trading day has in common: it runs once, and what it returned is never replayed from a cache.

What it is given is handed over as it is. Prefect would look through every value of it for results of other tasks, and a day
with its settings, or a report with its minutes, has thousands: that took half a second of each day.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from prefect import Task
from prefect.cache_policies import NO_CACHE
from prefect.utilities.annotations import quote

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class _OnceTask(Task[Parameters, Result]):
    """A task whose arguments Prefect does not look through."""

    def __call__(self, *args: Any, return_state: Any = False, wait_for: Any = None, **kwargs: Any) -> Any:
        """Run it."""
        given: Any = super().__call__
        opaque = {name: quote(value) for name, value in kwargs.items()}
        return given(*map(quote, args), return_state=return_state, wait_for=wait_for, **opaque)


def once(name: str) -> Callable[[Callable[Parameters, Result]], Task[Parameters, Result]]:
    """Make a task that is tried once and never cached or persisted."""

    def wrap(function: Callable[Parameters, Result]) -> Task[Parameters, Result]:
        return _OnceTask(function, name=name, task_run_name=name, retries=0, cache_policy=NO_CACHE, persist_result=False)

    return wrap
