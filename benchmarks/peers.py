"""VELOX beside its peers in the same minutes: round-robin, the order reversed every other round, medians and ratios.

    python -m benchmarks.peers --peers-dir DIR --venvs-dir DIR --peers vnpy,nautilus --symbols 10 --days 20 --rounds 5

- `--peers-dir` holds the peers' scripts `p_<peer>.py`, which print one line `RESULT {...}` (run_bps, e2e_bps, proc_s, rss_mb,
  fills); `--venvs-dir` holds one virtual environment for each peer, named like it.
- Every run is a process of its own. Only the ratios mean something: a shared machine is slow or fast by the minute.
- Byte code is cached for all of them, as it is for installed packages; the first round of VELOX fills the cache.
- A run that fails is named in `failed` and is in no median.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
VELOX = "velox"
TIMEOUT_SECONDS = 600.0
MODES = {"vnpy": "cta", "nautilus": "base", "backtrader": "runonce"}  # the argument after symbols and days, where there is one
RESULT = "RESULT "
Figures = dict[str, float]

HOW_TO = """Nothing was measured: give --peers-dir and --venvs-dir.

  --peers-dir   a folder with the peers' scripts: p_vnpy.py, p_nautilus.py, p_basana.py, p_backtrader.py, ...
  --venvs-dir   a folder with a virtual environment for each of them: vnpy, nautilus, basana, backtrader, ...

Each script takes SYMBOLS DAYS [MODE] and prints one line: RESULT {"run_bps": ..., "e2e_bps": ..., "proc_s": ..., ...}"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One program to measure: its name and its command line."""

    name: str
    command: tuple[str, ...]


def jobs(peers_dir: Path, venvs_dir: Path, peers: list[str], symbols: int, days: int) -> list[Job]:
    """Return VELOX and the peers. Raises SystemExit for a peer without script or environment."""
    size = (str(symbols), str(days))
    velox = (sys.executable, str(ROOT / "benchmarks" / "replay.py"), "--symbols", size[0], "--days", size[1], "--json")
    found = [Job(name=VELOX, command=velox)]
    for peer in peers:
        script, python = peers_dir / f"p_{peer}.py", venvs_dir / peer / "bin" / "python"
        for path in (script, python):
            if not path.exists():
                raise SystemExit(f"peer {peer}: {path} does not exist")
        mode = (MODES[peer],) if peer in MODES else ()
        found.append(Job(name=peer, command=(str(python), str(script), *size, *mode)))
    return found


def measure(job: Job, cache: str) -> Figures | None:
    """Run one program once. Returns its figures, None when it failed."""
    environ = {
        **os.environ,
        "PYTHONDONTWRITEBYTECODE": "",
        "BENCH_T0": str(time.time()),
        **({"PYTHONPYCACHEPREFIX": cache} if job.name == VELOX else {}),
    }
    try:
        done = subprocess.run(job.command, env=environ, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=True)
    except (subprocess.SubprocessError, OSError) as error:
        print(f"{job.name}: {error}", file=sys.stderr)
        return None
    if job.name == VELOX:
        told = json.loads(done.stdout)
        return {
            "run_bps": told["bars_per_s"],
            "e2e_bps": told["bars_per_s_with_conversion"],
            "proc_s": told["process_s"],
            "rss_mb": told["peak_memory_mb"],
            "fills": told["fills"],
            "order_density": told["order_density"],
        }
    lines = [line for line in done.stdout.splitlines() if line.startswith(RESULT)]
    if not lines:
        print(f"{job.name}: no line '{RESULT}...'", file=sys.stderr)
        return None
    told = json.loads(lines[-1].removeprefix(RESULT))
    return {name: told[name] for name in ("run_bps", "e2e_bps", "proc_s", "rss_mb", "fills")}


def compare(programs: list[Job], rounds: int) -> dict[str, object]:
    """Measure all programs `rounds` times, in turns. Returns medians, and VELOX against each peer."""
    results: dict[str, list[Figures]] = {job.name: [] for job in programs}
    failed: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as cache:
        measure(programs[0], cache)  # fills the byte code cache
        for number in range(rounds):
            for job in programs if number % 2 == 0 else programs[::-1]:
                figures = measure(job, cache)
                if figures is None:
                    failed[job.name] = failed.get(job.name, 0) + 1
                else:
                    results[job.name].append(figures)
    medians = {
        name: {figure: round(median(run[figure] for run in runs), 3) for figure in runs[0]}
        for name, runs in results.items()
        if runs
    }
    ours = medians.get(VELOX, {})
    ratios = {
        name: {
            "bars_per_s_run_only": round(ours["run_bps"] / theirs["run_bps"], 2),
            "bars_per_s_with_conversion": round(ours["e2e_bps"] / theirs["e2e_bps"], 2),
            "process_time": round(ours["proc_s"] / theirs["proc_s"], 3),
            "peak_memory": round(ours["rss_mb"] / theirs["rss_mb"], 3),
        }
        for name, theirs in medians.items()
        if ours and name != VELOX
    }
    return {"rounds": rounds, "medians": medians, "velox_to_peer": ratios, "failed": failed}


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers-dir", type=Path, default=None)
    parser.add_argument("--venvs-dir", type=Path, default=None)
    parser.add_argument("--peers", default="vnpy,nautilus")
    parser.add_argument("--symbols", type=int, default=10)
    parser.add_argument("--days", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    if given.peers_dir is None or given.venvs_dir is None:
        print(HOW_TO)
        return
    programs = jobs(given.peers_dir, given.venvs_dir, given.peers.split(","), given.symbols, given.days)
    print(json.dumps({"symbols": given.symbols, "days": given.days, **compare(programs, given.rounds)}, indent=1))


if __name__ == "__main__":
    main()
