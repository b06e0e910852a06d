"""The report's page in a real browser: it opens from disk, asks for nothing else, and shows headings and charts."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.unit.operations.test_session_page import EVIL, session
from velox_core.operations.drawing import draw
from velox_core.operations.session_sections import report_sections

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PAGE_MS_MAX = 240_000.0

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed (Debian: apt-get install chromium)"),
]


def look_at(page: Path) -> dict[str, Any]:
    """Open a page and return what the browser says of it: requests, console lines, errors, headings, charts, text."""
    from playwright.sync_api import sync_playwright

    seen: dict[str, Any] = {"requests": [], "console": [], "errors": [], "dialogs": []}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"], timeout=PAGE_MS_MAX)
        window = browser.new_page(viewport={"width": 1100, "height": 900})
        window.set_default_timeout(PAGE_MS_MAX)
        window.on("request", lambda request: seen["requests"].append(request.url))
        window.on("console", lambda line: seen["console"].append(line.text))
        window.on("pageerror", lambda error: seen["errors"].append(str(error)))
        window.on("dialog", lambda dialog: (seen["dialogs"].append(dialog.message), dialog.dismiss()))
        window.goto(page.as_uri())
        seen["headings"] = window.locator("h1, h2").all_inner_texts()
        seen["charts"] = [box for chart in window.locator("svg").all() if (box := chart.bounding_box()) is not None]
        seen["text"] = window.locator("main").inner_text()
        seen["scripts"] = window.locator("script").count()
        seen["width"] = window.evaluate("document.documentElement.scrollWidth")
        browser.close()
    return seen


def test_report_page_in_a_browser_loads_nothing_runs_nothing_and_shows_everything(tmp_path: Path) -> None:
    report, story = session()
    page = tmp_path / "session.html"
    page.write_text(draw(report, story).page, encoding="utf-8")
    seen = look_at(page)
    assert seen["requests"] == [page.as_uri()]
    assert (seen["console"], seen["errors"], seen["dialogs"], seen["scripts"]) == ([], [], [], 0)
    assert {section.title for section in report_sections(report, story)} <= set(seen["headings"])
    assert len(seen["charts"]) == 2
    assert all(chart["width"] > 500 and chart["height"] > 100 for chart in seen["charts"])
    assert EVIL in seen["text"]  # a strategy's reason is shown as it is, and is nothing but text
    assert seen["width"] <= 1100
