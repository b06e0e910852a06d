from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator
from datetime import date
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.fakes.http_server import Reply, Request, Served, serving
from tests.fakes.metrics import mark
from tests.fakes.outside import FakeAlerts, FakeControl
from tests.fakes.stores import FakeJournal
from velox_core.cli.app import app
from velox_core.domain.errors import ConfigError, JournalUnavailable
from velox_core.domain.events import EventKind, JournalEvent
from velox_core.domain.scope import Scope
from velox_core.journal.run import RunIdentity
from velox_core.journal.sql import SqlJournal
from velox_core.metrics import ObservedJournal, encode
from velox_core.metrics_setup import common_tags, fact_points, open_metrics
from velox_core.operations.metrics import backfill
from velox_core.operations.metrics_server import look_at_server
from velox_core.operations.recorded import RecordedRun, find_run
from velox_core.operations.status import Status
from velox_core.operations.view import metrics_text
from velox_core.ports import JournalFact
from velox_core.settings import Paths, SecretStr, Settings

Load = Callable[..., Settings]
DAY = date(2024, 1, 15)
SCOPE = Scope(broker_type="simulated", account="primary", run_id="2024-01-15-1")
IDENTITY = RunIdentity(scope_key=SCOPE.key, trading_date=DAY, run_id=SCOPE.run_id, mode="replay", config_hash="c")
HEALTH = json.dumps({"name": "influxdb", "status": "pass", "version": "2.7.1"})
BUCKET = json.dumps({"buckets": [{"id": "1", "orgID": "2", "name": "metrics", "retentionRules": []}]})


@pytest.fixture
def served() -> Iterator[Served]:
    with serving(lambda request: Reply()) as server:
        yield server


def influx(url: str, more: str = "") -> str:
    return f'\n  metrics: {{influxdb: {{enabled: true, url: "{url}", org: velox, bucket: metrics{more}}}}}\n'


def influx_two(request: Request) -> Reply:
    if request.path.startswith("/health"):
        return Reply(status=200, body=HEALTH, headers={"Content-Type": "application/json"})
    if request.path.startswith("/api/v2/buckets"):
        return Reply(status=200, body=BUCKET, headers={"Content-Type": "application/json"})
    return Reply()


# -- the look at the server ----------------------------------------------------------------------------------------


def test_look_at_influxdb_two_with_its_bucket_is_ok(served: Served, settings_with: Load) -> None:
    served.rule = influx_two
    look = look_at_server(settings_with(influx(served.url)).metrics.influxdb)
    assert (look.ok, look.measured) == (True, f"InfluxDB 2.7.1 at {served.url} took a point into metrics")
    assert served.written == ["velox_probe,source=checklist value=1i"]


def test_look_at_a_server_that_wants_a_token_for_its_ping_says_what_is_missing(served: Served, settings_with: Load) -> None:
    served.rule = lambda request: Reply(status=401, body='{"message": "unauthorized"}')
    look = look_at_server(settings_with(influx(served.url)).metrics.influxdb)
    assert not look.ok
    assert "cannot be written: 401" in look.measured
    assert "VELOX__METRICS__INFLUXDB__TOKEN" in look.advice


def test_look_at_influxdb_three_goes_by_the_version_that_it_names(served: Served, settings_with: Load) -> None:
    def rule(request: Request) -> Reply:
        is_ping = request.path.startswith("/ping")
        headers = {"X-Influxdb-Version": "3.2.1"} if is_ping else {}
        return Reply(status=200 if is_ping else 204, body="{}", headers=headers)

    served.rule = rule
    look = look_at_server(settings_with(influx(served.url, ", flavour: influx3")).metrics.influxdb)
    assert (look.ok, look.measured) == (True, f"InfluxDB 3.2.1 at {served.url} took a point into metrics")
    assert not [request for request in served.requests if "buckets" in request.path]


def test_look_refuses_another_server_than_the_configured_one_and_writes_nothing(served: Served, settings_with: Load) -> None:
    look = look_at_server(settings_with(influx(served.url, ", flavour: influx2")).metrics.influxdb)
    assert not look.ok
    assert "VictoriaMetrics" in look.measured
    assert "not InfluxDB 2" in look.measured
    assert served.written == []


def test_look_at_a_bucket_that_is_missing_for_the_write_names_it(served: Served, settings_with: Load) -> None:
    served.rule = lambda request: Reply(status=404 if "write" in request.path else 204, body='{"message": "bucket not found"}')
    look = look_at_server(settings_with(influx(served.url)).metrics.influxdb)
    assert (look.ok, "'metrics'" in look.advice) == (False, True)


# -- setting up ----------------------------------------------------------------------------------------------------


def test_metrics_that_are_off_leave_journal_and_control_what_they_are(settings_with: Load) -> None:
    journal, control = FakeJournal(), FakeControl()
    with open_metrics(settings_with(), IDENTITY, SCOPE, journal, FakeAlerts()) as metrics:
        assert metrics.journal is journal
        assert metrics.control(control) is control
        assert metrics.counters() == {"state": "off"}


def test_metrics_that_are_on_write_what_was_committed_before_the_end_and_tag_the_run(
    served: Served, settings_with: Load, caplog: pytest.LogCaptureFixture
) -> None:
    import dataclasses

    caplog.set_level(logging.DEBUG)
    settings = settings_with(influx(served.url))
    server = dataclasses.replace(settings.metrics.influxdb, token=SecretStr("very-private-token"))
    settings = dataclasses.replace(settings, metrics=dataclasses.replace(settings.metrics, influxdb=server))
    with open_metrics(settings, IDENTITY, SCOPE, FakeJournal(), FakeAlerts()) as metrics:
        assert isinstance(metrics.journal, ObservedJournal)
        metrics.journal.append(EventKind.MARK, 1_705_290_300_000, mark(5, 6, 1))
        metrics.journal.append(EventKind.MARK, 1_705_290_360_000, mark(7, 8, 1))  # never committed
        metrics.watch_sends(lambda: 3)
        metrics.journal.commit()
        metrics.control(FakeControl()).publish({"engine_ms": 1_705_290_300_000})
    lines = served.written
    tags = "account=primary,broker=simulated,mode=replay,run=2024-01-15-1"
    limit = settings.risk.limits.loss_limit_paise
    assert lines[0].startswith(
        f"velox_pnl,{tags} realised_paise=5i,open_paise=6i,charges_paise=1i,net_paise=10i,loss_paise=0i,"
    )
    assert f"limit_paise={limit}i" in lines[0]
    assert any(line.startswith("velox_queue,") and "queue=sends" in line and "waiting=3i" in line for line in lines)
    assert {request.headers["Authorization"] for request in served.requests} == {"Token very-private-token"}
    assert "very-private-token" not in caplog.text


def test_metrics_that_cannot_be_set_up_are_told_and_left_out(
    settings_with: Load, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(influx: object) -> object:
        raise ImportError("no such library")

    monkeypatch.setattr("velox_core.metrics_setup.metrics_server", broken)
    journal = FakeJournal()
    with open_metrics(settings_with(influx("http://127.0.0.1:9")), IDENTITY, SCOPE, journal, FakeAlerts()) as metrics:
        assert metrics.journal is journal
    assert "cannot be set up" in caplog.text


def test_run_taken_up_again_counts_on_from_its_journal(settings_with: Load) -> None:
    journal = FakeJournal()
    for halt_id in ("H1", "H2"):
        journal.append(EventKind.HALT, 1, {"halt_id": halt_id, "kind": "LOSS", "clears": ""})
    journal.append(EventKind.MARK, 1, {"of": "another version"})
    journal.commit()
    facts = fact_points(settings_with(), journal)
    (point,) = facts.take(JournalFact(EventKind.HALT, 2, {"halt_id": "H3", "kind": "FAULT", "clears": ""}))
    assert point.fields["active"] == 3


class UnreadableJournal(FakeJournal):
    def events(self, kinds: Iterable[EventKind] | None = None) -> Iterator[JournalEvent]:
        raise JournalUnavailable("away")


def test_journal_that_cannot_be_read_keeps_no_metrics_from_beginning(settings_with: Load) -> None:
    facts = fact_points(settings_with(), UnreadableJournal())
    (point,) = facts.take(JournalFact(EventKind.MARK, 2, mark(1)))
    assert encode(point, common_tags(SCOPE, "replay")) is not None


# -- backfill ------------------------------------------------------------------------------------------------------


@pytest.fixture
def recorded(paths: Paths, settings_with: Load) -> RecordedRun:
    folder = paths.var / SCOPE.folder
    folder.mkdir(parents=True)
    journal = SqlJournal(f"sqlite:///{folder / 'journal.db'}", IDENTITY)
    for minute in range(2_500):
        journal.append(EventKind.MARK, 1_705_290_300_000 + minute * 60_000, mark(minute))
    journal.append(EventKind.STRATEGY_DISABLED, 1_705_290_300_000, {"strategy": "alpha", "reason": "it raised"})
    journal.commit()
    journal.close()
    (folder / "status.json").write_text('{"loss_limit_paise": 4242}', encoding="utf-8")
    return find_run(settings_with(), paths, on=DAY)


def test_backfill_writes_the_journal_in_batches_by_the_runs_own_limit(
    served: Served, settings_with: Load, recorded: RecordedRun
) -> None:
    done = backfill(settings_with(influx(served.url)), recorded)
    assert (done.events, done.points, done.written, done.malformed, done.stopped) == (2_501, 2_501, 2_501, 0, "")
    assert len(served.requests) == 3
    assert all("limit_paise=4242i" in line for line in served.written if line.startswith("velox_pnl"))
    first = served.written
    backfill(settings_with(influx(served.url)), recorded)
    assert served.written == first * 2  # the same points again: they replace themselves


def test_backfill_that_is_refused_on_the_way_says_what_was_written_and_why(
    served: Served, settings_with: Load, recorded: RecordedRun
) -> None:
    served.rule = lambda request: Reply(status=401, body="{}") if len(served.requests) > 2 else Reply()
    done = backfill(settings_with(influx(served.url)), recorded)
    assert (done.written, done.stopped) == (2_000, "401 {}")
    assert "2000 of 2501" in done.sentence
    assert "Run it again" in done.sentence


def test_backfill_with_metrics_off_names_the_setting(settings_with: Load, recorded: RecordedRun) -> None:
    with pytest.raises(ConfigError, match=r"system\.metrics\.influxdb\.enabled"):
        backfill(settings_with(), recorded)


# -- what a person sees --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metrics", "state", "text"),
    [
        ({"state": "off"}, "RUNNING", "off"),
        (None, "RUNNING", "-"),
        ({"state": "writing", "written": 5, "waiting": 2, "dropped": 0}, "RUNNING", "5 written, 2 waiting"),
        ({"state": "writing", "written": 5, "waiting": 2}, "DONE", "5 written"),
        (
            {"state": "failing", "written": 5, "waiting": 2, "dropped": 7, "malformed": 1, "last_failure": "503 busy"},
            "RUNNING",
            "5 written, 2 waiting, 7 dropped, 1 malformed, NOT WRITTEN NOW: 503 busy",
        ),
    ],
)
def test_status_line_of_metrics(metrics: object, state: str, text: str) -> None:
    assert metrics_text(Status(Path(), {"state": state, "metrics": metrics})) == text


def test_commands_say_off_with_what_to_do_and_show_the_schema(settings_with: Load) -> None:
    source = str(settings_with().source)
    checked = CliRunner().invoke(app, ["metrics", "check", "--config", source])
    assert checked.exit_code == 2
    assert "switched off" in checked.stdout
    assert "system.metrics.influxdb.enabled" in checked.stdout
    settings_with(influx("http://127.0.0.1:9"))
    dead = CliRunner().invoke(app, ["metrics", "check", "--config", source, "--json"])
    assert (dead.exit_code, json.loads(dead.stdout)["ok"]) == (1, False)
    shown = CliRunner().invoke(app, ["metrics", "schema", "--json"])
    assert {"velox_pnl", "velox_engine"} <= {m["name"] for m in json.loads(shown.stdout)["measurements"]}
    assert "velox_order_stage" in CliRunner().invoke(app, ["metrics", "schema"]).stdout
