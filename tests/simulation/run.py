"""Run many seeds of a world: `python -m tests.simulation.run --world day --seeds 10000 --first-seed 1`.

- `day`: half an hour of one engine with failing stores and broker (`world`). `flatten`: an account that is flattened from
  several sides at once (`flatten_world`).
- The seeds are spread over processes; each seed is decided by its number alone, so a failing one replays alone.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor

from tests.simulation.flatten_world import FlattenOutcome, run_flattening
from tests.simulation.verdict import InvariantBroken
from tests.simulation.world import Outcome, run_episode

CHUNK_SEEDS = 25  # of one task of a process
Counts = Counter[str]


def count_day(seed: int) -> Counts:
    """Run one half hour and return what happened in it."""
    outcome: Outcome = run_episode(seed)
    counts = Counter({name: int(getattr(outcome, name)) for name in ("orders", "fills", "crashes", "faults", "over_exits")})
    counts.update({"halted": int(outcome.halted), "flat": int(outcome.flat)})
    counts.update(outcome.rarer)
    return counts


def count_flatten(seed: int) -> Counts:
    """Run one flattening and return what happened in it."""
    outcome: FlattenOutcome = run_flattening(seed)
    counts = Counter(
        {name: int(getattr(outcome, name)) for name in ("flat", "not_flat", "orders", "trades", "kills", "lost", "over")}
    )
    counts.update(outcome.what)
    return counts


WORLDS: dict[str, Callable[[int], Counts]] = {"day": count_day, "flatten": count_flatten}


def run_chunk(world: str, seeds: range, keep_going: bool) -> tuple[Counts, list[tuple[int, str, str]]]:
    """Run some seeds, here. Returns the counts, and of each failed seed what failed and where."""
    logging.getLogger("velox").setLevel(logging.CRITICAL + 1)
    counts: Counts = Counter()
    failed: list[tuple[int, str, str]] = []
    for seed in seeds:
        try:
            counts.update(WORLDS[world](seed))
        except (Exception, InvariantBroken) as error:
            failed.append((seed, str(error), traceback.format_exc()))
            if not keep_going:
                break
    return counts, failed


def run_seeds(world: str, seeds: range, *, processes: int, keep_going: bool) -> tuple[Counts, list[tuple[int, str, str]]]:
    """Run seeds on several processes, and stop at the first failing chunk unless told to go on."""
    chunks = [seeds[start : start + CHUNK_SEEDS] for start in range(0, len(seeds), CHUNK_SEEDS)]
    counts: Counts = Counter()
    failed: list[tuple[int, str, str]] = []
    if processes == 1 or len(chunks) == 1:
        return _collect((run_chunk(world, chunk, keep_going) for chunk in chunks), keep_going)
    with ProcessPoolExecutor(processes) as pool:
        futures = [pool.submit(run_chunk, world, chunk, keep_going) for chunk in chunks]
        counts, failed = _collect((future.result() for future in futures), keep_going)
        pool.shutdown(cancel_futures=True)
    return counts, failed


def _collect(
    results: Iterable[tuple[Counts, list[tuple[int, str, str]]]], keep_going: bool
) -> tuple[Counts, list[tuple[int, str, str]]]:
    counts: Counts = Counter()
    failed: list[tuple[int, str, str]] = []
    for counted, broken in results:
        counts.update(counted)
        failed += broken
        if failed and not keep_going:
            break
    return counts, failed


def main() -> int:
    """Run the seeds; exit 1 when any broke an invariant."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--world", choices=sorted(WORLDS), default="day")
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--keep-going", action="store_true", help="report every failing seed instead of the first")
    arguments = parser.parse_args()
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    began = time.perf_counter()
    counts, failed = run_seeds(arguments.world, seeds, processes=arguments.processes, keep_going=arguments.keep_going)
    elapsed = time.perf_counter() - began
    for seed, text, trace in failed:
        print(f"seed {seed} failed: {text}", flush=True)
        if not arguments.keep_going:
            print(trace)
        print(f"replay it: make simulate WORLD={arguments.world} SEEDS=1 FIRST_SEED={seed}")
    told = ", ".join(f"{number} {name}" for name, number in counts.items())
    rate = f"{elapsed:.1f} s, {len(seeds) / elapsed:.0f} seeds/s on {arguments.processes} processes"
    print(f"{arguments.world}: {len(seeds)} seeds from {arguments.first_seed}: {len(failed)} failed; {told}; {rate}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
