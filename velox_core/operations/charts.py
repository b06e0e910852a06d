"""The charts of a session's report, drawn by matplotlib: inline SVG for the page, PNG for the flow's artifact.

- The same values give the same bytes: a fixed salt for ids, no dates, no creator.
- matplotlib is imported here and nowhere else, when a chart is asked for: never by an engine. Its font list lies in a
  folder of ours.
- Every text is taken as it is (no mathematics), and the SVG writer escapes it.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from velox_core.domain.money import PAISE_PER_RUPEE, rupees_display
from velox_core.domain.time import MS_PER_MINUTE, ist_clock_text
from velox_core.operations.session_story import FillPoint, Prices, Story

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GAIN, LOSS, LINE, GREY = "#1a7f37", "#c62828", "#1f4e79", "#8a8f98"
TICK_MINUTES: Final = 60
WIDTH_INCHES: Final = 9.0
MARGIN_INCHES: Final = (1.05, 0.15, 0.3, 0.3)  # left, right, bottom, top: room for figures of crores, clock and title
_STYLE: Final[dict[str, Any]] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
}
CONFIG_VARIABLE: Final = "MPLCONFIGDIR"


def equity_svg(story: Story, limit_paise: int, scratch: Path) -> str:
    """Return the equity curve against the loss limit, worst point marked, as an SVG element.

    Args:
        story: its marks.
        limit_paise: the day's loss limit, positive; 0 draws none.
        scratch: a folder for matplotlib's font list.
    """
    return _as_svg(scratch, "equity", lambda: _equity(story, limit_paise))


def equity_png(story: Story, limit_paise: int, scratch: Path) -> bytes:
    """Return the same as a PNG."""
    with _context(scratch, "equity"):
        sink = io.BytesIO()
        _equity(story, limit_paise).savefig(sink, format="png", dpi=110, metadata={"Software": None})
    return sink.getvalue()


def symbol_svg(symbol: str, prices: Prices, fills: Sequence[FillPoint], scratch: Path) -> str:
    """Return a symbol's minutes with its fills on them, as an SVG element. `fills` are the symbol's own."""
    return _as_svg(scratch, f"price-{symbol}", lambda: _symbol(symbol, prices, fills))


def get_ready(scratch: Path) -> None:
    """Import what drawing needs and read its font list, so that the first chart does not wait for it. Draws nothing."""
    os.environ.setdefault(CONFIG_VARIABLE, str(scratch))
    import matplotlib.backends.backend_agg
    import matplotlib.backends.backend_svg
    import matplotlib.figure
    import matplotlib.font_manager  # noqa: F401 - all of them for what they leave in the process


def _context(scratch: Path, name: str) -> Any:
    os.environ.setdefault(CONFIG_VARIABLE, str(scratch))  # else the font list would go to the person's home
    import matplotlib

    matplotlib.use("svg", force=False)
    style: Any = {**_STYLE, "svg.hashsalt": f"velox-{name}"}
    return matplotlib.rc_context(style)


def _as_svg(scratch: Path, name: str, draw: Any) -> str:
    with _context(scratch, name):
        sink = io.StringIO()
        draw().savefig(sink, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = sink.getvalue()
    return text[text.index("<svg") :]


def _figure(height: float, *panels: float) -> tuple[Figure, Any]:
    """Return a figure of a height in inches with its axes; with panels, one axes of each relative height, one clock."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH_INCHES, height))
    left, right, bottom, top = MARGIN_INCHES  # fixed: to let the library find them takes as long as the drawing itself
    figure.subplots_adjust(
        left=left / WIDTH_INCHES, right=1 - right / WIDTH_INCHES, bottom=bottom / height, top=1 - top / height, hspace=0.3
    )
    if not panels:
        return figure, figure.subplots()
    return figure, figure.subplots(len(panels), 1, sharex=True, gridspec_kw={"height_ratios": panels})


def _equity(story: Story, limit_paise: int) -> Figure:
    """Draw the curve by itself, and below it the same against the limit: on that scale a calm day is a flat line."""
    worst = story.worst
    if worst is None:
        figure, axes = _figure(1.0)
        axes.text(0.5, 0.5, "the journal has no marks", ha="center", transform=axes.transAxes, color=GREY)
        return figure
    figure, (curve, against) = _figure(4.4, 2.2, 1.3)
    minutes = [ts_ms / MS_PER_MINUTE for ts_ms, _ in story.equity]
    rupees = [paise / PAISE_PER_RUPEE for _, paise in story.equity]
    for axes in (curve, against):
        axes.step(minutes, rupees, where="post", color=LINE, linewidth=1.4)
        axes.axhline(0.0, color=GREY, linewidth=0.8)
        axes.plot([worst[0] / MS_PER_MINUTE], [worst[1] / PAISE_PER_RUPEE], "o", color=LOSS, markersize=5)
        axes.yaxis.set_major_formatter(_rupees)
        axes.margins(y=0.25)
        for halt_ms in story.halts_ms:
            axes.axvline(halt_ms / MS_PER_MINUTE, color=LOSS, linewidth=0.9, linestyle=":")
    is_late = 2 * worst[0] > story.equity[0][0] + story.equity[-1][0]
    curve.annotate(
        f"worst {rupees_display(worst[1])} at {ist_clock_text(worst[0])}",
        (worst[0] / MS_PER_MINUTE, worst[1] / PAISE_PER_RUPEE),
        (0, -14),  # below the lowest point nothing is drawn
        textcoords="offset points",
        ha="right" if is_late else "left",
        color=LOSS,
    )
    halted = f" (halted at {', '.join(ist_clock_text(at_ms) for at_ms in story.halts_ms[:3])})" if story.halts_ms else ""
    curve.set_title(f"P&L after charges{halted}", loc="left")
    against.set_title("the same against the limit", loc="left")
    if limit_paise > 0:
        limit = -limit_paise / PAISE_PER_RUPEE
        against.axhline(limit, color=LOSS, linewidth=1.4, linestyle="--")
        label = f"loss limit {rupees_display(-limit_paise)}"
        against.annotate(label, (minutes[0], limit), (0, 4), textcoords="offset points", color=LOSS)
    _clock_ticks(against, story.equity[0][0], story.equity[-1][0])
    return figure


def _symbol(symbol: str, prices: Prices, fills: Sequence[FillPoint]) -> Figure:
    figure, axes = _figure(2.8)
    minutes = [ts_ms / MS_PER_MINUTE for ts_ms in prices.stamps_ms]
    axes.plot(minutes, [close / PAISE_PER_RUPEE for close in prices.closes], color=LINE, linewidth=1.0, label="close")
    for side, marker, colour in (("BUY", "^", GAIN), ("SELL", "v", LOSS)):
        own = [fill for fill in fills if fill.side == side]
        if own:
            axes.plot(
                [fill.ts_ms / MS_PER_MINUTE for fill in own],
                [fill.price_paise / PAISE_PER_RUPEE for fill in own],
                marker,
                color=colour,
                markersize=7,
                label=f"{side.lower()} ({len(own)})",
            )
    axes.set_title(symbol, loc="left")
    axes.yaxis.set_major_formatter(_rupees)
    axes.legend(loc="best", frameon=False, ncols=3)
    if prices.stamps_ms:
        _clock_ticks(axes, prices.stamps_ms[0], prices.stamps_ms[-1])
    return figure


def _rupees(value: float, _position: int | None = None) -> str:
    """Return a tick's label, with the digits grouped as in India."""
    return rupees_display(round(value * PAISE_PER_RUPEE)).removesuffix(".00")


def _clock_ticks(axes: Any, first_ms: int, last_ms: int) -> None:
    """Put the hours of the session below; more than a few are too many, a short session has its ends."""
    step_ms = TICK_MINUTES * MS_PER_MINUTE
    offset_ms = 30 * MS_PER_MINUTE  # IST is half an hour off the hour
    first = (first_ms + offset_ms + step_ms - 1) // step_ms * step_ms - offset_ms
    ticks = list(range(first, last_ms + 1, step_ms)) or [first_ms, last_ms]
    axes.set_xticks([tick / MS_PER_MINUTE for tick in ticks], [ist_clock_text(tick)[:5] for tick in ticks])
