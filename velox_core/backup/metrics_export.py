"""The day's metrics, as their server exports them: VictoriaMetrics in its own lines, InfluxDB 2 as CSV.

- Of one account and one day. Nothing is lost without them: `velox metrics backfill` makes the same points from the journal.
- InfluxDB's own backup needs an operator's token and takes every bucket of the server; an export needs the token that is there.
- InfluxDB 3 has no export that fits: it is left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any, Final

import httpx

from velox_core.backup.manifest import BackupError
from velox_core.domain.time import IST
from velox_core.metrics.server import Flavour

TIMEOUT_SECONDS: Final = 30.0
BYTES_MAX: Final = 1 << 30
VICTORIA_LINES, INFLUX_CSV = "victoria-lines", "influx-csv"


def export_day(
    target: Path, *, flavour: Flavour, url: str, org: str, bucket: str, token: str, tags: Mapping[str, str], day: date
) -> dict[str, Any]:
    """Write the day's points of an account into a file. Returns what to check later.

    Args:
        target: the file.
        flavour, url, org, bucket, token: the server.
        tags: which points, such as broker and account.
        day: the trading date (IST).
    Raises: BackupError.
    """
    begin = datetime.combine(day, time(0), IST)
    span = (begin, begin + timedelta(days=1))
    headers = {"Authorization": f"Token {token}"} if token else {}
    if flavour is Flavour.VICTORIA:
        matched = ",".join(f"{name}={json.dumps(value)}" for name, value in tags.items())
        query = {"match[]": f"{{{matched}}}", "start": str(span[0].timestamp()), "end": str(span[1].timestamp())}
        request = httpx.Request("GET", f"{url}/api/v1/export", params=query, headers=headers)
        kind = VICTORIA_LINES
    elif flavour is Flavour.INFLUX2:
        request = httpx.Request(
            "POST",
            f"{url}/api/v2/query",
            params={"org": org},
            headers={**headers, "Content-Type": "application/vnd.flux", "Accept": "application/csv"},
            content=_flux(bucket, tags, span).encode(),
        )
        kind = INFLUX_CSV
    else:
        raise BackupError("InfluxDB 3 has no export that fits; velox metrics backfill makes a day's points anew")
    _stream(request, target, url)
    return {"method": kind, "points": count_points(target, kind)}


def count_points(file: Path, kind: str) -> int:
    """Return how many points an export holds. Raises ValueError for what is none."""
    with file.open(encoding="utf-8") as lines:
        if kind == VICTORIA_LINES:
            return sum(len(json.loads(line)["values"]) for line in lines if line.strip())
        return sum(1 for line in lines if line.startswith(",_result,"))


def check(file: Path, notes: Mapping[str, Any]) -> str:
    """Return '' when an export holds as many points as it did, else what is wrong."""
    try:
        found = count_points(file, str(notes.get("method", "")))
    except (ValueError, KeyError, TypeError) as error:
        return f"it is no export of metrics: {error}"
    return "" if found == notes.get("points") else f"it has {found} points, {notes.get('points')} were saved"


def _flux(bucket: str, tags: Mapping[str, str], span: tuple[datetime, datetime]) -> str:
    wanted = " and ".join(f"r[{json.dumps(name)}] == {json.dumps(value)}" for name, value in tags.items())
    begin, end = (moment.isoformat() for moment in span)
    return f"from(bucket: {json.dumps(bucket)}) |> range(start: {begin}, stop: {end}) |> filter(fn: (r) => {wanted})"


def _stream(request: httpx.Request, target: Path, url: str) -> None:
    size = 0
    try:
        with httpx.Client(timeout=TIMEOUT_SECONDS) as client, target.open("wb") as file:
            answer = client.send(request, stream=True)
            try:
                if answer.status_code != httpx.codes.OK:
                    raise BackupError(f"the metrics server at {url} exports nothing: it answers {answer.status_code}")
                for block in answer.iter_bytes():
                    size += len(block)
                    if size > BYTES_MAX:
                        raise BackupError(f"the metrics of the day are more than {BYTES_MAX / 1e9:.1f} GB: not exported")
                    file.write(block)
            finally:
                answer.close()
    except httpx.HTTPError as error:
        raise BackupError(f"the metrics server at {url} exports nothing: {type(error).__name__} {error}") from error
