"""Halts in words: which stopped trading first, what each is, how it ends, and those that are one thing as one line.

- Repeated flattens of a day, and the halts of a take-over, are records of their own (each asks an engine anew, ADR 0027);
  people see them as one line with a count. `velox reset` clears them all.
- The first halt is the one that stopped trading; later ones came while it was off. First is by the order of the records,
  which only grow: their engine times come from several processes, each of which counts its own.
- Pure: halt records as plain values in, text out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from velox_core.domain.halts import DAMAGE_FOUND_BY, HaltKind
from velox_core.domain.time import ist_clock_text

HaltBody = Mapping[str, Any]
_TAKE_OVER: Final = "take-over: "
_BY_GUARD: Final = "guard"


@dataclass(frozen=True, slots=True, kw_only=True)
class HaltGroup:
    """Halts that are one thing: of one date, kind, sort and author, oldest first. `what` says what they are."""

    what: str
    halts: tuple[HaltBody, ...]

    @property
    def ids(self) -> tuple[str, ...]:
        """Return the ids, oldest first."""
        return tuple(str(halt.get("halt_id", "")) for halt in self.halts)

    @property
    def brief(self) -> str:
        """Return the group in one line: what it is, when, why, how often."""
        first, count = self.halts[0], len(self.halts)
        again = f" ({count} times, the last {_clock(self.halts[-1])}: {self.halts[-1].get('reason', '')})" if count > 1 else ""
        return f"{self.what}, {_clock(first)}: {first.get('reason', '')}{again}"

    @property
    def line(self) -> str:
        """Return the group in one line, with how it ends."""
        return f"{self.brief}. {how_it_ends(self.halts[0])}"


def grouped(halts: Iterable[HaltBody]) -> list[HaltGroup]:
    """Return halts as groups, by the first of each."""
    found: dict[tuple[str, str], list[HaltBody]] = {}
    for halt in halts:
        found.setdefault((what_it_is(halt), str(halt.get("trading_date", ""))), []).append(halt)
    return [HaltGroup(what=what, halts=tuple(members)) for (what, _), members in found.items()]


def what_it_is(halt: HaltBody) -> str:
    """Return what latched a halt and what it does to positions, with its kind and author."""
    kind, by, reason = str(halt.get("kind", "")), str(halt.get("by", "")), str(halt.get("reason", ""))
    if kind == HaltKind.LOSS.value:
        what = "the day's loss limit, everything is closed"
    elif kind == HaltKind.RECONCILE.value:
        what = "books that differ, positions are kept"
    elif kind == HaltKind.MANUAL.value:
        what = (
            "velox halt, positions are kept" if halt.get("keeps_positions") is True else "velox flatten, everything is closed"
        )
    elif reason.startswith(_TAKE_OVER):
        what = "a take-over of whoever did not answer, everything is closed"
    elif by == DAMAGE_FOUND_BY:
        what = "a damaged halt file"
    elif by == _BY_GUARD:
        what = "the guard, everything is closed"
    else:
        what = "a fault, everything is closed"
    return f"{kind} by {by} ({what})"


def how_it_ends(halt: HaltBody) -> str:
    """Return what ends a halt, in one sentence."""
    if halt.get("kind") == HaltKind.LOSS.value:
        return f"Ends with the end of day of {halt.get('trading_date', '')}; a reset on that date is refused"
    if halt.get("by") == DAMAGE_FOUND_BY:
        return "Look at halt.jsonl first; then velox reset"
    return "Ends with velox reset once the broker says flat, or with the end of day"


def first_and_later(halts: Iterable[HaltBody]) -> str:
    """Return why trading stopped: the first halt's reason, and how many came later with the last one's. '' for none."""
    ordered = list(halts)
    if not ordered:
        return ""
    first = f"{ordered[0].get('reason', '')}"
    later = ordered[1:]
    if not later:
        return first
    last = later[-1].get("reason", "")
    return f"{first} (first, {_clock(ordered[0])}; then {len(later)} more, the last {_clock(later[-1])}: {last})"


def _clock(halt: HaltBody) -> str:
    at_ms = _at_ms(halt)
    return f"at {ist_clock_text(at_ms)}" if at_ms else "before the first bar"


def _at_ms(halt: HaltBody) -> int:
    at_ms = halt.get("at_ms")
    return at_ms if isinstance(at_ms, int) and not isinstance(at_ms, bool) else 0
