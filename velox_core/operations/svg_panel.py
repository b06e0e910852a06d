"""SVG of our own: panels below one another, each a curve over the session's clock with what stands on it.

- What an element looks like stands in its attributes. There is no style sheet, no class, no id and no script: charts on
  one page cannot disturb each other, nothing is fetched, and the same values give the same bytes.
- Every text goes through the XML writer, which escapes it. What a mark says is shown by the browser when the pointer is on it.
- Amounts in paise, times in epoch ms, places in units of the picture: `WIDTH` of them, which the page stretches.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal
from xml.etree.ElementTree import Element, SubElement, tostring

from velox_core.domain.money import PAISE_PER_RUPEE, rupees_display
from velox_core.domain.time import ist_clock_text
from velox_core.operations.chart_points import Point, clock_ticks, money_ticks

GAIN, LOSS, LINE, GREY = "#1a7f37", "#c62828", "#1f4e79", "#8a8f98"
INK, TEXT, GRID = "#1c1e21", "#5a6068", "#e6e9ed"
FONT: Final = "system-ui,'Segoe UI','DejaVu Sans',sans-serif"
FONT_SIZE, TITLE_SIZE = 12, 14
LETTER_WIDTH: Final = 7  # a text that is narrower leaves a gap
TITLE_LETTERS_MAX: Final = 60
WIDTH: Final = 960
LEFT, RIGHT, TOP, BOTTOM = 72, 14, 34, 28  # room for amounts, title and legend, and the clock; wider amounts have more
BOTTOM_WITHOUT_CLOCK: Final = 8
INSET: Final = 14  # from the axis to the first point
TICK_HEIGHT: Final = 34
EMPTY_HEIGHT: Final = 60
NAMESPACE: Final = "http://www.w3.org/2000/svg"
_NOT_IN_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

Shape = Literal["dot", "up", "down", "line", "dotted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A point that is shown by itself, and what it says when the pointer is on it."""

    at: Point
    shape: Shape
    colour: str
    says: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """A text so many units below a point, above it when negative, that begins there, or ends there."""

    at: Point
    text: str
    below: int
    ends_there: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """An entry of the legend."""

    shape: Shape
    colour: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One curve and what stands on it.

    Attributes:
        points: the curve, (ts_ms, paise), oldest first; `is_steps`: a value holds until the next point.
        ends_ms: first and last time that the width shows.
        reach: lowest and highest amount that the height shows.
        downs: lines from top to bottom, as (ts_ms, what it says).
        limit_paise: where a line goes across, None for nowhere.
        left: where the height's axis stands, set for all panels together.
    """

    title: str
    height: int
    points: Sequence[Point]
    ends_ms: tuple[int, int]
    reach: tuple[int, int]
    marks: Sequence[Mark] = ()
    notes: Sequence[Note] = ()
    keys: Sequence[Key] = ()
    downs: Sequence[tuple[int, str]] = ()
    limit_paise: int | None = None
    is_steps: bool = False
    has_clock: bool = True
    left: int = LEFT

    @property
    def bottom(self) -> int:
        """Return where the height's axis ends."""
        return self.height - (BOTTOM if self.has_clock else BOTTOM_WITHOUT_CLOCK)

    def x(self, ts_ms: int) -> float:
        """Return where a time is, in the middle when only one is shown."""
        first_ms, last_ms = self.ends_ms
        share = (ts_ms - first_ms) / (last_ms - first_ms) if last_ms > first_ms else 0.5
        return round(self.left + INSET + share * (WIDTH - self.left - RIGHT - 2 * INSET), 1)

    def y(self, paise: int) -> float:
        """Return where an amount is."""
        low, high = self.reach
        return round(self.bottom - (paise - low) / (high - low) * (self.bottom - TOP), 1)

    def amounts(self) -> dict[int, str]:
        """Return the amounts of the height's axis, and how they are written."""
        ticks = money_ticks(*self.reach, about=(self.bottom - TOP) // TICK_HEIGHT)
        is_whole = all(tick % PAISE_PER_RUPEE == 0 for tick in ticks)
        return {tick: rupees_display(tick).removesuffix(".00" if is_whole else "") for tick in ticks}


def svg(label: str, panels: Sequence[Panel]) -> str:
    """Return panels below one another as one SVG element. `label` is what it shows, in words."""
    root = _root(label, sum(panel.height for panel in panels))
    letters = max(len(text) for panel in panels for text in panel.amounts().values())
    left, top = max(LEFT, letters * LETTER_WIDTH + 12), 0
    for panel in (replace(panel, left=left) for panel in panels):
        group = SubElement(root, "g", {"transform": f"translate(0 {top})"})
        _axes(group, panel)
        _curve(group, panel)
        _head(group, panel)
        top += panel.height
    return tostring(root, encoding="unicode")


def sentence_svg(sentence: str) -> str:
    """Return a sentence in the place of a chart."""
    root = _root(sentence, EMPTY_HEIGHT)
    _text(root, WIDTH / 2, EMPTY_HEIGHT / 2, sentence, TEXT, "middle")
    return tostring(root, encoding="unicode")


def _root(label: str, height: int) -> Element:
    look = {"font-family": FONT, "font-size": str(FONT_SIZE)}
    words = {"role": "img", "aria-label": _writable(label)}
    size = {"width": str(WIDTH), "height": str(height)}
    root = Element("svg", {"xmlns": NAMESPACE, "viewBox": f"0 0 {WIDTH} {height}", **size, **words, **look})
    SubElement(root, "rect", {**size, "fill": "#fff"})
    return root


def _axes(group: Element, panel: Panel) -> None:
    """Draw the grid with its amounts and hours, and the zero line in it."""
    for at_ms in clock_ticks(*panel.ends_ms):
        _path(group, f"M{panel.x(at_ms)} {TOP}V{panel.bottom}", GRID)
        if panel.has_clock:
            _text(group, panel.x(at_ms), panel.bottom + 18, ist_clock_text(at_ms)[:5], TEXT, "middle")
    for tick, amount in panel.amounts().items():
        _path(group, f"M{panel.left} {panel.y(tick)}H{WIDTH - RIGHT}", GREY if tick == 0 else GRID)
        _text(group, panel.left - 8, panel.y(tick) + 4, amount, TEXT, "end")
    _path(group, f"M{panel.left} {TOP}V{panel.bottom}H{WIDTH - RIGHT}", GREY)


def _curve(group: Element, panel: Panel) -> None:
    """Draw the lines down and across, the curve on them, and what stands on the curve."""
    for x, says in {panel.x(at_ms): says for at_ms, says in reversed(panel.downs)}.items():
        _says(_path(group, f"M{x} {TOP}V{panel.bottom}", LOSS, 1.2, "2 3"), says)
    if panel.limit_paise is not None:
        _path(group, f"M{panel.left} {panel.y(panel.limit_paise)}H{WIDTH - RIGHT}", LOSS, 1.5, "7 4")
    if panel.points:
        _path(group, _steps(panel) if panel.is_steps else _through(panel), LINE, 1.6 if panel.is_steps else 1.2)
    for mark in panel.marks:
        _says(_shape(group, panel.x(mark.at[0]), panel.y(mark.at[1]), mark.shape, mark.colour), mark.says)
    for note in panel.notes:
        anchor = "end" if note.ends_there else "start"
        _text(group, panel.x(note.at[0]), panel.y(note.at[1]) + note.below, note.text, LOSS, anchor)


def _through(panel: Panel) -> str:
    return "M" + " ".join(f"{panel.x(ts_ms)} {panel.y(paise)}" for ts_ms, paise in panel.points)


def _steps(panel: Panel) -> str:
    """Return a path on which each value holds until the next one."""
    (first_ms, first), *rest = panel.points
    held, parts = panel.y(first), [f"M{panel.x(first_ms)} {panel.y(first)}"]
    for ts_ms, paise in rest:
        y = panel.y(paise)
        if y != held:
            parts.append(f"H{panel.x(ts_ms)}V{y}")
            held = y
    return "".join([*parts, f"H{panel.x(panel.points[-1][0])}"])


def _head(group: Element, panel: Panel) -> None:
    """Write the title at the left, and the legend at the right."""
    cut = panel.title if len(panel.title) <= TITLE_LETTERS_MAX else panel.title[: TITLE_LETTERS_MAX - 1] + "…"
    title = _text(group, panel.left, TOP - 14, cut, INK)
    title.attrib.update({"font-size": str(TITLE_SIZE), "font-weight": "600"})
    x = float(WIDTH - RIGHT)
    for key in reversed(panel.keys):
        x -= len(key.text) * LETTER_WIDTH
        _text(group, x, TOP - 14, key.text, TEXT)
        _shape(group, x - 14, TOP - 18, key.shape, key.colour)
        x -= 40


def _shape(group: Element, x: float, y: float, shape: Shape, colour: str) -> Element:
    """Draw a mark, or its like in a legend, round a place."""
    match shape:
        case "line":
            return _path(group, f"M{x - 9:.1f} {y:.1f}h18", colour, 1.5)
        case "dotted":
            return _path(group, f"M{x:.1f} {y - 7:.1f}v14", colour, 1.2, "2 3")
        case "up":
            outline = f"M{x:.1f} {y - 6:.1f}l5.5 10h-11z"
        case "down":
            outline = f"M{x:.1f} {y + 6:.1f}l5.5 -10h-11z"
        case "dot":
            outline = f"M{x - 4.5:.1f} {y:.1f}a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0 -9 0z"
    return SubElement(group, "path", {"d": outline, "fill": colour, "stroke": "#fff", "stroke-width": "1"})


def _path(group: Element, path: str, colour: str, width: float = 1.0, dashes: str = "") -> Element:
    look = {"fill": "none", "stroke": colour, "stroke-width": f"{width:g}", "stroke-linejoin": "round"}
    return SubElement(group, "path", {"d": path, **look, **({"stroke-dasharray": dashes} if dashes else {})})


def _text(group: Element, x: float, y: float, text: str, colour: str, anchor: str = "start") -> Element:
    written = SubElement(group, "text", {"x": f"{x:.1f}", "y": f"{y:.1f}", "fill": colour, "text-anchor": anchor})
    written.text = _writable(text)
    return written


def _says(element: Element, words: str) -> None:
    SubElement(element, "title").text = _writable(words)


def _writable(text: str) -> str:
    """Return a text without the characters that no XML may have."""
    return _NOT_IN_XML.sub("\ufffd", text)
