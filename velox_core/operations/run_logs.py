"""The log files of a configuration: `logs/<environment>`, with its level, size and number of files."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from velox_core.logs import LogWriter, start_logging
from velox_core.settings import Paths, Settings


def logs_folder(settings: Settings, paths: Paths) -> Path:
    """Return the folder of the four log files."""
    return paths.logs / settings.environment


def archive_root(paths: Paths) -> Path:
    """Return the folder that holds a folder for each archived date."""
    return paths.logs / "backup"


def open_logs(settings: Settings, paths: Paths, *, rotates: bool = True, is_engine: bool = True) -> LogWriter:
    """Start writing the log files; the caller stops the writer. Raises VeloxError when they cannot be written.

    A process that writes beside an engine leaves the rotating to it (`rotates` False); one that is not the run's engine counts
    engine time by itself, and marks it (`is_engine` False).
    """
    with suppress(OSError):  # where a person copies a day's logs to, as the safety guide says
        archive_root(paths).mkdir(parents=True, exist_ok=True)
    return start_logging(
        logs_folder(settings, paths),
        level=settings.logs.level.value,
        max_megabytes=settings.logs.max_megabytes,
        keep_files=settings.logs.keep_files,
        rotates=rotates,
        counts_its_own_time=not is_engine,
    )
