"""`velox check`: for a date, and with a person's yes for configurations that ask for one."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from velox_core.cli.app import app
from velox_core.domain.errors import EXIT_BAD_USAGE, EXIT_CHECKLIST_FAILED, EXIT_DONE, ConfigError
from velox_core.domain.halts import HaltKind, HaltRecord
from velox_core.halt_file import HALT_FILE, JsonLinesHaltFile
from velox_core.operations import checklist
from velox_core.operations.approval import Approval, standing_approval
from velox_core.operations.checklist import ItemResult, Verdict
from velox_core.operations.market_open import arm_day
from velox_core.runs import RunState, write_state
from velox_core.settings import Paths, load_settings, paths

ROOT = Path(__file__).resolve().parents[3]
ASKS = "\n  checklist: {approval: {required: true, minutes: 1}}\n"
DATE = "2024-01-15"  # the date of the shipped data
PASSED = ItemResult(item="fixed_lot_size", title="Lot", verdict=Verdict.PASSED, measured="1", advice="")
REFUSED = ItemResult(item="redis", title="Redis", verdict=Verdict.FAILED, measured="gone", advice="start it")
Check = Callable[..., Any]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    text = (ROOT / "config" / "system_simulated.yaml").read_text(encoding="utf-8").replace("data/tcs", f"{ROOT}/data/tcs")
    path = tmp_path / "config" / "system.yaml"
    path.parent.mkdir()
    path.write_text(text + ASKS, encoding="utf-8")
    return path


@pytest.fixture
def check(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Check:
    """Run `velox check`; the checklist's items are given, what they measure is tested elsewhere."""
    monkeypatch.setenv("VELOX__VAR", str(tmp_path / "var"))

    def run(*arguments: str, items: ItemResult = PASSED) -> Any:
        monkeypatch.setattr(checklist, "run_checklist", lambda settings, where: [items])
        return CliRunner().invoke(app, ["check", "--config", str(config), *arguments])

    return run


def places(config: Path, tmp_path: Path) -> Paths:
    return paths({"VELOX__VAR": str(tmp_path / "var")}, load_settings(config, {}).root)


def standing(config: Path, tmp_path: Path, on: str = DATE) -> Approval | None:
    environ = {"VELOX__VAR": str(tmp_path / "var")}
    settings = load_settings(config, environ)
    return standing_approval(settings, paths(environ, settings.root), date.fromisoformat(on))


def test_approve_as_keeps_name_and_note_for_the_configurations_own_day(check: Check, config: Path, tmp_path: Path) -> None:
    done = check("--approve-as", "Asha", "--note", "results day, small size")
    assert done.exit_code == EXIT_DONE, done.output
    assert done.stdout.splitlines()[-1] == f"{DATE} is approved by Asha; market open arms it"
    found = standing(config, tmp_path)
    assert found is not None
    assert (found.by, found.note) == ("Asha", "results day, small size")


def test_approve_as_with_a_date_approves_that_date_alone_and_says_so_in_json(
    check: Check, config: Path, tmp_path: Path
) -> None:
    done = check("--approve-as", "Asha", "--date", "2024-01-16", "--json")  # a synthetic day: no file has its bars
    answer = json.loads(done.stdout)
    assert (done.exit_code, answer["approved"], answer["passed"]) == (EXIT_DONE, "2024-01-16", True)
    assert standing(config, tmp_path) is None
    found = standing(config, tmp_path, "2024-01-16")
    assert found is not None
    assert (found.by, found.note) == ("Asha", "")


def test_approved_day_can_then_be_armed(check: Check, config: Path, tmp_path: Path) -> None:
    from velox_core.operations.day import DayRequest, open_day

    assert check("--approve-as", "Asha").exit_code == EXIT_DONE
    day = open_day(DayRequest(config=config, date=date.fromisoformat(DATE)), {"VELOX__VAR": str(tmp_path / "var")})
    assert arm_day(day, [PASSED]) == DATE


def test_refused_day_is_not_approved(check: Check, config: Path, tmp_path: Path) -> None:
    done = check("--approve-as", "Asha", items=REFUSED)
    assert (done.exit_code, done.stdout.splitlines()[-1]) == (
        EXIT_CHECKLIST_FAILED,
        "the day is NOT approved: mend what is refused first",
    )
    assert standing(config, tmp_path) is None


def test_day_that_cannot_be_traded_is_not_approved(check: Check, config: Path, tmp_path: Path) -> None:
    config.write_text(config.read_text().replace("sma_cross:SmaCross", "sma_cross:Nothing"), encoding="utf-8")
    done = check("--approve-as", "Asha", "--json")
    assert (done.exit_code, json.loads(done.stdout)["approved"]) == (EXIT_BAD_USAGE, None)
    assert standing(config, tmp_path) is None


@pytest.mark.parametrize("arguments", [("--approve-as", " "), ("--approve-as", "Asha", "--note", "two\nlines")])
def test_approval_without_a_name_or_with_a_note_of_two_lines_is_refused(
    arguments: tuple[str, ...], check: Check, config: Path, tmp_path: Path
) -> None:
    done = check(*arguments)
    assert isinstance(done.exception, ConfigError)
    assert standing(config, tmp_path) is None


def test_approval_where_none_is_asked_for_is_told(check: Check, config: Path) -> None:
    config.write_text(config.read_text().replace(ASKS, ""), encoding="utf-8")
    assert "no day waits for an approval" in str(check("--approve-as", "Asha").exception)


def test_note_without_a_name_is_bad_usage(check: Check, tmp_path: Path) -> None:
    done = check("--note", "why")
    assert done.exit_code == EXIT_BAD_USAGE
    assert "--note goes with --approve-as NAME" in done.stderr
    assert not (tmp_path / "var").exists()


def test_date_alone_checks_that_day_and_approves_nothing(check: Check, config: Path, tmp_path: Path) -> None:
    assert check("--date", DATE).exit_code == EXIT_DONE
    holiday = check("--date", "2024-01-26")
    assert (holiday.exit_code, "cannot be traded: 2024-01-26: no session (" in holiday.stdout) == (EXIT_BAD_USAGE, True)
    no_bars = check("--date", "2024-01-16", "--json")
    assert no_bars.exit_code == EXIT_BAD_USAGE
    assert "2024-01-16" in json.loads(no_bars.stdout)["problems"][0]
    assert check("--date", "the fifth").exit_code == EXIT_BAD_USAGE
    assert standing(config, tmp_path) is None


def test_date_is_refused_by_a_halt_that_an_earlier_date_left(check: Check, config: Path, tmp_path: Path) -> None:
    folder = places(config, tmp_path).var / "replay" / "primary" / "2024-01-12-calm-1"
    halt = HaltRecord(
        halt_id="H-1", kind=HaltKind.MANUAL, trading_date=date(2024, 1, 12), reason="enough", by="a person", at_ms=1
    )
    write_state(folder, RunState.ENDED_HALTED)
    JsonLinesHaltFile(folder / HALT_FILE).append(halt)
    assert check().exit_code == EXIT_DONE  # the configuration alone
    assert check("--date", DATE).exit_code == EXIT_CHECKLIST_FAILED
