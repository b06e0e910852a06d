"""Ticks through the whole engine: marks, breach, stops, minute building, two strategies, the gate and the simulated broker.

    python benchmarks/ticks.py --symbols 5 --json [--interpreted] [--apart]

- One tick a second of each symbol for a session of 375 minutes, made from a seed. All ticks of one second are one moment, as
  in files stamped in seconds; with `--apart` each tick has a millisecond of its own, so that every tick is a step.
- Four of five symbols are held all day, each with a stop and a target that each tick is held against; SMA cross and opening
  range run over all symbols, and what they ask for goes through the gate to the broker.
- On as in `benchmarks/replay.py`: order states, charges, fills, and the hash-chained file journal.
- `run_s` is the loop alone on the wall, `cpu_s` the same in seconds of one core: on a machine that others use the second
  is what can be compared. Making the ticks is not timed.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # run as a file: its folder is on the path, the project is not
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.compiled import CannotCompile, build

COMPILED = ""  # the folder of the compiled copy that is run, '' for the sources
if __name__ == "__main__" and "--interpreted" not in sys.argv:
    try:
        COMPILED = str(build())
        sys.path.insert(0, COMPILED)  # before the first import of the core
    except CannotCompile as reason:
        print(f"not compiled, so the sources are measured: {reason}", file=sys.stderr)

import numpy as np  # noqa: E402

from benchmarks.replay import JOURNAL_FILE, ReplayRun, day_plan, open_run  # noqa: E402
from benchmarks.workload import OPEN_MINUTE, day_columns, make_workload  # noqa: E402
from velox_core.brokers.simulated_market import SimulatedMarket  # noqa: E402
from velox_core.domain.market.bars import DayColumns, MinuteRow, TickBatch  # noqa: E402
from velox_core.domain.orders import Side, Signal, SignalKind  # noqa: E402
from velox_core.domain.time import MS_PER_MINUTE, MS_PER_SECOND, ist_midnight_ms  # noqa: E402
from velox_core.feeds.tick_replay import TickReplayFeed  # noqa: E402
from velox_core.strategies.base import Strategy, StrategySession  # noqa: E402
from velox_core.strategies.opening_range import OpeningRangeBreakout  # noqa: E402
from velox_core.strategies.sma_cross import SmaCross  # noqa: E402

SECONDS = 375 * 60
TICK_PAISE = 5
SECOND_SIGMA = 0.0001
SEED = 42


class HoldMost(Strategy):
    """Buys four of five symbols at the first minute, with a stop and a target far away, and keeps them."""

    def start_session(self, session: StrategySession) -> None:
        """Take the symbols."""
        self._symbols = [symbol for number, symbol in enumerate(session.universe) if number % 5 < 4]
        self._columns = [number for number, _ in enumerate(session.universe) if number % 5 < 4]
        self._done = False

    def on_minute(self, ts_ms: int, row: MinuteRow, positions: Sequence[int]) -> list[Signal]:
        """Ask once."""
        if self._done:
            return []
        self._done = True
        return [
            Signal(
                self.strategy_id,
                symbol,
                Side.BUY,
                1,
                SignalKind.ENTRY,
                "held all day",
                stop_paise=TICK_PAISE,
                target_paise=row.closes[column] * 4 // TICK_PAISE * TICK_PAISE,
            )
            for symbol, column in zip(self._symbols, self._columns, strict=True)
        ]


def make_ticks(symbols: int, *, apart: bool) -> DayColumns:
    """Return a day of one tick a second and symbol, on the 0.05 tick, volumes that grow."""
    random = np.random.default_rng(SEED)
    day = day_columns(make_workload(symbols, 1), 0)
    start = np.array(day.rows[0].opens, dtype=np.float64)
    paths = start * np.exp(np.cumsum(random.standard_normal((SECONDS, symbols)) * SECOND_SIGMA, axis=0))
    prices = (np.round(paths / TICK_PAISE).astype(np.int64) * TICK_PAISE).tolist()
    volumes = np.cumsum(random.integers(0, 500, (SECONDS, symbols)), axis=0).tolist()
    open_ms = ist_midnight_ms(day.trading_date) + OPEN_MINUTE * MS_PER_MINUTE
    columns = list(range(symbols))
    ticks = []
    for second in range(SECONDS):
        ts_ms = open_ms + second * MS_PER_SECOND
        if apart:
            for column in columns:
                own = TickBatch(ts_ms + column, [column], [prices[second][column]], [volumes[second][column]])
                ticks.append(own)
        else:
            ticks.append(TickBatch(ts_ms, columns, prices[second], volumes[second]))
    return DayColumns(
        trading_date=day.trading_date, universe=day.universe, rows=day.rows, source=day.source, synthetic=True, ticks=ticks
    )


def run_day(symbols: int, folder: Path, *, apart: bool) -> tuple[ReplayRun, DayColumns, float]:
    """Run the day once. Returns the run, the day and the CPU seconds of the loop."""
    day = make_ticks(symbols, apart=apart)
    strategies = (HoldMost("hold", {}), SmaCross("sma", {"stop_bps": 50, "target_bps": 100}), OpeningRangeBreakout("range", {}))
    run = open_run(make_workload(symbols, 1), folder, *strategies)
    replayed = TickReplayFeed(day.universe, day.ticks or [], run.clock, 0.0)
    session = run.engine.session(day_plan(day), SimulatedMarket(replayed, run.broker, run.clock, on_ticks=True))
    began, began_cpu = time.perf_counter(), time.process_time()
    result = session.run()
    run.journal.flush()
    run.run_s, cpu_s = time.perf_counter() - began, time.process_time() - began_cpu
    if result.fault:
        raise SystemExit(f"the engine failed: {result.fault}")
    if session.status("DONE")["ticks"] != day.tick_count:
        raise SystemExit("not every tick reached the engine")
    return run, day, cpu_s


def main() -> None:
    """Run once and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--symbols", type=int, default=5)
    parser.add_argument("--apart", action="store_true", help="every tick at a moment of its own")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--journal", type=Path, metavar="FILE", help="keep the journal here")
    parser.add_argument("--interpreted", action="store_true", help="measure the sources, not their compiled copy")
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)  # refusals of held symbols go to no log here; their decisions are journaled
    with tempfile.TemporaryDirectory() as folder:
        run, day, cpu_s = run_day(arguments.symbols, Path(folder), apart=arguments.apart)
        if arguments.journal is not None:
            run.journal.close()
            shutil.copyfile(Path(folder) / JOURNAL_FILE, arguments.journal)
    orders = run.engine.order_manager
    figures = {
        "symbols": arguments.symbols,
        "ticks": day.tick_count,
        "moments": len(day.ticks or ()),
        "positions_open_at_the_end": len(orders.open_positions()),
        "positions_held_all_day": sum(number % 5 < 4 for number in range(arguments.symbols)),
        "strategies": "SMA cross and opening range over all symbols; the held ones by a third",
        "orders": len(orders.orders),
        "fills": orders.fill_count,
        "ticks_per_s": round(day.tick_count / run.run_s),
        "ticks_per_cpu_s": round(day.tick_count / cpu_s),
        "run_s": round(run.run_s, 3),
        "cpu_s": round(cpu_s, 3),
        "compiled": bool(COMPILED),
        "python": sys.version.split()[0],
    }
    if arguments.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:>28}  {value}")


if __name__ == "__main__":
    main()
