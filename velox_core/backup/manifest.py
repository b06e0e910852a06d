"""What a backup says about itself: its parts, their sizes and checksums, what is missing, and whether it was verified.

- `manifest.json` is the last file of a backup to be written; a folder without one is no backup.
- A backup is good when it was verified and nothing is missing. One that lacks a part carries `.incomplete` in its name.
- Places are written relative to `var` or to the configuration's folder, so that a backup can be restored elsewhere.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from velox_core.backup.faults import BackupError as BackupError  # who reads manifests catches it
from velox_core.journal.verify import RunHead

FORMAT: Final = 1


class PartKind(StrEnum):
    """What a part is, and so how it is checked and where it goes."""

    JOURNAL = "journal"
    BOOK = "book"
    REDIS = "redis"
    METRICS = "metrics"
    STATE = "state"
    CONFIG = "config"


DATABASES: Final = frozenset({PartKind.JOURNAL, PartKind.BOOK})
MADE_ANEW: Final = frozenset({PartKind.REDIS, PartKind.METRICS})  # from the journal: a backup without them is good


@dataclass(frozen=True, slots=True, kw_only=True)
class TableCheck:
    """A table's number of rows, and the SHA-256 (hex) of all of them in the order of its key."""

    rows: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """A file that is to become a part: its place in the backup, where it is now, and what is to be checked of it later."""

    path: str
    file: Path
    notes: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One file of a backup.

    Attributes:
        path: in the backup, e.g. 'replay/primary/2024-01-15-1/journal.db.zst'.
        origin: where it belongs below `var`; of CONFIG the path below the configuration's project; '' for what is only kept.
        bytes, sha256: of the file as it lies in the backup.
        content_bytes, content_sha256: of what it unpacks to.
        tables: of a database, by name.
        revision: of a journal's schema.
        heads: of a journal's runs.
        notes: more that is checked, e.g. the keys of a Redis.
    """

    path: str
    kind: PartKind
    origin: str
    bytes: int
    sha256: str
    content_bytes: int
    content_sha256: str
    tables: Mapping[str, TableCheck] = field(default_factory=dict)
    revision: str = ""
    heads: tuple[RunHead, ...] = ()
    notes: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values; what is empty stays out."""
        body: dict[str, Any] = {"path": self.path, "kind": self.kind.value, "origin": self.origin}
        body |= {name: getattr(self, name) for name in ("bytes", "sha256", "content_bytes", "content_sha256")}
        if self.tables:
            body["tables"] = {name: {"rows": check.rows, "sha256": check.sha256} for name, check in self.tables.items()}
        if self.revision:
            body["schema_revision"] = self.revision
        if self.heads:
            body["heads"] = [head.to_json() for head in self.heads]
        if self.notes:
            body["notes"] = dict(self.notes)
        return body

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Part:
        """Return what `to_json` made. Raises KeyError, ValueError and TypeError for anything else."""
        path, origin = str(body["path"]), str(body["origin"])
        for place in (path, origin):
            if place.startswith("/") or ".." in place.split("/"):
                raise ValueError(f"{place!r} leads out of the backup")
        tables = {
            str(name): TableCheck(rows=int(check["rows"]), sha256=str(check["sha256"]))
            for name, check in body.get("tables", {}).items()
        }
        return cls(
            path=path,
            kind=PartKind(body["kind"]),
            origin=origin,
            bytes=int(body["bytes"]),
            sha256=str(body["sha256"]),
            content_bytes=int(body["content_bytes"]),
            content_sha256=str(body["content_sha256"]),
            tables=tables,
            revision=str(body.get("schema_revision", "")),
            heads=tuple(RunHead.from_json(head) for head in body.get("heads", ())),
            notes=dict(body.get("notes", {})),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A backup's table of contents.

    Attributes:
        name: the backup's folder.
        broker_type, account: whose it is.
        trading_date: the day whose runs it holds.
        made_wall_ms: when, epoch ms of the wall clock.
        versions: of VELOX, Python, SQLite, zstandard and Redis.
        config_hash: of the configuration it was made with.
        head: one hash for the events of the day's runs, '' without any.
        parts: everything in it.
        missing: what could not be saved, each with its reason.
        without: the same of what is made anew from the journal, so that nothing is lost.
        verified: whether it was restored into an empty place and compared; `verified_wall_ms` when.
        made_by: which `var` it was made from, see `store.origin_of`; '' in one of an older VELOX.
    """

    name: str
    broker_type: str
    account: str
    trading_date: date
    made_wall_ms: int
    versions: Mapping[str, str]
    config_hash: str
    head: str
    parts: tuple[Part, ...]
    missing: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    verified: bool = False
    verified_wall_ms: int = 0
    made_by: str = ""

    @property
    def good(self) -> bool:
        """Return whether it was verified and nothing is missing."""
        return self.verified and not self.missing

    @property
    def packed_bytes(self) -> int:
        """Return the size of all parts as they lie in the backup."""
        return sum(part.bytes for part in self.parts)

    @property
    def heads(self) -> tuple[RunHead, ...]:
        """Return the heads of all journals' runs."""
        return tuple(head for part in self.parts for head in part.heads)

    def after_verification(self, wall_ms: int) -> Manifest:
        """Return the manifest of a backup that was verified."""
        return replace(self, verified=True, verified_wall_ms=wall_ms)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        names = ("name", "broker_type", "account", "made_wall_ms", "config_hash", "head", "verified", "verified_wall_ms")
        return {
            "format": FORMAT,
            **({"made_by": self.made_by} if self.made_by else {}),
            **{name: getattr(self, name) for name in names},
            "trading_date": self.trading_date.isoformat(),
            "versions": dict(self.versions),
            "missing": list(self.missing),
            "without": list(self.without),
            "parts": [part.to_json() for part in self.parts],
        }

    def encoded(self) -> bytes:
        """Return the manifest file's content, with a checksum of its own."""
        body = self.to_json()
        return json.dumps({"checksum": _checksum(body), **body}, indent=1, ensure_ascii=False).encode() + b"\n"


def _checksum(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def read_manifest(content: bytes, place: str) -> Manifest:
    """Return the manifest of a file's content. `place` names it in messages. Raises BackupError."""
    try:
        body = json.loads(content)
        if body.pop("checksum") != _checksum(body):
            raise ValueError("it was changed or damaged: its checksum does not fit")
        if body["format"] != FORMAT:
            raise ValueError(f"its format is {body['format']}, this VELOX reads {FORMAT}")
        names = ("name", "broker_type", "account", "config_hash", "head")
        return Manifest(
            **{name: str(body[name]) for name in names},
            trading_date=date.fromisoformat(body["trading_date"]),
            made_wall_ms=int(body["made_wall_ms"]),
            versions={str(name): str(version) for name, version in body["versions"].items()},
            parts=tuple(Part.from_json(part) for part in body["parts"]),
            missing=tuple(str(text) for text in body["missing"]),
            without=tuple(str(text) for text in body["without"]),
            verified=body["verified"] is True,
            verified_wall_ms=int(body["verified_wall_ms"]),
            made_by=str(body.get("made_by", "")),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BackupError(f"the manifest of {place} cannot be read: {error!r}. Take another backup.") from error
