"""An account whose day runs on a real Prefect server: its folders, the processes that run its flows, and what became of it.

- Truth is the simulated broker's own book; the engine's status says which process trades.
- The day is synthetic, its engine holds one share of each symbol from the first minutes to the end.
- What runs flows is kept alive in every wait, as `velox up` does it: after the server was away `deployments.serve` ends by its
  own wish as soon as no run is in flight, and on a busy machine a server that does not answer is away.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import Any

import psutil

from tests.fakes.prefect_server import ROOT, WAIT_SECONDS, PrefectServer, end_session, wait_until
from velox_core.operations.checklist import run_checklist
from velox_core.operations.day import DayRequest, open_day
from velox_core.operations.market_open import arm_day
from velox_core.operations.services import EXIT_AGAIN
from velox_core.redis_server import EmbeddedRedis

DAY = "2024-01-16"
RUN_ID = f"{DAY}-calm-1"
CONFIG = """
system:
  environment: simulated
  account: {account}
  broker: {{type: simulated, capital: 10000000}}
  risk:
    max_daily_loss: 200000
    max_daily_loss_pct: 2.0
    initial_capital: 10000000
    fixed_lot_size: 1
    enable_deduplication: true
    max_position_size: 5000
    max_positions_per_strategy: {positions}
    max_total_positions: {positions}
  feed: {{scenario: calm, symbols: [{symbols}], speed: {speed}}}
  strategies:
    - name: hold
      class_path: {strategy}
  checklist: {{max_total_positions_reason: "{positions} symbols in a test"}}
  prefect: {{api_url: {api}}}
"""
HOLDS = "tests.integration.holding_strategy:BuyAndHold"
SPEED = 20.0  # seconds of the session per second: the day lasts 18 minutes, and nobody waits for its end


class PrefectAccount:
    """One account below a folder; `server` runs its flows.

    Args:
        server: started.
        folder: of the account alone, or shared by accounts of other names.
        account: its name.
        positions: how many symbols it trades and holds.
        strategy: its class.
        more: further lines of the configuration, indented below `system`.
    """

    def __init__(
        self,
        server: PrefectServer,
        folder: Path,
        *,
        account: str = "primary",
        positions: int = 3,
        speed: float = SPEED,
        strategy: str = HOLDS,
        more: str = "",
    ) -> None:
        self.server = server
        self.name = account
        self.var = folder / "var"
        self.config = folder / "config" / f"{account}.yaml"
        self.symbols = [f"SYN{number}" for number in range(1, positions + 1)]
        self.config.parent.mkdir(parents=True, exist_ok=True)
        text = CONFIG.format(
            account=account,
            positions=positions,
            symbols=", ".join(self.symbols),
            speed=speed,
            strategy=strategy,
            api=f"{server.url}/api",
        )
        self.config.write_text(text + more, encoding="utf-8")
        self.run = self.var / "replay" / account / RUN_ID
        self.environ = {"VELOX__VAR": str(self.var)}
        self.processes: list[subprocess.Popen[bytes]] = []
        self.kept: subprocess.Popen[bytes] | None = None
        self.ended_by_wish = 0  # how often what served ended by its own wish, and was served again
        server.keepers.append(self.keep)
        self.parameters: dict[str, object] = {"config": str(self.config), "date": DAY}

    # processes

    def start(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Start `python arguments` in the environment of the account and its server."""
        self.processes.append(self.server.run(name, *arguments, environ=self.environ))
        return self.processes[-1]

    def velox(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run one command on the account to its end."""
        return subprocess.run(
            [sys.executable, "-m", "velox_core.cli", *arguments, "--config", str(self.config)],
            env={**self.server.environ, **self.environ},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=WAIT_SECONDS,
            check=False,
        )

    def end(self) -> None:
        """End what runs flows for it, lest that take the runs of the next account, the engine, and Redis."""
        self.server.keepers.remove(self.keep)
        for process in reversed(self.processes):
            end_session(process)
        pid = self.engine_pid()
        if pid and self.is_engine(pid):
            os.kill(pid, signal.SIGCONT)
            os.kill(pid, signal.SIGKILL)
        EmbeddedRedis(self.var / "redis").stop()

    # flow runs

    def trigger(self, deployment: str, **parameters: object) -> str:
        """Create a run of a deployment for this account's day, as the UI's form does."""
        return self.server.trigger(deployment, {**self.parameters, **parameters})

    def arm(self) -> None:
        """Give the day its pass, as market-open does, without the seconds of a flow run."""
        day = open_day(DayRequest(config=self.config, date=date.fromisoformat(DAY)), self.environ)
        arm_day(day, run_checklist(day.settings, day.paths))

    def serve(self) -> subprocess.Popen[bytes]:
        """Serve the deployments, and return the process once the server knows them and it looks for runs."""
        printed = self.server.printed("serve").count("serving ")
        process = self.start("serve", "-m", "deployments.serve", "--config", str(self.config))
        self._wait_for(process, "serve", lambda: self.server.printed("serve").count("serving ") > printed)
        self.server.pause_schedules()
        self.kept = process
        return process

    def keep(self) -> None:
        """Serve again when what served has ended; a person takes `kept` away before it is ended by hand."""
        if self.kept is None or self.kept.poll() is None:
            return
        ended = f"serve ended with {self.kept.returncode}: {self.server.printed('serve')[-3000:]}"
        assert self.kept.returncode == EXIT_AGAIN or self.server.was_away, ended
        if self.server.is_up():
            self.ended_by_wish += self.kept.returncode == EXIT_AGAIN
            self.serve()
            self.server.was_away = False  # what serves from now on has seen no outage

    def worker(self, name: str = "worker") -> subprocess.Popen[bytes]:
        """Start a worker of the pool `velox`, and return it once it looks for runs."""
        printed = self.server.printed(name).count(" started!")
        process = self.start(name, "-m", "prefect", "worker", "start", "--pool", "velox", "--type", "process")
        self._wait_for(process, name, lambda: self.server.printed(name).count(" started!") > printed)
        return process

    def _wait_for(self, process: subprocess.Popen[bytes], name: str, ready: Callable[[], bool]) -> None:
        wait_until(lambda: ready() or process.poll() is not None, lambda: self.server.printed(name))
        assert process.poll() is None, self.server.printed(name)

    def deploy(self) -> None:
        """Make the work pool and register the deployments of prefect.yaml, for workers, as the runbook says."""
        for arguments in (("-m", "deployments.work_pool"), ("-m", "prefect", "--no-prompt", "deploy", "--all")):
            process = self.start("deploy", *arguments)
            assert process.wait(timeout=WAIT_SECONDS) == 0, self.server.printed("deploy")
        self.server.pause_schedules()

    def flow_pid(self, run_id: str) -> int:
        """Return the process that runs a flow run, 0 when there is none on this machine."""
        for process in psutil.process_iter(["pid"]):
            try:
                of_run = process.environ().get("PREFECT__FLOW_RUN_ID") == run_id  # what a flow starts inherits it too
                if of_run and any(part.startswith("prefect.") for part in process.cmdline()):
                    return int(process.pid)
            except (psutil.Error, OSError):
                continue
        return 0

    # what the engine says

    def status(self) -> Mapping[str, Any]:
        """Return what the run's engine last published, empty for nothing."""
        return self.read("status.json")

    def read(self, name: str) -> dict[str, Any]:
        """Return a JSON file of the run's folder, empty when it is not there."""
        try:
            found = json.loads((self.run / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return dict(found)

    def read_lines(self, name: str) -> list[dict[str, Any]]:
        """Return the JSON lines of a file of the run's folder."""
        return [json.loads(line) for line in (self.run / name).read_text(encoding="utf-8").splitlines() if line]

    def engine_pid(self) -> int:
        """Return the process that last published, 0 for none."""
        return int(self.status().get("pid", 0))

    def is_engine(self, pid: int) -> bool:
        """Return whether a process lives, is no zombie, and is an engine."""
        try:
            process = psutil.Process(pid)
            return process.status() != psutil.STATUS_ZOMBIE and "run" in process.cmdline()
        except psutil.Error:
            return False

    def trades_on(self, pid: int) -> bool:
        """Return whether the engine process is the one, alive, and takes another minute of the market."""
        before = self.status()
        self.server.wait_until(lambda: self.status().get("engine_ms") != before.get("engine_ms"), self.told)
        return self.engine_pid() == pid and self.is_engine(pid) and self.status().get("state") == "RUNNING"

    def told(self) -> str:
        """Return what is good to know when a test fails."""
        logs = self.var / "logs" / "simulated"
        parts = [f"{path.name}: {path.read_text(encoding='utf-8', errors='replace')[-1500:]}" for path in logs.glob("*.log")]
        for output in sorted((self.var / "output").glob("engine-*.log")):
            parts.append(f"{output.name}: {output.read_text(encoding='utf-8', errors='replace')[-1500:]}")
        return "\n".join([str(dict(self.status())), *parts])

    # what the broker says

    def book(self, query: str) -> list[tuple[Any, ...]]:
        """Ask the broker's own book."""
        try:
            with closing(sqlite3.connect(f"file:{self.run / 'broker.db'}?mode=ro", uri=True)) as connection:
                return connection.execute(query).fetchall()
        except sqlite3.OperationalError:
            return []

    def held(self) -> dict[str, int]:
        """Return the broker's open positions."""
        return dict(self.book("SELECT symbol, quantity FROM positions WHERE quantity <> 0"))

    def wait_until_it_holds(self) -> int:
        """Wait until one share of each symbol is open, and return the engine's process."""
        self.server.wait_until(lambda: len(self.held()) == len(self.symbols), self.told)
        return self.engine_pid()

    def wait_until_flat(self, seconds: float = WAIT_SECONDS) -> None:
        """Wait until the broker holds nothing."""
        self.server.wait_until(lambda: not self.held(), self.told, seconds)

    def assert_each_traded_once(self) -> None:
        """Each symbol was bought once and sold once, one share, nothing else was traded, and nothing works."""
        trades = self.book("SELECT symbol, side, quantity FROM trades ORDER BY number")
        assert sorted(trades) == sorted((symbol, side, 1) for symbol in self.symbols for side in ("BUY", "SELL"))
        assert self.held() == {}
        assert self.book("SELECT tag FROM orders WHERE state NOT IN ('FILLED', 'CANCELLED', 'REJECTED')") == []

    def assert_nothing_doubled(self) -> None:
        """Each symbol was bought once, one share, and not sold yet."""
        assert sorted(self.book("SELECT symbol, side, quantity FROM trades")) == sorted((s, "BUY", 1) for s in self.symbols)
        assert self.held() == dict.fromkeys(self.symbols, 1)
