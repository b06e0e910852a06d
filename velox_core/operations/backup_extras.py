"""What a backup asks of somebody, beside files: a journal on a server, Redis, the metrics of the day."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

from velox_core.backup import redis_copy
from velox_core.backup.make import Extra
from velox_core.backup.manifest import BackupError, PartKind
from velox_core.backup.room import size_of_folder
from velox_core.backup.sources import account_scope
from velox_core.metrics.delivery import AnswerKind
from velox_core.metrics.server import Flavour, flavour_of
from velox_core.metrics_setup import metrics_server
from velox_core.settings import InfluxSettings, MetricsFlavour, Paths, Settings


def extras(settings: Settings, paths: Paths, trading_date: date) -> list[Extra]:
    """Return what has to be asked for: nothing is asked yet."""
    return [*_server_journal(settings), *_redis(settings, paths), *_metrics(settings, trading_date)]


def _server_journal(settings: Settings) -> list[Extra]:
    url = settings.stores.journal.url
    if url is None:
        return []

    def save(target: Path) -> Mapping[str, Any]:
        from velox_core.backup.journal_copy import save_server_journal

        save_server_journal(url, account_scope(settings).key, target)
        return {"server": str(settings.stores.journal.display_url)}

    return [Extra(kind=PartKind.JOURNAL, path="server/journal.db", origin="", save=save)]


def _redis(settings: Settings, paths: Paths) -> list[Extra]:
    scope_key = account_scope(settings).key
    configured = settings.stores.redis
    url = configured.url
    if url is not None:
        place = f"Redis at {configured.display_url}"
        return [
            Extra(
                kind=PartKind.REDIS,
                path=f"redis-dump/{redis_copy.KEYS_FILE}",
                origin="",
                save=lambda target: redis_copy.save_keys(url, place, scope_key, target),
            )
        ]
    folder = paths.var / "redis"
    if not folder.is_dir():
        return []  # no ledger was ever needed here
    return [
        Extra(
            kind=PartKind.REDIS,
            path=f"redis-dump/{redis_copy.DUMP_FILE}",
            origin="",
            save=lambda target: redis_copy.save_embedded(folder, scope_key, target),
            expected_bytes=lambda: size_of_folder(folder),  # a dump is no larger than the log of what made it
        )
    ]


def _metrics(settings: Settings, trading_date: date) -> list[Extra]:
    influx = settings.metrics.influxdb
    if not influx.enabled or influx.flavour is MetricsFlavour.INFLUX3:
        return []

    def save(target: Path) -> Mapping[str, Any]:
        from velox_core.backup.metrics_export import export_day

        return export_day(
            target,
            flavour=_flavour(influx),
            url=influx.url.rstrip("/"),
            org=influx.org,
            bucket=influx.bucket,
            token="" if influx.token is None else influx.token.get_secret_value(),
            tags={"broker": settings.broker.type.value, "account": settings.account},
            day=trading_date,
        )

    return [Extra(kind=PartKind.METRICS, path="metrics/day", origin="", save=save)]


def _flavour(influx: InfluxSettings) -> Flavour:
    """Return which server it is: the configured word for it, else what it says."""
    if influx.flavour is not MetricsFlavour.AUTO:
        return Flavour(influx.flavour.value)
    server = metrics_server(influx)
    try:
        answer, version = server.ping()
        if answer.kind is AnswerKind.FAILED:
            raise BackupError(f"the metrics server at {influx.url} does not answer: {answer.text}")
        named, has_influx_health = server.health()
        return flavour_of(version or named, has_influx_health=has_influx_health)
    finally:
        server.close()
