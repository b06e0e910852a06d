"""What a refused decision would have taken to pass: the numbers of each layer in words, and the smallest change.

- Pure: the request, what was known, the limits and what happened later in, one sentence out.
- A named limit is the smallest that lets this very request pass this layer; the tests put it back into the gate.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from velox_core.domain.events import EventKind, JournalEvent
from velox_core.domain.money import rupees_display
from velox_core.domain.orders import TERMINAL_STATES
from velox_core.domain.positions import FOREIGN
from velox_core.domain.time import MS_PER_SECOND, ist_clock_text
from velox_core.operations.decision_history import Judged
from velox_core.operations.journal_bodies import int_of, text_of
from velox_core.risk.layers import EntryRequest, ReasonCode, count_positions
from velox_core.risk.ledger import Claim, RiskSnapshot
from velox_core.risk.limits import RiskLimits
from velox_core.settings import Settings

_TERMINAL: Final = frozenset(state.value for state in TERMINAL_STATES)


class Later:
    """What a run's journal says came after a moment: when an order ended, a symbol was flat, a halt was cleared."""

    def __init__(self, events: Sequence[JournalEvent]) -> None:
        self._order_ends: dict[str, tuple[int, str]] = {}
        self._flat: dict[str, list[tuple[int, int]]] = {}
        self._clears: dict[str, int] = {}
        self._unlocks: dict[str, list[tuple[int, int]]] = {}
        self._fills: dict[str, tuple[int, int]] = {}  # of an order: quantity, value in paise
        self._trades: set[str] = set()
        for event in events:
            self._note(event)

    def _note(self, event: JournalEvent) -> None:
        body, kind = event.body, event.kind
        if kind is EventKind.ORDER and text_of(body, "state") in _TERMINAL:
            self._order_ends.setdefault(text_of(body, "client_order_id"), (event.ts_ms, text_of(body, "state")))
        elif kind is EventKind.FILL and text_of(body, "trade_id") not in self._trades:
            self._trades.add(text_of(body, "trade_id"))
            order_id, quantity = text_of(body, "client_order_id"), int_of(body, "quantity")
            before = self._fills.get(order_id, (0, 0))
            self._fills[order_id] = (before[0] + quantity, before[1] + quantity * int_of(body, "price"))
            if not int_of(body, "position"):
                self._flat.setdefault(text_of(body, "symbol"), []).append((event.sequence, event.ts_ms))
        elif kind is EventKind.HALT_CLEARED:
            self._clears.setdefault(text_of(body, "clears"), event.ts_ms)
        elif kind is EventKind.UNLOCK:
            self._unlocks.setdefault(text_of(body, "symbol"), []).append((event.sequence, event.ts_ms))

    def order_text(self, order_id: str) -> str:
        """Return what became of an order, '' for none: 'FILLED 1 at ₹3,964.50'."""
        if not order_id:
            return ""
        state = self._order_ends.get(order_id, (0, "not ended"))[1]
        quantity, value_paise = self._fills.get(order_id, (0, 0))
        traded = f" {quantity} at {rupees_display((2 * value_paise + quantity) // (2 * quantity))}" if quantity else ""
        return f"{state}{traded}"

    def order_end(self, order_id: str) -> str:
        """Return when an order ended, in words."""
        end = self._order_ends.get(order_id)
        return f"that was at {ist_clock_text(end[0])}" if end is not None else "it never did in this run"

    def next_flat(self, symbol: str, after_ms: int) -> str:
        """Return when a symbol was flat again, in words."""
        at_ms = next((ts_ms for _, ts_ms in self._flat.get(symbol, []) if ts_ms >= after_ms), None)
        return f"that was at {ist_clock_text(at_ms)}" if at_ms is not None else "it never was in this run"

    def next_unlock(self, symbol: str, after_sequence: int) -> str:
        """Return when a symbol was unlocked, in words."""
        at_ms = next((ts_ms for number, ts_ms in self._unlocks.get(symbol, []) if number > after_sequence), None)
        return f"that was at {ist_clock_text(at_ms)}" if at_ms is not None else "it never was in this run"

    def cleared(self, halt_id: str) -> str:
        """Return when a halt was cleared, in words."""
        at_ms = self._clears.get(halt_id)
        return f"it was at {ist_clock_text(at_ms)}" if at_ms is not None else "it was not in this run"


def _seconds(span_ms: int) -> str:
    return f"{span_ms / MS_PER_SECOND:g} s"


def _own_claim(request: EntryRequest, known: RiskSnapshot) -> Claim | None:
    wanted = (request.strategy_id, request.symbol, request.side)
    return next((c for c in known.claims.values() if (c.strategy_id, c.symbol, c.side) == wanted), None)


def _owner(strategy_id: str) -> str:
    return strategy_id if strategy_id != FOREIGN else "nobody here (traded elsewhere)"


def layer_numbers(layer: int, request: EntryRequest, known: RiskSnapshot, limits: RiskLimits) -> str:
    """Return the numbers that a layer goes by, in words. `layer` is 1 to 7."""
    match layer:
        case 1:
            return "; ".join(f"halt {halt.halt_id}: {halt.reason}" for halt in known.halts) or "no halt"
        case 2:
            claim, window = _own_claim(request, known), _seconds(limits.dedup_window_ms)
            if claim is not None:
                return f"its order {claim.intent_id} of {ist_clock_text(claim.created_ms)} is on its way; window {window}"
            last_ms = known.last_entry_ms.get((request.strategy_id, request.symbol, request.side))
            if last_ms is None:
                return f"no such entry before; window {window}"
            return f"last such entry {_seconds(request.now_ms - last_ms)} before; window {window}"
        case 3:
            held = known.positions.get(request.symbol)
            if held is not None:
                return f"{held.quantity:+d} held by {_owner(held.strategy_id)} since {ist_clock_text(held.opened_ms)}"
            entering = next((claim for claim in known.claims.values() if claim.symbol == request.symbol), None)
            return f"{request.symbol} is free" if entering is None else f"{entering.strategy_id} is entering it"
        case 4:
            notional_paise = request.quantity * request.worst_price_paise
            return (
                f"{request.quantity} at {rupees_display(request.worst_price_paise)} worst price = "
                f"{rupees_display(notional_paise)} of {rupees_display(limits.max_position_size_paise)}"
            )
        case 5:
            return f"{count_positions(known, request.strategy_id)} of {limits.max_positions_per_strategy} open or pending"
        case 6:
            return f"{count_positions(known, None)} of {limits.max_total_positions} open or pending"
        case _:
            return (
                f"loss {rupees_display(request.loss_paise)} + costs of this entry {rupees_display(request.entry_cost_paise)} "
                f"of {rupees_display(limits.loss_limit_paise)}"
            )


def remedy(layer: int, request: EntryRequest, known: RiskSnapshot, limits: RiskLimits, later: Later) -> str:
    """Return the smallest change with which a refused entry would have passed this layer. `layer` is 1 to 7."""
    match layer:
        case 1:
            return "; ".join(f"with halt {halt.halt_id} cleared ({later.cleared(halt.halt_id)})" for halt in known.halts)
        case 2:
            return _after_duplicate(request, known, limits, later)
        case 3:
            if request.symbol in known.positions:
                return f"once {request.symbol} is flat ({later.next_flat(request.symbol, request.now_ms)})"
            entering = [claim.intent_id for claim in known.claims.values() if claim.symbol == request.symbol]
            return "; ".join(
                f"had order {order_id} ended without a fill ({later.order_end(order_id)})" for order_id in entering
            )
        case 4:
            notional_paise = request.quantity * request.worst_price_paise
            fitting = limits.max_position_size_paise // request.worst_price_paise if request.worst_price_paise > 0 else 0
            fewer = f", or with a lot of {fitting}" if fitting else ""
            return f"with max_position_size {rupees_display(notional_paise)}{fewer}"
        case 5:
            return f"with max_positions_per_strategy {count_positions(known, request.strategy_id) + 1}"
        case 6:
            return f"with max_total_positions {count_positions(known, None) + 1}"
        case _:
            room_paise = limits.loss_limit_paise - request.entry_cost_paise
            needed = f"a loss below {rupees_display(room_paise)}" if room_paise > 0 else "a profit"
            needed = needed if room_paise >= 0 else f"a profit above {rupees_display(-room_paise)}"
            return f"with {needed}; the loss was {rupees_display(request.loss_paise)}"


def _after_duplicate(request: EntryRequest, known: RiskSnapshot, limits: RiskLimits, later: Later) -> str:
    parts = []
    last_ms = known.last_entry_ms.get((request.strategy_id, request.symbol, request.side))
    if last_ms is not None and request.now_ms - last_ms < limits.dedup_window_ms:
        parts.append(f"from {ist_clock_text(last_ms + limits.dedup_window_ms)}, when the dedup window ends")
    claim = _own_claim(request, known)
    if claim is not None:
        parts.append(f"once order {claim.intent_id} has ended ({later.order_end(claim.intent_id)})")
    return " and ".join(parts)


def precondition_remedy(code: str, settings: Settings, later: Later, judged: Judged) -> str:
    """Return what a precondition, or the exit door, would have taken to let a signal pass."""
    symbol = text_of(judged.body, "symbol")
    if code == ReasonCode.OUTSIDE_ENTRY_HOURS:
        return f"from the opening until {settings.market.entry_until:%H:%M} (market.entry_until)"
    if code == ReasonCode.SYMBOL_LOCKED:
        return f"once {symbol} is unlocked ({later.next_unlock(symbol, judged.event.sequence)})"
    return PRECONDITION_REMEDIES.get(code, "")


PRECONDITION_REMEDIES: Final[dict[str, str]] = {
    ReasonCode.NOT_ARMED: "once the day is armed (velox day: market open)",
    ReasonCode.STOPPING: "before the stop, or the square-off, began",
    ReasonCode.INVALID_SIGNAL: "with a signal that makes sense: the reason says what was wrong",
    ReasonCode.UNKNOWN_SYMBOL: "with the symbol in the feed's universe (feed.symbols)",
    ReasonCode.NOT_TRADABLE: "with an instrument that may be traded on the date (config/nse_calendar.yaml)",
    ReasonCode.STALE_PRICE: "with a price of the symbol that is young enough",
    ReasonCode.BAD_PRICE: "with a price that is a positive multiple of the tick",
    ReasonCode.NEAR_BAND: "with a price further from its band",
    ReasonCode.STALE_MARKS: "with market data that is young enough, and a price for everything held",
    ReasonCode.LEDGER_UNAVAILABLE: "with the risk ledger (Redis) reachable",
    ReasonCode.JOURNAL_UNAVAILABLE: "with a journal that can be written",
    ReasonCode.LEASE_LOST: "by the engine that holds the lease",
    ReasonCode.RECONCILE_OVERDUE: "once the books were compared with the broker's",
    ReasonCode.EXIT_UNKNOWN: "once the broker said what became of the exit in doubt",
    ReasonCode.ORDER_RATE: "a second later",
    ReasonCode.REENTRY_RULE: "once the strategy's re-entry rule allows the symbol again",
    ReasonCode.NOTHING_TO_EXIT: "with an open position of the strategy in the symbol",
    ReasonCode.EXIT_WORKING: "it need not: an exit for the whole quantity was at work already",
}
