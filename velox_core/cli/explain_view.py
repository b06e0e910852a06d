"""What `velox explain` and the summary of several dates look like on a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from velox_core.cli.tables import money_style
from velox_core.operations.explain import PRECONDITIONS, ExplainedDecision, Explanation
from velox_core.operations.period import PERIOD_HEADER, day_cells, period_lines, total_cells
from velox_core.operations.report import LAYER_NAMES

INDENT: Final = "    "
_VERDICT_STYLE: Final = {"passed": "green", "REFUSED": "bold red", "not asked": "dim"}


def show_explanation(console: Console, explanation: Explanation, *, in_full: bool) -> None:
    """Print an explanation: the counts by layer, then the decisions; `in_full` with every layer's numbers."""
    console.print(Text(f"Decisions of run {explanation.run_id} ({explanation.trading_date})", style="bold"))
    if explanation.synthetic_note:
        console.print(Text(f"SYNTHETIC DATA: {explanation.synthetic_note}", style="bold yellow"))
    if explanation.note:
        console.print(Text(explanation.note, style="yellow"))
    for line in _summary_lines(explanation):
        console.print(line)
    for decision in explanation.decisions:
        console.print()
        console.print(decision_view(decision, in_full=in_full))
    console.print()
    console.print(Text(_hint(explanation, in_full=in_full), style="dim"))


def _summary_lines(explanation: Explanation) -> list[Text]:
    refused = sum(explanation.refused_by_layer.values())
    approved = f"{explanation.approved_entries} approved for entry, {explanation.approved_exits} for exit"
    lines = [Text(f"{explanation.matching} decision{'s' * (explanation.matching != 1)}: {approved}, {refused} refused")]
    for layer, count in sorted(explanation.refused_by_layer.items()):
        lines.append(Text(f"{INDENT}{count:>6}  refused by {layer_name(layer)}", style="red"))
    if refused:
        codes = ", ".join(f"{code} {count}" for code, count in explanation.refused_by_code.items())
        lines.append(Text(f"{INDENT}        {codes}", style="dim"))
    return lines


def layer_name(layer: int) -> str:
    """Return a layer as people know it: '2. Duplicate order', 'Preconditions'."""
    name = LAYER_NAMES.get(layer, "")
    return f"{layer}. {name}" if layer != PRECONDITIONS else name


def decision_view(decision: ExplainedDecision, *, in_full: bool) -> RenderableType:
    """Return one decision: what was asked, the verdict, and below it why and what would have passed."""
    if decision.approved:
        verdict = Text(f"APPROVED {decision.client_order_id}", style="green")
    else:
        verdict = Text(f"REFUSED by {layer_name(decision.layer)}", style="bold red")
    sized = f" (asked {decision.asked}, fixed lot)" if decision.kind == "ENTRY" and decision.asked != decision.quantity else ""
    what = f"#{decision.id} {decision.time} {decision.strategy or '(nobody)'} {decision.symbol} "
    first = Text(f"{what}{decision.kind} {decision.side} {decision.quantity}{sized}  ").append_text(verdict)
    below: list[RenderableType] = []
    if decision.signal_reason:
        below.append(Text(f"signal: {decision.signal_reason}", style="dim"))
    if decision.reason:
        below.append(Text(f"why: {decision.reason} [{decision.code}]"))
    if decision.would_have_passed:
        below.append(Text(f"would have passed {decision.would_have_passed}", style="yellow"))
    if decision.order:
        below.append(Text(f"order: {decision.order}"))
    if in_full:
        below.append(_layers(decision))
    if decision.note:
        below.append(Text(f"note: {decision.note}", style="dim"))
    return Group(first, Padding(Group(*below), (0, 0, 0, len(INDENT)), expand=False))


def _layers(decision: ExplainedDecision) -> RenderableType:
    if not decision.layers:
        return Text("An exit passes no layer: nothing but a stronger exit at work may refuse it.", style="dim")
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for layer in decision.layers:
        verdict = Text(layer.verdict, style=_VERDICT_STYLE[layer.verdict])
        table.add_row(layer_name(layer.layer), verdict, Text(layer.numbers))
    return table


def _hint(explanation: Explanation, *, in_full: bool) -> str:
    if not explanation.matching:
        strategies = ", ".join(explanation.strategies) or "none"
        symbols = ", ".join(explanation.symbols[:20]) or "none"
        return f"No decision matches. This run has decisions of: {strategies}; on: {symbols}"
    shown = len(explanation.decisions)
    if shown < explanation.matching:
        narrow = "narrow with --symbol, --strategy, --layer 0-7, or show more with --limit N"
        return f"The last {shown} of {explanation.matching}; {narrow}. --id N shows one with every layer."
    return "" if in_full else "--id N shows one decision with every layer's numbers."


def period_table(period: Mapping[str, Any]) -> RenderableType:
    """Return a period as a table with its totals, and how its runs were chosen below."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1), show_footer=True, collapse_padding=True)
    for number, (heading, total) in enumerate(zip(PERIOD_HEADER, total_cells(period), strict=True)):
        is_text = number in (0, len(PERIOD_HEADER) - 1)
        table.add_column(
            heading,
            footer=total,
            justify="left" if is_text else "right",
            no_wrap=number < len(PERIOD_HEADER) - 1,
            overflow="fold",
        )
    for row in period["days"]:
        cells = [Text(cell) for cell in day_cells(row)]
        cells[1].stylize(money_style(row["net_paise"]))
        table.add_row(*cells, style="bold red" if not row["flat"] else "")
    return Group(table, *(Text(line) for line in period_lines(period)))
