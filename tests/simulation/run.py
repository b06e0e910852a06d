"""Run many seeds: `python -m tests.simulation.run --seeds 10000 --first-seed 1`. A failing seed replays alone."""

from __future__ import annotations

import argparse
import logging
import sys
import time
import traceback

from tests.simulation.verdict import InvariantBroken
from tests.simulation.world import run_episode


def main() -> int:
    """Run the seeds; exit 1 when any broke an invariant."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--keep-going", action="store_true", help="report every failing seed instead of the first")
    arguments = parser.parse_args()
    logging.getLogger("velox").setLevel(logging.CRITICAL + 1)
    began = time.perf_counter()
    rarer: dict[str, int] = {}
    failed, totals = [], {"orders": 0, "fills": 0, "crashes": 0, "faults": 0, "over_exits": 0, "halted": 0, "flat": 0}
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        try:
            outcome = run_episode(seed)
        except (Exception, InvariantBroken) as error:
            failed.append(seed)
            print(f"seed {seed} failed: {error}", flush=True)
            if not arguments.keep_going:
                traceback.print_exc()
                print(f"replay it: make simulate SEEDS=1 FIRST_SEED={seed}")
                return 1
            continue
        for what in outcome.rarer:
            rarer[what] = rarer.get(what, 0) + 1
        for name in totals:
            totals[name] += int(getattr(outcome, name))
    elapsed = time.perf_counter() - began
    counts = ", ".join(f"{value} {name}" for name, value in totals.items())
    counts += "".join(f", {rarer[what]} {what}" for what in sorted(rarer))
    rate = f"{arguments.seeds / elapsed:.0f} seeds/s"
    print(f"{arguments.seeds} seeds from {arguments.first_seed}: {len(failed)} failed; {counts}; {rate}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
