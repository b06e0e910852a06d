"""Which backups are kept: the newest of so many days, weeks and months. Names in, names out.

- A date is kept by its newest good backup; its older ones go, and incomplete ones go once a good one of the date is there.
- Days, weeks (ISO) and months are counted among the dates that have a good backup, so a holiday takes no place.
- The newest good backup is always kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date

from velox_core.backup.naming import INCOMPLETE, date_of, number_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How many days, weeks and months keep a backup; days at least 1."""

    days: int
    weeks: int
    months: int


def to_remove(names: Iterable[str], rule: Retention, *, keep: str = "") -> list[str]:
    """Return the names of the backups that are no longer wanted, oldest first; `keep` is never one of them."""
    dated = sorted((day, number_of(name), name) for name in names if (day := date_of(name)) is not None)
    good = [entry for entry in dated if not entry[2].endswith(INCOMPLETE)]
    newest = {day: name for day, _, name in good}  # the highest number of a date comes last
    days = sorted(newest, reverse=True)
    kept_days = {
        *days[: rule.days],
        *_first_of(days, lambda day: day.isocalendar()[:2], rule.weeks),
        *_first_of(days, lambda day: (day.year, day.month), rule.months),
    }
    kept = {newest[day] for day in kept_days} | {keep}
    oldest_kept = min(days[: rule.days], default=date.min)
    kept |= {name for day, _, name in dated if name.endswith(INCOMPLETE) and day not in newest and day >= oldest_kept}
    return [name for _, _, name in dated if name not in kept]


def _first_of(days: list[date], period: Callable[[date], tuple[int, int]], number: int) -> list[date]:
    """Return the newest day of each of the newest `number` periods."""
    newest: dict[tuple[int, int], date] = {}
    for day in days:
        newest.setdefault(period(day), day)
    return list(newest.values())[:number]
