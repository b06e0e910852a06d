"""What an emergency costs: the decision on a tick, and closing fifty positions through a broker that limits its rate.

    python -m benchmarks.emergency --json

- `tick_to_breach_p50_us`: one price is marked, the day's loss and the breach are judged; by the number of open positions,
  below the first warning, where a day spends its time, and just past it. The counts take turns, medians are shown.
- The flatten: the real engine, its journal on disk, and its sends off the loop. The broker answers after 30 ms and refuses
  what comes faster than 8 requests in any second, cancels counted. The bound is what that limit allows: the last of n
  requests cannot arrive before (n - 1) // 8 seconds after the first, and its answer is on its way for 15 ms. Time runs from
  the first request's arrival until the last is answered. Once the positions are all there is; once each has an order that
  works at the broker (the rest of its entry) and must be cancelled first, so that 50 positions need 100 requests.
- The command: from the start of `velox flatten` to its first request to the broker, beside bare Python that imports httpx,
  connects and asks. The two take turns; medians are shown. The simulated broker's first request is a read of its book.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

if __package__ in (None, ""):  # run as a file: its folder is on the path, the project is not
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.breach_age import FALLEN_PAISE, LIMITS, PRICE_PAISE, HangingBroker, Probe, TickFeed, build
from velox_core.brokers.rate_limit import RateLimit
from velox_core.domain.market.bars import MinuteRow
from velox_core.domain.orders import OrderState
from velox_core.ports import OrderUpdate, SendOutcome, SendStatus
from velox_core.risk.approval import ApprovedOrder

POSITION_COUNTS = (1, 10, 50, 500)
TICKS, ROUNDS = 4_000, 5
ORDERS_PER_SECOND = 8
ROUND_TRIP_SECONDS = 0.03
FLATTEN_SECONDS_MAX = 90.0
STARTS = 7
BARE = "import sys, httpx; httpx.Client(base_url=sys.argv[1], trust_env=False).get('/positions')"


class LimitedBroker(HangingBroker):
    """Fills at once, answers after a round trip, and refuses what comes too fast."""

    def __init__(self, orders_per_second: int, round_trip_seconds: float, *, leaves_rests: bool) -> None:
        super().__init__()
        self.refused = 0
        self.exits: list[tuple[float, float]] = []  # arrived, answered
        self.cancels: list[tuple[float, float]] = []
        self._leaves_rests = leaves_rests
        self._orders_per_second = orders_per_second
        self._travel_seconds = round_trip_seconds / 2
        self._arrivals: list[float] = []
        self._gate = threading.Lock()

    def place(self, order: ApprovedOrder, now_ms: int) -> SendOutcome:
        """Take an order, or refuse it."""
        time.sleep(self._travel_seconds)
        arrived = time.monotonic()
        is_taken = self._is_within_the_rate(arrived)
        outcome = self._take(order, now_ms) if is_taken else SendOutcome(SendStatus.REJECTED, "", "too many requests")
        time.sleep(self._travel_seconds)
        if order.rank is not None and is_taken:
            self.exits.append((arrived, time.monotonic()))
        return outcome

    def cancel(self, broker_order_id: str, now_ms: int) -> SendOutcome:
        """Cancel the rest of an order, or refuse: it is filled, or comes too fast. It counts in any case."""
        time.sleep(self._travel_seconds)
        arrived = time.monotonic()
        is_taken = self._is_within_the_rate(arrived)
        is_cancelled = is_taken and self._cancel_rest(broker_order_id, now_ms)
        time.sleep(self._travel_seconds)
        if not is_cancelled:
            return SendOutcome(SendStatus.REJECTED, broker_order_id, "filled" if is_taken else "too many requests")
        self.cancels.append((arrived, time.monotonic()))
        return SendOutcome(SendStatus.ACKNOWLEDGED, broker_order_id)

    def _take(self, order: ApprovedOrder, now_ms: int) -> SendOutcome:
        if order.rank is not None or not self._leaves_rests:
            return self.fill(order, now_ms)
        return self.fill(order, now_ms, of_quantity=order.quantity // 2)

    def _cancel_rest(self, broker_order_id: str, now_ms: int) -> bool:
        with self._lock:
            for number, line in enumerate(self._book):
                if line.broker_order_id == broker_order_id and line.state is OrderState.PARTIALLY_FILLED:
                    self._book[number] = replace(line, state=OrderState.CANCELLED)
                    update = OrderUpdate(now_ms, line.tag, broker_order_id, OrderState.CANCELLED, line.filled_quantity, "")
                    self._news.append(update)
                    return True
        return False

    def _is_within_the_rate(self, arrived: float) -> bool:
        with self._gate:
            self._arrivals = [other for other in self._arrivals if other > arrived - 1.0]
            self._arrivals.append(arrived)
            is_within = len(self._arrivals) <= self._orders_per_second
            self.refused += not is_within
        return is_within


class CrashFeed:
    """Steady prices until every position is open, then fallen ones until every one is closed."""

    def __init__(self, universe: tuple[str, ...], broker: LimitedBroker) -> None:
        self.universe = universe
        self._broker = broker
        self._until = time.monotonic() + FLATTEN_SECONDS_MAX
        self._number = 0

    @property
    def ended(self) -> bool:
        """Return whether everything is closed, or too much time has passed."""
        return len(self._broker.exits) >= len(self.universe) or time.monotonic() > self._until

    def next_row(self, wait_seconds: float) -> MinuteRow | None:
        """Return one symbol's price: slower than entries may leave while they are made, then a hundred a second."""
        is_opening = len(self._broker.drained) < len(self.universe)
        time.sleep(min(wait_seconds, 0.2 if is_opening else 0.01))
        price = PRICE_PAISE if is_opening else FALLEN_PAISE
        prices = [0] * len(self.universe)
        prices[self._number % len(self.universe)] = price
        self._number += 1
        return MinuteRow(int(time.time() * 1_000), prices, prices, prices, prices, prices)

    def hasten(self) -> None:
        """Go on as before: it is a live feed."""


def tick_costs() -> dict[str, dict[int, float]]:
    """Return the median cost of a tick in us, by the number of positions: far from the first warning, and past it."""
    found: dict[str, dict[int, list[float]]] = {
        "far": {n: [] for n in POSITION_COUNTS},
        "past": {n: [] for n in POSITION_COUNTS},
    }
    with tempfile.TemporaryDirectory() as folder:
        engines = {}
        for count in POSITION_COUNTS:
            (place := Path(folder) / str(count)).mkdir()
            universe = tuple(f"S{number:03d}" for number in range(count))
            broker = HangingBroker()
            engines[count], _ = build(place, broker, TickFeed(universe, broker, 1.0, 1.0), Probe(broker))
            for column in range(count):
                engines[count].order_manager.day_loss.book(column, 1, PRICE_PAISE, PRICE_PAISE)
        for _ in range(ROUNDS):
            for where, lost_paise in (("far", 0), ("past", 120_000)):
                for count, engine in engines.items():
                    loss, emergency = engine.order_manager.day_loss, engine.emergency
                    loss.realised_paise = -lost_paise
                    emergency.check(1)  # the warning, if there is one to tell
                    times = []
                    for number in range(TICKS):
                        column, price = number % count, PRICE_PAISE + number % 2
                        began = time.perf_counter_ns()
                        loss.mark(column, price)
                        emergency.check(1)
                        times.append(time.perf_counter_ns() - began)
                    found[where][count].append(statistics.median(times) / 1_000)
        for engine in engines.values():
            engine.ports.journal.close()  # type: ignore[attr-defined]  # it is the SQL journal
    return {where: {n: round(statistics.median(v), 3) for n, v in by.items()} for where, by in found.items()}


def flatten(positions: int, *, with_cancels: bool) -> dict[str, object]:
    """Open positions, let the price fall past the limit, and time their way out."""
    universe = tuple(f"S{number:03d}" for number in range(positions))
    broker = LimitedBroker(ORDERS_PER_SECOND, ROUND_TRIP_SECONDS, leaves_rests=with_cancels)
    limits = replace(LIMITS, fixed_lot_size=2 if with_cancels else 1)
    with tempfile.TemporaryDirectory() as folder:
        feed = CrashFeed(universe, broker)
        engine, plan = build(Path(folder), broker, feed, Probe(broker), RateLimit(ORDERS_PER_SECOND), limits)
        result = engine.session(plan).run()
        engine.ports.journal.close()  # type: ignore[attr-defined]  # it is the SQL journal
    requests = broker.exits + broker.cancels
    took = max(end for _, end in requests) - min(start for start, _ in requests) if requests else 0.0
    bound = (len(requests) - 1) // ORDERS_PER_SECOND + ROUND_TRIP_SECONDS / 2
    return {
        "seconds": round(took, 3),
        "bound_seconds": round(bound, 3),
        "over_bound_ratio": round(took / bound, 3),
        "exits": len(broker.exits),
        "cancels": len(broker.cancels),
        "refused_for_the_rate": broker.refused,
        "flat": result.flat,
        "halted": result.halted,
        "fault": result.fault,
    }


class Asked(BaseHTTPRequestHandler):
    """Notes when it is asked."""

    times: list[float] = []  # noqa: RUF012  # one server, one list

    def do_GET(self) -> None:  # noqa: D102  # http.server's name
        self.times.append(time.monotonic())
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


def first_requests() -> dict[str, object]:
    """Return the medians from a process' start to its first request: the command, and bare Python with httpx."""
    server = HTTPServer(("127.0.0.1", 0), Asked)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    command, bare = [], []
    velox = [sys.executable, "-m", "velox_core.cli"]
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "VELOX__VAR": folder}

        def run(*arguments: str) -> str:
            return subprocess.run(
                [*velox, *arguments], env=environment, check=True, capture_output=True, text=True, timeout=FLATTEN_SECONDS_MAX
            ).stdout

        run("run", "--date", "2024-01-15", "--speed", "max", "--json")
        for _ in range(STARTS):
            began = time.monotonic()
            shown = json.loads(run("flatten", "--reason", "benchmark", "--yes", "--json"))
            command.append(shown["first_request_monotonic"] - began)
            began = time.monotonic()
            subprocess.run([sys.executable, "-c", BARE, url], env=environment, check=True, timeout=FLATTEN_SECONDS_MAX)
            bare.append(Asked.times[-1] - began)
        from velox_core.redis_server import EmbeddedRedis

        EmbeddedRedis(Path(folder) / "redis").stop()
    server.shutdown()
    server.server_close()
    return {
        "first_request_seconds": round(statistics.median(command), 3),
        "bare_first_request_seconds": round(statistics.median(bare), 3),
        "first_request_over_bare_ratio": round(statistics.median(command) / statistics.median(bare), 3),
        "first_request_over_bare_best_ratio": round(min(command) / min(bare), 3),
    }


def main() -> None:
    """Run once and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--positions", type=int, default=50)
    parser.add_argument("--flatten-only", action="store_true", help="leave out the ticks and the command")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    costs = {"far": {}, "past": {}} if arguments.flatten_only else tick_costs()
    found = {
        "tick_to_breach_p50_us": costs["far"],
        "tick_past_a_warning_p50_us": costs["past"],
        "flatten": flatten(arguments.positions, with_cancels=False),
        "flatten_with_cancels": flatten(arguments.positions, with_cancels=True),
        **({} if arguments.flatten_only else first_requests()),
        "positions": arguments.positions,
        "load_1_min": round(os.getloadavg()[0], 2),
        "python": sys.version.split()[0],
    }
    if arguments.json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            print(f"{name:>28}  {value}")


if __name__ == "__main__":
    main()
