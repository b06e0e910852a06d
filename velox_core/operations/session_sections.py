"""The sections of a session's report, once for every form: markdown for the flow's artifact, HTML for the page.

- Values in, text out; nothing is escaped here, each form does that in its own way.
- Money in rupees with Indian grouping, times in IST.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from velox_core.domain.money import rupees_display
from velox_core.domain.time import MS_PER_MINUTE, ist_clock_text
from velox_core.operations import view
from velox_core.operations.figure_words import FIGURES_HEADER, figure_rows, note
from velox_core.operations.journal_bodies import int_of, rows_of, text_of
from velox_core.operations.session_story import Story, quality_rows

TRADE_HEADER: Final = ("Strategy", "Symbol", "Side", "Quantity", "In", "Out", "Entry", "Exit", "Charges", "Net", "Why out")
EXPECTATION_HEADER: Final = ("Strategy", "Verdict", "Net", "Expected from", "to", "Days", "Source")
VERDICT_WORDS: Final = {
    "MISSING": "not on record",
    "STALE": "out of date: the strategy or a limit has changed",
    "TOO_FEW_DAYS": "not judged: too few replayed days",
}
EXPECTATION_NOTE: Final = (
    "Where a day could not be judged: `velox strategies expect` replays days and records what is usual for each strategy."
)
FLAGGED: Final = frozenset({"BELOW", "ABOVE", "NOT FLAT", "no"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One part of a report: a table, or `text` where there is nothing to list. `figures` are the right-aligned columns."""

    title: str
    header: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    figures: frozenset[int] = frozenset()
    text: str = ""
    note: str = ""


def report_sections(report: Mapping[str, Any], story: Story | None = None) -> list[Section]:
    """Return a report's sections in their order; with a story those that need it, too."""
    sections = [
        Section(title="Result", header=("", ""), rows=tuple(view.headline_rows(report)), note=_head_note(report)),
        _halts(report),
        *_figures(report),
        _trades(report),
        _decisions(report),
        Section(
            title="Strategies",
            header=view.STRATEGY_HEADER,
            rows=tuple(view.strategy_cells(row) for row in rows_of(report, "strategies")),
            figures=frozenset(range(1, 7)),
            text="No strategy did anything.",
        ),
        *_expectations(report),
        *([] if story is None else [_slippage(story)]),
        _quality(report, story),
        *([] if story is None else [_timeline(story)]),
    ]
    return sections


def _head_note(report: Mapping[str, Any]) -> str:
    head = report.get("day_head")
    return f"Hash of all events of the day, as the day's backup notes it: {head}" if head else ""


def _halts(report: Mapping[str, Any]) -> Section:
    rows = tuple(view.halt_cells(halt) for halt in rows_of(report, "halts"))
    disabled = [f"{text_of(row, 'strategy')} was disabled: {text_of(row, 'reason')}" for row in _disabled(report)]
    return Section(title="Halts", header=("Id", "Kind", "Reason", "Cleared"), rows=rows, text="None.", note="; ".join(disabled))


def _figures(report: Mapping[str, Any]) -> list[Section]:
    """Return the day's figures, where its end has kept them."""
    rows = tuple(figure_rows(report))
    section = Section(title="Figures", header=FIGURES_HEADER, rows=rows, figures=frozenset(range(1, 8)), note=note(report))
    return [section] if rows else []


def _disabled(report: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return rows_of(report, "disabled_strategies")


def _trades(report: Mapping[str, Any]) -> Section:
    trades, shown = rows_of(report, "trades"), view.TRADES_SHOWN_MAX
    more = f"The first {shown} of {len(trades)} trades; `velox summary --json` has all." if len(trades) > shown else ""
    rows = tuple(view.trade_cells(trade) for trade in trades[:shown])
    return Section(title="Trades", header=TRADE_HEADER, rows=rows, figures=frozenset({3, 6, 7, 8, 9}), text="None.", note=more)


def _decisions(report: Mapping[str, Any]) -> Section:
    rows = tuple((name, str(count)) for name, count in view.decision_rows(report))
    note = "`velox explain` says why each signal was approved or refused, and what would have passed."
    return Section(title="Decisions", header=("Outcome", "Number"), rows=rows, figures=frozenset({1}), note=note)


def _expectations(report: Mapping[str, Any]) -> list[Section]:
    """Return the day against each strategy's band from its replays, where one is on record."""
    rows = []
    for row in rows_of(report, "expectations"):
        is_judged = text_of(row, "verdict") in ("WITHIN", "BELOW", "ABOVE")
        band = [row.get("low_paise"), row.get("high_paise")] if is_judged else [None, None]
        low, high = (rupees_display(value) if isinstance(value, int) else "-" for value in band)
        source = text_of(row, "source") + (" (synthetic)" if row.get("synthetic") is True else "")
        net = view.signed_rupees(int_of(row, "net_paise"))
        verdict = VERDICT_WORDS.get(text_of(row, "verdict"), text_of(row, "verdict"))
        rows.append((text_of(row, "strategy"), verdict, net, low, high, str(int_of(row, "days")), source))
    title = "P&L against expectations"
    figures = frozenset({2, 3, 4, 5})
    note = EXPECTATION_NOTE if any(row[1] in VERDICT_WORDS.values() for row in rows) else ""
    return [Section(title=title, header=EXPECTATION_HEADER, rows=tuple(rows), figures=figures, note=note)] if rows else []


def _slippage(story: Story) -> Section:
    rows = tuple(
        (row.strategy, row.symbol, str(row.fills), str(row.quantity), rupees_display(row.slippage_paise), f"{row.bps:.1f}")
        for row in story.slippage
    )
    return Section(
        title="Slippage",
        header=("Strategy", "Symbol", "Fills", "Shares", "Cost beyond arrival", "bps"),
        rows=rows,
        figures=frozenset(range(2, 6)),
        text=f"Not known: {story.no_prices}." if story.no_prices else "No fills.",
        note="Arrival is the close of the newest minute when the order was made; a cost is positive." if rows else "",
    )


def _quality(report: Mapping[str, Any], story: Story | None) -> Section:
    return Section(
        title="Data quality",
        header=("Rule", "Rows", "Example"),
        rows=tuple(quality_rows(report)),
        figures=frozenset({1}),
        text="Every row of the data was used.",
        note="" if story is None else outage_text(story),
    )


def outage_text(story: Story) -> str:
    """Return the longest time without any price, in words."""
    if story.no_prices:
        return f"Longest outage: not known, {story.no_prices}."
    if not story.outage_ms:
        return "Longest outage: none, every minute had a price."
    minutes = story.outage_ms // MS_PER_MINUTE
    return (
        f"Longest outage: {minutes} minute{'s' * (minutes != 1)} without any price from {ist_clock_text(story.outage_from_ms)}."
    )


def _timeline(story: Story) -> Section:
    rows = tuple((ist_clock_text(moment.ts_ms), moment.text) for moment in story.timeline)
    more = f"{story.moments_left_out} more are in the journal." if story.moments_left_out else ""
    return Section(title="Timeline", header=("Time", "What"), rows=rows, text="Nothing happened.", note=more)


def report_markdown(report: Mapping[str, Any], story: Story | None = None, *, page: str = "", picture: str = "") -> str:
    """Return a session's report as markdown.

    Args:
        report, story: what is told.
        page: where the page with its charts lies, '' for nowhere.
        picture: its equity curve as an image in markdown, '' for none.
    """
    lines = [f"# Session {report.get('trading_date', '')} ({report.get('run_id') or report.get('account', '')})", ""]
    if report.get("synthetic"):
        lines += [f"**{view.SYNTHETIC_NOTE}**", ""]
    lines += [_plain(view.headline(report)), ""]
    if page:
        lines += [f"With charts, opens from disk: `{page}`", ""]
    if picture:
        lines += [picture, ""]
    for section in report_sections(report, story):
        lines += [f"## {section.title}", ""]
        lines += _table(section.header, section.rows) if section.rows else [_plain(section.text)]
        lines += ["", *([_plain(section.note), ""] if section.note else [])]
    return "\n".join(lines)


def _plain(text: str) -> str:
    """Return text that markdown shows as it is: no tags, no table bars, one line."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|").replace("\n", " ")


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    if not any(header):  # markdown knows no table without a head, and an empty one is an empty bar in Prefect's UI
        header = ("Of the day", *header[1:])
    lines = [f"| {' | '.join(map(_plain, header))} |", "|" + " --- |" * len(header)]
    return [*lines, *(f"| {' | '.join(map(_plain, row))} |" for row in rows)]
