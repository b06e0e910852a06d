"""Values of what a day leaves behind, and how long it is kept: log files and their archive, backups, Prefect's records."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class LogLevel(StrEnum):
    """The least level that is written to the log files."""

    DEBUG = "DEBUG"
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupSettings:
    """Backups: an absolute folder or a URL, None for `backups` below the var folder, and more of them.

    Kept is the newest backup of each of the newest `keep_days` days, `keep_weeks` weeks and `keep_months` months that have one.
    A destination that answers nothing and moves nothing for `silence_seconds` is given up.
    """

    destination: str | None
    keep_days: int
    copies: tuple[str, ...] = ()
    keep_weeks: int = 8
    keep_months: int = 12
    silence_seconds: int = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """Rotation and level of the log files; how long rotated files, and how long and how much of the archive is kept."""

    max_megabytes: int
    keep_files: int
    keep_days: int
    archive_days: int
    archive_megabytes: int
    level: LogLevel


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionSettings:
    """How many days Prefect keeps a run that has ended."""

    prefect_days: int
