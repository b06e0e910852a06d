"""The metrics server over HTTP: pings, names, looks for the bucket and takes lines, each request bounded and made once.

- influxdb-client makes the requests, synchronously; its batching writer is never used: its queue has no bound, and it can
  keep a process from ending (stack of the reference, measured).
- No redirect is followed and nothing is retried in here. The token is in a header only, and is cut out of every text.
- `/health` answers with an error on servers that are well, so it only helps to name one.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from http.client import HTTPException
from typing import Any, Final

from velox_core.metrics.delivery import OK, Answer, AnswerKind

CONNECT_SECONDS: Final = 2.0
ANSWER_SECONDS: Final = 5.0
RETRY_AFTER_SECONDS_MAX: Final = 600.0
TEXT_LENGTH_MAX: Final = 200

_KINDS: Final = {
    400: AnswerKind.MALFORMED,
    422: AnswerKind.MALFORMED,
    413: AnswerKind.TOO_LARGE,
    401: AnswerKind.UNAUTHORISED,
    403: AnswerKind.UNAUTHORISED,
    404: AnswerKind.MISSING,
    429: AnswerKind.BUSY,
    503: AnswerKind.BUSY,
}


class Flavour(StrEnum):
    """Which server it is; they take the same lines and differ in what can be asked before."""

    INFLUX2 = "influx2"
    INFLUX3 = "influx3"
    VICTORIA = "victoria"


NAMES: Final = {Flavour.INFLUX2: "InfluxDB 2", Flavour.INFLUX3: "InfluxDB 3", Flavour.VICTORIA: "VictoriaMetrics"}


class MetricsServer:
    """One server and the place in it that points go to. Used by one thread at a time.

    Args:
        url: its address, http or https, with a path before `/api/v2/write` where it has one.
        org, bucket: where points go; InfluxDB 3 calls the bucket a database, VictoriaMetrics ignores both.
        token: '' for none.
        connect_seconds, answer_seconds: bounds of a request.
    """

    def __init__(
        self,
        *,
        url: str,
        org: str,
        bucket: str,
        token: str = "",
        connect_seconds: float = CONNECT_SECONDS,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        from influxdb_client import InfluxDBClient
        from influxdb_client.client.exceptions import InfluxDBError
        from influxdb_client.client.write_api import SYNCHRONOUS
        from urllib3.exceptions import HTTPError

        # what the client and its libraries raise for answers, connections and bodies that they cannot read
        self._errors = (InfluxDBError, HTTPError, HTTPException, OSError, ValueError, TypeError, KeyError, AttributeError)
        self.url = url
        self._org, self._bucket, self._token = org, bucket, token
        timeout = (int(connect_seconds * 1_000), int(answer_seconds * 1_000))
        self._client: Any = InfluxDBClient(url=url, token=token, org=org, timeout=timeout, retries=False)
        if not token:
            self._client.default_tags = None
            self._client.api_client.default_headers.pop("Authorization", None)
        self._writer = self._client.write_api(write_options=SYNCHRONOUS)

    def post(self, lines: Sequence[str]) -> Answer:
        """Write lines with nanosecond stamps, in one request. Never raises."""
        try:
            self._writer.write(bucket=self._bucket, org=self._org, record="\n".join(lines).encode(), write_precision="ns")
        except self._errors as error:
            return self._answer_of(error)
        return OK

    def ping(self) -> tuple[Answer, str]:
        """Return whether anybody answers, and the version that it names, '' for none. Never raises.

        A server that wants a token for its ping and does not take ours is there: UNAUTHORISED.
        """
        from influxdb_client.service.ping_service import PingService

        try:
            headers = PingService(self._client.api_client).get_ping_with_http_info(_return_http_data_only=False)[2]
        except self._errors as error:
            return self._answer_of(error), ""
        named = {str(name).lower(): str(value) for name, value in dict(headers).items()}
        return OK, named.get("x-influxdb-version", "").lstrip("v")

    def health(self) -> tuple[str, bool]:
        """Return the version that `/health` names, '' for none, and whether it answers in InfluxDB's form. Never raises."""
        from influxdb_client.service.health_service import HealthService

        try:
            health = HealthService(self._client.api_client).get_health()
        except self._errors:  # it says nothing: the server is known by what it takes
            return "", False
        version = str(getattr(health, "version", "") or "").lstrip("v")
        return version, bool(version or getattr(health, "status", ""))

    def find_bucket(self) -> tuple[Answer, bool]:
        """Return whether the bucket is there, as InfluxDB 2.x tells it. Never raises."""
        try:
            found = self._client.buckets_api().find_bucket_by_name(self._bucket)
        except self._errors as error:
            return self._answer_of(error), False
        return OK, found is not None

    def close(self) -> None:
        """Give back what the client holds."""
        self._writer.close()
        self._client.close()

    def _answer_of(self, error: Exception) -> Answer:
        status = getattr(error, "status", None)
        if not isinstance(status, int) or status == 0:
            return Answer(kind=AnswerKind.FAILED, text=self._shown(_cause(error)))
        kind = _KINDS.get(status) or (AnswerKind.FAILED if status >= 500 else AnswerKind.REFUSED)
        wish = _seconds(getattr(error, "retry_after", None)) if kind is AnswerKind.BUSY else None
        said = getattr(error, "message", None) or getattr(error, "reason", None) or ""
        return Answer(kind=kind, text=self._shown(f"{status} {said}"), retry_after_seconds=wish)

    def _shown(self, text: str) -> str:
        """Return a text in one line without the token, which a server may repeat."""
        cleaned = text.replace(self._token, "***") if self._token else text
        return " ".join(cleaned.split())[:TEXT_LENGTH_MAX]


def _cause(error: Exception) -> str:
    """Return what a failed connection says, without the client's objects in it."""
    text = str(error.args[-1]) if error.args else str(error)
    name = type(error).__name__
    return f"{name}: {text.rpartition('>: ')[2]}" if text else name


def _seconds(wish: object) -> float | None:
    """Return a Retry-After in seconds, bounded; None for a date or nonsense."""
    try:
        seconds = float(str(wish))
    except ValueError:
        return None
    return min(max(seconds, 0.0), RETRY_AFTER_SECONDS_MAX) if seconds == seconds else None


def flavour_of(version: str, *, has_influx_health: bool) -> Flavour:
    """Return which server names this version. InfluxDB 2.x alone has a health page in InfluxDB's own form."""
    if version.startswith("3"):
        return Flavour.INFLUX3
    if version.startswith("2") or has_influx_health:
        return Flavour.INFLUX2
    return Flavour.VICTORIA
