"""One account's backups as a whole: take one, list, verify, and thin out, in every destination.

- A backup is made and verified once, in a staging folder below `var`, and then given to each destination; one that fails
  does not stop the others, and is told.
- One at a time on a host: a kernel lock, which ends with its process. What a killed one left is removed by the next.
- A place that hangs is given up (`apart`), and is not waited for twice; the next run brings it what was made (`deliver_rest`).
- Old backups are removed only after a good new one is in that same destination, and only those that this `var` made: two hosts
  that share a place take nothing from each other.
"""

from __future__ import annotations

import fcntl
import os
import platform
import re
import shutil
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, TypeVar
from uuid import uuid4

from velox_core.backup.destinations import Destination
from velox_core.backup.faults import BackupError
from velox_core.backup.influx2_files import missing_files
from velox_core.backup.make import Bundle, Extra, empty_folder, make_parts
from velox_core.backup.manifest import DATABASES, Manifest, Part
from velox_core.backup.naming import INCOMPLETE, MANIFEST_FILE, PARTIAL, date_of, next_name
from velox_core.backup.packing import SUFFIX, sync_tree, write_durably
from velox_core.backup.proof import verify_part
from velox_core.backup.retention import Retention, to_remove
from velox_core.backup.sources import Source
from velox_core.backup.staged import sha256_of
from velox_core.journal.verify import head_of_day

LOCK_FILE: Final = "backup.lock"
STAGING: Final = ".backup-staging"
ORIGIN_FILE: Final = "backup.origin"
LEFT_DAYS_MAX: Final = 7  # what nobody has touched for so long is of a host that does not come back to it
MS_PER_DAY: Final = 86_400_000
Answer = TypeVar("Answer")
ORIGIN: Final = re.compile(r"[A-Za-z0-9-]{1,40}-[0-9a-f]{8}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is to be saved.

    Attributes:
        broker_type, account, trading_date, config_hash: for the manifest.
        sources, extras: see `make.make_parts`.
        left_out: what is known to be missing, each with its reason.
        folder: the account's folder below `var`, for lock and staging.
    """

    broker_type: str
    account: str
    trading_date: date
    config_hash: str
    sources: Sequence[Source]
    extras: Sequence[Extra | Bundle]
    left_out: Sequence[str]
    folder: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What became of a backup in one destination.

    Attributes:
        where: the destination.
        problem: what went wrong, ''.
        is_there: whether the destination has it.
        removed: old ones of ours.
        others: due, but another host's, and kept.
        warning: what went wrong after the backup was there, and is tried again with the next one; ''.
        tidied: what killed backups had left, and was removed.
    """

    where: str
    problem: str = ""
    is_there: bool = True
    removed: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    warning: str = ""
    tidied: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        body: dict[str, Any] = {"place": self.where, "is_there": self.is_there, "problem": self.problem}
        body |= {"warning": self.warning, "removed": list(self.removed), "others": list(self.others)}
        return body | {"tidied": list(self.tidied)}


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Be the one backup or restore of an account on this host. Raises BackupError when another one works."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise BackupError(f"{folder / LOCK_FILE} cannot be made: {error.strerror}: make the folder writable") from error
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(file, 32, 0).decode("ascii", "replace").strip() or "unknown"
            raise BackupError(
                f"another backup or restore of this account works (process {holder}): wait for its end, then try again"
            ) from None
        os.ftruncate(file, 0)
        os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(file)


def origin_of(folder: Path) -> str:
    """Return what tells this `var`'s backups from those of another host with the same account; made once, and kept.

    Raises: BackupError.
    """
    path = folder / ORIGIN_FILE
    known = known_origin(folder)
    if known:
        return known
    try:
        host = re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())[:40] or "host"
        made = f"{host}-{uuid4().hex[:8]}"
        write_durably(path, f"{made}\n".encode())
        return made
    except OSError as error:
        raise BackupError(f"{path} cannot be written: {error}: make it writable, or remove it") from error


def known_origin(folder: Path) -> str:
    """Return the same when it was made already, else ''. Raises BackupError."""
    path = folder / ORIGIN_FILE
    try:
        found = path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise BackupError(f"{path} cannot be read: {error}: make it readable, or remove it") from error
    return found if ORIGIN.fullmatch(found) else ""


def take(request: Request, destinations: Sequence[Destination], rule: Retention) -> tuple[Manifest, list[Delivery]]:
    """Make, verify and deliver a backup. Raises BackupError when it cannot be made; deliveries fail one by one."""
    with alone(request.folder):
        staging = empty_folder(request.folder / STAGING)
        try:
            staged = empty_folder(staging / "backup")
            made_by = origin_of(request.folder)
            manifest = _make(request, staged, empty_folder(staging / "scratch"), destinations, made_by)
            return manifest, [_deliver(destination, staged, manifest, rule) for destination in destinations]
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def _make(request: Request, staged: Path, scratch: Path, destinations: Sequence[Destination], made_by: str) -> Manifest:
    made = make_parts(request.sources, request.extras, staged, scratch)
    tried = {part.path for part in made.parts} | {f"{source.origin}{SUFFIX}" for source in request.sources}
    gone = _gone(destinations, request.trading_date, made_by, tried)
    parts, missing, without = made.parts, [*request.left_out, *made.missing, *gone], made.without
    if not parts:
        raise BackupError(
            f"nothing could be saved: {'; '.join([*missing, *without]) or 'there is nothing yet: run a day first'}"
        )
    day = request.trading_date.isoformat()
    manifest = Manifest(
        name=next_name(request.trading_date, _taken_names(destinations)) + (INCOMPLETE if missing else ""),
        broker_type=request.broker_type,
        account=request.account,
        trading_date=request.trading_date,
        made_wall_ms=time.time_ns() // 1_000_000,
        versions=_versions(parts),
        config_hash=request.config_hash,
        head=head_of_day(head for part in parts for head in part.heads if head.trading_date == day),
        parts=parts,
        missing=tuple(missing),
        without=without,
        made_by=made_by,
    ).after_verification(time.time_ns() // 1_000_000)
    try:
        write_durably(staged / MANIFEST_FILE, manifest.encoded())
        sync_tree(staged)
    except OSError as error:
        raise BackupError(f"{staged} cannot be written: {error.strerror}: free its disk") from error
    return manifest


def _versions(parts: Sequence[Part]) -> dict[str, str]:
    found = {
        "velox": version("velox"),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "zstandard": version("zstandard"),
    }
    redis = [str(part.notes["redis"]) for part in parts if part.notes.get("redis")]
    return found | ({"redis": redis[0]} if redis else {})


def _asked(destinations: Sequence[Destination], question: Callable[[Destination], Answer], nothing: Answer) -> list[Answer]:
    """Return each place's answer, `nothing` of one that does not: it says so when the backup is delivered. All at once, so
    that several that hang cost the time of one.
    """

    def ask(destination: Destination) -> Answer:
        try:
            return question(destination)
        except BackupError:
            return nothing

    with ThreadPoolExecutor(max(1, len(destinations)), "backup-places") as beside:
        return list(beside.map(ask, destinations))


def _taken_names(destinations: Sequence[Destination]) -> set[str]:
    """Return the names that are taken in any destination that answers."""
    nothing: set[str] = set()
    return nothing.union(*_asked(destinations, lambda destination: destination.taken(), nothing))


def _gone(destinations: Sequence[Destination], on: date, made_by: str, tried: set[str]) -> list[str]:
    """Return which databases an earlier good backup of the date has and which are not there to be saved any more.

    Without them it must not displace the earlier one, however well it was verified.
    """

    def databases(destination: Destination) -> dict[str, str]:
        had: dict[str, str] = {}
        for name in destination.names():
            if date_of(name) != on or name.endswith(INCOMPLETE):
                continue
            with suppress(BackupError):
                manifest = destination.manifest(name)
                if manifest.good and manifest.made_by in ("", made_by):
                    had |= {part.path: name for part in manifest.parts if part.kind in DATABASES}
        return had

    nothing: dict[str, str] = {}
    had: dict[str, str] = {}
    for each in _asked(destinations, databases, nothing):
        had |= each
    return [
        f"{path.removesuffix(SUFFIX)} is not there any more, and backup {name} has it: put it back (velox restore --date {on})"
        for path, name in sorted(had.items())
        if path not in tried
    ]


def deliver_rest(
    folder: Path, manifest: Manifest, having: Sequence[Destination], places: Sequence[Destination], rule: Retention
) -> list[Delivery]:
    """Bring a good backup from a place that has it to those that lack it, every file compared with what was verified.

    Args:
        folder: the account's folder below `var`, for lock and staging.
        manifest, having: the backup, and where it is; at least one place.
        places, rule: where it has to be, and which ones of a place are kept.
    Returns: what became of it in each of `places`; what was due in one that has it already is removed now.
    Raises: BackupError when it can be had from no place where it is; deliveries fail one by one.
    """
    with alone(folder):
        staging = empty_folder(folder / STAGING)
        try:
            if len(having) < len(places):
                _fetch_from_one(having, manifest, staging)
            return [
                _thinned(place, manifest, rule, Delivery(where=place.where))
                if place in having
                else _deliver(place, staging, manifest, rule)
                for place in places
            ]
        except OSError as error:
            raise BackupError(f"{staging} cannot be written: {error.strerror}", "free its disk") from error
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def _fetch_from_one(having: Sequence[Destination], manifest: Manifest, staging: Path) -> None:
    """Fetch it from the first place that still has it whole. Raises BackupError with what is wrong at each."""
    problems = []
    for source in having:
        try:
            _fetch_whole(source, manifest, empty_folder(staging))
            return
        except BackupError as error:
            problems.append(error.problem)
    raise BackupError("; ".join(problems), "take another backup")


def _fetch_whole(source: Destination, manifest: Manifest, staging: Path) -> None:
    for part in manifest.parts:
        packed = staging / part.path
        packed.parent.mkdir(parents=True, exist_ok=True)
        source.fetch(manifest.name, part.path, packed)
        if (packed.stat().st_size, sha256_of(packed)) != (part.bytes, part.sha256):
            raise BackupError(
                f"{part.path} of {source.where}/{manifest.name} is not the one that was verified", "take another backup"
            )
    write_durably(staging / MANIFEST_FILE, manifest.encoded())


def _deliver(destination: Destination, staged: Path, manifest: Manifest, rule: Retention) -> Delivery:
    """Give it to one place. Once it is there it stays there, whatever becomes of what is done after that."""
    try:
        destination.put(staged, manifest.name, manifest.made_by)
        _compare_manifest(destination, manifest)
    except BackupError as error:
        return Delivery(where=destination.where, problem=str(error), is_there=False)
    there = Delivery(where=destination.where)
    try:
        before = manifest.made_wall_ms - LEFT_DAYS_MAX * MS_PER_DAY
        left = destination.tidy(manifest.made_by, before)
        own = f"{PARTIAL}{manifest.name}.{manifest.made_by}~"  # of this very delivery, where a folder cannot be renamed
        there = replace(there, tidied=tuple(name for name in left if not name.startswith(own)))
    except BackupError as error:
        there = replace(there, warning=f"what killed backups left there was not removed: {error}")
    return _thinned(destination, manifest, rule, there) if manifest.good else there


def _compare_manifest(destination: Destination, manifest: Manifest) -> None:
    """Raise BackupError, and take the backup away, unless its manifest there is the one that was made here."""
    try:
        found = destination.manifest_content(manifest.name)
    except BackupError:  # it is there, and was read back once; what is done next there says what is wrong
        return
    if found == manifest.encoded():
        return
    with suppress(BackupError):  # then it stays there as one that cannot be read
        destination.remove(manifest.name)
    raise BackupError(
        f"the manifest that {destination.where} got is not the one that was made",
        "see the health of var's disk and of that place, then take the backup again",
    )


def _thinned(destination: Destination, manifest: Manifest, rule: Retention, there: Delivery) -> Delivery:
    """Remove what is no longer wanted in a place that has a good new one."""
    removed: list[str] = []
    try:
        makers = {name: _maker(destination, name) for name in destination.names()}
        ours = [name for name, maker in makers.items() if maker in ("", manifest.made_by)]
        for name in to_remove(ours, rule, keep=manifest.name):  # by our own alone: another host's may be newer
            destination.remove(name)
            removed.append(name)
    except BackupError as error:
        return replace(there, problem=f"old ones were not removed: {error}", removed=tuple(removed))
    due = [name for name in to_remove(makers, rule, keep=manifest.name) if name not in ours]
    unread = [name for name in due if makers[name] is None]
    problem = f"the manifests of {', '.join(unread)} cannot be read, so they were kept: look, and remove them" if unread else ""
    others = tuple(name for name in due if makers[name] is not None)
    return replace(there, problem=problem, removed=tuple(removed), others=others)


def _maker(destination: Destination, name: str) -> str | None:
    """Return who made a backup, '' when that was an older VELOX, None when its manifest cannot be read."""
    try:
        return destination.manifest(name).made_by
    except BackupError:
        return None


def verify_stored(destination: Destination, name: str, scratch: Path) -> list[str]:
    """Fetch a stored backup and restore each part into an empty place. Returns what is wrong, part by part."""
    manifest = destination.manifest(name)
    if not manifest.verified:
        return ["it was never verified"]
    problems = [] if manifest.name == name else [f"its manifest is that of {manifest.name}"]
    packed = scratch / "packed"
    for part in manifest.parts:
        try:
            destination.fetch(name, part.path, packed)
            problem = verify_part(part, packed, scratch)
        except BackupError as error:
            problem = str(error)
        finally:
            packed.unlink(missing_ok=True)
        if problem:
            problems.append(f"{part.path}: {problem}")
    problems += missing_files(manifest.parts)
    day = manifest.trading_date.isoformat()
    if manifest.head != head_of_day(head for head in manifest.heads if head.trading_date == day):
        problems.append("the day's head is not that of its journals")
    return problems
