"""Halts in words: the first stopped trading, those that are one thing are one line, and each says how it ends."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest

from velox_core.domain.halts import HaltKind, HaltRecord
from velox_core.operations.halt_words import first_and_later, grouped, how_it_ends, what_it_is
from velox_core.operations.status import Status
from velox_core.operations.view import halt_lines, headline_rows, progress_line

TEN_MS = 1_705_379_400_000  # 10:00:00 IST


def halt(halt_id: str, minutes: int, *, reason: str = "enough", **changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {"kind": HaltKind.MANUAL, "by": "asha"} | changes
    record = HaltRecord(
        halt_id=halt_id, trading_date=date(2024, 1, 16), reason=reason, at_ms=TEN_MS + minutes * 60_000, **values
    )
    return record.to_body()


LOSS = halt("l", 1, kind=HaltKind.LOSS, by="engine", reason="daily loss 2150.00 reached the limit 2000.00")
LATER = [halt("m1", 5, reason="first try"), halt("m2", 7, reason="again")]
EARLIER_CLOCK = halt("e", -30, reason="by a closer whose own count of the time is behind")


def test_headline_of_a_halted_day_is_the_first_reason_and_names_the_later_ones() -> None:
    rows = dict(headline_rows({"halts": [LOSS, *LATER]}))
    assert rows["Trading was halted"] == (
        "daily loss 2150.00 reached the limit 2000.00 (first, at 10:01:00; then 2 more, the last at 10:07:00: again)"
    )
    assert first_and_later([LOSS]) == LOSS["reason"]
    assert first_and_later([LOSS, EARLIER_CLOCK]).startswith(LOSS["reason"])
    assert first_and_later([]) == ""
    line = progress_line(Status(Path(), {"halted": True, "halts": [LOSS, *LATER], "halt_reason": "again"}))
    assert line.endswith("HALTED: daily loss 2150.00 reached the limit 2000.00 (and 2 later)")


def test_repeated_flattens_of_a_day_are_one_line_that_names_every_id() -> None:
    lines = halt_lines(Status(Path(), {"halts": [LOSS, *LATER], "halted": True}))
    assert len(lines) == 2
    assert lines[1].startswith(
        "MANUAL by asha (velox flatten, everything is closed), at 10:05:00: first try (2 times, the last at 10:07:00: again)."
    )
    assert lines[1].endswith("[m1, m2]")


def test_halts_of_other_dates_sorts_and_authors_are_lines_of_their_own() -> None:
    other_day = {**LATER[1], "trading_date": "2024-01-17"}
    kept, other_person = halt("k", 8, keeps_positions=True), halt("o", 9, by="ravi")
    assert [group.ids for group in grouped([*LATER, other_day, kept, other_person])] == [("m1", "m2"), ("m2",), ("k",), ("o",)]


@pytest.mark.parametrize(
    ("changes", "what", "end"),
    [
        ({"kind": HaltKind.LOSS}, "the day's loss limit", "end of day of 2024-01-16"),
        ({"kind": HaltKind.RECONCILE}, "books that differ", "velox reset"),
        ({"keeps_positions": True}, "velox halt, positions are kept", "velox reset"),
        ({}, "velox flatten", "velox reset"),
        ({"kind": HaltKind.FAULT, "reason": "take-over: hangs"}, "a take-over of whoever did not answer", "velox reset"),
        ({"kind": HaltKind.FAULT, "by": "guard"}, "the guard", "velox reset"),
        ({"kind": HaltKind.FAULT, "by": "halt file"}, "a damaged halt file", "Look at halt.jsonl first"),
        ({"kind": HaltKind.FAULT, "by": "engine"}, "a fault", "velox reset"),
    ],
)
def test_each_sort_of_halt_says_what_it_is_and_how_it_ends(changes: dict[str, Any], what: str, end: str) -> None:
    body = halt("x", 0, **changes)
    assert what in what_it_is(body)
    assert end in how_it_ends(body)


def test_progress_line_never_ends_in_a_bare_separator() -> None:
    for body in ({"closing": {"state": "FLAT"}}, {"halted": True}, {"state": ""}):
        line = progress_line(Status(Path(), body))
        assert all(part.strip() and not part.endswith(":") for part in line.split(" | ")), line
    assert progress_line(Status(Path(), {"halted": True})).endswith(" | HALTED")
