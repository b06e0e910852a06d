"""What can go wrong at a broker, decided by a seed or by a script, for tests and drills.

- A `FaultPlan` only decides and records; `simulated` makes the fault happen. Every injected fault is in `plan.injected`.
- Scripted faults name a kind and, if wanted, symbol, side, which matching call, and a window of engine time. They go
  before the seeded ones, in the order of the script; each call gets at most one fault.
- Printing a plan shows its seed: the same plan against the same calls injects the same faults.
- A read or a send that fails here fails as at a real broker: reads raise, sends are UNKNOWN. Nothing here sleeps.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from velox_core.domain.orders import Side

FOREVER_MS = 1 << 60


class FaultKind(StrEnum):
    """One way in which a broker fails its client."""

    TIMEOUT_BEFORE = "time-out before acceptance"  # UNKNOWN; the order never exists
    SERVER_ERROR = "5xx"  # UNKNOWN; the order never exists
    TIMEOUT_AFTER = "time-out after acceptance"  # UNKNOWN; the order exists
    TORN_REPLY = "reply torn"  # UNKNOWN; the order exists
    APPEARS_LATE = "order appears late"  # UNKNOWN; in book and market only after delay_ms
    REJECT = "reject"  # REJECTED by the risk management
    REJECT_LATE = "reject after acceptance"  # ACKNOWLEDGED, then an update says REJECTED
    PARTIAL = "partial fill"  # the first fill takes only a part
    CANCEL_LOST = "cancel lost"  # UNKNOWN; the order works on
    CANCEL_UNKNOWN = "cancel unknown"  # UNKNOWN; the order is cancelled
    CANCEL_TOO_LATE = "cancel too late"  # REJECTED; the order filled meanwhile
    UPDATE_DUPLICATED = "update duplicated"
    UPDATE_LATE = "update late"  # after delay_ms
    UPDATE_LOST = "update lost"  # only the book knows
    UPDATES_SWAPPED = "updates out of order"
    FILL_DUPLICATED = "fill duplicated"  # the same trade id twice
    QUANTITY_WRONG = "wrong quantity in an update"  # the book is right
    READ_FAILED = "read fails"  # BrokerError
    LOCKED = "circuit lock"  # scripted only: nobody on the other side


PLACE_KINDS = (
    FaultKind.TIMEOUT_BEFORE,
    FaultKind.SERVER_ERROR,
    FaultKind.TIMEOUT_AFTER,
    FaultKind.TORN_REPLY,
    FaultKind.APPEARS_LATE,
    FaultKind.REJECT,
    FaultKind.REJECT_LATE,
    FaultKind.PARTIAL,
)
CANCEL_KINDS = (FaultKind.CANCEL_LOST, FaultKind.CANCEL_UNKNOWN, FaultKind.CANCEL_TOO_LATE)
DELIVERY_KINDS = (
    FaultKind.UPDATE_DUPLICATED,
    FaultKind.UPDATE_LATE,
    FaultKind.UPDATE_LOST,
    FaultKind.UPDATES_SWAPPED,
    FaultKind.FILL_DUPLICATED,
    FaultKind.QUANTITY_WRONG,
)
READ_KINDS = (FaultKind.READ_FAILED,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One scripted fault.

    Attributes:
        kind: what goes wrong.
        symbol: only for this symbol; '' for any. For READ_FAILED the name of the read ('orders', 'positions', ...).
        side: only for this side; None for any.
        nth: the first matching call that fails, counted from 1.
        times: how many matching calls fail from then on.
        delay_ms: for APPEARS_LATE and UPDATE_LATE, engine milliseconds.
        from_ms, until_ms: only in this half-open window of engine time.
    """

    kind: FaultKind
    symbol: str = ""
    side: Side | None = None
    nth: int = 1
    times: int = 1
    delay_ms: int = 90_000
    from_ms: int = 0
    until_ms: int = FOREVER_MS

    def matches(self, symbol: str, side: Side | None, now_ms: int) -> bool:
        """Return whether the fault is about this call."""
        return (
            self.symbol in ("", symbol) and (self.side is None or self.side is side) and self.from_ms <= now_ms < self.until_ms
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class InjectedFault:
    """One fault that happened: what, when (engine time), and on which symbol, order or read."""

    kind: FaultKind
    ts_ms: int
    subject: str
    delay_ms: int = 0


class FaultPlan:
    """The faults of one run."""

    def __init__(
        self,
        seed: int = 0,
        *,
        script: Iterable[Fault] = (),
        rates: Mapping[FaultKind, float] | None = None,
        delays_ms: tuple[int, ...] = (1_000, 10_000, 90_000, 600_000),
    ) -> None:
        """Prepare a plan.

        Args:
            seed: decides the seeded faults.
            script: faults that happen for certain.
            rates: probability, 0 to 1, of each kind per call (place, cancel, read) or announced change.
            delays_ms: from which the seeded delays are drawn.
        Raises: ValueError for a rate out of range, for rates of one call that add up to more than 1, for no delay.
        """
        self.seed = seed
        self.script = tuple(script)
        self.rates = dict(rates or {})
        self.delays_ms = delays_ms
        self.injected: list[InjectedFault] = []
        self._random = random.Random(seed)
        self._seen = [0] * len(self.script)
        if not delays_ms or min(delays_ms) < 0:
            raise ValueError(f"fault delays {delays_ms} must be at least one, none negative")
        if FaultKind.LOCKED in self.rates:
            raise ValueError("a circuit lock has no rate; script it with symbol, side and window")
        for kinds in (PLACE_KINDS, CANCEL_KINDS, DELIVERY_KINDS, READ_KINDS):
            total = sum(self.rates.get(kind, 0.0) for kind in kinds)
            if any(not 0.0 <= self.rates.get(kind, 0.0) <= 1.0 for kind in kinds) or total > 1.0 + 1e-9:
                raise ValueError(f"fault rates {self} must be from 0 to 1 and add up to at most 1 for one call")

    @classmethod
    def seeded(cls, seed: int, *, intensity: float = 0.15, script: Iterable[Fault] = ()) -> FaultPlan:
        """Return a plan whose mix of faults is itself drawn from the seed.

        Args:
            seed: of the mix and of the plan.
            intensity: the most that the faults of one call add up to, 0 to 1.
            script: scripted faults on top.
        """
        chooser = random.Random(f"mix {seed}")
        rates: dict[FaultKind, float] = {}
        for kinds in (PLACE_KINDS, CANCEL_KINDS, DELIVERY_KINDS, READ_KINDS):
            chosen = [kind for kind in kinds if chooser.random() < 0.5]
            weights = [chooser.random() for _ in chosen]
            budget = intensity * chooser.random()
            rates |= {kind: budget * weight / sum(weights) for kind, weight in zip(chosen, weights, strict=True)}
        return cls(seed, script=script, rates=rates)

    @classmethod
    def half_failing(cls, seed: int) -> FaultPlan:
        """Return the plan of a broker that fails half of all calls, in every way that a call can fail."""
        rates = {
            FaultKind.TIMEOUT_BEFORE: 0.125,
            FaultKind.SERVER_ERROR: 0.125,
            FaultKind.TIMEOUT_AFTER: 0.125,
            FaultKind.TORN_REPLY: 0.125,
            FaultKind.CANCEL_LOST: 0.25,
            FaultKind.CANCEL_UNKNOWN: 0.25,
            FaultKind.READ_FAILED: 0.5,
        }
        return cls(seed, rates=rates)

    def on_place(self, symbol: str, side: Side, now_ms: int) -> Fault | None:
        """Decide what happens to one order."""
        return self._decide(PLACE_KINDS, symbol, side, now_ms, symbol)

    def on_cancel(self, symbol: str, side: Side, now_ms: int, broker_order_id: str) -> Fault | None:
        """Decide what happens to one cancel."""
        return self._decide(CANCEL_KINDS, symbol, side, now_ms, broker_order_id)

    def on_delivery(self, symbol: str, side: Side, now_ms: int, broker_order_id: str) -> Fault | None:
        """Decide what happens to what the broker announces about one order at one moment."""
        return self._decide(DELIVERY_KINDS, symbol, side, now_ms, broker_order_id)

    def on_read(self, what: str, now_ms: int) -> Fault | None:
        """Decide whether one read ('orders', 'trades', 'positions', 'funds') fails."""
        return self._decide(READ_KINDS, what, None, now_ms, what)

    def locked_sides(self, now_ms: int) -> frozenset[tuple[str, Side]]:
        """Return the (symbol, side) pairs that cannot trade now. A lock without a side locks both."""
        pairs = set()
        for position, fault in enumerate(self.script):
            if fault.kind is FaultKind.LOCKED and fault.from_ms <= now_ms < fault.until_ms:
                pairs |= {(fault.symbol, side) for side in ((fault.side,) if fault.side else (Side.BUY, Side.SELL))}
                if not self._seen[position]:
                    self._seen[position] = 1
                    self._record(fault, now_ms, fault.symbol)
        return frozenset(pairs)

    def add(self, fault: Fault) -> None:
        """Script one more fault, from now on."""
        self.script += (fault,)
        self._seen.append(0)

    def without_effect(self) -> None:
        """Take back the record of the newest fault: the broker found nothing to spoil (half of one share, one event)."""
        self.injected.pop()

    def count(self, kind: FaultKind) -> int:
        """Return how often a kind was injected."""
        return sum(1 for fault in self.injected if fault.kind is kind)

    def __str__(self) -> str:
        rates = ", ".join(f"{kind.name} {rate:.3f}" for kind, rate in self.rates.items())
        script = ", ".join(f"{fault.kind.name} {fault.symbol or 'any'} #{fault.nth}" for fault in self.script)
        return f"FaultPlan(seed={self.seed}, rates=[{rates}], script=[{script}])"

    __repr__ = __str__

    def _decide(self, kinds: tuple[FaultKind, ...], symbol: str, side: Side | None, now_ms: int, subject: str) -> Fault | None:
        chosen = self._scripted(kinds, symbol, side, now_ms)
        if chosen is None:
            chosen = self._drawn(kinds)
        if chosen is not None:
            self._record(chosen, now_ms, subject)
        return chosen

    def _scripted(self, kinds: tuple[FaultKind, ...], symbol: str, side: Side | None, now_ms: int) -> Fault | None:
        chosen = None
        for position, fault in enumerate(self.script):
            if fault.kind in kinds and fault.matches(symbol, side, now_ms):
                self._seen[position] += 1
                if chosen is None and fault.nth <= self._seen[position] < fault.nth + fault.times:
                    chosen = fault
        return chosen

    def _drawn(self, kinds: tuple[FaultKind, ...]) -> Fault | None:
        if not any(kind in self.rates for kind in kinds):
            return None
        draw = self._random.random()
        delay_ms = self.delays_ms[self._random.randrange(len(self.delays_ms))]
        for kind in kinds:
            draw -= self.rates.get(kind, 0.0)
            if draw < 0.0:
                return Fault(kind=kind, delay_ms=delay_ms)
        return None

    def _record(self, fault: Fault, now_ms: int, subject: str) -> None:
        self.injected.append(InjectedFault(kind=fault.kind, ts_ms=now_ms, subject=subject, delay_ms=fault.delay_ms))
