"""What the flow run's log in the UI says: the one logger of ours that Prefect sees, and what of the engine's lines is for it.

- `velox.summary` alone has Prefect's handler. The engine's own loggers write their own files, and nothing of them is sent.
- Its terminal handler is a plain one: Prefect's own ends the process when the terminal is gone.
- Of the engine's log lines a person gets breaches, closings, alerts and how a run begins and ends; refusals of the gate are
  many, and stay in `risk_manager.log`.
"""

from __future__ import annotations

import logging
from typing import Final

from prefect.logging.handlers import APILogHandler

SUMMARY: Final = "velox.summary"
LINES_MAX: Final = 20  # of one look
_LEVELS: Final = (" CRITICAL ", " ERROR ")
_MARKS: Final = ("[SESSION]", "EMERGENCY", "FLAT")
_PREFIX_LENGTH: Final = len("2024-01-15 09:31:00,000+05:30 CRITICAL ")


class _ApiHandler(APILogHandler):
    """Prefect's handler, silent where there is no run or no server: a log line never costs more than itself."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name is the library's
        """Lose the line."""


class _TerminalHandler(logging.StreamHandler):  # type: ignore[type-arg]
    """The process's own output, for as long as there is one."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name is the library's
        """Lose the line."""


def summary_logger() -> logging.Logger:
    """Return the logger whose lines stand in the flow run's log; it hands nothing on to other loggers."""
    logger = logging.getLogger(SUMMARY)
    if not any(isinstance(handler, _ApiHandler) for handler in logger.handlers):
        terminal = _TerminalHandler()
        terminal.setFormatter(logging.Formatter("%(asctime)s | %(levelname)-7s | %(message)s", "%H:%M:%S"))
        logger.handlers = [_ApiHandler(), terminal]
        logger.setLevel(logging.INFO)
        logger.propagate = False
    return logger


def worth_telling(lines: list[str]) -> list[str]:
    """Return what of the engine's log lines is for the flow run's log: at most `LINES_MAX`, the newest, and how many more."""
    chosen = [line for line in lines if any(level in line[:_PREFIX_LENGTH] for level in _LEVELS) or _is_marked(line)]
    if len(chosen) <= LINES_MAX:
        return chosen
    return [f"({len(chosen) - LINES_MAX} more lines are in the log files)", *chosen[-LINES_MAX:]]


def _is_marked(line: str) -> bool:
    return "[RISK_CHECK]" not in line and any(mark in line for mark in _MARKS)
