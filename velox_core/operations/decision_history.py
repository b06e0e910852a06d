"""What the gate knew at each decision, worked out again from the journal.

- The journal's events, in their order, give back the ledger as it was: halts, claims, positions, times of entry.
- `journaled_request` and `journaled_limits` are the values that the decision itself wrote down.
- A state that does not agree with the counts that the decision wrote down is said to be incomplete, and nothing is
  concluded from it: another process of the account, or a position of nobody's, may have had a slot.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from velox_core.domain.events import Body, EventKind, JournalEvent
from velox_core.domain.halts import HaltRecord
from velox_core.domain.orders import TERMINAL_STATES, Side, SignalKind
from velox_core.domain.positions import FOREIGN
from velox_core.operations.journal_bodies import int_of, object_of, text_of
from velox_core.risk.layers import EntryRequest
from velox_core.risk.ledger import Claim, DedupKey, OpenPosition, RiskSnapshot
from velox_core.risk.limits import RiskLimits

_TERMINAL: Final = frozenset(state.value for state in TERMINAL_STATES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One decision and what it was judged on. `is_complete` says whether `known` agrees with the decision's own counts."""

    event: JournalEvent
    known: RiskSnapshot
    is_complete: bool

    @property
    def body(self) -> Body:
        """Return what the decision wrote down."""
        return self.event.body

    @property
    def is_entry(self) -> bool:
        """Return whether a new position was asked for."""
        return text_of(self.event.body, "kind") == SignalKind.ENTRY.value


class _Book:
    """The ledger of a run, followed event by event."""

    def __init__(self) -> None:
        self.halts: dict[str, HaltRecord] = {}
        self.claims: dict[str, Claim] = {}
        self.positions: dict[str, OpenPosition] = {}
        self.last_entry_ms: dict[DedupKey, int] = {}

    def snapshot(self) -> RiskSnapshot:
        return RiskSnapshot(
            halts=tuple(self.halts.values()),
            claims=dict(self.claims),
            positions=dict(self.positions),
            last_entry_ms=dict(self.last_entry_ms),
        )

    def take(self, event: JournalEvent) -> None:
        body = event.body
        if event.kind is EventKind.DECISION:
            self._claim(event)
        elif event.kind is EventKind.ORDER:
            if text_of(body, "state") in _TERMINAL:
                self.claims.pop(text_of(body, "client_order_id"), None)
        elif event.kind is EventKind.FILL:
            self._fill(event)
        elif event.kind is EventKind.LOCK:
            if int_of(body, "quantity"):
                symbol = text_of(body, "symbol")
                position = OpenPosition(symbol, FOREIGN, int_of(body, "quantity"), int_of(body, "cost"), event.ts_ms)
                self.positions.setdefault(symbol, position)
        elif event.kind is EventKind.UNLOCK:
            held = self.positions.get(text_of(body, "symbol"))
            if held is not None and held.strategy_id == FOREIGN:
                del self.positions[held.symbol]
        elif event.kind is EventKind.HALT:
            self.halts[text_of(body, "halt_id")] = HaltRecord.from_body(dict(body))
        elif event.kind is EventKind.HALT_CLEARED:
            self.halts.pop(text_of(body, "clears"), None)

    def _claim(self, event: JournalEvent) -> None:
        body = event.body
        if body.get("approved") is not True or text_of(body, "kind") != SignalKind.ENTRY.value:
            return
        order_id, strategy, symbol = (text_of(body, key) for key in ("client_order_id", "strategy", "symbol"))
        side, quantity = Side(text_of(body, "side")), int_of(body, "quantity")
        notional_paise = int_of(object_of(body, "numbers"), "notional")
        self.claims[order_id] = Claim(order_id, strategy, symbol, side, quantity, notional_paise, event.ts_ms)
        self.last_entry_ms[strategy, symbol, side] = event.ts_ms

    def _fill(self, event: JournalEvent) -> None:
        body = event.body
        symbol, quantity = text_of(body, "symbol"), int_of(body, "position")
        held = self.positions.pop(symbol, None)
        if quantity:
            is_same = held is not None and (held.quantity > 0) == (quantity > 0)
            strategy = text_of(body, "strategy") or (held.strategy_id if held is not None else FOREIGN)
            opened_ms = held.opened_ms if held is not None and is_same else event.ts_ms
            self.positions[symbol] = OpenPosition(symbol, strategy, quantity, int_of(body, "cost"), opened_ms)


def judged_decisions(events: Iterable[JournalEvent]) -> Iterator[Judged]:
    """Yield every decision of a run with what was known when it was made, oldest first.

    Args:
        events: the run's committed events, oldest first.
    Raises: ValueError, KeyError for a halt record or a side that is none.
    """
    book = _Book()
    for event in events:
        if event.kind is EventKind.DECISION:
            known = book.snapshot()
            numbers = object_of(event.body, "numbers")
            agrees = (len(known.positions), len(known.claims)) == (int_of(numbers, "positions"), int_of(numbers, "claims"))
            yield Judged(event=event, known=known, is_complete=agrees and "worst_price" in numbers)
        book.take(event)


def journaled_request(judged: Judged) -> EntryRequest:
    """Return the entry as the gate judged it."""
    body, numbers = judged.body, object_of(judged.body, "numbers")
    return EntryRequest(
        text_of(body, "strategy"),
        text_of(body, "symbol"),
        Side(text_of(body, "side")),
        int_of(body, "quantity"),
        int_of(numbers, "worst_price"),
        judged.event.ts_ms,
        int_of(numbers, "loss"),
        int_of(numbers, "entry_cost"),
    )


def journaled_limits(judged: Judged, configured: RiskLimits) -> RiskLimits:
    """Return the limits of a decision: those that it wrote down, and of the configuration what it did not."""
    numbers = object_of(judged.body, "numbers")
    loss_limit_paise = int_of(numbers, "loss_limit")
    return replace(
        configured,
        max_position_size_paise=int_of(numbers, "notional_limit"),
        max_positions_per_strategy=int_of(numbers, "strategy_limit"),
        max_total_positions=int_of(numbers, "total_limit"),
        max_daily_loss_paise=loss_limit_paise,
        initial_capital_paise=loss_limit_paise,
        max_daily_loss_bps=10_000,
    )
