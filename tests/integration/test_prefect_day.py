"""A trading day that Prefect's own schedules run, in compressed time, with nobody's hand in it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.fakes.prefect_account import PrefectAccount
from tests.fakes.prefect_server import ROOT, PrefectServer, wait_until

SHIPPED = ROOT / "config" / "system_simulated.yaml"
DAY = "2024-01-15"
RUN_ID = f"{DAY}-1"
SESSION_SECONDS = 20.0  # so long the compressed session lasts
SPEED = 375 * 60 / SESSION_SECONDS
ORDER = ("market-open", "intraday", "end-of-day")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture
def account(prefect_server: PrefectServer, tmp_path: Path) -> Iterator[PrefectAccount]:
    """An account with the shipped configuration and the real day of the repository."""
    made = PrefectAccount(prefect_server, tmp_path)
    text = SHIPPED.read_text(encoding="utf-8").replace("data/tcs", f"{ROOT}/data/tcs")
    made.config.write_text(f"{text}\n  prefect: {{api_url: {prefect_server.url}/api}}\n", encoding="utf-8")
    made.run = made.var / "replay" / "primary" / RUN_ID
    yield made
    made.end()


def schedule(server: PrefectServer, deployment: str, at: datetime, **parameters: object) -> None:
    """Have the server's scheduler start a deployment once, with a schedule beside the shipped ones."""
    found = server.deployment(deployment)
    assert found is not None
    once = {"rrule": f"DTSTART:{at:%Y%m%dT%H%M%S}\nRRULE:FREQ=DAILY;COUNT=1", "timezone": "UTC"}
    body = [{"active": True, "schedule": once, "slug": "compressed", "parameters": parameters}]
    server.api("POST", f"/deployments/{found['id']}/schedules", body)


def states(server: PrefectServer, run_id: str) -> list[str]:
    """Return the names of all states that a run went through."""
    found = server.api("GET", f"/flow_run_states/?flow_run_id={run_id}")
    return [str(state["name"]) for state in sorted(found, key=lambda state: str(state["timestamp"]))]


def test_day_runs_from_its_schedules_without_a_hand(account: PrefectAccount) -> None:
    server = account.server
    before = time.monotonic()
    account.serve()
    pause = 15.0 + 2.0 * (time.monotonic() - before)  # a slow machine is given more
    first = datetime.now(UTC) + timedelta(seconds=pause)
    for number, deployment in enumerate(ORDER):
        extra = {"speed": SPEED} if deployment == "intraday" else {}
        at = first + timedelta(seconds=number * pause + (SESSION_SECONDS if number == 2 else 0.0))
        schedule(server, deployment, at, date=DAY, **extra)

    runs: dict[str, dict[str, object]] = {}
    for deployment in ORDER:
        wait_until(lambda name=deployment: compressed(server, name), lambda: server.printed("serve"))  # type: ignore[misc]
        run = compressed(server, deployment)[0]
        assert server.wait_end(run["id"])[0] == "Completed", server.logs(run["id"])
        runs[deployment] = server.flow_run(str(run["id"]))

    for run in runs.values():
        assert states(server, str(run["id"])) == ["Scheduled", "Pending", "Running", "Completed"]
        assert (run["auto_scheduled"], run["created_by"]["type"]) == (True, "SCHEDULE")  # type: ignore[index]
    starts = [str(run["start_time"]) for run in runs.values()]
    assert starts == sorted(starts)
    summary = account.read("summary.json")
    assert (summary["flat"], summary["exit_code"], summary["trade_count"] > 0) == (True, 0, True)
    assert account.held() == {}
    assert runs["intraday"]["name"] == f"intraday {DAY} simulated"
    assert (account.var / "reports" / "primary" / f"{RUN_ID}.html").exists()


def compressed(server: PrefectServer, deployment: str) -> list[dict[str, object]]:
    """Return the runs of a deployment for the compressed day."""
    return [run for run in server.flow_runs(deployment) if run["parameters"].get("date") == DAY]
