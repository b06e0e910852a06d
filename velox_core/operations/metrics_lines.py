"""The lines of a run's points, made of its journal: for a backfill, and for a backup where a server exports nothing.

- The points that the engine made of the same events (`schema.Source.FACT`), and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from velox_core.domain.events import JournalEvent
from velox_core.domain.scope import Scope
from velox_core.journal.queries import JournalReader
from velox_core.journal.schema import Run
from velox_core.metrics.facts import FactPoints
from velox_core.metrics.points import encode
from velox_core.metrics_setup import common_tags
from velox_core.operations.status import read_status
from velox_core.ports import JournalFact
from velox_core.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLines:
    """The lines of a run's points, how many events or points have none, and how many events there are."""

    lines: list[str]
    malformed: int
    events: int


def run_lines(reader: JournalReader, run: Run, scope: Scope, limit_paise: int) -> RunLines:
    """Return the lines of a run in a journal. Raises JournalUnavailable."""
    events = reader.events(run.run_key or 0)
    lines, malformed = fact_lines(events, FactPoints(limit_paise), common_tags(scope, run.mode))
    return RunLines(lines=lines, malformed=malformed, events=len(events))


def fact_lines(events: Sequence[JournalEvent], facts: FactPoints, tags: dict[str, str]) -> tuple[list[str], int]:
    """Return the lines of a run's events, and how many events or points have none."""
    lines, malformed = list[str](), 0
    for event in events:
        try:
            points = facts.take(JournalFact(event.kind, event.ts_ms, event.body))
        except (KeyError, TypeError, ValueError):
            malformed += 1
            continue
        encoded = [encode(point, tags) for point in points]
        malformed += encoded.count(None)
        lines += [line for line in encoded if line is not None]
    return lines, malformed


def limit_paise(settings: Settings, folder: Path) -> int:
    """Return the loss limit that the run of a folder traded by; the configuration may have changed since."""
    status = read_status(folder)
    shown = 0 if status is None else status.number("loss_limit_paise")
    return shown or settings.risk.limits.loss_limit_paise
