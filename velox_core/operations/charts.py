"""The charts of a session's report as SVG: inline in the page, and the equity curve as the picture of the flow's artifact.

- What is shown is decided here, how it is written in `svg_panel`.
- Each chart is bounded: a curve by `chart_points.thin`, the fills by `FILLS_DRAWN_MAX`; the legend tells how many there were.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from velox_core.domain.money import PAISE_PER_RUPEE, rupees_display
from velox_core.domain.time import ist_clock_text
from velox_core.operations.chart_points import Point, thin
from velox_core.operations.session_story import FillPoint, Prices, Story
from velox_core.operations.svg_panel import GAIN, LINE, LOSS, Key, Mark, Note, Panel, Shape, sentence_svg, svg

CURVE_HEIGHT, LIMIT_HEIGHT, SYMBOL_HEIGHT = 270, 190, 290
FILLS_DRAWN_MAX: Final = 300  # of one side in one chart
HALTS_NAMED_MAX: Final = 3
SIDES: Final[tuple[tuple[str, Shape, str], ...]] = (("BUY", "up", GAIN), ("SELL", "down", LOSS))


def equity_svg(story: Story, limit_paise: int) -> str:
    """Return the equity curve, and below it the same against the loss limit, where a calm day is a flat line.

    Args:
        story: its marks.
        limit_paise: the day's loss limit, positive; 0 draws none.
    """
    worst = story.worst
    if worst is None:
        return sentence_svg("The journal has no marks of the day's P&L, so there is no curve.")
    says = f"worst {rupees_display(worst[1])} at {ist_clock_text(worst[0])}"
    points = thin(story.equity)
    ends_ms = _ends([points[0][0], points[-1][0], *story.halts_ms])
    lowest, highest = min(0, worst[1]), max(0, *(paise for _, paise in points))
    halts = [ist_clock_text(at_ms) for at_ms in story.halts_ms]
    named = f" (halted at {', '.join(list(dict.fromkeys(halts))[:HALTS_NAMED_MAX])})" if halts else ""
    dot = Mark(at=worst, shape="dot", colour=LOSS, says=says)
    downs = [(at_ms, f"halted at {text}") for at_ms, text in zip(story.halts_ms, halts, strict=True)]
    is_late = 2 * worst[0] > sum(ends_ms)
    curve = Panel(
        title=f"P&L after charges{named}",
        height=CURVE_HEIGHT,
        points=points,
        ends_ms=ends_ms,
        reach=_reach(lowest, highest),
        marks=[dot],
        notes=[Note(at=worst, text=says, below=19, ends_there=is_late)],  # below the lowest point nothing is drawn
        keys=[Key(shape="dotted", colour=LOSS, text="halt")] if halts else [],
        downs=downs,
        is_steps=True,
        has_clock=False,
    )
    limit = -limit_paise if limit_paise > 0 else None
    label = f"loss limit {rupees_display(-limit_paise)}"
    against = Panel(
        title="The same against the limit",
        height=LIMIT_HEIGHT,
        points=points,
        ends_ms=ends_ms,
        reach=_reach(min(lowest, limit or 0), highest),
        marks=[dot],
        notes=[] if limit is None else [Note(at=(ends_ms[0], limit), text=label, below=-6)],
        downs=downs,
        limit_paise=limit,
        is_steps=True,
    )
    return svg(f"P&L of the session after charges{named}, {says}", [curve, against])


def symbol_svg(symbol: str, prices: Prices, fills: Sequence[FillPoint]) -> str:
    """Return a symbol's minutes with its fills on them. `fills` are the symbol's own."""
    closes = list(zip(prices.stamps_ms, prices.closes, strict=True))
    seen = [*closes, *((fill.ts_ms, fill.price_paise) for fill in fills)]
    if not seen:
        return sentence_svg(f"{symbol}: there are no prices, so there is no curve.")
    amounts = [paise for _, paise in seen]
    marks: list[Mark] = []
    keys = [Key(shape="line", colour=LINE, text="close")]
    for side, shape, colour in SIDES:
        own = [fill for fill in fills if fill.side == side]
        drawn = own[:: -(-len(own) // FILLS_DRAWN_MAX) or 1]
        marks += [Mark(at=(fill.ts_ms, fill.price_paise), shape=shape, colour=colour, says=_words(fill)) for fill in drawn]
        count = f"{len(own)}, {len(drawn)} drawn" if len(drawn) < len(own) else f"{len(own)}"
        keys += [Key(shape=shape, colour=colour, text=f"{side.lower()} ({count})")] if own else []
    panel = Panel(
        title=symbol,
        height=SYMBOL_HEIGHT,
        points=thin(closes),
        ends_ms=_ends([ts_ms for ts_ms, _ in seen]),
        reach=_reach(min(amounts), max(amounts), share=12),
        marks=marks,
        keys=keys,
    )
    return svg(f"Prices and fills of {symbol}", [panel])


def _words(fill: FillPoint) -> str:
    return f"{ist_clock_text(fill.ts_ms)} {fill.side} {fill.quantity} at {rupees_display(fill.price_paise)}"


def _ends(stamps_ms: Sequence[int]) -> Point:
    return min(stamps_ms), max(stamps_ms)


def _reach(low_paise: int, high_paise: int, *, share: int = 4) -> Point:
    """Return the ends of the height: a share of the span, or a rupee, below the lowest amount, and half of that above."""
    room = max((high_paise - low_paise) // share, PAISE_PER_RUPEE)
    return low_paise - room, high_paise + room // 2
