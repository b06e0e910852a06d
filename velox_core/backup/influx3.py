"""InfluxDB 3, which has no backup of its own: what only its server has of a day, asked in SQL and written as line protocol.

- Asked for are the measurements that a running engine alone knows (`schema.Source.PROCESS`): marks, heartbeats, durations. What
  is made of the journal is not asked for: a backup writes that beside it.
- A row that is not of the form that `metrics.schema` gives a point is an error: nothing is guessed.

POST /api/v3/query_sql with `format: jsonl`: https://docs.influxdata.com/influxdb3/core/api/query-data/ (read 2026-11).
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, closing
from datetime import UTC, datetime
from typing import IO, Any, Final

import httpx

from velox_core.backup.manifest import BackupError
from velox_core.backup.metrics_ways import OTHER_FORM, authorization
from velox_core.backup.time_limit import TimeLimit
from velox_core.metrics.points import Point, encode
from velox_core.metrics.schema import COMMON_TAGS, MEASUREMENTS, Measurement, Source

CONNECT_SECONDS: Final = 5.0
ANSWER_SECONDS: Final = 30.0  # without a byte from the server
TOTAL_SECONDS_MAX: Final = 300.0
BYTES_MAX: Final = 1 << 30
LINE_BYTES_MAX: Final = 1 << 16
NS_PER_SECOND: Final = 1_000_000_000
_TABLES: Final = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'iox'"


class Influx3:
    """One database of a server. It ends within `TOTAL_SECONDS_MAX`."""

    def __init__(self, *, url: str, database: str, token: str) -> None:
        self._url, self._database = url, database
        headers = authorization("Bearer", token)
        self._client = httpx.Client(timeout=httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS), headers=headers)
        self._limit = TimeLimit(f"the metrics server at {url}")
        self._until = time.monotonic() + TOTAL_SECONDS_MAX
        self._bytes = 0

    def close(self) -> None:
        """Give back what the client holds."""
        self._client.close()

    def rows(self, query: str) -> Iterator[dict[str, Any]]:
        """Return the rows of a query as they come. Raises BackupError."""
        body = {"db": self._database, "q": query, "format": "jsonl"}
        try:
            with self._limit.within(self._until - time.monotonic()), self._asked(body) as answer:
                if answer.status_code != httpx.codes.OK:
                    raise BackupError(f"the metrics server at {self._url} answers no query: {answer.status_code}")
                for line in _lines(answer.iter_bytes()):
                    self._within_bounds(len(line))
                    row = json.loads(line)
                    if not isinstance(row, dict):
                        raise ValueError(f"a row is {row!r:.100}")
                    yield row
        except (ValueError, RecursionError) as error:
            raise BackupError(f"the metrics server at {self._url} answers in no rows of JSON: {error}") from error
        except httpx.HTTPError as error:
            raise BackupError(f"the metrics server at {self._url} breaks off: {type(error).__name__} {error}") from error

    def _asked(self, body: dict[str, str]) -> AbstractContextManager[httpx.Response]:
        url = f"{self._url}/api/v3/query_sql"
        return self._client.stream("POST", url, json=body, extensions=self._limit.extensions)

    def _within_bounds(self, count: int) -> None:
        self._bytes += count
        if self._bytes > BYTES_MAX:
            raise BackupError(f"the day's points are more than {BYTES_MAX / 1e9:.1f} GB")


def write_process_points(
    file: IO[str], *, url: str, database: str, token: str, tags: Mapping[str, str], span: tuple[datetime, datetime]
) -> int:
    """Write the points that only a running engine knew, of a span of time. Returns how many.

    Args:
        file: where to; when this raises, it is left as it was.
        url, database, token: the server.
        tags: which points, such as broker and account.
        span: from, and up to (not included).
    Raises: BackupError, OSError.
    """
    written, begin = 0, file.tell()
    try:
        with closing(Influx3(url=url, database=database, token=token)) as server:
            there = {row.get("table_name") for row in server.rows(_TABLES)}
            for measurement in MEASUREMENTS:
                if measurement.source is not Source.PROCESS or measurement.name not in there:
                    continue
                for row in server.rows(_query(measurement, tags, span)):
                    file.write(f"{_line(measurement, row)}\n")
                    written += 1
    except BackupError:
        file.seek(begin)
        file.truncate()
        raise
    return written


def _query(measurement: Measurement, tags: Mapping[str, str], span: tuple[datetime, datetime]) -> str:
    wanted = " AND ".join(f""""{name}" = '{value.replace("'", "''")}'""" for name, value in tags.items())
    begin, end = (f"'{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}'" for moment in span)
    return f'SELECT * FROM "{measurement.name}" WHERE {wanted} AND time >= {begin} AND time < {end} ORDER BY time'


def _line(measurement: Measurement, row: Mapping[str, Any]) -> str:
    """Return a row as the line that it was. Raises BackupError for one of another form."""
    known_tags = {*COMMON_TAGS, *measurement.tags}
    tags, fields, at_ns = {}, {}, -1
    try:
        for name, value in row.items():
            if value is None:
                continue
            if name == "time":
                at_ns = nanoseconds(str(value))
            elif name in known_tags and isinstance(value, str):
                tags[name] = value
            elif name in measurement.fields and isinstance(value, int):
                fields[name] = value
            else:
                raise ValueError(f"{name} is {value!r:.100}")
        line = encode(Point(measurement.name, tags, fields, at_ns), {})
        if line is None:
            raise ValueError("it has no time or no field")
    except OTHER_FORM as error:
        raise BackupError(f"a row of {measurement.name} is no point of ours: {error}") from error
    return line


def nanoseconds(text: str) -> int:
    """Return epoch nanoseconds of a time in UTC such as '2024-01-15T03:45:00.000000001'. Raises ValueError."""
    seconds, _, fraction = text.removesuffix("Z").replace(" ", "T").partition(".")
    moment = datetime.fromisoformat(f"{seconds}+00:00")
    if len(fraction) > 9 or (fraction and not fraction.isdigit()):
        raise ValueError(f"{text!r} is no time in nanoseconds")
    return int(moment.timestamp()) * NS_PER_SECOND + int(fraction.ljust(9, "0") or 0)


def _lines(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Return the lines of an answer, the last one too when it ends without a line feed. Raises ValueError."""
    rest = b""
    for block in blocks:
        *whole, rest = (rest + block).split(b"\n")
        if len(rest) > LINE_BYTES_MAX:
            raise ValueError(f"a row is longer than {LINE_BYTES_MAX} bytes")
        yield from (line for line in whole if line.strip())
    if rest.strip():
        yield rest
