"""What one trading day is to be: date, hours, and how it ends. A value, made by the composition root."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from enum import StrEnum


class OnStop(StrEnum):
    """What a stop request does to open positions."""

    FLATTEN = "flatten"
    HOLD = "hold"


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionPlan:
    """One day of one engine. Times in epoch ms of engine time.

    Attributes:
        trading_date: the session's date.
        universe: symbols in column order.
        open_ms: start of continuous trading.
        entries_from_ms, entry_until_ms: entries are accepted from, and until (exclusive).
        flat_by_ms: everything is squared off from here on.
        hard_stop_ms: after it nothing is sent without a book read that shows no foreign working order.
        tick_paise: tick size per column.
        spread_ticks: assumed spread of a round trip, in ticks, for the cost of an entry.
        square_off: False only where positions are carried over the day's end (benchmarks).
        on_stop: what a stop request does to positions.
        heartbeat_seconds: how often the status is published, wall time.
        reconcile_seconds: how often the books are compared with the broker's, engine time; 0 for at the start only.
        resume_after_ms: market data up to here was already traded on by an earlier process of this run.
        source, synthetic: where the data came from, for every output.
        on_ticks: the feed brings ticks, and minutes built from them; else minutes alone.
        granularity: what the marks and stops rest on, for reports.
    """

    trading_date: date
    universe: tuple[str, ...]
    open_ms: int
    entries_from_ms: int
    entry_until_ms: int
    flat_by_ms: int
    hard_stop_ms: int
    tick_paise: tuple[int, ...]
    spread_ticks: int = 1
    square_off: bool = True
    on_stop: OnStop = OnStop.FLATTEN
    heartbeat_seconds: float = 1.0
    reconcile_seconds: float = 0.0
    resume_after_ms: int = 0
    source: str = ""
    synthetic: bool = False
    on_ticks: bool = False
    granularity: str = "1-minute bars; marks at the close, a stop is taken before a target"
