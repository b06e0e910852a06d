"""All the I/O there is: what the core asks of the outside, on one page.

- Adapters implement these Protocols; they translate and decide nothing. `bootstrap` alone joins them to the core.
- Money is paise, quantity shares, `*_ms` epoch milliseconds of engine time unless it says wall or monotonic.
- Reads raise a typed `VeloxError` when they fail; a send never raises, it answers UNKNOWN.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from velox_core.domain.events import Body, EventKind, JournalEvent
from velox_core.domain.halts import HaltRecord
from velox_core.domain.market.bars import MarketEvent
from velox_core.domain.orders import OrderState, Product, Side
from velox_core.risk.approval import ApprovedOrder
from velox_core.risk.ledger import CommitResult, LedgerChange, RiskSnapshot


class Clock(Protocol):
    """Time. Engine time decides; monotonic time bounds I/O, leases and heartbeats."""

    def now_ms(self) -> int:
        """Return engine time in epoch milliseconds (live: the wall; replay: the newest event of the feed)."""
        ...

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        ...


class MarketFeed(Protocol):
    """The market of a universe, oldest first: minutes; or ticks, and each minute that was built from them as it ends.

    A feed of ticks has its own thread and a bounded queue behind it: whoever brings ticks never waits for the loop.
    """

    @property
    def universe(self) -> tuple[str, ...]:
        """Return the symbols, in column order."""
        ...

    @property
    def ended(self) -> bool:
        """Return whether nothing further will come."""
        ...

    def next_row(self, wait_seconds: float) -> MarketEvent | None:
        """Return the next minute or ticks, or None when `wait_seconds` passed without any or the feed has ended."""
        ...

    def hasten(self) -> None:
        """Stop pacing: a replay delivers what is left at once. A live feed ignores it."""
        ...


class SendStatus(StrEnum):
    """What is known of a request.

    UNKNOWN may have reached the broker. PENDING is on its way: a `SendReport` follows. NOT_SENT never left and never will.
    """

    ACKNOWLEDGED = "ACKNOWLEDGED"
    REJECTED = "REJECTED"
    UNKNOWN = "UNKNOWN"
    PENDING = "PENDING"
    NOT_SENT = "NOT_SENT"


class SendOutcome:
    """The answer to a place, modify or cancel. `reason` is for people; it is empty when acknowledged."""

    __slots__ = ("broker_order_id", "reason", "status")

    def __init__(self, status: SendStatus, broker_order_id: str = "", reason: str = "") -> None:
        self.status = status
        self.broker_order_id = broker_order_id
        self.reason = reason


class SendReport:
    """What became of a place that was PENDING. A second one may follow: the late answer to what was UNKNOWN."""

    __slots__ = ("client_order_id", "outcome")

    def __init__(self, client_order_id: str, outcome: SendOutcome) -> None:
        self.client_order_id = client_order_id
        self.outcome = outcome


class OrderUpdate:
    """The broker's word on one order. `filled_quantity` is cumulative."""

    __slots__ = ("broker_order_id", "client_order_id", "filled_quantity", "reason", "state", "ts_ms")

    def __init__(
        self, ts_ms: int, client_order_id: str, broker_order_id: str, state: OrderState, filled_quantity: int, reason: str = ""
    ) -> None:
        self.ts_ms = ts_ms
        self.client_order_id = client_order_id
        self.broker_order_id = broker_order_id
        self.state = state
        self.filled_quantity = filled_quantity
        self.reason = reason


class BrokerFill:
    """One trade at the broker. `trade_id` is unique per account and date; `client_order_id` is '' for a foreign order.

    `product` tells a foreign trade of the owner's holdings (CNC) from one of the day's positions.
    """

    __slots__ = (
        "broker_order_id",
        "client_order_id",
        "price_paise",
        "product",
        "quantity",
        "side",
        "symbol",
        "trade_id",
        "ts_ms",
    )

    def __init__(
        self,
        ts_ms: int,
        trade_id: str,
        client_order_id: str,
        broker_order_id: str,
        symbol: str,
        side: Side,
        quantity: int,
        price_paise: int,
        product: Product = Product.MIS,
    ) -> None:
        self.ts_ms = ts_ms
        self.trade_id = trade_id
        self.client_order_id = client_order_id
        self.broker_order_id = broker_order_id
        self.symbol = symbol
        self.side = side
        self.quantity = quantity
        self.price_paise = price_paise
        self.product = product


BrokerEvent = OrderUpdate | BrokerFill | SendReport


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerOrder:
    """One line of the broker's order book. `tag` is our client order id, '' for an order placed elsewhere."""

    broker_order_id: str
    tag: str
    symbol: str
    side: Side
    quantity: int
    filled_quantity: int
    state: OrderState
    product: Product
    limit_price_paise: int
    placed_ms: int
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerPosition:
    """The broker's net position of one symbol and product, flat ones included once traded today.

    `quantity` is signed. `bought_paise` and `sold_paise` are the day's turnover.
    """

    symbol: str
    product: Product
    quantity: int
    bought_quantity: int
    sold_quantity: int
    bought_paise: int
    sold_paise: int
    last_price_paise: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Funds:
    """Cash of the account, paise: what is available for new positions, and what positions hold as margin."""

    available_paise: int
    margin_used_paise: int


class Broker(Protocol):
    """The market, through one account. The order manager alone calls the sends."""

    @property
    def name(self) -> str:
        """Return 'simulated', 'zerodha' or 'upstox'."""
        ...

    def place(self, order: ApprovedOrder, now_ms: int) -> SendOutcome:
        """Send one order, once. Never raises and never repeats: what is unclear is UNKNOWN, what is on its way PENDING."""
        ...

    def cancel(self, broker_order_id: str, now_ms: int) -> SendOutcome:
        """Ask for a cancel. ACKNOWLEDGED means asked, not cancelled: the update says so."""
        ...

    def drain_events(self) -> Sequence[BrokerEvent]:
        """Return what happened since the last call, in order, without waiting. Duplicates and late ones may come."""
        ...

    def orders(self) -> list[BrokerOrder]:
        """Return today's order book. Raises BrokerError."""
        ...

    def trades(self) -> list[BrokerFill]:
        """Return today's trades. Raises BrokerError."""
        ...

    def positions(self) -> list[BrokerPosition]:
        """Return net positions. Raises BrokerError."""
        ...

    def funds(self) -> Funds:
        """Return the account's cash. Raises BrokerError."""
        ...


class SendQueue(Protocol):
    """What a broker that is called off the loop can do beside the Broker port."""

    def withdraw(self, client_order_id: str) -> bool:
        """Keep an order that has not left yet from leaving; its report says so. False for any other, which is not touched."""
        ...

    def withdraw_entries(self) -> None:
        """Withdraw every entry that has not left: a halt or a stop stands."""
        ...

    def withdraw_exits(self) -> None:
        """Withdraw every exit that has not left: the right to close is lost."""
        ...

    def is_owed(self, client_order_id: str) -> bool:
        """Return whether the request for an order has not ended, overdue or not: the order may still reach the broker."""
        ...

    def hurry(self, wanted: bool) -> None:
        """Say whether the one who reads trades meanwhile and can wait a moment only."""
        ...


class Journal(Protocol):
    """The append-only memory of one run. `commit` makes durable what was appended before it."""

    def append(self, kind: EventKind, ts_ms: int, body: Body) -> None:
        """Add one event, in order. Buffered until `commit`."""
        ...

    def commit(self) -> None:
        """Make every appended event durable. Raises JournalUnavailable; the events stay buffered and in order."""
        ...

    def events(self, kinds: Iterable[EventKind] | None = None) -> Iterator[JournalEvent]:
        """Return the run's committed events, oldest first. Raises JournalUnavailable."""
        ...

    def newest_halt(self) -> int:
        """Return the sequence of the newest committed halt or clear record, 0 for none: cheap, for polling.

        Raises: JournalUnavailable, after no longer a wait than a commit.
        """
        ...


class RiskLedger(Protocol):
    """The shared limits of one account and date. Every method raises LedgerUnavailable when the store does not answer."""

    def acquire_lease(self, holder: str) -> int:
        """Become the one engine: return a lease epoch one above the last. Raises HaltedError never, VeloxError when held."""
        ...

    def renew_lease(self, epoch: int) -> bool:
        """Prolong the lease; False when the epoch is no longer ours."""
        ...

    def release_lease(self, epoch: int) -> None:
        """Give the lease back, if it is still ours."""
        ...

    def snapshot(self) -> RiskSnapshot:
        """Return the current state."""
        ...

    def commit(self, expected_version: int, epoch: int, change: LedgerChange, change_id: str) -> CommitResult:
        """Apply a change if version and epoch still hold; a fact needs the epoch and the generation only.

        Repeating a `change_id` answers Committed and changes nothing.
        """
        ...

    def latch_halt(self, record: HaltRecord) -> None:
        """Add a halt record (or a clear record) whatever the version; it raises the version."""
        ...

    def rebuild(self, snapshot: RiskSnapshot) -> RiskSnapshot:
        """Replace the content by a state rebuilt from journal and broker; a new generation, halts kept, epoch kept."""
        ...

    def put_mark(self, key: str, value: str) -> None:
        """Publish one value beside the version (heartbeat, open P&L, status); it never conflicts with a commit."""
        ...

    def get_mark(self, key: str) -> str | None:
        """Return a published value, or None."""
        ...


class Lease(Protocol):
    """The account's lease as one engine holds it, asked for at the last moment before a request leaves. Never waits long."""

    def renew(self) -> bool:
        """Prolong it. Returns False once it is not ours. Raises LedgerUnavailable."""
        ...

    @property
    def is_due(self) -> bool:
        """Return whether it is to be renewed before an entry is decided on."""
        ...

    def lose(self) -> None:
        """Take it for lost: the ledger named a later epoch."""
        ...

    def withholds(self, *, entry: bool) -> str:
        """Return why an entry, or an exit or cancel, may not leave now; '' when it may. Also called on sender threads."""
        ...


class HaltFile(Protocol):
    """The halt records that survive when both other stores are gone."""

    def records(self) -> list[HaltRecord]:
        """Return all records, oldest first. An unreadable file answers with a FAULT halt, never with none."""
        ...

    def append(self, record: HaltRecord) -> None:
        """Add one record, durably. Raises VeloxError."""
        ...

    def stamp(self) -> object:
        """Return what is another value after every append, by anybody: cheap, for polling. Never raises."""
        ...


class CloserHold(StrEnum):
    """The answer of a closer's lock.

    ELSEWHERE: another process has it. FRESH: it is ours now, and another process had it before. UNBROKEN: it is ours,
    and nobody else had it since it was.
    """

    ELSEWHERE = "ELSEWHERE"
    FRESH = "FRESH"
    UNBROKEN = "UNBROKEN"


class CloserLock(Protocol):
    """The account's right to send what closes: one process has it at a time. Never raises, never waits."""

    def take(self) -> CloserHold:
        """Take it if nobody has it. Asked before every send, also while it is held. ELSEWHERE gives nothing back."""
        ...

    def give_back(self) -> None:
        """Give it back; nothing happens when it is not held."""
        ...

    @property
    def holder(self) -> str:
        """Return who has it, for people."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LockHolder:
    """The process that a lock file names. `started` tells it from a later process with its id; all empty: not known."""

    host: str
    pid: int
    started: str


class EndOfHolder(StrEnum):
    """What came of ending the holder of a lock. NOT_VERIFIED: nothing was killed, it may be another process."""

    KILLED = "KILLED"
    GONE = "GONE"
    NOT_VERIFIED = "NOT_VERIFIED"
    SURVIVED = "SURVIVED"


class ControlRequest:
    """What is asked of the running engine: 'stop' or 'reset'. `by` and `reason` are for people, `request_id` for replies."""

    __slots__ = ("action", "by", "reason", "request_id")

    def __init__(self, action: str, by: str, reason: str, request_id: str = "") -> None:
        self.action = action
        self.by = by
        self.reason = reason
        self.request_id = request_id


class Control(Protocol):
    """The engine's ear and mouth: requests in, status out; ledger first, file as the fallback."""

    def poll(self) -> ControlRequest | None:
        """Return the newest request that was not yet taken, a stop before others, or None. Never raises, never waits long."""
        ...

    def publish(self, status: Mapping[str, object]) -> None:
        """Show the engine's status. Never raises; losing one is no harm."""
        ...


class Severity(StrEnum):
    """How loud an alert is."""

    INFO = "INFO"
    WARNING = "WARNING"
    CRITICAL = "CRITICAL"


class Alerts(Protocol):
    """Messages to a person. Never raises, never waits."""

    def send(self, severity: Severity, title: str, text: str) -> None:
        """Queue one message."""
        ...


class JournalFact:
    """One event that the journal holds durably, and when this process wrote it (monotonic seconds).

    `appended` is when it was added, `durable` when its commit returned. Both are 0.0 for one that was read back.
    """

    __slots__ = ("appended", "body", "durable", "kind", "ts_ms")

    def __init__(self, kind: EventKind, ts_ms: int, body: Body, appended: float = 0.0) -> None:
        self.kind = kind
        self.ts_ms = ts_ms
        self.body = body
        self.appended = appended
        self.durable = 0.0


class Metrics(Protocol):
    """Numbers for a monitoring server. Never raises, never waits, and never gates an order."""

    def committed(self, facts: Sequence[JournalFact]) -> None:
        """Take what the journal just made durable, in its order."""
        ...

    def status(self, status: Mapping[str, object]) -> None:
        """Take the status that the engine just published."""
        ...

    def counters(self) -> dict[str, object]:
        """Return what became of the points so far, as JSON values: for the status."""
        ...
