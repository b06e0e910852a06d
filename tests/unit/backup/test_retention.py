"""Which backups are kept."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from velox_core.backup.naming import date_of, next_name, number_of
from velox_core.backup.retention import Retention, to_remove

DAYS = [date(2024, 1, 1) + timedelta(days=number) for number in range(90)]
WEEKDAYS = [day.isoformat() for day in DAYS if day.weekday() < 5]


def kept(names: list[str], rule: Retention, keep: str = "") -> list[str]:
    removed = set(to_remove(names, rule, keep=keep))
    return [name for name in names if name not in removed]


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [
        (Retention(days=1, weeks=0, months=0), ["2024-03-29"]),
        (Retention(days=2, weeks=0, months=0), ["2024-03-28", "2024-03-29"]),
        (Retention(days=1, weeks=3, months=0), ["2024-03-15", "2024-03-22", "2024-03-29"]),
        (Retention(days=1, weeks=0, months=3), ["2024-01-31", "2024-02-29", "2024-03-29"]),
        (Retention(days=2, weeks=2, months=2), ["2024-02-29", "2024-03-22", "2024-03-28", "2024-03-29"]),
        (Retention(days=3650, weeks=0, months=0), WEEKDAYS),
    ],
)
def test_newest_of_days_weeks_and_months_are_kept(rule: Retention, wanted: list[str]) -> None:
    assert kept(WEEKDAYS, rule) == wanted


def test_older_ones_of_a_date_go_and_incomplete_ones_once_there_is_a_good_one() -> None:
    names = ["2024-01-15", "2024-01-15-2.incomplete", "2024-01-15-3", "2024-01-16.incomplete", "2023-12-01.incomplete"]
    rule = Retention(days=30, weeks=0, months=0)
    assert kept(names, rule) == ["2024-01-15-3", "2024-01-16.incomplete"]
    assert kept(names[:2], rule) == ["2024-01-15"]


def test_backup_of_an_old_date_that_was_just_taken_is_kept_and_foreign_names_are_left_alone() -> None:
    rule = Retention(days=1, weeks=0, months=0)
    assert kept(["2023-01-02", "2024-01-15", "notes", ".partial-2024-01-15"], rule, keep="2023-01-02") == [
        "2023-01-02",
        "2024-01-15",
        "notes",
        ".partial-2024-01-15",
    ]
    assert to_remove(["2024-01-16.incomplete"], rule) == []


def test_names_count_up_within_a_date() -> None:
    day = date(2024, 1, 15)
    assert next_name(day, set()) == "2024-01-15"
    assert next_name(day, {"2024-01-15.incomplete", "2024-01-16-7"}) == "2024-01-15-2"
    assert next_name(day, {"2024-01-15", "2024-01-15-9"}) == "2024-01-15-10"
    assert (date_of("2024-13-01"), date_of("x"), date_of("2024-01-15-2")) == (None, None, day)
    assert number_of("2024-01-15-12.incomplete") == 12
