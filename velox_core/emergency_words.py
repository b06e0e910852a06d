"""What is logged and alerted around an emergency exit: the safety guide's block, once for each emergency.

- Whoever closes writes the block: the engine at a trigger of its own or when it takes up a halt that closes, a closer outside
  it when it begins to close. One that goes on after another does not write it again.
- Money in paise comes in, rupees go out.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

from velox_core.domain.halts import HaltRecord
from velox_core.domain.money import rupees_text
from velox_core.ports import Alerts, Severity

_log: Final = logging.getLogger("velox.emergency")


def write_block(record: HaltRecord, failed: Sequence[str], *, loss_paise: int, limit_paise: int, now_ms: int) -> None:
    """Log the guide's block with the halt that is behind it, and the stores that did not take it (`failed`, with why)."""
    extra = {"engine_ms": now_ms}
    _log.critical("🚨 EMERGENCY EXIT TRIGGERED 🚨", extra=extra)
    _log.critical("Daily P&L: %s", rupees_text(-loss_paise), extra=extra)
    _log.critical("Max Daily Loss: %s", rupees_text(-limit_paise), extra=extra)
    named = f"{record.reason} ({record.kind.value}, by {record.by}, halt {record.halt_id})"
    _log.critical("Reason: %s", named, extra=extra)
    for store in failed:
        _log.critical("The halt could not be written to %s", store, extra=extra)


def alert_of_exit(alerts: Alerts, record: HaltRecord, *, loss_paise: int, limit_paise: int) -> None:
    """Send the one critical alert with the numbers."""
    alerts.send(
        Severity.CRITICAL,
        "EMERGENCY EXIT TRIGGERED",
        f"Daily P&L {rupees_text(-loss_paise)}, limit {rupees_text(-limit_paise)}: {record.reason}. Closing everything.",
    )


def tell_of_outside_halts(alerts: Alerts, halts: Sequence[HaltRecord], *, loss_paise: int, now_ms: int) -> None:
    """Tell of halts that another process latched."""
    for halt in halts:
        what = f"everything is closed, at a daily P&L of {rupees_text(-loss_paise)}" if halt.closes else "positions stay"
        text = f"{halt.reason} ({halt.kind.value}, by {halt.by}, halt {halt.halt_id}). No entries; {what}."
        _log.critical("HALTED from outside: %s", text, extra={"engine_ms": now_ms})
        alerts.send(Severity.CRITICAL, "HALTED from outside", text)
