"""A trading day that Prefect's own schedules run, in compressed time, and what a browser then shows of it.

Both look at one day on one server: bringing them up costs more than everything that is asked here.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.fakes.prefect_account import PrefectAccount
from tests.fakes.prefect_server import FINAL_TYPES, ROOT, PrefectServer

SHIPPED = ROOT / "config" / "system_simulated.yaml"
DAY = "2024-01-15"
RUN_ID = f"{DAY}-1"
SESSION_SECONDS = 12.0  # so long the compressed session lasts
SPEED = 375 * 60 / SESSION_SECONDS
ORDER = ("market-open", "intraday", "end-of-day")
PAUSE_SECONDS = 12.0  # the scheduler looks every five seconds at what was changed
TRIES_MAX = 5
GRACE_SECONDS = 20.0
PAGE_MS_MAX = 240_000.0
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def account(prefect_server: PrefectServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectAccount]:
    """An account with the shipped configuration and the real day of the repository, its deployments served."""
    made = PrefectAccount(prefect_server, tmp_path_factory.mktemp("account"))
    text = SHIPPED.read_text(encoding="utf-8").replace("data/tcs", f"{ROOT}/data/tcs")
    made.config.write_text(f"{text}\n  prefect: {{api_url: {prefect_server.url}/api}}\n", encoding="utf-8")
    made.run = made.var / "replay" / "primary" / RUN_ID
    made.serve()
    yield made
    made.end()


@pytest.fixture(scope="module")
def runs(account: PrefectAccount) -> list[dict[str, Any]]:
    """The runs of the day, each by a schedule of its own, the next one set when the one before has ended.

    Hours lie between the shipped ones; a fixed number of seconds would be too few on a busy machine, and too many on any other.
    """
    return [scheduled(account.server, deployment) for deployment in ORDER]


def scheduled(server: PrefectServer, deployment: str) -> dict[str, Any]:
    """Have the server's scheduler start a deployment once, wait for the end of its run, and return that.

    A time that passes before the scheduler has made a run of it is gone; then another one is set, further ahead.
    """
    pause = PAUSE_SECONDS
    for number in range(TRIES_MAX):
        at = datetime.now(UTC) + timedelta(seconds=pause)
        schedule(server, deployment, at, f"compressed-{number}")
        server.wait_until(lambda at=at: has_ended(server, deployment) or is_missed(server, deployment, at))
        if has_ended(server, deployment):
            run = compressed(server, deployment)
            assert run is not None
            return run
        print(f"the scheduler made no run of {deployment} for {at}, try {number + 1} of {TRIES_MAX}")
        pause *= 2
    raise AssertionError(f"no run of {deployment} was made: {server.printed('server')[-3000:]}")


def schedule(server: PrefectServer, deployment: str, at: datetime, slug: str) -> None:
    """Set a schedule for one moment beside the shipped ones."""
    found = server.deployment(deployment)
    assert found is not None
    once = {"rrule": f"DTSTART:{at:%Y%m%dT%H%M%S}\nRRULE:FREQ=DAILY;COUNT=1", "timezone": "UTC"}
    parameters = {"date": DAY} | ({"speed": SPEED} if deployment == "intraday" else {})
    body = [{"active": True, "schedule": once, "slug": slug, "parameters": parameters}]
    server.api("POST", f"/deployments/{found['id']}/schedules", body)
    server.api("PATCH", f"/deployments/{found['id']}", {"paused": False})  # changed: the scheduler looks at it within seconds


def compressed(server: PrefectServer, deployment: str) -> dict[str, Any] | None:
    """Return the run of a deployment for the compressed day, None while the scheduler has not made it."""
    runs = [run for run in server.flow_runs(deployment) if run["parameters"].get("date") == DAY]
    assert len(runs) < 2
    return runs[0] if runs else None


def has_ended(server: PrefectServer, deployment: str) -> bool:
    """Return whether there is a run, and it has ended."""
    run = compressed(server, deployment)
    return run is not None and run["state_type"] in FINAL_TYPES


def is_missed(server: PrefectServer, deployment: str, at: datetime) -> bool:
    """Return whether the moment has passed and there is no run of it, nor will be: a scheduler at work may be about to tell."""
    return datetime.now(UTC) > at + timedelta(seconds=GRACE_SECONDS) and compressed(server, deployment) is None


def states(server: PrefectServer, run_id: str) -> list[str]:
    """Return the names of all states that a run went through."""
    found = server.api("GET", f"/flow_run_states/?flow_run_id={run_id}")
    names = [str(state["name"]) for state in sorted(found, key=lambda state: str(state["timestamp"]))]
    # the moment between taking a run up and its process; and what the server calls a run that a busy machine takes up slowly
    return [name for name in names if name not in ("Submitting", "Late")]


def test_day_runs_from_its_schedules_without_a_hand(account: PrefectAccount, runs: list[dict[str, Any]]) -> None:
    server = account.server
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


def events(server: PrefectServer) -> dict[str, list[dict[str, Any]]]:
    """Return what the server's feed has of the account, by name; heartbeats come or do not, as long as the day lasts."""
    asked = {"filter": {"event": {"prefix": ["velox."]}, "resource": {"id": ["velox.account.simulated.primary"]}}}
    found: dict[str, list[dict[str, Any]]] = {}
    for event in server.api("POST", "/events/filter", asked)["events"]:
        found.setdefault(event["event"], []).append(event)
    found.pop("velox.heartbeat", None)
    return found


def test_events_of_the_day_stand_in_the_servers_feed_with_the_runs_that_told_them(
    account: PrefectAccount, runs: list[dict[str, Any]]
) -> None:
    server = account.server
    wanted = {"velox.armed": 1, "velox.ended": 1, "velox.flat": 2, "velox.backup": 1}

    def counts() -> dict[str, int]:
        return {name: len(found) for name, found in events(server).items()}

    server.wait_until(lambda: sum(counts().values()) >= sum(wanted.values()), lambda: str(counts()))  # the last leave late
    told = events(server)
    assert counts() == wanted
    for name, flow_run in (("velox.armed", runs[0]), ("velox.ended", runs[1]), ("velox.backup", runs[2])):
        related = {one["prefect.resource.id"] for one in told[name][0]["related"]}
        assert f"prefect.flow-run.{flow_run['id']}" in related
    assert told["velox.armed"][0]["payload"]["checks"] > 0
    assert told["velox.backup"][0]["payload"]["verified"] is True
    assert {event["payload"]["said_by"] for event in told["velox.flat"]} == {"engine", "broker"}


@pytest.mark.usefixtures("runs")
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed (Debian: apt-get install chromium)")
def test_browser_shows_the_runs_the_artifacts_and_a_form_that_serves_in_an_emergency(account: PrefectAccount) -> None:
    from playwright.sync_api import sync_playwright

    server = account.server
    flatten = server.deployment("emergency-flatten")
    assert flatten is not None
    artifacts = server.api("POST", "/artifacts/latest/filter", {})
    report = next(str(artifact["latest_id"]) for artifact in artifacts if str(artifact["key"]).startswith("session"))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"], timeout=PAGE_MS_MAX)
        page = browser.new_page(viewport={"width": 1200, "height": 1100})
        page.set_default_timeout(PAGE_MS_MAX)
        page.goto(f"{server.url}/runs")
        for deployment in ORDER:
            page.get_by_text(f"{deployment} {DAY} simulated").first.wait_for()
        page.goto(f"{server.url}/artifacts")
        for key in {str(artifact["key"]) for artifact in server.api("POST", "/artifacts/filter", {}) if artifact["key"]}:
            page.get_by_text(key, exact=True).first.wait_for()
        page.goto(f"{server.url}/artifacts/artifact/{report}")
        curve = page.locator('img[src^="data:image/svg+xml"]')
        curve.wait_for()
        page.wait_for_function("[...document.images].every(picture => picture.complete)")
        size = curve.evaluate("curve => [curve.naturalWidth, curve.naturalHeight, curve.clientWidth]")
        page.goto(f"{server.url}/deployments/deployment/{flatten['id']}/run")
        page.get_by_text("kept in the halt record").first.wait_for()
        form = page.locator("body").inner_text()
        browser.close()
    assert size[:2] == [960, 460]  # a picture that the browser cannot read has no size
    assert size[2] > 500
    shown = flatten["parameter_openapi_schema"]["properties"]
    assert {"config", "date", "run", "reason", "by"} <= set(shown)
    for name, parameter in shown.items():
        assert name in form
        assert str(parameter["description"]).splitlines()[0] in form
    assert 'Property is type "None"' not in form
