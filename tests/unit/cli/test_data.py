"""`velox data`: what is printed, what is JSON, and the exit codes."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.unit.feeds.files import bars, lines, written
from velox_core.cli.app import app
from velox_core.domain.errors import DataError

PROJECT = Path(__file__).parents[3]
CONFIG = ["--config", str(PROJECT / "config" / "system_simulated.yaml")]
HEADER = "date,open,high,low,close,volume"


def test_inspect_of_the_committed_day_says_format_dates_and_how_it_is_traded() -> None:
    result = CliRunner().invoke(app, ["data", "inspect", str(PROJECT / "data" / "tcs_2024-01-15.csv"), *CONFIG])
    assert result.exit_code == 0, result.output
    for text in (
        "Zerodha export",
        "stamped at the start of the bar (the first bar stands at the open)",
        "2024-01-15 Mon   normal",
        "375 of 375",
        "No row was refused, and nothing is unusual.",
        "1-minute bars; marks at the close, a stop is taken before a target",
        "continuous 09:15-15:30",
        "entries 09:15-14:45, square-off from 15:05, last order",
    ):
        assert text in result.output


def test_inspect_json_names_findings_closed_days_and_the_auction(tmp_path: Path) -> None:
    auction, mock = date(2026, 8, 18), date(2026, 8, 15)
    body = [*lines(bars(mock, count=40)), *lines(bars(auction)), "1970-01-01 05:30:00+05:30,1,1,1,1,1"]
    path = written(tmp_path / "TCS.csv", HEADER, body)
    result = CliRunner().invoke(app, ["data", "inspect", str(path), "--json", *CONFIG])
    assert result.exit_code == 0, result.output
    found = json.loads(result.output)
    closed, traded = found["dates"]
    assert (closed["date"], closed["problem"].startswith("no session")) == ("2026-08-15", True)
    assert {entry["rule"]: entry["count"] for entry in traded["quality"]} == {
        "impossible date": 1,
        "closed day or mock session": 40,
        "closing auction": 15,
    }
    assert traded["bars_per_symbol"] == {"least": 360, "most": 360, "whole_session": 360}
    assert "continuous 09:15-15:15, closing auction 15:15-15:35" in traded["phases"][0]


def test_inspect_of_a_doubt_says_the_option_and_exits_1_until_it_is_given(tmp_path: Path) -> None:
    path = written(tmp_path / "TCS.csv", "timestamp,open,high,low,close,volume", lines(bars()[60:200], stamp="naive"))
    asked = CliRunner().invoke(app, ["data", "inspect", str(path), *CONFIG])
    assert asked.exit_code == 1
    assert "--stamps start or --stamps end" in " ".join(asked.output.split())
    told = CliRunner().invoke(app, ["data", "inspect", str(path), "--stamps", "end", *CONFIG])
    assert told.exit_code == 0
    assert "stamped at the end of the bar (said by the option)" in told.output


@pytest.mark.parametrize(("option", "value"), [("--stamps", "middle"), ("--naive-times", "est"), ("--bar-minutes", "7")])
def test_inspect_with_a_value_that_is_none_exits_2(tmp_path: Path, option: str, value: str) -> None:
    result = CliRunner().invoke(app, ["data", "inspect", str(tmp_path), option, value, *CONFIG])
    assert result.exit_code == 2


def test_inspect_names_the_file_that_cannot_be_read_and_shows_the_others(tmp_path: Path) -> None:
    written(tmp_path / "TCS.csv", HEADER, lines(bars()))
    written(tmp_path / "NOTES.csv", "a,b", ["1,2"])
    result = CliRunner().invoke(app, ["data", "inspect", str(tmp_path), "--json", *CONFIG])
    found = json.loads(result.output)
    assert result.exit_code == 1
    assert [(note["file"], bool(note["error"])) for note in found["files"]] == [("NOTES.csv", True), ("TCS.csv", False)]
    assert "NOTES.csv has no column" in found["problem"]


def test_inspect_of_ticks_counts_them(tmp_path: Path) -> None:
    body = [f"2024-01-15 09:{16 + second // 60:02d}:{second % 60:02d},100.05,{second}" for second in range(180)]
    path = written(tmp_path / "TCS.csv", "timestamp,ltp,volume", [*body, body[-1]])
    result = CliRunner().invoke(app, ["data", "inspect", str(path), "--json", *CONFIG])
    found = json.loads(result.output)
    assert [note["layout"] for note in found["files"]] == ["ticks"]
    assert found["dates"][0]["ticks"] == 180
    assert {entry["rule"]: entry["count"] for entry in found["dates"][0]["quality"]} == {"duplicate": 1}


def test_import_says_what_it_did_twice_and_refuses_other_data(tmp_path: Path) -> None:
    path = written(tmp_path / "TCS.csv", HEADER, lines(bars()))
    command = ["data", "import", str(path), "--to", str(tmp_path / "stored"), *CONFIG]
    first = CliRunner().invoke(app, command)
    assert first.exit_code == 0, first.output
    assert "375 bars of 1 dates from TCS.csv imported into" in first.output
    assert "nothing to do" in CliRunner().invoke(app, command).output
    written(path, HEADER, lines(bars(base=200_000)))
    refused = CliRunner().invoke(app, command)
    assert isinstance(refused.exception, DataError)
    assert json.loads(CliRunner().invoke(app, [*command, "--replace", "--json"]).output)["written"] is True


def test_inspect_counts_what_is_not_there_in_minutes_and_what_is_there_in_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "150")
    rows = bars()
    path = written(tmp_path / "TCS.csv", HEADER, [*lines(rows[:100]), *lines(rows[112:]), lines(rows)[-1]])
    result = CliRunner().invoke(app, ["data", "inspect", str(path), *CONFIG])
    assert result.exit_code == 0, result.output
    (missing,) = [line for line in result.output.splitlines() if "minutes without a bar" in line]
    (doubled,) = [line for line in result.output.splitlines() if "duplicate" in line]
    assert "12 minutes" in missing
    assert "1 row " in doubled
