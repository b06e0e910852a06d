"""Points from journal events: the same events make the same points, live and in a backfill.

- Engine time stamps them. Facts of one series in one millisecond stand a nanosecond apart, so that none replaces another.
- What needs memory (positions, open halts, when an order began) is built from the events alone, and is bounded.
- The stages of an order by the monotonic clock come out beside, for events that this process wrote itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from velox_core.domain.events import Body, EventKind
from velox_core.metrics.points import Point
from velox_core.ports import JournalFact

NS_PER_MS: Final = 1_000_000
MICROSECONDS: Final = 1_000_000
ORDERS_KNOWN_MAX: Final = 20_000  # the oldest is forgotten; its later events have no times since its intent
SERIES_KNOWN_MAX: Final = 50_000  # of counts and time stamps; 50 symbols and four strategies have a few thousand

_NOT_ANSWERS: Final = frozenset({"UNKNOWN", "INTENT", "SUBMITTING"})


class _Order:
    """What later events of an order need of its intent. Times are monotonic seconds, 0.0 when this process has none."""

    __slots__ = ("answered", "durable", "filled", "intent_ms", "quantity", "tags")

    def __init__(self, fact: JournalFact) -> None:
        body = fact.body
        self.intent_ms = fact.ts_ms
        self.durable = fact.durable
        self.answered = 0.0
        self.filled = False
        self.quantity = _number(body, "quantity")
        self.tags = {name: _text(body, name) for name in ("strategy", "symbol", "side", "role")}


class FactPoints:
    """Journal events in, points out. One instance for a run, used by one thread.

    Args:
        limit_paise: the day's loss limit.
    """

    def __init__(self, limit_paise: int) -> None:
        self._limit_paise = limit_paise
        self._orders: dict[str, _Order] = {}
        self._decided: dict[str, float] = {}  # monotonic seconds of approvals whose intent is still to come
        self._totals: dict[tuple[str, ...], int] = {}
        self._stamps: dict[tuple[str, ...], tuple[int, int]] = {}  # of a series: the newest ms, and how many are in it
        self._positions: dict[str, int] = {}
        self._halts: set[str] = set()
        self._locks: set[tuple[str, str]] = set()
        self._makers: dict[EventKind, Callable[[JournalFact], list[Point]]] = {
            EventKind.MARK: self._pnl,
            EventKind.DECISION: self._decision,
            EventKind.INTENT: self._intent,
            EventKind.ORDER: self._order,
            EventKind.FILL: self._fill,
            EventKind.HALT: self._halt,
            EventKind.HALT_CLEARED: self._halt,
            EventKind.LOCK: self._lock,
            EventKind.UNLOCK: self._lock,
            EventKind.STRATEGY_DISABLED: self._disabled,
        }

    def take(self, fact: JournalFact) -> list[Point]:
        """Return the points of the next event of the run. Raises KeyError, TypeError, ValueError for a strange body."""
        maker = self._makers.get(fact.kind)
        return [] if maker is None else maker(fact)

    def _pnl(self, fact: JournalFact) -> list[Point]:
        realised, open_paise, charges = (_number(fact.body, name) for name in ("realised", "open", "charges"))
        net = realised + open_paise - charges
        fields = {
            "realised_paise": realised,
            "open_paise": open_paise,
            "charges_paise": charges,
            "net_paise": net,
            "loss_paise": max(-net, 0),
            "limit_paise": self._limit_paise,
            "headroom_paise": self._limit_paise + net,
        }
        return [self._point("velox_pnl", {}, fields, fact.ts_ms)]

    def _decision(self, fact: JournalFact) -> list[Point]:
        body = fact.body
        tags = {name: _text(body, name) for name in ("strategy", "symbol", "side", "kind", "code")}
        tags["layer"] = str(_number(body, "layer"))
        order_id = _text(body, "client_order_id")
        if order_id and fact.appended:
            _keep(self._decided, order_id, fact.appended, ORDERS_KNOWN_MAX)
        key = tuple(tags.values())
        total = self._totals.get(key, 0) + 1
        _keep(self._totals, key, total, SERIES_KNOWN_MAX)
        return [self._point("velox_decision", tags, {"count": 1, "total": total}, fact.ts_ms)]

    def _intent(self, fact: JournalFact) -> list[Point]:
        order_id = _text(fact.body, "client_order_id")
        order = _Order(fact)
        _keep(self._orders, order_id, order, ORDERS_KNOWN_MAX)
        fields = {"count": 1, "quantity": order.quantity, "filled": 0, "since_intent_ms": 0}
        points = [self._point("velox_order", {**order.tags, "state": "INTENT"}, fields, fact.ts_ms)]
        points += self._stage(order, "gate", self._decided.pop(order_id, 0.0), fact.appended, fact.ts_ms)
        points += self._stage(order, "journal", fact.appended, fact.durable, fact.ts_ms)
        return points

    def _order(self, fact: JournalFact) -> list[Point]:
        body, state = fact.body, _text(fact.body, "state")
        order = self._orders.get(_text(body, "client_order_id"))
        if order is None:  # of an earlier day, or forgotten
            return [self._point("velox_order", {"state": state}, {"count": 1, "filled": _number(body, "filled")}, fact.ts_ms)]
        fields = {
            "count": 1,
            "quantity": order.quantity,
            "filled": _number(body, "filled"),
            "since_intent_ms": fact.ts_ms - order.intent_ms,
        }
        points = [self._point("velox_order", {**order.tags, "state": state}, fields, fact.ts_ms)]
        if not order.answered and state not in _NOT_ANSWERS:
            order.answered = fact.appended
            points += self._stage(order, "broker", order.durable, fact.appended, fact.ts_ms)
        return points

    def _fill(self, fact: JournalFact) -> list[Point]:
        body, symbol, quantity = fact.body, _text(fact.body, "symbol"), _number(fact.body, "position")
        _keep(self._positions, symbol, quantity, SERIES_KNOWN_MAX)
        held = sum(1 for shares in self._positions.values() if shares)
        tags = {name: _text(body, name) for name in ("strategy", "symbol", "side")}
        fields = {
            "quantity": _number(body, "quantity"),
            "price_paise": _number(body, "price"),
            "charges_paise": _number(body, "charges"),
            "realised_paise": _number(body, "realised"),
        }
        position = {"quantity": quantity, "cost_paise": _number(body, "cost")}
        points = [
            self._point("velox_fill", tags, fields, fact.ts_ms),
            self._point("velox_position", {"symbol": symbol}, position, fact.ts_ms),
            self._point("velox_positions", {}, {"open": held}, fact.ts_ms),
        ]
        order = self._orders.get(_text(body, "client_order_id"))
        if order is not None and not order.filled:
            order.filled = True
            if not order.answered:  # a trade is an answer too
                order.answered = fact.appended
                points += self._stage(order, "broker", order.durable, fact.appended, fact.ts_ms)
            points += self._stage(order, "fill", order.answered, fact.appended, fact.ts_ms)
        return points

    def _halt(self, fact: JournalFact) -> list[Point]:
        body = fact.body
        if fact.kind is EventKind.HALT:
            self._halts.add(_text(body, "halt_id"))
        else:
            self._halts.discard(_text(body, "clears"))
        tags = {"kind": _text(body, "kind"), "event": fact.kind.value}
        return [self._point("velox_halt", tags, {"count": 1, "active": len(self._halts)}, fact.ts_ms)]

    def _lock(self, fact: JournalFact) -> list[Point]:
        body, symbol = fact.body, _text(fact.body, "symbol")
        lock = (symbol, _text(body, "reason"))
        if fact.kind is EventKind.LOCK:
            self._locks.add(lock)
        else:
            self._locks.discard(lock)
        fields = {"count": 1, "locks": len(self._locks)}
        if "quantity" in body:
            fields["unexplained_quantity"] = _number(body, "quantity")
        return [self._point("velox_lock", {"symbol": symbol, "event": fact.kind.value}, fields, fact.ts_ms)]

    def _disabled(self, fact: JournalFact) -> list[Point]:
        tags = {"strategy": _text(fact.body, "strategy")}
        return [self._point("velox_strategy_disabled", tags, {"count": 1}, fact.ts_ms)]

    def _stage(self, order: _Order, stage: str, begun: float, ended: float, ts_ms: int) -> list[Point]:
        """Return how long a stage of an order took, where this process saw both of its ends."""
        if not begun or not ended:
            return []
        tags = {name: order.tags[name] for name in ("strategy", "symbol", "role")} | {"stage": stage}
        duration = round((ended - begun) * MICROSECONDS)
        return [self._point("velox_order_stage", tags, {"duration_us": duration}, ts_ms)]

    def _point(self, measurement: str, tags: Mapping[str, str], fields: Mapping[str, int | float], ts_ms: int) -> Point:
        point = Point(measurement, tags, fields, ts_ms * NS_PER_MS)
        series = point.series
        newest, count = self._stamps.get(series, (-1, 0))
        count = count + 1 if newest == ts_ms else 0
        _keep(self._stamps, series, (ts_ms, count), SERIES_KNOWN_MAX)
        point.at_ns += count
        return point


def _keep(known: dict, key: object, value: object, bound: int) -> None:  # type: ignore[type-arg]
    """Note a value, and forget the oldest key when there are too many."""
    known[key] = value
    if len(known) > bound:
        del known[next(iter(known))]


def _text(body: Body, name: str) -> str:
    value = body[name]
    if not isinstance(value, str):
        raise TypeError(f"{name} is {value!r}, not text")
    return value


def _number(body: Body, name: str) -> int:
    value = body[name]
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} is {value!r}, not a whole number")
    return value
