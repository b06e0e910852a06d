"""The metrics of a day in a backup: what is asked of the configured server, and what is saved where it does not give it.

- InfluxDB 2: its own backup of the bucket; where that is refused (the token may not, no such API) its export of the day.
- VictoriaMetrics: its export of the day's points.
- InfluxDB 3, and a server that refuses an export too: the day's points as `velox metrics backfill` makes them of the journal.
  What only the running engine knew (marks, heartbeats, durations) InfluxDB 3 is asked for; else it is not among them.
- What was done instead stands in the manifest (`notes.instead`) and in the backup's words. A server that does not answer at
  all leaves the part out: the backup is good without it, and says so.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from datetime import time as day_time
from pathlib import Path
from threading import Thread
from typing import IO, Any, Final

from velox_core.backup.make import Bundle
from velox_core.backup.manifest import BackupError, PartKind, Saved
from velox_core.backup.metrics_ways import Way
from velox_core.backup.sources import account_scope, day_folders
from velox_core.domain.scope import Scope
from velox_core.domain.time import IST
from velox_core.journal.queries import JournalReader
from velox_core.journal.schema import Run
from velox_core.metrics.delivery import AnswerKind
from velox_core.metrics.server import Flavour, flavour_of
from velox_core.metrics_setup import metrics_server
from velox_core.operations.metrics_lines import limit_paise, run_lines
from velox_core.runs import JOURNAL_DATABASE
from velox_core.settings import InfluxSettings, MetricsFlavour, Paths, Settings

NAME: Final = "metrics/day"
LINES_FILE: Final = "metrics/day.lp"
FLAVOUR_SECONDS_MAX: Final = 30.0
_ONLY_FACTS: Final = "made of the journal, without what only the running engine knew"
_ALL: Final = "made of the journal; what only the running engine knew was asked for"


def metrics_bundle(settings: Settings, paths: Paths, trading_date: date) -> list[Bundle]:
    """Return what saves the day's metrics, nothing where metrics are off. Nothing is asked yet."""
    influx = settings.metrics.influxdb
    if not influx.enabled:
        return []

    def save(room: Path) -> Iterator[Saved]:
        flavour = _flavour(influx)
        if flavour is not Flavour.INFLUX2:
            yield _day(settings, paths, trading_date, room, flavour, instead="")
            return
        from velox_core.backup.influx2 import Bucket, Refused, save_bucket

        bucket = Bucket(url=influx.url.rstrip("/"), org=influx.org, bucket=influx.bucket, token=_token(influx))
        try:
            yield from save_bucket(bucket, room, wall_seconds=time.time())
        except Refused as refused:
            yield _day(settings, paths, trading_date, room, flavour, instead=f"no backup of the bucket: {refused}")

    return [Bundle(kind=PartKind.METRICS, name=NAME, save=save)]


def _day(settings: Settings, paths: Paths, trading_date: date, room: Path, flavour: Flavour, *, instead: str) -> Saved:
    """Save the day's points as the server exports them, else as the journal has them."""
    from velox_core.backup.influx2 import Refused
    from velox_core.backup.metrics_export import export_day

    influx = settings.metrics.influxdb
    file = room / "day"
    try:
        notes = export_day(
            file,
            flavour=flavour,
            url=influx.url.rstrip("/"),
            org=influx.org,
            bucket=influx.bucket,
            token=_token(influx),
            tags={"broker": settings.broker.type.value, "account": settings.account},
            day=trading_date,
        )
        said = f"{instead}. The day's points were exported instead" if instead else ""
        return Saved(path=NAME, file=file, notes={**notes, **({"instead": said} if said else {})})
    except Refused as refused:
        said = f"{instead}; {refused}" if instead else str(refused)
        notes, how = save_lines(settings, paths, trading_date, file, asks=flavour is Flavour.INFLUX3)
        said += f". The day's points were saved instead, {how}"
        return Saved(path=LINES_FILE, file=file, notes={**notes, "instead": said})


def save_lines(settings: Settings, paths: Paths, trading_date: date, target: Path, *, asks: bool) -> tuple[dict[str, Any], str]:
    """Write the points of the day's runs, as a backfill sends them, into a file of line protocol.

    Args:
        settings, paths, trading_date: which runs.
        target: the file.
        asks: whether the server is an InfluxDB 3, which may give what no journal has.
    Returns: what to check later, and how it was made. Raises JournalUnavailable, OSError.
    """
    points = malformed = 0
    runs = []
    with target.open("w", encoding="utf-8") as file:
        for reader, run, scope in _runs(settings, paths, trading_date):
            made = run_lines(reader, run, scope, limit_paise(settings, paths.var / scope.folder))
            file.writelines(f"{line}\n" for line in made.lines)
            points, malformed = points + len(made.lines), malformed + made.malformed
            runs.append(scope.key)
        how, asked = _asked(settings, trading_date, file) if asks else (_ONLY_FACTS, 0)
    notes = {"method": Way.LINE_PROTOCOL.value, "points": points + asked, "runs": runs}
    return {**notes, **({"malformed": malformed} if malformed else {})}, how


def _asked(settings: Settings, trading_date: date, file: IO[str]) -> tuple[str, int]:
    """Write what only an InfluxDB 3 has of the day. Returns how it went, and the number of points."""
    from velox_core.backup.influx3 import write_process_points

    influx = settings.metrics.influxdb
    begin = datetime.combine(trading_date, day_time(0), IST)
    try:
        points = write_process_points(
            file,
            url=influx.url.rstrip("/"),
            database=influx.bucket,
            token=_token(influx),
            tags={"broker": settings.broker.type.value, "account": settings.account},
            span=(begin, begin + timedelta(days=1)),
        )
    except BackupError as error:
        return f"{_ONLY_FACTS}: {error}", 0
    return f"{_ALL} ({points} points)", points


def _runs(settings: Settings, paths: Paths, trading_date: date) -> Iterator[tuple[JournalReader, Run, Scope]]:
    """Return the account's runs of the date in the journals that a backup saves."""
    account = account_scope(settings)
    files = [folder / JOURNAL_DATABASE for folder in day_folders(settings, paths, trading_date)]
    server = settings.stores.journal.url
    for url in [server] if server is not None else [f"sqlite:///{file}" for file in files if file.is_file()]:
        reader = JournalReader(url)
        try:
            for run in reader.runs(trading_date, trading_date):
                broker_type, name, *rest = run.scope_key.split(":", 2)
                if (broker_type, name) == (account.broker_type, account.account):
                    yield reader, run, Scope(broker_type=broker_type, account=name, run_id=rest[0] if rest else "")
        finally:
            reader.close()


def _token(influx: InfluxSettings) -> str:
    return "" if influx.token is None else influx.token.get_secret_value()


def _flavour(influx: InfluxSettings) -> Flavour:
    """Return which server it is: the configured word for it, else what it says. Raises BackupError when nobody answers."""
    if influx.flavour is not MetricsFlavour.AUTO:
        return Flavour(influx.flavour.value)
    told: list[Flavour | Exception] = []

    def ask() -> None:
        try:
            told.append(_flavour_it_says(influx))
        except Exception as error:  # of a thread of its own: raised again by whoever waits
            told.append(error)

    asking = Thread(target=ask, name="backup-metrics-flavour", daemon=True)  # a header that comes byte by byte has no bound
    asking.start()
    asking.join(FLAVOUR_SECONDS_MAX)
    if not told:
        raise BackupError(
            f"the metrics server at {influx.url} did not say in {FLAVOUR_SECONDS_MAX:g} s which one it is",
            "look at it, or name it as system.metrics.influxdb.flavour; then take the backup again",
        )
    if isinstance(told[0], Exception):
        raise told[0]
    return told[0]


def _flavour_it_says(influx: InfluxSettings) -> Flavour:
    server = metrics_server(influx)
    try:
        answer, version = server.ping()
        if answer.kind is AnswerKind.FAILED:
            raise BackupError(f"the metrics server at {influx.url} does not answer: {answer.text}")
        named, has_influx_health = server.health()
        return flavour_of(version or named, has_influx_health=has_influx_health)
    finally:
        server.close()
