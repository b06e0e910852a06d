"""Engines that kill themselves with SIGKILL: `python -m tests.integration.crash_day`, one request a line on standard input.

- Each request forks a process that runs the real command line on the real stores. One that is to die has the adapters'
  methods wrapped, here and nowhere else: the n-th passing of a named point ends it as a power cut would.
- A point is a moment and a side of it: 'intent ENTRY:before', 'cancel:after'. The embedded Redis can die with the engine,
  with or without what it had written.
- The forks share one start-up: importing takes longer than the whole day. The strategy and the bars of the day are here too.
- A busy machine is no store that hangs and no broker that is out of reach: those bounds are long here, lest an engine goes
  another way than to the point at which it is to die.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import sys
import time as time_module
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

from velox_core.brokers.off_loop import OffLoopBroker
from velox_core.brokers.sends import SendBounds
from velox_core.brokers.simulated import SimulatedBroker
from velox_core.cli.entry import main as command_line
from velox_core.domain.events import Body, EventKind
from velox_core.domain.market.bars import MinuteRow
from velox_core.domain.orders import ExitRank, Side, Signal, SignalKind
from velox_core.domain.time import IST
from velox_core.halt_file import JsonLinesHaltFile
from velox_core.journal.sql import SqlJournal
from velox_core.ledger.redis import RedisLedger
from velox_core.ports import BrokerFill, SendReport
from velox_core.risk.approval import ApprovedOrder
from velox_core.risk.ledger import LedgerChange
from velox_core.strategies.base import Strategy, StrategySession

DAY = date(2024, 1, 15)
ANY = "any"  # counts every point
PATIENT_SECONDS = 60.0
SYMBOLS = ("AAA", "BBB", "CCC", "DDD")
LOT = 4
MINUTES = 34
FALL_AT = 20
# minutes in which each symbol is to be held; DDD is entered just before the fall, and half filled when it comes
HELD = {"AAA": ((2, 8), (13, 30)), "BBB": ((3, 9), (14, 30)), "CCC": ((4, 10), (15, 30)), "DDD": ((FALL_AT, 30),)}


class Levels(Strategy):
    """Asks, minute after minute, for what it should hold and does not, and to leave what it should not hold.

    It repeats itself as long as it is not served: an order forgotten in a crash would be sent a second time.
    """

    def __init__(self, strategy_id: str, parameters: Mapping[str, object]) -> None:
        super().__init__(strategy_id, parameters)
        self.session: StrategySession | None = None

    def start_session(self, session: StrategySession) -> None:
        """Keep the universe."""
        self.session = session

    def on_minute(self, ts_ms: int, row: MinuteRow, positions: Sequence[int]) -> list[Signal]:
        """Compare what is held with what the table says."""
        if self.session is None:
            return []
        minute = (ts_ms - self.session.open_ms) // 60_000
        signals = []
        for column, symbol in enumerate(self.session.universe):
            wanted = any(first <= minute < last for first, last in HELD[symbol])
            if wanted and not positions[column]:
                signals.append(Signal(self.strategy_id, symbol, Side.BUY, LOT, SignalKind.ENTRY, "due"))
            elif positions[column] and not wanted:
                signals.append(Signal(self.strategy_id, symbol, Side.SELL, LOT, SignalKind.EXIT, "over", rank=ExitRank.STOP))
        return signals


def write_bars(path: Path, *, falls: bool) -> None:
    """Write the day's bars: prices near 1,000 rupees, and a fall of 3 % within one minute if it is to fall."""
    lines = ["ts,symbol,open,high,low,close,volume"]
    opening = datetime.combine(DAY, time(9, 15), IST)
    for column, symbol in enumerate(SYMBOLS):
        last = 100_000 + 1_000 * column
        for minute in range(MINUTES):
            close = last - last * 3 // 100 // 10 * 10 if falls and minute == FALL_AT else last + (50 if minute % 2 else -50)
            high, low = max(last, close), min(last, close)
            prices = ",".join(f"{paise / 100:.2f}" for paise in (last, high, low, close))
            lines.append(f"{(opening + timedelta(minutes=minute)).isoformat()},{symbol},{prices},5000")
            last = close
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


class JournalThief:
    """Takes the journal away before the first exit's intent is written: 'locked' while the process lives, or 'torn'."""

    def __init__(self, how: str, var: Path) -> None:
        self._how = how
        self._var = var
        self._connection: sqlite3.Connection | None = None

    def passes(self, points: Sequence[str]) -> None:
        """Act at the first such point."""
        if not self._how or self._connection is not None or not {"intent EXIT:before", "intent EMERGENCY:before"} & set(points):
            return
        (path,) = self._var.glob("replay/primary/*/journal.db")
        self._connection = sqlite3.connect(path, isolation_level=None)
        if self._how == "locked":
            self._connection.execute("BEGIN IMMEDIATE")
        else:
            self._connection.execute("ALTER TABLE event RENAME TO torn_out")


class Reaper:
    """Counts the passings of the points, and ends the process at the chosen one."""

    def __init__(self, point: str, nth: int, redis: str, redis_folder: Path, thief: JournalThief) -> None:
        self._point = point
        self._left = nth
        self._redis = redis
        self._redis_folder = redis_folder
        self._thief = thief

    def passes(self, *points: str) -> None:
        """Note that these points are passed now."""
        self._thief.passes(points)
        self._left -= len(points) if self._point == ANY else self._point in points
        if self._left <= 0:
            if self._redis:
                os.kill(int((self._redis_folder / "redis.pid").read_text().split()[0]), signal.SIGKILL)
            if self._redis == "lost":
                for path in [*self._redis_folder.rglob("*.aof*"), *self._redis_folder.rglob("*.rdb")]:
                    path.unlink() if path.is_file() else None
            os.kill(os.getpid(), signal.SIGKILL)
            while True:  # the signal may reach another thread first: this one goes no further
                time_module.sleep(1)


def around(owner: type, method: str, reaper: Reaper, name: Callable[..., list[str]]) -> None:
    """Make a method pass `<name>:before` and `<name>:after` for each name that its arguments give."""
    inner = getattr(owner, method)

    def wrapped(self: Any, *arguments: Any) -> Any:
        points = name(*arguments)
        reaper.passes(*(f"{point}:before" for point in points))
        answer = inner(self, *arguments)
        reaper.passes(*(f"{point}:after" for point in points))
        return answer

    setattr(owner, method, wrapped)


def role_of(order: ApprovedOrder) -> str:
    """Return ENTRY, EXIT or EMERGENCY."""
    if order.rank is None:
        return "ENTRY"
    return "EMERGENCY" if order.rank is ExitRank.EMERGENCY else "EXIT"


def wrap_broker(reaper: Reaper) -> None:
    """Points 'place <role>', 'cancel', 'close' (in a flatten), and 'news': fills that the engine is about to be told of."""
    around(SimulatedBroker, "place", reaper, lambda order, now_ms: [f"place {role_of(order)}"])
    around(SimulatedBroker, "cancel", reaper, lambda broker_order_id, now_ms: ["cancel"])
    inner = SimulatedBroker.drain_events

    def drain_events(self: SimulatedBroker) -> list[Any]:
        events = inner(self)
        fills = [event for event in events if isinstance(event, BrokerFill)]
        reaper.passes(*{f"news {'ENTRY' if fill.side is Side.BUY else 'EXIT'}:after" for fill in fills})
        return events

    SimulatedBroker.drain_events = drain_events  # type: ignore[method-assign]


def wrap_off_loop(reaper: Reaper) -> None:
    """Points 'handed over <role>', and 'answered <role>': reports on sends that the engine is about to be told of."""
    roles: dict[str, str] = {}
    place, drain = OffLoopBroker.place, OffLoopBroker.drain_events

    def hand_over(self: OffLoopBroker, order: ApprovedOrder, now_ms: int) -> Any:
        roles[order.client_order_id] = role_of(order)
        outcome = place(self, order, now_ms)
        reaper.passes(f"handed over {role_of(order)}:after")
        return outcome

    def drain_events(self: OffLoopBroker) -> Any:
        events = drain(self)
        reports = [event for event in events if isinstance(event, SendReport)]
        reaper.passes(*{f"answered {roles[report.client_order_id]}:after" for report in reports})
        return events

    OffLoopBroker.place = hand_over  # type: ignore[method-assign]
    OffLoopBroker.drain_events = drain_events  # type: ignore[method-assign]


def wrap_journal(reaper: Reaper) -> None:
    """Points '<what> <role>', before and after the commit that makes it durable: intent, OPEN, part, FILLED, halt."""
    roles: dict[str, str] = {}
    pending: list[str] = []
    append, commit = SqlJournal.append, SqlJournal.commit

    def note(self: SqlJournal, kind: EventKind, ts_ms: int, body: Body) -> None:
        append(self, kind, ts_ms, body)
        if kind is EventKind.INTENT:
            emergency = body["rank"] == int(ExitRank.EMERGENCY)
            roles[str(body["client_order_id"])] = role = "EMERGENCY" if emergency else str(body["role"])
            pending.append(f"intent {role}")
        elif kind is EventKind.ORDER:
            pending.append(f"{str(body['state']).rpartition('.')[2]} {roles.get(str(body['client_order_id']), '?')}")
        elif kind is EventKind.HALT:
            pending.append("halt record")

    def make_durable(self: SqlJournal) -> None:
        points = set(pending)
        reaper.passes(*(f"{point}:before" for point in points))
        commit(self)
        pending.clear()
        reaper.passes(*(f"{point}:after" for point in points))

    SqlJournal.append = note  # type: ignore[method-assign]
    SqlJournal.commit = make_durable  # type: ignore[method-assign]


def wrap_ledger(reaper: Reaper) -> None:
    """Points 'claim', 'ledger fill', 'ledger halt' and 'rebuild'."""

    def name(expected_version: int, epoch: int, change: LedgerChange, change_id: str) -> list[str]:
        return ["claim"] if change.put_claim is not None else ["ledger fill"] if change.realised_paise is not None else []

    around(RedisLedger, "commit", reaper, name)
    around(RedisLedger, "latch_halt", reaper, lambda record: ["ledger halt"])
    around(RedisLedger, "rebuild", reaper, lambda snapshot: ["rebuild"])


def arm(point: str, nth: int, redis: str, journal: str) -> None:
    """Wrap the adapters of this process."""
    var = Path(os.environ["VELOX__VAR"])
    reaper = Reaper(point, nth, redis, var / "redis", JournalThief(journal, var))
    wrap_broker(reaper)
    wrap_off_loop(reaper)
    wrap_journal(reaper)
    wrap_ledger(reaper)
    around(JsonLinesHaltFile, "append", reaper, lambda record: ["halt file"])


def run_child(asked: Mapping[str, Any]) -> int:
    """Be one engine: the command line with the given arguments, and a death if one is asked for. Returns the exit code."""
    os.setsid()
    os.environ.update(asked["environ"])
    with open(asked["output"], "wb") as output:
        os.dup2(output.fileno(), sys.stdout.fileno())
        os.dup2(output.fileno(), sys.stderr.fileno())
    if asked["crash"]:
        arm(*asked["crash"])
    sys.argv = ["velox", *asked["arguments"]]
    try:
        command_line()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def main() -> int:
    """Fork one engine for each request on standard input, wait for it, and answer with how it ended."""
    for module in (
        "velox_core.cli.app",
        "velox_core.cli.run",
        "velox_core.operations.readiness",
        "velox_core.feeds.csv_source",
    ):
        import_module(module)
    RedisLedger.__init__.__kwdefaults__["timeout_seconds"] = PATIENT_SECONDS
    SendBounds.__init__.__kwdefaults__.update(entry_wait_seconds=PATIENT_SECONDS, answer_seconds=PATIENT_SECONDS)
    for line in sys.stdin:
        process_id = os.fork()
        if not process_id:
            os._exit(run_child(json.loads(line)))
        _, status = os.waitpid(process_id, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
