"""One process with one signal: `python -m tests.integration.same_signal URL JOURNAL FIRST_SEQUENCE EPOCH ask|hang`.

It prints "ready", waits for a line, and asks for the entry. `ask` prints the answer's code. `hang` submits the order to a
broker that takes it, prints "sent" and never answers.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from tests.fakes.broker import FakeBroker
from tests.fakes.rig import DAY, FREE, NOW_MS, OPEN_MS, PREFIX, UNIVERSE, entry_signal, make_instrument, make_limits
from velox_core.domain.orders import OrderIntent
from velox_core.journal.run import RunIdentity
from velox_core.journal.sql import SqlJournal
from velox_core.ledger.redis import RedisLedger
from velox_core.order_manager import OrderManager
from velox_core.ports import Broker
from velox_core.risk.approval import ApprovedOrder
from velox_core.risk.breach import DayLoss
from velox_core.risk.gate import Quote
from velox_core.risk.layers import Refusal
from velox_core.risk_manager import RiskManager

SCOPE = "simulated:primary"
WINDOW_MS = 5_000
HANG_SECONDS = 300.0


class Decider:
    """A gate and an order manager over a ledger that others use too, a journal of its own, and a broker."""

    def __init__(self, ledger: RedisLedger, journal: Path, first_sequence: int, epoch: int, broker: Broker) -> None:
        self.journal = SqlJournal(f"sqlite:///{journal}", RunIdentity(scope_key=SCOPE, trading_date=DAY))
        self.ledger = ledger
        self.risk = RiskManager(
            limits=make_limits(dedup_window_ms=WINDOW_MS),
            ledger=ledger,
            journal=self.journal,
            id_prefix=f"{PREFIX[:-4]}{epoch:04d}",
            epoch=epoch,
            first_sequence=first_sequence,
        )
        self.orders = OrderManager(
            broker=broker,
            journal=self.journal,
            risk_manager=self.risk,
            day_loss=DayLoss(FREE),
            columns={symbol: column for column, symbol in enumerate(UNIVERSE)},
            schedule=FREE,
        )
        readiness = self.risk.readiness
        readiness.armed, readiness.entries_from_ms, readiness.entry_until_ms = True, OPEN_MS, 2**62

    def ask(self, now_ms: int = NOW_MS) -> str:
        """Ask for the one signal, submit what is approved, and return 'OK' or why not."""
        self.risk.readiness.feed_ts_ms = now_ms
        answer = self.risk.request_entry(
            entry_signal(), make_instrument(), Quote(10_000, now_ms), loss_paise=0, cost_paise=0, now_ms=now_ms
        )
        if isinstance(answer, Refusal):
            return answer.code.value
        self.orders.submit(answer, OrderIntent("alpha", "test entry"), now_ms)
        return "OK"

    def close(self) -> None:
        """Close the stores."""
        self.journal.close()
        self.ledger.close()


def _hang(order: ApprovedOrder) -> None:
    print("sent", flush=True)
    time.sleep(HANG_SECONDS)


def main(url: str, journal: str, first_sequence: str, epoch: str, then: str) -> None:
    """Ask once."""
    broker = FakeBroker()
    broker.on_place = _hang if then == "hang" else None
    ledger = RedisLedger(url, SCOPE, DAY, timeout_seconds=30.0)
    decider = Decider(ledger, Path(journal), int(first_sequence), int(epoch), broker)
    decider.risk.open_ledger()
    print("ready", flush=True)
    sys.stdin.readline()
    print(decider.ask(), flush=True)
    decider.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
