"""The report's page: one file, nothing loaded, every text escaped, equal bytes for equal values."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

from velox_core.domain.events import EventKind
from velox_core.operations.drawing import SYMBOL_CHARTS_MAX, draw
from velox_core.operations.report import build_report
from velox_core.operations.session_sections import report_markdown, report_sections
from velox_core.operations.session_story import FillPoint, Prices, Story, build_story

from .test_report import FACTS, OPEN_MS, Journal

EVIL = '<script>alert("x")</script><img src=https://example.com/x.png> & $\\alpha$ | end'
MINUTE = 60_000


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def session() -> tuple[dict[str, Any], Story]:
    journal = Journal()
    journal.intent("1", "ENTRY", EVIL)
    journal.fill("1", "BUY", 1, 390_000, position=1, minute=2, charges=90)
    journal.add(EventKind.MARK, {"realised": 0, "open": -5_000, "charges": 90}, 3)
    journal.intent("2", "EXIT", EVIL)
    journal.fill("2", "SELL", 1, 389_000, position=0, minute=4, realised=-1_000, charges=90)
    journal.add(EventKind.MARK, {"realised": -1_000, "open": 0, "charges": 180}, 4)
    journal.add(EventKind.HALT, {"halt_id": "h", "kind": "MANUAL", "reason": EVIL, "by": EVIL}, 5)
    report = build_report(journal.events, FACTS | {"synthetic": True, "source": EVIL, "environment": EVIL})
    prices = {"TCS": Prices(stamps_ms=tuple(OPEN_MS + n * MINUTE for n in range(1, 8)), closes=(390_000,) * 7)}
    return report, build_story(journal.events, prices)


def test_page_of_equal_journals_is_equal_to_the_byte() -> None:
    first, second = (draw(*session()) for _ in range(2))
    assert first == second
    assert first.picture in first.page


def test_page_escapes_foreign_text_and_loads_nothing() -> None:
    page = draw(*session()).page
    parser = Tags()
    parser.feed(page)
    names = {tag for tag, _ in parser.tags}
    assert not names & {"script", "iframe", "img", "object", "embed", "form"}
    assert page.count("&lt;script&gt;") >= 4
    links = [value for _, attributes in parser.tags for name, value in attributes.items() if name in ("src", "href")]
    assert all(value is not None and value.startswith(("#", "data:")) for value in links if value)
    assert not re.search(r"url\((?!#|&quot;#)", page)
    assert "default-src &#x27;none&#x27;" in page


def test_page_has_every_section_the_figures_and_both_charts() -> None:
    report, story = session()
    page = draw(report, story).page
    for section in report_sections(report, story):
        assert f"<h2>{section.title.replace('&', '&amp;')}</h2>" in page
    assert page.count("<svg") == 2
    for text in (
        "-₹11.80",
        "worst -₹50.90 at 09:18:00",
        "loss limit -₹2,000.00",
        "SYNTHETIC DATA",
        "Trading was halted",
        "halted at 09:20:00",
    ):
        assert text in page


def test_page_draws_the_most_traded_symbols_and_says_how_many_it_leaves_out() -> None:
    report, story = session()
    names = [f"S{number:02d}" for number in range(SYMBOL_CHARTS_MAX + 3)]
    fills = [FillPoint(ts_ms=OPEN_MS, symbol=name, side="BUY", quantity=1, price_paise=100) for name in [*names, names[-1]]]
    price = Prices(stamps_ms=(OPEN_MS, OPEN_MS + MINUTE), closes=(100, 101))
    crowded = Story(equity=story.equity, fills=tuple(fills), prices=dict.fromkeys(names, price))
    page = draw(report, crowded).page
    assert page.count("<svg") == SYMBOL_CHARTS_MAX + 1
    assert "3 more symbols were traded" in page
    assert page.index(names[-1]) < page.index(names[0])


def test_page_without_prices_says_why_and_keeps_the_rest() -> None:
    report, _ = session()
    page = draw(report, Story(no_prices="the file <moved>")).page
    assert "No price chart: the file &lt;moved&gt;" in page
    assert "Slippage</h2><p>Not known" in page


def test_markdown_of_a_report_escapes_tags_and_has_the_storys_sections() -> None:
    report, story = session()
    text = report_markdown(report, story, page="var/reports/x.html")
    assert "<script" not in text
    for part in ("## Slippage", "## Timeline", "## Data quality", "Longest outage", "`var/reports/x.html`"):
        assert part in text
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    assert all(len(re.findall(r"(?<!\\)\|", line)) in (3, 4, 5, 6, 7, 8, 9, 12) for line in lines)


def test_sections_show_expectations_where_the_report_has_them() -> None:
    row = {"strategy": "orb", "verdict": "BELOW", "net_paise": -9_000, "low_paise": -500, "high_paise": 900, "days": 20}
    sections = {s.title: s for s in report_sections({"expectations": [row]})}
    assert sections["P&L against expectations"].rows == (("orb", "BELOW", "-₹90.00", "-₹5.00", "₹9.00", "20", ""),)
    young = report_sections({"expectations": [{**row, "verdict": "TOO_FEW_DAYS", "low_paise": 0, "high_paise": 0}]})
    assert {s.title: s for s in young}["P&L against expectations"].rows[0][3:5] == ("-", "-")  # a band of nothing is none
    assert "P&L against expectations" not in {s.title for s in report_sections({})}


def test_expectation_that_is_not_there_is_told_in_words_with_what_to_do() -> None:
    rows = [{"strategy": name, "verdict": name} for name in ("MISSING", "STALE", "TOO_FEW_DAYS", "WITHIN")]
    section = {s.title: s for s in report_sections({"expectations": rows})}["P&L against expectations"]
    assert [row[1] for row in section.rows] == [
        "not on record",
        "out of date: the strategy or a limit has changed",
        "not judged: too few replayed days",
        "WITHIN",
    ]
    assert "velox strategies expect" in section.note
    judged = {s.title: s for s in report_sections({"expectations": rows[3:]})}
    assert judged["P&L against expectations"].note == ""
