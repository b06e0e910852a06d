"""Metrics: what the journal and the status say, as points of a time series, sent to InfluxDB or VictoriaMetrics.

- `schema` names every measurement; `facts` makes points of journal events, `gauges` of the published status.
- `sink` sends them from a thread of its own, bounded in every way; `delivery` and `server` are the way over HTTP.
- `observed` lets journal and control channel tell the sink, without either knowing of it.
- Metrics decide nothing: no order, no exit and no end of a process waits for them.
"""

from velox_core.metrics.delivery import Answer, AnswerKind, Delivery, deliver
from velox_core.metrics.facts import FactPoints
from velox_core.metrics.gauges import GaugePoints
from velox_core.metrics.observed import ObservedControl, ObservedJournal
from velox_core.metrics.points import Point, encode
from velox_core.metrics.sink import MetricsSink

__all__ = [
    "Answer",
    "AnswerKind",
    "Delivery",
    "FactPoints",
    "GaugePoints",
    "MetricsSink",
    "ObservedControl",
    "ObservedJournal",
    "Point",
    "deliver",
    "encode",
]
