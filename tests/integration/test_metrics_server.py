"""A real VictoriaMetrics: what a day and its backfill wrote is what the journal says; and a day with nobody there."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.fakes.victoria import PROGRAM, Victoria, victoria
from velox_core.backup.metrics_export import check, export_day
from velox_core.bootstrap import RunRequest, SessionOutcome, run_engine
from velox_core.cli.app import app
from velox_core.domain.events import EventKind, JournalEvent
from velox_core.journal.export import export_events
from velox_core.journal.queries import JournalReader
from velox_core.metrics.server import Flavour, MetricsServer
from velox_core.metrics.sink import MetricsSink
from velox_core.redis_server import EmbeddedRedis
from velox_core.settings import Paths, Settings, load_settings

ROOT = Path(__file__).resolve().parents[2]
DAY = date(2024, 1, 15)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def var(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("var")
    yield folder
    EmbeddedRedis(folder / "redis").stop()


@pytest.fixture
def configured(tmp_path: Path) -> Callable[[str], Path]:
    def write(section: str) -> Path:
        text = (ROOT / "config" / "system_simulated.yaml").read_text(encoding="utf-8")
        text = text.replace("data/tcs_2024-01-15.csv", str(ROOT / "data" / "tcs_2024-01-15.csv"))
        path = tmp_path / "system.yaml"
        path.write_text(f"{text.rstrip()}\n{section}", encoding="utf-8")
        return path

    return write


def traded(
    settings: Settings, var: Path, *, speed: float = 0.0
) -> tuple[SessionOutcome, list[JournalEvent], dict[str, object]]:
    outcome = run_engine(settings, Paths(var=var, logs=var / "logs"), RunRequest(date=DAY, speed=speed, fresh=True))
    reader = JournalReader(f"sqlite:///{outcome.run.folder / 'journal.db'}")
    run = reader.latest_run(DAY)
    assert run is not None
    assert run.run_key is not None
    events = reader.events(run.run_key)
    reader.close()
    return outcome, events, json.loads((outcome.run.folder / "status.json").read_text())


@pytest.mark.skipif(PROGRAM is None, reason="victoria-metrics is not installed (Debian: apt-get install victoria-metrics)")
def test_day_and_its_backfill_are_at_the_server_as_the_journal_has_them(
    var: Path, configured: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VELOX__VAR", str(var))
    monkeypatch.setattr(MetricsSink.close, "__defaults__", (120.0,))  # a busy machine is no server that is slow
    for bound in ("connect_seconds", "answer_seconds"):
        monkeypatch.setitem(MetricsServer.__init__.__kwdefaults__, bound, 120.0)
    (tmp_path / "data").mkdir()
    with victoria(tmp_path / "data") as server:
        config = configured(f'  metrics: {{influxdb: {{enabled: true, url: "{server.url}"}}}}\n')
        checked = CliRunner().invoke(app, ["metrics", "check", "--config", str(config)])
        assert (checked.exit_code, "VictoriaMetrics" in checked.stdout) == (0, True), checked.output
        outcome, events, status = traded(load_settings(config, {}), var)
        assert outcome.flat
        first = _compare(server, events, outcome.run.run_id)
        assert set(server.series('{__name__=~"velox_order_stage.*"}'))
        wrong = CliRunner().invoke(app, ["metrics", "backfill", "--config", str(config), "--date", "2024-01-16"])
        assert wrong.exit_code != 0
        again = CliRunner().invoke(app, ["metrics", "backfill", "--config", str(config), "--date", "2024-01-15", "--json"])
        assert again.exit_code == 0, again.output
        told = json.loads(again.stdout)
        assert (told["written"], told["malformed"], told["stopped"]) == (told["points"], 0, "")
        assert _compare(server, events, outcome.run.run_id) == first
        tags = {"broker": "simulated", "account": "primary"}
        saved = export_day(
            tmp_path / "saved", flavour=Flavour.VICTORIA, url=server.url, org="", bucket="", token="", tags=tags, day=DAY
        )
        lines = [json.loads(line) for line in (tmp_path / "saved").read_text(encoding="utf-8").splitlines()]
        assert saved["points"] == sum(len(line["values"]) for line in lines) >= sum(map(len, first.values()))
        assert {line["metric"]["__name__"] for line in lines} >= {key[0] for key in first}
        assert check(tmp_path / "saved", saved) == ""
        metrics = status["metrics"]
        assert isinstance(metrics, dict)
        assert (metrics["dropped"], metrics["malformed"], metrics["failed"]) == (0, 0, 0)


def _compare(server: Victoria, events: list[JournalEvent], run_id: str) -> dict[tuple[str, ...], list[tuple[int, float]]]:
    """Compare P&L, fills and decisions with the journal's, and return all that the server has of facts."""
    series = server.series('{__name__=~"velox_(pnl|fill|position|positions|decision|order)_.*",stage=""}')
    assert all(f"run={run_id}" in key and "mode=replay" in key for key in series)
    marks = [event for event in events if event.kind is EventKind.MARK]
    for field, name in (("realised", "realised"), ("open", "open"), ("charges", "charges")):
        wanted = sorted((event.ts_ms, float(str(event.body[field]))) for event in marks)
        (found,) = [samples for key, samples in series.items() if key[0] == f"velox_pnl_{name}_paise"]
        assert sorted(set(found)) == wanted
    fills = [event for event in events if event.kind is EventKind.FILL]
    assert len(fills) >= 2
    wanted_fills = sorted((event.ts_ms, float(str(event.body["price"]))) for event in fills)
    found_fills = [s for key, samples in series.items() if key[0] == "velox_fill_price_paise" for s in set(samples)]
    assert sorted(found_fills) == wanted_fills
    decisions = [event for event in events if event.kind is EventKind.DECISION]
    totals = [max(value for _, value in samples) for key, samples in series.items() if key[0] == "velox_decision_total"]
    assert sum(totals) == len(decisions)
    return {key: sorted(set(samples)) for key, samples in series.items()}


def test_day_with_nobody_at_the_servers_address_is_the_same_day(var: Path, configured: Callable[[str], Path]) -> None:
    _, without, off = traded(load_settings(configured(""), {}), var)
    config = configured('  metrics: {influxdb: {enabled: true, url: "http://127.0.0.1:9"}}\n')
    # some seconds long: at full speed the day may be over before the first attempt to write is
    outcome, with_nobody, status = traded(load_settings(config, {}), var, speed=2_500.0)
    assert (outcome.exit_code, outcome.flat) == (0, True)
    assert export_events(with_nobody) == export_events(without)
    assert off["metrics"] == {"state": "off"}
    metrics = status["metrics"]
    assert isinstance(metrics, dict)
    assert (metrics["state"], metrics["written"]) == ("failing", 0)
    assert metrics["failed"] > 0
    assert metrics["waiting"] > 0
    assert re.search("refused", str(metrics["last_failure"]))
