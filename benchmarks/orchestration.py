"""What Prefect adds to a day: `trading_day` at `max` beside the bare engine on the same bars.

    python -m benchmarks.orchestration --rounds 5 --json

- `bare`: `velox run`, a process that trades the day and writes its report.
- `commands`: `velox check`, `velox run`, `velox eod`, one after the other: all steps of the day, and no Prefect.
- `embedded`: `python -m flows trading_day`, what `velox day` starts; it brings a Prefect server of its own. Its database is
  migrated before, as on every day but the first of a folder.
- `running`: the same against a Prefect server that runs beside it all the time, as `velox up` keeps one.
- Each is timed from the start of its process to its end, in turns, in a folder of its own; medians are shown. What is added
  over `commands` is Prefect's own. Over `bare` it holds beside that the checklist of twelve items and the end of day, with
  its backup restored and compared, its archive, its report and charts: what `trading_day` does and `velox run` does not.
- `cpu_s` counts the processor time of the process and all that it waited for. On a busy machine it is what can be compared:
  wall time grows with whatever else runs. The running server's own time is not in it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

if __package__ in (None, ""):  # run as a file: its folder is on the path, the project is not
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from velox_core.operations.prefect_embedded import EmbeddedPrefect
from velox_core.operations.prefect_home import prefect_environment
from velox_core.redis_server import EmbeddedRedis

ROOT = Path(__file__).resolve().parents[1]
DAY = ("--config", str(ROOT / "config" / "system_simulated.yaml"), "--date", "2024-01-15", "--speed", "max")
VELOX = (sys.executable, "-m", "velox_core.cli")
BARE = (*VELOX, "run", *DAY, "--json")
CHECK = (*VELOX, "check", *DAY[:2])
EOD = (*VELOX, "eod", *DAY[:4], "--json")
FLOW = (sys.executable, "-m", "flows", "trading_day", *DAY)
COMMANDS = {"bare": (BARE,), "commands": (CHECK, BARE, EOD), "embedded": (FLOW,), "running": (FLOW,)}
SERVER_SECONDS_MAX = 240.0
RUN_SECONDS_MAX = 600.0
WAYS = tuple(COMMANDS)
WITHOUT_PREFECT = ("bare", "commands")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    walls: dict[str, list[float]] = {way: [] for way in arguments.ways}
    cpus: dict[str, list[float]] = {way: [] for way in arguments.ways}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        migrated = migrated_home(folder / "migrated")
        with running_server(migrated, folder / "server", wanted="running" in arguments.ways) as url:
            for number in range(arguments.rounds):
                for way in arguments.ways:
                    wall, cpu = one_day(way, folder / f"{way}-{number}", migrated, url)
                    walls[way].append(wall)
                    cpus[way].append(cpu)
    figures = {
        way: {"wall_s": round(statistics.median(walls[way]), 2), "cpu_s": round(statistics.median(cpus[way]), 2)}
        for way in walls
    }
    answer = {"rounds": arguments.rounds, "load": os.getloadavg()[0], "figures": figures, "added": added(figures)}
    if arguments.json:
        print(json.dumps(answer))
        return
    print(f"medians of {arguments.rounds} rounds, load {answer['load']:.1f}")
    for way, figure in figures.items():
        told = "".join(f", {more['wall_s']:6.2f} s over {base}" for base, more in answer["added"].get(way, {}).items())
        print(f"{way:>10}  {figure['wall_s']:6.2f} s, {figure['cpu_s']:6.2f} s of processor{told}")


def added(figures: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, dict[str, float]]]:
    """Return what each way with Prefect takes more than each way without, seconds, by way, base and figure."""
    bases = {base: figures[base] for base in WITHOUT_PREFECT if base in figures}
    return {
        way: {
            base: {name: round(value - base_figure[name], 2) for name, value in figure.items()}
            for base, base_figure in bases.items()
        }
        for way, figure in figures.items()
        if way not in WITHOUT_PREFECT
    }


def one_day(way: str, var: Path, migrated: Path, url: str) -> tuple[float, float]:
    """Run one day in a folder of its own; returns wall and processor seconds. Stops on a day that did not end well."""
    var.mkdir()
    shutil.copytree(migrated, var / "prefect")
    environ = {**plain_environment(), "VELOX__VAR": str(var)}
    if way not in WITHOUT_PREFECT:
        environ = prefect_environment(var, environ)
    if way == "running":
        environ["PREFECT_API_URL"] = url
    elif way == "embedded":
        environ.pop("PREFECT_API_URL", None)
    output = var / "output.txt"
    before, began = os.times(), time.perf_counter()
    code = 0
    with output.open("wb") as sink:
        for command in COMMANDS[way]:
            ended = subprocess.run(command, cwd=ROOT, env=environ, stdout=sink, stderr=sink, timeout=RUN_SECONDS_MAX)
            code = code or ended.returncode
    wall, after = time.perf_counter() - began, os.times()
    EmbeddedRedis(var / "redis").stop()
    if code != 0:
        raise SystemExit(f"{way} ended with {code}:\n{output.read_text(errors='replace')[-3000:]}")
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    shutil.rmtree(var)
    return wall, cpu


def plain_environment() -> dict[str, str]:
    """Return this environment without what would change a day or a server."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "VELOX__"))}


def migrated_home(folder: Path) -> Path:
    """Make a Prefect home that a server was started on once and which holds no run.

    With the first start on a database Prefect registers its kinds of blocks: 2 s of processor, once in a folder's life.
    """
    environ = {**prefect_environment(folder.parent, plain_environment()), "PREFECT_HOME": str(folder)}
    command = [sys.executable, "-m", "prefect", "server", "database", "upgrade", "--yes"]
    subprocess.run(command, env=environ, check=True, capture_output=True, timeout=SERVER_SECONDS_MAX)
    server = EmbeddedPrefect(environ)
    try:
        server.wait()
    finally:
        server.stop()
    return folder


@contextmanager
def running_server(migrated: Path, home: Path, *, wanted: bool) -> Iterator[str]:
    """Keep a server on a free port while it is entered; yields its API's URL, '' when none is wanted."""
    if not wanted:
        yield ""
        return
    shutil.copytree(migrated, home)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environ = {**prefect_environment(home.parent, plain_environment()), "PREFECT_HOME": str(home)}
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(
        command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    url = f"http://127.0.0.1:{port}/api"
    try:
        wait_until_it_answers(url)
        yield url
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=60)


def wait_until_it_answers(url: str) -> None:
    """Wait for a server's health, within a bound."""
    until = time.monotonic() + SERVER_SECONDS_MAX
    while time.monotonic() < until:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=2):
                return
        except OSError:
            time.sleep(0.2)
    raise SystemExit(f"no Prefect server answered at {url} within {SERVER_SECONDS_MAX:.0f} s")


if __name__ == "__main__":
    main()
