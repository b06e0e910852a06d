"""The safety guide's seven layers, in its order, as pure functions.

- Each takes the request, the shared snapshot and the limits, and answers None or a Refusal with its numbers.
- Open and pending count alike: a claim holds its slot until its order is terminal.
- "At the limit" is refused wherever one more would pass it; the loss limit itself is already a breach.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from velox_core.domain.money import rupees_text
from velox_core.domain.orders import Side
from velox_core.risk.ledger import RiskSnapshot
from velox_core.risk.limits import RiskLimits


class ReasonCode(StrEnum):
    """Every reason for which an order is refused. The first block are preconditions, then the seven layers, then exits."""

    NOT_ARMED = "NOT_ARMED"
    OUTSIDE_ENTRY_HOURS = "OUTSIDE_ENTRY_HOURS"
    STOPPING = "STOPPING"
    INVALID_SIGNAL = "INVALID_SIGNAL"
    UNKNOWN_SYMBOL = "UNKNOWN_SYMBOL"
    NOT_TRADABLE = "NOT_TRADABLE"
    STALE_PRICE = "STALE_PRICE"
    BAD_PRICE = "BAD_PRICE"
    NEAR_BAND = "NEAR_BAND"
    SYMBOL_LOCKED = "SYMBOL_LOCKED"
    STALE_MARKS = "STALE_MARKS"
    LEDGER_UNAVAILABLE = "LEDGER_UNAVAILABLE"
    JOURNAL_UNAVAILABLE = "JOURNAL_UNAVAILABLE"
    LEASE_LOST = "LEASE_LOST"
    RECONCILE_OVERDUE = "RECONCILE_OVERDUE"
    EXIT_UNKNOWN = "EXIT_UNKNOWN"
    ORDER_RATE = "ORDER_RATE"
    REENTRY_RULE = "REENTRY_RULE"

    EMERGENCY_EXIT_ACTIVE = "EMERGENCY_EXIT_ACTIVE"
    DUPLICATE_ORDER = "DUPLICATE_ORDER"
    POSITION_EXISTS = "POSITION_EXISTS"
    POSITION_SIZE = "POSITION_SIZE"
    STRATEGY_POSITIONS = "STRATEGY_POSITIONS"
    TOTAL_POSITIONS = "TOTAL_POSITIONS"
    DAILY_LOSS = "DAILY_LOSS"

    NOTHING_TO_EXIT = "NOTHING_TO_EXIT"
    EXIT_WORKING = "EXIT_WORKING"


class Refusal:
    """Why an order does not leave. `layer` is 1-7, or 0 for a precondition or the exit door; `text` is for people."""

    __slots__ = ("code", "layer", "text")

    def __init__(self, layer: int, code: ReasonCode, text: str) -> None:
        self.layer = layer
        self.code = code
        self.text = text


class EntryRequest:
    """One entry to be judged. Prices and money in paise, times in epoch ms.

    Args:
        strategy_id, symbol, side: whose and what.
        quantity: shares after sizing.
        worst_price_paise: the worst price the protected order may trade at.
        now_ms: engine time of the decision.
        loss_paise: the day's loss, marked now (negative is a profit).
        entry_cost_paise: round-trip charges and spread of this entry.
    """

    __slots__ = ("entry_cost_paise", "loss_paise", "now_ms", "quantity", "side", "strategy_id", "symbol", "worst_price_paise")

    def __init__(
        self,
        strategy_id: str,
        symbol: str,
        side: Side,
        quantity: int,
        worst_price_paise: int,
        now_ms: int,
        loss_paise: int,
        entry_cost_paise: int,
    ) -> None:
        self.strategy_id = strategy_id
        self.symbol = symbol
        self.side = side
        self.quantity = quantity
        self.worst_price_paise = worst_price_paise
        self.now_ms = now_ms
        self.loss_paise = loss_paise
        self.entry_cost_paise = entry_cost_paise


Layer = Callable[[EntryRequest, RiskSnapshot, RiskLimits], Refusal | None]


def emergency_exit(request: EntryRequest, snapshot: RiskSnapshot, limits: RiskLimits) -> Refusal | None:
    """Layer 1: no entry while a halt is active."""
    if snapshot.halts:
        return Refusal(1, ReasonCode.EMERGENCY_EXIT_ACTIVE, "Emergency exit active, trading disabled")
    return None


def duplicate(request: EntryRequest, snapshot: RiskSnapshot, limits: RiskLimits) -> Refusal | None:
    """Layer 2: no second entry of the same strategy, symbol and side while one is on its way or within the window."""
    key = (request.strategy_id, request.symbol, request.side)
    last_ms = snapshot.last_entry_ms.get(key)
    if last_ms is not None and request.now_ms - last_ms < limits.dedup_window_ms:
        return Refusal(2, ReasonCode.DUPLICATE_ORDER, "Duplicate order prevented")
    for claim in snapshot.claims.values():
        if claim.symbol == request.symbol and claim.side is request.side and claim.strategy_id == request.strategy_id:
            return Refusal(2, ReasonCode.DUPLICATE_ORDER, "Duplicate order prevented")
    return None


def position_exists(request: EntryRequest, snapshot: RiskSnapshot, limits: RiskLimits) -> Refusal | None:
    """Layer 3: no entry in a symbol that anybody, a person included, holds or is entering."""
    symbol = request.symbol
    if symbol in snapshot.positions:
        return Refusal(3, ReasonCode.POSITION_EXISTS, "Position already exists")
    for claim in snapshot.claims.values():
        if claim.symbol == symbol:
            return Refusal(3, ReasonCode.POSITION_EXISTS, "Position already exists")
    return None


def position_size(request: EntryRequest, snapshot: RiskSnapshot, limits: RiskLimits) -> Refusal | None:
    """Layer 4: quantity x worst protected price within `max_position_size`."""
    notional_paise = request.quantity * request.worst_price_paise
    if notional_paise > limits.max_position_size_paise:
        return Refusal(
            4,
            ReasonCode.POSITION_SIZE,
            f"Position size {rupees_text(notional_paise)} above the limit {rupees_text(limits.max_position_size_paise)}",
        )
    return None


def strategy_positions(request: EntryRequest, snapshot: RiskSnapshot, limits: RiskLimits) -> Refusal | None:
    """Layer 5: open plus pending positions of the strategy below `max_positions_per_strategy`."""
    limit = limits.max_positions_per_strategy
    if len(snapshot.positions) + len(snapshot.claims) < limit:  # the strategy cannot have more than everybody has
        return None
    count = count_positions(snapshot, request.strategy_id)
    if count >= limit:
        return Refusal(5, ReasonCode.STRATEGY_POSITIONS, f"Strategy has {count} positions, the limit is {limit}")
    return None


def total_positions(request: EntryRequest, snapshot: RiskSnapshot, limits: RiskLimits) -> Refusal | None:
    """Layer 6: open plus pending positions of the account below `max_total_positions`."""
    limit = limits.max_total_positions
    if len(snapshot.positions) + len(snapshot.claims) < limit:
        return None
    count = count_positions(snapshot, None)
    if count >= limit:
        return Refusal(6, ReasonCode.TOTAL_POSITIONS, f"Account has {count} positions, the limit is {limit}")
    return None


def daily_loss(request: EntryRequest, snapshot: RiskSnapshot, limits: RiskLimits) -> Refusal | None:
    """Layer 7: the day's loss, with this entry's own costs, below the limit."""
    if request.loss_paise + request.entry_cost_paise >= limits.loss_limit_paise:
        return Refusal(
            7,
            ReasonCode.DAILY_LOSS,
            f"Daily loss {rupees_text(request.loss_paise)} with this entry's costs {rupees_text(request.entry_cost_paise)} "
            f"reaches the limit {rupees_text(limits.loss_limit_paise)}",
        )
    return None


LAYERS: tuple[Layer, ...] = (
    emergency_exit,
    duplicate,
    position_exists,
    position_size,
    strategy_positions,
    total_positions,
    daily_loss,
)


def count_positions(snapshot: RiskSnapshot, strategy_id: str | None) -> int:
    """Return how many symbols are open or pending, of one strategy or (None) of the account.

    A partly filled entry is a position and a claim of one symbol: it counts once. A claim in a symbol that somebody
    else's position is in still counts for its own strategy.
    """
    positions = snapshot.positions
    count = 0
    for position in positions.values():
        if strategy_id is None or position.strategy_id == strategy_id:
            count += 1
    for claim in snapshot.claims.values():
        held = positions.get(claim.symbol)
        if held is not None and strategy_id in (None, held.strategy_id):
            continue  # counted with its position
        if strategy_id is None or claim.strategy_id == strategy_id:
            count += 1
    return count


def entry_numbers(request: EntryRequest, snapshot: RiskSnapshot, limits: RiskLimits) -> dict[str, int | str | bool | None]:
    """Return the numbers that decided on an entry, as the journal keeps them. Money in paise."""
    return {
        "worst_price": request.worst_price_paise,
        "notional": request.quantity * request.worst_price_paise,
        "notional_limit": limits.max_position_size_paise,
        "positions": len(snapshot.positions),
        "claims": len(snapshot.claims),
        "strategy_limit": limits.max_positions_per_strategy,
        "total_limit": limits.max_total_positions,
        "loss": request.loss_paise,
        "entry_cost": request.entry_cost_paise,
        "loss_limit": limits.loss_limit_paise,
        "ledger_version": snapshot.version,
    }
