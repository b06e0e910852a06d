"""Reading the bodies of journal events and of reports: a value of another type counts as missing, never as an error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def int_of(body: Mapping[str, Any], key: str) -> int:
    """Return an int, 0 when it is missing or no int."""
    value = body.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def text_of(body: Mapping[str, Any], key: str) -> str:
    """Return a text, '' when it is missing or no text."""
    value = body.get(key)
    return value if isinstance(value, str) else ""


def rows_of(body: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    """Return the objects of a list, none when it is missing or no list."""
    value = body.get(key)
    return [row for row in value if isinstance(row, Mapping)] if isinstance(value, list) else []


def object_of(body: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Return an object, an empty one when it is missing or none."""
    value = body.get(key)
    return value if isinstance(value, Mapping) else {}
