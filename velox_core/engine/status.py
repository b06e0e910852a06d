"""What a running day looks like to a person: plain values for status files, dashboard and progress lines.

Lists are bounded: a status is written many times a day, and read by whoever looks.
"""

from __future__ import annotations

from typing import Final

from velox_core.domain.events import Body
from velox_core.domain.orders import Order
from velox_core.domain.positions import Position
from velox_core.domain.time import ist_clock_text
from velox_core.emergency_exit_manager import EmergencyExitManager
from velox_core.engine.plan import SessionPlan
from velox_core.order_manager import OrderManager
from velox_core.risk_manager import RiskManager

ORDERS_SHOWN_MAX: Final = 20
REASON_LENGTH_MAX: Final = 160


def session_status(
    plan: SessionPlan, risk_manager: RiskManager, orders: OrderManager, emergency: EmergencyExitManager, now_ms: int
) -> dict[str, object]:
    """Return the day at `now_ms` (epoch ms of engine time). Money in paise, quantity shares, progress 0 to 1."""
    risk = emergency.get_risk_status()
    span_ms = max(plan.flat_by_ms - plan.open_ms, 1)
    halts = risk["halts"]
    counts = risk_manager.decision_counts
    approved = sum(n for code, n in counts.items() if code in ("OK", "EXIT_OK"))
    return {
        "engine_ms": now_ms,
        "clock": ist_clock_text(now_ms) if now_ms else "",
        "phase": _phase(plan, emergency, now_ms),
        "trading_date": plan.trading_date.isoformat(),
        "realised_paise": risk["realised_paise"],
        "open_paise": risk["open_paise"],
        "charges_paise": risk["charges_paise"],
        "net_paise": risk["net_paise"],
        "loss_limit_paise": risk["loss_limit_paise"],
        "headroom_paise": risk["headroom_paise"],
        "positions": [_position_view(orders, position) for position in orders.open_positions()],
        "orders": len(orders.orders),
        "live_orders": len(orders.live),
        "working_orders": [_order_view(order) for order in list(orders.live.values())[:ORDERS_SHOWN_MAX]],
        "last_decisions": [_decision_view(at_ms, body) for at_ms, body in risk_manager.recent_decisions],
        "data_ms": risk_manager.readiness.feed_ts_ms,
        "fills": orders.fill_count,
        "decisions": sum(counts.values()),
        "refusals": sum(counts.values()) - approved,
        "halted": risk["halted"],
        "halts": halts,
        "acknowledged_halts": emergency.halt_ids,
        "halt_reason": str(halts[0]["reason"]) if halts else "",  # the first stopped trading
        "locked": sorted(risk["locked_symbols"]),
        "progress": min(max((now_ms - plan.open_ms) / span_ms, 0.0), 1.0) if now_ms else 0.0,
        "synthetic": plan.synthetic,
        "source": plan.source,
    }


def _position_view(orders: OrderManager, position: Position) -> dict[str, object]:
    mark_paise = orders.mark_of(position.symbol)
    return {
        "symbol": position.symbol,
        "strategy": position.strategy_id,
        "quantity": position.quantity,
        "average_paise": position.average_price_paise,
        "last_paise": mark_paise,
        "open_paise": position.open_pnl_paise(mark_paise),
        "stop_paise": position.stop_paise,
        "target_paise": position.target_paise,
    }


def _order_view(order: Order) -> dict[str, object]:
    return {
        "client_order_id": order.client_order_id,
        "strategy": order.strategy_id,
        "symbol": order.symbol,
        "side": order.side.value,
        "quantity": order.quantity,
        "filled": order.filled_quantity,
        "state": order.state.value,
        "role": "ENTRY" if order.rank is None else order.rank.name,
        "limit_paise": order.limit_price_paise,
        "created_ms": order.created_ms,
    }


def _decision_view(at_ms: int, body: Body) -> dict[str, object]:
    same = ("strategy", "symbol", "side", "kind", "quantity", "approved", "layer", "code")
    reason = str(body["reason"] or body["signal_reason"])[:REASON_LENGTH_MAX]
    return {"ms": at_ms, **{key: body[key] for key in same}, "reason": reason}


def _phase(plan: SessionPlan, emergency: EmergencyExitManager, now_ms: int) -> str:
    if emergency.active:
        return "halted"
    if not now_ms or now_ms < plan.entries_from_ms:
        return "before entries"
    if now_ms < plan.entry_until_ms:
        return "trading"
    return "exits only" if now_ms < plan.flat_by_ms else "square-off"
