"""The day's metrics, as their server exports them: VictoriaMetrics in its own lines, InfluxDB 2 as annotated CSV.

- Of one account and one day. Nothing is lost without them: `velox metrics backfill` makes the same points from the journal.
- InfluxDB 2 is asked for its own backup first (`influx2`), which needs an operator's token; an export needs one that may read.
- InfluxDB 3 has neither: its day is saved as the journal's lines, in the line protocol.
- What any of them saved is checked here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any, Final

import httpx

from velox_core.backup import influx2_files
from velox_core.backup.influx2 import Refused
from velox_core.backup.manifest import BackupError
from velox_core.backup.metrics_ways import INFLUX2_BACKUP, OTHER_FORM, Way, authorization
from velox_core.backup.time_limit import TimeLimit
from velox_core.domain.time import IST
from velox_core.metrics.server import Flavour

TIMEOUT_SECONDS: Final = 30.0  # without a byte from the server
TOTAL_SECONDS_MAX: Final = 300.0
REFUSALS: Final = (401, 403, 404, 405)  # the token may not, or it does not know how; anything else is trouble, which may pass
BYTES_MAX: Final = 1 << 30
ANNOTATIONS: Final = ("datatype", "group", "default")
_NO_POINTS: Final = ("#", ",result,table,", ",error,reference")  # annotations, headers, and what an error has instead


def export_day(
    target: Path, *, flavour: Flavour, url: str, org: str, bucket: str, token: str, tags: Mapping[str, str], day: date
) -> dict[str, Any]:
    """Write the day's points of an account into a file. Returns what to check later.

    Args:
        target: the file.
        flavour, url, org, bucket, token: the server.
        tags: which points, such as broker and account.
        day: the trading date (IST).
    Raises: Refused when the server answers and does not export; BackupError.
    """
    begin = datetime.combine(day, time(0), IST)
    span = (begin, begin + timedelta(days=1))
    headers = authorization("Token", token)
    if flavour is Flavour.VICTORIA:
        matched = ",".join(f"{name}={json.dumps(value)}" for name, value in tags.items())
        query = {"match[]": f"{{{matched}}}", "start": str(span[0].timestamp()), "end": str(span[1].timestamp())}
        request = httpx.Request("GET", f"{url}/api/v1/export", params=query, headers=headers)
        way = Way.VICTORIA_LINES
    elif flavour is Flavour.INFLUX2:
        request = httpx.Request(
            "POST",
            f"{url}/api/v2/query",
            params={"org": org},
            headers={**headers, "Accept": "application/csv"},
            json={"query": _flux(bucket, tags, span), "type": "flux", "dialect": {"annotations": ANNOTATIONS, "header": True}},
        )
        way = Way.ANNOTATED_CSV
    else:
        raise Refused("InfluxDB 3 has no export of a day's points")
    _stream(request, target, url)
    if way is Way.ANNOTATED_CSV:
        _require_no_error(target)
        _require_annotated(target, url)
    try:
        return {"method": way.value, "points": count_points(target, way)}
    except OTHER_FORM as error:
        raise BackupError(
            f"what answers at {url} is no export of metrics: {error!r:.200}", "see system.metrics.influxdb.url and flavour"
        ) from error


def count_points(file: Path, way: Way) -> int:
    """Return how many points an export holds. Raises `OTHER_FORM` for what is none."""
    with file.open(encoding="utf-8") as lines:
        if way is Way.VICTORIA_LINES:
            return sum(len(json.loads(line)["values"]) for line in lines if line.strip())
        if way is Way.LINE_PROTOCOL:
            return sum(1 for line in lines if int(line.rpartition(" ")[2]) >= 0)
        return sum(1 for line in lines if line.strip() and not line.startswith(_NO_POINTS))


def check(file: Path, notes: Mapping[str, Any]) -> str:
    """Return '' when what was saved of a server's metrics is what it was, else what is wrong. Raises OSError."""
    if notes.get("method") in INFLUX2_BACKUP:
        return influx2_files.check(file, notes)
    try:
        found = count_points(file, Way(str(notes.get("method", ""))))
    except OTHER_FORM as error:
        return f"it is no export of metrics: {error}"
    return "" if found == notes.get("points") else f"it has {found} points, {notes.get('points')} were saved"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)  # Flux has no \\u in its strings


def _flux(bucket: str, tags: Mapping[str, str], span: tuple[datetime, datetime]) -> str:
    wanted = " and ".join(f"r[{_quoted(name)}] == {_quoted(value)}" for name, value in tags.items())
    begin, end = (moment.isoformat() for moment in span)
    return f"from(bucket: {_quoted(bucket)}) |> range(start: {begin}, stop: {end}) |> filter(fn: (r) => {wanted})"


def _require_no_error(file: Path) -> None:
    """Raise Refused when InfluxDB ended its answer with an error: it says 200 before it knows."""
    with file.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if line.startswith(",error,reference"):
                raise Refused(f"the metrics server exports nothing: {next(lines, '').strip(', ')[:200]}")


def _require_annotated(file: Path, url: str) -> None:
    """Raise BackupError unless an export of InfluxDB 2 is empty or begins as it was asked to."""
    with file.open("rb") as lines:
        first = next((line for line in lines if line.strip()), b"")
    if first and not first.startswith(b"#datatype"):
        raise BackupError(
            f"what answers at {url} is no export of metrics: it begins with {first[:40]!r}",
            "see system.metrics.influxdb.url and flavour",
        )


def _stream(request: httpx.Request, target: Path, url: str) -> None:
    size = 0
    limit = TimeLimit(f"the metrics server at {url}")
    request.extensions = {**request.extensions, **limit.extensions}
    try:
        with (
            httpx.Client(timeout=TIMEOUT_SECONDS) as client,
            target.open("wb") as file,
            limit.within(TOTAL_SECONDS_MAX),
        ):
            answer = client.send(request, stream=True)
            try:
                if answer.status_code != httpx.codes.OK:
                    fault = Refused if answer.status_code in REFUSALS else BackupError
                    raise fault(f"the metrics server at {url} exports nothing: it answers {answer.status_code}")
                for block in answer.iter_bytes():
                    size += len(block)
                    if size > BYTES_MAX:
                        raise BackupError(f"the metrics of the day are more than {BYTES_MAX / 1e9:.1f} GB: not exported")
                    file.write(block)
            finally:
                answer.close()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise BackupError(f"the metrics server at {url} exports nothing: {type(error).__name__} {error}") from error
