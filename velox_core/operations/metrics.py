"""A run's points written again from its journal.

- It makes the points that the engine made of the same events, so it may run at any time and any number of times: the same
  stamps and tags replace what is there. It writes what the journal knows (`schema.Source.FACT`), nothing else.
- Bad points do not stop it; an answer that ends it leaves what was written, and running it again goes over all of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from velox_core.domain.errors import ConfigError, VeloxError
from velox_core.journal.queries import JournalReader
from velox_core.metrics.delivery import AnswerKind, deliver
from velox_core.metrics.server import MetricsServer
from velox_core.metrics_setup import metrics_server
from velox_core.operations.hints import velox
from velox_core.operations.metrics_lines import limit_paise, run_lines
from velox_core.operations.recorded import RecordedRun
from velox_core.operations.runs import require_begun
from velox_core.run_stores import journal_url
from velox_core.settings import Settings

BATCH_LINES: Final = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Backfill:
    """What a backfill wrote. `stopped` is why it ended early, '' when it came to the end."""

    run_id: str
    events: int
    points: int
    written: int
    malformed: int
    stopped: str

    @property
    def sentence(self) -> str:
        """Return it for people."""
        bad = f", {self.malformed} refused as malformed" if self.malformed else ""
        end = f". It stopped: {self.stopped}. Run it again when that is put right" if self.stopped else ""
        return f"run {self.run_id}: {self.events} journal events, {self.written} of {self.points} points written{bad}{end}."

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        names = ("run_id", "events", "points", "written", "malformed", "stopped")
        return {name: getattr(self, name) for name in names}


def backfill(settings: Settings, recorded: RecordedRun) -> Backfill:
    """Write the points of a run's journal to the metrics server.

    Raises: ConfigError when metrics are switched off; JournalUnavailable when the journal cannot be read.
    """
    influx = settings.metrics.influxdb
    if not influx.enabled:
        raise ConfigError(
            f"{settings.source}: metrics are switched off, so there is no server to write to. Set "
            f"system.metrics.influxdb.enabled to true and its url, then look: {velox('metrics', 'check', settings=settings)}"
        )
    require_begun(settings, recorded)
    reader = JournalReader(journal_url(settings, recorded.run))
    try:
        run = reader.latest_run(recorded.trading_date, scope_key=recorded.run.scope.key)
        if run is None or run.run_key is None:
            raise VeloxError(f"the journal does not know run {recorded.run.run_id}: restore a backup of it")
        made = run_lines(reader, run, recorded.run.scope, limit_paise(settings, recorded.folder))
    finally:
        reader.close()
    lines, malformed = made.lines, made.malformed
    server = metrics_server(influx)
    try:
        written, refused, stopped = _write(server, lines)
    finally:
        server.close()
    return Backfill(
        run_id=recorded.run.run_id,
        events=made.events,
        points=len(lines),
        written=written,
        malformed=malformed + refused,
        stopped=stopped,
    )


def _write(server: MetricsServer, lines: Sequence[str]) -> tuple[int, int, str]:
    """Post all lines in batches. Returns how many were written and refused, and why it stopped early."""
    written = refused = 0
    for start in range(0, len(lines), BATCH_LINES):
        delivery = deliver(server.post, lines[start : start + BATCH_LINES])
        written, refused = written + delivery.written, refused + delivery.malformed
        while delivery.left and delivery.answer is not None and delivery.answer.kind is AnswerKind.TOO_LARGE:
            delivery = deliver(server.post, delivery.left)
            written, refused = written + delivery.written, refused + delivery.malformed
        if delivery.left:
            return written, refused, "" if delivery.answer is None else delivery.answer.text
    return written, refused, ""
