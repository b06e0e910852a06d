"""Rich tables and panels: the checklist, the session's summary, a run's status, a date's phases.

- Shows values, computes none; all text comes from `operations.view`.
- Green is a gain or a pass, red a loss or a failure, yellow a warning; without colour the words say the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from velox_core.domain.money import rupees_display, rupees_text
from velox_core.domain.time import ist_clock_text
from velox_core.operations import view
from velox_core.operations.checklist import ItemResult, Verdict, verdict_line
from velox_core.operations.figure_words import FIGURES_HEADER, figure_rows, note
from velox_core.operations.status import Status
from velox_core.reconciliation.differences import Verdict as DifferenceVerdict

if TYPE_CHECKING:  # shown only by the doctor, which imports the engine
    from velox_core.operations.doctor import DoctorFinding
    from velox_core.operations.reconcile import ReconcileReport

TRADES_SHOWN_MAX = 30
BAR_WIDTH = 24
_OUTSIDE = ("BELOW", "ABOVE")
_VERDICT_STYLE = {Verdict.PASSED: "green", Verdict.WARNED: "yellow", Verdict.FAILED: "bold red", Verdict.SKIPPED: "dim"}
_DIFFERENCE_STYLE = {
    DifferenceVerdict.EXPLAINED: "green",
    DifferenceVerdict.LOCKED: "yellow",
    DifferenceVerdict.OPEN: "bold red",
}


def money_style(paise: int) -> str:
    """Return the style of a gain or a loss."""
    return "green" if paise > 0 else "red" if paise < 0 else ""


def loss_bar(used: float, *, width: int = BAR_WIDTH) -> Text:
    """Return how much of the day's loss limit is used, as a bar of a width; past the limit the bar is full."""
    filled = round(min(1.0, used) * width)
    style = "green" if used < 0.5 else "yellow" if used < 0.8 else "bold red"
    return Text.assemble(("#" * filled, style), ("-" * (width - filled), "dim"), f" {used * 100:.0f} % of the limit")


def checklist_table(results: Sequence[ItemResult]) -> RenderableType:
    """Return the checklist with its outcome below."""
    table = Table(title="Pre-production checklist", title_justify="left", expand=False, box=SIMPLE_HEAD)
    for heading in ("", "Item", "Measured", "What to do"):
        table.add_column(heading, overflow="fold")
    for result in results:
        style = _VERDICT_STYLE[result.verdict]
        table.add_row(Text(result.verdict.value, style=style), result.title, result.measured, result.advice)
    return Group(table, Text(verdict_line(list(results))))


def summary_panel(report: Mapping[str, Any]) -> RenderableType:
    """Return a session's summary: figures, trades, decisions, strategies, halts."""
    parts: list[RenderableType] = [_figures(report)]
    trades = [trade for trade in report.get("trades", []) if isinstance(trade, Mapping)]
    if trades:
        parts.append(_trades(trades))
    if report.get("strategies"):
        parts.append(_strategies(report))
    if rows := figure_rows(report):
        parts += [_table("Figures", FIGURES_HEADER, rows), Text(note(report))]
    parts.append(_decisions(report))
    halts = [halt for halt in report.get("halts", []) if isinstance(halt, Mapping)]
    if halts:
        parts.append(
            _table("Halts", ("Id", "Kind", "Reason", "Cleared"), (view.halt_cells(halt) for halt in halts), figures=False)
        )
    net = report.get("net_paise", 0)
    run = report.get("run_id") or report.get("account", "")
    title = f"{report.get('trading_date', '')}  {report.get('environment', '')}  run {run}"
    border = (
        "red"
        if not report.get("flat") or report.get("exit_code")
        else money_style(net if isinstance(net, int) else 0) or "none"
    )
    subtitle = f"[bold yellow]{view.SYNTHETIC_NOTE}[/]" if report.get("synthetic") else None
    return Panel(Group(*parts), title=title, subtitle=subtitle, border_style=border, expand=False, padding=(1, 1))


def _figures(report: Mapping[str, Any]) -> RenderableType:
    grid = Table.grid(padding=(0, 3))
    grid.add_column(style="dim")
    grid.add_column()
    net = report.get("net_paise", 0)
    for label, value in view.headline_rows(report):
        style = (
            f"bold {money_style(net)}".strip()
            if label == "Net P&L"
            else "bold red"
            if "NOT FLAT" in value or "halted" in label or "failed" in label
            else "yellow"
            if label in ("Data quality", "Stopped before the end")
            else ""
        )
        grid.add_row(label, Text(value, style=style))
    limit, worst = int(report.get("loss_limit_paise", 0)), int(report.get("worst_loss_paise", 0))
    if limit > 0:
        grid.add_row("Loss limit used", loss_bar(max(0.0, worst / limit)))
    return grid


def _trades(trades: Sequence[Mapping[str, Any]]) -> RenderableType:
    title = "Trades" if len(trades) <= TRADES_SHOWN_MAX else f"Trades (the last {TRADES_SHOWN_MAX} of {len(trades)})"
    rows = [_trade_cells(trade) for trade in trades[-TRADES_SHOWN_MAX:]]
    table = _plain_table()
    table.padding = (0, 0)  # the reasons are long, and a terminal may have 80 columns
    for column, heading in enumerate(("Strategy", "Trade", "From - to", "Entry", "Exit", "Net")):
        widest = max(len(heading), *(len(row[column]) for row in rows))
        table.add_column(heading, justify="right" if column > 2 else "left", no_wrap=True, min_width=min(widest, 18))
    table.add_column("Why out", overflow="fold")
    for row, trade in zip(rows, trades[-TRADES_SHOWN_MAX:], strict=True):
        net = Text(row[5], style=money_style(int(trade["net_paise"])))
        table.add_row(*row[:5], net, row[6])
    return _titled(title, table)


def _trade_cells(trade: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        str(trade["strategy"]),
        f"{trade['symbol']} {'+' if trade['side'] == 'BUY' else '-'}{trade['quantity']}",
        f"{ist_clock_text(int(trade['opened_ms']))[:5]}-{ist_clock_text(int(trade['closed_ms']))[:5]}",
        rupees_text(int(trade["entry_price_paise"])),
        rupees_text(int(trade["exit_price_paise"])),
        rupees_text(int(trade["net_paise"])),
        str(trade.get("exit_reason", "")),
    )


def _decisions(report: Mapping[str, Any]) -> RenderableType:
    """Show the layers that refused something, and name the others in one line."""
    rows = view.decision_rows(report)
    quiet = [name for name, count in rows[1:] if not count]
    table = _plain_table()
    table.add_column("Outcome", no_wrap=True)
    table.add_column("Number", justify="right")
    for number, (name, count) in enumerate(rows):
        if number == 0 or count:
            table.add_row(name if number == 0 else f"Refused by {name}", str(count))
    line = Text(f"Nothing refused by: {'; '.join(quiet)}" if quiet else "", style="dim")
    return _titled("Decisions of the gate", table, line)


def _strategies(report: Mapping[str, Any]) -> RenderableType:
    rows = [view.strategy_cells(row) for row in report.get("strategies", []) if isinstance(row, Mapping)]
    table = _table("Strategies", view.STRATEGY_HEADER, rows)
    judged = [row for row in report.get("expectations", []) if isinstance(row, Mapping) and row.get("verdict") != "MISSING"]
    lines = [
        Text(f"{row['strategy']}: {view.expectation_text(row)}", style="bold red" if row["verdict"] in _OUTSIDE else "dim")
        for row in judged
    ]
    if not lines and report.get("expectations"):
        lines = [Text("No expectations on record to put the day beside: velox strategies expect", style="dim")]
    return Group(table, *lines)


def _table(title: str, headings: Sequence[str], rows: Iterable[Sequence[str]], *, figures: bool = True) -> RenderableType:
    """Return a table; all columns but the first are figures, or text."""
    table = _plain_table()
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if number and figures else "left")
    for row in rows:
        table.add_row(*row)
    return _titled(title, table)


def _plain_table() -> Table:
    return Table(box=SIMPLE_HEAD, expand=False, show_edge=False, pad_edge=False, padding=(0, 1), collapse_padding=True)


def _titled(title: str, *parts: RenderableType) -> RenderableType:
    return Group(Text(f"\n{title}", style="bold"), *parts)


def status_panel(
    status: Status,
    *,
    environment: str,
    alive: bool,
    age_seconds: float,
    summary: Mapping[str, Any] | None = None,
    brief: bool = False,
) -> RenderableType:
    """Return what a run says of itself, with the age of what it says; `summary` is that of a run that ended.

    `brief` leaves out what does not change, for a picture that is redrawn in a terminal of 24 lines.
    """
    grid = Table.grid(padding=(0, 3))
    grid.add_column(style="dim")
    grid.add_column()
    is_dead = not alive and not status.ended
    said = f"said {status.state if is_dead else 'so'} {ago_text(age_seconds)} ago"
    process = f"process {status.number('pid')} {'runs' if alive else 'is gone'}, {said}"
    if status.closing:
        style = "bold green" if status.closing.get("flat") is True else "bold red"
        grid.add_row("Now", Text(str(status.closing.get("message", "")), style=style))
    grid.add_row("Engine" if status.closing else "State", f"{'DIED' if is_dead else status.state} ({process})")
    is_old = not alive and not status.ended
    for label, value in view.status_rows(status):
        if not (brief and label in ("Data", "Alerts")):
            grid.add_row("Clock when last heard" if is_old and label == "Clock of the day" else label, value)
    grid.add_row("Loss limit used", loss_bar(view.loss_share(status)))
    for key, label in (("stopped", "Stopped before the end"), ("fault", "The engine failed")):
        if summary is not None and summary.get(key):
            grid.add_row(label, Text(str(summary[key]), style="bold red" if key == "fault" else "yellow"))
    for line in view.halt_lines(status, brief=brief):
        grid.add_row("HALTED", Text(line, style="bold red"))
    parts: list[RenderableType] = [grid]
    if status.positions:
        parts.append(
            _table(
                "Open positions", ("Symbol", "Quantity", "Average", "Last", "Open P&L"), map(_position_cells, status.positions)
            )
        )
    synthetic = "  (synthetic data)" if brief and status.flag("synthetic") else ""
    title = f"{status.text('trading_date')}  {environment}  run {status.run_id or status.folder.name}{synthetic}"
    return Panel(Group(*parts), title=title, expand=False, padding=(0, 2))


def ago_text(seconds: float) -> str:
    """Return an age for people: '31 s', '12 min', '5 h', '3 days'."""
    for unit, size, until in (("s", 1, 120), ("min", 60, 7_200), ("h", 3_600, 172_800)):
        if seconds < until:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86_400:.0f} days"


def _position_cells(position: Mapping[str, Any]) -> tuple[str, ...]:
    def money(key: str) -> str:
        value = position.get(key)
        return rupees_display(value) if isinstance(value, int) else "-"

    return (
        str(position.get("symbol", "")),
        str(position.get("quantity", "")),
        money("average_paise"),
        money("last_paise"),
        money("open_paise"),
    )


def differences_table(report: ReconcileReport) -> RenderableType:
    """Return each difference between journal and broker, the locks that stand, and the result below."""
    parts: list[RenderableType] = []
    if report.differences:
        table = Table(title="Differences", title_justify="left", expand=False, box=SIMPLE_HEAD)
        for heading in ("", "Symbol", "What", "The broker", "Here", "Explained by, or locked for"):
            table.add_column(heading, overflow="fold")
        for row in report.differences:
            verdict = Text(row.verdict.value, style=_DIFFERENCE_STYLE[row.verdict])
            what = row.kind.value.replace("_", " ").lower()
            table.add_row(
                verdict, row.symbol, what, row.theirs, row.ours, row.explanation or row.lock or "nothing; see runbook"
            )
        parts.append(table)
    if report.locks:
        locked = ((symbol, "; ".join(reasons)) for symbol, reasons in sorted(report.locks.items()))
        parts.append(_table("Locked for entries", ("Symbol", "Why"), locked, figures=False))
    return Group(*parts, Text(report.sentence))


def findings_table(run_id: str, findings: Sequence[DoctorFinding]) -> RenderableType:
    """Return what the doctor measured of a run."""
    table = Table(title=f"Run {run_id}", title_justify="left", expand=False, box=SIMPLE_HEAD)
    for heading in ("", "Item", "Measured", "What to do"):
        table.add_column(heading, overflow="fold")
    for finding in findings:
        word, style = ("OK", "green") if finding.ok else ("FAILED", "bold red")
        table.add_row(Text(word, style=style), finding.item, finding.measured, "" if finding.ok else finding.advice)
    return table


def show(console: Console, *parts: RenderableType) -> None:
    """Print renderables, one after another."""
    for part in parts:
        console.print(part)
