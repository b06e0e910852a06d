"""What belongs into a backup of an account's day: found by looking at folders, read by nobody here.

- The account's own folder, and the folders of the day's runs: databases, halt and emergency files, status and summaries.
- The configuration's file, calendar, charges, instruments and the trader's own strategies, and the resolved settings with
  each secret shown as '(set)'. The secrets file is none of them, and a file that holds a secret is refused.
- Locks, sockets, control files and what SQLite keeps beside a database stay out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Final

from velox_core.backup.manifest import PartKind
from velox_core.domain.scope import Scope
from velox_core.runs import JOURNAL_DATABASE
from velox_core.settings import Paths, Settings
from velox_core.settings.folders import portable
from velox_core.settings.values import SecretStr
from velox_core.simulated_account import BROKER_BOOK

STATE_PATTERNS: Final = ("*.json", "*.jsonl", "*.jsonl.imported-*")
RESOLVED_FILE: Final = "resolved_settings.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One file to save: where it is, or its content; what it is; and where it belongs (see `manifest.Part.origin`)."""

    kind: PartKind
    origin: str
    path: Path | None = None
    content: bytes = b""


def account_scope(settings: Settings) -> Scope:
    """Return the account's scope, without a run."""
    return Scope(broker_type=settings.broker.type.value, account=settings.account)


def day_folders(settings: Settings, paths: Paths, trading_date: date) -> list[Path]:
    """Return the account's own folder and those of the date's runs, if they are there."""
    scope = account_scope(settings)
    runs = (paths.var / Scope(broker_type=scope.broker_type, account=scope.account, run_id="x").folder).parent
    stem = f"{trading_date.isoformat()}-"
    found = sorted(path for path in runs.glob(f"{stem}*") if path.is_dir()) if runs.is_dir() else []
    own = paths.var / scope.folder
    return [own, *found] if own.is_dir() else found


def run_dates(settings: Settings, paths: Paths) -> list[date]:
    """Return the dates that have a run folder, oldest first."""
    scope = account_scope(settings)
    runs = (paths.var / Scope(broker_type=scope.broker_type, account=scope.account, run_id="x").folder).parent
    dates = set()
    for path in runs.iterdir() if runs.is_dir() else ():
        try:
            dates.add(date.fromisoformat(path.name[:10]))
        except ValueError:
            continue
    return sorted(dates)


def find_sources(settings: Settings, paths: Paths, trading_date: date) -> tuple[list[Source], list[str]]:
    """Return what a backup of the day holds, databases first, and why a file of the configuration is left out."""
    folders = day_folders(settings, paths, trading_date)
    databases = [
        Source(kind=kind, origin=path.relative_to(paths.var).as_posix(), path=path)
        for folder in folders
        for name, kind in ((JOURNAL_DATABASE, PartKind.JOURNAL), (BROKER_BOOK, PartKind.BOOK))
        if (path := folder / name).is_file()
    ]
    states = [
        Source(kind=PartKind.STATE, origin=path.relative_to(paths.var).as_posix(), path=path)
        for folder in folders
        for path in _state_files(folder)
    ]
    configured, left_out = _configuration(settings)
    return [*databases, *states, *configured], left_out


def _state_files(folder: Path) -> list[Path]:
    found = {path for pattern in STATE_PATTERNS for path in folder.glob(pattern)}
    return sorted(path for path in found if path.is_file() and not path.name.startswith("."))


def _configuration(settings: Settings) -> tuple[list[Source], list[str]]:
    secrets = [secret for secret in _secrets(settings) if secret]
    strategies = [strategy.path for strategy in settings.strategies if strategy.path is not None]
    named = [settings.source, settings.calendar_path, settings.charges_path, settings.instruments_path, *strategies]
    resolved = json.dumps(settings.redacted(), indent=1, ensure_ascii=False, default=str).encode()
    found = {RESOLVED_FILE: Source(kind=PartKind.CONFIG, origin=RESOLVED_FILE, content=resolved + b"\n")}
    left_out = []
    for path in (path.absolute() for path in named):
        if not path.is_file():
            continue
        origin = portable(path, settings.root.absolute()).lstrip("/")
        if _holds_one(path, secrets):
            left_out.append(
                f"{path} holds a secret in plain text: take it out (secrets belong into the environment or the file of mode "
                "0600 that system.secrets_path names), then take the backup again"
            )
        else:
            found.setdefault(origin, Source(kind=PartKind.CONFIG, origin=origin, path=path))
    return list(found.values()), left_out


def _holds_one(path: Path, secrets: list[str]) -> bool:
    try:
        content = path.read_bytes()
    except OSError:
        return False  # it cannot be saved either, which is told then
    return any(secret.encode() in content for secret in secrets)


def _secrets(settings: Settings) -> Iterator[str]:
    credentials = settings.broker.credentials
    held: list[SecretStr | None] = [credentials.api_key, credentials.api_secret, credentials.access_token]
    held += [settings.stores.redis.password, settings.stores.journal.password, settings.metrics.influxdb.token]
    for secret in [*held, *settings.alerts.urls]:
        if secret is not None:
            yield secret.get_secret_value()
