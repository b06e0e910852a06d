"""Blows to whatever Prefect runs, while the engine holds positions: the engine trades on, and the next run attaches.

- A ride is one engine that takes several blows, one after another: it must be the same process at the end, and the broker's
  book must show each share bought once and sold once.
- Every ride ends by a hand on the brake: a cancel through the API, as a person does in the UI, or `velox stop`.
- The long outages are for a full run by hand (`make kill-matrix`); a short one is always ridden, so long that what serves the
  deployments is deaf after it: it ends by its own wish once no run is in flight, and is served again, as by `velox up`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.fakes.prefect_account import RUN_ID, PrefectAccount
from tests.fakes.prefect_server import PrefectServer, wait_until
from velox_core.operations.services import EXIT_AGAIN

FULL = os.environ.get("VELOX_KILL_MATRIX", "") == "full"
OUTAGE_SECONDS = 8.0  # from 5 s on serve is deaf
LONG_OUTAGES_SECONDS = (60.0, 180.0)
SLOW_SPEED = 10.0  # the day lasts 37 minutes
SUPERVISOR_SECONDS_MAX = 300.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


class Ride:
    """One engine that holds positions, what Prefect runs around it, and the blows to that.

    Args:
        account: armed.
        supervise: starts what runs flows, and returns its process.
    """

    def __init__(self, account: PrefectAccount, supervise: Callable[[], subprocess.Popen[bytes]]) -> None:
        self.account = account
        self.server = account.server
        self.until = account.server.wait_until
        self.supervise = supervise
        self.supervisor = supervise()
        self.run = account.trigger("intraday")
        self.engine = account.wait_until_it_holds()

    def flow(self) -> int:
        """Return the process that runs the flow, once there is one: a group is ended by its name."""
        self.until(lambda: self.account.flow_pid(self.run), self.account.told)
        pid = self.account.flow_pid(self.run)
        assert pid not in (0, self.engine)
        return pid

    def blow_to_the_flow(self, number: signal.Signals) -> None:
        """A signal to the process that runs the flow; its run ends, another one takes over."""
        pid = self.flow()
        os.kill(pid, number)
        self.until(lambda: not is_alive(pid), self.account.told)
        self.check()
        self.attach()

    def blow_to_the_supervisor(self, number: signal.Signals) -> None:
        """A signal to what runs flows; it is started again, and another run takes over."""
        supervisor = self.account.kept or self.supervisor
        groups = {supervisor.pid, os.getpgid(self.flow())}
        self.account.kept = None
        supervisor.send_signal(number)
        supervisor.wait(timeout=SUPERVISOR_SECONDS_MAX)
        self.check()
        for group in groups:  # an orphaned flow lives on, and nobody can cancel it: whoever restarts a service ends its group
            with suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
        self.check()
        self.supervisor = self.supervise()
        self.attach()

    def blow_to_the_server(self, number: signal.Signals, seconds: float) -> None:
        """The server is away for a while, and comes back."""
        self.account.ended_by_wish = 0
        self.server.stop(number)
        time.sleep(seconds)
        self.check()
        self.server.start()
        self.check()
        self.take_up()

    def take_up(self) -> None:
        """Do what a person does after an outage: the flow may have ended with it, the engine has not."""
        if not self.account.flow_pid(self.run):
            self.attach()

    def let_serve_end(self) -> None:
        """Wait until what serves the deployments has ended by its own wish: no run is in flight, and an outage made it deaf."""
        if self.account.ended_by_wish:  # a wait for the run's end saw it, and served again
            return
        serving = self.account.kept
        assert serving is not None
        wait_until(lambda: serving.poll() is not None, lambda: self.server.printed("serve"))
        assert serving.returncode == EXIT_AGAIN, self.server.printed("serve")

    def attach(self) -> None:
        """Another run of intraday finds the engine and watches it."""
        self.run = self.account.trigger("intraday")
        attached = f"attached to the engine of run {RUN_ID}, process {self.engine}"
        self.until(lambda: attached in self.server.logs(self.run), lambda: self.server.logs(self.run) + self.account.told())
        self.check()

    def check(self) -> None:
        """The same engine trades on, and nothing was sent twice."""
        assert self.account.trades_on(self.engine)
        self.account.assert_nothing_doubled()

    def cancel(self) -> None:
        """A person cancels the run in the UI: everything is closed."""
        self.server.cancel(self.run)
        self.account.wait_until_flat()
        assert self.server.wait_end(self.run)[0] == "Cancelled"

    def stop(self) -> None:
        """A person stops the engine at the command line; the run that watches it ends as it ends."""
        stopped = self.account.velox("stop", "--reason", "enough")
        assert stopped.returncode == 0, stopped.stdout + stopped.stderr
        assert self.account.held() == {}

    def arrive(self) -> None:
        """Each share was bought and sold once, the engine ended well, and the next runs say so and find the report whole."""
        self.until(lambda: self.account.read("end.json").get("pid") == self.engine, self.account.told)
        self.account.assert_each_traded_once()
        end = self.account.read("end.json")
        assert (end["exit_code"], end["flat"], end["halted"]) == (0, True, False)
        after = self.account.trigger("intraday")
        name, message = self.server.wait_end(after)
        assert name == "AlreadyEnded", (name, message, self.server.logs(after))
        summary = self.account.read("summary.json")
        assert (summary["flat"], summary["fill_count"]) == (True, 2 * len(self.account.symbols))
        closed = self.account.trigger("end-of-day")
        assert self.server.wait_end(closed)[0] == "Completed", self.server.logs(closed)
        assert (self.account.var / "reports" / self.account.name / f"{RUN_ID}.html").stat().st_size > 0


def is_alive(pid: int) -> bool:
    """Return whether a process is there and no zombie."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


@pytest.fixture
def account(prefect_server: PrefectServer, tmp_path: Path) -> Iterator[PrefectAccount]:
    made = PrefectAccount(prefect_server, tmp_path)
    made.arm()
    yield made
    made.end()


def test_engine_outlives_its_flow_what_serves_it_and_the_server_and_a_cancel_closes_everything(
    account: PrefectAccount,
) -> None:
    ride = Ride(account, account.serve)
    ride.check()
    ride.blow_to_the_flow(signal.SIGKILL)
    ride.blow_to_the_flow(signal.SIGTERM)
    ride.blow_to_the_supervisor(signal.SIGTERM)
    ride.blow_to_the_supervisor(signal.SIGKILL)
    ride.blow_to_the_server(signal.SIGKILL, OUTAGE_SECONDS)
    ride.cancel()
    ride.let_serve_end()
    ride.arrive()


@pytest.mark.skipif(not FULL, reason="the long way: make kill-matrix")
@pytest.mark.parametrize(("number", "brake"), [(signal.SIGTERM, Ride.cancel), (signal.SIGKILL, Ride.stop)])
def test_engine_outlives_its_worker_and_the_server_of_the_worker(
    account: PrefectAccount, number: signal.Signals, brake: Callable[[Ride], None]
) -> None:
    account.deploy()
    ride = Ride(account, account.worker)
    ride.blow_to_the_supervisor(number)
    ride.blow_to_the_flow(number)
    ride.blow_to_the_server(number, OUTAGE_SECONDS)
    brake(ride)
    ride.arrive()


@pytest.mark.skipif(not FULL, reason="the long way: make kill-matrix")
@pytest.mark.parametrize(("number", "brake"), [(signal.SIGTERM, Ride.stop), (signal.SIGKILL, Ride.cancel)])
def test_engine_outlives_long_outages_of_the_server(
    tmp_path: Path, number: signal.Signals, brake: Callable[[Ride], None]
) -> None:
    server = PrefectServer(tmp_path / "server")
    account = PrefectAccount(server, tmp_path, speed=SLOW_SPEED)
    try:
        server.start()
        account.arm()
        ride = Ride(account, account.serve)
        for seconds in LONG_OUTAGES_SECONDS:
            ride.blow_to_the_server(number, seconds)
        brake(ride)
        ride.arrive()
    finally:
        account.end()
        server.end()
