"""What a flattening came to: FLAT by the broker's word, or NOT_FLAT with why, symbol by symbol.

- Plain values, JSON-able: shares signed, money in paise, times epoch ms of engine time.
- Nothing here decides: `flattening` fills it in.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from velox_core.domain.errors import EXIT_DONE, EXIT_NOT_FLAT


class FlattenState(StrEnum):
    """How far a flattening is.

    LATCHING: the halt is being written. ASKING: a running engine is waited for to acknowledge it. FOLLOWING: the engine
    closes, and is watched. TAKING_OVER: an engine that does not answer is ended. CLOSING: this process closes. FLAT: the
    broker says so. NOT_FLAT: the bound is over.
    """

    LATCHING = "LATCHING"
    ASKING = "ASKING"
    FOLLOWING = "FOLLOWING"
    TAKING_OVER = "TAKING_OVER"
    CLOSING = "CLOSING"
    FLAT = "FLAT"
    NOT_FLAT = "NOT_FLAT"


ENDED = frozenset({FlattenState.FLAT, FlattenState.NOT_FLAT})


class SymbolOutcome(StrEnum):
    """What became of one symbol.

    FLAT: nothing is held, nothing works. OPEN: it is held, or an order works, and nothing else is known to be wrong.
    CONVERTED: its shares stand in another product now. CIRCUIT_LOCKED: an exit is queued at the price band. REJECTED: the
    broker refuses its exits. UNKNOWN: what became of an order is not known. KEPT: left alone, as configured.
    """

    FLAT = "FLAT"
    OPEN = "OPEN"
    CONVERTED = "CONVERTED"
    CIRCUIT_LOCKED = "CIRCUIT_LOCKED"
    REJECTED = "REJECTED"
    UNKNOWN = "UNKNOWN"
    KEPT = "KEPT"


@dataclass(frozen=True, slots=True, kw_only=True)
class SymbolLine:
    """One symbol: signed shares at the start and now, what became of it, and that in words."""

    symbol: str
    held_before: int
    held: int
    outcome: SymbolOutcome
    text: str

    def to_json(self) -> dict[str, str | int]:
        """Return the line as JSON values."""
        return {
            "symbol": self.symbol,
            "held_before": self.held_before,
            "held": self.held,
            "outcome": self.outcome.value,
            "text": self.text,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class FlattenResult:
    """The outcome.

    Attributes:
        state: FLAT, NOT_FLAT, or how far it is.
        reason: '' when flat, else why not, for people.
        lines: one for each symbol that was held, worked in, or left alone.
        halt_id: the halt under which it was done; `not_latched` are the stores that did not take it, with why;
            `halt_stands`: whether any did.
        closed_by: 'engine', 'this process', or 'nobody' while neither has begun.
        loss_paise: the day's loss after it, charges included, negative for a profit; None when the broker never answered.
        started_ms, ended_ms: engine time.
        not_recalled: why what earlier processes sent is not all known, '' when it is.
    """

    state: FlattenState
    reason: str
    lines: tuple[SymbolLine, ...]
    halt_id: str
    not_latched: tuple[str, ...]
    closed_by: str
    loss_paise: int | None
    started_ms: int
    ended_ms: int
    halt_stands: bool = True
    not_recalled: str = ""

    @property
    def exit_code(self) -> int:
        """Return 0 for FLAT, 4 for anything else."""
        return EXIT_DONE if self.state is FlattenState.FLAT else EXIT_NOT_FLAT

    def to_json(self) -> dict[str, object]:
        """Return the result as JSON values."""
        return {
            "state": self.state.value,
            "flat": self.state is FlattenState.FLAT,
            "reason": self.reason,
            "symbols": [line.to_json() for line in self.lines],
            "halt_id": self.halt_id,
            "halt_stands": self.halt_stands,
            "not_latched": list(self.not_latched),
            "not_recalled": self.not_recalled,
            "closed_by": self.closed_by,
            "loss_paise": self.loss_paise,
            "started_ms": self.started_ms,
            "ended_ms": self.ended_ms,
            "exit_code": self.exit_code,
        }
