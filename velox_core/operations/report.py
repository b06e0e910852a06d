"""The session's report, computed from the journal alone.

- The journal's events are the only source of orders, fills, decisions and money; nothing is taken from memory or logs.
- Money is paise, quantities shares, times epoch milliseconds of engine time. Everything in a report is JSON.
- A closer outside the engine knows no strategies: its exits count for the strategy whose position they close. What no
  strategy of this system opened is foreign.
- A trade is what happens in one symbol between flat and flat; a reversal ends one trade and begins the next.
- The worst loss is that of the worst minute mark: charges due less realised and open P&L, before the cost of closing.
- Net P&L = realised P&L less charges; an open position's P&L is not in it, and the report then says "not flat".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from velox_core.domain.events import EventKind, JournalEvent

FOREIGN_NAME: Final = "(foreign)"
LAYER_NAMES: Final = {
    0: "Preconditions",
    1: "Emergency exit",
    2: "Duplicate order",
    3: "Position exists",
    4: "Position size",
    5: "Strategy positions",
    6: "Total positions",
    7: "Daily loss",
}


@dataclass(slots=True)
class _OpenTrade:
    """A trade under way."""

    strategy: str
    symbol: str
    side: str
    opened_ms: int
    quantity: int = 0
    entry_value: int = 0
    exit_quantity: int = 0
    exit_value: int = 0
    realised: int = 0
    charges: int = 0
    order_ids: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Tally:
    """What the events of a run add up to."""

    decisions: int = 0
    approved: int = 0
    lot_adjusted: int = 0
    refused_by_code: dict[str, int] = field(default_factory=dict)
    refused_by_layer: dict[int, int] = field(default_factory=dict)
    orders: dict[str, str] = field(default_factory=dict)
    entries: int = 0
    fills: int = 0
    realised: int = 0
    charges: int = 0
    positions: dict[str, int] = field(default_factory=dict)
    open_trades: dict[str, _OpenTrade] = field(default_factory=dict)
    trades: list[dict[str, Any]] = field(default_factory=list)
    strategies: dict[str, dict[str, int]] = field(default_factory=dict)
    halts: list[dict[str, Any]] = field(default_factory=list)
    cleared: set[str] = field(default_factory=set)
    disabled: list[dict[str, Any]] = field(default_factory=list)
    worst_loss: int = 0
    open_pnl: int = 0  # of the newest mark, less what was realised since
    marks: int = 0
    reasons: dict[str, str] = field(default_factory=dict)
    seen_trades: set[str] = field(default_factory=set)


def build_report(events: Iterable[JournalEvent], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Add up a run's journal.

    Args:
        events: the run's committed events, oldest first.
        facts: what the journal's bodies do not say: trading_date, run_id, environment, broker, account, config_hash,
            loss_limit_paise, synthetic, source, bars, exit_code; copied into the report as they are.
    Returns: the report, a JSON object; see `docs/architecture.md` for its keys.
    """
    tally = _Tally()
    for event in events:
        handler = _HANDLERS.get(event.kind)
        if handler is not None:
            handler(tally, event)
    return _as_report(tally, facts)


def _on_decision(tally: _Tally, event: JournalEvent) -> None:
    body = event.body
    tally.decisions += 1
    strategy = _strategy(tally, _owner(tally, body))
    if body.get("approved") is True:
        tally.approved += 1
        strategy["approved"] += 1
        if _int(body, "quantity") != _int(body, "asked"):
            tally.lot_adjusted += 1
        return
    code, layer = str(body.get("code", "")), _int(body, "layer")
    strategy["refused"] += 1
    tally.refused_by_code[code] = tally.refused_by_code.get(code, 0) + 1
    tally.refused_by_layer[layer] = tally.refused_by_layer.get(layer, 0) + 1


def _on_intent(tally: _Tally, event: JournalEvent) -> None:
    order_id = str(event.body.get("client_order_id", ""))
    tally.orders[order_id] = "INTENT"
    tally.reasons[order_id] = str(event.body.get("reason", ""))
    if event.body.get("role") == "ENTRY":
        tally.entries += 1


def _on_order(tally: _Tally, event: JournalEvent) -> None:
    tally.orders[str(event.body.get("client_order_id", ""))] = str(event.body.get("state", ""))


def _on_fill(tally: _Tally, event: JournalEvent) -> None:
    body = event.body
    trade_id = str(body.get("trade_id", ""))
    if trade_id in tally.seen_trades:
        return
    tally.seen_trades.add(trade_id)
    symbol, realised, charges = str(body.get("symbol", "")), _int(body, "realised"), _int(body, "charges")
    tally.fills += 1
    tally.realised += realised
    tally.open_pnl -= realised
    tally.charges += charges
    strategy = _strategy(tally, _owner(tally, body))
    strategy["fills"] += 1
    strategy["realised_paise"] += realised
    strategy["charges_paise"] += charges
    before, after = tally.positions.get(symbol, 0), _int(body, "position")
    tally.positions[symbol] = after
    _book_trade(tally, event, before=before, after=after)


def _book_trade(tally: _Tally, event: JournalEvent, *, before: int, after: int) -> None:
    """Move a fill into the symbol's trade; a fill through zero closes one and opens the next.

    All charges of a fill through zero belong to the trade that it closes.
    """
    body = event.body
    symbol, price, quantity = str(body.get("symbol", "")), _int(body, "price"), _int(body, "quantity")
    opening = quantity if before == 0 or (before > 0) == (after - before > 0) else max(0, quantity - abs(before))
    closing = quantity - opening
    charges = _int(body, "charges")
    if closing:
        trade = tally.open_trades.get(symbol) or _new_trade(event)
        trade.exit_quantity += closing
        trade.exit_value += closing * price
        trade.realised += _int(body, "realised")
        trade.charges += charges
        charges = 0
        trade.order_ids.append(str(body.get("client_order_id", "")))
        if after == 0 or opening:
            tally.trades.append(_closed_trade(tally, trade, event.ts_ms))
            tally.open_trades.pop(symbol, None)
    if opening:
        trade = tally.open_trades.setdefault(symbol, _new_trade(event))
        trade.quantity += opening
        trade.entry_value += opening * price
        trade.charges += charges
        trade.order_ids.append(str(body.get("client_order_id", "")))


def _new_trade(event: JournalEvent) -> _OpenTrade:
    body = event.body
    return _OpenTrade(
        strategy=str(body.get("strategy", "")) or FOREIGN_NAME,
        symbol=str(body.get("symbol", "")),
        side=str(body.get("side", "")),
        opened_ms=event.ts_ms,
    )


def _closed_trade(tally: _Tally, trade: _OpenTrade, closed_ms: int) -> dict[str, Any]:
    totals = _strategy(tally, trade.strategy)
    net = trade.realised - trade.charges
    totals["trades"] += 1
    totals["wins"] += net > 0
    return {
        "strategy": trade.strategy,
        "symbol": trade.symbol,
        "side": trade.side,
        "quantity": trade.quantity,
        "opened_ms": trade.opened_ms,
        "closed_ms": closed_ms,
        "entry_price_paise": _average(trade.entry_value, trade.quantity),
        "exit_price_paise": _average(trade.exit_value, trade.exit_quantity),
        "realised_paise": trade.realised,
        "charges_paise": trade.charges,
        "net_paise": net,
        "entry_reason": tally.reasons.get(trade.order_ids[0], ""),
        "exit_reason": tally.reasons.get(trade.order_ids[-1], ""),
    }


def _average(value_paise: int, quantity: int) -> int:
    return (2 * value_paise + quantity) // (2 * quantity) if quantity else 0


def _on_halt(tally: _Tally, event: JournalEvent) -> None:
    if all(known.get("halt_id") != event.body["halt_id"] for known in tally.halts):  # two processes may have written it
        tally.halts.append(dict(event.body))


def _on_halt_cleared(tally: _Tally, event: JournalEvent) -> None:
    tally.cleared.add(str(event.body.get("clears", "")))


def _on_disabled(tally: _Tally, event: JournalEvent) -> None:
    tally.disabled.append(dict(event.body))


def _on_mark(tally: _Tally, event: JournalEvent) -> None:
    tally.marks += 1
    body = event.body
    tally.open_pnl = _int(body, "open")
    tally.worst_loss = max(tally.worst_loss, _int(body, "charges") - _int(body, "realised") - _int(body, "open"))


_HANDLERS: Final = {
    EventKind.DECISION: _on_decision,
    EventKind.INTENT: _on_intent,
    EventKind.ORDER: _on_order,
    EventKind.FILL: _on_fill,
    EventKind.HALT: _on_halt,
    EventKind.HALT_CLEARED: _on_halt_cleared,
    EventKind.STRATEGY_DISABLED: _on_disabled,
    EventKind.MARK: _on_mark,
}


def _as_report(tally: _Tally, facts: Mapping[str, Any]) -> dict[str, Any]:
    limit = facts.get("loss_limit_paise")
    limit_paise = limit if isinstance(limit, int) else 0
    open_quantities = {symbol: quantity for symbol, quantity in sorted(tally.positions.items()) if quantity}
    open_paise = tally.open_pnl if open_quantities else 0
    states: dict[str, int] = {}
    for state in tally.orders.values():
        states[state] = states.get(state, 0) + 1
    wins = sum(trade["net_paise"] > 0 for trade in tally.trades)
    return {
        **facts,
        "flat": not open_quantities,
        "open_quantities": open_quantities,
        "realised_paise": tally.realised,
        "charges_paise": tally.charges,
        "open_paise": open_paise,
        "net_paise": tally.realised + open_paise - tally.charges,
        "loss_limit_paise": limit_paise,
        "worst_loss_paise": tally.worst_loss,
        "headroom_paise": limit_paise - tally.worst_loss,
        "trades": tally.trades,
        "trade_count": len(tally.trades),
        "win_count": wins,
        "fill_count": tally.fills,
        "order_count": len(tally.orders),
        "entry_order_count": tally.entries,
        "orders_by_state": dict(sorted(states.items())),
        "decisions": {
            "total": tally.decisions,
            "approved": tally.approved,
            "refused": tally.decisions - tally.approved,
            "lot_adjusted": tally.lot_adjusted,
            "by_layer": [
                {"layer": layer, "name": name, "refused": tally.refused_by_layer.get(layer, 0)}
                for layer, name in LAYER_NAMES.items()
            ],
            "by_code": dict(sorted(tally.refused_by_code.items())),
        },
        "strategies": [
            {"strategy": name, **totals, "net_paise": totals["realised_paise"] - totals["charges_paise"]}
            for name, totals in sorted(tally.strategies.items())
        ],
        "halts": [{**halt, "cleared": halt.get("halt_id") in tally.cleared} for halt in tally.halts],
        "disabled_strategies": tally.disabled,
    }


def _strategy(tally: _Tally, name: str) -> dict[str, int]:
    empty = {"approved": 0, "refused": 0, "fills": 0, "trades": 0, "wins": 0, "realised_paise": 0, "charges_paise": 0}
    return tally.strategies.setdefault(name, empty)


def _owner(tally: _Tally, body: Mapping[str, Any]) -> str:
    """Return the strategy that an event counts for: its own, else that of the symbol's open trade, else foreign."""
    own = str(body.get("strategy", ""))
    trade = tally.open_trades.get(str(body.get("symbol", "")))
    return own or (trade.strategy if trade is not None else FOREIGN_NAME)


def _int(body: Mapping[str, Any], key: str) -> int:
    value = body.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
