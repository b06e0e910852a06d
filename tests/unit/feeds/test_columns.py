"""Text to numbers and times: one grammar, and nothing turns into another value."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import pytest

from velox_core.domain.time import epoch_ms
from velox_core.feeds.columns import (
    NO_SYMBOL,
    UNREADABLE_MS,
    codes_from_texts,
    has_offset,
    number_from_text,
    stamp_from_text,
)

NINE_FIFTEEN_MS = epoch_ms(datetime(2024, 1, 15, 3, 45, tzinfo=UTC))


@pytest.mark.parametrize(("text", "number"), [("3902.05", 3902.05), (" 7 ", 7.0), (".5", 0.5), ("+1e2", 100.0), ("-3.", -3.0)])
def test_number_from_text_decimal_is_read(text: str, number: float) -> None:
    assert number_from_text(text) == number


@pytest.mark.parametrize("text", [None, "", "nan", "inf", "1_000", "1,000", "0x10", "१२", "1e9999", "1.2.3", "12 3"])
def test_number_from_text_anything_else_is_nan(text: str | None) -> None:
    assert math.isnan(number_from_text(text))


@pytest.mark.parametrize(
    "text",
    [
        "2024-01-15 09:15:00+05:30",
        "2024-01-15T09:15:00+0530",
        "2024-01-15 09:15+05:30",
        "2024-01-15T03:45:00Z",
        "2024-01-14T22:45:00-05:00",
        "2024-01-15 09:15:00.000+05:30",
    ],
)
def test_stamp_from_text_with_offset_is_the_same_instant(text: str) -> None:
    assert stamp_from_text(text, naive_is_ist=False) == NINE_FIFTEEN_MS
    assert has_offset(text)


def test_stamp_from_text_naive_is_indian_time_only_where_the_layout_says_so() -> None:
    assert stamp_from_text("2024-01-15 09:15:00", naive_is_ist=True) == NINE_FIFTEEN_MS
    assert stamp_from_text("2024-01-15 09:15:00", naive_is_ist=False) == UNREADABLE_MS
    assert not has_offset("2024-01-15 09:15:00")


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "2024-01-15",
        "15-01-2024 09:15",
        "2024-13-15 09:15",
        "2024-01-15 24:15",
        "2024-01-15 09:15+99:00",
        "20240115T0915",
    ],
)
def test_stamp_from_text_anything_else_is_unreadable(text: str | None) -> None:
    assert stamp_from_text(text, naive_is_ist=True) == UNREADABLE_MS


def test_codes_from_texts_numbers_symbols_and_marks_what_is_none() -> None:
    symbols, codes = codes_from_texts(["TCS", "infy ", "tcs", None, "two words", "INFY"])
    assert symbols == ("TCS", "INFY")
    assert codes.tolist() == [0, 1, 0, NO_SYMBOL, NO_SYMBOL, 1]
