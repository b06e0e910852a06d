"""How ledger values look in a Redis hash, and the strict way back.

- One field for each claim (`c:`), position (`p:`) and dedup time (`d:`): a JSON list, or a number.
- Reading trusts nothing: a field that is not exactly what was written is named in a `GarbageField`.
- A change becomes the fields to delete and the fields to set: the same meaning as `apply_change`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from velox_core.domain.halts import HaltRecord, active_halts
from velox_core.domain.orders import Side
from velox_core.risk.ledger import Claim, DedupKey, LedgerChange, OpenPosition, RiskSnapshot

_CLAIM_TYPES = (str, str, str, int, int, int)
_POSITION_TYPES = (str, int, int, int)
_TOTALS = ("realised", "charges")


class GarbageField(Exception):
    """A stored field that is not what the ledger writes. `field` names it, `value` is the start of what stands there."""

    def __init__(self, field: str, value: bytes | None) -> None:
        self.field = field
        self.value = "nothing" if value is None else repr(value[:60])
        super().__init__(f"{field} holds {self.value}")


def change_fields(change: LedgerChange) -> tuple[list[bytes | str], list[bytes | str | int]]:
    """Return the fields that a change deletes, and the field-value pairs it sets, in `apply_change`'s order."""
    deletes: list[bytes | str] = []
    pairs: list[bytes | str | int] = []
    if change.drop_claim is not None:
        deletes.append("c:" + change.drop_claim)
    if change.put_claim is not None:
        pairs += claim_fields(change.put_claim)
        pairs += dedup_fields(change.put_claim.strategy_id, change.put_claim.symbol, change.put_claim.side)
        pairs.append(change.put_claim.created_ms)
    if change.drop_position is not None:
        deletes.append("p:" + change.drop_position)
    if change.put_position is not None:
        pairs += position_fields(change.put_position)
    if change.realised_paise is not None:
        pairs += ("realised", change.realised_paise)
    if change.charges_paise is not None:
        pairs += ("charges", change.charges_paise)
    return deletes, pairs


def claim_fields(claim: Claim) -> tuple[str, bytes]:
    """Return the field and the value of a claim."""
    value = (claim.strategy_id, claim.symbol, claim.side, claim.quantity, claim.notional_paise, claim.created_ms)
    return "c:" + claim.intent_id, orjson.dumps(value)


def position_fields(position: OpenPosition) -> tuple[str, bytes]:
    """Return the field and the value of a position."""
    value = (position.strategy_id, position.quantity, position.cost_paise, position.opened_ms)
    return "p:" + position.symbol, orjson.dumps(value)


def dedup_fields(strategy_id: str, symbol: str, side: Side) -> tuple[bytes]:
    """Return the field of a dedup time; its value is the engine time in milliseconds."""
    return (b"d:" + orjson.dumps((strategy_id, symbol, side)),)


def snapshot_fields(snapshot: RiskSnapshot) -> list[bytes | str | int]:
    """Return all field-value pairs of a snapshot, but for version and generation, which the store gives."""
    pairs: list[bytes | str | int] = ["realised", snapshot.realised_paise, "charges", snapshot.charges_paise]
    for claim in snapshot.claims.values():
        pairs += claim_fields(claim)
    for position in snapshot.positions.values():
        pairs += position_fields(position)
    for (strategy_id, symbol, side), entered_ms in snapshot.last_entry_ms.items():
        pairs += dedup_fields(strategy_id, symbol, side)
        pairs.append(entered_ms)
    return pairs


def halt_value(record: HaltRecord) -> bytes:
    """Return a halt record as JSON."""
    return orjson.dumps(record.to_body())


def halt_fields(record: HaltRecord) -> tuple[str, str]:
    """Return the field of a record in the halts hash, and the field of its counterpart (a clear's latch, a latch's clear)."""
    if record.clears:
        return "c:" + record.clears, "a:" + record.clears
    return "a:" + record.halt_id, "c:" + record.halt_id


def read_snapshot(content: Sequence[bytes], halts: Sequence[bytes], scope: Sequence[bytes | None]) -> RiskSnapshot:
    """Read what the scripts return.

    Args:
        content: field, value, field, value, ... of the content hash, with a generation in it.
        halts: field, value, ... of the halts hash.
        scope: epoch and number of active halts.
    Raises: GarbageField.
    """
    claims: dict[str, Claim] = {}
    positions: dict[str, OpenPosition] = {}
    last_entry_ms: dict[DedupKey, int] = {}
    single: dict[str, bytes] = {}
    for raw_field, value in zip(content[::2], content[1::2], strict=True):
        field = _text("field name", raw_field)
        prefix, rest = field[:2], field[2:]
        if prefix == "c:":
            claims[rest] = _read_claim(field, rest, value)
        elif prefix == "p:":
            positions[rest] = _read_position(field, rest, value)
        elif prefix == "d:":
            last_entry_ms[_read_dedup_key(field, rest)] = _number(field, value)
        else:
            single[field] = value
    active = _read_halts(halts)
    if _number("halted", scope[1]) != len(active):
        raise GarbageField("halted", scope[1])
    realised, charges = (_number(name, single[name]) if name in single else 0 for name in _TOTALS)
    return RiskSnapshot(
        version=_number("version", single.get("version")),
        epoch=_number("epoch", scope[0]),
        generation=_text("generation", single.get("generation")),
        halts=active,
        claims=claims,
        positions=positions,
        last_entry_ms=last_entry_ms,
        realised_paise=realised,
        charges_paise=charges,
    )


def _number(field: str, value: bytes | None) -> int:
    if value is None or not value.removeprefix(b"-").isdigit():
        raise GarbageField(field, value)
    return int(value)


def _text(field: str, value: bytes | None) -> str:
    if not value:
        raise GarbageField(field, value)
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise GarbageField(field, value) from None


def _row(field: str, value: bytes, types: tuple[type, ...]) -> list[Any]:
    """Return a JSON list whose members have exactly the given types."""
    try:
        row = orjson.loads(value)
    except orjson.JSONDecodeError:
        raise GarbageField(field, value) from None
    if not isinstance(row, list) or tuple(type(member) for member in row) != types:
        raise GarbageField(field, value)
    return row


def _side(field: str, value: str, raw: bytes) -> Side:
    try:
        return Side(value)
    except ValueError:
        raise GarbageField(field, raw) from None


def _read_claim(field: str, intent_id: str, value: bytes) -> Claim:
    strategy_id, symbol, side, quantity, notional_paise, created_ms = _row(field, value, _CLAIM_TYPES)
    if quantity <= 0 or notional_paise < 0:
        raise GarbageField(field, value)
    return Claim(intent_id, strategy_id, symbol, _side(field, side, value), quantity, notional_paise, created_ms)


def _read_position(field: str, symbol: str, value: bytes) -> OpenPosition:
    strategy_id, quantity, cost_paise, opened_ms = _row(field, value, _POSITION_TYPES)
    if quantity == 0:
        raise GarbageField(field, value)
    return OpenPosition(symbol, strategy_id, quantity, cost_paise, opened_ms)


def _read_dedup_key(field: str, rest: str) -> DedupKey:
    raw = rest.encode()
    strategy_id, symbol, side = _row(field, raw, (str, str, str))
    return strategy_id, symbol, _side(field, side, raw)


def _read_halts(halts: Sequence[bytes]) -> tuple[HaltRecord, ...]:
    """Return the active halts. Each value is a number, a space, and the record as JSON."""
    numbered: list[tuple[int, HaltRecord]] = []
    for raw_field, value in zip(halts[::2], halts[1::2], strict=True):
        field = "halt " + _text("halt", raw_field)
        number, _, body = value.partition(b" ")
        try:
            numbered.append((_number(field, number), HaltRecord.from_body(orjson.loads(body))))
        except (ValueError, KeyError, TypeError):
            raise GarbageField(field, value) from None
    numbered.sort(key=lambda pair: pair[0])
    return active_halts(record for _, record in numbered)
