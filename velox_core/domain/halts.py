"""Halt records: append-only, with an id, a kind, a date and an author.

- A halt holds until a clear record names its id. It never expires by itself.
- Records live in three stores (file, journal, ledger); the strictest that can be read rules.
- A LOSS halt is never cleared on its own date.
- A halt closes what is open, unless it is a RECONCILE one or a person's that keeps positions: entries only are stopped then.
  A record of before that was kept says nothing of it, and closes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from enum import StrEnum

DAMAGE_FOUND_BY = "halt file"  # the author of what the halt file finds of its own damage


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
        keeps_positions: a MANUAL halt stops entries and leaves positions to their exits; no other kind heeds it.
    """

    halt_id: str
    kind: HaltKind
    trading_date: date
    reason: str
    by: str
    at_ms: int
    clears: str = ""
    keeps_positions: bool = False

    @property
    def closes(self) -> bool:
        """Return whether everything that is open must be closed while this halt is active."""
        if self.kind is HaltKind.MANUAL:
            return not self.keeps_positions
        return self.kind is not HaltKind.RECONCILE

    @property
    def is_damage(self) -> bool:
        """Return whether this is the halt file's finding about itself, which no store holds as a record."""
        return self.by == DAMAGE_FOUND_BY

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
            "keeps_positions": self.keeps_positions,
        }

    @staticmethod
    def from_body(body: dict[str, object]) -> HaltRecord:
        """Read a record back. Raises ValueError or KeyError when it is not one: nothing is read leniently."""
        at_ms = body["at_ms"]
        if not isinstance(at_ms, int) or isinstance(at_ms, bool):
            raise ValueError(f"halt record with at_ms {at_ms!r}")
        keeps_positions = body.get("keeps_positions", False)
        if not isinstance(keeps_positions, bool):
            raise ValueError(f"halt record with keeps_positions {keeps_positions!r}")
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
            keeps_positions=keeps_positions,
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


def clear_of(halt: HaltRecord, *, reason: str, by: str, at_ms: int) -> HaltRecord:
    """Return the record that ends a halt."""
    return HaltRecord(
        halt_id=f"{halt.halt_id}-CLEAR",
        kind=halt.kind,
        trading_date=halt.trading_date,
        reason=reason,
        by=by,
        at_ms=at_ms,
        clears=halt.halt_id,
    )


def named_ids(records: Iterable[HaltRecord]) -> set[str]:
    """Return every id that records bear or clear: none of them may be given to a new halt."""
    return {halt_id for record in records for halt_id in (record.halt_id, record.clears) if halt_id}
