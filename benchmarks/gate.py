"""What safety costs an order that leaves: the gate in memory, the claim in Redis, the durable intent.

    python -m benchmarks.gate --json
    python -m benchmarks.gate --peers-dir DIR --venvs-dir DIR        # NautilusTrader's risk engine beside, in turns

- `gate_over_evalsha_p50_ratio`: one uncontended `request_entry` (preconditions, seven layers, claim in Redis, decision
  handed to the SQL journal) against a bare EVALSHA of the same script with the same payload, on the same connection.
- `round_trips`: what one decision sends to Redis.
- `ready_to_send_ratio`: from the signal to the moment at which the broker is called (claimed, and decision and intent
  durable with their chain and projections) against that EVALSHA and one SQLAlchemy Core insert of the intent's row,
  committed, into the same kind of database on the same file system.
- `gate_memory_p50_us`: see `benchmarks.order_cost`; beside NautilusTrader's `RiskEngine.execute` (CASH, LIMIT) when
  `--peers-dir` has `p_nautilus_order.py` and `--venvs-dir` an environment `nautilus`.

Ours and the bare thing take turns, so that both see the same machine. Only the ratios mean something.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import date
from pathlib import Path
from statistics import mean, median
from typing import Any

if __package__ in (None, ""):  # run as a file: its folder is on the path, the project is not
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import redis
from sqlalchemy import insert

from benchmarks.order_cost import TYPICAL_LIMITS, gate_memory_ns, gate_memory_p50_us
from velox_core.domain.charges import ChargeSchedule
from velox_core.domain.market.ticks import Instrument, SecurityClass
from velox_core.domain.orders import (
    Actor,
    OrderIntent,
    OrderState,
    Side,
    Signal,
    SignalKind,
    client_order_id,
    client_order_id_prefix,
)
from velox_core.journal.database import open_database
from velox_core.journal.run import RunIdentity
from velox_core.journal.schema import JournalTable
from velox_core.journal.sql import SqlJournal
from velox_core.ledger import script
from velox_core.ledger.codec import change_fields
from velox_core.ledger.connect import connect_to
from velox_core.ledger.redis import RedisLedger
from velox_core.order_manager import OrderManager
from velox_core.ports import BrokerFill, BrokerOrder, BrokerPosition, Funds, OrderUpdate, SendOutcome, SendStatus
from velox_core.redis_server import EmbeddedRedis
from velox_core.risk.approval import ApprovedOrder
from velox_core.risk.breach import DayLoss
from velox_core.risk.gate import Quote
from velox_core.risk.layers import Refusal
from velox_core.risk.ledger import Claim, Committed, LedgerChange, OpenPosition, RiskSnapshot
from velox_core.risk_manager import RiskManager

DAY = date(2024, 1, 15)
SCOPE, BARE_SCOPE = "simulated:measured", "simulated:baseline"
TIMEOUT_SECONDS = 5.0  # a busy machine must not look like a server that hangs
TURN, TURN_WARM_UP = 25, 5  # calls in a row: both find the processor's caches full of their own code
WARM_UP_TURNS = 8
DECISIONS_PER_COMMIT = 100  # only to empty the journal's buffer: a decision alone does not wait for the disk
PEER_ROUNDS = 3
PEER_BLOCKS = 10  # the peer's figure is the median of the means of so many blocks; ours beside it is made the same way
PEER_TIMEOUT_SECONDS = 300.0
PEER_CODE = "import p_nautilus_order as p; print('RESULT', p.iso(p.AccountType.CASH, False, 'limit')[0])"
START_MS = 1_705_300_000_000
HELD = {f"S{number}": OpenPosition(f"S{number}", "sma", 1, 100_000, START_MS) for number in range(5)}
INSTRUMENT = Instrument(symbol="NEW", security_class=SecurityClass.CASH, tick_paise=5)
SIGNAL = Signal("sma", "NEW", Side.BUY, 1, SignalKind.ENTRY, "measured", stop_paise=99_000, target_paise=102_000)
clock = time.perf_counter_ns


class CountingBroker:
    """Acknowledges every order and notes when it was called: everything before that is the way to the broker."""

    name = "measured"

    def __init__(self) -> None:
        self.called_ns = 0

    def place(self, order: ApprovedOrder, now_ms: int) -> SendOutcome:
        """Note the time, acknowledge."""
        self.called_ns = clock()
        return SendOutcome(SendStatus.ACKNOWLEDGED, order.client_order_id, "")

    def cancel(self, broker_order_id: str, now_ms: int) -> SendOutcome:
        """Acknowledge."""
        return SendOutcome(SendStatus.ACKNOWLEDGED, broker_order_id, "")

    def orders(self) -> list[BrokerOrder]:
        """Return nothing: nothing is asked here."""
        return []

    def trades(self) -> list[BrokerFill]:
        """Return nothing."""
        return []

    def positions(self) -> list[BrokerPosition]:
        """Return nothing."""
        return []

    def funds(self) -> Funds:
        """Return no funds: nothing is asked here."""
        return Funds(available_paise=0, margin_used_paise=0)

    def drain_events(self) -> list[OrderUpdate | BrokerFill]:
        """Return nothing."""
        return []


class Measured:
    """VELOX's order path on a real Redis and a real journal, and the bare store calls on the same connection."""

    def __init__(self, url: str, folder: Path, stack: ExitStack) -> None:
        self.clients: list[redis.Redis] = []
        connect = connect_to(url)

        def keep(seconds: float) -> redis.Redis:
            self.clients.append(connect(seconds))
            return self.clients[-1]

        self.ledger = RedisLedger(keep, SCOPE, DAY, timeout_seconds=TIMEOUT_SECONDS)
        epoch = self.ledger.acquire_lease("benchmark")
        self.ledger.rebuild(RiskSnapshot(epoch=epoch, positions=HELD))
        stack.callback(self.ledger.close)
        self.client = self.clients[0]
        self.journal = SqlJournal(f"sqlite:///{folder / 'journal.db'}", RunIdentity(scope_key=SCOPE, trading_date=DAY))
        stack.callback(self.journal.close)
        self.broker = CountingBroker()
        self.prefix = client_order_id_prefix(f"{DAY:%y%m%d}", Actor.ENGINE, epoch)
        self.risk = RiskManager(
            limits=TYPICAL_LIMITS, ledger=self.ledger, journal=self.journal, id_prefix=self.prefix, epoch=epoch
        )
        self.risk.open_ledger()
        self.risk.readiness.armed = True
        self.risk.readiness.entry_until_ms = 2**62
        schedule = ChargeSchedule(label="free")
        self.orders = OrderManager(
            broker=self.broker,
            journal=self.journal,
            risk_manager=self.risk,
            day_loss=DayLoss(schedule),
            columns={"NEW": 0},
            schedule=schedule,
        )
        self.now_ms = START_MS
        self.decisions = 0
        self.bare = BareStores(url, folder, self.client, stack)

    def decide(self) -> tuple[ApprovedOrder, int]:
        """Return an approved entry, and when it was asked for (ns)."""
        self.now_ms += TYPICAL_LIMITS.dedup_window_ms
        self.risk.readiness.feed_ts_ms = self.now_ms
        began = clock()
        approved = self.risk.request_entry(
            SIGNAL, INSTRUMENT, Quote(100_000, self.now_ms), loss_paise=10_000, cost_paise=100, now_ms=self.now_ms
        )
        if isinstance(approved, Refusal):
            raise SystemExit(f"the measured entry is refused: {approved.text}")
        return approved, began

    def decision_ns(self) -> int:
        """Return the time of one decision; its claim is freed afterwards, outside the time."""
        approved, began = self.decide()
        took = clock() - began
        self.risk.resolve_claim(approved.client_order_id)
        self.decisions += 1
        if self.decisions % DECISIONS_PER_COMMIT == 0:
            self.journal.commit()
        return took

    def ready_ns(self) -> int:
        """Return the time from a signal to the call of the broker; the order ends afterwards, outside the time."""
        approved, began = self.decide()
        order = self.orders.submit(approved, OrderIntent("sma", SIGNAL.reason, 99_000, 102_000), self.now_ms)
        took = self.broker.called_ns - began
        end = OrderUpdate(self.now_ms, order.client_order_id, order.broker_order_id, OrderState.CANCELLED, 0, "")
        self.orders.apply_update(end, self.now_ms)
        self.orders.commit_journal()
        return took

    def round_trips(self, decisions: int) -> float:
        """Return how many requests one decision sends to Redis."""
        connection: Any = self.client.connection
        send, sent = connection.send_packed_command, []

        def counting(command: Any, check_health: bool = True) -> None:
            sent.append(1)
            send(command, check_health=check_health)

        for _ in range(decisions):
            connection.send_packed_command = counting
            approved, _ = self.decide()
            connection.send_packed_command = send
            self.risk.resolve_claim(approved.client_order_id)
        self.journal.commit()
        return len(sent) / decisions


class BareStores:
    """What any implementation has to pay: the same script with the same payload, and one durable row by SQLAlchemy Core."""

    def __init__(self, url: str, folder: Path, client: redis.Redis, stack: ExitStack) -> None:
        self._client = client
        self._undo = RedisLedger(url, BARE_SCOPE, DAY, timeout_seconds=TIMEOUT_SECONDS)
        self._epoch = self._undo.acquire_lease("baseline")
        snapshot = self._undo.rebuild(RiskSnapshot(epoch=self._epoch, positions=HELD))
        stack.callback(self._undo.close)
        self._version, self._generation = snapshot.version, snapshot.generation
        prefix = f"velox:{{{BARE_SCOPE}}}:"
        self._keys = [f"{prefix}{name}" for name in ("scope", f"ledger:{DAY}", f"changes:{DAY}", "halts")]
        self._number = 0
        url_of_rows = f"sqlite:///{folder / 'bare.db'}"
        SqlJournal(url_of_rows, RunIdentity(scope_key=BARE_SCOPE, trading_date=DAY)).close()  # the run that the rows name
        engine = open_database(url_of_rows)
        stack.callback(engine.dispose)
        self._connection = engine.connect()
        stack.callback(self._connection.close)
        self._table = JournalTable.metadata.tables["intent"]
        self._insert = insert(self._table)

    def evalsha_ns(self) -> int:
        """Return the time of the bare script call; its claim is freed afterwards, outside the time."""
        arguments, order_id = self._payload()
        began = clock()
        redis.Redis.evalsha(self._client, script.SHA[script.COMMIT], 4, *arguments)
        took = clock() - began
        self._free(order_id)
        return took

    def evalsha_and_insert_ns(self) -> int:
        """Return the time of the bare script call and one committed row."""
        arguments, order_id = self._payload()
        row = self._row(order_id)
        began = clock()
        redis.Redis.evalsha(self._client, script.SHA[script.COMMIT], 4, *arguments)
        with self._connection.begin():
            self._connection.execute(self._insert, row)
        took = clock() - began
        self._free(order_id)
        return took

    def _payload(self) -> tuple[list[Any], str]:
        self._number += 1
        order_id = client_order_id("240115E0001", self._number)
        now_ms = START_MS + self._number * TYPICAL_LIMITS.dedup_window_ms
        claim = Claim(order_id, "sma", "NEW", Side.BUY, 1, 101_000, now_ms)
        _, pairs = change_fields(LedgerChange(opens_risk=True, put_claim=claim))
        head = [self._generation, self._epoch, self._version, order_id, self._version + 1, "1", 0]
        return [*self._keys, *head, *pairs], order_id

    def _free(self, order_id: str) -> None:
        freed = self._undo.commit(self._version + 1, self._epoch, LedgerChange(drop_claim=order_id), f"{order_id}:end")
        if not isinstance(freed, Committed):
            raise SystemExit("the bare script call changed nothing: it is no measure")
        self._version = freed.version

    def _row(self, order_id: str) -> dict[str, Any]:
        texts = {"client_order_id": order_id, "strategy": "sma", "symbol": f"N{self._number}", "side": "BUY"}
        fixed = {"order_type": "MARKET", "product": "MIS", "role": "ENTRY", "rank": None, "reason": SIGNAL.reason}
        prices = {"limit_price_paise": 0, "stop_paise": 99_000, "target_paise": 102_000}
        state = {"state": "INTENT", "live": True, "filled_quantity": 0, "broker_order_id": "", "updated_ms": START_MS}
        numbers = {"run_key": 1, "sequence": self._number, "ts_ms": START_MS, "quantity": 1, "ledger_version": self._version}
        return {**texts, **fixed, **prices, **state, **numbers}


def take_turns(ours: Callable[[], int], bare: Callable[[], int], rounds: int) -> tuple[list[int], list[int]]:
    """Measure both in turns of `TURN` calls, the first `TURN_WARM_UP` of each not counted. Returns times in ns, sorted."""
    took: dict[Callable[[], int], list[int]] = {ours: [], bare: []}
    per_turn = TURN - TURN_WARM_UP
    for number in range(-WARM_UP_TURNS, -(-rounds // per_turn)):
        for measured in (ours, bare) if number % 2 else (bare, ours):
            times = [measured() for _ in range(TURN)]
            if number >= 0:
                took[measured] += times[TURN_WARM_UP:]
    return sorted(took[ours]), sorted(took[bare])


def percentiles(name: str, took_ns: list[int]) -> dict[str, float]:
    """Return p50, p99 and p99.9 in microseconds of sorted times."""
    last = len(took_ns) - 1
    return {
        f"{name}_{label}_us": round(took_ns[round(last * share)] / 1_000, 1)
        for label, share in (("p50", 0.5), ("p99", 0.99), ("p99_9", 0.999))
    }


def beside_nautilus(peers_dir: Path, venvs_dir: Path) -> dict[str, float]:
    """Measure NautilusTrader's risk engine and our gate in turns. Raises SystemExit without script or environment."""
    python = venvs_dir / "nautilus" / "bin" / "python"
    for path in (python, peers_dir / "p_nautilus_order.py"):
        if not path.exists():
            raise SystemExit(f"NautilusTrader: {path} does not exist")
    singles, ours, theirs = [], [], []
    for _ in range(PEER_ROUNDS):
        took_ns = gate_memory_ns()
        singles.append(median(took_ns) / 1_000)
        block = len(took_ns) // PEER_BLOCKS
        ours.append(median(mean(took_ns[first : first + block]) for first in range(0, len(took_ns), block)) / 1_000)
        done = subprocess.run(
            [str(python), "-c", PEER_CODE],
            cwd=peers_dir,
            capture_output=True,
            text=True,
            timeout=PEER_TIMEOUT_SECONDS,
            check=True,
        )
        theirs.append(float(done.stdout.rpartition("RESULT ")[2]))
    return {
        "gate_memory_p50_us": round(median(singles), 2),
        "gate_memory_block_us": round(median(ours), 2),
        "nautilus_risk_engine_us": round(median(theirs), 2),
        "gate_memory_over_nautilus_ratio": round(median(ours) / median(theirs), 3),
    }


def measure(rounds: int, folder: Path | None) -> dict[str, float]:
    """Measure everything that needs a server and a disk; `folder` says on which file system."""
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=folder)))
        server = EmbeddedRedis(scratch / "redis")
        stack.callback(server.stop)
        path = Measured(server.start(), scratch, stack)
        decision, evalsha = take_turns(path.decision_ns, path.bare.evalsha_ns, rounds)
        ready, stores = take_turns(path.ready_ns, path.bare.evalsha_and_insert_ns, rounds)
        middle = len(decision) // 2
        return {
            "rounds": len(decision),
            "gate_over_evalsha_p50_ratio": round(decision[middle] / evalsha[middle], 3),
            "round_trips": path.round_trips(100),
            "ready_to_send_ratio": round(ready[middle] / stores[middle], 3),
            **percentiles("gate", decision),
            **percentiles("evalsha", evalsha),
            **percentiles("ready_to_send", ready),
            **percentiles("evalsha_and_insert", stores),
        }


def main() -> None:
    """Measure and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2_000)
    parser.add_argument("--folder", type=Path, default=None, help="where the database and the Redis socket are made")
    parser.add_argument("--peers-dir", type=Path, default=None)
    parser.add_argument("--venvs-dir", type=Path, default=None)
    parser.add_argument("--json", action="store_true", help="one JSON object, for programs")
    given = parser.parse_args()
    figures = measure(given.rounds, given.folder)
    if given.peers_dir is not None and given.venvs_dir is not None:
        figures |= beside_nautilus(given.peers_dir, given.venvs_dir)
    else:
        figures["gate_memory_p50_us"] = gate_memory_p50_us()
    if given.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:36} {value}")


if __name__ == "__main__":
    main()
