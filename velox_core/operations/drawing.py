"""Drawing a session's report: its page with the charts, and its picture. Values in, text out; nothing is read or written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from velox_core.operations.charts import equity_svg, symbol_svg
from velox_core.operations.journal_bodies import int_of
from velox_core.operations.session_page import report_page
from velox_core.operations.session_story import Story

SYMBOL_CHARTS_MAX: Final = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """A report as drawn: `page` is HTML with inline SVG, `picture` the equity curve as an SVG element of its own."""

    page: str
    picture: str


def draw(report: Mapping[str, Any], story: Story) -> Drawing:
    """Draw a report."""
    equity = equity_svg(story, int_of(report, "loss_limit_paise"))
    traded = _most_traded(story)
    shown = traded[:SYMBOL_CHARTS_MAX]
    charts = []
    for symbol in shown:
        own = [fill for fill in story.fills if fill.symbol == symbol]
        charts.append((symbol, symbol_svg(symbol, story.prices[symbol], own)))
    page = report_page(report, story, equity=equity, symbols=charts, left_out=len(traded) - len(shown))
    return Drawing(page=page, picture=equity)


def _most_traded(story: Story) -> list[str]:
    """Return the traded symbols that have prices, those with most fills first."""
    fills = Counter(fill.symbol for fill in story.fills)
    return sorted(story.prices, key=lambda symbol: (-fills[symbol], symbol))
