"""Make the pictures of README and docs again: `make screenshots`.

- Everything shown comes from one real day, TCS on 2024-01-15, run by `velox day` in a folder of its own.
- The live screen is drawn from a status that the engine published while it held a position; the pages, Prefect's own among
  them, are photographed in Chromium. Nothing is edited.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Final

import httpx
from rich.console import Console, RenderableType

from velox_core.cli.explain import SHOWN_MAX
from velox_core.cli.explain_view import show_explanation
from velox_core.cli.live_view import live_screen
from velox_core.domain.scope import Scope
from velox_core.domain.time import ist_clock_text
from velox_core.operations.explain import DecisionFilter, explain_run
from velox_core.operations.recorded import RecordedRun, find_run
from velox_core.operations.status import Status, read_status
from velox_core.runs import run_folder
from velox_core.settings import Paths, Settings, load_settings, paths

ROOT: Final = Path(__file__).resolve().parents[1]
PICTURES: Final = ROOT / "docs" / "pictures"
DAY: Final = date(2024, 1, 15)
SPEED: Final = "900"
SHOWN_FROM: Final = "12:45:00"
WIDTH, PAGE_WIDTH, PAGE_HEIGHT = 96, 1100, 1010
BYTES_MAX: Final = 300_000
DAY_SECONDS_MAX: Final = 300.0
UI_WIDTH, UI_HEIGHT, UI_COLOURS, UI_SECONDS = 1200, 1200, 64, 120
VELOX: Final = (sys.executable, "-m", "velox_core.cli")
CHROMIUMS: Final = ("chromium", "chromium-browser", "google-chrome")
FONT_FACE: Final = re.compile(r"@font-face \{.*?\}", re.DOTALL)  # they would be fetched from elsewhere


def main() -> None:
    """Run the day and write the pictures. Ends with an error that says what is missing."""
    browser = next(filter(None, map(shutil.which, CHROMIUMS)), None)
    if browser is None:
        sys.exit(f"screenshots: none of {', '.join(CHROMIUMS)} is installed (Debian: apt-get install chromium)")
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="velox-screenshots-") as folder:
        environ = {**os.environ, "VELOX__VAR": folder, "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180"}
        settings = load_settings(None, environ)
        places = paths(environ, settings.root)
        environ["VELOX__PREFECT__PORT"] = str(_free_port())
        try:
            subprocess.run([*VELOX, "up", "--detach"], cwd=ROOT, env=environ, check=True, stdout=subprocess.DEVNULL)
            status = _run_day(environ, places, settings.account)
            _photograph_prefect(browser, f"http://127.0.0.1:{environ['VELOX__PREFECT__PORT']}")
        finally:
            subprocess.run([*VELOX, "down"], cwd=ROOT, env=environ, check=True, stdout=subprocess.DEVNULL)
        screen = live_screen(
            status, age_seconds=0.1, width=WIDTH, height=30, hint="Ctrl-C asks the day to end; a second one leaves this window."
        )
        _svg(PICTURES / "live.svg", f"velox day --date {DAY} --speed {SPEED}", screen)
        recorded = find_run(settings, places, on=DAY)
        _explain(settings, recorded)
        page = places.var / "reports" / settings.account / f"{recorded.run.run_id}.html"
        _photograph(browser, page, PICTURES / "report.png")
        _end_redis(places)
    for picture in sorted(PICTURES.iterdir()):
        size = picture.stat().st_size
        print(f"{picture.relative_to(ROOT)}  {size:,} bytes")
        if size > BYTES_MAX:
            sys.exit(f"screenshots: {picture.name} is larger than {BYTES_MAX:,} bytes")


def _run_day(environ: dict[str, str], places: Paths, account: str) -> Status:
    """Run the day and return the first status from SHOWN_FROM on that shows an open position."""
    command = [*VELOX, "day", "--plain", "--date", str(DAY), "--speed", SPEED]
    run = run_folder(places.var, Scope(broker_type="simulated", account=account), f"{DAY}-1")
    shown: Status | None = None
    with subprocess.Popen(command, cwd=ROOT, env=environ, stdout=subprocess.DEVNULL) as process:
        until = time.monotonic() + DAY_SECONDS_MAX
        while process.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
            status = read_status(run.folder) if shown is None else None
            if status is not None and status.positions and ist_clock_text(status.number("engine_ms")) >= SHOWN_FROM:
                shown = status
        if process.wait(timeout=DAY_SECONDS_MAX) or shown is None:
            sys.exit(f"screenshots: the day ended with {process.returncode}, status seen: {shown is not None}")
    return shown


def _explain(settings: Settings, recorded: RecordedRun) -> None:
    """Draw the day's first refusal, layer by layer."""
    every = explain_run(settings, recorded, DecisionFilter(), shown_max=SHOWN_MAX)
    refused = next(str(decision.id) for decision in every.decisions if not decision.approved)
    explanation = explain_run(settings, recorded, DecisionFilter(identity=refused), shown_max=1)
    console = _recording()
    show_explanation(console, explanation, in_full=True)
    _save(console, PICTURES / "explain.svg", f"velox explain --date {DAY} --id {refused}")


def _svg(path: Path, title: str, picture: RenderableType) -> None:
    console = _recording()
    console.print(picture)
    _save(console, path, title)


def _recording() -> Console:
    return Console(record=True, width=WIDTH, highlight=False, file=io.StringIO())


def _save(console: Console, path: Path, title: str) -> None:
    path.write_text(FONT_FACE.sub("", console.export_svg(title=title, unique_id=path.stem)), encoding="utf-8")


def _photograph(browser: str, page: Path, picture: Path) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        window = chromium.new_page(viewport={"width": PAGE_WIDTH, "height": PAGE_HEIGHT})
        window.goto(page.as_uri())
        window.screenshot(path=picture)
        chromium.close()


def _photograph_prefect(browser: str, server: str) -> None:
    """Take Prefect's pages of the day: its runs, what they keep, the report among it, and the form for an emergency."""
    from playwright.sync_api import sync_playwright

    artifacts = httpx.post(f"{server}/api/artifacts/latest/filter", json={}).raise_for_status().json()
    report = next(str(artifact["latest_id"]) for artifact in artifacts if str(artifact["key"]).startswith("session"))
    named = {"deployments": {"name": {"any_": ["emergency-flatten"]}}}
    (flatten,) = httpx.post(f"{server}/api/deployments/filter", json=named).raise_for_status().json()
    pages = {  # where, and what is there once the page has come
        "prefect-runs": ("/runs", f"end-of-day {DAY} simulated"),
        "prefect-artifacts": ("/artifacts", "session"),
        "prefect-report": (f"/artifacts/artifact/{report}", "Net"),
        "prefect-emergency": (f"/deployments/deployment/{flatten['id']}/run", "kept in the halt record"),
    }
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        window = chromium.new_page(viewport={"width": UI_WIDTH, "height": UI_HEIGHT})
        window.set_default_timeout(UI_SECONDS * 1_000)
        for name, (path, text) in pages.items():
            window.goto(server + path)
            window.get_by_text(text).first.wait_for()
            window.wait_for_load_state("networkidle")
            _save_small(window.screenshot(), PICTURES / f"{name}.png")
        chromium.close()


def _save_small(picture: bytes, path: Path) -> None:
    from PIL import Image

    Image.open(io.BytesIO(picture)).convert("RGB").quantize(UI_COLOURS).save(path, optimize=True)


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def _end_redis(places: Paths) -> None:
    from velox_core.redis_server import EmbeddedRedis

    EmbeddedRedis(places.var / "redis").stop()


if __name__ == "__main__":
    main()
