"""Halt records: append-only, with an id, a kind, a date and an author.

- A halt holds until a clear record names its id. It never expires by itself.
- Records live in three stores (file, journal, ledger); the strictest that can be read rules.
- A LOSS halt is never cleared on its own date.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from enum import StrEnum


class HaltKind(StrEnum):
    """Why trading is off."""

    LOSS = "LOSS"
    MANUAL = "MANUAL"
    RECONCILE = "RECONCILE"
    FAULT = "FAULT"


@dataclass(frozen=True, slots=True, kw_only=True)
class HaltRecord:
    """One latch, or (with `clears`) one clear.

    Attributes:
        halt_id: unique within the account, e.g. '20240116-LOSS-1'.
        kind: why.
        trading_date: the IST date it belongs to.
        reason: one sentence for people.
        by: who or what did it ('engine', 'eod', a person's name).
        at_ms: engine time, epoch ms.
        clears: the id of the halt that this record ends, or '' when it is a latch.
    """

    halt_id: str
    kind: HaltKind
    trading_date: date
    reason: str
    by: str
    at_ms: int
    clears: str = ""

    def to_body(self) -> dict[str, str | int]:
        """Return the record as JSON values."""
        return {
            "halt_id": self.halt_id,
            "kind": self.kind.value,
            "trading_date": self.trading_date.isoformat(),
            "reason": self.reason,
            "by": self.by,
            "at_ms": self.at_ms,
            "clears": self.clears,
        }

    @staticmethod
    def from_body(body: dict[str, object]) -> HaltRecord:
        """Read a record back. Raises ValueError or KeyError when it is not one: nothing is read leniently."""
        at_ms = body["at_ms"]
        if not isinstance(at_ms, int) or isinstance(at_ms, bool):
            raise ValueError(f"halt record with at_ms {at_ms!r}")
        texts = {name: body[name] for name in ("halt_id", "kind", "trading_date", "reason", "by")}
        texts["clears"] = body.get("clears", "")
        for name, text in texts.items():
            if not isinstance(text, str):
                raise ValueError(f"halt record with {name} {text!r}")
        if not texts["halt_id"]:
            raise ValueError("halt record without an id")
        return HaltRecord(
            halt_id=str(texts["halt_id"]),
            kind=HaltKind(str(texts["kind"])),
            trading_date=date.fromisoformat(str(texts["trading_date"])),
            reason=str(texts["reason"]),
            by=str(texts["by"]),
            at_ms=at_ms,
            clears=str(texts["clears"]),
        )


def active_halts(records: Iterable[HaltRecord]) -> tuple[HaltRecord, ...]:
    """Return the latches that no clear record names, oldest first. A clear counts wherever it stands in the order."""
    latched: dict[str, HaltRecord] = {}
    cleared: set[str] = set()
    for record in records:
        if record.clears:
            cleared.add(record.clears)
        else:
            latched.setdefault(record.halt_id, record)
    return tuple(record for halt_id, record in latched.items() if halt_id not in cleared)
