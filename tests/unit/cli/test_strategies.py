"""`velox strategies`: the list, one of them, a new one that runs, and what to expect."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from velox_core.cli.app import app
from velox_core.cli.strategies import _show_day
from velox_core.domain.errors import ConfigError, VeloxError

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VELOX__VAR", str(tmp_path / "var"))
    monkeypatch.setenv("COLUMNS", "200")
    path = tmp_path / "config" / "system.yaml"
    path.parent.mkdir()
    text = (ROOT / "config" / "system_simulated.yaml").read_text(encoding="utf-8")
    path.write_text(text.replace("data/tcs_2024-01-15.csv", str(ROOT / "data" / "tcs_2024-01-15.csv")), encoding="utf-8")
    return path


def velox(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["strategies", *arguments])


def add(config: Path, entry: str) -> None:
    text = config.read_text(encoding="utf-8")
    config.write_text(text.replace("  strategies:\n", f"  strategies:\n{entry}"), encoding="utf-8")


def test_list_names_the_configured_ones_and_those_that_could_be(config: Path) -> None:
    answer = velox("--config", str(config))
    assert answer.exit_code == 0, answer.output
    for name in ("opening_range", "sma_cross", "vwap_reversion", "rsi_reversal", "time_stop_minutes=60"):
        assert name in answer.output
    listed = json.loads(velox("--config", str(config), "--json").output)["strategies"]
    configured = {item["name"]: item["configured"] for item in listed}
    assert configured == dict.fromkeys(configured, True)
    assert set(configured) == {"opening_range", "sma_cross", "vwap_reversion", "rsi_reversal"}
    fast = next(p for item in listed if item["name"] == "sma_cross" for p in item["parameters"] if p["name"] == "fast")
    assert (fast["type"], fast["value"], fast["minimum"], fast["maximum"]) == ("int", 10, 1, 10_000)


def test_show_gives_every_parameter_and_rule_with_range_and_meaning(config: Path) -> None:
    answer = velox("show", "rsi_reversal", "--config", str(config))
    assert answer.exit_code == 0, answer.output
    for text in ("oversold", "from 1 to 49", "lower zone, RSI points", "trailing_stop_percent", "Wilder"):
        assert text in answer.output
    unknown = velox("show", "rsi", "--config", str(config))
    assert isinstance(unknown.exception, ConfigError)
    assert "known are opening_range, rsi_reversal, sma_cross, vwap_reversion" in str(unknown.exception)


def test_strategy_that_cannot_be_loaded_is_named_with_exit_code_two(config: Path) -> None:
    add(config, "    - name: lost\n      path: nowhere.py\n")
    answer = velox("--config", str(config))
    assert answer.exit_code == 2
    assert "PROBLEM" in answer.output
    shown = velox("show", "lost", "--config", str(config))  # the table breaks the words where the folder's name is long
    assert shown.exit_code == 2
    assert "cannot be loaded" in shown.output
    assert "nowhere.py cannot be read" in shown.output


def test_new_strategy_passes_its_own_test_and_is_not_overwritten(config: Path) -> None:
    answer = velox("new", "my_breakout", "--config", str(config))
    assert answer.exit_code == 0, answer.output
    folder = config.parent.parent / "my_strategies"
    assert "path: my_strategies/my_breakout.py" in answer.output
    tested = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "--rootdir",
            str(folder),
            "-c",
            "/dev/null",
            str(folder),
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=240,
        check=False,
    )
    assert "3 passed" in tested.stdout, tested.stdout + tested.stderr
    again = velox("new", "my_breakout", "--config", str(config))
    assert isinstance(again.exception, VeloxError)
    assert "is there already" in str(again.exception)
    odd = velox("new", "My-Idea", "--config", str(config))
    assert isinstance(odd.exception, ConfigError)
    add(config, "    - name: my_breakout\n      path: my_strategies/my_breakout.py\n")
    shown = velox("show", "my_breakout", "--config", str(config))
    assert (shown.exit_code, "closes that are looked back at" in shown.output) == (0, True)


def test_expect_replays_and_keeps_what_each_strategy_did(config: Path) -> None:
    span = ("--scenario", "trend", "--from", "2024-01-15", "--to", "2024-01-16")
    answer = velox("expect", *span, "--config", str(config))
    assert answer.exit_code == 0, answer.output
    assert "2024-01-16  net" in answer.output
    assert "SYNTHETIC" in answer.output
    assert "2 days are too few for a band" in answer.output
    kept = json.loads((config.parent.parent / "var" / "replay" / "primary" / "expectations.json").read_text())
    assert (kept["synthetic"], len(kept["strategies"]["sma_cross"]["days"])) == (True, 2)
    unbounded = velox("expect", "--scenario", "trend", "--config", str(config))
    assert isinstance(unbounded.exception, ConfigError)
    of_data = velox("expect", "--config", str(config), "--json")
    assert of_data.exit_code == 0, of_data.output
    data = of_data.stdout if of_data.stdout.startswith("{") else of_data.output[of_data.output.index("{") :]
    assert {item["days"] for item in json.loads(data)["strategies"]} == {1}


def test_strategies_without_an_expectation_are_one_line_each_and_what_to_do_is_said_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    day = {"trades": 2, "wins": 1, "approved": 2, "refused": 3, "net_paise": -12_345, "disabled": "", "expected": None}
    names = ("opening_range", "sma_cross", "vwap_reversion", "rsi_reversal")
    views = [
        SimpleNamespace(name=name, day=day | {"expected": {"verdict": "MISSING"} if name[0] == "r" else None}) for name in names
    ]
    _show_day("2024-01-15-1", views)
    shown = capsys.readouterr().out
    assert shown.count("none *") == 4
    assert shown.count("velox strategies expect") == 1
    assert sum(line.strip() != "" for line in shown.splitlines()) <= 2 + 4 + 2 + 1  # headings, strategies, note, run
