"""The four log files of an environment, written off the trading thread.

- `velox.risk`, `velox.orders`, `velox.emergency` and `velox.system` go to `logs/<environment>/risk_manager.log`,
  `order_manager.log`, `emergency_exit.log` and `system.log`; any other `velox.*` logger goes to `system.log`.
- The caller hands over the bare record and the engine time; formatting, writing and rotation happen in one writer thread.
- The queue is bounded. When it is full, DEBUG and INFO lines are dropped and counted; warnings and everything of
  `velox.emergency` have a reserve of their own, and each loss is written to `system.log` and told by `stop`.
- A line is `2026-11-23 09:31:00,120+05:30 INFO [2024-01-15 09:31:00] message`: wall clock, level, engine time (IST both).
- A process that is not the run's engine counts engine time by itself, from the last that it knew: its lines say
  `[~2024-01-15 09:31:00]`, and may stand behind or before the engine's own in one file.
- A line of `velox.system` that begins with `[SESSION]` (how a run begins, its end) is written to all four files.
- The journal is the truth; a lost log line loses nothing but comfort. Nothing here raises into the trading thread.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from logging.handlers import QueueListener, RotatingFileHandler
from pathlib import Path
from queue import SimpleQueue
from typing import Final

from velox_core.domain.errors import VeloxError
from velox_core.domain.time import ist_datetime

RISK: Final = "velox.risk"
ORDERS: Final = "velox.orders"
EMERGENCY: Final = "velox.emergency"
SYSTEM: Final = "velox.system"

LOG_FILES: Final = {
    RISK: "risk_manager.log",
    ORDERS: "order_manager.log",
    EMERGENCY: "emergency_exit.log",
    SYSTEM: "system.log",
}
QUEUE_RECORDS_MAX: Final = 100_000
RESERVE_RECORDS_MAX: Final = 10_000
_ROOT: Final = "velox"
_NO_ENGINE_TIME: Final = "-"
COUNTED_MARK: Final = "~"
SESSION_MARK: Final = "[SESSION]"


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLosses:
    """Lines that did not reach a file, by cause."""

    dropped: int = 0
    dropped_important: int = 0
    failed_writes: int = 0

    @property
    def any(self) -> bool:
        """Return whether a line was lost."""
        return bool(self.dropped or self.dropped_important or self.failed_writes)

    def __str__(self) -> str:
        return (
            f"{self.dropped} lines and {self.dropped_important} important lines were dropped because the log queue was full, "
            f"{self.failed_writes} could not be written"
        )


class _Entrance(logging.Handler):
    """The caller's side: stamps engine time, and queues the record as it is."""

    def __init__(self, queue: SimpleQueue[logging.LogRecord | None], now_ms: Callable[[], int] | None, queue_max: int) -> None:
        super().__init__()
        self.queue = queue
        self.now_ms = now_ms
        self.queue_max = queue_max
        self.dropped = 0
        self.dropped_important = 0

    def handle(self, record: logging.LogRecord) -> bool:
        """Queue without a lock and without waiting; SimpleQueue is thread-safe, the bound may be off by a few."""
        important = record.levelno >= logging.WARNING or record.name.startswith(EMERGENCY)
        size = self.queue.qsize()
        if size >= self.queue_max and not important:
            self.dropped += 1
            return False
        if size >= self.queue_max + RESERVE_RECORDS_MAX:
            self.dropped_important += 1
            return False
        if self.now_ms is not None and not hasattr(record, "engine_ms"):
            record.engine_ms = self.now_ms()
        self.queue.put(record)
        return True


class _LineFormatter(logging.Formatter):
    """Every line of a message gets the prefix, so that grep finds a whole line.

    Args:
        clock_mark: stands before each engine time; '' for the engine's own.
    """

    def __init__(self, clock_mark: str = "") -> None:
        super().__init__()
        self._clock_mark = clock_mark

    def format(self, record: logging.LogRecord) -> str:
        engine_ms = getattr(record, "engine_ms", None)
        engine = _NO_ENGINE_TIME if engine_ms is None else f"{self._clock_mark}{ist_datetime(engine_ms):%Y-%m-%d %H:%M:%S}"
        wall = ist_datetime(int(record.created * 1_000))
        prefix = f"{wall:%Y-%m-%d %H:%M:%S},{wall.microsecond // 1_000:03d}+05:30 {record.levelname} [{engine}] "
        text = record.getMessage()
        if record.exc_info:
            text = f"{text}\n{self.formatException(record.exc_info)}"
        return "\n".join(prefix + line for line in text.splitlines() or [""])


class _LogFile(RotatingFileHandler):
    """One file, rotated by size. A write that fails is counted, never raised.

    With `max_bytes` 0 another process rotates it: what that one has moved away is left, and the new file written.
    """

    def __init__(self, path: Path, *, max_bytes: int, keep_files: int, clock_mark: str = "") -> None:
        super().__init__(path, maxBytes=max_bytes, backupCount=keep_files, encoding="utf-8")
        self.failed = 0
        self.setFormatter(_LineFormatter(clock_mark))

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record, to the file that has the name now."""
        if not self.maxBytes and not self._is_current():
            self.close_counting()  # the next write opens the file anew
        super().emit(record)

    def _is_current(self) -> bool:
        if self.stream is None:
            return True
        try:
            found, own = os.stat(self.baseFilename), os.fstat(self.stream.fileno())
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == (own.st_dev, own.st_ino)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name is the library's
        """Count; the first failure is also told on stderr, since the disk may be full."""
        self.failed += 1
        if self.failed == 1:
            problem = sys.exc_info()[1]
            with suppress(OSError, ValueError, AttributeError):  # nobody may be there to read it
                sys.stderr.write(f"velox: {self.baseFilename} cannot be written: {problem}. Trading goes on; free the disk.\n")

    def close_counting(self) -> None:
        """Close; what a full disk keeps from being flushed is counted like a failed write."""
        try:
            self.close()
        except OSError:
            self.failed += 1


class _Writer(QueueListener):
    """The writer thread: routes a record to its file, and writes down what was lost."""

    def __init__(self, entrance: _Entrance, files: dict[str, _LogFile]) -> None:
        super().__init__(entrance.queue)
        self.entrance = entrance
        self.files = files
        self.reported = 0

    def handle(self, record: logging.LogRecord) -> None:
        """Write one record, after a line about losses when there are new ones."""
        self.report_losses()
        if record.name == SYSTEM and str(record.msg).startswith(SESSION_MARK):
            for file in self.files.values():
                file.handle(record)
        else:
            self.files.get(record.name, self.files[SYSTEM]).handle(record)

    def report_losses(self) -> None:
        lost = self.entrance.dropped + self.entrance.dropped_important
        if lost > self.reported and self.entrance.queue.qsize() < self.entrance.queue_max:
            text = f"the log queue was full: {lost - self.reported} lines were dropped ({lost} in all)"
            self.reported = lost
            self.files[SYSTEM].handle(logging.LogRecord(SYSTEM, logging.WARNING, __file__, 0, text, None, None))


class LogWriter:
    """A running log set-up. `stop` flushes, closes and gives the loggers back."""

    def __init__(self, entrance: _Entrance, writer: _Writer, folder: Path, *, found: tuple[bool, int]) -> None:
        self.folder = folder
        self._found = found
        self._entrance = entrance
        self._writer = writer
        self._stopped = False

    @property
    def losses(self) -> LogLosses:
        """Return what was lost so far."""
        return LogLosses(
            dropped=self._entrance.dropped,
            dropped_important=self._entrance.dropped_important,
            failed_writes=sum(file.failed for file in self._writer.files.values()),
        )

    def stop(self) -> LogLosses:
        """Write out what is queued, close the files and return what was lost. A second call does nothing."""
        if not self._stopped:
            self._stopped = True
            logger = logging.getLogger(_ROOT)
            logger.removeHandler(self._entrance)
            logger.propagate, level = self._found
            logger.setLevel(level)
            self._writer.stop()
            self._writer.report_losses()
            for file in self._writer.files.values():
                file.close_counting()
        return self.losses


def start_logging(
    folder: Path,
    *,
    level: str = "INFO",
    max_megabytes: int = 50,
    keep_files: int = 10,
    rotates: bool = True,
    now_ms: Callable[[], int] | None = None,
    counts_its_own_time: bool = False,
    queue_records_max: int = QUEUE_RECORDS_MAX,
) -> LogWriter:
    """Send the `velox` loggers to the four files of a folder.

    Args:
        folder: `logs/<environment>`; made when it is missing.
        level: the least level that is written, by name.
        max_megabytes: size at which a file is rotated.
        keep_files: rotated files kept of each.
        rotates: False for a process that writes to the files of another, which rotates them.
        now_ms: engine time in epoch milliseconds, read once for each line that does not bring its own in
            `extra={"engine_ms": ...}`; without either the line says '-'.
        counts_its_own_time: True for a process that is not the run's engine; its engine times are marked.
        queue_records_max: lines that may wait for the writer.
    Raises: VeloxError when the folder or a file cannot be made.
    """
    files: dict[str, _LogFile] = {}
    max_bytes = max_megabytes * 1_000_000 if rotates else 0
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, file_name in LOG_FILES.items():
            mark = COUNTED_MARK if counts_its_own_time else ""
            files[name] = _LogFile(folder / file_name, max_bytes=max_bytes, keep_files=keep_files, clock_mark=mark)
    except OSError as error:
        for file in files.values():
            file.close()
        raise VeloxError(f"log folder {folder} cannot be used: {error}. Make it writable, or set VELOX__VAR.") from error
    entrance = _Entrance(SimpleQueue(), now_ms, queue_records_max)
    writer = _Writer(entrance, files)
    logger = logging.getLogger(_ROOT)
    for old in [handler for handler in logger.handlers if isinstance(handler, _Entrance)]:
        logger.removeHandler(old)
    found = (logger.propagate, logger.level)
    logger.addHandler(entrance)
    logger.setLevel(level)
    logger.propagate = False
    writer.start()
    return LogWriter(entrance, writer, folder, found=found)
