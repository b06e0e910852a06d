"""The places of an account's backups: which there are, whether they can be written to, what they hold, and whether it is whole.

- `at` names a folder or a URL instead of the configured destinations.
- Each place is worked on by a process of its own, and given up after `system.backup.silence_seconds` of silence (ADR 0061). The
  folder below `var` is not: it hangs only when `var` does.
"""

from __future__ import annotations

import os
import re
import shlex
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Final

from velox_core.backup.destinations import Destination, Unfinished
from velox_core.backup.faults import BackupError
from velox_core.backup.manifest import Manifest
from velox_core.backup.naming import date_of
from velox_core.backup.opening import open_destination, open_here
from velox_core.backup.sources import account_scope
from velox_core.backup.store import LEFT_DAYS_MAX, verify_stored
from velox_core.operations.hints import velox
from velox_core.settings import Paths, Settings

BACKUPS_FOLDER: Final = "backups"  # below var, when no destination is configured
PROBE_SECONDS: Final = 10.0
MOUNTS: Final = Path("/proc/self/mountinfo")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredBackup:
    """A backup in a destination, or what is none yet.

    Attributes:
        where, name: the place and the entry.
        manifest: its manifest, None when it cannot be read or there is none.
        problem: why it cannot be read, or why the place does not answer.
        unfinished: of what is under way, or left of one that was killed.
    """

    where: str
    name: str
    manifest: Manifest | None
    problem: str = ""
    unfinished: Unfinished | None = None

    @property
    def remedy(self) -> str:
        """Return how to remove what is left of a backup that was killed, '' for any other."""
        if self.unfinished is None:
            return ""
        path = f"{self.where}/{self.name}"
        by_hand = f"rm -r {shlex.quote(path)}" if "://" not in path else f"remove {path} with the store's own tools"
        waits = "" if not self.unfinished.made_by else f"; else a backup removes it once it is {LEFT_DAYS_MAX} days old"
        return f"{by_hand}, unless that host still sends{waits}" if self.unfinished.made_by else by_hand

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        manifest = self.manifest
        body: dict[str, Any] = {"place": self.where, "name": self.name, "problem": self.problem}
        if self.unfinished is not None:
            body |= {"unfinished": self.unfinished.to_json(), "remedy": self.remedy}
        if manifest is not None:
            body |= {"good": manifest.good, "trading_date": manifest.trading_date.isoformat(), "bytes": manifest.packed_bytes}
            body |= {"made_wall_ms": manifest.made_wall_ms, "verified_wall_ms": manifest.verified_wall_ms}
            body |= {"head": manifest.head, "missing": list(manifest.missing), "parts": len(manifest.parts)}
            body |= {"without": list(manifest.without)}
        return body


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupVerdict:
    """What a look at a stored backup found: nothing, or problems."""

    where: str
    name: str
    problems: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {"place": self.where, "name": self.name, "ok": not self.problems, "problems": list(self.problems)}


@contextmanager
def opened(
    settings: Settings, paths: Paths, at: str | None = None, *, silence_seconds: float | None = None
) -> Iterator[list[Destination]]:
    """Give the places where the account's backups are kept: the configured ones, or the one that `at` names.

    Args:
        settings, paths: the account.
        at: an absolute or relative folder, or a URL.
        silence_seconds: after which a place is given up; None as it is configured.
    Raises: BackupError for a URL with a password in it.
    """
    backup, own = settings.backup, paths.var / BACKUPS_FOLDER
    if at is not None:
        places = [at if "://" in at else os.path.abspath(at)]
    else:
        places = [backup.destination or str(own), *backup.copies]
    folder = account_scope(settings).folder
    silence = backup.silence_seconds if silence_seconds is None else silence_seconds
    with ExitStack() as ending:
        found = []
        for place in places:
            if place == str(own) and _lies_in_var(own):
                found.append(open_here(place, folder))
            else:
                found.append(open_destination(place, folder, silence))
            ending.callback(found[-1].close)
        yield found


def _lies_in_var(folder: Path) -> bool:
    """Return whether a folder below var is on var's own disk. Asks none but that: what is mounted there may hang.

    A link on the way, at var or at the folder, may lead to any disk; so may a mount at the folder or below it.
    """
    if folder.is_symlink() or folder.parent.is_symlink():
        return False
    try:
        mounted = [_unescaped(line.split()[4]) for line in MOUNTS.read_bytes().splitlines()]
    except (OSError, IndexError):
        return False
    own = os.fsencode(os.path.join(os.path.realpath(folder.parent), folder.name))  # var itself may be asked
    return not any(each == own or each.startswith(own + b"/") for each in mounted)


def _unescaped(path: bytes) -> bytes:
    """Return a path of the kernel's list of mounts, which writes blanks and backslashes as octal numbers."""
    return re.sub(rb"\\([0-7]{3})", lambda found: bytes([int(found[1], 8)]), path)


def probe_place(settings: Settings, paths: Paths, place: str | None) -> str:
    """Write, read back and remove a small file where backups go; returns what was seen. `place` None: below var.

    Raises: BackupError that says what is missing; also when the place does not answer within `PROBE_SECONDS`.
    """
    at = place or str(paths.var / BACKUPS_FOLDER)
    with opened(settings, paths, at, silence_seconds=PROBE_SECONDS) as (destination,):
        return destination.probe()


def list_backups(settings: Settings, paths: Paths, *, at: str | None = None) -> list[StoredBackup]:
    """Return the backups of every destination, oldest first, and what is none yet after them; a destination that does not
    answer is one entry that says so.
    """
    with opened(settings, paths, at) as places:
        return [stored for destination in places for stored in _listed(destination)]


def _listed(destination: Destination) -> list[StoredBackup]:
    where = destination.where
    found = []
    try:
        for name in destination.names():
            try:
                found.append(StoredBackup(where=where, name=name, manifest=destination.manifest(name)))
            except BackupError as error:
                found.append(StoredBackup(where=where, name=name, manifest=None, problem=str(error)))
        for left in destination.unfinished():
            found.append(StoredBackup(where=where, name=left.name, manifest=None, unfinished=left))
    except BackupError as error:
        found.append(StoredBackup(where=where, name="", manifest=None, problem=str(error)))
    return found


def verify_backups(
    settings: Settings, paths: Paths, *, at: str | None = None, name: str | None = None, on: date | None = None
) -> list[BackupVerdict]:
    """Restore stored backups into an empty place and compare: all, one by its name, or those of a date.

    Raises: BackupError when there is none such.
    """
    verdicts = []
    with opened(settings, paths, at) as places:
        for destination in places:
            for stored in _listed(destination):
                if stored.unfinished is not None:
                    continue
                if (name is not None and stored.name != name) or (on is not None and date_of(stored.name) != on):
                    continue
                problems = (stored.problem,) if stored.problem else _problems(destination, stored.name)
                verdicts.append(BackupVerdict(where=stored.where, name=stored.name, problems=problems))
    if not verdicts:
        raise BackupError(f"there is no backup {name or on or 'yet'}; take one: {velox('backup', settings=settings)}")
    return verdicts


def _problems(destination: Destination, name: str) -> tuple[str, ...]:
    with tempfile.TemporaryDirectory(prefix="velox-verify-") as scratch:
        try:
            return tuple(verify_stored(destination, name, Path(scratch)))
        except (BackupError, OSError) as error:
            return (str(error),)
