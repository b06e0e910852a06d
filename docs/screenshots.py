"""Make the pictures of README and docs again: `make screenshots`.

- Everything shown comes from one real day, TCS on 2024-01-15: run by `velox day` in a folder of its own, and for Prefect's
  pages once more by its schedules, in compressed time, under `velox up` in another one.
- The live screen is drawn from a status that the engine published while it held a position; the pages are photographed in
  Chromium. Nothing is edited.
"""

from __future__ import annotations

import io
import itertools
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Final

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
UI_WIDTH, UI_COLOURS, UI_SECONDS, UI_TRIES = 1200, 64, 60, 4
SETTLES_MS: Final = 1_500  # a page whose requests have been answered still draws
SCHEDULED: Final = ("market-open", "intraday", "end-of-day")
NEXT_SECONDS: Final = 45.0  # until a run's time; the scheduler must have seen it before
RUN_SECONDS_MAX: Final = 300.0
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
        status = _run_day(environ, places, settings.account)
        screen = live_screen(
            status, age_seconds=0.1, width=WIDTH, height=30, hint="Ctrl-C asks the day to end; a second one leaves this window."
        )
        _svg(PICTURES / "live.svg", f"velox day --date {DAY} --speed {SPEED}", screen)
        recorded = find_run(settings, places, on=DAY)
        _explain(settings, recorded)
        page = places.var / "reports" / settings.account / f"{recorded.run.run_id}.html"
        _photograph(browser, page, PICTURES / "report.png")
        _end_redis(places)
    with tempfile.TemporaryDirectory(prefix="velox-") as folder:
        _prefect_pictures(browser, Path(folder))
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


def _prefect_pictures(browser: str, folder: Path) -> None:
    """Bring everything up on a copy of the configuration, have the schedules run the day, and photograph it."""
    for name in ("config", "data"):
        shutil.copytree(ROOT / name, folder / name)
    port = _free_port()
    environ = {**os.environ, "VELOX__VAR": str(folder / "var"), "VELOX__PREFECT__PORT": str(port)}
    config = ["--config", str(folder / "config" / "system_simulated.yaml")]
    server = f"http://127.0.0.1:{port}"
    try:
        subprocess.run([*VELOX, "up", "--detach", *config], cwd=ROOT, env=environ, check=True, stdout=subprocess.DEVNULL)
        for flow in SCHEDULED:
            _run_by_schedule(server, flow)
        _photograph_prefect(browser, server)
    finally:
        subprocess.run([*VELOX, "down", *config], cwd=ROOT, env=environ, check=True, stdout=subprocess.DEVNULL)


def _ask(server: str, method: str, path: str, body: object) -> Any:
    answer = httpx.request(method, f"{server}/api/{path}", json=body, timeout=UI_SECONDS)
    return answer.raise_for_status().json()


def _deployment(server: str, name: str) -> dict[str, Any]:
    (found,) = _ask(server, "POST", "deployments/filter", {"deployments": {"name": {"any_": [name]}}})
    return dict(found)


def _run_by_schedule(server: str, flow: str) -> None:
    """Have the server's scheduler start a deployment for the day in a moment, by one more schedule, and wait for its end."""
    identity = _deployment(server, flow)["id"]
    asked = {"date": str(DAY)} | ({"speed": float(SPEED)} if flow == "intraday" else {})
    until, state = time.monotonic() + RUN_SECONDS_MAX, ""
    for attempt in itertools.count(1):  # a busy scheduler may see a time only when it has passed
        at = datetime.now(UTC) + timedelta(seconds=NEXT_SECONDS)
        once = {"rrule": f"DTSTART:{at:%Y%m%dT%H%M%S}\nRRULE:FREQ=DAILY;COUNT=1", "timezone": "UTC"}
        schedule = {"active": True, "schedule": once, "slug": f"picture-{attempt}", "parameters": asked}
        _ask(server, "POST", f"deployments/{identity}/schedules", [schedule])
        seen_until = time.monotonic() + NEXT_SECONDS
        while not state and time.monotonic() < seen_until:
            time.sleep(1.0)
            state = _state(server, identity)
        if state or time.monotonic() > until:
            break
    while state not in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
        if time.monotonic() > until:
            sys.exit(f"screenshots: the scheduled run of {flow} did not end, it is {state or 'absent'}")
        time.sleep(1.0)
        state = _state(server, identity)
    if state != "COMPLETED":
        sys.exit(f"screenshots: the scheduled run of {flow} ended {state}")


def _state(server: str, deployment: str) -> str:
    """Return the state of a deployment's run for the day, '' while the scheduler has made none."""
    of_deployment = {"deployments": {"id": {"any_": [deployment]}}}
    runs = _ask(server, "POST", "flow_runs/filter", of_deployment)
    return next((str(run["state_type"]) for run in runs if run["parameters"].get("date") == str(DAY)), "")


def _photograph_prefect(browser: str, server: str) -> None:
    """Take Prefect's pages of the day: its runs, what it keeps, the report among it, and the form for an emergency."""
    from playwright.sync_api import sync_playwright

    artifacts = _ask(server, "POST", "artifacts/latest/filter", {})
    report = next(str(artifact["latest_id"]) for artifact in artifacts if str(artifact["key"]).startswith("session"))
    flatten = _deployment(server, "emergency-flatten")["id"]
    pages = {  # where, what is there once the page has come, and how high the picture is
        "prefect-day": ("/runs", f"market-open {DAY} simulated", 1050),
        "prefect-artifacts": ("/artifacts", "session-simulated", 480),
        "prefect-report": (f"/artifacts/artifact/{report}", "Net P&L", 1250),
        "prefect-emergency": (f"/deployments/deployment/{flatten}/run", "kept in the halt record", 1260),
    }
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        window = chromium.new_page(viewport={"width": UI_WIDTH, "height": UI_WIDTH})
        for name, (path, text, height) in pages.items():
            window.set_viewport_size({"width": UI_WIDTH, "height": height})
            _open(window, server + path, text)
            _save_small(window.screenshot(), PICTURES / f"{name}.png")
        chromium.close()


def _open(window: Any, address: str, text: str) -> None:
    """Open a page and wait until a text is on it and every picture is drawn; a page that got no answer is asked for again."""
    from playwright.sync_api import TimeoutError as NotThere

    for _ in range(UI_TRIES):
        try:
            window.goto(address)
            window.get_by_text(text).first.wait_for(timeout=UI_SECONDS * 1_000)
            window.wait_for_load_state("networkidle", timeout=UI_SECONDS * 1_000)
            window.wait_for_function("[...document.images].every(picture => picture.complete && picture.naturalWidth > 0)")
            window.wait_for_timeout(SETTLES_MS)
        except NotThere:
            continue
        return
    sys.exit(f"screenshots: {address} does not show {text!r}, asked for {UI_TRIES} times")


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
