"""The metrics server looked at, for the checklist and `velox metrics check`: green only after a point was taken.

- Ping, which server it is, the bucket where that can be asked for, then one point. A server's own word on its health counts
  for nothing: servers that are well call themselves unwell.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from velox_core.metrics.delivery import Answer, AnswerKind
from velox_core.metrics.server import NAMES, Flavour, MetricsServer, flavour_of
from velox_core.metrics_setup import metrics_server
from velox_core.settings import InfluxSettings, MetricsFlavour

PROBE_LINE: Final = "velox_probe,source=checklist value=1i"
TOKEN_ADVICE: Final = (
    "give a token that may write the bucket, as VELOX__METRICS__INFLUXDB__TOKEN or as metrics.influxdb.token in the file of "
    "mode 0600 that system.secrets_path names"
)
_LOCAL: Final = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLook:
    """What was found of the metrics server. `advice` says what to do when it is not `ok`."""

    ok: bool
    measured: str
    advice: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {"ok": self.ok, "measured": self.measured, "advice": self.advice}


def look_at_server(influx: InfluxSettings) -> ServerLook:
    """Ping the server, name it, look for bucket and token where that can be asked, and write one point."""
    server = metrics_server(influx)
    try:
        return _look(server, influx)
    finally:
        server.close()


def _look(server: MetricsServer, influx: InfluxSettings) -> ServerLook:
    answer, version = server.ping()
    if answer.kind is AnswerKind.FAILED:
        advice = f"start the metrics server at {influx.url}, or set system.metrics.influxdb.enabled to false"
        return ServerLook(ok=False, measured=f"{influx.url} does not answer a ping: {answer.text}", advice=advice)
    named, has_influx_health = server.health()
    version = version or named
    flavour = flavour_of(version, has_influx_health=has_influx_health)
    name = _name(flavour, version)
    if influx.flavour is not MetricsFlavour.AUTO and influx.flavour.value != flavour.value:
        wanted = NAMES[Flavour(influx.flavour.value)]
        advice = f"correct system.metrics.influxdb.url, or set flavour to auto or {flavour.value}"
        return ServerLook(ok=False, measured=f"{influx.url} is {name}, not {wanted}", advice=advice)
    if flavour is Flavour.INFLUX2:
        answer, is_there = server.find_bucket()
        if answer.kind is AnswerKind.WRITTEN and not is_there:
            measured = f"{name} at {influx.url}: the bucket {influx.bucket!r} is not there, or the token may not see it"
            return ServerLook(ok=False, measured=measured, advice="create the bucket, name another, or give another token")
    answer = server.post([PROBE_LINE])
    if answer.kind is not AnswerKind.WRITTEN:
        measured = f"{name} at {influx.url} answers, but a point cannot be written: {answer.text}"
        return ServerLook(ok=False, measured=measured, advice=_advice(answer, influx))
    where = f" into {influx.bucket}" if flavour is not Flavour.VICTORIA else ""
    return ServerLook(ok=True, measured=f"{name} at {influx.url} took a point{where}{_open_token(influx)}")


def _name(flavour: Flavour, version: str) -> str:
    name = NAMES[flavour]
    if not version or flavour is Flavour.VICTORIA:
        return f"{name} (or a server that takes the same lines)" if flavour is Flavour.VICTORIA else name
    return f"InfluxDB {version}"


def _advice(answer: Answer, influx: InfluxSettings) -> str:
    if answer.kind is AnswerKind.UNAUTHORISED:
        return TOKEN_ADVICE if influx.token is None else f"the token is refused: {TOKEN_ADVICE}"
    if answer.kind is AnswerKind.MISSING:
        return f"create the bucket {influx.bucket!r} in organisation {influx.org!r}, or correct org, bucket and url"
    return "check url, org, bucket and token of system.metrics.influxdb"


def _open_token(influx: InfluxSettings) -> str:
    parts = urlsplit(influx.url)
    is_open = influx.token is not None and parts.scheme == "http" and parts.hostname not in _LOCAL
    return "; the token travels unencrypted to another machine: use https" if is_open else ""
