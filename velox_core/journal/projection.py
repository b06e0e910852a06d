"""What the tables beside `event` hold of each event: written once, used by the SQL journal and by the importer.

- `project` is a pure function from an event to rows; a body that lacks what its kind needs is a bug of the caller.
- Rows lack `run_key` and `sequence`, which the writer knows.
- Only INTENT can be refused (the backstops of the schema); a repeated fill or halt is kept once.
- A new exit plan ends the one that a dead closer left live, so that its backstop never stands in an exit's way.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from enum import StrEnum
from typing import Any, TypeAlias

import orjson

from velox_core.domain.errors import InvariantError
from velox_core.domain.events import Body, EventKind
from velox_core.domain.orders import TERMINAL_STATES, OrderState

Row: TypeAlias = dict[str, Any]


class Target(StrEnum):
    """What a row is written to: a table, or the state of an intent."""

    DECISION = "decision"
    INTENT = "intent"
    INTENT_STATE = "intent_state"
    ORDER_EVENT = "order_event"
    FILL = "fill"
    HALT = "halt"
    EXIT_PLAN_ENDED = "exit_plan_ended"
    EXIT_PLAN = "exit_plan"


Projection: TypeAlias = list[tuple[Target, Row]]


def project(kind: EventKind, ts_ms: int, body: Body) -> Projection:
    """Return the rows of one event, in the order they are to be written. Raises InvariantError for an incomplete body."""
    projector = _PROJECTORS.get(kind)
    if projector is None:
        return []
    try:
        return projector(ts_ms, body)
    except (KeyError, ValueError) as error:
        raise InvariantError(f"{kind} event {body!r} cannot be journaled: {error!r} is missing or not allowed") from error


def _decision(ts_ms: int, body: Body) -> Projection:
    row: Row = {
        "ts_ms": ts_ms,
        "strategy": body["strategy"],
        "symbol": body["symbol"],
        "side": body["side"],
        "kind": body["kind"],
        "asked_quantity": body["asked"],
        "quantity": body["quantity"],
        "approved": body["approved"],
        "layer": body["layer"],
        "code": body["code"],
        "reason": body["reason"],
        "client_order_id": body.get("client_order_id"),
        "numbers": orjson.dumps(body.get("numbers", {})).decode(),
        "signal_reason": body.get("signal_reason", ""),
    }
    return [(Target.DECISION, row)]


def _intent(ts_ms: int, body: Body) -> Projection:
    row: Row = {
        "ts_ms": ts_ms,
        "client_order_id": body["client_order_id"],
        "strategy": body["strategy"],
        "symbol": body["symbol"],
        "side": body["side"],
        "quantity": body["quantity"],
        "order_type": body["order_type"],
        "limit_price_paise": body["limit_price"],
        "product": body["product"],
        "role": body["role"],
        "rank": body["rank"],
        "reason": body["reason"],
        "stop_paise": body.get("stop", 0),
        "target_paise": body.get("target", 0),
        "ledger_version": body.get("ledger_version", 0),
        "state": OrderState.INTENT.value,
        "live": True,
        "filled_quantity": 0,
        "broker_order_id": "",
        "updated_ms": ts_ms,
    }
    return [(Target.INTENT, row)]


def _order(ts_ms: int, body: Body) -> Projection:
    state = OrderState(str(body["state"]))
    row: Row = {
        "ts_ms": ts_ms,
        "client_order_id": body["client_order_id"],
        "state": state.value,
        "broker_order_id": body.get("broker_order_id", ""),
        "filled_quantity": body.get("filled", 0),
        "reason": body.get("reason", ""),
    }
    change: Row = {
        "new_state": state.value,
        "new_live": state not in TERMINAL_STATES,
        "new_filled_quantity": row["filled_quantity"],
        "new_broker_order_id": row["broker_order_id"],
        "new_updated_ms": ts_ms,
        "of_client_order_id": row["client_order_id"],
    }
    return [(Target.ORDER_EVENT, row), (Target.INTENT_STATE, change)]


def _fill(ts_ms: int, body: Body) -> Projection:
    row: Row = {
        "ts_ms": ts_ms,
        "trade_id": body["trade_id"],
        "client_order_id": body["client_order_id"],
        "strategy": body["strategy"],
        "symbol": body["symbol"],
        "side": body["side"],
        "quantity": body["quantity"],
        "price_paise": body["price"],
        "charges_paise": body["charges"],
        "realised_paise": body["realised"],
        "position_quantity": body["position"],
        "cost_paise": body["cost"],
    }
    return [(Target.FILL, row)]


def _halt(_ts_ms: int, body: Body) -> Projection:
    row: Row = {
        "halt_id": body["halt_id"],
        "kind": body["kind"],
        "trading_date": date.fromisoformat(str(body["trading_date"])).isoformat(),  # checked; drivers take the text
        "reason": body["reason"],
        "by": body["by"],
        "at_ms": body["at_ms"],
        "clears": body.get("clears", ""),
    }
    return [(Target.HALT, row)]


def _exit_plan(ts_ms: int, body: Body) -> Projection:
    row: Row = {"ts_ms": ts_ms, "closer": body["closer"], "live": True, "ended_ms": None}
    return [*_end_of_exit_plan(ts_ms), (Target.EXIT_PLAN, row)]


def _session(ts_ms: int, body: Body) -> Projection:
    return _end_of_exit_plan(ts_ms) if body.get("phase") == "CLOSED" else []


def _end_of_exit_plan(ts_ms: int) -> Projection:
    return [(Target.EXIT_PLAN_ENDED, {"new_live": False, "new_ended_ms": ts_ms})]


_PROJECTORS: dict[EventKind, Callable[[int, Body], Projection]] = {
    EventKind.DECISION: _decision,
    EventKind.INTENT: _intent,
    EventKind.ORDER: _order,
    EventKind.FILL: _fill,
    EventKind.HALT: _halt,
    EventKind.HALT_CLEARED: _halt,
    EventKind.EXIT_PLAN: _exit_plan,
    EventKind.SESSION: _session,
}
