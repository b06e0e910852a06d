"""How an invariant says that it is broken."""

from __future__ import annotations


class InvariantBroken(BaseException):
    """What must never happen, happened."""


def require(condition: bool, what: str) -> None:
    """Raise InvariantBroken unless the condition holds."""
    if not condition:
        raise InvariantBroken(what)
