"""The charts as SVG: each line, mark and label is where its value says, nothing is fetched, equal values give equal bytes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.unit.operations.test_session_page import EVIL, session
from velox_core.operations.charts import FILLS_DRAWN_MAX, equity_svg, symbol_svg
from velox_core.operations.drawing import draw
from velox_core.operations.session_story import FillPoint, Prices, Story
from velox_core.operations.svg_panel import GAIN, LINE, LOSS

OPEN_MS = 1_705_290_300_000  # 09:15 in India
MINUTE = 60_000
HOUR = 60 * MINUTE
NAME = "{http://www.w3.org/2000/svg}"
MARKS = ((OPEN_MS, 0), (OPEN_MS + HOUR, -60_000), (OPEN_MS + 4 * HOUR, -20_000), (OPEN_MS + 6 * HOUR, 15_000))
HALTS = (OPEN_MS + 2 * HOUR, OPEN_MS + 5 * HOUR)
DAY = Story(equity=MARKS, halts_ms=HALTS)
CLOSES = tuple(390_000 + 700 * (n % 11) for n in range(375))
PRICES = Prices(stamps_ms=tuple(OPEN_MS + (n + 1) * MINUTE for n in range(375)), closes=CLOSES)
Found = list[ElementTree.Element]
Place = tuple[float, float]


def panels_of(svg: str) -> Found:
    """The groups of an SVG, one for each panel."""
    return ElementTree.fromstring(svg).findall(f"{NAME}g")


def texts(element: ElementTree.Element) -> list[str]:
    return [text.text or "" for text in element.iter(f"{NAME}text")]


def paths(panel: ElementTree.Element, **look: str) -> Found:
    wanted = {name.replace("_", "-"): value for name, value in look.items()}
    return [path for path in panel.iter(f"{NAME}path") if all(path.get(name) == value for name, value in wanted.items())]


def says(path: ElementTree.Element) -> str:
    return str(path.findtext(f"{NAME}title"))


def numbers(text: str | None) -> list[float]:
    return [float(number) for number in re.findall(r"-?[\d.]+", text or "")]


def ruler(panel: ElementTree.Element, hours: dict[str, float]) -> Callable[[int, int], Place]:
    """Return where a time and an amount belong, as the labels of the two axes say."""
    amounts = []
    for text in panel.iter(f"{NAME}text"):
        label = text.text or ""
        if re.fullmatch(r"-?₹[\d,.]+", label):
            amounts.append((round(100 * float(label.replace("₹", "").replace(",", ""))), float(text.get("y", "")) - 4))
    (low, y_low), (high, y_high) = min(amounts), max(amounts)
    assert y_low > y_high
    ten, three = hours["10:00"], hours["15:00"]

    def place(ts_ms: int, paise: int) -> Place:
        x = ten + (ts_ms - OPEN_MS - 45 * MINUTE) / (5 * HOUR) * (three - ten)
        return x, y_low + (paise - low) / (high - low) * (y_high - y_low)

    return place


def clock(panel: ElementTree.Element) -> dict[str, float]:
    found = {text.text or "": float(text.get("x", "")) for text in panel.iter(f"{NAME}text")}
    return {label: x for label, x in found.items() if re.fullmatch(r"\d\d:\d\d", label)}


def test_equity_stands_in_steps_at_its_amounts_in_both_panels() -> None:
    both = panels_of(equity_svg(DAY, 200_000))
    hours = clock(both[1])
    assert list(hours) == [f"{hour}:00" for hour in range(10, 16)]
    assert clock(both[0]) == {}  # one clock, below both
    for panel in both:
        place = ruler(panel, hours)
        (curve,) = paths(panel, stroke=LINE)
        wanted = [*place(*MARKS[0])]
        for ts_ms, paise in MARKS[1:]:
            wanted += place(ts_ms, paise)  # across to its time, then down or up to its amount
        assert re.sub(r"[-\d. ]", "", str(curve.get("d"))) == "M" + "HV" * 3 + "H"
        assert numbers(curve.get("d")) == pytest.approx([*wanted, wanted[-2]], abs=0.2)
        assert len(paths(panel, stroke="#8a8f98")) == 2  # the axes, and zero


def test_equity_marks_the_worst_point_the_halts_and_the_limit() -> None:
    curve, against = panels_of(equity_svg(DAY, 200_000))
    hours = clock(against)
    for panel in (curve, against):
        place = ruler(panel, hours)
        (dot,) = paths(panel, fill=LOSS)
        x, y = place(*MARKS[1])
        assert numbers(dot.get("d"))[:2] == pytest.approx([x - 4.5, y], abs=0.2)
        assert says(dot) == "worst -₹600.00 at 10:15:00"
        down = [path for path in paths(panel, stroke=LOSS, stroke_dasharray="2 3") if "V" in str(path.get("d"))]
        assert [says(path) for path in reversed(down)] == ["halted at 11:15:00", "halted at 14:15:00"]
        assert [numbers(path.get("d"))[0] for path in reversed(down)] == pytest.approx(
            [place(at_ms, 0)[0] for at_ms in HALTS], abs=0.2
        )
    assert "worst -₹600.00 at 10:15:00" in texts(curve)
    assert "P&L after charges (halted at 11:15:00, 14:15:00)" in texts(curve)
    assert {"The same against the limit", "loss limit -₹2,000.00"} <= set(texts(against))
    (limit,) = paths(against, stroke=LOSS, stroke_dasharray="7 4")
    assert numbers(limit.get("d"))[1] == pytest.approx(ruler(against, hours)(OPEN_MS, -200_000)[1], abs=0.2)
    assert paths(curve, stroke_dasharray="7 4") == []


def test_equity_without_a_limit_draws_none_and_without_marks_says_so() -> None:
    _, against = panels_of(equity_svg(DAY, 0))
    assert paths(against, stroke_dasharray="7 4") == []
    assert not any("loss limit" in text for text in texts(against))
    nothing = ElementTree.fromstring(equity_svg(Story(), 200_000))
    assert texts(nothing) == ["The journal has no marks of the day's P&L, so there is no curve."]


def test_equity_of_one_mark_is_a_dot_in_the_middle() -> None:
    curve, against = panels_of(equity_svg(Story(equity=((OPEN_MS, -300),)), 200_000))
    assert "worst -₹3.00 at 09:15:00" in texts(curve)
    assert list(clock(against)) == ["09:15"]
    (dot,) = paths(curve, fill=LOSS)
    assert 400 < numbers(dot.get("d"))[0] < 600


def test_halts_outside_the_marks_are_on_the_chart_and_one_moment_is_one_line() -> None:
    early, late = OPEN_MS - 10 * MINUTE, OPEN_MS + 7 * HOUR
    curve, _ = panels_of(equity_svg(Story(equity=MARKS, halts_ms=(early, early + 1, late)), 0))
    down = [numbers(path.get("d"))[0] for path in paths(curve, stroke_dasharray="2 3") if "V" in str(path.get("d"))]
    assert len(down) == 2
    assert all(72 <= x <= 960 for x in down)
    assert "P&L after charges (halted at 09:05:00, 16:15:00)" in texts(curve)


def test_symbol_has_its_closes_and_its_fills_by_shape_and_colour_at_their_prices() -> None:
    fills = [
        FillPoint(ts_ms=OPEN_MS + 30 * MINUTE, symbol="TCS", side="BUY", quantity=7, price_paise=391_505),
        FillPoint(ts_ms=OPEN_MS + 90 * MINUTE, symbol="TCS", side="SELL", quantity=7, price_paise=401_000),
        FillPoint(ts_ms=OPEN_MS + 91 * MINUTE, symbol="TCS", side="BUY", quantity=1, price_paise=389_000),
    ]
    (panel,) = panels_of(symbol_svg("TCS", PRICES, fills))
    place = ruler(panel, clock(panel))
    assert {"TCS", "close", "buy (2)", "sell (1)"} <= set(texts(panel))
    curve = next(path for path in paths(panel, stroke=LINE) if len(str(path.get("d"))) > 100)
    wanted = [value for at in zip(PRICES.stamps_ms, CLOSES, strict=True) for value in place(*at)]
    assert numbers(curve.get("d")) == pytest.approx(wanted, abs=0.2)
    for colour, up, own in ((GAIN, True, [fills[0], fills[2]]), (LOSS, False, [fills[1]])):
        marks = [path for path in paths(panel, fill=colour) if path.find(f"{NAME}title") is not None]
        assert len(paths(panel, fill=colour)) == len(marks) + 1  # the legend's
        for mark, fill in zip(marks, own, strict=True):
            x, y = place(fill.ts_ms, fill.price_paise)
            assert numbers(mark.get("d"))[:2] == pytest.approx([x, y - 6 if up else y + 6], abs=0.2)
            assert ("l5.5 10h" if up else "l5.5 -10h") in str(mark.get("d"))
    said = {says(path) for path in panel.iter(f"{NAME}path") if path.find(f"{NAME}title") is not None}
    assert said == {
        "09:45:00 BUY 7 at ₹3,915.05",
        "10:45:00 SELL 7 at ₹4,010.00",
        "10:46:00 BUY 1 at ₹3,890.00",
    }


def test_symbol_with_too_many_fills_draws_some_and_says_how_many_there_were() -> None:
    fills = [FillPoint(ts_ms=OPEN_MS + n * 1_000, symbol="A", side="BUY", quantity=1, price_paise=390_000) for n in range(910)]
    (panel,) = panels_of(symbol_svg("A", PRICES, fills))
    drawn = len(paths(panel, fill=GAIN)) - 1
    assert 100 < drawn <= FILLS_DRAWN_MAX
    assert f"buy (910, {drawn} drawn)" in texts(panel)


def test_symbol_without_prices_or_with_one_is_drawn_all_the_same() -> None:
    nothing = ElementTree.fromstring(symbol_svg("A<B", Prices(stamps_ms=(), closes=()), []))
    assert texts(nothing) == ["A<B: there are no prices, so there is no curve."]
    (panel,) = panels_of(symbol_svg("A", Prices(stamps_ms=(OPEN_MS,), closes=(5,)), []))
    assert {"A", "09:15", "₹0.00"} <= set(texts(panel))


def test_amounts_of_crores_and_long_names_have_their_room() -> None:
    curve, against = panels_of(equity_svg(Story(equity=((OPEN_MS, 0), (OPEN_MS + HOUR, -3))), 1_234_567_890_000))
    label = max(against.iter(f"{NAME}text"), key=lambda text: len(text.text or "") * (text.get("text-anchor") == "end"))
    assert label.text == "-₹15,00,00,00,000"
    assert float(label.get("x", "")) - 7 * len(label.text) >= 0
    first = [numbers(path.get("d"))[0] for path in (paths(curve, stroke=LINE) + paths(against, stroke=LINE))]
    assert first[0] == first[1]  # one left edge for both panels
    (title,) = [text for text in texts(panels_of(symbol_svg("N" * 500, PRICES, []))[0]) if text.startswith("N")]
    assert title == "N" * 59 + "…"


@pytest.mark.parametrize("name", [EVIL, "A\x00B\x1b", "]]>", "<!--", "&lt;", "\ud800"])
def test_every_foreign_text_is_text_and_nothing_else(name: str) -> None:
    svg = symbol_svg(name, PRICES, [])
    svg.encode("utf-8")
    root = ElementTree.fromstring(svg)
    known = {"svg", "g", "rect", "path", "text", "title"}
    assert {element.tag.removeprefix(NAME) for element in root.iter()} <= known
    shown = re.sub("[\x00\x1b\ud800]", "\ufffd", name)
    assert (shown if len(shown) <= 60 else shown[:59] + "…") in texts(root)


def test_nothing_is_fetched_named_or_styled_so_that_charts_leave_each_other_alone() -> None:
    fills = [FillPoint(ts_ms=OPEN_MS + MINUTE, symbol="A", side="BUY", quantity=7, price_paise=391_505)]
    for svg in (equity_svg(DAY, 200_000), equity_svg(Story(), 0), symbol_svg("A", PRICES, fills)):
        root = ElementTree.fromstring(svg)
        attributes = {name for element in root.iter() for name in element.attrib}
        assert not attributes & {"id", "class", "style", "href", "src"}
        assert not any(name.startswith(("on", "{")) for name in attributes)
        assert "http" not in svg.replace('xmlns="http://www.w3.org/2000/svg"', "", 1)
        assert "url(" not in svg
        assert "<!--" not in svg


def crowded() -> tuple[dict[str, Any], Story]:
    """A session with a limit, halts and symbols that were traded equally often."""
    report, _ = session()
    names = ("E", "B", "D", "A", "C")
    fills = [FillPoint(ts_ms=OPEN_MS + MINUTE, symbol=name, side="BUY", quantity=7, price_paise=391_505) for name in names]
    return report, Story(equity=MARKS, halts_ms=HALTS, fills=tuple(fills), prices=dict.fromkeys(names, PRICES))


def test_drawing_gives_equal_bytes_in_every_process() -> None:
    script = (
        "import sys; from tests.unit.operations.test_charts import crowded;"
        "from velox_core.operations.drawing import draw; made = draw(*crowded());"
        "sys.stdout.buffer.write((made.page + made.picture).encode())"
    )
    here = draw(*crowded())
    for seed in ("0", "1"):
        there = subprocess.run(
            [sys.executable, "-c", script], env={**os.environ, "PYTHONHASHSEED": seed}, check=True, capture_output=True
        )
        assert there.stdout.decode() == here.page + here.picture
    assert [here.page.index(f">{name}</text>") for name in "ABCDE"] == sorted(
        here.page.index(f">{name}</text>") for name in "ABCDE"
    )


def test_large_day_gives_a_light_page_that_still_tells_the_worst() -> None:
    report, _ = session()
    equity = [(OPEN_MS + n * 1_000, 37 * n % 1_009 - 500) for n in range(22_500)]
    equity[11_111] = (equity[11_111][0], -123_456)
    names = [f"S{number:02d}" for number in range(50)]
    fills = [
        FillPoint(ts_ms=OPEN_MS + n * MINUTE, symbol=name, side="BUY", quantity=1, price_paise=390_000)
        for name in names
        for n in range(20)
    ]
    made = draw(report, Story(equity=tuple(equity), fills=tuple(fills), prices=dict.fromkeys(names, PRICES)))
    assert len(made.page) < 400_000
    assert made.picture in made.page
    curve, _ = panels_of(made.picture)
    assert "worst -₹1,234.56 at 12:20:11" in texts(curve)
    (line,) = paths(curve, stroke=LINE)
    (dot,) = paths(curve, fill=LOSS)
    assert 400 < str(line.get("d")).count("V") <= 1_600
    lowest = max(float(y) for y in re.findall(r"V([\d.]+)", str(line.get("d"))))
    assert lowest == numbers(dot.get("d"))[1]
