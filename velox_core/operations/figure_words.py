"""A day's figures in words: a row for the whole day, each strategy and each symbol, and what stands beside. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from velox_core.domain.money import rupees_display
from velox_core.domain.time import MS_PER_MINUTE, ist_clock_text
from velox_core.operations.journal_bodies import int_of, object_of, rows_of, text_of

FIGURES_HEADER: Final = ("Of", "Trades", "Won", "Profit factor", "Average win", "Average loss", "Charges", "Net")
ROWS_MAX: Final = 100


def figure_rows(report: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return the table's rows, none for a report that an end of day has not kept yet."""
    figures = object_of(report, "figures")
    if not figures:
        return []
    rows = [_cells("All", object_of(figures, "all"))]
    rows += [_cells(text_of(row, "strategy"), row) for row in rows_of(figures, "by_strategy")]
    rows += [_cells(text_of(row, "symbol"), row) for row in rows_of(figures, "by_symbol")]
    return rows[:ROWS_MAX]


def _cells(name: str, row: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        name,
        str(int_of(row, "trades")),
        _rate(row),
        _factor(row),
        rupees_display(int_of(row, "average_win_paise")),
        rupees_display(int_of(row, "average_loss_paise")),
        rupees_display(int_of(row, "charges_paise")),
        rupees_display(int_of(row, "net_paise")),
    )


def _rate(row: Mapping[str, Any]) -> str:
    rate = row.get("win_rate")
    return f"{100 * rate:.0f} %" if isinstance(rate, int | float) else "-"


def _factor(row: Mapping[str, Any]) -> str:
    factor = row.get("profit_factor")
    return f"{factor:.2f}" if isinstance(factor, int | float) else "-"


def figure_lines(report: Mapping[str, Any]) -> list[str]:
    """Return the day's figures in two lines, none for a report that an end of day has not kept yet."""
    figures = object_of(report, "figures")
    if not figures:
        return []
    every = object_of(figures, "all")
    return [
        f"won {_rate(every)}, profit factor {_factor(every)}, average win "
        f"{rupees_display(int_of(every, 'average_win_paise'))}, average loss "
        f"{rupees_display(int_of(every, 'average_loss_paise'))}",
        note(report),
    ]


def note(report: Mapping[str, Any]) -> str:
    """Return what stands beside the table: drawdown, exposure, slippage, outage."""
    figures = object_of(report, "figures")
    fall, held = object_of(figures, "drawdown"), object_of(figures, "exposure")
    parts = ["no fall from a peak"]
    if int_of(fall, "paise"):
        span = f"{ist_clock_text(int_of(fall, 'from_ms'))} to {ist_clock_text(int_of(fall, 'to_ms'))}"
        parts = [f"deepest fall {rupees_display(int_of(fall, 'paise'))} from {span}"]
    parts.append(
        f"held at most {rupees_display(int_of(held, 'peak_paise'))} in {int_of(held, 'positions_max')} positions, for "
        f"{int_of(held, 'held_ms') // MS_PER_MINUTE} minutes in all"
    )
    slippage, outage = object_of(figures, "slippage"), object_of(figures, "longest_outage")
    if slippage:
        parts.append(f"slippage {rupees_display(int_of(slippage, 'paise'))}")
        parts.append(f"longest outage {int_of(outage, 'length_ms') // MS_PER_MINUTE} minutes")
    else:
        parts.append(f"slippage and outages not known: {text_of(figures, 'no_prices')}")
    return ", ".join(parts)
