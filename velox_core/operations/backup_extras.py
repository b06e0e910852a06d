"""What a backup asks of somebody, beside files: a journal on a server, Redis, the metrics of the day."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

from velox_core.backup import redis_copy
from velox_core.backup.make import Bundle, Extra
from velox_core.backup.manifest import PartKind
from velox_core.backup.room import size_of_folder
from velox_core.backup.sources import account_scope
from velox_core.operations.metrics_backup import metrics_bundle
from velox_core.settings import Paths, Settings


def extras(settings: Settings, paths: Paths, trading_date: date) -> list[Extra | Bundle]:
    """Return what has to be asked for: nothing is asked yet."""
    return [*_server_journal(settings), *_redis(settings, paths), *metrics_bundle(settings, paths, trading_date)]


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
