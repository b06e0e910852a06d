"""The automations on a real server: fired by what really comes, and always behind a first layer that had acted before."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.prefect_server import ROOT, WAIT_SECONDS, PrefectServer, wait_until
from velox_core.halt_file import HALT_FILE, JsonLinesHaltFile
from velox_core.operations.status import read_status
from velox_core.redis_server import EmbeddedRedis

CONFIG = ROOT / "config" / "system_simulated.yaml"
DAY = "2024-01-16"
SILENCE_SECONDS = 30.0  # a busy server has taken up the end before the silence is judged
FLOWS = ("market-open", "intraday", "end-of-day", "trading-day", "emergency-flatten", "alert")
RESOURCE = {"prefect.resource.id": "velox.account.simulated.primary"}
SILENT = "velox simulated/primary: engine is silent"
EMIT = """
import os
from datetime import date
from pathlib import Path
from tasks.events import emit_end, flush_events
from velox_core.operations.day import DayRequest, open_day
from velox_core.operations.status import read_status
day = open_day(DayRequest(config=Path({config!r}), date=date(2024, 1, 16), scenario="crash"), os.environ)
print(emit_end(day, read_status(Path({folder!r})), 0), flush_events(120))
"""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def watched(prefect_server: PrefectServer) -> PrefectServer:
    """The server with the account's deployments and automations, applied twice."""
    for flow in FLOWS:
        function = flow.replace("-", "_")
        flow_id = prefect_server.api("POST", "/flows/", {"name": flow})["id"]
        deployment = {
            "name": flow,
            "flow_id": flow_id,
            "path": str(ROOT),
            "entrypoint": f"flows/{function}.py:{function}",
            "pull_steps": [{"prefect.deployments.steps.set_working_directory": {"directory": str(ROOT)}}],
            "enforce_parameter_schema": False,
        }
        prefect_server.api("POST", "/deployments/", deployment)
    for _ in range(2):
        applied = prefect_server.run("applied", "-m", "deployments.automations", "--config", str(CONFIG))
        assert applied.wait(WAIT_SECONDS) == 0, prefect_server.printed("applied")
    first, second = prefect_server.printed("applied").splitlines()
    assert first.endswith("made, 0 changed, 0 removed")
    assert second.endswith(": 0 made, 0 changed, 0 removed")
    return prefect_server


@pytest.fixture
def var(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "var"
    yield folder
    EmbeddedRedis(folder / "redis").stop()


def parameters_of(server: PrefectServer, deployment: str) -> list[dict[str, Any]]:
    return [dict(run["parameters"]) for run in server.flow_runs(deployment)]


def orders_in(folder: Path) -> int:
    with closing(sqlite3.connect(f"file:{folder / 'broker.db'}?mode=ro", uri=True)) as book:
        return int(book.execute("SELECT count(*) FROM orders").fetchone()[0])


def test_breach_flattens_behind_an_engine_that_had_closed_by_itself_and_sends_nothing(
    watched: PrefectServer, var: Path
) -> None:
    mine = {"VELOX__VAR": str(var)}
    run = ["-m", "velox_core.cli", "run", "--config", str(CONFIG), "--date", DAY, "--scenario", "crash", "--speed", "max"]
    subprocess.run(
        [sys.executable, *run], env={**os.environ, **mine}, cwd=ROOT, capture_output=True, check=True, timeout=WAIT_SECONDS
    )
    folder = var / "replay" / "primary" / "2024-01-16-crash-1"
    status = read_status(folder)
    assert status is not None
    assert (status.state, status.positions, status.number("live_orders")) == ("DONE", [], 0)  # the first layer: flat ...
    assert "ALERT EMERGENCY EXIT TRIGGERED" in (var / "logs" / "simulated" / "system.log").read_text(
        encoding="utf-8"
    )  # ... told
    orders, first_layer_done = orders_in(folder), datetime.now(UTC)

    script = EMIT.format(config=str(CONFIG), folder=str(folder))
    for _ in range(2):  # the second one is a flow run that attaches later
        emitted = watched.run("emitted", "-c", script, environ=mine)
        assert emitted.wait(WAIT_SECONDS) == 0, watched.printed("emitted")
    wait_until(lambda: parameters_of(watched, "emergency-flatten"), lambda: watched.printed("emitted"))
    (created,) = watched.flow_runs("emergency-flatten")
    assert created["parameters"] == {
        "config": str(CONFIG),
        "run": "2024-01-16-crash-1",
        "reason": f"risk breach seen by the automation: {status.rows('halts')[0]['reason']}",
        "by": "Prefect automation",
        "unless_closed": True,
    }
    assert datetime.fromisoformat(created["created"]) > first_layer_done

    executed = watched.run("executed", "-m", "prefect", "flow-run", "execute", created["id"], environ=mine)
    assert executed.wait(WAIT_SECONDS) == 0, watched.printed("executed")
    assert watched.wait_end(created["id"])[0] == "Completed"
    assert orders_in(folder) == orders  # nothing was sent: it had been flat
    first, second = JsonLinesHaltFile(folder / HALT_FILE).records()
    assert (first.kind.value, first.by) == ("LOSS", "engine")
    assert (second.kind.value, second.by) == ("MANUAL", "Prefect automation")
    (report,) = watched.artifacts("flatten-simulated-primary")
    assert report["data"].startswith("# FLAT")
    assert "Nothing was open." in report["data"]
    assert len(watched.flow_runs("emergency-flatten")) == 1  # one breach, one run
    told = watched.api("POST", "/events/filter", {"filter": {"event": {"prefix": ["velox."]}}})["events"]
    assert sorted(event["event"] for event in told) == ["velox.breach", "velox.ended", "velox.flat", "velox.halt"]


def emit(server: PrefectServer, *names: str) -> None:
    """Tell of events at one moment, in one request; of which comes after which a server then knows nothing."""
    common = {"occurred": datetime.now(UTC).isoformat(), "resource": RESOURCE, "payload": {}, "related": []}
    server.api("POST", "/events", [{"event": name, "id": str(uuid.uuid4()), **common} for name in names])


def put_state(server: PrefectServer, deployment: str, *states: Mapping[str, str]) -> None:
    """Have a run of a deployment go through states."""
    run_id = server.trigger(deployment, state="PENDING")  # nobody takes it up, and a slow machine's server would call it late
    for state in states:
        server.api("POST", f"/flow_runs/{run_id}/set_state", {"state": dict(state), "force": True})


def alerts(server: PrefectServer) -> dict[str, str]:
    """Return the alerts that were asked for: title to text."""
    found = parameters_of(server, "alert")
    assert all((one["severity"], one["config"]) == ("CRITICAL", str(CONFIG)) for one in found)
    assert len({one["title"] for one in found}) == len(found)
    return {one["title"]: one["text"] for one in found}


def test_runs_that_fail_or_are_late_and_an_engine_that_falls_silent_each_ask_for_one_alert(watched: PrefectServer) -> None:
    put_state(watched, "intraday", {"type": "FAILED", "name": "EngineDied", "message": "died without a word"})
    put_state(watched, "market-open", {"type": "FAILED", "name": "Failed", "message": "the checklist refuses"})
    put_state(watched, "trading-day", {"type": "CRASHED", "name": "Crashed", "message": "killed"})
    late = {"type": "SCHEDULED", "name": "Late", "message": ""}
    too_late = {"type": "CANCELLED", "name": "TooLate", "message": "nothing was done"}
    for _ in range(3):  # days off: each missed run is late, then too late, and all that is one alert
        put_state(watched, "end-of-day", late, too_late)
    put_state(watched, "trading-day", too_late)  # nobody marked it late before it came
    put_state(watched, "intraday", {"type": "COMPLETED", "name": "Holiday", "message": "no session"})
    wanted = {
        "The flow intraday failed": "died without a word",
        "The flow market-open failed": "the checklist refuses",
        "The flow trading-day failed": "killed",
        "The flow end-of-day is late": "velox up --status",
        "The flow trading-day is late": "nothing was done",
    }
    wait_until(lambda: len(alerts(watched)) >= len(wanted), lambda: json.dumps(alerts(watched)))
    assert set(alerts(watched)) == set(wanted)
    for title, text in wanted.items():
        assert text in alerts(watched)[title]

    (silent,) = [one for one in watched.api("POST", "/automations/filter", {"limit": 200}) if one["name"] == SILENT]
    silent["trigger"]["within"] = SILENCE_SECONDS  # the real one is minutes
    core = {key: silent[key] for key in ("name", "description", "enabled", "trigger", "actions")}
    watched.api("PUT", f"/automations/{silent['id']}", core)
    # heard of, then ended as it should: no alarm, however long nothing comes
    for name in ("velox.heartbeat", "velox.ended", "velox.flat"):  # one after another, as a flow sends them
        emit(watched, name)
        time.sleep(1.0)
    ended = time.monotonic()
    put_state(watched, "emergency-flatten", {"type": "FAILED", "name": "Failed", "message": "NOT FLAT"})
    wait_until(lambda: "The flow emergency-flatten failed" in alerts(watched), lambda: json.dumps(alerts(watched)))
    wait_until(lambda: time.monotonic() - ended > 2.5 * SILENCE_SECONDS)  # long enough to be judged twice over
    assert "No heartbeat of the engine" not in alerts(watched)
    emit(watched, "velox.heartbeat")
    wait_until(lambda: "No heartbeat of the engine" in alerts(watched), lambda: json.dumps(alerts(watched)))
