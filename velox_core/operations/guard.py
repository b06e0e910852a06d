"""`velox guard`: the process that watches an account all day, whatever runs begin and end under it.

- It starts before the engine, finds each run by its status, and ends on SIGTERM, SIGINT or SIGHUP; a closing under way gets
  a bounded time to end first.
- One guard per account, by a kernel lock. One that starts again goes on where the last one was.
- Paced runs only: at full speed a day lasts seconds, and nobody can be late.
- Its own heartbeat stands in `guard.json` of the account's folder and in the ledger, once a second.
- A run whose guard fails is told, and opened anew; the others are guarded on. Only here is `Exception` caught.
- Bounded: the newest `RUNS_MAX` runs, each with one day of market data.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Final

from velox_core.control import GUARD_FILE, GUARD_MARK, CombinedControl, FileControl, LedgerControl, NamedControl
from velox_core.domain.errors import ConfigError, VeloxError
from velox_core.domain.scope import Scope
from velox_core.domain.time import ist_date
from velox_core.engine_lock import CloserLockFile
from velox_core.guard_watch import AccountGuard, GuardedAccount
from velox_core.operations.guard_status import GUARD_LOCK, guard_folder
from velox_core.operations.recorded import RecordedRun
from velox_core.operations.status import STATUS_FILE, Status, account_folders, read_status
from velox_core.ports import Alerts, CloserHold, Severity
from velox_core.runs import RunState, read_state
from velox_core.settings import Paths, Settings
from velox_core.stop_signals import handled_by

STEP_SECONDS: Final = 0.5
BEAT_SECONDS: Final = 1.0
FIND_SECONDS: Final = 1.0
REOPEN_SECONDS: Final = 10.0  # after a run that could not be opened, or whose guard failed
RUNS_MAX: Final = 16
RUN_AGE_SECONDS_MAX: Final = 86_400.0  # a run that said nothing for a day is nobody's day any more
ENDING_SECONDS_MAX: Final = 20.0  # so long a closing may go on after the guard was asked to end
_OPEN_STATES: Final = frozenset({RunState.NEW, RunState.BEGUN, RunState.ENDED_NOT_FLAT})

_log = logging.getLogger("velox.emergency")

OpenRun = Callable[[Status, ExitStack], GuardedAccount]
Show = Callable[[str, list[dict[str, object]]], None]  # its own state and the runs' views; returns at once and never raises


def own_seconds() -> float:
    """Return monotonic seconds that count while the machine sleeps, where it has such a clock."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


def runs_to_guard(settings: Settings, paths: Paths) -> list[Status]:
    """Return the newest status of each run that is to be guarded: paced, begun, not ended flat, heard of within a day."""
    found: list[tuple[float, Status]] = []
    now = time.time()
    for folder in account_folders(paths.var, broker_type=settings.broker.type.value, account=settings.account):
        try:
            written = (folder / STATUS_FILE).stat().st_mtime
        except OSError:
            continue
        if now - written > RUN_AGE_SECONDS_MAX or read_state(folder) not in _OPEN_STATES:
            continue
        status = read_status(folder)
        speed = None if status is None else status.body.get("speed")
        if status is not None and isinstance(speed, int | float) and speed > 0:
            found.append((written, status))
    return [status for _, status in sorted(found, key=lambda item: item[0])[-RUNS_MAX:]]


class GuardedRuns:
    """The guards of an account's runs, each opened when its run is found and closed when it has ended.

    Args:
        find: returns the runs that are to be guarded now.
        open_run: opens one; the stack closes it. Raises VeloxError.
        alerts: told when a run cannot be guarded.
    """

    def __init__(self, find: Callable[[], list[Status]], open_run: OpenRun, alerts: Alerts) -> None:
        self._find = find
        self._open_run = open_run
        self._alerts = alerts
        self._guards: dict[Path, tuple[AccountGuard, ExitStack]] = {}
        self._not_before: dict[Path, float] = {}
        self._told: dict[Path, str] = {}
        self._failed: dict[Path, AccountGuard] = {}  # guards to be opened anew: their ages go on
        self._next_find = 0.0
        self._stepped = 0.0

    def step(self, now: float) -> None:
        """Find runs, and take each guard one step further. Never raises for what a run does."""
        if now - self._stepped > REOPEN_SECONDS:
            self._failed.clear()  # this process was away: what they heard is no sign of how the engines are now
        self._stepped = now
        if now >= self._next_find:
            self._next_find = now + FIND_SECONDS
            self._take_up(now)
        for folder, (guard, _) in list(self._guards.items()):
            try:
                guard.step(now)
            except Exception as error:  # the outermost loop: one run's failure keeps no other from being guarded
                _log.critical("[GUARD] %s: the guard of this run failed; it is opened anew", folder.name, exc_info=error)
                self._tell(folder, f"{type(error).__name__}: {error}")
                self._failed[folder] = guard
                self._drop(folder)
                self._not_before[folder] = now + REOPEN_SECONDS

    def views(self, now: float) -> list[dict[str, object]]:
        """Return what each guard does, and which runs cannot be guarded, as JSON values."""
        blind: list[dict[str, object]] = [
            {"run_id": folder.name, "state": "NOT GUARDED", "faults": [text]}
            for folder, text in self._told.items()
            if folder not in self._guards
        ]
        return [guard.view(now) for guard, _ in self._guards.values()] + blind

    @property
    def closing(self) -> bool:
        """Return whether a closing is under way."""
        return any(guard.closing for guard, _ in self._guards.values())

    def close(self) -> None:
        """Give every run up."""
        for folder in list(self._guards):
            self._drop(folder)

    def _take_up(self, now: float) -> None:
        found = {status.folder: status for status in self._find()}
        for folder in [folder for folder in self._guards if folder not in found and not self._guards[folder][0].closing]:
            _log.info("[GUARD] %s has ended; it is not watched any more", folder.name)
            self._drop(folder)
        for known in (self._not_before, self._told, self._failed):
            for folder in [folder for folder in known if folder not in found]:
                del known[folder]
        for folder, status in found.items():
            if folder not in self._guards and now >= self._not_before.get(folder, now):
                self._open(folder, status, now)

    def _open(self, folder: Path, status: Status, now: float) -> None:
        with ExitStack() as stack:
            try:
                account = self._open_run(status, stack)
            except VeloxError as error:
                self._tell(folder, str(error))
                self._not_before[folder] = now + REOPEN_SECONDS
                return
            self._guards[folder] = (AccountGuard(account, now, self._failed.pop(folder, None)), stack.pop_all())
        self._told.pop(folder, None)
        _log.info("[GUARD] %s is watched, at speed %g", folder.name, account.speed)

    def _drop(self, folder: Path) -> None:
        guard, stack = self._guards.pop(folder)
        guard.close()
        stack.close()

    def _tell(self, folder: Path, text: str) -> None:
        if folder not in self._told:
            _log.error("[GUARD] %s is not guarded: %s", folder.name, text)
            self._alerts.send(Severity.CRITICAL, "A run is not guarded", f"{folder.name}: {text}")
        self._told[folder] = text


def _shows_nothing(state: str, views: list[dict[str, object]]) -> None:
    """Show nothing."""


def watch_account(
    settings: Settings,
    paths: Paths,
    alerts: Alerts,
    counters: Callable[[], dict[str, object]] = lambda: {},
    show: Show = _shows_nothing,
) -> None:
    """Guard the account until a signal asks for the end.

    Args:
        settings, paths: whose account.
        alerts, counters: who is told, and how that fared.
        show: is given its state and the runs' views once a second; it must return at once and never raise.
    Raises: ConfigError when the guard is switched off; VeloxError when another guard has the account.
    """
    if not settings.guard.enabled:
        raise ConfigError(f"{settings.source}: system.guard.enabled is false: set it to true, or start no guard")
    folder = guard_folder(settings, paths)
    with ExitStack() as stack:
        lock = CloserLockFile(folder / GUARD_LOCK)
        stack.callback(lock.close)
        if lock.take() is CloserHold.ELSEWHERE:
            raise VeloxError(f"account {settings.account!r} is guarded by {lock.holder} already: see velox status")
        from velox_core.guard_world import guarded_run, ledger_server
        from velox_core.ledger.redis import RedisLedger
        from velox_core.operations.flatten import bring_in

        scope = Scope(broker_type=settings.broker.type.value, account=settings.account)
        ledger = RedisLedger(ledger_server(settings, paths), scope.key, ist_date(time.time_ns() // 1_000_000))
        stack.callback(ledger.close)
        channels = CombinedControl(LedgerControl(ledger, status_mark=GUARD_MARK), FileControl(folder, status_file=GUARD_FILE))
        beat = NamedControl(channels, {"account": settings.account, "step_seconds": STEP_SECONDS}, counters)
        runs = GuardedRuns(
            lambda: runs_to_guard(settings, paths),
            lambda status, opened: guarded_run(
                settings,
                paths,
                status.folder,
                status.body,
                alerts=alerts,
                bring_in=lambda run, on, file: bring_in(settings, RecordedRun(run=run, trading_date=on), file),
                stack=opened,
            ),
            alerts,
        )
        stack.callback(runs.close)
        _log.info("[GUARD] account %s is guarded by process %s", settings.account, os.getpid())
        with _asked_to_end() as asked:
            _loop(runs, beat, asked, show)
        _log.info("[GUARD] process %s ends; account %s is not guarded any more", os.getpid(), settings.account)


def _loop(runs: GuardedRuns, beat: NamedControl, asked: threading.Event, show: Show = _shows_nothing) -> None:
    next_beat, ends_by = 0.0, 0.0
    while True:
        now = own_seconds()
        runs.step(now)
        if now >= next_beat:
            next_beat = now + BEAT_SECONDS
            _publish(runs, beat, "ENDING" if asked.is_set() else "RUNNING", now, show)
        if asked.is_set():
            ends_by = ends_by or now + ENDING_SECONDS_MAX
            if not runs.closing or now >= ends_by:
                break
            time.sleep(STEP_SECONDS)
        else:
            asked.wait(STEP_SECONDS)
    if runs.closing:
        _log.critical("[GUARD] ends although a closing is under way: start it again, it goes on; or velox flatten")
    _publish(runs, beat, "ENDED", own_seconds(), show)


def _publish(runs: GuardedRuns, beat: NamedControl, state: str, now: float, show: Show) -> None:
    views = runs.views(now)
    show(state, views)
    watching = [view["run_id"] for view in views if view["state"] != "NOT GUARDED"]
    beat.publish({"state": state, "watching": watching, "runs": views})


@contextmanager
def _asked_to_end() -> Iterator[threading.Event]:
    """Let SIGINT, SIGTERM and SIGHUP ask for the end; a second one changes nothing."""
    asked = threading.Event()

    def ask(number: int, frame: FrameType | None) -> None:
        asked.set()

    with handled_by(ask, until_exit=True):
        yield asked
