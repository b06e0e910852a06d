"""A trading day that Prefect's own schedules run, in compressed time, and what a browser then shows of it.

Both look at one day on one server: bringing them up costs more than everything that is asked here.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.fakes.prefect_account import PrefectAccount
from tests.fakes.prefect_server import ROOT, PrefectServer

SHIPPED = ROOT / "config" / "system_simulated.yaml"
DAY = "2024-01-15"
RUN_ID = f"{DAY}-1"
SESSION_SECONDS = 20.0  # so long the compressed session lasts
SPEED = 375 * 60 / SESSION_SECONDS
ORDER = ("market-open", "intraday", "end-of-day")
PAUSE_SECONDS_MAX = 75.0
PAGE_MS_MAX = 120_000.0
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def account(prefect_server: PrefectServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectAccount]:
    """An account with the shipped configuration and the real day of the repository, its deployments served and scheduled."""
    made = PrefectAccount(prefect_server, tmp_path_factory.mktemp("account"))
    text = SHIPPED.read_text(encoding="utf-8").replace("data/tcs", f"{ROOT}/data/tcs")
    made.config.write_text(f"{text}\n  prefect: {{api_url: {prefect_server.url}/api}}\n", encoding="utf-8")
    made.run = made.var / "replay" / "primary" / RUN_ID
    before = time.monotonic()
    made.serve()
    pause = min(PAUSE_SECONDS_MAX, 15.0 + 2.0 * (time.monotonic() - before))  # a slow machine is given more
    first = datetime.now(UTC) + timedelta(seconds=pause)
    for number, deployment in enumerate(ORDER):
        extra = {"speed": SPEED} if deployment == "intraday" else {}
        at = first + timedelta(seconds=number * pause + (SESSION_SECONDS if number == 2 else 0.0))
        schedule(prefect_server, deployment, at, date=DAY, **extra)
    yield made
    made.end()


def schedule(server: PrefectServer, deployment: str, at: datetime, **parameters: object) -> None:
    """Have the server's scheduler start a deployment once, by a schedule beside the shipped ones."""
    found = server.deployment(deployment)
    assert found is not None
    once = {"rrule": f"DTSTART:{at:%Y%m%dT%H%M%S}\nRRULE:FREQ=DAILY;COUNT=1", "timezone": "UTC"}
    body = [{"active": True, "schedule": once, "slug": "compressed", "parameters": parameters}]
    server.api("POST", f"/deployments/{found['id']}/schedules", body)


def compressed(server: PrefectServer, deployment: str) -> dict[str, Any] | None:
    """Return the run of a deployment for the compressed day, None while the scheduler has not made it."""
    runs = [run for run in server.flow_runs(deployment) if run["parameters"].get("date") == DAY]
    return runs[0] if runs else None


def ended(server: PrefectServer, deployment: str) -> dict[str, Any]:
    """Wait until the run of a deployment for the compressed day has ended, and return it."""
    server.wait_until(lambda: compressed(server, deployment), lambda: server.printed("serve"))
    run = compressed(server, deployment)
    assert run is not None
    server.wait_end(run["id"])
    return server.flow_run(run["id"])


def states(server: PrefectServer, run_id: str) -> list[str]:
    """Return the names of all states that a run went through."""
    found = server.api("GET", f"/flow_run_states/?flow_run_id={run_id}")
    names = [str(state["name"]) for state in sorted(found, key=lambda state: str(state["timestamp"]))]
    return [name for name in names if name != "Submitting"]  # the moment between taking a run up and its process


def test_day_runs_from_its_schedules_without_a_hand(account: PrefectAccount) -> None:
    server = account.server
    runs = [ended(server, deployment) for deployment in ORDER]
    for run in runs:
        assert states(server, run["id"]) == ["Scheduled", "Pending", "Running", "Completed"], server.logs(run["id"])
        assert (run["auto_scheduled"], run["created_by"]["type"]) == (True, "SCHEDULE")
    ends, starts = [run["end_time"] for run in runs], [run["start_time"] for run in runs]
    assert all(end < start for end, start in zip(ends, starts[1:], strict=False))
    assert [run["name"] for run in runs] == [f"{deployment} {DAY} simulated" for deployment in ORDER]
    summary = account.read("summary.json")
    assert (summary["flat"], summary["exit_code"], summary["trade_count"] > 0) == (True, 0, True)
    assert account.held() == {}
    assert (account.var / "reports" / "primary" / f"{RUN_ID}.html").exists()
    asked = {"filter": {"event": {"prefix": ["velox."]}, "resource": {"id": ["velox.account.simulated.primary"]}}}
    told = {event["event"]: event for event in server.api("POST", "/events/filter", asked)["events"]}
    assert set(told) - {"velox.heartbeat"} == {"velox.armed", "velox.ended", "velox.flat", "velox.backup"}
    for name, flow_run in (("velox.armed", runs[0]), ("velox.ended", runs[1]), ("velox.backup", runs[2])):
        related = {one["prefect.resource.id"] for one in told[name]["related"]}
        assert f"prefect.flow-run.{flow_run['id']}" in related
    assert told["velox.armed"]["payload"]["checks"] > 0
    assert (told["velox.backup"]["payload"]["verified"], told["velox.flat"]["payload"]["said_by"]) == (True, "broker")


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed (Debian: apt-get install chromium)")
def test_browser_shows_the_runs_the_artifacts_and_a_form_that_serves_in_an_emergency(account: PrefectAccount) -> None:
    from playwright.sync_api import sync_playwright

    server = account.server
    for deployment in ORDER:
        ended(server, deployment)
    flatten = server.deployment("emergency-flatten")
    assert flatten is not None
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1200, "height": 1100})
        page.set_default_timeout(PAGE_MS_MAX)
        page.goto(f"{server.url}/runs")
        for deployment in ORDER:
            page.get_by_text(f"{deployment} {DAY} simulated").first.wait_for()
        page.goto(f"{server.url}/artifacts")
        for key in {str(artifact["key"]) for artifact in server.api("POST", "/artifacts/filter", {}) if artifact["key"]}:
            page.get_by_text(key, exact=True).first.wait_for()
        page.goto(f"{server.url}/deployments/deployment/{flatten['id']}/run")
        page.get_by_text("kept in the halt record").first.wait_for()
        form = page.locator("body").inner_text()
        browser.close()
    shown = flatten["parameter_openapi_schema"]["properties"]
    assert {"config", "date", "run", "reason", "by"} <= set(shown)
    for name, parameter in shown.items():
        assert name in form
        assert str(parameter["description"]).splitlines()[0] in form
    assert 'Property is type "None"' not in form
