"""Words for people: one progress line, and the figures and cells of a report's tables.

- Pure functions from a status, a report or check results to text; nothing is read and nothing is decided.
- Money is shown in rupees with Indian grouping, time as IST.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from velox_core.domain.money import rupees_display
from velox_core.domain.time import ist_clock_text
from velox_core.operations.halt_words import first_and_later, grouped
from velox_core.operations.status import Status

TRADES_SHOWN_MAX: Final = 200
SYNTHETIC_NOTE: Final = "SYNTHETIC DATA: no market made these prices"


def signed_rupees(paise: int) -> str:
    """Return money with its sign, for a gain or a loss: 12300 -> '+₹123.00'."""
    return f"+{rupees_display(paise)}" if paise > 0 else rupees_display(paise)


def loss_share(status: Status) -> float:
    """Return how much of the day's loss limit is used: 0 when the day is in profit, 1 at the limit, more past it."""
    limit = status.number("loss_limit_paise")
    return max(0.0, -status.number("net_paise") / limit) if limit > 0 else 0.0


def progress_line(status: Status) -> str:
    """Return the run in one line: clock, phase, P&L against the limit, positions, orders."""
    clock = ist_clock_text(status.number("engine_ms")) if status.number("engine_ms") else "--:--:--"
    parts = [
        f"{status.text('trading_date')} {clock}",
        status.doing,
        f"{round(status.progress * 100)} %",
        f"net {signed_rupees(status.number('net_paise'))} of -{rupees_display(status.number('loss_limit_paise'))}",
        f"{len(status.positions)} open",
        f"{status.number('orders')} orders, {status.number('fills')} fills, {status.number('refusals')} refused",
    ]
    if status.closing:
        parts.append(str(status.closing.get("message", "")))
    if status.flag("halted"):
        why = halted_text(status)
        parts.append(f"HALTED: {why}" if why else "HALTED")
    if status.flag("synthetic"):
        parts.append("synthetic data")
    return " | ".join(part for part in parts if part)


def halt_lines(status: Status, *, brief: bool = False) -> list[str]:
    """Return one line for each thing that halts: what it is, since when, why, how often; how it ends and its ids too."""
    groups = grouped(_halts(status))
    lines = [group.brief if brief else f"{group.line}  [{', '.join(group.ids)}]" for group in groups]
    return lines or ([status.text("halt_reason")] if status.flag("halted") else [])


def halted_text(status: Status) -> str:
    """Return why trading stopped: the reason of the first halt, and that others came later."""
    halts = _halts(status)
    if not halts:
        return status.text("halt_reason")
    later = f" (and {len(halts) - 1} later)" if len(halts) > 1 else ""
    return f"{halts[0].get('reason', '')}{later}"


def _halts(status: Status) -> list[Mapping[str, Any]]:
    shown = status.body.get("halts")
    return [halt for halt in shown if isinstance(halt, Mapping)] if isinstance(shown, list) else []


def status_rows(status: Status) -> list[tuple[str, str]]:
    """Return where a run stands, as label and text."""
    clock = ist_clock_text(status.number("engine_ms")) if status.number("engine_ms") else "--:--:--"
    source = status.text("source") + (" (synthetic)" if status.flag("synthetic") else "")
    counts = ("orders", "fills", "refusals")
    return [
        ("Clock of the day", f"{clock}, {round(status.progress * 100)} % of the session, {status.doing}"),
        ("Net P&L", f"{signed_rupees(status.number('net_paise'))} of -{rupees_display(status.number('loss_limit_paise'))}"),
        ("Headroom to the limit", rupees_display(status.number("headroom_paise"))),
        ("Open positions", str(len(status.positions))),
        ("Orders", "{} sent, {} fills, {} refused".format(*(status.number(name) for name in counts))),
        ("Alerts", alerts_text(status)),
        ("Metrics", metrics_text(status)),
        ("Data", source or "-"),
    ]


def alerts_text(status: Status) -> str:
    """Return how alerts fared: counts, and the last failure of each channel that fails."""
    alerts = status.body.get("alerts")
    if not isinstance(alerts, Mapping):
        return "-"
    channels = [channel for channel in alerts.get("channels", []) if isinstance(channel, Mapping)]
    parts = [f"{alerts.get('sent', 0)} sent", f"{alerts.get('failed', 0)} failed", f"{alerts.get('dropped', 0)} dropped"]
    parts += [] if channels else ["no channel: velox alerts list"]
    parts += [f"{c.get('name')} FAILS: {c.get('last_failure')}" for c in channels if c.get("failing")]
    return ", ".join(parts)


def metrics_text(status: Status) -> str:
    """Return how metrics fared: whether they are written, counts, and the last failure while they are not."""
    metrics = status.body.get("metrics")
    if not isinstance(metrics, Mapping) or "state" not in metrics:
        return "-"
    if metrics["state"] == "off":
        return "off"
    parts = [f"{metrics.get('written', 0)} written"]
    parts += [] if status.ended else [f"{metrics.get('waiting', 0)} waiting"]  # at the end they left after the last word
    parts += [f"{metrics[name]} {name}" for name in ("dropped", "malformed") if metrics.get(name)]
    if metrics.get("state") == "failing":
        parts.append(f"NOT WRITTEN NOW: {metrics.get('last_failure')}")
    return ", ".join(parts)


def headline(report: Mapping[str, Any]) -> str:
    """Return a report's result in one sentence."""
    sentence = (
        f"{report.get('trading_date', '')}: net {signed_rupees(_int(report, 'net_paise'))} after "
        f"{rupees_display(_int(report, 'charges_paise'))} of charges, {_int(report, 'trade_count')} trades, "
        f"ended {end_text(report)}"
    )
    return f"{sentence} ({SYNTHETIC_NOTE})" if report.get("synthetic") else sentence


def end_text(report: Mapping[str, Any]) -> str:
    """Return how a day ended: flat or not, by the broker's newest word where a closing from outside had it."""
    closed = report.get("closed")
    if not isinstance(closed, Mapping):
        return "flat" if report.get("flat") else "NOT FLAT"
    return str(closed.get("message", "")) if closed.get("flat") is not True else f"flat ({closed.get('message', '')})"


HEAD_SHOWN: Final = 16  # hex digits of a hash, enough to compare by eye
STRATEGY_HEADER: Final = ("Strategy", "Trades", "Won", "Approved", "Refused", "Charges", "Net")


def headline_rows(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the figures that stand at the top of a summary, as label and text."""
    limit = _int(report, "loss_limit_paise")
    worst = _int(report, "worst_loss_paise")
    rows = [
        ("Net P&L", signed_rupees(_int(report, "net_paise"))),
        ("Realised", signed_rupees(_int(report, "realised_paise"))),
        *([] if report.get("flat") else [("Still open, at the last price", signed_rupees(_int(report, "open_paise")))]),
        ("Charges", rupees_display(_int(report, "charges_paise"))),
        ("Trades won", f"{_int(report, 'win_count')} of {_int(report, 'trade_count')}"),
        ("Orders and fills", f"{_int(report, 'order_count')} and {_int(report, 'fill_count')}"),
        ("Worst loss of the day", f"{rupees_display(worst)} of the limit's {rupees_display(limit)}"),
        _headroom_row(_int(report, "headroom_paise")),
        ("At the end", _at_the_end(report)),
        ("Data", str(report.get("source", "")) + (" (synthetic)" if report.get("synthetic") else "")),
    ]
    if head_text(report):
        rows.append(("Head of the day's journal", head_text(report)))
    if report.get("ticks"):
        rows.append(("Judged on", str(report.get("granularity", "ticks"))))
    if dropped_text(report):
        rows.append(("Data quality", dropped_text(report)))
    for row in _rows(report, "disabled_strategies"):
        rows.insert(0, ("Strategy failed", f"{row.get('strategy', '')} was disabled for the day: {row.get('reason', '')}"))
    for key, label in (("stopped", "Stopped before the end"), ("fault", "The engine failed")):
        if report.get(key):
            rows.insert(0, (label, str(report[key])))
    if report.get("halts"):
        rows.insert(0, ("Trading was halted", first_and_later(_rows(report, "halts"))))
    return rows


def head_text(report: Mapping[str, Any]) -> str:
    """Return the short hash that stands for the day's events, how many the run has, and how to check it; '' without any.

    Before the end of day it is the run's own hash; afterwards that of all runs of the date, which backups note, too.
    """
    run = report.get("journal_head")
    if not isinstance(run, Mapping) or not run.get("digest"):
        return ""
    digest = str(report.get("day_head") or run["digest"])
    return f"{digest[:HEAD_SHOWN]}…, {_int(run, 'events')} events; is it still so? velox journal verify"


def _at_the_end(report: Mapping[str, Any]) -> str:
    closed = report.get("closed")
    if not isinstance(closed, Mapping):
        return "flat" if report.get("flat") else f"NOT FLAT: {open_text(report)}"
    behind = closed.get("flat") is True and not report.get("flat")
    unread = f"; the journal still has {open_text(report)}, the run's next engine brings it up" if behind else ""
    return f"{closed.get('message', '')}{unread}"


def dropped_text(report: Mapping[str, Any]) -> str:
    """Return how many rows of the data were not used and why, '' when all were."""
    dropped = report.get("dropped_rows")
    if not isinstance(dropped, Mapping) or not dropped:
        return ""
    rules = ", ".join(f"{rule}: {count}" for rule, count in dropped.items())
    total = sum(count for count in dropped.values() if isinstance(count, int))
    return f"{total} row{'s' * (total != 1)} dropped ({rules})"


def _headroom_row(headroom_paise: int) -> tuple[str, str]:
    if headroom_paise < 0:
        return "Overshoot past the limit", rupees_display(-headroom_paise)
    return "Headroom left at the worst", rupees_display(headroom_paise)


def open_text(report: Mapping[str, Any]) -> str:
    """Return what is still held, for a report that is not flat."""
    held = report.get("open_quantities")
    return ", ".join(f"{quantity:+d} {symbol}" for symbol, quantity in held.items()) if isinstance(held, Mapping) else ""


def trade_cells(trade: Mapping[str, Any]) -> tuple[str, ...]:
    """Return one trade as the cells of its table row."""
    return (
        str(trade["strategy"]),
        str(trade["symbol"]),
        str(trade["side"]),
        str(trade["quantity"]),
        ist_clock_text(_int(trade, "opened_ms")),
        ist_clock_text(_int(trade, "closed_ms")),
        rupees_display(_int(trade, "entry_price_paise")),
        rupees_display(_int(trade, "exit_price_paise")),
        rupees_display(_int(trade, "charges_paise")),
        signed_rupees(_int(trade, "net_paise")),
        str(trade.get("exit_reason", "")),
    )


def decision_rows(report: Mapping[str, Any]) -> list[tuple[str, int]]:
    """Return approvals, then refusals by layer in the gate's order."""
    decisions = report.get("decisions")
    if not isinstance(decisions, Mapping):
        return []
    rows = [("Approved (entries and exits)", _int(decisions, "approved"))]
    for entry in decisions.get("by_layer", []):
        label = f"{entry['layer']}. {entry['name']}" if entry["layer"] else str(entry["name"])
        rows.append((label, int(entry["refused"])))
    return rows


def strategy_cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Return one strategy's totals as the cells of its table row."""
    return (
        str(row["strategy"]),
        str(row["trades"]),
        str(row["wins"]),
        str(row["approved"]),
        str(row["refused"]),
        rupees_display(_int(row, "charges_paise")),
        signed_rupees(_int(row, "net_paise")),
    )


NO_EXPECTATION = "no expectation on record (velox strategies expect)"
NO_EXPECTATION_MARK = "none *"
NO_EXPECTATION_NOTE = "* no expectation on record: `velox strategies expect` replays days and records what is usual"


def expectation_text(row: object) -> str:
    """Return where a strategy's day lies beside its replays, in a few words; `row` is one of a report's `expectations`."""
    if not isinstance(row, Mapping):
        return NO_EXPECTATION
    verdict, days = str(row.get("verdict", "")), _int(row, "days")
    band = f"{signed_rupees(_int(row, 'low_paise'))} to {signed_rupees(_int(row, 'high_paise'))} in {days} replayed days"
    synthetic = ", SYNTHETIC" if row.get("synthetic") else ""
    match verdict:
        case "WITHIN":
            return f"within {band}{synthetic}"
        case "BELOW" | "ABOVE":
            return f"OUTSIDE, {verdict.lower()} {band}{synthetic}"
        case "TOO_FEW_DAYS":
            return f"not judged: {days} replayed days are too few (mean {signed_rupees(_int(row, 'mean_paise'))}{synthetic})"
        case "STALE":
            return "STALE: the strategy or a limit has changed since its replays (velox strategies expect)"
        case _:
            return NO_EXPECTATION


def halt_cells(halt: Mapping[str, Any]) -> tuple[str, ...]:
    """Return one halt as the cells of its table row."""
    return (
        str(halt.get("halt_id", "")),
        str(halt.get("kind", "")),
        str(halt.get("reason", "")),
        "yes" if halt.get("cleared") else "no",
    )


def _rows(body: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    value = body.get(key)
    return [row for row in value if isinstance(row, Mapping)] if isinstance(value, list) else []


def _int(body: Mapping[str, Any], key: str) -> int:
    value = body.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
