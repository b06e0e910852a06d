"""Orders: what a strategy wants (Signal), what one order is (Order), and the states it may pass through.

- `INTENT -> SUBMITTING -> OPEN -> (PARTIALLY_FILLED) -> FILLED | CANCELLED | REJECTED`, and `UNKNOWN` from
  SUBMITTING, OPEN, PARTIALLY_FILLED or a cancel. A transition that is not in the table is a bug.
- The client order id is durable before the request leaves, and travels as the broker's tag.
- An order that may still trade is `live`; UNKNOWN is live.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Final

from velox_core.domain.errors import InvariantError

CLIENT_ORDER_ID_LENGTH_MAX: Final = 20
EPOCHS_PER_DATE_MAX: Final = 10_000  # engines that may hold the lease on one date before an id could repeat
NOT_PLACED: Final = "NOT_PLACED"  # how the reason of an order that was given up as not placed begins


class Side(StrEnum):
    """Which way an order trades."""

    BUY = "BUY"
    SELL = "SELL"

    @property
    def opposite(self) -> Side:
        """Return the side that closes this one."""
        return _SELL if self is _BUY else _BUY

    @property
    def sign(self) -> int:
        """Return +1 for BUY, -1 for SELL."""
        return 1 if self is _BUY else -1


_BUY: Final = Side.BUY  # members by a module name: reading one off its class costs 0.09 us, and orders read many
_SELL: Final = Side.SELL


class SignalKind(StrEnum):
    """What a strategy asks for."""

    ENTRY = "ENTRY"
    EXIT = "EXIT"


class OrderType(StrEnum):
    """How an order is priced. MARKET orders always carry the broker's market protection."""

    MARKET = "MARKET"
    LIMIT = "LIMIT"


class Product(StrEnum):
    """The exchange product: MIS is intraday (Upstox calls it I), CNC delivery."""

    MIS = "MIS"
    CNC = "CNC"


class ExitRank(IntEnum):
    """How urgent an exit is. A stronger exit replaces a weaker one; an equal or weaker one is refused."""

    TARGET = 1
    STOP = 2
    SQUARE_OFF = 3
    EMERGENCY = 4


class Actor(StrEnum):
    """Who created an order; the letter stands in the client order id."""

    ENGINE = "E"
    GUARD = "G"
    COMMAND_LINE = "C"


class OrderState(StrEnum):
    """Where an order is in its life."""

    INTENT = "INTENT"
    SUBMITTING = "SUBMITTING"
    OPEN = "OPEN"
    PARTIALLY_FILLED = "PARTIALLY_FILLED"
    FILLED = "FILLED"
    CANCELLED = "CANCELLED"
    REJECTED = "REJECTED"
    UNKNOWN = "UNKNOWN"


TERMINAL_STATES: Final = frozenset({OrderState.FILLED, OrderState.CANCELLED, OrderState.REJECTED})

_S = OrderState
_INTENT: Final = _S.INTENT
TRANSITIONS: dict[OrderState, frozenset[OrderState]] = {
    _S.INTENT: frozenset({_S.SUBMITTING, _S.CANCELLED}),
    _S.SUBMITTING: frozenset({_S.OPEN, _S.PARTIALLY_FILLED, _S.FILLED, _S.CANCELLED, _S.REJECTED, _S.UNKNOWN}),
    _S.OPEN: frozenset({_S.PARTIALLY_FILLED, _S.FILLED, _S.CANCELLED, _S.REJECTED, _S.UNKNOWN}),
    _S.PARTIALLY_FILLED: frozenset({_S.PARTIALLY_FILLED, _S.FILLED, _S.CANCELLED, _S.UNKNOWN}),
    _S.UNKNOWN: frozenset({_S.OPEN, _S.PARTIALLY_FILLED, _S.FILLED, _S.CANCELLED, _S.REJECTED}),
    _S.FILLED: frozenset(),
    _S.CANCELLED: frozenset(),
    _S.REJECTED: frozenset(),
}


class Signal:
    """What a strategy asks for, before the gate. Prices in paise, quantity in shares.

    Args:
        strategy_id: the configured name of the strategy.
        symbol: exchange symbol.
        side: BUY or SELL; an EXIT names the closing side.
        quantity: shares the strategy would trade; the fixed lot overrides it for entries.
        kind: ENTRY or EXIT.
        reason: a short sentence for people, kept in the journal.
        stop_paise: price at which the engine closes the entry, 0 for none.
        target_paise: price at which the engine takes profit, 0 for none.
        rank: for an EXIT, how urgent it is.
    """

    __slots__ = ("kind", "quantity", "rank", "reason", "side", "stop_paise", "strategy_id", "symbol", "target_paise")

    def __init__(
        self,
        strategy_id: str,
        symbol: str,
        side: Side,
        quantity: int,
        kind: SignalKind,
        reason: str,
        *,
        stop_paise: int = 0,
        target_paise: int = 0,
        rank: ExitRank = ExitRank.TARGET,
    ) -> None:
        self.strategy_id = strategy_id
        self.symbol = symbol
        self.side = side
        self.quantity = quantity
        self.kind = kind
        self.reason = reason
        self.stop_paise = stop_paise
        self.target_paise = target_paise
        self.rank = rank


class Order:
    """One order of ours and what became of it. Prices and money in paise, quantities in shares, times in epoch ms.

    `filled_value_paise` is the sum of price x quantity over its fills. `rank` is None for an entry.
    """

    __slots__ = (
        "broker_order_id",
        "charges_paise",
        "client_order_id",
        "created_ms",
        "filled_quantity",
        "filled_value_paise",
        "limit_price_paise",
        "order_type",
        "product",
        "quantity",
        "rank",
        "reason",
        "side",
        "state",
        "stop_paise",
        "strategy_id",
        "symbol",
        "target_paise",
        "updated_ms",
    )

    def __init__(
        self,
        *,
        client_order_id: str,
        strategy_id: str,
        symbol: str,
        side: Side,
        quantity: int,
        order_type: OrderType,
        limit_price_paise: int,
        product: Product,
        rank: ExitRank | None,
        created_ms: int,
        reason: str,
        stop_paise: int = 0,
        target_paise: int = 0,
    ) -> None:
        self.client_order_id = client_order_id
        self.strategy_id = strategy_id
        self.symbol = symbol
        self.side = side
        self.quantity = quantity
        self.order_type = order_type
        self.limit_price_paise = limit_price_paise
        self.product = product
        self.rank = rank
        self.created_ms = created_ms
        self.updated_ms = created_ms
        self.reason = reason
        self.stop_paise = stop_paise
        self.target_paise = target_paise
        self.state = _INTENT
        self.broker_order_id = ""
        self.filled_quantity = 0
        self.filled_value_paise = 0
        self.charges_paise = 0

    @property
    def is_entry(self) -> bool:
        """Return whether the order opens risk."""
        return self.rank is None

    @property
    def is_live(self) -> bool:
        """Return whether the order may still trade (UNKNOWN may)."""
        return self.state not in TERMINAL_STATES

    @property
    def open_quantity(self) -> int:
        """Return the shares not yet filled."""
        return self.quantity - self.filled_quantity

    def move_to(self, state: OrderState, at_ms: int) -> None:
        """Change state. Raises InvariantError for a transition that the table does not allow."""
        if state not in TRANSITIONS[self.state]:
            raise InvariantError(f"order {self.client_order_id}: {self.state} -> {state} is not a transition")
        self.state = state
        self.updated_ms = at_ms


class OrderIntent:
    """What an approved order is for: the strategy, why, and the prices at which the engine will close it (paise, 0 none)."""

    __slots__ = ("reason", "stop_paise", "strategy_id", "target_paise")

    def __init__(self, strategy_id: str, reason: str, stop_paise: int = 0, target_paise: int = 0) -> None:
        self.strategy_id = strategy_id
        self.reason = reason
        self.stop_paise = stop_paise
        self.target_paise = target_paise


def unknown_lock(order: Order) -> str:
    """Return the reason for which an UNKNOWN order locks its symbol."""
    return f"order {order.client_order_id} is UNKNOWN"


def client_order_id(prefix: str, sequence: int) -> str:
    """Return the id of an order: `prefix` (see `client_order_id_prefix`) and a sequence number from 1.

    Raises InvariantError past 9,999,999 orders of one epoch, where the id would outgrow 20 characters.
    """
    if not 0 < sequence <= 9_999_999:
        raise InvariantError(f"order sequence {sequence} is out of range")
    return f"{prefix}{sequence:07d}"


def client_order_id_prefix(yymmdd: str, actor: Actor, epoch: int) -> str:
    """Return the fixed part of an id: date, actor letter, lease epoch. 6 + 1 + 4 characters of A-Z0-9.

    Args:
        yymmdd: trading date as six digits.
        actor: who sends.
        epoch: lease epoch, from 1 and counted over all dates; its last four digits stand in the id. They keep the ids of
            two holders of the lease apart, as long as one date has fewer than 10,000 of them.
    """
    if len(yymmdd) != 6 or not (yymmdd.isascii() and yymmdd.isdigit()) or epoch <= 0:
        raise InvariantError(f"client order id from date {yymmdd!r} and epoch {epoch} is out of range")
    return f"{yymmdd}{actor.value}{epoch % EPOCHS_PER_DATE_MAX:04d}"
