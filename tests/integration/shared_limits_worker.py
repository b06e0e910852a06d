"""One of several deciders on one account: `python -m tests.integration.shared_limits_worker` with the arguments of `main`.

It prints "ready", waits for a line on its standard input, and then asks for random entries and resolves them at random.
Every commit of its own stands in its journal file with the ledger's version, so that the files of all deciders together
are the whole history of the ledger.
"""

from __future__ import annotations

import random
import sys
import time
from datetime import date
from pathlib import Path

from velox_core.domain.events import EventKind
from velox_core.domain.market.ticks import Instrument, SecurityClass
from velox_core.domain.order_events import intent_body, order_body
from velox_core.domain.orders import Actor, Order, OrderState, Side, Signal, SignalKind, client_order_id_prefix
from velox_core.journal.file import FileJournal
from velox_core.ledger.redis import RedisLedger
from velox_core.risk.approval import ApprovedOrder
from velox_core.risk.gate import Quote
from velox_core.risk.ledger import OpenPosition
from velox_core.risk.limits import RiskLimits
from velox_core.risk_manager import RiskManager

DAY = date(2024, 1, 15)
SCOPE = "simulated:primary"
STRATEGIES = ("orb", "sma", "gap")
SYMBOLS = tuple(f"S{number}" for number in range(10))
PRICES_PAISE = (10_000, 20_000, 60_000)  # the last one is too much for a lot of two
LOT = 2
DECISIONS_MIN = 200  # on however slow a machine: enough for every limit to be reached
IDS_PER_DECIDER = 1_000_000  # the deciders share one epoch, and so one id prefix: each has numbers of its own
LIMITS = RiskLimits(
    max_daily_loss_paise=200_000,
    max_daily_loss_bps=10_000,
    initial_capital_paise=10_000_000,
    fixed_lot_size=LOT,
    dedup_window_ms=20,
    max_position_size_paise=100_000,
    max_positions_per_strategy=2,
    max_total_positions=4,
    orders_per_second_max=1_000_000,
)


class Decider:
    """One process' gate, its orders and its journal file."""

    def __init__(self, url: str, path: Path, number: int, epoch: int, seed: int) -> None:
        self.random = random.Random(seed * 100 + number)
        self.number = number
        self.journal = FileJournal(path)
        self.ledger = RedisLedger(url, SCOPE, DAY, timeout_seconds=30.0)  # a loaded machine must not look like a hung server
        self.risk = RiskManager(
            limits=LIMITS,
            ledger=self.ledger,
            journal=self.journal,
            id_prefix=client_order_id_prefix(f"{DAY:%y%m%d}", Actor.ENGINE, epoch),
            epoch=epoch,
            first_sequence=number * IDS_PER_DECIDER + 1,
        )
        self.risk.open_ledger()
        self.risk.readiness.armed = True
        self.risk.readiness.entry_until_ms = 2**62
        self.live: list[Order] = []
        self.held: list[OpenPosition] = []
        self.facts = 0

    def decide(self) -> None:
        """Ask for one random entry, or resolve one of our own at random; now and then look at what the others did."""
        if self.random.random() < 0.1:
            self.risk.open_ledger()
        if (self.live or self.held) and self.random.random() < 0.5:
            self.resolve(self.random.choice([*self.live, *self.held]))
        else:
            self.enter()
        self.journal.commit()

    def enter(self) -> None:
        """Ask for a random entry; an approved one is live from then on."""
        now_ms = time.time_ns() // 1_000_000
        chance = self.random
        signal = Signal(
            chance.choice(STRATEGIES), chance.choice(SYMBOLS), chance.choice(list(Side)), 1, SignalKind.ENTRY, "hammer"
        )
        self.risk.readiness.feed_ts_ms = now_ms
        approved = self.risk.request_entry(
            signal,
            Instrument(symbol=signal.symbol, security_class=SecurityClass.CASH, tick_paise=5),
            Quote(chance.choice(PRICES_PAISE), now_ms),
            loss_paise=0,
            cost_paise=0,
            now_ms=now_ms,
        )
        if isinstance(approved, ApprovedOrder):
            order = _order(approved, signal, now_ms)
            self.live.append(order)
            self.journal.append(EventKind.INTENT, now_ms, intent_body(order, self.risk.snapshot.version))

    def resolve(self, subject: Order | OpenPosition) -> None:
        """Fill, fill in part, or cancel a live order; close a position."""
        now_ms = time.time_ns() // 1_000_000
        if isinstance(subject, OpenPosition):
            self._book(subject.symbol, None, None, now_ms)
            return
        if self.random.random() < 0.4:
            order, order.state = subject, OrderState.CANCELLED
            self.risk.resolve_claim(order.client_order_id)
            self._note(EventKind.ORDER, now_ms, order_body(order, "cancelled at random"))
        else:
            order = subject
            order.filled_quantity += self.random.randint(1, order.open_quantity)
            ended = not order.open_quantity
            if ended:
                order.state = OrderState.FILLED
            position = OpenPosition(order.symbol, order.strategy_id, order.side.sign * order.filled_quantity, 1, now_ms)
            self._book(order.symbol, position, order.client_order_id if ended else None, now_ms)
        if not order.is_live:
            self.live.remove(order)

    def resolve_all(self) -> None:
        """End every order and close every position of ours."""
        while self.live or self.held:
            self.resolve((self.live or self.held)[0])  # type: ignore[operator]
            self.journal.commit()

    def _book(self, symbol: str, position: OpenPosition | None, resolved: str | None, now_ms: int) -> None:
        self.held = [held for held in self.held if held.symbol != symbol]
        if position is not None:
            self.held.append(position)
        self.facts += 1
        self.risk.record_fill(
            f"T{self.number}-{self.facts}",
            symbol=symbol,
            position=position,
            resolved_claim=resolved,
            realised_paise=0,
            charges_paise=0,
        )
        strategy_id = "" if position is None else position.strategy_id
        quantity = 0 if position is None else position.quantity
        self._note(
            EventKind.FILL,
            now_ms,
            {"symbol": symbol, "strategy": strategy_id, "position": quantity, "resolved": resolved},
        )

    def _note(self, kind: EventKind, now_ms: int, body: dict[str, int | str | None]) -> None:
        """Journal a fact with the version under which it went into the ledger."""
        if self.risk.readiness.ledger_fault:
            raise SystemExit(f"decider {self.number}: {self.risk.readiness.ledger_fault}")
        self.journal.append(kind, now_ms, {**body, "ledger_version": self.risk.snapshot.version})


def _order(approved: ApprovedOrder, signal: Signal, now_ms: int) -> Order:
    return Order(
        client_order_id=approved.client_order_id,
        strategy_id=signal.strategy_id,
        symbol=approved.symbol,
        side=approved.side,
        quantity=approved.quantity,
        order_type=approved.order_type,
        limit_price_paise=approved.limit_price_paise,
        product=approved.product,
        rank=None,
        created_ms=now_ms,
        reason=signal.reason,
    )


def main(url: str, path: str, number: str, epoch: str, seed: str, seconds: str) -> None:
    """Hammer for so many seconds, resolve everything, and end."""
    decider = Decider(url, Path(path), int(number), int(epoch), int(seed))
    print("ready", flush=True)
    sys.stdin.readline()
    until = time.monotonic() + float(seconds)
    decisions = 0
    while decisions < DECISIONS_MIN or time.monotonic() < until:
        decider.decide()
        decisions += 1
    decider.resolve_all()
    decider.ledger.close()
    decider.journal.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
