"""Puts a backup back: planned first, checked whole before anything is touched, and nothing is ever deleted.

- Into an empty folder everything is restored, laid out as `var`, with the configuration beside it.
- Into `var` go databases and the files of their runs. What was there is moved aside, with what SQLite kept beside it.
- A journal or book with more in it than the backup has is newer: it stays, unless that is asked for in so many words.
- A halt file and emergency files that are there always stay: they may hold a halt or an order that the backup does not know.
- Configuration, metrics and Redis are never put back in place: an engine builds its ledger from journal and broker.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from velox_core.backup.databases import JournalChecks, check_integrity, journal_checks, table_checks
from velox_core.backup.destinations import Destination
from velox_core.backup.manifest import DATABASES, MADE_ANEW, BackupError, Manifest, Part, PartKind
from velox_core.backup.packing import blocks, sync_folder, unpack
from velox_core.backup.proof import verify_part

BESIDE: Final = ("", "-wal", "-shm")  # a database, and what SQLite keeps beside it


class Action(StrEnum):
    """What a restore does with one part."""

    RESTORE = "restore"  # nothing is there
    REPLACE = "replace"  # what is there is moved aside
    NEWER = "newer"  # what is there has more in it: refused without --force
    SAME = "same"
    KEEP = "keep"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One part: where it goes, what is done, and why."""

    part: Part
    target: Path
    action: Action
    why: str

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {"path": self.part.path, "target": str(self.target), "action": self.action.value, "why": self.why}


def plan_in_place(manifest: Manifest, var: Path) -> list[Step]:
    """Return what a restore into `var` would do, databases first. Reads, and changes nothing."""
    databases = [_database_step(part, var / part.origin) for part in manifest.parts if part.kind in DATABASES and part.origin]
    acted = {step.target.parent for step in databases if step.action is not Action.SAME}
    others = [_state_step(part, var / part.origin, acted) for part in manifest.parts if part.kind is PartKind.STATE]
    return databases + others


def plan_elsewhere(manifest: Manifest, folder: Path) -> list[Step]:
    """Return what a restore into an empty folder does. Raises BackupError for one that is not empty."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BackupError(f"{folder} is not empty: name a folder that is, or that is not there yet")
    steps = []
    for part in manifest.parts:
        place = f"config/{part.origin}" if part.kind is PartKind.CONFIG else part.origin or part.path.removesuffix(".zst")
        steps.append(Step(part=part, target=folder / place, action=Action.RESTORE, why="the folder is empty"))
    return steps


def fetch_checked(destination: Destination, manifest: Manifest, steps: Sequence[Step], staging: Path) -> dict[str, Path]:
    """Bring the parts that are needed, unpacked, into `staging`, each restored and compared first.

    Returns: part's path -> unpacked file. Raises BackupError for the first part that is not what was saved.
    """
    ready: dict[str, Path] = {}
    for number, step in enumerate(steps):
        packed, content = staging / f"{number}.packed", staging / f"{number}.content"
        destination.fetch(manifest.name, step.part.path, packed)
        # a machine whose Redis is older must get its journal all the same
        if problem := verify_part(step.part, packed, staging, loads=step.part.kind not in MADE_ANEW):
            raise BackupError(f"{step.part.path} of {manifest.name} cannot be used: {problem}. Nothing was changed.")
        unpack(packed, content)
        if step.part.kind is PartKind.METRICS:
            content.chmod(0o600)  # InfluxDB's own backup holds that server's tokens; a move keeps this
        packed.unlink()
        ready[step.part.path] = content
    return ready


def apply(steps: Sequence[Step], ready: dict[str, Path], aside: Path, root: Path) -> list[str]:
    """Move aside what is there and put the parts in their places, one after the other. Returns what was moved where.

    Args:
        steps: those of `ready` only.
        ready: part's path -> unpacked file on the same disk.
        aside: a folder that is not there yet, for what was there.
        root: what the places below `aside` are relative to.
    Raises: BackupError; the same restore then goes on where this one stopped.
    """
    moved = []
    try:
        for step in steps:
            step.target.parent.mkdir(parents=True, exist_ok=True)
            for suffix in BESIDE if step.part.kind in DATABASES else ("",):
                there = step.target.with_name(step.target.name + suffix)
                if there.exists():
                    place = aside / there.relative_to(root)
                    place.parent.mkdir(parents=True, exist_ok=True)
                    there.rename(place)
                    moved.append(f"{there} -> {place}")
            shutil.move(ready[step.part.path], step.target)
            sync_folder(step.target.parent)
    except OSError as error:
        raise BackupError(
            f"{step.target} was not restored: {error.strerror}: free its disk, or make it writable, then restore again; what "
            f"was there is in {aside}"
        ) from error
    return moved


def _database_step(part: Part, target: Path) -> Step:
    def step(action: Action, why: str) -> Step:
        return Step(part=part, target=target, action=action, why=why)

    if not target.exists():
        stray = [suffix for suffix in BESIDE if target.with_name(target.name + suffix).exists()]
        return step(Action.REPLACE if stray else Action.RESTORE, "it is gone")
    integrity = check_integrity(target)
    if integrity != "ok":
        return step(Action.REPLACE, f"what is there is damaged ({integrity.splitlines()[0]})")
    try:
        found = journal_checks(target) if part.kind is PartKind.JOURNAL else None
        tables = table_checks(target) if found is None else found.tables
    except BackupError as error:
        return step(Action.REPLACE, f"what is there cannot be read ({error})")
    if tables == dict(part.tables) and not (found and found.broken):
        return step(Action.SAME, "it is there already, table by table")
    if found is not None and (newer := _newer_run(part, found)):
        return step(Action.NEWER, newer)
    for name, check in tables.items():
        saved = part.tables[name].rows if name in part.tables else 0
        if check.rows > saved:
            return step(Action.NEWER, f"table {name} has {check.rows} rows, the backup {saved}")
    return step(Action.REPLACE, "the backup has more in it, or something else")


def _newer_run(part: Part, found: JournalChecks) -> str:
    saved = {(head.scope_key, head.trading_date, head.run_id): head.events for head in part.heads}
    for head in found.heads:
        known = saved.get((head.scope_key, head.trading_date, head.run_id), 0)
        if head.events > known:
            return f"run {head.name} has {head.events} events, the backup {known}"
    return ""


def _state_step(part: Part, target: Path, acted: set[Path]) -> Step:
    def step(action: Action, why: str) -> Step:
        return Step(part=part, target=target, action=action, why=why)

    if not target.exists():
        return step(Action.RESTORE, "it is gone")
    if _has_content(target, part.content_sha256):
        return step(Action.SAME, "it is there already")
    if target.suffix != ".json":
        return step(Action.KEEP, "what is there may hold a halt or an order that the backup does not know")
    if target.parent in acted:
        return step(Action.REPLACE, "it goes with its run's database")
    return step(Action.KEEP, "its run's database stays")


def _has_content(path: Path, sha256: str) -> bool:
    digest = hashlib.sha256()
    try:
        for block in blocks(path):
            digest.update(block)
    except OSError:
        return False
    return digest.hexdigest() == sha256
