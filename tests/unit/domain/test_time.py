"""Time: epoch milliseconds and the Indian calendar day."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from velox_core.domain.time import (
    IST,
    MS_PER_DAY,
    MS_PER_MINUTE,
    MS_PER_SECOND,
    epoch_ms,
    ist_clock_text,
    ist_date,
    ist_datetime,
    ist_midnight_ms,
    ist_ms,
)

DAY = date(2024, 1, 15)
OPEN_MS = 1_705_290_300_000  # 2024-01-15 09:15 IST = 03:45 UTC
MOMENTS = st.integers(-(10**12), 4 * 10**12)


def test_epoch_ms_known_moment_is_the_same_from_any_zone() -> None:
    assert epoch_ms(datetime(2024, 1, 15, 3, 45, tzinfo=UTC)) == OPEN_MS
    assert epoch_ms(datetime(2024, 1, 15, 9, 15, tzinfo=IST)) == OPEN_MS
    assert epoch_ms(datetime(2024, 1, 15, 9, 15, tzinfo=ZoneInfo("Asia/Kolkata"))) == OPEN_MS
    assert epoch_ms(datetime(2024, 1, 14, 22, 45, tzinfo=timezone(timedelta(hours=-5)))) == OPEN_MS


def test_epoch_ms_microseconds_are_cut_to_milliseconds() -> None:
    assert epoch_ms(datetime(2024, 1, 15, 3, 45, 0, 123_999, tzinfo=UTC)) == OPEN_MS + 123


def test_epoch_ms_naive_datetime_is_refused() -> None:
    with pytest.raises(ValueError, match="no time zone"):
        epoch_ms(datetime(2024, 1, 15, 9, 15))


@given(MOMENTS)
def test_ist_datetime_any_moment_reads_back_exactly(ts_ms: int) -> None:
    moment = ist_datetime(ts_ms)
    assert epoch_ms(moment) == ts_ms
    assert moment.utcoffset() == timedelta(hours=5, minutes=30)
    assert ist_date(ts_ms) == moment.date()
    assert ist_clock_text(ts_ms) == f"{moment:%H:%M:%S}"
    assert ist_ms(moment.date(), moment.time()) == ts_ms


def test_ist_date_around_midnight_changes_at_00_00_ist() -> None:
    midnight = ist_midnight_ms(DAY)
    assert ist_date(midnight) == DAY
    assert ist_date(midnight - 1) == date(2024, 1, 14)
    assert ist_date(midnight + MS_PER_DAY - 1) == DAY
    assert ist_date(midnight + MS_PER_DAY) == date(2024, 1, 16)


def test_ist_ms_wall_time_counts_every_unit() -> None:
    assert ist_ms(DAY, time(9, 15)) == OPEN_MS
    assert ist_ms(DAY, time(9, 16, 2, 3_000)) == OPEN_MS + MS_PER_MINUTE + 2 * MS_PER_SECOND + 3
