"""Time inside the engine: integer epoch milliseconds (UTC), and the Indian calendar day they fall on.

- Decisions carry `now_ms`, read once from the Clock; nothing in the core asks a clock of its own.
- People and files see aware datetimes in Asia/Kolkata, a fixed +05:30 without daylight saving.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta, timezone

IST = timezone(timedelta(hours=5, minutes=30), "IST")
MS_PER_SECOND = 1_000
MS_PER_MINUTE = 60_000
MS_PER_DAY = 86_400_000
IST_OFFSET_MS = 19_800_000
_EPOCH_ORDINAL = date(1970, 1, 1).toordinal()


def epoch_ms(moment: datetime) -> int:
    """Return an aware datetime as epoch milliseconds, exactly. Raises ValueError for a naive one."""
    if moment.tzinfo is None:
        raise ValueError(f"{moment!r} has no time zone")
    delta = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (delta.days * 86_400 + delta.seconds) * MS_PER_SECOND + delta.microseconds // 1_000


def ist_datetime(ts_ms: int) -> datetime:
    """Return epoch milliseconds as an aware datetime in IST."""
    return datetime.fromtimestamp(ts_ms // MS_PER_SECOND, IST) + timedelta(milliseconds=ts_ms % MS_PER_SECOND)


def ist_date(ts_ms: int) -> date:
    """Return the Indian calendar date of an instant."""
    return date.fromordinal(_EPOCH_ORDINAL + (ts_ms + IST_OFFSET_MS) // MS_PER_DAY)


def ist_midnight_ms(day: date) -> int:
    """Return the epoch milliseconds of 00:00 IST of a date."""
    return (day.toordinal() - _EPOCH_ORDINAL) * MS_PER_DAY - IST_OFFSET_MS


def ist_ms(day: date, at: time) -> int:
    """Return the epoch milliseconds of a naive wall time `at` in IST on `day`."""
    return ist_midnight_ms(day) + ((at.hour * 60 + at.minute) * 60 + at.second) * MS_PER_SECOND + at.microsecond // 1_000


def ist_clock_text(ts_ms: int) -> str:
    """Return 'HH:MM:SS' in IST, for people."""
    seconds = (ts_ms + IST_OFFSET_MS) % MS_PER_DAY // MS_PER_SECOND
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
