"""Points from the status that the engine publishes: how the process does, and what is open.

- A key that is missing is a field that is missing: the status of another version breaks nothing.
- What is about the process (queues, ages) has the wall clock's time, what is about positions the engine's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from velox_core.metrics.facts import NS_PER_MS
from velox_core.metrics.points import Point

_SAME: Final = (
    "net_paise",
    "headroom_paise",
    "live_orders",
    "orders",
    "fills",
    "decisions",
    "refusals",
    "breach_age_ms",
    "differences",
    "rows",
)  # fields of velox_engine that the status has under the same name


class GaugePoints:
    """Published statuses in, points out. One instance for a process, used by one thread."""

    def __init__(self) -> None:
        self._marked: set[tuple[str, str]] = set()  # strategy and symbol of what was open at the last heartbeat

    def take(self, status: Mapping[str, object], wall_ms: int, queues: Mapping[str, Mapping[str, int]]) -> list[Point]:
        """Return the points of one status.

        Args:
            status: as published.
            wall_ms: the wall clock at that moment, epoch ms.
            queues: by name what waits in it, and what it lost.
        """
        at_ns = wall_ms * NS_PER_MS
        points = [Point("velox_engine", {}, _engine_fields(status), at_ns)]
        points += self._marks(status)
        points += [Point("velox_queue", {"queue": name}, numbers, at_ns) for name, numbers in queues.items() if numbers]
        return points

    def _marks(self, status: Mapping[str, object]) -> list[Point]:
        engine_ms = _number(status, "engine_ms")
        if not engine_ms:
            return []
        at_ns = engine_ms * NS_PER_MS
        points, open_now = [], set[tuple[str, str]]()
        for position in _mappings(status.get("positions")):
            key = (str(position.get("strategy", "")), str(position.get("symbol", "")))
            open_now.add(key)
            points.append(
                _mark(key, {name: _number(position, name) for name in ("quantity", "last_paise", "open_paise")}, at_ns)
            )
        points += [_mark(key, {"quantity": 0, "open_paise": 0}, at_ns) for key in sorted(self._marked - open_now)]
        self._marked = open_now
        return points


def _mark(key: tuple[str, str], fields: Mapping[str, int], at_ns: int) -> Point:
    return Point("velox_mark", {"strategy": key[0], "symbol": key[1]}, fields, at_ns)


def _engine_fields(status: Mapping[str, object]) -> dict[str, int]:
    fields = {name: _number(status, name) for name in _SAME if name in status}
    fields["halted"] = int(status.get("halted") is True)
    for name, key in (("open_positions", "positions"), ("locked", "locked")):
        value = status.get(key)
        if isinstance(value, Sequence):
            fields[name] = len(value)
    now_ms, data_ms = _number(status, "engine_ms"), _number(status, "data_ms")
    if now_ms and data_ms:
        fields["data_age_ms"] = max(now_ms - data_ms, 0)
    return fields


def alert_queue(status: Mapping[str, object]) -> dict[str, int]:
    """Return the alerts' queue as the status shows it, all channels together; empty when it shows none."""
    alerts = status.get("alerts")
    if not isinstance(alerts, Mapping):
        return {}
    waiting = sum(_number(channel, "waiting") for channel in _mappings(alerts.get("channels")))
    return {"waiting": waiting, "dropped": _number(alerts, "dropped"), "failed": _number(alerts, "failed")}


def _mappings(value: object) -> list[Mapping[str, object]]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, Sequence) else []


def _number(body: Mapping[str, object], name: str) -> int:
    value = body.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
