"""What a session's report tells beside its totals: the equity curve, slippage, what happened when, the longest outage.

- From the journal and, where they are at hand, the day's minutes. Pure; money in paise, times in epoch ms of engine time.
- Equity is realised plus open P&L less charges due, at each minute mark that the journal has.
- Arrival is the close of the newest minute when the order was made; slippage is what fills cost beyond it, against us
  positive. Without the day's minutes there is none, and the report says so.
- SESSION events are left out: what differs from process to process is no part of a report.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

from velox_core.domain.events import EventKind, JournalEvent
from velox_core.domain.market.bars import DayColumns
from velox_core.domain.money import rupees_display
from velox_core.domain.time import MS_PER_MINUTE
from velox_core.operations.journal_bodies import int_of, object_of, text_of

TIMELINE_MAX: Final = 200
SLIPPAGE_ROWS_MAX: Final = 100
SYMBOLS_NAMED_MAX: Final = 5
BPS: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """The day's minutes of one symbol, oldest first: `stamps_ms` are the ends of the minutes, `closes` in paise."""

    stamps_ms: tuple[int, ...]
    closes: tuple[int, ...]

    def arrival(self, at_ms: int) -> int:
        """Return the close of the newest minute at a moment, 0 when there was none yet."""
        index = bisect_right(self.stamps_ms, at_ms)
        return self.closes[index - 1] if index else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class FillPoint:
    """One fill, for the chart."""

    ts_ms: int
    symbol: str
    side: str
    quantity: int
    price_paise: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SlippageRow:
    """What a strategy's fills in a symbol cost beyond their arrival prices. `value_paise` is quantity x arrival price."""

    strategy: str
    symbol: str
    fills: int
    quantity: int
    value_paise: int
    slippage_paise: int

    @property
    def bps(self) -> float:
        """Return the slippage in hundredths of a percent of the value."""
        return self.slippage_paise * BPS / self.value_paise if self.value_paise else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """One thing that happened. `is_loud` is a halt, a lock or a strategy that was disabled."""

    ts_ms: int
    text: str
    is_loud: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """What the report draws and lists. `equity` is (ts_ms, paise); `no_prices` says why there are none, '' when there are."""

    equity: tuple[tuple[int, int], ...] = ()
    fills: tuple[FillPoint, ...] = ()
    slippage: tuple[SlippageRow, ...] = ()
    timeline: tuple[Moment, ...] = ()
    moments_left_out: int = 0
    halts_ms: tuple[int, ...] = ()
    outage_ms: int = 0
    outage_from_ms: int = 0
    prices: Mapping[str, Prices] = field(default_factory=dict)
    no_prices: str = ""

    @property
    def worst(self) -> tuple[int, int] | None:
        """Return the lowest point of the equity, the first of equals; None without a mark."""
        return min(self.equity, key=lambda point: (point[1], point[0]), default=None)


def day_prices(day: DayColumns) -> dict[str, Prices]:
    """Return each symbol's minutes."""
    found = {}
    for column, symbol in enumerate(day.universe):
        bars = [(row.ts_ms, row.closes[column]) for row in day.rows if row.closes[column]]
        found[symbol] = Prices(stamps_ms=tuple(ts_ms for ts_ms, _ in bars), closes=tuple(close for _, close in bars))
    return found


def build_story(events: Sequence[JournalEvent], prices: Mapping[str, Prices], *, no_prices: str = "") -> Story:
    """Return a session's story.

    Args:
        events: the run's committed events, oldest first.
        prices: the day's minutes by symbol; empty when they could not be read.
        no_prices: why they could not.
    """
    fills = _fills(events)
    moments = _moments(events)
    outage_from_ms, outage_ms = _longest_outage(prices)
    return Story(
        equity=tuple(
            (event.ts_ms, int_of(event.body, "realised") + int_of(event.body, "open") - int_of(event.body, "charges"))
            for event in events
            if event.kind is EventKind.MARK
        ),
        fills=tuple(_point(event) for event in fills),
        slippage=_slippage(events, fills, prices),
        timeline=tuple(moments[:TIMELINE_MAX]),
        halts_ms=tuple(sorted({event.ts_ms for event in events if event.kind is EventKind.HALT})),
        moments_left_out=max(0, len(moments) - TIMELINE_MAX),
        outage_ms=outage_ms,
        outage_from_ms=outage_from_ms,
        prices={symbol: prices[symbol] for symbol in sorted({text_of(e.body, "symbol") for e in fills}) if symbol in prices},
        no_prices=no_prices,
    )


def _fills(events: Sequence[JournalEvent]) -> list[JournalEvent]:
    """Return the fills, each broker trade once."""
    found: dict[str, JournalEvent] = {}
    for event in events:
        if event.kind is EventKind.FILL:
            found.setdefault(text_of(event.body, "trade_id"), event)
    return list(found.values())


def _point(event: JournalEvent) -> FillPoint:
    body = event.body
    return FillPoint(
        ts_ms=event.ts_ms,
        symbol=text_of(body, "symbol"),
        side=text_of(body, "side"),
        quantity=int_of(body, "quantity"),
        price_paise=int_of(body, "price"),
    )


def _slippage(
    events: Sequence[JournalEvent], fills: Sequence[JournalEvent], prices: Mapping[str, Prices]
) -> tuple[SlippageRow, ...]:
    intents = {text_of(e.body, "client_order_id"): e for e in events if e.kind is EventKind.INTENT}
    sums: dict[tuple[str, str], list[int]] = {}
    for fill in fills:
        body, intent = fill.body, intents.get(text_of(fill.body, "client_order_id"))
        symbol = text_of(body, "symbol")
        arrival_paise = prices[symbol].arrival(intent.ts_ms) if intent is not None and symbol in prices else 0
        if intent is None or not arrival_paise:
            continue
        quantity, sign = int_of(body, "quantity"), 1 if text_of(body, "side") == "BUY" else -1
        strategy = text_of(body, "strategy") or text_of(intent.body, "strategy") or "(nobody)"
        row = sums.setdefault((strategy, symbol), [0, 0, 0, 0])
        row[0] += 1
        row[1] += quantity
        row[2] += quantity * arrival_paise
        row[3] += sign * quantity * (int_of(body, "price") - arrival_paise)
    rows = [
        SlippageRow(strategy=strategy, symbol=symbol, fills=n, quantity=quantity, value_paise=value, slippage_paise=cost)
        for (strategy, symbol), (n, quantity, value, cost) in sorted(sums.items())
    ]
    return tuple(rows[:SLIPPAGE_ROWS_MAX])


def _moments(events: Sequence[JournalEvent]) -> list[Moment]:
    known: set[str] = set()
    moments = []
    for event in events:
        moment = _moment(event)
        if moment is not None and (event.kind is not EventKind.HALT or text_of(event.body, "halt_id") not in known):
            moments.append(moment)
        if event.kind is EventKind.HALT:
            known.add(text_of(event.body, "halt_id"))
    return moments


def _moment(event: JournalEvent) -> Moment | None:
    body, ts_ms = event.body, event.ts_ms
    match event.kind:
        case EventKind.FILL:
            price = rupees_display(int_of(body, "price"))
            who = text_of(body, "strategy") or "nobody here"
            traded = f"{text_of(body, 'side')} {int_of(body, 'quantity')} {text_of(body, 'symbol')} at {price}"
            return Moment(ts_ms=ts_ms, text=f"{traded} ({who})")
        case EventKind.HALT:
            halt = f"HALT {text_of(body, 'kind')} by {text_of(body, 'by')}: {text_of(body, 'reason')}"
            return Moment(ts_ms=ts_ms, text=halt, is_loud=True)
        case EventKind.HALT_CLEARED:
            return Moment(ts_ms=ts_ms, text=f"halt {text_of(body, 'clears')} cleared: {text_of(body, 'reason')}")
        case EventKind.LOCK:
            return Moment(ts_ms=ts_ms, text=f"{text_of(body, 'symbol')} locked: {text_of(body, 'reason')}", is_loud=True)
        case EventKind.UNLOCK:
            return Moment(ts_ms=ts_ms, text=f"{text_of(body, 'symbol')} unlocked: {text_of(body, 'reason')}")
        case EventKind.STRATEGY_DISABLED:
            text = f"strategy {text_of(body, 'strategy')} disabled: {text_of(body, 'reason')}"
            return Moment(ts_ms=ts_ms, text=text, is_loud=True)
        case EventKind.ORDER if text_of(body, "state") in ("REJECTED", "UNKNOWN"):
            order = f"order {text_of(body, 'client_order_id')} {text_of(body, 'state')}: {text_of(body, 'reason')}"
            return Moment(ts_ms=ts_ms, text=order, is_loud=True)
        case _:
            return None


def _longest_outage(prices: Mapping[str, Prices]) -> tuple[int, int]:
    """Return since when and how long no symbol at all had a minute, at most; 0, 0 when every minute had one."""
    stamps = sorted({stamp for symbol in prices.values() for stamp in symbol.stamps_ms})
    gaps = [(after - before - MS_PER_MINUTE, before) for before, after in pairwise(stamps)]
    length_ms, since_ms = max(gaps, default=(0, 0), key=lambda gap: (gap[0], -gap[1]))
    return (since_ms, length_ms) if length_ms > 0 else (0, 0)


def quality_rows(report: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return the data's problems as rule, rows and example; of the counts alone where a report has no more."""
    detailed = report.get("data_quality")
    if isinstance(detailed, list):
        return [
            (text_of(row, "rule") + (" (kept)" if row.get("kept") is True else ""), str(int_of(row, "count")), _example(row))
            for row in detailed
            if isinstance(row, Mapping)
        ]
    dropped = report.get("dropped_rows")
    return [(str(rule), str(count), "") for rule, count in dropped.items()] if isinstance(dropped, Mapping) else []


def _example(row: Mapping[str, Any]) -> str:
    """Return where a rule met something: the symbols with most rows, and one row."""
    counts = {symbol: count for symbol, count in object_of(row, "by_symbol").items() if isinstance(count, int)}
    named = sorted(counts, key=lambda symbol: (-counts[symbol], symbol))
    more = f" and {len(named) - SYMBOLS_NAMED_MAX} more" if len(named) > SYMBOLS_NAMED_MAX else ""
    symbols = ", ".join(f"{symbol} {counts[symbol]}" for symbol in named[:SYMBOLS_NAMED_MAX]) + more
    return "; ".join(part for part in (symbols, text_of(row, "example")) if part)
