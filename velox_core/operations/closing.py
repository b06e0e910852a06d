"""The newest word on what is open: an engine's status, or a closing from outside it that ended later (`flatten.json`).

- A closing that ended after the engine's last word has the last word on positions, orders and P&L; the engine's own stays
  under `engine_said`. An engine that speaks after it is the newer word again.
- A closing that could not ask the broker knows nothing of positions: what the engine last held is shown on, as NOT FLAT.
- Reads folders only, and decides nothing.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from velox_core.closing_record import ClosingRecord, read_closing
from velox_core.flat_proof import SymbolOutcome
from velox_core.operations.json_file import read_json
from velox_core.operations.processes import is_alive
from velox_core.operations.status import Status

CLOSER_AGE_SECONDS_MAX: Final = 15.0  # a closer that works writes once a second
_SAID: Final = ("positions", "live_orders", "net_paise", "headroom_paise", "state")
_WORKING: Final = frozenset({SymbolOutcome.CIRCUIT_LOCKED.value, SymbolOutcome.UNKNOWN.value})


def with_closing(status: Status) -> Status:
    """Return a status that tells what a closing from outside left, where one ended after the engine's last word."""
    if isinstance(status.body.get("closing"), Mapping):
        return status
    record = read_closing(status.folder)
    if record is None or not record.is_newer_than(status.number("pid"), status.number("wall_ms")):
        return status
    told = {name: status.body.get(name) for name in _SAID}
    changed: dict[str, Any] = {"closing": record.to_json(), "engine_said": told}
    if record.looked:
        changed["positions"] = _positions(record, status)
        changed["live_orders"] = 0 if record.is_flat else sum(line.outcome in _WORKING for line in record.left)
    if record.loss_paise is not None:
        changed["net_paise"] = -record.loss_paise
        changed["headroom_paise"] = max(status.number("loss_limit_paise") - record.loss_paise, 0)
    return Status(status.folder, {**status.body, **changed})


def _positions(record: ClosingRecord, status: Status) -> list[dict[str, Any]]:
    """Return what is left, with what the engine knew of it where the quantity is the same."""
    known = {(line.get("symbol"), line.get("quantity")): line for line in status.positions}
    return [
        {**known.get((line.symbol, line.quantity), {}), "symbol": line.symbol, "quantity": line.quantity, "left": line.text}
        for line in record.left
        if line.quantity
    ]


def closers_at_work(folder: Path) -> list[str]:
    """Return who closes a run from outside its engine right now, and how far each is, for people."""
    lines = []
    for path in sorted(folder.glob("flatten-*.json")):
        body = read_json(path)
        pid, wall_ms = body.get("pid"), body.get("wall_ms")
        if not isinstance(pid, int) or not isinstance(wall_ms, int) or not is_alive(pid):
            continue
        if time.time() - wall_ms / 1_000 <= CLOSER_AGE_SECONDS_MAX:
            who = "the guard" if body.get("by") == "guard" else "velox flatten"
            state = str(body.get("state", "")).lower().replace("_", " ")
            lines.append(f"{who} (process {pid}) closes now: {state}")
    return lines
