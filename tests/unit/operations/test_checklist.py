from __future__ import annotations

import http.server
import json
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import fsspec
import pytest

from velox_core.domain.errors import EXIT_CHECKLIST_FAILED
from velox_core.operations import backup_places, checklist, probes
from velox_core.operations.checklist import ITEM_TITLES, Finding, ItemResult, Verdict, refusals, run_item, verdict_line
from velox_core.operations.day_pass import check_day_pass, newest_checklist, record_checklist
from velox_core.operations.market_open import ChecklistFailed, broken_item
from velox_core.settings import CHECKLIST_ITEMS, BrokerType, Paths, Settings

Load = Callable[..., Settings]
DAY = date(2024, 1, 15)


class Answers(http.server.BaseHTTPRequestHandler):
    """A small server: `statuses` by path, 404 for the others; what was posted is kept."""

    statuses: dict[str, tuple[int, str]]
    posted: list[str]

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        if length:
            self.posted.append(self.rfile.read(length).decode())
        status, body = self.statuses.get(self.path.split("?")[0], (404, ""))
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    do_GET = do_POST = do_HEAD = _answer  # noqa: N815 - the names are the library's

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def serve() -> Iterator[Callable[[dict[str, tuple[int, str]]], tuple[int, list[str]]]]:
    servers: list[http.server.HTTPServer] = []

    def start(statuses: dict[str, tuple[int, str]]) -> tuple[int, list[str]]:
        posted: list[str] = []
        handler = type("Handler", (Answers,), {"statuses": statuses, "posted": posted})
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return server.server_port, posted

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def influx(port: int) -> str:
    return f"""
  metrics:
    influxdb: {{enabled: true, url: "http://127.0.0.1:{port}", org: velox, bucket: metrics}}
"""


def test_checklist_items_titles_and_checks_are_the_guides_eleven_and_the_guard() -> None:
    assert tuple(ITEM_TITLES) == CHECKLIST_ITEMS
    assert tuple(checklist._CHECKS) == CHECKLIST_ITEMS
    assert len(CHECKLIST_ITEMS) == 12


@pytest.mark.parametrize(
    "item",
    ["fixed_lot_size", "max_daily_loss", "enable_deduplication", "initial_capital", "max_total_positions", "broker_type"],
)
def test_checklist_configuration_items_of_the_shipped_default_pass(item: str, settings_with: Load, paths: Paths) -> None:
    result = run_item(item, settings_with(), paths)
    assert result.verdict is Verdict.PASSED
    assert result.measured
    assert result.advice == ""
    assert not paths.var.exists()


@pytest.mark.parametrize(
    ("positions", "reason", "verdict"),
    [("2", "", "PASSED"), ("5", "", "PASSED"), ("6", "", "FAILED"), ("6", "ten symbols", "PASSED")],
)
def test_checklist_total_positions_above_five_need_a_reason(
    positions: str, reason: str, verdict: str, settings_with: Load, paths: Paths
) -> None:
    extra = f'\n  checklist: {{max_total_positions_reason: "{reason}"}}\n' if reason else ""
    result = run_item("max_total_positions", settings_with(extra, max_total_positions=positions), paths)
    assert result.verdict == verdict
    assert reason in result.measured


def test_checklist_severity_turns_a_finding_into_a_warning_a_refusal_or_nothing(
    settings_with: Load, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def bad(settings: Settings, paths: Paths) -> Finding:
        calls.append("called")
        return Finding(ok=False, measured="nothing there", advice="put it there")

    monkeypatch.setattr(checklist, "_CHECKS", {**checklist._CHECKS, "backup": bad})
    verdicts = {}
    for severity in ("warn", "refuse", "skip"):
        settings = settings_with(f"\n  checklist: {{severities: {{backup: {severity}}}}}\n")
        verdicts[severity] = run_item("backup", settings, paths)
    assert [verdicts[name].verdict for name in ("warn", "refuse", "skip")] == [Verdict.WARNED, Verdict.FAILED, Verdict.SKIPPED]
    assert verdicts["warn"].advice == "put it there"
    assert calls == ["called", "called"]  # a skipped item is not looked at


def test_checklist_influxdb_switched_off_only_warns_in_a_simulated_day(settings_with: Load, paths: Paths) -> None:
    assert run_item("influxdb", settings_with(), paths).verdict is Verdict.WARNED


def test_checklist_influxdb_that_is_on_but_dead_refuses_whatever_the_severity(settings_with: Load, paths: Paths) -> None:
    result = run_item("influxdb", settings_with(influx(9)), paths)
    assert result.verdict is Verdict.FAILED
    assert "ping" in result.measured


def test_checklist_influxdb_that_takes_a_point_passes_though_its_health_says_fail(
    serve: Callable[..., tuple[int, list[str]]], settings_with: Load, paths: Paths
) -> None:
    port, posted = serve({"/ping": (204, ""), "/api/v2/write": (204, "")})
    result = run_item("influxdb", settings_with(influx(port)), paths)
    assert result.verdict is Verdict.PASSED
    assert posted == ["velox_probe,source=checklist value=1i"]


def test_checklist_influxdb_that_refuses_the_point_refuses_the_day(
    serve: Callable[..., tuple[int, list[str]]], settings_with: Load, paths: Paths
) -> None:
    port, _ = serve({"/ping": (204, ""), "/api/v2/write": (401, '{"message": "unauthorized"}')})
    result = run_item("influxdb", settings_with(influx(port)), paths)
    assert result.verdict is Verdict.FAILED
    assert "cannot be written" in result.measured


def test_checklist_influxdb_two_without_the_bucket_refuses_and_writes_nothing(
    serve: Callable[..., tuple[int, list[str]]], settings_with: Load, paths: Paths
) -> None:
    health = json.dumps({"name": "influxdb", "status": "pass", "version": "2.7.1"})
    port, posted = serve({"/ping": (204, ""), "/health": (200, health), "/api/v2/buckets": (200, '{"buckets": []}')})
    result = run_item("influxdb", settings_with(influx(port)), paths)
    assert result.verdict is Verdict.FAILED
    assert "InfluxDB 2.7.1" in result.measured
    assert posted == []


def test_checklist_dashboard_that_answers_passes_and_a_silent_one_warns(
    serve: Callable[..., tuple[int, list[str]]], settings_with: Load, paths: Paths
) -> None:
    port, _ = serve({"/": (200, "ok")})
    assert run_item("dashboard", settings_with(f"\n  dashboard: {{port: {port}}}\n"), paths).verdict is Verdict.PASSED
    assert run_item("dashboard", settings_with("\n  dashboard: {port: 9}\n"), paths).verdict is Verdict.WARNED


def test_probe_http_server_error_is_not_in_order(serve: Callable[..., tuple[int, list[str]]]) -> None:
    port, _ = serve({"/": (503, "")})
    assert not probes.probe_http("127.0.0.1", port).ok


def test_checklist_redis_that_does_not_answer_refuses(settings_with: Load, paths: Paths) -> None:
    settings = settings_with('\n  stores: {redis: {url: "redis://127.0.0.1:9/0"}}\n')
    result = run_item("redis", settings, paths)
    assert result.verdict is Verdict.FAILED
    assert "does not answer" in result.measured
    assert "system.stores.redis.url" in result.advice


def test_checklist_redis_embedded_is_started_and_asked(settings_with: Load, paths: Paths) -> None:
    from velox_core.redis_server import EmbeddedRedis

    try:
        result = run_item("redis", settings_with(), paths)
    finally:
        EmbeddedRedis(paths.var / "redis").stop()
    assert result.verdict is Verdict.PASSED
    assert "noeviction" in result.measured


def test_checklist_redis_that_evicts_keys_refuses(settings_with: Load, paths: Paths) -> None:
    import redis

    from velox_core.redis_server import EmbeddedRedis

    server = EmbeddedRedis(paths.var / "redis")
    try:
        client = redis.Redis.from_url(server.start())
        client.config_set("maxmemory-policy", "allkeys-lru")
        client.close()
        result = run_item("redis", settings_with(), paths)
    finally:
        server.stop()
    assert result.verdict is Verdict.FAILED
    assert "noeviction" in result.advice


def test_checklist_backup_folder_is_written_to_and_left_empty(settings_with: Load, paths: Paths, tmp_path: Path) -> None:
    assert run_item("backup", settings_with(), paths).verdict is Verdict.PASSED
    assert [path for path in (paths.var / "backups").rglob("*") if path.is_file()] == []
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    assert not probes.probe_backup_destination(settings_with(f"\n  backup: {{destination: '{blocked}'}}\n"), paths).ok
    copies = f"\n  backup: {{destination: '{tmp_path / 'good'}', copies: ['{blocked}']}}\n"
    assert str(blocked) in probes.probe_backup_destination(settings_with(copies), paths).measured


def test_checklist_backup_url_is_written_to_and_what_is_missing_is_said(
    settings_with: Load, paths: Paths, monkeypatch: pytest.MonkeyPatch, places_here: None
) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")  # no question leaves this machine

    def at(url: str) -> tuple[bool, str, str]:
        found = probes.probe_backup_destination(settings_with(f"\n  backup: {{destination: '{url}'}}\n"), paths)
        return found.ok, found.measured, found.advice

    memory = fsspec.filesystem("memory")
    assert at("memory://velox-probe") == (True, "memory://velox-probe/simulated/primary is writable", "")
    assert [path for path in memory.find("/velox-probe") if "probe-" in path] == []
    ok, told, advice = at("s3://bucket/velox")
    assert (ok, told) == (False, "cannot write s3://bucket/velox/simulated/primary: Unable to locate credentials")
    assert advice.startswith(
        "its keys are missing or refused, they belong where its own tools look for them (s3: AWS_ACCESS_KEY_ID"
    )
    ok, told, advice = at("sftp://nobody@127.0.0.1:1/velox")
    assert not ok
    assert "Unable to connect to port 1" in told
    assert advice == "see whether it is there and yours to use"

    class NoCredentialsError(Exception):
        """As the library of s3 names it."""

    def without_keys(*_: object) -> None:
        raise NoCredentialsError("Unable to locate credentials")

    monkeypatch.setattr(memory.__class__, "pipe_file", without_keys)
    ok, told, advice = at("memory://velox-probe")
    assert (ok, told) == (False, "cannot write memory://velox-probe/simulated/primary: Unable to locate credentials")
    assert "AWS_ACCESS_KEY_ID" in advice


def test_checklist_backup_url_that_does_not_answer_is_given_up(
    settings_with: Load, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup_places, "PROBE_SECONDS", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes the connection and says nothing
        url = f"sftp://nobody@127.0.0.1:{silent.getsockname()[1]}/velox"
        found = probes.probe_backup_destination(settings_with(f"\n  backup: {{destination: '{url}'}}\n"), paths)
    assert not found.ok
    assert found.measured == (
        f"{url}/simulated/primary answered nothing and moved nothing for 1 s while a small file was written"
    )
    assert found.advice.startswith("see its address, its server and the network")


def test_checklist_simulated_test_needs_a_flat_run_of_these_limits_and_strategies(settings_with: Load, paths: Paths) -> None:
    settings = settings_with()
    folder = paths.var / "replay" / "primary" / "2024-01-15-1"
    folder.mkdir(parents=True)
    good = {
        "run_id": "2024-01-15-1",
        "exit_code": 0,
        "flat": True,
        "config_hash": "another",
        "fingerprint": probes.strategy_fingerprint(settings),
    }
    for body, verdict in (
        ({**good, "flat": False}, Verdict.WARNED),
        ({**good, "exit_code": 4}, Verdict.WARNED),
        ({**good, "stopped": "by a person"}, Verdict.WARNED),
        ({**good, "halted": True}, Verdict.WARNED),
        ({**good, "halts": [{"kind": "LOSS", "cleared": True}]}, Verdict.WARNED),
        ({**good, "fault": "boom"}, Verdict.WARNED),
        ({**good, "fingerprint": "other"}, Verdict.WARNED),
        (good, Verdict.PASSED),
        ({**good, "fingerprint": "other", "config_hash": settings.config_hash}, Verdict.PASSED),
    ):
        (folder / "summary.json").write_text(json.dumps(body))
        assert run_item("simulated_test", settings, paths).verdict is verdict, body


def test_completed_simulated_run_says_which_data_and_prefers_real_bars(settings_with: Load, paths: Paths) -> None:
    settings = settings_with()
    good = {"exit_code": 0, "flat": True, "config_hash": settings.config_hash}

    def keep(run_id: str, **facts: object) -> None:
        folder = paths.var / "replay" / "primary" / run_id
        folder.mkdir(parents=True)
        (folder / "summary.json").write_text(json.dumps({**good, "run_id": run_id, "trading_date": run_id[:10], **facts}))

    assert probes.completed_simulated_run(settings, paths) == ""
    keep("2024-01-16-calm-1", synthetic=True)
    assert probes.completed_simulated_run(settings, paths) == "2024-01-16-calm-1 (synthetic calm)"
    keep("2024-01-15-1")
    assert probes.completed_simulated_run(settings, paths) == "2024-01-15-1 (real bars 2024-01-15)"


def test_checklist_live_broker_refuses_at_any_severity(settings_with: Load, paths: Paths) -> None:
    import dataclasses

    simulated = settings_with("\n  checklist: {severities: {broker_type: skip}}\n")
    broker = dataclasses.replace(simulated.broker, type=BrokerType.ZERODHA)
    result = run_item("broker_type", dataclasses.replace(simulated, broker=broker, live=True), paths)
    assert result.verdict is Verdict.FAILED
    assert "simulated broker only" in result.measured


def test_strategy_fingerprint_changes_with_a_limit_but_not_with_the_feed(settings_with: Load) -> None:
    base = probes.strategy_fingerprint(settings_with())
    assert probes.strategy_fingerprint(settings_with(speed="600")) == base
    assert probes.strategy_fingerprint(settings_with(max_daily_loss="1999")) != base


def line(item: str, verdict: Verdict) -> ItemResult:
    return ItemResult(item=item, title=ITEM_TITLES[item], verdict=verdict, measured="m", advice="a")


def test_day_pass_is_given_only_without_a_refusal_and_bound_to_date_and_configuration(
    settings_with: Load, paths: Paths
) -> None:
    settings = settings_with()
    assert "no day pass" in check_day_pass(settings, paths, DAY)
    warned = [line("redis", Verdict.PASSED), line("backup", Verdict.WARNED)]
    record_checklist(settings, paths, DAY, warned, taken_wall_ms=1)
    assert check_day_pass(settings, paths, DAY) == ""
    assert "no day pass" in check_day_pass(settings, paths, date(2024, 1, 16))
    assert "configuration changed" in check_day_pass(settings_with(max_daily_loss="1999"), paths, DAY)
    assert newest_checklist(settings, paths, DAY) == warned


def test_day_pass_is_taken_away_by_a_later_refusal(settings_with: Load, paths: Paths) -> None:
    settings = settings_with()
    record_checklist(settings, paths, DAY, [line("redis", Verdict.PASSED)], taken_wall_ms=1)
    record_checklist(settings, paths, DAY, [line("redis", Verdict.FAILED)], taken_wall_ms=2)
    assert "refused" in check_day_pass(settings, paths, DAY)


def test_day_pass_that_cannot_be_read_is_no_pass(settings_with: Load, paths: Paths) -> None:
    settings = settings_with()
    record_checklist(settings, paths, DAY, [line("redis", Verdict.PASSED)], taken_wall_ms=1)
    (paths.var / "simulated" / "primary" / "journal.db").write_bytes(b"not a database at all" * 100)
    assert "cannot be read" in check_day_pass(settings, paths, DAY)


def test_checklist_verdict_line_counts_and_names_the_refusals() -> None:
    results = [line("redis", Verdict.FAILED), line("backup", Verdict.WARNED), line("dashboard", Verdict.PASSED)]
    assert verdict_line(results) == "1 of 3 items passed, 1 warned, 1 failed, 0 skipped; refused by redis"
    assert refusals(results) == results[:1]
    assert ChecklistFailed.exit_code == EXIT_CHECKLIST_FAILED
    assert broken_item("redis", "Redis", ValueError("boom")).verdict is Verdict.FAILED
