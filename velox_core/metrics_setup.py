"""Metrics from settings: the one place where the sink, the server and its token meet, for engine, backfill and check.

- Switched off they cost nothing: journal and control channel stay what they are, and no client library is imported.
- A sink that cannot be set up is told and left out: metrics stop no trading day.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

from velox_core.domain.errors import JournalUnavailable
from velox_core.domain.scope import Scope
from velox_core.journal.run import RunIdentity
from velox_core.metrics import FactPoints, MetricsSink, ObservedControl, ObservedJournal
from velox_core.metrics.server import MetricsServer
from velox_core.ports import Alerts, Control, Journal, JournalFact
from velox_core.settings import InfluxSettings, Settings

# a library that is not there or of another kind, an address that it does not take, no thread left
_SETUP_ERRORS: Final = (ImportError, OSError, RuntimeError, ValueError, TypeError, AttributeError)
_log = logging.getLogger("velox.system")


class RunMetrics:
    """The metrics of one engine, or their absence.

    Args:
        journal: the run's journal; `journal` is what the engine is to use instead.
        sink: where points go, None when metrics are off.
    """

    def __init__(self, journal: Journal, sink: MetricsSink | None) -> None:
        self._sink = sink
        self.journal: Journal = journal if sink is None else ObservedJournal(journal, sink, time.monotonic)

    def control(self, control: Control) -> Control:
        """Return the control channel that the engine is to use."""
        return control if self._sink is None else ObservedControl(control, self._sink)

    def watch_sends(self, waiting: Callable[[], int]) -> None:
        """Show in the metrics how many requests wait on their way to the broker."""
        if self._sink is not None:
            self._sink.sends = waiting

    def counters(self) -> dict[str, object]:
        """Return what became of the points, for the status."""
        return {"state": "off"} if self._sink is None else self._sink.counters()


def metrics_server(influx: InfluxSettings) -> MetricsServer:
    """Return the configured server. Imports the client library: 0.3 s."""
    token = "" if influx.token is None else influx.token.get_secret_value()
    return MetricsServer(url=influx.url, org=influx.org, bucket=influx.bucket, token=token)


def common_tags(scope: Scope, mode: str) -> dict[str, str]:
    """Return the tags of every point of a run: a replay's say which one, so that none is mixed with a real day."""
    return {"mode": mode, "broker": scope.broker_type, "account": scope.account, "run": scope.run_id}


def fact_points(settings: Settings, journal: Journal | None) -> FactPoints:
    """Return what makes points of a run's events, up to date with what its journal holds already."""
    facts = FactPoints(settings.risk.limits.loss_limit_paise)
    if journal is not None:
        with suppress(JournalUnavailable):  # then totals begin anew; a backfill puts them right
            for event in journal.events():
                with suppress(KeyError, TypeError, ValueError):  # an event of another version has no points
                    facts.take(JournalFact(event.kind, event.ts_ms, event.body))
    return facts


@contextmanager
def open_metrics(
    settings: Settings, identity: RunIdentity, scope: Scope, journal: Journal, alerts: Alerts
) -> Iterator[RunMetrics]:
    """Give the metrics of one engine. At the end what waits may leave, within a bound (`sink.FLUSH_SECONDS_MAX`)."""
    influx = settings.metrics.influxdb
    if not influx.enabled:
        yield RunMetrics(journal, None)
        return
    try:
        server = metrics_server(influx)
        facts = fact_points(settings, journal)
        sink = MetricsSink(server, facts, common_tags(scope, identity.mode), alerts)
        sink.start()
    except _SETUP_ERRORS as error:
        _log.error("[METRICS] cannot be set up, none are written: %s: %s", type(error).__name__, error)
        yield RunMetrics(journal, None)
        return
    try:
        yield RunMetrics(journal, sink)
    finally:
        sink.close()
