"""`velox up` and `velox down`: the services around the engine, one supervisor for each account.

- `SERVICES` is the table: a service joins by one line there.
- Each lives in a session of its own and outlives the supervisor; a kernel lock (`up.lock`) keeps the supervisor single.
- `up.json` beside it names what was started; who lives now is asked of the service itself, never of that file.
- An engine is never started or ended here. The guard is not ended while an engine of the account runs or something is open.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import psutil

from velox_core.control import GUARD_FILE
from velox_core.domain.errors import VeloxError
from velox_core.engine_lock import ENGINE_LOCK, CloserLockFile, LockView, end_holder
from velox_core.operations.closing import with_closing
from velox_core.operations.guard import own_seconds, runs_to_guard
from velox_core.operations.guard_status import GUARD_LOCK, guard_folder
from velox_core.operations.json_file import read_json, write_json
from velox_core.operations.prefect_home import export_line, prefect_address, server_holder
from velox_core.operations.prefect_services import PrefectServe, PrefectServer
from velox_core.operations.service_process import KILL_SECONDS, ServiceProcess, holder_of
from velox_core.operations.services import Kept, Service, ServiceState, Supervisor, end_services
from velox_core.operations.status import account_folders, read_status
from velox_core.operations.stop import running_engines
from velox_core.operations.watch import START_LOCKS
from velox_core.ports import Alerts, CloserHold, EndOfHolder, LockHolder
from velox_core.redis_server import EmbeddedRedis
from velox_core.settings import Paths, Settings

UP_LOCK: Final = "up.lock"
UP_FILE: Final = "up.json"
STEP_SECONDS: Final = 0.5
SUPERVISOR_END_SECONDS: Final = 35.0  # it may be starting Redis, which has 15 s, and asking and killing a hung server: 15 s
GUARD_END_SECONDS: Final = 30.0  # a closing under way has 20 s of it

Tell = Callable[[str], None]


class RedisService:
    """The embedded Redis of a var folder, which every account below it shares."""

    name = "redis"
    is_shared = True
    unready_seconds_max: float | None = None  # one that does not answer has no life here, and `start` judges it

    def __init__(self, settings: Settings, paths: Paths) -> None:
        self._server = EmbeddedRedis(paths.var / "redis")
        self._var = paths.var
        self._own = guard_folder(settings, paths) / UP_LOCK
        self.where = self._server.url

    @property
    def output(self) -> str:
        """Return its log."""
        return str(self._server.log_path)

    def life(self) -> LockHolder | None:
        """Return the process that answers on the socket."""
        pid = self._server.process()
        return holder_of(pid) if pid else None

    def is_ready(self) -> bool:
        """Return whether it answers, which `life` has asked."""
        return True

    def answers_at_last(self) -> bool:
        """Return the same."""
        return True

    def start(self) -> None:
        """Start it. Raises LedgerUnavailable."""
        self._server.start()

    def exit_code(self) -> int | None:
        """Return None: it has no configuration to refuse."""
        return None

    def needed_by(self) -> list[str]:
        """Return the engines, guards and other supervisors of any account below var. Raises VeloxError."""
        found = []
        for name, what in ((ENGINE_LOCK, "the engine"), (GUARD_LOCK, "the guard"), (UP_LOCK, "velox up")):
            for path in sorted({*self._var.glob(f"*/*/{name}"), *self._var.glob(f"*/*/*/{name}")} - {self._own}):
                holder = LockView(path).holder()
                if holder is not None:
                    found.append(f"{what} of {path.parent.name} (process {holder.pid}) uses it")
        return found

    def end(self, holder: LockHolder) -> str:
        """End it. Raises VeloxError when it stays."""
        self._server.stop()
        return f"ended, process {holder.pid}"

    def kill(self, holder: LockHolder) -> None:
        """End it. Raises VeloxError when it stays."""
        self._server.stop()


class GuardService:
    """The account's guard, as a process of its own."""

    name = "guard"
    is_shared = False
    unready_seconds_max: float | None = None  # nobody ends a guard that has its lock: it may be closing

    def __init__(
        self, settings: Settings, paths: Paths, environ: Mapping[str, str], flattened: frozenset[str] = frozenset()
    ) -> None:
        self._flattened = flattened
        self._settings = settings
        self._paths = paths
        self._environ = environ
        lock = guard_folder(settings, paths) / GUARD_LOCK
        self._process = ServiceProcess("guard", lock, paths, end_seconds=GUARD_END_SECONDS)
        self.where = f"account {settings.account}"

    @property
    def output(self) -> str:
        """Return the file of the guard that was started here, '' for one that was not."""
        return self._process.output

    def life(self) -> LockHolder | None:
        """Return the guard that was started here, else who has the guard's lock. Raises VeloxError."""
        return self._process.life()

    def is_ready(self) -> bool:
        """Return whether a guard has the account's lock. Raises VeloxError."""
        return self._process.holder() is not None

    def answers_at_last(self) -> bool:
        """Return the same: nobody judges its silence."""
        return self.is_ready()

    def start(self) -> None:
        """Start it in a session of its own. Raises VeloxError."""
        arguments = ["-m", "velox_core.cli", "guard", "--config", str(self._settings.source.absolute())]
        self._process.start(arguments, self._environ)

    def exit_code(self) -> int | None:
        """Return how the guard that was started here ended."""
        return self._process.exit_code()

    def needed_by(self) -> list[str]:
        """Return what it protects. Raises VeloxError when a lock cannot be read."""
        return work_at_hand(self._settings, self._paths, self._flattened)

    def end(self, holder: LockHolder) -> str:
        """Ask it to end, and kill it after a bound. Raises VeloxError when it is not ended."""
        return self._process.end(holder)

    def kill(self, holder: LockHolder) -> None:
        """Kill it. Raises VeloxError when it stays."""
        self._process.kill(holder)


def services_of(
    settings: Settings, paths: Paths, environ: Mapping[str, str], flattened: frozenset[str] = frozenset()
) -> tuple[list[Service], list[str]]:
    """Return the table of services in the order of their start, and what is not in it, in sentences.

    `flattened`: runs that were just proven flat and are halted, engine alive or not; they need no guard.
    """
    table: list[Service] = []
    notes = []
    if settings.stores.redis.url:
        notes.append("redis: your own server (stores.redis.url), not supervised")
    else:
        table.append(RedisService(settings, paths))
    if settings.guard.enabled:
        table.append(GuardService(settings, paths, environ, flattened))
    else:
        notes.append("guard: switched off (system.guard.enabled)")
    if not settings.prefect.enabled:
        notes.append("prefect: switched off (system.prefect.enabled): no schedules, no UI")
        return table, notes
    if settings.prefect.api_url:
        notes.append(f"prefect-server: your own at {settings.prefect.api_url} (system.prefect.api_url), not supervised")
    else:
        own = (guard_folder(settings, paths) / UP_LOCK,)
        table.append(PrefectServer(settings, paths, environ, own))
    table.append(PrefectServe(settings, paths, environ, lambda: work_at_hand(settings, paths, flattened)))
    return table, notes


def work_at_hand(settings: Settings, paths: Paths, flattened: frozenset[str] = frozenset()) -> list[str]:
    """Return what is open and which engines run, but for flattened runs. Raises VeloxError when a lock cannot be read."""
    return [*open_runs(settings, paths, flattened), *engines_at_work(settings, paths, flattened)]


def engines_at_work(settings: Settings, paths: Paths, flattened: frozenset[str] = frozenset()) -> list[str]:
    """Return the account's engines that run, but those of flattened runs. Raises VeloxError when a lock cannot be read."""
    running = {status.folder: status.number("pid") for status in running_engines(settings, paths)}
    for folder in _run_folders(settings, paths):
        holder = LockView(folder / ENGINE_LOCK).holder()
        if holder is not None:
            running[folder] = holder.pid
    at_work = [
        f"the engine of run {folder.name} runs (process {pid})"
        for folder, pid in running.items()
        if folder.name not in flattened
    ]
    return [*at_work, *_engines_starting(settings, paths, frozenset(running.values()))]


def _engines_starting(settings: Settings, paths: Paths, known: frozenset[int]) -> list[str]:
    """Return the engines that a flow has started and that have no run yet. One that writes its report trades no more."""
    statuses = [status for folder in _run_folders(settings, paths) if (status := read_status(folder)) is not None]
    ended = {(status.number("pid"), status.text("started")) for status in statuses if status.ended}
    found = []
    for path in sorted(guard_folder(settings, paths).glob(START_LOCKS)):
        holder = LockView(path).holder()
        if holder is not None and holder.pid not in known and (holder.pid, holder.started) not in ended:
            found.append(f"an engine of {path.stem} is being started (process {holder.pid or 'unknown'})")
    return found


def open_runs(settings: Settings, paths: Paths, flattened: frozenset[str] = frozenset()) -> list[str]:
    """Return the account's runs with something open, by the newest word of engine, closing or guard, engine alive or not."""
    found: dict[str, str] = {}
    told = [*running_engines(settings, paths), *runs_to_guard(settings, paths)]
    for status in map(with_closing, told):
        held = [f"{line.get('quantity', '?')} {line.get('symbol', '?')}" for line in status.positions]
        orders = status.number("live_orders")
        held += [f"{orders} live order{'s' * (orders != 1)}"] if orders else []
        if not held and status.closing and status.closing.get("flat") is not True:
            held = ["something, its last closing says"]
        if held:
            found[status.folder.name] = ", ".join(held)
    folder = guard_folder(settings, paths)
    if LockView(folder / GUARD_LOCK).holder() is not None:
        views = read_json(folder / GUARD_FILE).get("runs")
        for view in views if isinstance(views, list) else []:
            if isinstance(view, dict) and view.get("exposed") is True:
                found.setdefault(str(view.get("run_id")), "something, the guard says")
    return [f"run {run} has {held} open" for run, held in found.items() if run not in flattened]


def runs_with_something_open(settings: Settings, paths: Paths) -> list[str]:
    """Return the names of those runs, as `velox flatten --run` takes them."""
    return [text.removeprefix("run ").partition(" ")[0] for text in open_runs(settings, paths)]


def supervise(
    settings: Settings, paths: Paths, alerts: Alerts, services: Sequence[Service], *, tell: Tell, settled: Callable[[], None]
) -> bool:
    """Start what does not run and keep it alive until a signal asks for the end.

    SIGINT ends what was started here, except what somebody needs; SIGTERM and SIGHUP end the supervisor alone.

    Args:
        settings, paths, alerts: whose account, and who is told.
        services: the table, in the order of their start.
        tell: is given each sentence; never raises.
        settled: called when nothing starts any more, and again when what had to wait runs too, or will not without a person.
    Returns: False when the account has a supervisor already: nothing was changed.
    Raises: VeloxError when the lock cannot be made.
    """
    folder = guard_folder(settings, paths)
    with ExitStack() as stack:
        lock = CloserLockFile(folder / UP_LOCK)
        stack.callback(lock.close)
        if lock.take() is CloserHold.ELSEWHERE:
            return False
        keeper = Supervisor(services, alerts, _started_before(folder))
        asked: list[int] = []
        wake = threading.Event()

        def ask(number: int, frame: object) -> None:
            asked.append(number)
            wake.set()

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            stack.callback(signal.signal, number, signal.signal(number, ask))
        _keep_alive(keeper, folder, wake, tell, settled)
        if signal.SIGINT in asked:
            sentences, all_ended = end_services(keeper.kept, ends_shared=False)
            for sentence in [*sentences, *([] if all_ended else ["nobody restarts what is left: velox up takes it up again"])]:
                tell(sentence)
        else:
            tell("the supervisor ends; what it started goes on. velox up takes it up again, velox down ends it")
    return True


def _keep_alive(keeper: Supervisor, folder: Path, wake: threading.Event, tell: Tell, settled: Callable[[], None]) -> None:
    written: list[dict[str, Any]] = []
    unwritten = ""
    told = 0  # 1: what waits for its next start was there too, 2: nothing does
    while True:
        for sentence in keeper.step(own_seconds()):
            tell(sentence)
        body = [kept.to_json() for kept in keeper.kept]
        if body != written:
            try:
                write_json(folder / UP_FILE, {"services": body})
                written, unwritten = body, ""
            except VeloxError as error:  # services live on without it; it is tried again at each step, and told once
                if not unwritten:
                    tell(str(error))
                unwritten = str(error)
        reached = 2 if keeper.is_settled else 1 if keeper.is_waiting else 0
        if reached > told:
            told = reached
            settled()
        if wake.wait(STEP_SECONDS):
            return


def supervisor_of(settings: Settings, paths: Paths) -> LockHolder | None:
    """Return the account's supervisor, None when there is none. Raises VeloxError when that cannot be found out."""
    return LockView(guard_folder(settings, paths) / UP_LOCK).holder()


def services_view(settings: Settings, paths: Paths, environ: Mapping[str, str]) -> dict[str, Any]:
    """Return how the supervisor and each service are now, as JSON values. Raises VeloxError when a lock cannot be read."""
    supervisor = supervisor_of(settings, paths)
    known = _known(guard_folder(settings, paths))
    table, notes = services_of(settings, paths, environ)
    views = []
    for service in table:
        life, body = service.life(), known.get(service.name, {})
        state = str(body.get("state", "")) if supervisor else ""
        if life is not None:
            state = (ServiceState.RUNNING if service.is_ready() else ServiceState.STARTING).value
        elif state not in (ServiceState.WAITING, ServiceState.REFUSED):
            state = ServiceState.ABSENT.value
        is_known = life is not None and (life.pid, life.started) == (body.get("pid"), body.get("started"))
        views.append(
            {
                "name": service.name,
                "state": state,
                "running": life is not None,
                "pid": life.pid if life else 0,
                "since_wall_ms": _began_ms(life),
                "restarts": body.get("restarts", 0) if supervisor else 0,
                "started_by_up": is_known and body.get("ours") is True,
                "reason": body.get("reason", "") if supervisor and life is None else "",
                "where": service.where,
                "output": service.output or str(body.get("output", "") if is_known or life is None else ""),
            }
        )
    shown = {"running": supervisor is not None, "pid": supervisor.pid if supervisor else 0}
    return {
        "account": settings.account,
        "supervisor": {**shown, "since_wall_ms": _began_ms(supervisor)},
        "services": views,
        "places": _places(settings, paths),
        "notes": notes,
    }


def _places(settings: Settings, paths: Paths) -> dict[str, str]:
    """Return where a person looks: Prefect's UI and the line for `prefect` by hand ('' without our server), logs, state."""
    is_there = settings.prefect.enabled and (settings.prefect.api_url or server_holder(paths.var) is not None)
    address = prefect_address(settings, paths.var) if is_there else ""
    return {
        "ui": address.removesuffix("/api"),
        "logs": str(paths.logs / settings.environment),
        "var": str(paths.var),
        "prefect": export_line(paths.var, address) if address else "",
    }


def bring_down(
    settings: Settings, paths: Paths, environ: Mapping[str, str], *, tell: Tell, flattened: frozenset[str] = frozenset()
) -> bool:
    """End the supervisor, then what `velox up` started and nobody needs, the last one first.

    The caller has asked `engines_at_work` and `open_runs`; they are asked again here, after the supervisor's end.

    Returns: whether nothing of it runs any more. Raises: VeloxError when the supervisor cannot be ended.
    """
    folder = guard_folder(settings, paths)
    supervisor = supervisor_of(settings, paths)
    if supervisor is None:
        tell("supervisor: does not run")
    else:
        ended = end_holder(supervisor, SUPERVISOR_END_SECONDS, by=signal.SIGTERM)
        if ended is EndOfHolder.SURVIVED:
            ended = end_holder(supervisor, KILL_SECONDS)
        if ended not in (EndOfHolder.KILLED, EndOfHolder.GONE):
            raise VeloxError(
                f"the supervisor (process {supervisor.pid}) could not be ended; nothing else was: look at it with ps"
            )
        tell(f"supervisor: ended, process {supervisor.pid}")
    with ExitStack() as stack:
        lock = CloserLockFile(folder / UP_LOCK)  # nobody starts again what is being ended
        stack.callback(lock.close)
        if lock.take() is CloserHold.ELSEWHERE:
            raise VeloxError(f"{lock.holder} started velox up, or works at velox down, meanwhile; nothing else was ended")
        table, _ = services_of(settings, paths, environ, flattened)
        before = _started_before(folder)
        kept = [Kept(service, before.get(service.name)) for service in table]
        sentences, all_ended = end_services(kept, ends_shared=True)
        for sentence in sentences:
            tell(sentence)
    return all_ended


def _started_before(folder: Path) -> dict[str, LockHolder]:
    """Return the processes that `velox up` started, by service; whether they live is to be asked."""
    return {
        name: LockHolder(host=str(body.get("host")), pid=body["pid"], started=str(body.get("started")))
        for name, body in _known(folder).items()
        if body.get("ours") is True and isinstance(body.get("pid"), int)
    }


def _known(folder: Path) -> dict[str, dict[str, Any]]:
    rows = read_json(folder / UP_FILE).get("services")
    return {str(row.get("name")): row for row in rows if isinstance(row, dict)} if isinstance(rows, list) else {}


def _run_folders(settings: Settings, paths: Paths) -> list[Path]:
    return account_folders(paths.var, broker_type=settings.broker.type.value, account=settings.account)


def _began_ms(holder: LockHolder | None) -> int:
    """Return when a process began by the machine's clock, epoch ms; 0 when it is not known."""
    if holder is None or not holder.pid:
        return 0
    try:
        return int(psutil.Process(holder.pid).create_time() * 1_000)
    except psutil.Error:
        return 0
