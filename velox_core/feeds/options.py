"""What a person may say about files that do not say it themselves: which end of a bar is stamped, zone, length of a bar.

- Nothing is asked for that the columns and the session tell: an option decides only where they do not (`timing`).
- A file of the project's own format says all of it, so no option changes how it is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

BAR_MINUTES = (1, 2, 3, 5, 10, 15, 30, 60)


class Stamps(StrEnum):
    """Which end of a bar its time names."""

    START = "start"
    END = "end"


class NaiveTimes(StrEnum):
    """What a time without an offset means."""

    IST = "ist"
    UTC = "utc"


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceOptions:
    """What was said about the files; None leaves it to what they show.

    Attributes:
        stamps: which end of a bar is stamped.
        naive_times: the zone of times without an offset.
        bar_minutes: the length of a bar, one of BAR_MINUTES.
    """

    stamps: Stamps | None = None
    naive_times: NaiveTimes | None = None
    bar_minutes: int | None = None


NOTHING_SAID = SourceOptions()
