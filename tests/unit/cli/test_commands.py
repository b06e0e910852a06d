from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from velox_core.cli.app import app
from velox_core.cli.entry import main
from velox_core.domain.errors import VeloxError
from velox_core.redis_server import EmbeddedRedis

ROOT = Path(__file__).resolve().parents[3]
Invoke = Callable[..., Any]


@pytest.fixture
def var(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "var"
    monkeypatch.setenv("VELOX__VAR", str(folder))
    monkeypatch.setenv("COLUMNS", "120")
    yield folder
    if (folder / "redis").exists():
        EmbeddedRedis(folder / "redis").stop()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config" / "system.yaml"
    path.parent.mkdir()
    text = (ROOT / "config" / "system_simulated.yaml").read_text(encoding="utf-8")
    path.write_text(text.replace("data/tcs_2024-01-15.csv", str(ROOT / "data" / "tcs_2024-01-15.csv")), encoding="utf-8")
    return path


@pytest.fixture
def velox(config: Path, var: Path) -> Invoke:
    """Invoke a command with the test's configuration; VeloxErrors come back as exceptions of the result."""

    def invoke(command: str, *arguments: str) -> Any:
        return CliRunner().invoke(app, [command, "--config", str(config), *arguments])

    return invoke


def run_main(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["velox", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    code = caught.value.code
    return code if isinstance(code, int) else 0


def test_commands_are_those_of_the_readme() -> None:
    names = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    assert names == {
        "day",
        "eod",
        "run",
        "stop",
        "halt",
        "flatten",
        "reset",
        "check",
        "status",
        "summary",
        "doctor",
        "explain",
        "report",
        "calendar",
        "guard",
        "backup",
        "restore",
        "up",
        "down",
    }


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("run", "--date", "2024-13-01"), 2, "is not a date"),
        (("run", "--speed", "0"), 2, "is not a speed"),
        (("run", "--speed", "nan"), 2, "is not a speed"),
        (("run", "--date", "2024-01-20", "--config", "absent.yaml"), 2, "absent.yaml"),
        (("nonsense",), 2, "No such command"),
        (("run", "--nonsense"), 2, "No such option"),
        (("stop",), 2, "--reason"),
        (("halt", "--reason", "enough"), 2, "--by"),
        (("halt", "--by", "me"), 2, "--reason"),
        (("reset", "--reason", "over"), 2, "--by"),
        (("explain", "--layer", "8"), 2, "is no layer"),
        (("explain", "--limit", "0"), 2, "--limit"),
        (("summary", "--from", "2024-01-16", "--to", "2024-01-15"), 2, "is after"),
        (("summary", "--from", "2024-01-16", "--date", "2024-01-15"), 2, "leave out --date"),
        (("flatten",), 2, "--reason"),
        (("flatten", "--reason", "x", "--date", "2024-13-01"), 2, "is not a date"),
        (("flatten", "--reason", "x", "--wait", "0"), 2, "is not a number of seconds"),
    ],
)
def test_main_bad_usage_is_told_in_words_with_exit_code_two(
    arguments: tuple[str, ...],
    code: int,
    text: str,
    var: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_main(monkeypatch, *arguments) == code
    shown = capsys.readouterr()
    assert text in shown.err
    assert "Traceback" not in shown.err + shown.out
    assert not var.exists()


def test_main_an_operating_error_is_one_message_and_its_exit_code(
    config: Path, var: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_main(monkeypatch, "halt", "--reason", "x", "--by", "me", "--config", str(config)) == 1
    shown = capsys.readouterr()
    assert shown.err.startswith("velox: no run of any date below")
    assert shown.out == ""


@pytest.mark.parametrize("command", [("explain",), ("explain", "--date", "2024-01-15"), ("summary", "--from", "2024-01-15")])
def test_main_looking_back_at_a_run_that_is_not_there_is_an_operating_error(
    command: tuple[str, ...], config: Path, var: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_main(monkeypatch, *command, "--config", str(config)) == 1
    assert "on record" in capsys.readouterr().err
    assert not var.exists()


def test_main_a_bug_is_one_line_and_its_traceback_is_kept_in_a_file(
    config: Path, var: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise KeyError("lost")

    monkeypatch.setattr("velox_core.cli.status.newest_status", broken)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert run_main(monkeypatch, "status", "--config", str(config)) == 1
    shown = capsys.readouterr().err
    assert "internal error, KeyError: 'lost'" in shown
    assert "Traceback" not in shown
    (kept,) = tmp_path.glob("velox-error-*.txt")
    assert "KeyError: 'lost'" in kept.read_text(encoding="utf-8")


def test_calendar_of_a_date_says_its_session_or_why_there_is_none(velox: Invoke) -> None:
    open_day = json.loads(velox("calendar", "--date", "2024-01-20", "--json").stdout)
    assert (open_day["open"], open_day["special"]) == (True, True)
    assert {phase["phase"] for phase in open_day["phases"]} >= {"continuous"}
    closed = json.loads(velox("calendar", "--date", "2024-01-26", "--json").stdout)
    assert (closed["open"], closed["next_session"]) == (False, "2024-01-29")
    assert "Republic Day" in velox("calendar", "--date", "2024-01-26").stdout
    assert "not in the calendar" in velox("calendar", "--date", "2031-01-01").stdout
    assert "09:15:00" in velox("calendar", "--date", "2024-01-20").stdout


def test_check_passes_on_the_shipped_default_and_warns_of_what_a_laptop_has_not_got(velox: Invoke, var: Path) -> None:
    result = velox("check", "--json")
    assert result.exit_code == 0
    answer = json.loads(result.stdout)
    assert answer["passed"] is True
    verdicts = {item["item"]: item["verdict"] for item in answer["items"]}
    assert len(verdicts) == 12
    assert (verdicts["redis"], verdicts["influxdb"], verdicts["guard"]) == ("PASSED", "WARNED", "WARNED")
    assert not (var / "simulated").exists()  # looking arms nothing


def test_check_with_a_refusing_item_exits_three_and_says_what_to_do(velox: Invoke, config: Path) -> None:
    config.write_text(
        config.read_text(encoding="utf-8") + "\n  checklist: {severities: {influxdb: refuse}}\n", encoding="utf-8"
    )
    result = velox("check")
    assert result.exit_code == 3
    assert "refused by influxdb" in result.stdout
    assert "system.metrics.influxdb.enabled" in re.sub(r"\s+", "", result.stdout)


def test_stop_without_an_engine_is_an_error_that_says_so(velox: Invoke) -> None:
    result = velox("stop", "--reason", "test")
    assert "nothing to stop" in str(result.exception)


def test_status_of_an_engine_that_died_with_a_position_says_so_and_exits_four(velox: Invoke, var: Path) -> None:
    folder = var / "replay" / "primary" / "2024-01-15-1"
    folder.mkdir(parents=True)
    body = {"state": "RUNNING", "pid": 2**22 + 12345, "wall_ms": 1, "positions": [{"symbol": "TCS", "quantity": 1}]}
    (folder / "status.json").write_text(json.dumps(body))
    (folder / "run.json").write_text('{"state": "BEGUN"}')
    result = velox("status")
    assert result.exit_code == 4
    assert "DIED" in result.stdout
    assert "Take the run up: " in result.stdout
    assert "guard: ABSENT. Start it: " in result.stdout
    answer = velox("status", "--json")
    said = json.loads(answer.stdout)
    assert (answer.exit_code, said["held"], said["guard"]["state"]) == (4, "1 TCS", "ABSENT")


@pytest.mark.parametrize("command", ["run", "day"])
def test_commands_on_a_holiday_say_so_and_start_nothing(command: str, velox: Invoke, var: Path) -> None:
    result = velox(command, "--date", "2024-01-26")
    assert result.exit_code == 0
    assert "no session (holiday: Republic Day)" in result.stdout
    assert not var.exists()


@pytest.mark.parametrize("command", ["run", "day"])
@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--date", "2024-01-17"), "no bars of 2024-01-17"),
        (("--date", "2031-01-06"), "2031 is not in the calendar"),
        (("--scenario", "storm"), "choose one of calm, trend, crash"),
    ],
)
def test_commands_on_a_day_that_cannot_be_are_bad_usage(
    command: str, arguments: tuple[str, ...], text: str, velox: Invoke, var: Path
) -> None:
    result = velox(command, *arguments)
    assert isinstance(result.exception, VeloxError)
    assert result.exception.exit_code == 2
    assert text in str(result.exception)
    assert not var.exists()


def test_version_is_shown() -> None:
    assert CliRunner().invoke(app, ["--version"]).stdout.startswith("velox ")


def test_check_with_a_strategy_that_does_not_load_says_so(velox: Invoke, config: Path) -> None:
    config.write_text(config.read_text(encoding="utf-8").replace(":SmaCross", ":SmaCros"), encoding="utf-8")
    result = velox("check", "--json")
    assert result.exit_code == 2
    answer = json.loads(result.stdout)
    assert answer["passed"] is False
    assert "SmaCros" in answer["problems"][0]


@pytest.fixture
def ran(velox: Invoke) -> Any:
    result = velox("run", "--date", "2024-01-15", "--speed", "max", "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_run_of_the_real_day_prints_its_report_as_json_and_leaves_logs_status_and_summary(
    ran: Any, velox: Invoke, var: Path
) -> None:
    assert (ran["flat"], ran["exit_code"], ran["run_id"], ran["synthetic"]) == (True, 0, "2024-01-15-1", False)
    assert ran["net_paise"] == sum(trade["net_paise"] for trade in ran["trades"])
    logs = var / "logs" / "simulated"
    assert len(list(logs.iterdir())) == 4
    assert "[RISK_CHECK]" in (logs / "risk_manager.log").read_text(encoding="utf-8")

    status = json.loads(velox("status", "--json").stdout)
    assert (status["state"], status["run_id"], status["alive"]) == ("DONE", "2024-01-15-1", False)
    assert "DONE" in velox("status").stdout
    summary = velox("summary", "--date", "2024-01-15")
    assert "Net P&L" in summary.stdout
    assert "Decisions of the gate" in summary.stdout
    assert json.loads(velox("summary", "--json").stdout) == ran
    assert "2024-01-15-1" in velox("summary", "--list").stdout
    assert json.loads(velox("summary", "--run", "2024-01-15-1", "--json").stdout) == ran
    assert "no run 2024-01-15-9" in str(velox("summary", "--run", "2024-01-15-9").exception)
    assert "no run of 2024-01-16" in str(velox("summary", "--date", "2024-01-16").exception)


def test_summary_export_writes_the_same_bytes_for_two_runs_of_the_same_day(ran: Any, velox: Invoke, tmp_path: Path) -> None:
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    assert velox("summary", "--export", str(first)).exit_code == 0
    assert velox("run", "--date", "2024-01-15", "--speed", "60000", "--json").exit_code == 0
    assert velox("summary", "--export", str(second)).exit_code == 0
    assert first.read_bytes() == second.read_bytes()
    assert first.read_bytes()
    assert "cannot be written" in str(velox("summary", "--export", str(tmp_path / "absent" / "x")).exception)


def test_run_of_the_guides_start_line_writes_the_production_logs(var: Path) -> None:
    """`velox run --config config/system_production.yaml --date 2024-01-15 --speed 1.0`, only faster."""
    config = str(ROOT / "config" / "system_production.yaml")
    result = CliRunner().invoke(app, ["run", "--config", config, "--date", "2024-01-15", "--speed", "max"])
    assert result.exit_code == 0, result.output
    assert "ended flat" in result.stdout
    names = sorted(path.name for path in (var / "logs" / "production").iterdir())
    assert names == ["emergency_exit.log", "order_manager.log", "risk_manager.log", "system.log"]


def test_run_on_a_crash_shows_the_halt_the_overshoot_and_that_the_data_are_synthetic(velox: Invoke, var: Path) -> None:
    result = velox("run", "--date", "2024-01-16", "--speed", "max", "--scenario", "crash")
    assert result.exit_code == 0
    for text in (
        "Trading was halted",
        "Overshoot past the limit",
        "SYNTHETIC DATA",
        "Refused by 1. Emergency exit",
        "20240116-LOSS-1",
    ):
        assert text in result.stdout
    assert "EMERGENCY EXIT TRIGGERED" in (var / "logs" / "simulated" / "emergency_exit.log").read_text(encoding="utf-8")


def test_status_of_an_engine_that_is_gone_says_what_it_said_last_and_how_long_ago(velox: Invoke, var: Path) -> None:
    folder = var / "replay" / "primary" / "2024-01-15-1"
    folder.mkdir(parents=True)
    body = {"state": "RUNNING", "pid": 2**22 + 12345, "wall_ms": round(time.time() * 1_000) - 5 * 3_600_000}
    (folder / "status.json").write_text(json.dumps(body))
    (folder / "run.json").write_text('{"state": "BEGUN"}')
    shown = " ".join(velox("status").stdout.replace("│", " ").split())
    assert f"State DIED (process {2**22 + 12345} is gone, said RUNNING 5 h ago)" in shown
    (folder / "status.json").write_text(json.dumps(body | {"state": "DONE"}))
    ended = " ".join(velox("status").stdout.replace("│", " ").split())
    assert f"State DONE (process {2**22 + 12345} is gone, said so 5 h ago)" in ended
