"""How backups are called: by their date and number, and by whom while they are on their way.

- `2024-01-15`, then `2024-01-15-2`; one that lacks a part carries `.incomplete`.
- `.partial-NAME.MAKER~RANDOM` is under way, being removed, or what is left of one that was killed: no two are called the same.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from datetime import date
from typing import Final
from uuid import uuid4

MANIFEST_FILE: Final = "manifest.json"
INCOMPLETE: Final = ".incomplete"
PARTIAL: Final = ".partial-"
_MAKER: Final = re.compile(r"[A-Za-z0-9-]{1,60}")
_NAME: Final = re.compile(r"(\d{4}-\d{2}-\d{2})(?:-(\d{1,6}))?(\.incomplete)?")


def date_of(name: str) -> date | None:
    """Return the trading date of a backup's name, None for what is no name of a backup."""
    match = _NAME.fullmatch(name)
    try:
        return date.fromisoformat(match[1]) if match else None
    except ValueError:
        return None


def number_of(name: str) -> int:
    """Return which backup of its date a name is: 1 for the first."""
    match = _NAME.fullmatch(name)
    return int(match[2]) if match and match[2] else 1


def next_name(trading_date: date, existing: set[str]) -> str:
    """Return the name of the next backup of a date: '2024-01-15', then '2024-01-15-2'."""
    numbers = [number_of(name) for name in existing if date_of(name) == trading_date]
    number = max(numbers, default=0) + 1
    return trading_date.isoformat() if number == 1 else f"{trading_date.isoformat()}-{number}"


def in_order(names: Iterable[str]) -> list[str]:
    """Return the names that are names of backups, oldest first."""
    return sorted((name for name in names if date_of(name)), key=lambda name: (date_of(name), number_of(name), name))


def partial_name(name: str, made_by: str) -> str:
    """Return what a backup is called while it is on its way."""
    return f"{PARTIAL}{name}.{made_by}~{uuid4().hex[:8]}"


def leaving_name(name: str, manifest: bytes) -> str:
    """Return what a backup is called while it is being removed: what is left of it then is its maker's to tidy away.

    Args:
        name: the backup.
        manifest: its manifest file's content, b'' without one.
    """
    try:
        made_by = str(json.loads(manifest)["made_by"])
    except (ValueError, KeyError, TypeError):
        made_by = ""
    return partial_name(name, made_by if _MAKER.fullmatch(made_by) else "unknown")


def backup_of(entry: str) -> str:
    """Return which backup an entry is, that is under way or being removed."""
    return entry.removeprefix(PARTIAL).rpartition(".")[0]


def maker_of(entry: str) -> str:
    """Return who has, or had, an entry of a place under way; '' for what is not under way."""
    return entry.rpartition(".")[2].partition("~")[0] if entry.startswith(PARTIAL) else ""


def taken(entries: Iterable[str]) -> set[str]:
    """Return the names in use: of backups, of what is left of one that was killed, of those on their way."""
    return {
        backup_of(entry) if entry.startswith(PARTIAL) else entry
        for entry in entries
        if entry.startswith(PARTIAL) or date_of(entry) is not None
    }
