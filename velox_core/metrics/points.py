"""A point of a time series, and its line in the line protocol of InfluxDB.

- A field is a whole number or a finite float, never text: VictoriaMetrics turns text into 0. Words are tags.
- A point that has no valid line is None, so that it is counted and never sent: one bad line has a server refuse them all.
- Tags of what was never given (no strategy, no run) are left out; an empty tag is not allowed.

Line protocol: https://docs.influxdata.com/influxdb/v2/reference/syntax/line-protocol/ (read 2026-11).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Final

TAG_LENGTH_MAX: Final = 200
INT64_MAX: Final = 2**63 - 1
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_SPECIAL: Final = re.compile(r"([,= ])")


class Point:
    """One point. `at_ns` is epoch nanoseconds; `tags` name a series of `measurement`, `fields` are its numbers."""

    __slots__ = ("at_ns", "fields", "measurement", "tags")

    def __init__(self, measurement: str, tags: Mapping[str, str], fields: Mapping[str, int | float], at_ns: int) -> None:
        self.measurement = measurement
        self.tags = tags
        self.fields = fields
        self.at_ns = at_ns

    @property
    def series(self) -> tuple[str, ...]:
        """Return what names the series."""
        return (self.measurement, *self.tags.values())


def encode(point: Point, common_tags: Mapping[str, str]) -> str | None:
    """Return a point's line, with the tags that all points of a run have; None when it has none.

    The same point is the same line: tags are in the order of their names.
    """
    if not _NAME.fullmatch(point.measurement) or not 0 <= point.at_ns <= INT64_MAX:
        return None
    fields = _fields(point.fields.items())
    if not fields:
        return None
    tags = "".join(f",{name}={_tag(value)}" for name, value in sorted({**point.tags, **common_tags}.items()) if value.strip())
    return f"{point.measurement}{tags} {fields} {point.at_ns}"


def _fields(items: Iterable[tuple[str, int | float]]) -> str:
    """Return the fields of a line, '' when there is none or one is not a number that a server takes."""
    parts = []
    for name, value in items:
        if isinstance(value, bool) or not isinstance(value, int | float) or not _NAME.fullmatch(name):
            return ""
        if isinstance(value, int):
            if abs(value) > INT64_MAX:
                return ""
            parts.append(f"{name}={value}i")
        elif math.isfinite(value):
            parts.append(f"{name}={value!r}")
        else:
            return ""
    return ",".join(parts)


def _tag(value: str) -> str:
    """Return a tag's text: one line, not too long, with no backslash (at the end it would swallow what follows)."""
    shown = "".join(letter if letter.isprintable() and letter != "\\" else "_" for letter in value.strip()[:TAG_LENGTH_MAX])
    return _SPECIAL.sub(r"\\\1", shown.strip())
