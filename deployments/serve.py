"""The deployments of one account, served: `python -m deployments.serve --config FILE`. `velox up` keeps it alive.

- Registers the deployments, their schedules and the automations by name, then starts what is due, each run a process.
- Needs no worker and no work pool; both are made for those who run workers beside it.
- An emergency has places of its own: however many missed, waiting or hung runs there are, it starts at once.
- Serves at the server of its own var folder, or at the one that the configuration names; never at whatever listens there:
  the deployments of another checkout have the same names, and its forms would then flatten this account.
- One for each account: a kernel lock. `serve.json` beside it says what was registered, and whether it is ready.
- SIGTERM cancels its runs and ends it. The engine is no part of it and trades on.
- After an outage of the server it ends with `EXIT_AGAIN` as soon as no run is in flight (`deployments.outage`).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from deployments.definitions import DEPLOYMENTS, Deployment, deployment_name
from deployments.outage import ServerWatch, Step
from velox_core.domain.errors import EXIT_DONE, VeloxError
from velox_core.engine_lock import CloserLockFile, own_holder
from velox_core.operations.guard_status import guard_folder
from velox_core.operations.json_file import write_json
from velox_core.operations.prefect_home import (
    API_VARIABLE,
    HOME_VARIABLE,
    SERVE_FILE,
    SERVE_LOCK,
    api_url,
    is_healthy,
    living_server_port,
    prefect_address,
    prefect_home,
    server_holder,
    service_environment,
)
from velox_core.operations.services import EXIT_AGAIN
from velox_core.ports import CloserHold, Severity
from velox_core.settings import Paths, Settings, load_settings, paths

if TYPE_CHECKING:
    from uuid import UUID

    from prefect.runner import Runner

    from velox_core.ports import Alerts

SERVER_SECONDS_MAX: Final = 240.0  # an empty database takes its time on a slow machine
WATCH_SECONDS: Final = 1.0
HEALTH_SECONDS: Final = 2.0
RUNS_MAX: Final = 20  # at once, of each lane; one intraday run takes a place all day
LANES: Final = ("ordinary", "emergency")  # each has a runner with places of its own
DEAF_TITLE: Final = "Cancelling in Prefect does not reach the run in flight"
DEAF_TEXT: Final = (
    "The Prefect server was away while a run was in flight; from then on a cancel in the UI is not heard. The engine trades "
    "on; velox stop and velox flatten work as always. The deployments are served anew when the run has ended."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until a signal ends it, and return the exit code: 1 also when the account's deployments are served already."""
    parser = argparse.ArgumentParser(prog="python -m deployments.serve", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--config", type=Path, help="configuration file")
    chosen = parser.parse_args(arguments)
    try:
        settings = load_settings(chosen.config, os.environ)
        places = paths(os.environ, settings.root)
        address = prefect_address(settings, places.var)
        _with_environment(places, address)
        lock = CloserLockFile(guard_folder(settings, places) / SERVE_LOCK)
        if lock.take() is CloserHold.ELSEWHERE:
            raise VeloxError(f"{lock.holder} serves the deployments of account {settings.account} already")
        await_server(settings, places, address)
        return _serve(settings, places, address)
    except VeloxError as error:
        sys.stderr.write(f"velox: {error}\n")
        return error.exit_code


def _with_environment(places: Paths, address: str) -> None:
    """Go on when Prefect's home and server are set, else start this process again with them: its import reads them."""
    if os.environ.get(HOME_VARIABLE) == str(prefect_home(places.var)) and os.environ.get(API_VARIABLE) == address:
        return
    environ = service_environment(places.var, os.environ, address)
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environ)


def await_server(settings: Settings, places: Paths, address: str, *, seconds: float = SERVER_SECONDS_MAX) -> None:
    """Wait until the account's server answers: the configured one, else the one that holds the lock of the var folder.

    Raises: VeloxError when it does not within the bound, or when the var folder's server listens elsewhere.
    """
    until = time.monotonic() + seconds
    while True:
        found = address if settings.prefect.api_url else _own_address(places.var)
        if found == address and is_healthy(address, seconds=HEALTH_SECONDS):
            return
        if found not in ("", address):
            raise VeloxError(f"the Prefect server of {places.var} listens at {found}, not at {address}: start again")
        if time.monotonic() >= until:
            raise VeloxError(
                f"no Prefect server of this account answers at {address} within {seconds:g} s"
                f"{'' if settings.prefect.api_url else _instead(places.var, address)}: velox up --status"
            )
        time.sleep(WATCH_SECONDS / 2)


def _own_address(var: Path) -> str:
    """Return where the server that holds the var folder's lock listens, slow or not; '' when none lives or has said."""
    port = living_server_port(var)
    return api_url(port) if port else ""


def _instead(var: Path, address: str) -> str:
    """Return what is there instead of an own server that answers. Only a lock that nobody holds says that it is another's."""
    holder = server_holder(var)
    if holder is not None:
        return f": process {holder.pid} is the server and does not answer"
    return ": what answers there belongs to another var folder" if is_healthy(address, seconds=HEALTH_SECONDS) else ""


def _serve(settings: Settings, places: Paths, address: str) -> int:
    from velox_core.alert_setup import open_alerts

    state = ServeState(guard_folder(settings, places) / SERVE_FILE, address)
    with open_alerts(settings, label="serve") as alerts:
        return asyncio.run(_run(settings, state, alerts))


class ServeState:
    """What `serve.json` says, written anew at each change."""

    def __init__(self, path: Path, address: str) -> None:
        own = own_holder()
        self._path = path
        self.body: dict[str, Any] = {
            "pid": own.pid,
            "started": own.started,
            "api_url": address,
            "ready": False,
            "deployments": [],
            "told": [],
            "notice": "",
        }
        write_json(path, self.body)

    def say(self, **changes: Any) -> None:
        """Change some of it."""
        self.body |= changes
        write_json(self._path, self.body)


async def _run(settings: Settings, state: ServeState, alerts: Alerts) -> int:
    """Register, then start runs until a signal or an outage ends it."""
    from prefect.runner import Runner

    by_lane = {lane: Runner(name=f"velox {settings.account} {lane}", pause_on_shutdown=False, limit=RUNS_MAX) for lane in LANES}
    runners = tuple(by_lane.values())
    told = await register(by_lane, settings)
    names = [f"{deployment.flow}/{deployment_name(deployment.flow, settings)}" for deployment in DEPLOYMENTS]
    state.say(ready=True, deployments=names, told=told)
    for line in [*told, f"serving {', '.join(names)}"]:
        _say(line)
    starting = [asyncio.create_task(runner.start()) for runner in runners]
    watching = asyncio.create_task(_watch(runners, ServerWatch(), state, alerts))  # last: it replaces the runners' handlers
    try:
        await asyncio.gather(*starting)
    finally:
        state.say(ready=False)
        watching.cancel()
        await _stop(runners)
    return EXIT_AGAIN if state.body["notice"] == "again" else EXIT_DONE


def lane_of(deployment: Deployment) -> str:
    """Return the lane of a deployment's runs."""
    return "emergency" if "emergency" in deployment.tags else "ordinary"


async def register(by_lane: Mapping[str, Runner], settings: Settings) -> list[str]:
    """Register deployments, schedules, work pool, queues and automations, and return what was made or removed, in sentences."""
    from prefect import get_client

    from deployments.automations import apply_automations
    from deployments.registration import ensure_work_pool, remove_old_schedules, runner_deployment

    known: dict[UUID, Deployment] = {}
    for deployment in DEPLOYMENTS:
        runner = by_lane[lane_of(deployment)]
        known[await runner.aadd_deployment(await runner_deployment(deployment, settings))] = deployment
    async with get_client() as client:
        made = await ensure_work_pool(client)
        removed = await remove_old_schedules(client, known)
        try:
            automations = await apply_automations(client, settings)
        except VeloxError as error:  # a second layer: what is served is served without it
            automations = [str(error)]
    return [*(f"made {what}" for what in made), *(f"removed a schedule, {what}" for what in removed), *automations]


async def _watch(runners: Sequence[Runner], watch: ServerWatch, state: ServeState, alerts: Alerts) -> None:
    """Look at the server once a second; tell, or end the runner, as `ServerWatch` says."""
    _end_by_signal(runners)
    while True:
        await asyncio.sleep(WATCH_SECONDS)
        answers = await asyncio.to_thread(is_healthy, state.body["api_url"], seconds=HEALTH_SECONDS)
        step = watch.look(time.monotonic(), answers=answers, runs_in_flight=runs_in_flight(runners))
        if step is Step.TELL:
            _say(DEAF_TEXT)
            alerts.send(Severity.WARNING, DEAF_TITLE, DEAF_TEXT)
            state.say(notice=DEAF_TEXT)
        elif step is Step.END:  # nothing may wait between the look at the runs and the runner's end
            _say(f"the server was away for {watch.longest_seconds:.0f} s: ends, to be started again")
            state.body["notice"] = "again"
            await _stop(runners)
            return


async def _stop(runners: Sequence[Runner]) -> None:
    """End the runners that work, side by side."""
    await asyncio.gather(*(runner.astop() for runner in runners if runner.started))


def _end_by_signal(runners: Sequence[Runner]) -> None:
    """Have SIGTERM and Ctrl-C cancel the runs in flight, each within Prefect's 30 s, and then end the runner.

    The handler that the runner sets itself starts that and does not wait for it (Prefect 3.8.8): its runs would be killed.
    """
    loop, ending = asyncio.get_running_loop(), set[asyncio.Task[None]]()

    def end() -> None:
        if not ending:
            ending.add(loop.create_task(_stop(runners)))

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)


def runs_in_flight(runners: Sequence[Runner]) -> int:
    """Return the runs that were taken up here and have not ended: places taken, and processes that still live."""
    import psutil

    limiters = [runner._limiter for runner in runners]
    taken = sum(limiter.borrowed_tokens for limiter in limiters if limiter is not None)
    return max(taken, len(psutil.Process().children()))


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
