"""The values of the risk ledger: what several processes of one account share, and how one commit changes it.

- The rules are written once, over an immutable `RiskSnapshot`; a store only compares and sets.
- `apply_change` is the one meaning of a commit. MemoryLedger uses it directly, RedisLedger applies the same
  change field by field in one script, and one contract suite holds both to it.
- A snapshot is never mutated; `apply_change` copies what it changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from velox_core.domain.halts import HaltRecord
from velox_core.domain.orders import Side


class Claim:
    """An entry on its way: it holds its slot and its worst-case notional until the order is terminal.

    `notional_paise` is quantity x worst protected price. `created_ms` is engine time.
    """

    __slots__ = ("created_ms", "intent_id", "notional_paise", "quantity", "side", "strategy_id", "symbol")

    def __init__(
        self, intent_id: str, strategy_id: str, symbol: str, side: Side, quantity: int, notional_paise: int, created_ms: int
    ) -> None:
        self.intent_id = intent_id
        self.strategy_id = strategy_id
        self.symbol = symbol
        self.side = side
        self.quantity = quantity
        self.notional_paise = notional_paise
        self.created_ms = created_ms


class OpenPosition:
    """A net position in the ledger. `quantity` is signed shares, `cost_paise` signed; never flat."""

    __slots__ = ("cost_paise", "opened_ms", "quantity", "strategy_id", "symbol")

    def __init__(self, symbol: str, strategy_id: str, quantity: int, cost_paise: int, opened_ms: int) -> None:
        self.symbol = symbol
        self.strategy_id = strategy_id
        self.quantity = quantity
        self.cost_paise = cost_paise
        self.opened_ms = opened_ms


DedupKey: TypeAlias = tuple[str, str, Side]  # strategy, symbol, side


class RiskSnapshot:
    """The shared state of one account and trading date at one version. Never mutated.

    Attributes:
        version: grows by one with every commit.
        epoch: the lease epoch that may commit.
        generation: identity of the store's content; it changes when the store was lost and rebuilt.
        halts: active halts, oldest first; empty means none.
        claims: by intent id.
        positions: by symbol, open ones only.
        last_entry_ms: by (strategy, symbol, side): engine time of the newest claim, for the dedup window.
        realised_paise: realised P&L of the day, before charges.
        charges_paise: charges due so far today.
    """

    __slots__ = (
        "charges_paise",
        "claims",
        "epoch",
        "generation",
        "halts",
        "last_entry_ms",
        "positions",
        "realised_paise",
        "version",
    )

    def __init__(
        self,
        *,
        version: int = 0,
        epoch: int = 0,
        generation: str = "",
        halts: tuple[HaltRecord, ...] = (),
        claims: Mapping[str, Claim] | None = None,
        positions: Mapping[str, OpenPosition] | None = None,
        last_entry_ms: Mapping[DedupKey, int] | None = None,
        realised_paise: int = 0,
        charges_paise: int = 0,
    ) -> None:
        self.version = version
        self.epoch = epoch
        self.generation = generation
        self.halts = halts
        self.claims: Mapping[str, Claim] = {} if claims is None else claims
        self.positions: Mapping[str, OpenPosition] = {} if positions is None else positions
        self.last_entry_ms: Mapping[DedupKey, int] = {} if last_entry_ms is None else last_entry_ms
        self.realised_paise = realised_paise
        self.charges_paise = charges_paise


class LedgerChange:
    """What one commit changes. Every field is optional; absent means unchanged.

    Args:
        opens_risk: True for a new claim: the store refuses it while a halt is active, whatever the caller saw.
        is_fact: True for what has happened (a fill, the end of an order): it goes in whatever version the caller saw.
        put_claim: a claim to add; it also moves the dedup time of its (strategy, symbol, side).
        drop_claim: intent id of a claim that is resolved.
        put_position: the symbol's position after the commit.
        drop_position: a symbol that is flat after the commit.
        realised_paise, charges_paise: the day's new totals (absolute, not deltas).
    """

    __slots__ = (
        "charges_paise",
        "drop_claim",
        "drop_position",
        "is_fact",
        "opens_risk",
        "put_claim",
        "put_position",
        "realised_paise",
    )

    def __init__(
        self,
        *,
        opens_risk: bool = False,
        is_fact: bool = False,
        put_claim: Claim | None = None,
        drop_claim: str | None = None,
        put_position: OpenPosition | None = None,
        drop_position: str | None = None,
        realised_paise: int | None = None,
        charges_paise: int | None = None,
    ) -> None:
        self.opens_risk = opens_risk
        self.is_fact = is_fact
        self.put_claim = put_claim
        self.drop_claim = drop_claim
        self.put_position = put_position
        self.drop_position = drop_position
        self.realised_paise = realised_paise
        self.charges_paise = charges_paise


class Committed:
    """The change is in. `version` is the ledger's new version; `snapshot` its new state.

    The snapshot may be None where the version is the one above the expected (the caller knows the state then), and where the
    reply was lost and asked about.
    """

    __slots__ = ("snapshot", "version")

    def __init__(self, version: int, snapshot: RiskSnapshot | None = None) -> None:
        self.version = version
        self.snapshot = snapshot


class Conflict:
    """Somebody else committed first, latched a halt or rebuilt; `snapshot` is the fresh state to decide on again.

    A fact (`LedgerChange.is_fact`) meets one only where the content was rebuilt.
    """

    __slots__ = ("snapshot",)

    def __init__(self, snapshot: RiskSnapshot) -> None:
        self.snapshot = snapshot


class Fenced:
    """The caller's lease epoch is no longer the ledger's: it may not open or record anything any more."""

    __slots__ = ("epoch",)

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch


CommitResult: TypeAlias = Committed | Conflict | Fenced


def apply_change(snapshot: RiskSnapshot, change: LedgerChange) -> RiskSnapshot:
    """Return the snapshot after a commit: one version later, with the change in it."""
    claim, ended_claim = change.put_claim, change.drop_claim
    position, flat_symbol = change.put_position, change.drop_position
    realised_paise, charges_paise = change.realised_paise, change.charges_paise
    fresh = _copy(snapshot)
    fresh.version += 1
    if claim is not None or ended_claim is not None:
        fresh.claims = claims = dict(snapshot.claims)
        if ended_claim is not None:
            claims.pop(ended_claim, None)
        if claim is not None:
            claims[claim.intent_id] = claim
            fresh.last_entry_ms = last_entry_ms = dict(snapshot.last_entry_ms)
            last_entry_ms[claim.strategy_id, claim.symbol, claim.side] = claim.created_ms
    if position is not None or flat_symbol is not None:
        fresh.positions = positions = dict(snapshot.positions)
        if flat_symbol is not None:
            positions.pop(flat_symbol, None)
        if position is not None:
            positions[position.symbol] = position
    if realised_paise is not None:
        fresh.realised_paise = realised_paise
    if charges_paise is not None:
        fresh.charges_paise = charges_paise
    return fresh


def replace_snapshot(
    snapshot: RiskSnapshot,
    *,
    version: int | None = None,
    epoch: int | None = None,
    generation: str | None = None,
    halts: tuple[HaltRecord, ...] | None = None,
) -> RiskSnapshot:
    """Return the snapshot with another head; None leaves a field as it is. Claims, positions and totals stay."""
    fresh = _copy(snapshot)
    fresh.version = snapshot.version if version is None else version
    fresh.epoch = snapshot.epoch if epoch is None else epoch
    fresh.generation = snapshot.generation if generation is None else generation
    fresh.halts = snapshot.halts if halts is None else halts
    return fresh


def _copy(snapshot: RiskSnapshot) -> RiskSnapshot:
    """Return a shallow copy, for the caller to finish before anybody else sees it (assignment beats keyword arguments here)."""
    fresh = RiskSnapshot.__new__(RiskSnapshot)
    fresh.version = snapshot.version
    fresh.epoch = snapshot.epoch
    fresh.generation = snapshot.generation
    fresh.halts = snapshot.halts
    fresh.claims = snapshot.claims
    fresh.positions = snapshot.positions
    fresh.last_entry_ms = snapshot.last_entry_ms
    fresh.realised_paise = snapshot.realised_paise
    fresh.charges_paise = snapshot.charges_paise
    return fresh
