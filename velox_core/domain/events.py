"""What the journal remembers: event kinds, and the shape of each event's body.

- Bodies hold engine-time values only (ints, text, booleans, None, and lists or dicts of them), so that the same
  day at another speed, on another machine or in another folder writes the same bytes.
- Facts of a process (ids, epochs, paths, durations) belong to SESSION and EXIT_PLAN events, which exports leave out.
- A member of a StrEnum is text: it is written as its value.
- Money is paise, quantity shares, `*_ms` epoch milliseconds.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TypeAlias

Scalar: TypeAlias = int | str | bool | None
Body: TypeAlias = dict[str, "Scalar | list[Scalar] | dict[str, Scalar]"]


class EventKind(StrEnum):
    """The kinds of journal events.

    DECISION: the gate's answer to one signal.
        strategy, symbol, side, kind (ENTRY|EXIT), asked (quantity), quantity (after sizing), approved (bool),
        layer (int, 0 = precondition or none), code (reason code or 'OK'), reason (text for people),
        client_order_id (when approved), numbers (dict of the values that decided), signal_reason.
    INTENT: an order that is about to be sent; durable before the send.
        client_order_id, strategy, symbol, side, quantity, order_type, limit_price, product, role (ENTRY|EXIT),
        rank (None for an entry), reason, stop, target, ledger_version.
    ORDER: a change of an order's state.
        client_order_id, state, broker_order_id, filled (cumulative), reason.
    FILL: one trade at the broker; idempotent by trade_id.
        trade_id, client_order_id, strategy, symbol, side, quantity, price, charges (of this fill), realised,
        position (signed net after), cost (of the net position after).
    HALT / HALT_CLEARED: see `velox_core.domain.halts`.
    LOCK / UNLOCK: symbol, reason; a LOCK of an unexplained position with what counts since (quantity, cost, price), an
        UNLOCK with why, where there is more to say.
    STRATEGY_DISABLED: strategy, reason.
    MARK: minute mark of the day: realised, open, charges due (all paise); one a minute while it changes.
    EXIT_PLAN: from here on one closer sends the account's exits: closer (date, actor, epoch); not exported.
    SESSION: phase (OPENED|CLOSED|STOPPED|...), and facts of the run that may differ between runs; not exported.
    """

    DECISION = "DECISION"
    INTENT = "INTENT"
    ORDER = "ORDER"
    FILL = "FILL"
    HALT = "HALT"
    HALT_CLEARED = "HALT_CLEARED"
    LOCK = "LOCK"
    UNLOCK = "UNLOCK"
    STRATEGY_DISABLED = "STRATEGY_DISABLED"
    MARK = "MARK"
    EXIT_PLAN = "EXIT_PLAN"
    SESSION = "SESSION"


EXPORTED_KINDS = frozenset(EventKind) - {EventKind.SESSION, EventKind.EXIT_PLAN}


class JournalEvent:
    """One event as it is read back: `sequence` from 1 without gaps within a run, `digest` of the hash chain (hex)."""

    __slots__ = ("body", "digest", "kind", "sequence", "ts_ms")

    def __init__(self, sequence: int, ts_ms: int, kind: EventKind, body: Body, digest: str) -> None:
        self.sequence = sequence
        self.ts_ms = ts_ms
        self.kind = kind
        self.body = body
        self.digest = digest
