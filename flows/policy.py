"""What every flow of a trading day has in common: it runs once, keeps no result, and its parameters go to the API as they are.

Prefect asks a web framework's encoder for the values of a run's parameters; it is imported for nothing else, which takes a
quarter of a second of each flow process. Text, numbers and yes or no, which all our parameters are, it returns as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, ParamSpec, TypeVar

from prefect import Flow

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

_PLAIN: Final = frozenset({str, int, float, bool, type(None)})


class _DayFlow(Flow[Parameters, Result]):
    """A flow whose plain parameters need no encoder."""

    def serialize_parameters(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """Return the values of a run's parameters as the API takes them."""
        if all(type(value) in _PLAIN for value in parameters.values()):
            return dict(parameters)
        return super().serialize_parameters(parameters)


def flow(
    *, name: str, flow_run_name: Callable[[], str] | None = None
) -> Callable[[Callable[Parameters, Result]], Flow[Parameters, Result]]:
    """Make a flow that is tried once and never persisted.

    Args:
        name: the flow's.
        flow_run_name: gives each run its name; Prefect makes one up when there is none.
    """

    def wrap(function: Callable[Parameters, Result]) -> Flow[Parameters, Result]:
        return _DayFlow(function, name=name, flow_run_name=flow_run_name, retries=0, persist_result=False)

    return wrap
