"""Small journals with an event of every kind that has a table beside it, for what reads, copies and compares them."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import date
from pathlib import Path

from velox_core.domain.events import Body, EventKind
from velox_core.journal.run import RunIdentity
from velox_core.journal.sql import SqlJournal

DAY = date(2024, 1, 15)
RUN_ID = "2024-01-15-1"
RUN = RunIdentity(scope_key=f"simulated:primary:{RUN_ID}", trading_date=DAY, run_id=RUN_ID, config_hash="abc")


def day_events(count: int = 1) -> list[tuple[EventKind, Body]]:
    """Return the events of a day: for each of `count` an order from decision to fill; then a halt and its end."""
    events: list[tuple[EventKind, Body]] = [(EventKind.SESSION, {"phase": "OPENED"}), (EventKind.EXIT_PLAN, {"closer": "E1"})]
    for number in range(1, count + 1):
        order_id = f"240115E0001{number:07d}"
        events += [(EventKind.DECISION, _decision(order_id)), (EventKind.INTENT, _intent(order_id))]
        events += [(EventKind.ORDER, _order(order_id, state, number)) for state in ("OPEN", "FILLED")]
        events.append((EventKind.FILL, _fill(order_id, number)))
        events.append((EventKind.MARK, {"realised": number}))
    events.append((EventKind.HALT, _halt("h1", "")))
    events.append((EventKind.HALT_CLEARED, _halt("c1", "h1")))
    return [*events, (EventKind.SESSION, {"phase": "CLOSED"})]


def write_journal(
    path: Path, run: RunIdentity = RUN, *, count: int = 1, events: list[tuple[EventKind, Body]] | None = None
) -> None:
    """Write a run into a journal, new or not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(SqlJournal(f"sqlite:///{path}", run)) as journal:
        for number, (kind, body) in enumerate(day_events(count) if events is None else events, start=1):
            journal.append(kind, number * 1_000, body)
        journal.commit()


def tamper(path: Path, *statements: str) -> None:
    """Do to a database what its owner would not."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _decision(order_id: str) -> Body:
    return {
        "strategy": "orb", "symbol": "TCS", "side": "BUY", "kind": "ENTRY", "asked": 10, "quantity": 1, "approved": True,
        "layer": 0, "code": "OK", "reason": "", "client_order_id": order_id, "numbers": {"loss_paise": 5},
        "signal_reason": "up",
    }  # fmt: skip


def _intent(order_id: str) -> Body:
    return {
        "client_order_id": order_id, "strategy": "orb", "symbol": "TCS", "side": "BUY", "quantity": 1, "order_type": "MARKET",
        "limit_price": 0, "product": "MIS", "role": "ENTRY", "rank": None, "reason": "breakout", "ledger_version": 3,
    }  # fmt: skip


def _order(order_id: str, state: str, number: int) -> Body:
    filled = int(state == "FILLED")
    return {"client_order_id": order_id, "state": state, "broker_order_id": f"B{number}", "filled": filled, "reason": ""}


def _fill(order_id: str, number: int) -> Body:
    return {
        "trade_id": f"T{number}", "client_order_id": order_id, "strategy": "orb", "symbol": "TCS", "side": "BUY", "quantity": 1,
        "price": 390_000, "charges": 12, "realised": 0, "position": 1, "cost": 390_000,
    }  # fmt: skip


def _halt(halt_id: str, clears: str) -> Body:
    return {
        "halt_id": halt_id, "kind": "MANUAL", "trading_date": "2024-01-15", "reason": "asked for", "by": "owner", "at_ms": 1,
        "clears": clears, "keeps_positions": False,
    }  # fmt: skip
