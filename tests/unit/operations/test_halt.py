"""`velox halt` over real files, and no server: what is written, what is named, what a status shows."""

from __future__ import annotations

import json
import os
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from velox_core.domain.errors import ConfigError, VeloxError
from velox_core.domain.halts import HaltKind, HaltRecord, clear_of
from velox_core.halt_file import HALT_FILE, JsonLinesHaltFile
from velox_core.operations.halt import HaltOutcome, request_halt, with_standing_halts
from velox_core.operations.status import Status
from velox_core.operations.view import halt_lines
from velox_core.runs import RunState, write_state
from velox_core.settings import Paths, Settings, load_settings

CONFIG = Path(__file__).resolve().parents[3] / "config" / "system_simulated.yaml"
RUN_ID = "2024-01-15-1"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(CONFIG, {"VELOX__STORES__REDIS__URL": f"unix://{tmp_path / 'nobody.sock'}"})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "var" / "replay" / "primary" / RUN_ID
    write_state(path, RunState.BEGUN)
    return path


def halt(settings: Settings, tmp_path: Path, **changes: Any) -> HaltOutcome:
    values: dict[str, Any] = {"reason": "enough", "by": "a person", "wait_seconds": 0.0} | changes
    return request_halt(settings, Paths(var=tmp_path / "var", logs=tmp_path / "logs"), **values)


def record(halt_id: str, *, keeps: bool = False) -> HaltRecord:
    return HaltRecord(
        halt_id=halt_id,
        kind=HaltKind.MANUAL,
        trading_date=date(2024, 1, 15),
        reason="enough",
        by="a person",
        at_ms=5,
        keeps_positions=keeps,
    )


def kept(folder: Path) -> list[HaltRecord]:
    return JsonLinesHaltFile(folder / HALT_FILE).records()


def test_halt_with_ledger_and_journal_away_is_written_to_the_file_and_names_the_others(
    settings: Settings, tmp_path: Path, folder: Path
) -> None:
    outcome = halt(settings, tmp_path)
    (written,) = kept(folder)
    assert (written.halt_id, written.kind, written.by, written.reason) == (
        outcome.halt_id,
        HaltKind.MANUAL,
        "a person",
        "enough",
    )
    assert written.keeps_positions
    assert not written.closes
    assert (outcome.exit_code, sorted(outcome.missing)) == (0, ["journal", "ledger"])
    assert outcome.to_json()["written"] == ["halt file"]
    assert [line.partition(": the ")[0] for line in outcome.sentences[1:]] == ["not reached", "not reached"]
    assert not (folder / "journal.db").exists()


def test_halt_that_no_store_takes_is_an_error_and_says_so(settings: Settings, tmp_path: Path, folder: Path) -> None:
    (folder / HALT_FILE).mkdir()
    outcome = halt(settings, tmp_path)
    assert (outcome.exit_code, len(outcome.missing)) == (1, 3)
    assert "NOT halted" in outcome.sentences[0]


def test_halt_beside_an_engine_that_does_not_acknowledge_is_written_and_an_error(
    settings: Settings, tmp_path: Path, folder: Path
) -> None:
    body = {
        "state": "RUNNING",
        "pid": os.getpid(),
        "wall_ms": 1 << 50,
        "engine_ms": 1_705_290_660_000,
        "acknowledged_halts": [],
    }
    (folder / "status.json").write_text(json.dumps(body))
    outcome = halt(settings, tmp_path)
    assert (outcome.exit_code, outcome.acknowledged, outcome.pid) == (1, False, os.getpid())
    assert "did not acknowledge" in outcome.sentences[0]
    assert kept(folder)[0].at_ms == 1_705_290_660_000


def test_halt_ids_differ_although_no_store_can_be_read(settings: Settings, tmp_path: Path, folder: Path) -> None:
    (folder / HALT_FILE).mkdir()
    assert len({halt(settings, tmp_path).halt_id for _ in range(5)}) == 5


@pytest.mark.parametrize("state", [RunState.ENDED, RunState.CLOSED])
def test_halt_of_a_run_that_is_over_is_refused_and_writes_nothing(
    state: RunState, settings: Settings, tmp_path: Path, folder: Path
) -> None:
    write_state(folder, state)
    with pytest.raises(VeloxError, match="nothing to halt"):
        halt(settings, tmp_path, run_id=RUN_ID)
    assert kept(folder) == []


@pytest.mark.parametrize("name", ["reason", "by"])
def test_halt_without_a_reason_or_a_name_is_bad_usage(name: str, settings: Settings, tmp_path: Path, folder: Path) -> None:
    with pytest.raises(ConfigError, match=f"--{name} is empty"):
        halt(settings, tmp_path, **{name: "  "})
    assert kept(folder) == []


def test_halt_of_a_date_without_a_run_is_refused(settings: Settings, tmp_path: Path, folder: Path) -> None:
    with pytest.raises(VeloxError, match="2024-01-16"):
        halt(settings, tmp_path, on=date(2024, 1, 16))
    assert kept(folder) == []


# -- what a status shows -------------------------------------------------------------------------------------------


def test_status_shows_the_halts_of_the_engine_and_those_of_the_file_once(folder: Path) -> None:
    JsonLinesHaltFile(folder / HALT_FILE).append(record("h1", keeps=True))
    JsonLinesHaltFile(folder / HALT_FILE).append(record("h2"))
    status = with_standing_halts(Status(folder, {"halts": [record("h1", keeps=True).to_body()]}), alive=True)
    assert [body["halt_id"] for body in status.body["halts"]] == ["h1", "h2"]
    assert status.flag("halted")
    first, second = halt_lines(status)
    assert first.startswith("MANUAL by a person (velox halt, positions are kept), at ")
    assert second.startswith("MANUAL by a person (velox flatten, everything is closed), at ")
    assert (": enough. Ends with velox reset" in first, first[-6:], second[-6:]) == (True, "  [h1]", "  [h2]")


@pytest.mark.parametrize(("alive", "shown"), [(True, ["h1"]), (False, [])])
def test_status_of_an_engine_that_is_gone_leaves_out_what_was_cleared_since(
    alive: bool, shown: list[str], folder: Path
) -> None:
    for one in (record("h1"), clear_of(record("h1"), reason="over", by="p", at_ms=6)):
        JsonLinesHaltFile(folder / HALT_FILE).append(one)
    status = with_standing_halts(Status(folder, {"halts": [record("h1").to_body()], "halted": True}), alive=alive)
    assert [body["halt_id"] for body in status.body["halts"]] == shown
    assert status.flag("halted") is alive


def test_status_of_before_halts_were_listed_shows_its_reason(folder: Path) -> None:
    assert halt_lines(Status(folder, {"halted": True, "halt_reason": "why"})) == ["why"]
    assert halt_lines(Status(folder, {"halted": False})) == []


@pytest.mark.parametrize("named", [{}, {"run_id": RUN_ID}, {"on": date(2024, 1, 15)}])
def test_halt_before_any_run_says_that_nothing_was_halted_and_not_to_trade(
    named: dict[str, Any], settings: Settings, tmp_path: Path
) -> None:
    with pytest.raises(VeloxError, match="Nothing was halted") as caught:
        halt(settings, tmp_path, **named)
    assert "velox day" not in str(caught.value)
    assert "Run one" not in str(caught.value)
    assert not (tmp_path / "var").exists()
