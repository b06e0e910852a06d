"""What a closing from outside the engine came to: `flatten.json` in the run's folder, left by `velox flatten` and by the guard.

- Written whole or not at all, and again when more is known; a later closing replaces it. The journal keeps the story.
- It names the engine's status that stood there when it was written: whatever clock is set, that status is the older word.
- Reading is lenient: a file that is missing, torn or of another shape is "no record", never an exception.
- Comfort for people: nothing is decided from it, and a disk that does not take it breaks no closing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from velox_core.domain.time import ist_clock_text
from velox_core.flat_proof import FlattenResult, FlattenState, SymbolOutcome

CLOSING_FILE: Final = "flatten.json"
FLATTEN, GUARD = "flatten", "guard"
_STATUS_FILE: Final = "status.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOver:
    """A symbol that a closing left open: signed shares, how it ended (`SymbolOutcome`), and that in words."""

    symbol: str
    quantity: int
    outcome: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosingRecord:
    """One closing, as it ended.

    Attributes:
        tool, by: `flatten` or `guard`, and who asked.
        is_flat: the broker said so, and no order was left whose fate is not known.
        looked: whether the broker answered at all; without that nothing is known of what is open.
        left: what was still held, or works, at its end.
        reason: why it is not flat, '' when it is.
        closed_by: 'engine', 'this process', or 'nobody'.
        loss_paise: of the day after it, None when it is not known.
        ended_ms: engine time; `wall_ms`: the machine's clock.
        after: process id and wall time of the engine's status that stood there.
    """

    tool: str
    by: str
    is_flat: bool
    looked: bool
    left: tuple[LeftOver, ...]
    reason: str
    closed_by: str
    halt_id: str
    loss_paise: int | None
    ended_ms: int
    wall_ms: int
    after: tuple[int, int]

    @property
    def who(self) -> str:
        """Return who closed, for people."""
        tool = "the guard" if self.tool == GUARD else "velox flatten"
        return tool if self.tool == GUARD or self.by in ("", "command line") else f"{tool} ({self.by})"

    @property
    def sentence(self) -> str:
        """Return what came of it in one sentence. The time is the day's, as the closer counted it."""
        clock = ist_clock_text(self.ended_ms) if self.ended_ms else "an unknown time"
        by = f"its engine, asked by {self.who}," if self.closed_by == "engine" else self.who
        if self.is_flat:
            return f"closed by {by} at {clock}: FLAT, proved by the broker"
        if not self.looked:
            return f"NOT FLAT by {self.who} at {clock}: the broker never answered, what is open is not known"
        left = ", ".join(f"{line.quantity} {line.symbol} {line.outcome}" for line in self.left)
        return f"NOT FLAT after {self.who} at {clock}: {left or self.reason or 'nobody proved it flat'}"

    def is_newer_than(self, pid: int, wall_ms: int) -> bool:
        """Return whether it ended after the engine's status that this process wrote at this wall time."""
        return (pid, wall_ms) == self.after or wall_ms <= self.wall_ms

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "by": self.by,
            "tool": self.tool,
            "flat": self.is_flat,
            "left": [
                {"symbol": line.symbol, "quantity": line.quantity, "outcome": line.outcome, "text": line.text}
                for line in self.left
            ],
            "reason": self.reason,
            "closed_by": self.closed_by,
            "halt_id": self.halt_id,
            "ended_ms": self.ended_ms,
            "wall_ms": self.wall_ms,
            "message": self.sentence,
        }


def leave_closing(folder: Path, result: FlattenResult, *, run_id: str, tool: str, by: str, not_imported: str = "") -> None:
    """Leave what a closing came to in the run's folder. Never raises: whether it is flat does not depend on it.

    Args:
        folder: the run's.
        result: of the flattening, ended.
        run_id, tool, by: what was closed, with what (`FLATTEN`, `GUARD`) and who asked.
        not_imported: why what was done is not in the run's journal yet, '' when it is.
    """
    status = _read(folder / _STATUS_FILE)
    body = {
        "run": run_id,
        "tool": tool,
        "by": by,
        **result.to_json(),
        "looked": bool(result.lines) or result.state is FlattenState.FLAT or result.loss_paise is not None,
        "not_imported": not_imported,
        "wall_ms": time.time_ns() // 1_000_000,
        "after": [_int(status, "pid"), _int(status, "wall_ms")],
    }
    path = folder / CLOSING_FILE
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with scratch.open("wb") as file:
            file.write(orjson.dumps(body, option=orjson.OPT_INDENT_2))
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    except (OSError, TypeError):
        return


def read_closing(folder: Path) -> ClosingRecord | None:
    """Return the newest closing of a run, None when there is none that can be read."""
    body = _read(folder / CLOSING_FILE)
    after = body.get("after")
    if not isinstance(body.get("flat"), bool) or not isinstance(after, list) or len(after) != 2:
        return None
    is_flat, loss = body["flat"] is True, body.get("loss_paise")
    return ClosingRecord(
        tool=str(body.get("tool", "")),
        by=str(body.get("by", "")),
        is_flat=is_flat,
        looked=body.get("looked") is not False,
        left=tuple(_left_over(body.get("symbols"), is_flat=is_flat)),
        reason=str(body.get("reason", "")),
        closed_by=str(body.get("closed_by", "")),
        halt_id=str(body.get("halt_id", "")),
        loss_paise=loss if isinstance(loss, int) else None,
        ended_ms=_int(body, "ended_ms"),
        wall_ms=_int(body, "wall_ms"),
        after=(_as_int(after[0]), _as_int(after[1])),
    )


def _left_over(symbols: object, *, is_flat: bool) -> list[LeftOver]:
    """Return the symbols that are not done; after FLAT only what is left alone as configured."""
    left = []
    for line in symbols if isinstance(symbols, list) else []:
        if not isinstance(line, dict):
            continue
        outcome = str(line.get("outcome", ""))
        if outcome == SymbolOutcome.FLAT.value or (is_flat and outcome != SymbolOutcome.KEPT.value):
            continue
        text = str(line.get("text", ""))
        left.append(
            LeftOver(symbol=str(line.get("symbol", "")), quantity=_as_int(line.get("held")), outcome=outcome, text=text)
        )
    return left


def _read(path: Path) -> dict[str, Any]:
    try:
        found = orjson.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _int(body: Mapping[str, Any], key: str) -> int:
    return _as_int(body.get(key))


def _as_int(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
