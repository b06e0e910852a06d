"""The figures of a day that its end keeps on record: how trades went, by strategy and by symbol, the deepest fall, exposure.

- From the trades of the report and the run's events; money in paise, times in epoch ms of engine time. Pure.
- A trade is won when its net is above zero; profit factor is what the won ones made over what the others lost, None without a
  loss. Averages are rounded half up.
- Drawdown is the deepest fall of the marked equity from its peak, the day's start at zero counted as one.
- Exposure is what was held at its entry prices, all symbols together, long and short alike.
- Slippage and the longest outage need the day's prices: without them they are None, and `no_prices` says why.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from velox_core.domain.events import EventKind, JournalEvent
from velox_core.operations.journal_bodies import int_of, rows_of, text_of
from velox_core.operations.session_story import Story


def day_figures(events: Sequence[JournalEvent], report: Mapping[str, Any], story: Story) -> dict[str, Any]:
    """Return the figures as JSON values.

    Args:
        events: the run's committed events, oldest first.
        report: the run's report, for its trades.
        story: the same run's, for what needs prices.
    """
    trades = rows_of(report, "trades")
    return {
        "all": trade_figures(trades),
        "by_strategy": _grouped(trades, "strategy"),
        "by_symbol": _grouped(trades, "symbol"),
        "drawdown": drawdown(story.equity),
        "exposure": exposure(events),
        "slippage": None if story.no_prices else _slippage(story),
        "longest_outage": None if story.no_prices else {"from_ms": story.outage_from_ms, "length_ms": story.outage_ms},
        "no_prices": story.no_prices,
    }


def trade_figures(trades: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what some trades came to."""
    trades = list(trades)
    nets = [int_of(trade, "net_paise") for trade in trades]
    won, lost = [net for net in nets if net > 0], [-net for net in nets if net <= 0]
    return {
        "trades": len(nets),
        "won": len(won),
        "win_rate": round(len(won) / len(nets), 4) if nets else None,
        "net_paise": sum(nets),
        "charges_paise": sum(int_of(trade, "charges_paise") for trade in trades),
        "profit_factor": round(sum(won) / sum(lost), 4) if sum(lost) else None,
        "average_win_paise": _average(won),
        "average_loss_paise": _average(lost),
        "best_paise": max(nets, default=0),
        "worst_paise": min(nets, default=0),
    }


def _average(values: Sequence[int]) -> int:
    return (2 * sum(values) + len(values)) // (2 * len(values)) if values else 0


def _grouped(trades: Sequence[Mapping[str, Any]], key: str) -> list[dict[str, Any]]:
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for trade in trades:
        groups.setdefault(text_of(trade, key), []).append(trade)
    return [{key: name, **trade_figures(group)} for name, group in sorted(groups.items())]


def drawdown(equity: Sequence[tuple[int, int]]) -> dict[str, int]:
    """Return the deepest fall of a curve of (ts_ms, paise) from its peak, and from when to when; zeros without a fall."""
    peak, peak_ms, deepest = 0, equity[0][0] if equity else 0, {"paise": 0, "from_ms": 0, "to_ms": 0}
    for ts_ms, value in equity:
        if value > peak:
            peak, peak_ms = value, ts_ms
        if peak - value > deepest["paise"]:
            deepest = {"paise": peak - value, "from_ms": peak_ms, "to_ms": ts_ms}
    return deepest


def exposure(events: Iterable[JournalEvent]) -> dict[str, int]:
    """Return the most that was held at once, when, and for how long anything was held."""
    held: dict[str, tuple[int, int]] = {}  # symbol to signed shares and their value at entry
    seen: set[str] = set()
    peak, peak_ms, positions_max, held_ms, since_ms = 0, 0, 0, 0, None
    for event in events:
        body = event.body
        if event.kind is not EventKind.FILL or text_of(body, "trade_id") in seen:
            continue
        seen.add(text_of(body, "trade_id"))
        symbol, after = text_of(body, "symbol"), int_of(body, "position")
        held[symbol] = (after, _value(held.get(symbol, (0, 0)), after, int_of(body, "price")))
        gross = sum(value for _, value in held.values())
        positions_max = max(positions_max, sum(quantity != 0 for quantity, _ in held.values()))
        if gross > peak:
            peak, peak_ms = gross, event.ts_ms
        if gross and since_ms is None:
            since_ms = event.ts_ms
        elif not gross and since_ms is not None:
            held_ms, since_ms = held_ms + event.ts_ms - since_ms, None
    return {"peak_paise": peak, "peak_ms": peak_ms, "positions_max": positions_max, "held_ms": held_ms}


def _value(before: tuple[int, int], after: int, price_paise: int) -> int:
    """Return the entry value of a position after a fill: what is added at the fill's price, what goes in proportion."""
    quantity, value = before
    if quantity == 0 or (quantity > 0) != (after > 0):
        return abs(after) * price_paise
    if abs(after) > abs(quantity):
        return value + (abs(after) - abs(quantity)) * price_paise
    return value * abs(after) // abs(quantity)


def _slippage(story: Story) -> dict[str, Any]:
    cost, value = sum(row.slippage_paise for row in story.slippage), sum(row.value_paise for row in story.slippage)
    return {
        "paise": cost,
        "bps": round(cost * 10_000 / value, 2) if value else 0.0,
        "rows": [
            {
                "strategy": row.strategy,
                "symbol": row.symbol,
                "fills": row.fills,
                "quantity": row.quantity,
                "paise": row.slippage_paise,
                "bps": round(row.bps, 2),
            }
            for row in story.slippage
        ],
    }
