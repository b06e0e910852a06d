"""Every measurement there is: its tags, its fields with their units, its time stamp and how often it comes.

- The one list that `velox metrics schema`, docs/metrics.md and the tests go by; a point that is not in it is a bug.
- FACT measurements are made of journal events alone: a backfill writes the same points again. PROCESS ones are known only
  while the engine runs: how long things took by the monotonic clock, and what the status showed.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

COMMON_TAGS: Final = {
    "mode": "replay, simulated or live: a query for one never sees another",
    "broker": "broker type, such as simulated",
    "account": "the account's name in the configuration",
    "run": "run id of a replay, such as 2024-01-15-1; not there on a real day",
}


class Source(StrEnum):
    """Where a measurement is made."""

    FACT = "journal"
    PROCESS = "running engine"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One measurement. `tags` beside the common ones; `fields` by name with their meaning; the unit ends the name."""

    name: str
    source: Source
    when: str
    time: str
    tags: tuple[str, ...]
    fields: dict[str, str]


_ENGINE_TIME: Final = "engine time"
_WALL_TIME: Final = "wall clock"

MEASUREMENTS: Final = (
    Measurement(
        name="velox_pnl",
        source=Source.FACT,
        when="each minute in which it changed",
        time=_ENGINE_TIME,
        tags=(),
        fields={
            "realised_paise": "realised P&L of the day",
            "open_paise": "P&L of what is open, at the minute's marks",
            "charges_paise": "charges due so far",
            "net_paise": "realised + open - charges due",
            "loss_paise": "the day's loss: -net, 0 in profit",
            "limit_paise": "the day's loss limit",
            "headroom_paise": "limit + net; below 0 past the limit (without the charges of closing now)",
        },
    ),
    Measurement(
        name="velox_fill",
        source=Source.FACT,
        when="each trade at the broker",
        time=_ENGINE_TIME,
        tags=("strategy", "symbol", "side"),
        fields={
            "quantity": "shares",
            "price_paise": "price of one share",
            "charges_paise": "charges of this trade",
            "realised_paise": "P&L that this trade realised",
        },
    ),
    Measurement(
        name="velox_position",
        source=Source.FACT,
        when="each trade at the broker",
        time=_ENGINE_TIME,
        tags=("symbol",),
        fields={"quantity": "net shares after it, below 0 when short", "cost_paise": "what the net position cost"},
    ),
    Measurement(
        name="velox_positions",
        source=Source.FACT,
        when="each trade at the broker",
        time=_ENGINE_TIME,
        tags=(),
        fields={"open": "symbols with a position"},
    ),
    Measurement(
        name="velox_decision",
        source=Source.FACT,
        when="each answer of the gate",
        time=_ENGINE_TIME,
        tags=("strategy", "symbol", "side", "kind", "layer", "code"),
        fields={"count": "always 1", "total": "answers of this series in the run so far"},
    ),
    Measurement(
        name="velox_order",
        source=Source.FACT,
        when="each change of an order's state",
        time=_ENGINE_TIME,
        tags=("strategy", "symbol", "side", "role", "state"),
        fields={
            "count": "always 1",
            "quantity": "shares ordered",
            "filled": "shares filled so far",
            "since_intent_ms": "engine time since the order was decided on and written to the journal",
        },
    ),
    Measurement(
        name="velox_order_stage",
        source=Source.PROCESS,
        when="each stage of an order that ended",
        time="engine time of the end; the duration is monotonic",
        tags=("strategy", "symbol", "role", "stage"),
        fields={"duration_us": "microseconds that the stage took (see the stages below)"},
    ),
    Measurement(
        name="velox_halt",
        source=Source.FACT,
        when="each halt and each clearing",
        time=_ENGINE_TIME,
        tags=("kind", "event"),
        fields={"count": "always 1", "active": "halts that stand afterwards"},
    ),
    Measurement(
        name="velox_lock",
        source=Source.FACT,
        when="each lock of a symbol and each unlocking",
        time=_ENGINE_TIME,
        tags=("symbol", "event"),
        fields={
            "count": "always 1",
            "locks": "reasons for which symbols are locked afterwards",
            "unexplained_quantity": "shares that the broker holds beyond our books; only where that is the reason",
        },
    ),
    Measurement(
        name="velox_strategy_disabled",
        source=Source.FACT,
        when="a strategy is switched off for the day",
        time=_ENGINE_TIME,
        tags=("strategy",),
        fields={"count": "always 1"},
    ),
    Measurement(
        name="velox_mark",
        source=Source.PROCESS,
        when="each heartbeat, of each open position; once more, with 0, when it is closed",
        time=_ENGINE_TIME,
        tags=("strategy", "symbol"),
        fields={
            "quantity": "net shares, below 0 when short",
            "last_paise": "the price that it is marked at",
            "open_paise": "P&L of the open position",
        },
    ),
    Measurement(
        name="velox_engine",
        source=Source.PROCESS,
        when="each heartbeat",
        time=_WALL_TIME,
        tags=(),
        fields={
            "net_paise": "P&L as the limit sees it, the charges of closing now included",
            "headroom_paise": "what is left of the loss limit, the charges of closing now included",
            "open_positions": "symbols with a position",
            "live_orders": "orders at work",
            "orders": "orders of the run",
            "fills": "trades of the run",
            "decisions": "answers of the gate in this process",
            "refusals": "of them refusals",
            "halted": "1 while a halt stands, else 0",
            "locked": "locked symbols",
            "differences": "differences between our books and the broker's at the last comparison",
            "breach_age_ms": "longest time between two looks at the loss limit since the last heartbeat",
            "data_age_ms": "engine time since the newest market data",
            "rows": "minutes of market data taken",
        },
    ),
    Measurement(
        name="velox_queue",
        source=Source.PROCESS,
        when="each heartbeat",
        time=_WALL_TIME,
        tags=("queue",),
        fields={
            "waiting": "what waits in it now",
            "dropped": "what it lost since the process began, because it was full",
            "failed": "attempts that failed since the process began",
        },
    ),
)

BY_NAME: Final = {measurement.name: measurement for measurement in MEASUREMENTS}
STAGES: Final = {
    "gate": "signal answered by the gate, until its intent was written",
    "journal": "the intent written, until it was durable",
    "broker": "durable, until the broker's first answer was taken (the request's way there and back)",
    "fill": "the broker's first answer, until the first trade was taken",
}
QUEUES: Final = {
    "alerts": "messages to people, all channels together",
    "metrics": "points for the metrics server",
    "sends": "orders and cancels on their way to the broker",
}


def rows() -> list[tuple[str, str, str, str, str]]:
    """Return one row per field for people: measurement, tags, field, meaning, when."""
    return [
        (m.name, ", ".join(m.tags) or "-", name, meaning, f"{m.when}; {m.time}")
        for m in MEASUREMENTS
        for name, meaning in m.fields.items()
    ]
