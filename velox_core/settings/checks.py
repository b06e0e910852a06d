"""The checks that look at more than one key: they hold over whatever could be read, so that all problems show at once.

- A key that is itself refused takes no part; its own problem is reported by `validate`.
- A live broker needs `live: true`, real data, its strategies spelled out, and every checklist item on `refuse`.
"""

from __future__ import annotations

from datetime import time

from velox_core.domain.money import rupees_text
from velox_core.settings import shape
from velox_core.settings.document import Document, Plain
from velox_core.settings.problems import Problem, TreePath, shown_path, shown_value
from velox_core.settings.values import ALERT_CHANNELS_MAX, CHECKLIST_ITEMS, BrokerType, ItemSeverity, MetricsFlavour


class Reader:
    """Single values of a document in inside units; None for what is absent without a default, or refused."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.problems: list[Problem] = []

    def raw(self, path: TreePath) -> Plain:
        """Return what the file or the environment says at a path, None when nothing."""
        current: Plain = self.document.data
        for part in path:
            if isinstance(current, dict) and isinstance(part, str):
                current = current.get(part)
            elif isinstance(current, list) and isinstance(part, int) and part < len(current):
                current = current[part]
            else:
                return None
        return current

    def get(self, *names: str | int) -> object:
        """Return the value of a key below `system`, converted, or its default."""
        path: TreePath = ("system", *names)
        rule = shape.rule(path)
        if rule is None or path not in self.document.origins:
            return shape.default(path)
        try:
            return rule.convert(self.raw(path))
        except ValueError:
            return None

    def number(self, *names: str) -> int | None:
        """Return a whole number in inside units."""
        value = self.get(*names)
        return value if isinstance(value, int) else None

    def report(self, names: tuple[str | int, ...], text: str) -> None:
        """Note a problem with a key below `system`, at its place or at its section's."""
        path: TreePath = ("system", *names)
        place = path
        while place and place not in self.document.origins:
            place = place[:-1]
        self.problems.append(Problem(self.document.origins[place], f"{shown_path(path)} {text}"))


def cross_checks(document: Document) -> list[Problem]:
    """Return the problems between keys."""
    reader = Reader(document)
    _check_capital(reader)
    _check_times(reader)
    _check_strategies(reader)
    _check_mode(reader)
    _check_guard(reader)
    _check_channels(reader)
    _check_metrics(reader)
    _check_backup(reader)
    return reader.problems


def _check_capital(reader: Reader) -> None:
    initial, broker = reader.number("risk", "initial_capital"), reader.number("broker", "capital")
    if initial is not None and broker is not None and initial != broker:
        text = f"is {rupees_text(initial)}: allowed is the same as system.broker.capital, {rupees_text(broker)}"
        reader.report(("risk", "initial_capital"), text)
    capital = initial if initial is not None else broker
    for key in ("max_daily_loss", "max_position_size"):
        limit = reader.number("risk", key)
        if limit is not None and capital is not None and limit > capital:
            text = f"is {rupees_text(limit)}: allowed is at most the capital, {rupees_text(capital)}"
            reader.report(("risk", key), text)
    share = reader.number("risk", "max_daily_loss_pct")
    if share is not None and capital is not None and share * capital < 10_000:
        reader.report(
            ("risk", "max_daily_loss_pct"), "is less than a paisa of the capital: allowed is a share that is worth more"
        )
    per_strategy, total = reader.number("risk", "max_positions_per_strategy"), reader.number("risk", "max_total_positions")
    if per_strategy is not None and total is not None and total < per_strategy:
        text = f"is {total}: allowed is at least max_positions_per_strategy, {per_strategy}"
        reader.report(("risk", "max_total_positions"), text)


def _check_times(reader: Reader) -> None:
    keys = ("entry_until", "flat_by", "hard_stop")
    times = [reader.get("market", key) for key in keys]
    for index in (1, 2):
        earlier, later = times[index - 1], times[index]
        if isinstance(earlier, time) and isinstance(later, time) and later <= earlier:
            text = f"is {later:%H:%M}: allowed is a time after {keys[index - 1]}, {earlier:%H:%M}"
            reader.report(("market", keys[index]), text)


def _check_strategies(reader: Reader) -> None:
    _check_repeats(reader, "feed", "symbols")
    listed = reader.raw(("system", "strategies"))
    if not isinstance(listed, list):
        return
    universe = reader.raw(("system", "feed", "symbols"))
    first: dict[str, int] = {}
    for index in range(len(listed)):
        name = reader.get("strategies", index, "name")
        if isinstance(name, str):
            if name in first:
                reader.report(
                    ("strategies", index, "name"),
                    f"is {shown_value(name)}, as strategies[{first[name]}]: allowed is a name of its own",
                )
            first.setdefault(name, index)
        _check_place(reader, index)
        _check_repeats(reader, "strategies", index, "symbols")
        symbols = reader.raw(("system", "strategies", index, "symbols"))
        if isinstance(universe, list) and universe and isinstance(symbols, list):
            for place, symbol in enumerate(symbols):
                if isinstance(symbol, str) and symbol not in universe:
                    text = f"is {shown_value(symbol)}: allowed are the symbols of system.feed.symbols"
                    reader.report(("strategies", index, "symbols", place), text)
    if not any(_may_be_enabled(reader, index) for index in range(len(listed))):
        reader.report(("strategies",), "has no enabled strategy: allowed is a list with at least one, or leave the key out")


def _check_place(reader: Reader, index: int) -> None:
    entry = reader.raw(("system", "strategies", index))
    if isinstance(entry, dict):
        given = [key for key in ("class_path", "path") if entry.get(key) is not None]
        if len(given) != 1:
            said = "has both class_path and path" if given else "has neither class_path nor path"
            reader.report(("strategies", index), f"{said}: allowed is one of them, class_path: module:Class or path: FILE.py")


def _check_repeats(reader: Reader, *names: str | int) -> None:
    symbols = reader.raw(("system", *names))
    if isinstance(symbols, list):
        for index, symbol in enumerate(symbols):
            if isinstance(symbol, str) and symbol in symbols[:index]:
                reader.report((*names, index), f"is {shown_value(symbol)} again: allowed is each symbol once")


def _may_be_enabled(reader: Reader, index: int) -> bool:
    entry = reader.raw(("system", "strategies", index))
    return not isinstance(entry, dict) or entry.get("enabled", True) is not False


def _check_mode(reader: Reader) -> None:
    kind, live = reader.get("broker", "type"), reader.get("live")
    if not isinstance(kind, BrokerType) or not isinstance(live, bool):
        return
    if kind is BrokerType.SIMULATED:
        if live:
            reader.report(
                ("live",), "is true: allowed is false with the simulated broker (broker.type: zerodha or upstox trades live)"
            )
        return
    if not live:
        reader.report(("live",), f"is false: a {kind} broker moves real money, and is allowed only with live: true in the file")
    elif reader.document.origins[("system", "live")].line == 0:
        reader.report(("live",), "is set by the environment: allowed is live: true in the file itself")
    for key in ("path", "scenario"):
        if reader.get("feed", key) is not None:
            reader.report(("feed", key), f"is set: a {kind} broker trades on live prices only; remove it")
    if ("system", "strategies") not in reader.document.origins:
        reader.report(("strategies",), f"is missing: a {kind} broker trades only strategies that the file names")
    for item in CHECKLIST_ITEMS:
        severity = reader.get("checklist", "severities", item)
        if severity not in (None, ItemSeverity.REFUSE):
            text = f"is {severity}: allowed is refuse with a {kind} broker"
            reader.report(("checklist", "severities", item), text)


def _check_guard(reader: Reader) -> None:
    beat, bound = reader.number("engine", "heartbeat_seconds"), reader.number("guard", "heartbeat_timeout_seconds")
    if beat is not None and bound is not None and bound < 3 * beat:
        text = f"is {bound}: allowed is at least three times engine.heartbeat_seconds, {3 * beat}"
        reader.report(("guard", "heartbeat_timeout_seconds"), text)
    flat_by, hard_stop = reader.get("market", "flat_by"), reader.get("market", "hard_stop")
    margin = reader.number("guard", "flat_by_margin_seconds")
    if isinstance(flat_by, time) and isinstance(hard_stop, time) and margin is not None and hard_stop > flat_by:
        minutes = (hard_stop.hour - flat_by.hour) * 60 + hard_stop.minute - flat_by.minute
        if margin > minutes * 60:
            text = f"is {margin}: allowed are at most the seconds from market.flat_by to market.hard_stop, {minutes * 60}"
            reader.report(("guard", "flat_by_margin_seconds"), text)


def _check_channels(reader: Reader) -> None:
    listed = reader.raw(("system", "alerts", "channels"))
    if not isinstance(listed, list):
        return
    if len(listed) > ALERT_CHANNELS_MAX:
        reader.report(("alerts", "channels"), f"has {len(listed)} channels: allowed are at most {ALERT_CHANNELS_MAX}")
    first: dict[str, int] = {}
    for index in range(len(listed)):
        name = reader.get("alerts", "channels", index, "name")
        if isinstance(name, str):
            if name in first:
                text = f"is {shown_value(name)}, as channels[{first[name]}]: allowed is a name of its own"
                reader.report(("alerts", "channels", index, "name"), text)
            first.setdefault(name, index)


def _check_backup(reader: Reader) -> None:
    copies = reader.raw(("system", "backup", "copies"))
    known = [reader.raw(("system", "backup", "destination"))]
    for index, place in enumerate(copies if isinstance(copies, list) else []):
        if place in known:
            reader.report(("backup", "copies", index), "is a destination already: allowed is each place once")
        known.append(place)


def _check_metrics(reader: Reader) -> None:
    """Name what a server that is to be written to needs; one that is switched off needs nothing."""
    if reader.get("metrics", "influxdb", "enabled") is not True:
        return
    if reader.get("metrics", "influxdb", "bucket") == "":
        reader.report(
            ("metrics", "influxdb", "bucket"), "is empty: allowed is the bucket (InfluxDB 3: the database) to write to"
        )
    flavour = reader.get("metrics", "influxdb", "flavour")
    if flavour is MetricsFlavour.INFLUX2 and reader.get("metrics", "influxdb", "org") == "":
        reader.report(("metrics", "influxdb", "org"), "is empty: allowed is the organisation that the bucket belongs to")
