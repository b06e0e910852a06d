"""What several trading dates came to: one run for each date, and totals.

- The run of a date is the newest that finished: it has a summary, and its engine said its last word. A date whose runs
  all lack one is named, never counted as zero.
- A synthetic day is counted only where the date has no run on real prices, and is marked.
- Totals are sums of paise; a win rate is trades won of trades.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any, Final

from velox_core.domain.errors import VeloxError
from velox_core.domain.money import rupees_display, rupees_text
from velox_core.operations.hints import velox
from velox_core.operations.journal_bodies import int_of, rows_of
from velox_core.operations.recorded import RecordedRun, recorded_runs
from velox_core.operations.status import read_summary
from velox_core.operations.view import signed_rupees
from velox_core.settings import Paths, Settings

BARS: Final = "▁▂▃▄▅▆▇█"
SPARKLINE_DATES_MAX: Final = 60
PERIOD_HEADER: Final = ("Date", "Net", "Charges", "Trades", "Won", "Worst loss", "Halts", "Run")


def summarise_period(settings: Settings, paths: Paths, *, first: date | None, last: date | None) -> dict[str, Any]:
    """Return the dates of a period with their newest finished run, and totals; None leaves an end open.

    Raises: VeloxError when no run of the period is on record, or none of them finished.
    """
    by_date: dict[date, list[RecordedRun]] = {}
    for recorded in recorded_runs(settings, paths):
        on = recorded.trading_date
        if (first is None or on >= first) and (last is None or on <= last):
            by_date.setdefault(on, []).append(recorded)
    days, unfinished = [], []
    for on, runs in sorted(by_date.items()):
        report = _chosen(runs)
        if report is None:
            unfinished.append(on.isoformat())
        else:
            days.append(_day(on, report))
    if not days:
        span = f"{first or 'the first date'} to {last or 'the last'}"
        why = f"the runs of {', '.join(unfinished)} have not finished" if unfinished else "none is on record"
        raise VeloxError(
            f"no finished run from {span} below {paths.var}: {why}. The runs: {velox('summary', '--list', settings=settings)}"
        )
    return {"days": days, "unfinished_dates": unfinished, "totals": _totals(days)}


def _chosen(runs: Sequence[RecordedRun]) -> dict[str, Any] | None:
    """Return the report of the newest finished run, of real prices before synthetic ones; None when none finished."""
    reports = [report for recorded in runs if (report := read_summary(recorded.folder)) is not None]
    real = [report for report in reports if not report.get("synthetic")]
    chosen = real or reports
    return chosen[-1] if chosen else None


def _day(on: date, report: Mapping[str, Any]) -> dict[str, Any]:
    same = ("net_paise", "charges_paise", "worst_loss_paise", "loss_limit_paise", "trade_count", "win_count")
    return {
        "trading_date": on.isoformat(),
        "run_id": str(report.get("run_id", "")),
        **{name: int_of(report, name) for name in same},
        "halts": len(rows_of(report, "halts")),
        "flat": report.get("flat") is True,
        "synthetic": report.get("synthetic") is True,
        "exit_code": report.get("exit_code"),
    }


def _totals(days: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    summed = ("net_paise", "charges_paise", "trade_count", "win_count", "halts")
    nets = [int_of(day, "net_paise") for day in days]
    running, peak, fall = 0, 0, 0
    for net in nets:
        running += net
        peak = max(peak, running)
        fall = max(fall, peak - running)
    return {
        "dates": len(days),
        **{name: sum(int_of(day, name) for day in days) for name in summed},
        "worst_loss_paise": max(int_of(day, "worst_loss_paise") for day in days),
        "winning_dates": sum(net > 0 for net in nets),
        "best_net_paise": max(nets),
        "worst_net_paise": min(nets),
        "drawdown_paise": fall,
    }


def sparkline(values: Sequence[int]) -> str:
    """Return values as bars of eight heights, the smallest lowest; one height for values that are all equal."""
    low, span = min(values), max(values) - min(values)
    return "".join(BARS[(value - low) * (len(BARS) - 1) // span if span else 3] for value in values)


def day_cells(day: Mapping[str, Any]) -> tuple[str, ...]:
    """Return one date as the cells of its row, in the order of PERIOD_HEADER."""
    return (
        day["trading_date"] + (" S" if day["synthetic"] else ""),
        rupees_text(day["net_paise"]),
        rupees_text(day["charges_paise"]),
        str(day["trade_count"]),
        won_text(day),
        worst_text(day),
        str(day["halts"] or "-"),
        day["run_id"].removeprefix(f"{day['trading_date']}-") + ("" if day["flat"] else " NOT FLAT"),
    )


def total_cells(period: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the totals as the cells below the rows."""
    totals = period["totals"]
    dates = f"{totals['dates']} date{'s' * (totals['dates'] != 1)}"
    return (
        dates,
        rupees_text(totals["net_paise"]),
        rupees_text(totals["charges_paise"]),
        str(totals["trade_count"]),
        won_text(totals),
        rupees_text(totals["worst_loss_paise"]),
        str(totals["halts"] or "-"),
        "",
    )


def won_text(row: Mapping[str, Any]) -> str:
    """Return the trades won of all, as a share: '50 %'."""
    trades, wins = row["trade_count"], row["win_count"]
    return f"{round(100 * wins / trades)} %" if trades else "-"


def worst_text(day: Mapping[str, Any]) -> str:
    """Return a date's worst loss and its share of the limit: '93.40 (5 %)'."""
    worst_paise, limit_paise = day["worst_loss_paise"], day["loss_limit_paise"]
    share = f" ({round(100 * worst_paise / limit_paise)} %)" if limit_paise > 0 else ""
    return rupees_text(worst_paise) + share


def period_lines(period: Mapping[str, Any]) -> list[str]:
    """Return what stands below the table: the shape of the period, and which runs were counted."""
    totals, days = period["totals"], period["days"]
    nets = [day["net_paise"] for day in days]
    shape = sparkline(nets[-SPARKLINE_DATES_MAX:])
    lines = [
        f"Net by date  {shape}  best {signed_rupees(totals['best_net_paise'])}, "
        f"worst {signed_rupees(totals['worst_net_paise'])}",
        f"{totals['winning_dates']} of {totals['dates']} dates gained; "
        f"deepest fall of the sum from its peak {rupees_display(totals['drawdown_paise'])}",
        "In rupees; a worst loss with its share of the limit.",
        "Of each date the newest finished run counts; one on real prices before a synthetic one.",
    ]
    if any(day["synthetic"] for day in days):
        lines.append("S: SYNTHETIC DATA, no market made these prices")
    if period["unfinished_dates"]:
        lines.append(f"Not counted, no run finished: {', '.join(period['unfinished_dates'])}")
    return lines
