"""Whether an order costs the same at the end of a long run as at its beginning, and what the gate costs in memory.

    python -m benchmarks.order_cost --orders 40000

- Every symbol trades every minute, in and out, so nearly all of a minute is orders. The time from one call of the strategy
  to the next is one minute of the whole engine: fills, ledger, journal and gate included.
- `last_to_first_tenth`: the median minute of the last tenth of the run against that of its first tenth; of the rounds, the
  one in the middle, because a shared machine changes its speed during a run.
- `gate_memory_p50_us`: preconditions and seven layers of one entry that is approved, with five positions open, without
  the claim in the ledger and without the journal.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

if __package__ in (None, ""):  # run as a file: its folder is on the path, the project is not
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.replay import replay
from benchmarks.workload import BARS_PER_DAY, make_workload
from velox_core.domain.market.bars import MinuteRow
from velox_core.domain.market.ticks import Instrument, SecurityClass
from velox_core.domain.orders import Side, Signal, SignalKind
from velox_core.risk.gate import OrderRate, Quote, Readiness, check_day, check_signal, check_symbol, judge_entry
from velox_core.risk.layers import EntryRequest
from velox_core.risk.ledger import OpenPosition, RiskSnapshot
from velox_core.risk.limits import RiskLimits
from velox_core.risk.sizing import entry_quantity, worst_price_paise
from velox_core.strategies.base import Strategy, StrategySession

SYMBOLS = 20
GATE_ROUNDS = 20_000
TYPICAL_LIMITS = RiskLimits(
    max_daily_loss_paise=200_000,
    max_daily_loss_bps=200,
    initial_capital_paise=10_000_000,
    fixed_lot_size=1,
    dedup_window_ms=60_000,
    max_position_size_paise=5_000_000,
    max_positions_per_strategy=6,
    max_total_positions=10,
)


class InAndOut(Strategy):
    """Enters where it is flat and leaves where it is not, every minute, and notes when it was called."""

    def __init__(self) -> None:
        super().__init__("in-and-out", {})
        self.called_ns: list[int] = []
        self._universe: tuple[str, ...] = ()

    def start_session(self, session: StrategySession) -> None:
        """Take the day's symbols."""
        self._universe = session.universe

    def on_minute(self, ts_ms: int, row: MinuteRow, positions: Sequence[int]) -> list[Signal]:
        """Ask for an order in every symbol."""
        self.called_ns.append(time.perf_counter_ns())
        return [
            Signal(self.strategy_id, symbol, Side.BUY, 1, SignalKind.ENTRY, "in")
            if not held
            else Signal(self.strategy_id, symbol, Side.SELL, held, SignalKind.EXIT, "out")
            for symbol, held in zip(self._universe, positions, strict=True)
        ]


def order_cost(orders: int) -> dict[str, float | int]:
    """Run so many orders through one engine and compare the ends of the run."""
    minutes = -(-orders // SYMBOLS)
    days = -(-minutes // BARS_PER_DAY)
    strategy = InAndOut()
    with tempfile.TemporaryDirectory() as folder:
        run = replay(make_workload(SYMBOLS, days), Path(folder), strategy)
    calls = strategy.called_ns
    took_ns = [
        calls[number + 1] - calls[number]
        for number in range(len(calls) - 1)
        if (number + 1) % BARS_PER_DAY  # not the nights
    ]
    tenth = len(took_ns) // 10
    first, last = median(took_ns[:tenth]), median(took_ns[-tenth:])
    return {
        "orders": len(run.engine.order_manager.orders),
        "order_us_first_tenth": round(first / SYMBOLS / 1_000, 2),
        "order_us_last_tenth": round(last / SYMBOLS / 1_000, 2),
        "last_to_first_tenth": round(last / first, 3),
    }


def gate_memory_p50_us() -> float:
    """Return the median time of one approved evaluation, in microseconds."""
    return round(median(gate_memory_ns()) / 1_000, 2)


def gate_memory_ns() -> list[int]:
    """Return the times of `GATE_ROUNDS` approved evaluations, in nanoseconds, in the order in which they were made."""
    limits, now_ms = TYPICAL_LIMITS, 1_700_000_000_000
    readiness, rate = Readiness(), OrderRate()
    readiness.armed = True
    readiness.entry_until_ms = now_ms + 1
    readiness.feed_ts_ms = now_ms
    instrument = Instrument(symbol="NEW", security_class=SecurityClass.CASH, tick_paise=5)
    signal = Signal("sma", "NEW", Side.BUY, 1, SignalKind.ENTRY, "measured", stop_paise=99_000, target_paise=102_000)
    held = {f"S{number}": OpenPosition(f"S{number}", "sma", 1, 100_000, now_ms) for number in range(5)}
    snapshot = RiskSnapshot(version=7, epoch=1, positions=held)
    locks: dict[str, str] = {}
    clock = time.perf_counter_ns
    took_ns = []
    for _ in range(GATE_ROUNDS):
        began = clock()
        quote = Quote(100_000, now_ms)
        refusal = (
            check_day(readiness, limits, now_ms)
            or check_symbol(instrument, quote, locks.get(signal.symbol, ""), limits, now_ms)
            or check_signal(signal, quote)
        )
        left = rate.left(now_ms, limits.orders_per_second_max)
        worst_paise = worst_price_paise(quote.price_paise, limits.protection_bps)
        request = EntryRequest("sma", "NEW", signal.side, entry_quantity(limits), worst_paise, now_ms, 10_000, 100)
        refusal = refusal or judge_entry(request, snapshot, limits)
        took_ns.append(clock() - began)
        if refusal is not None or not left:
            raise SystemExit(f"the measured entry is refused: {refusal.text if refusal else 'order rate'}")
    return took_ns


def main() -> None:
    """Measure and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--orders", type=int, default=40_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    rounds = [order_cost(arguments.orders) for _ in range(arguments.rounds)]
    middle = sorted(rounds, key=lambda figures: figures["last_to_first_tenth"])[len(rounds) // 2]
    print(json.dumps({**middle, "rounds": len(rounds), "gate_memory_p50_us": gate_memory_p50_us()}))


if __name__ == "__main__":
    main()
