"""Backups of an account's day, as flows and the command line ask for them: take, bring what was made to the rest, restore.

- A backup of a date holds the account's own stores, the date's runs, Redis, the metrics of the day where they can be exported,
  configuration, calendar and charges. `velox eod` of any date can take it again: it then has the next number.
- `at` and `to` name a folder or a URL instead of the configured destinations.
- A restore refuses while an engine of the account works, and while another backup does.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Final

from velox_core.backup.destinations import Destination
from velox_core.backup.faults import BackupError
from velox_core.backup.make import empty_folder
from velox_core.backup.manifest import DATABASES, Manifest, PartKind
from velox_core.backup.naming import INCOMPLETE, date_of, number_of, taken
from velox_core.backup.restore import Action, Step, apply, fetch_checked, plan_elsewhere, plan_in_place
from velox_core.backup.retention import Retention
from velox_core.backup.sources import account_scope, find_sources
from velox_core.backup.store import Delivery, Request, alone, deliver_rest, known_origin, take
from velox_core.domain.errors import EXIT_DONE, EXIT_OPERATING_ERROR, VeloxError
from velox_core.engine_lock import ENGINE_LOCK, EngineLock, LockView
from velox_core.journal.verify import run_heads
from velox_core.operations.backup_places import opened
from velox_core.operations.hints import velox
from velox_core.operations.metrics_words import metrics_words, restore_words
from velox_core.operations.status import account_folders
from velox_core.settings import Paths, Settings

RESTORE_STAGING: Final = ".restore-staging"
ASIDE_FOLDER: Final = "moved-aside"


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupOutcome:
    """What a backup came to: its manifest, and what became of it in each destination."""

    manifest: Manifest
    deliveries: tuple[Delivery, ...]
    seconds: float

    @property
    def name(self) -> str:
        """Return the backup's name."""
        return self.manifest.name

    @property
    def head(self) -> str:
        """Return the hash of the day's events (hex), '' without any."""
        return self.manifest.head

    @property
    def good(self) -> bool:
        """Return whether nothing at all is missing and every destination has it."""
        return self.manifest.good and not self.manifest.without and not any(each.problem for each in self.deliveries)

    @property
    def lacking(self) -> tuple[str, ...]:
        """Return the places that did not get it, of a good one that has everything: the next run brings it there."""
        whole = self.manifest.good and not self.manifest.without
        return tuple(each.where for each in self.deliveries if each.problem) if whole else ()

    @property
    def exit_code(self) -> int:
        """Return 0 for a good one, 1 else."""
        return EXIT_DONE if self.good else EXIT_OPERATING_ERROR

    @property
    def sentences(self) -> list[str]:
        """Return what happened, for people."""
        manifest = self.manifest
        size = f"{manifest.packed_bytes / 1e6:.1f} MB in {len(manifest.parts)} files, {self.seconds:.1f} s"
        said = [f"{manifest.name}: {'verified' if manifest.good else 'INCOMPLETE'}, {size}"]
        said += [f"missing: {text}" for text in manifest.missing]
        said += [f"without (it is made anew from the journal): {text}" for text in manifest.without]
        said += metrics_words(manifest)
        for delivery in self.deliveries:
            removed = f"; old ones removed: {', '.join(delivery.removed)}" if delivery.removed else ""
            if delivery.others:
                removed += f"; kept, though due, since another host made them: {', '.join(delivery.others)}"
            if not delivery.is_there:
                said.append(f"NOT in {delivery.where}: {delivery.problem}")
                continue
            if delivery.tidied:
                removed += f"; what killed backups had left removed: {', '.join(delivery.tidied)}"
            said.append(f"in {delivery.where}{removed}{f'; but {delivery.problem}' if delivery.problem else ''}")
            said += [f"warning: {delivery.warning}"] if delivery.warning else []
        if manifest.head:
            said.append(f"head of the day {manifest.head}")
        return said

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        places = [delivery.to_json() for delivery in self.deliveries]
        return {"good": self.good, "destinations": places, "seconds": round(self.seconds, 3), **self.manifest.to_json()}


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreOutcome:
    """What a restore did, or would do: the steps, what was moved aside, and how the day's metrics go back to their server."""

    where: str
    name: str
    steps: tuple[Step, ...]
    moved: tuple[str, ...] = ()
    done: bool = False
    metrics: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        steps = [step.to_json() for step in self.steps]
        return {
            "place": self.where,
            "name": self.name,
            "done": self.done,
            "steps": steps,
            "moved_aside": list(self.moved),
            "metrics": list(self.metrics),
        }


def backup_day(settings: Settings, paths: Paths, trading_date: date, *, to: str | None = None) -> BackupOutcome:
    """Take a verified backup of a day. Raises BackupError when none could be made."""
    from velox_core.operations.backup_extras import extras

    began = time.monotonic()
    scope = account_scope(settings)
    sources, left_out = find_sources(settings, paths, trading_date)
    request = Request(
        broker_type=scope.broker_type,
        account=scope.account,
        trading_date=trading_date,
        config_hash=settings.config_hash,
        sources=sources,
        extras=extras(settings, paths, trading_date),
        left_out=left_out,
        folder=paths.var / scope.folder,
    )
    with opened(settings, paths, to) as places:
        manifest, deliveries = take(request, places, _rule(settings))
    return BackupOutcome(manifest=manifest, deliveries=tuple(deliveries), seconds=time.monotonic() - began)


def bring_rest(settings: Settings, paths: Paths, trading_date: date, *, to: str | None = None) -> BackupOutcome | None:
    """Bring the day's newest good backup to the places that lack it, as an earlier delivery failed there.

    A place has it when its manifest there is the very same one.

    Returns: None when there is none of ours that has everything and still says what the journals say, or when a place that
        lacks it has something else under its name: take another then, it has the next number.
    Raises: BackupError when it cannot be had from the place that has it.
    """
    began = time.monotonic()
    ours = ("", own_origin(settings, paths))
    with opened(settings, paths, to) as places:
        stored = [each for each in _stored_on(places, trading_date) if _may_be_brought(each.manifest, ours)]
        chosen = _newest_current(settings, paths, stored)
        if chosen is None:
            return None
        having = [each.place for each in stored if each.manifest == chosen]
        if any(_has_name_taken(place, chosen.name, ours) for place in places if place not in having):
            return None
        deliveries = deliver_rest(paths.var / account_scope(settings).folder, chosen, having, places, _rule(settings))
    return BackupOutcome(manifest=chosen, deliveries=tuple(deliveries), seconds=time.monotonic() - began)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stored:
    """A backup where it lies. Two that are called the same may well be different ones: hosts share places."""

    place: Destination
    manifest: Manifest


def _stored_on(places: Sequence[Destination], trading_date: date) -> list[_Stored]:
    """Return the date's backups that do not call themselves incomplete, place by place."""
    found = []
    for place in places:
        try:
            names = [name for name in _good(place.names()) if date_of(name) == trading_date]
        except BackupError:  # it says so when it is given the backup
            continue
        for name in names:
            with suppress(BackupError):  # one that cannot be read hides no other
                manifest = place.manifest(name)
                found += [_Stored(place=place, manifest=manifest)] if manifest.name == name else []
    return found


def _may_be_brought(manifest: Manifest, ours: tuple[str, ...]) -> bool:
    return manifest.good and not manifest.without and manifest.made_by in ours


def _newest_current(settings: Settings, paths: Paths, stored: Sequence[_Stored]) -> Manifest | None:
    """Return the newest that still says what the journals say."""
    manifests = sorted((each.manifest for each in stored), key=lambda found: (number_of(found.name), found.made_wall_ms))
    return next((manifest for manifest in reversed(manifests) if _is_current(settings, paths, manifest)), None)


def _has_name_taken(place: Destination, name: str, ours: tuple[str, ...]) -> bool:
    """Return whether the backup can never come to a place that lacks it, as something else has its name there.

    That is another host's backup, or half of one. What this host itself left under way is removed by a delivery.
    """
    try:
        left = taken(each.name for each in place.unfinished() if not each.made_by or each.made_by not in ours)
        return name in left or name in place.names()
    except BackupError:
        return False  # it says so when it is given the backup


def _is_current(settings: Settings, paths: Paths, manifest: Manifest) -> bool:
    """Return whether it holds the journals and books that there are, and the journals end where they ended then.

    A server's journal is not asked: nothing says that it is still the same.
    """
    sources, _ = find_sources(settings, paths, manifest.trading_date)
    there = {source.origin for source in sources if source.kind in DATABASES}
    if there != {part.origin for part in manifest.parts if part.kind in DATABASES}:  # a server's is called ''
        return False
    try:
        return all(
            tuple(run_heads(f"sqlite:///{paths.var / part.origin}")) == part.heads
            for part in manifest.parts
            if part.kind is PartKind.JOURNAL
        )
    except VeloxError:
        return False


def _rule(settings: Settings) -> Retention:
    backup = settings.backup
    return Retention(days=backup.keep_days, weeks=backup.keep_weeks, months=backup.keep_months)


def restore(
    settings: Settings,
    paths: Paths,
    trading_date: date,
    *,
    source: str | None = None,
    name: str | None = None,
    to: str | None = None,
    dry_run: bool = False,
    force: bool = False,
) -> RestoreOutcome:
    """Put a day's backup back.

    Args:
        settings, paths: the account.
        trading_date: the day.
        source: where the backup is; None looks in the configured destinations, in their order.
        name: which of the date's backups; None the newest that is good.
        to: an empty folder for everything, or the URL of a database without runs for the journal; None puts it in its place.
        dry_run: say what would be done, and do nothing.
        force: let what is newer than the backup be moved aside.
    Raises: BackupError; nothing was changed then, unless it says so.
    """
    with opened(settings, paths, source) as places:
        destination, manifest = _choose(settings, paths, places, trading_date, name)
        return _restored(settings, paths, destination, manifest, to=to, dry_run=dry_run, force=force)


def _restored(
    settings: Settings,
    paths: Paths,
    destination: Destination,
    manifest: Manifest,
    *,
    to: str | None,
    dry_run: bool,
    force: bool,
) -> RestoreOutcome:
    if to is not None and "://" in to:
        return _into_server(destination, manifest, to, dry_run=dry_run)
    if to is not None:
        return _elsewhere(settings, destination, manifest, Path(os.path.abspath(to)), dry_run=dry_run)
    steps = plan_in_place(manifest, paths.var)
    metrics = tuple(restore_words(settings, manifest, None))
    if dry_run:
        return RestoreOutcome(where=destination.where, name=manifest.name, steps=tuple(steps), metrics=metrics)
    scope = account_scope(settings)
    with alone(paths.var / scope.folder), _no_engine(settings, paths, steps):
        steps = plan_in_place(manifest, paths.var)
        newer = [step for step in steps if step.action is Action.NEWER]
        if newer and not force:
            said = "; ".join(f"{step.target}: {step.why}" for step in newer)
            raise BackupError(
                f"what is there is newer than {manifest.name}: {said}. Nothing was changed. --force moves it aside and puts "
                "the older one in its place: what happened since then is no longer known to VELOX"
            )
        acting = [step for step in steps if step.action in (Action.RESTORE, Action.REPLACE, Action.NEWER)]
        staging = empty_folder(paths.var / scope.folder / RESTORE_STAGING)
        try:
            ready = fetch_checked(destination, manifest, acting, staging)
            aside = paths.var / ASIDE_FOLDER / time.strftime("%Y%m%d-%H%M%S", time.gmtime())
            moved = apply(acting, ready, aside, paths.var)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return RestoreOutcome(
        where=destination.where, name=manifest.name, steps=tuple(steps), moved=tuple(moved), done=True, metrics=metrics
    )


def _choose(
    settings: Settings, paths: Paths, places: Sequence[Destination], trading_date: date, name: str | None
) -> tuple[Destination, Manifest]:
    """Return the backup that is meant, and where it is: the one that is named, else the newest good one of the date.

    Of a place that hosts share it is this host's own; another's only where it has none.
    """
    ours = ("", own_origin(settings, paths))
    unusable: list[str] = []
    for destination in places:
        try:
            names = [each for each in destination.names() if date_of(each) == trading_date]
            wanted = [each for each in names if each == name] if name is not None else _good(names)
            if wanted:
                found = _readable(destination, wanted, unusable)
                own = [manifest for manifest in found if manifest.made_by in ours]
                if found:
                    return destination, (own or found)[-1]
                continue
            unusable += [f"{each} in {destination.where} is incomplete: name it with --name to use it" for each in names]
        except BackupError as error:
            unusable.append(str(error))
    listing = velox("backups", "list", settings=settings)
    raise BackupError(f"there is no good backup of {name or trading_date}: {'; '.join(unusable) or f'see {listing}'}")


def _readable(destination: Destination, names: Sequence[str], unusable: list[str]) -> list[Manifest]:
    """Return the manifests that can be read: another host's that cannot stands in nobody's way. What cannot is added."""
    found = []
    for name in names:
        try:
            found.append(destination.manifest(name))
        except BackupError as error:
            unusable.append(str(error))
    return found


def own_origin(settings: Settings, paths: Paths) -> str:
    """Return what this `var`'s backups are told by, '' when it has made none. Raises BackupError."""
    return known_origin(paths.var / account_scope(settings).folder)


def _good(names: Sequence[str]) -> list[str]:
    return [name for name in names if not name.endswith(INCOMPLETE)]


def _elsewhere(
    settings: Settings, destination: Destination, manifest: Manifest, folder: Path, *, dry_run: bool
) -> RestoreOutcome:
    steps = plan_elsewhere(manifest, folder)
    if not dry_run:
        staging = empty_folder(folder.with_name(f".{folder.name}.restore"))
        try:
            ready = fetch_checked(destination, manifest, steps, staging)
            apply(steps, ready, folder.with_name(f".{folder.name}.aside"), folder)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    metrics = tuple(restore_words(settings, manifest, folder))
    return RestoreOutcome(where=destination.where, name=manifest.name, steps=tuple(steps), done=not dry_run, metrics=metrics)


def _into_server(destination: Destination, manifest: Manifest, url: str, *, dry_run: bool) -> RestoreOutcome:
    from velox_core.backup.journal_copy import load_server_journal

    journals = [part for part in manifest.parts if part.kind is PartKind.JOURNAL and not part.origin]
    if not journals:
        raise BackupError(f"{manifest.name} holds no journal of a database server: restore it into a folder (--to DIR)")
    shown = Path(url.rpartition("@")[2])
    steps = [Step(part=journals[0], target=shown, action=Action.RESTORE, why="into a database without runs")]
    if not dry_run:
        with tempfile.TemporaryDirectory(prefix="velox-restore-") as scratch:
            ready = fetch_checked(destination, manifest, steps, Path(scratch))
            load_server_journal(ready[journals[0].path], url)
    return RestoreOutcome(where=destination.where, name=manifest.name, steps=tuple(steps), done=not dry_run)


@contextmanager
def _no_engine(settings: Settings, paths: Paths, steps: Sequence[Step]) -> Iterator[None]:
    """Refuse while an engine of the account works, and keep the restored runs from one meanwhile."""
    for folder in account_folders(paths.var, broker_type=settings.broker.type.value, account=settings.account):
        holder = LockView(folder / ENGINE_LOCK).holder()
        if holder is not None:
            stop = velox("stop", "--reason", "restore", settings=settings)
            raise BackupError(f"an engine works in {folder} (process {holder.pid}): end it first: {stop}")
    with ExitStack() as locks:
        for folder in sorted({step.target.parent for step in steps if step.action is not Action.SAME}):
            try:
                locks.callback(EngineLock(folder / ENGINE_LOCK).release)
            except VeloxError as error:
                raise BackupError(f"{folder} cannot be locked: {error}") from error
        yield
