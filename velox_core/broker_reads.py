"""Reads of the broker's books that may fail: no answer is None, never an empty book."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from velox_core.domain.errors import BrokerError

Answer = TypeVar("Answer")

_log = logging.getLogger("velox.orders")


def answer_of(read: Callable[[], Answer], what: str, now_ms: int) -> Answer | None:
    """Return what a read answers, None when the broker does not answer; `what` names it in the log."""
    try:
        return read()
    except BrokerError as error:
        _log.warning("[ORDER] the %s could not be read: %s", what, error, extra={"engine_ms": now_ms})
        return None
