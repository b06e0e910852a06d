"""Replay throughput: the whole order path of VELOX on the common workload.

    python benchmarks/replay.py --symbols 10 --days 20 --json [--interpreted]

- Runs on the compiled copy of the core (`benchmarks/compiled.py`; made at the first call where there is a C compiler), or
  with `--interpreted` on the sources as they stand. `compiled` in the figures says which.
- On in every figure: the seven-layer gate, order states, dated charges, P&L, fills, a hash-chained journal (file route:
  append-only, one chain step per event, written in blocks of WRITE_EVERY_EVENTS and at the end of each day; loaded into
  SQL afterwards, which is not timed here). `velox run` journals into SQL instead, durably before each send.
- The limits are opened so that every engine makes the same fills; no square-off, positions carry over days.
- `run_s` is the loop alone, `prepare_s` the conversion of the workload's arrays into rows, `process_s` the whole process
  with imports. `fast`: SMA 10 / 30, long only, one share, market orders, flat 3 bps.
- To be compared only with peers measured in the same run.
"""

from __future__ import annotations

import time

STARTED_AT = time.time()

import argparse  # noqa: E402
import json  # noqa: E402
import resource  # noqa: E402
import shutil  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
from dataclasses import dataclass  # noqa: E402
from pathlib import Path  # noqa: E402

if __package__ in (None, ""):  # run as a file: its folder is on the path, the project is not
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.compiled import CannotCompile, build  # noqa: E402

COMPILED = ""  # the folder of the compiled copy that is run, '' for the sources
if __name__ == "__main__" and "--interpreted" not in sys.argv:
    try:
        COMPILED = str(build())
        sys.path.insert(0, COMPILED)  # before the first import of the core
    except CannotCompile as reason:
        print(f"not compiled, so the sources are measured: {reason}", file=sys.stderr)

from benchmarks.workload import Workload, day_columns, make_workload  # noqa: E402
from velox_core.brokers.simulated import SimulatedBroker  # noqa: E402
from velox_core.brokers.simulated_market import SimulatedMarket  # noqa: E402
from velox_core.brokers.simulated_orders import SimulationConfig  # noqa: E402
from velox_core.clock import ReplayClock  # noqa: E402
from velox_core.domain.charges import ChargeSchedule  # noqa: E402
from velox_core.domain.halts import HaltRecord  # noqa: E402
from velox_core.domain.market.bars import DayColumns  # noqa: E402
from velox_core.domain.market.ticks import Instrument, SecurityClass  # noqa: E402
from velox_core.domain.time import MS_PER_DAY, ist_midnight_ms  # noqa: E402
from velox_core.engine.assembly import Engine, EnginePorts, EngineRules, assemble  # noqa: E402
from velox_core.engine.plan import SessionPlan  # noqa: E402
from velox_core.engine.strategy_host import HostedStrategy  # noqa: E402
from velox_core.engine_lock import SoleCloser  # noqa: E402
from velox_core.feeds.replay import ReplayFeed  # noqa: E402
from velox_core.journal.file import FileJournal  # noqa: E402
from velox_core.ledger.memory import MemoryLedger  # noqa: E402
from velox_core.ports import ControlRequest, Severity  # noqa: E402
from velox_core.risk.limits import RiskLimits  # noqa: E402
from velox_core.strategies.base import Strategy  # noqa: E402
from velox_core.strategies.sma_cross import SmaCross  # noqa: E402

IMPORTED_AT = time.time()
RUPEES_MANY_PAISE = 10**15
WRITE_EVERY_EVENTS = 256
JOURNAL_FILE = "journal.jsonl"
OPEN_LIMITS = RiskLimits(
    max_daily_loss_paise=RUPEES_MANY_PAISE,
    max_daily_loss_bps=10_000,
    initial_capital_paise=RUPEES_MANY_PAISE,
    fixed_lot_size=1,
    dedup_window_ms=1_000,
    max_position_size_paise=RUPEES_MANY_PAISE,
    max_positions_per_strategy=100_000,
    max_total_positions=100_000,
    orders_per_second_max=100_000,
)
LOOSE = SimulationConfig(
    seed=1,
    slippage_bps=0,
    slippage_ticks=0,
    latency_ms=0,
    partial_fill_probability=0.0,
    reject_probability=0.0,
    margin_multiplier=5,
    capital_paise=RUPEES_MANY_PAISE,
    carry_overnight=True,
)


class SilentAlerts:
    """Counts alerts; a benchmark has nobody to tell."""

    def __init__(self) -> None:
        self.count = 0

    def send(self, severity: Severity, title: str, text: str) -> None:
        """Count one."""
        self.count += 1


class SilentControl:
    """No requests, no viewer."""

    def poll(self) -> ControlRequest | None:
        """Return None."""
        return None

    def publish(self, status: object) -> None:
        """Take the status and show it to nobody."""


class MemoryHaltFile:
    """Halt records of a process that ends with its run."""

    def __init__(self) -> None:
        self._records: list[HaltRecord] = []

    def records(self) -> list[HaltRecord]:
        """Return the records so far."""
        return list(self._records)

    def append(self, record: HaltRecord) -> None:
        """Add one."""
        self._records.append(record)

    def stamp(self) -> int:
        """Return how many there are."""
        return len(self._records)


@dataclass(slots=True, kw_only=True)
class ReplayRun:
    """An engine that lives over the days of a workload, and what it measured. Times in seconds."""

    engine: Engine
    broker: SimulatedBroker
    clock: ReplayClock
    journal: FileJournal
    prepare_s: float = 0.0
    run_s: float = 0.0


def open_run(workload: Workload, folder: Path, *strategies: Strategy) -> ReplayRun:
    """Join an engine for a workload, with each strategy over all its symbols. The journal is written into the folder."""
    universe = tuple(f"S{number:03d}" for number in range(workload.instruments))
    instruments = {s: Instrument(symbol=s, security_class=SecurityClass.CASH, tick_paise=5) for s in universe}
    schedule = ChargeSchedule.flat(bps=3)
    journal = FileJournal(folder / JOURNAL_FILE, write_every_events=WRITE_EVERY_EVENTS)
    broker = SimulatedBroker(universe, book=None, instruments=instruments, config=LOOSE, faults=None)
    clock = ReplayClock(ist_midnight_ms(workload.days[0]))
    first = day_columns(workload, 0)
    ledger = MemoryLedger()
    ports = EnginePorts(
        clock=clock,
        feed=ReplayFeed(first, clock, 0.0),
        broker=broker,
        journal=journal,
        ledger=ledger,
        halt_file=MemoryHaltFile(),
        control=SilentControl(),
        alerts=SilentAlerts(),
        closer_lock=SoleCloser(),
    )
    rules = EngineRules(
        limits=OPEN_LIMITS,
        schedule=schedule,
        instruments=instruments,
        strategies=tuple(HostedStrategy(strategy, tuple(range(len(universe))), universe) for strategy in strategies),
        epoch=ledger.acquire_lease("benchmark"),
    )
    engine = assemble(day_plan(first), ports, rules)
    engine.risk_manager.readiness.armed = True
    return ReplayRun(engine=engine, broker=broker, clock=clock, journal=journal)


def replay(workload: Workload, folder: Path, strategy: Strategy | None = None) -> ReplayRun:
    """Run the whole workload, with the SMA cross if no other strategy is given, and return what there is to report."""
    parameters = {"fast": 10, "slow": 30, "enter_on_level": True, "reset_daily": False, "stop_bps": 0, "target_bps": 0}
    run = open_run(workload, folder, strategy or SmaCross("sma", parameters))
    engine, clock = run.engine, run.clock
    for index in range(len(workload.days)):
        began = time.perf_counter()
        day = day_columns(workload, index)
        run.prepare_s += time.perf_counter() - began
        feed = SimulatedMarket(ReplayFeed(day, clock, 0.0), run.broker, clock)
        session = engine.session(day_plan(day), feed)
        began = time.perf_counter()
        result = session.run()
        run.journal.flush()
        run.run_s += time.perf_counter() - began
        if result.fault:
            raise SystemExit(f"the engine failed on {day.trading_date}: {result.fault}")
    return run


def day_plan(day: DayColumns) -> SessionPlan:
    """Return a plan that takes entries all day and carries positions over its end."""
    midnight_ms = ist_midnight_ms(day.trading_date)
    end_ms = midnight_ms + MS_PER_DAY
    return SessionPlan(
        trading_date=day.trading_date,
        universe=day.universe,
        open_ms=midnight_ms,
        entries_from_ms=midnight_ms,
        entry_until_ms=end_ms,
        flat_by_ms=end_ms,
        hard_stop_ms=end_ms,
        tick_paise=(5,) * len(day.universe),
        square_off=False,
        on_ticks=day.ticks is not None,
    )


def net_pnl_paise(run: ReplayRun) -> int:
    """Return realised and open P&L less the charges due, without the charges of closing what is open."""
    loss = run.engine.order_manager.day_loss
    return loss.realised_paise + loss.open_paise - loss.charges_paise


def main() -> None:
    """Run once and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--symbols", type=int, default=10)
    parser.add_argument("--days", type=int, default=20)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--journal", type=Path, metavar="FILE", help="keep the journal here")
    parser.add_argument("--interpreted", action="store_true", help="measure the sources, not their compiled copy")
    arguments = parser.parse_args()
    workload = make_workload(arguments.symbols, arguments.days)
    with tempfile.TemporaryDirectory() as folder:
        run = replay(workload, Path(folder))
        orders = run.engine.order_manager.orders
        figures = {
            "symbols": arguments.symbols,
            "days": arguments.days,
            "bars": workload.bars,
            "bars_per_s": round(workload.bars / run.run_s),
            "bars_per_s_with_conversion": round(workload.bars / (run.run_s + run.prepare_s)),
            "orders": len(orders),
            "order_density": round(len(orders) / workload.bars, 4),
            "fills": run.engine.order_manager.fill_count,
            "pnl_rupees": net_pnl_paise(run) / 100,
            "journal": f"file, hash chain per event, written every {WRITE_EVERY_EVENTS} events and at the day's end; "
            "loaded into SQL afterwards",
            "square_off": False,
            "compiled": bool(COMPILED),
            "run_s": round(run.run_s, 4),
            "prepare_s": round(run.prepare_s, 4),
            "import_s": round(IMPORTED_AT - STARTED_AT, 3),
            "process_s": round(time.time() - STARTED_AT, 3),
            "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
            "python": sys.version.split()[0],
        }
        if arguments.journal is not None:
            run.journal.close()
            shutil.copyfile(Path(folder) / JOURNAL_FILE, arguments.journal)
    if arguments.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:>28}  {value}")


if __name__ == "__main__":
    main()
