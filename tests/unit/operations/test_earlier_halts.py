"""A halt of an earlier date and the opening of the next: what refuses it, what it says, and what ends it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

from velox_core.domain.events import EventKind
from velox_core.domain.halts import HaltKind, HaltRecord, clear_of
from velox_core.halt_file import HALT_FILE, JsonLinesHaltFile
from velox_core.journal.run import RunIdentity
from velox_core.journal.sql import SqlJournal
from velox_core.operations import earlier_halts
from velox_core.operations.checklist import ItemResult, Verdict
from velox_core.operations.day import DayRequest, open_day
from velox_core.operations.day_pass import check_day_pass
from velox_core.operations.earlier_halts import earlier_halt
from velox_core.operations.eod_record import RECORD_FILE
from velox_core.operations.json_file import write_json
from velox_core.operations.market_open import ChecklistFailed, arm_day
from velox_core.operations.unended_day import unended_day
from velox_core.runs import RunState, write_state
from velox_core.settings import Paths, Settings

YESTERDAY, TODAY = date(2024, 1, 15), date(2024, 1, 16)
HALT = HaltRecord(
    halt_id="20240115-LOSS-1",
    kind=HaltKind.LOSS,
    trading_date=YESTERDAY,
    reason="daily loss 2000.00 reached the limit 2000.00",
    by="engine",
    at_ms=1,
)
CLEAR = clear_of(HALT, reason="end of day", by="end of day", at_ms=2)
SettingsWith = Callable[..., Settings]


@pytest.fixture
def settings(settings_with: SettingsWith) -> Settings:
    return settings_with()


@pytest.fixture
def folder(paths: Paths) -> Path:
    path = paths.var / "replay" / "primary" / "2024-01-15-crash-1"
    write_state(path, RunState.ENDED_HALTED)
    return path


def write(folder: Path, *records: HaltRecord) -> None:
    for record in records:
        JsonLinesHaltFile(folder / HALT_FILE).append(record)


def journal(folder: Path, *records: HaltRecord) -> None:
    identity = RunIdentity(
        scope_key="simulated:primary:2024-01-15-crash-1", trading_date=YESTERDAY, run_id="2024-01-15-crash-1", config_hash=""
    )
    kept = SqlJournal(f"sqlite:///{folder / 'journal.db'}", identity)
    for record in records:
        kept.append(EventKind.HALT_CLEARED if record.clears else EventKind.HALT, record.at_ms, dict(record.to_body()))
    kept.commit()
    kept.close()


def test_halt_that_no_end_of_day_cleared_is_named_with_what_to_do(settings: Settings, paths: Paths, folder: Path) -> None:
    write(folder, HALT)
    line = earlier_halt(settings, paths, TODAY)
    assert line is not None
    assert line.verdict is Verdict.FAILED
    assert line.measured == (
        "run 2024-01-15-crash-1 of 2024-01-15 is halted (20240115-LOSS-1: daily loss 2000.00 reached the limit 2000.00), "
        "and its end of day never ran"
    )
    assert "velox eod --config" in line.advice
    assert "--date 2024-01-15 --scenario crash" in line.advice


@pytest.mark.parametrize("where", ["file", "journal"])
def test_halt_that_one_store_alone_still_holds_counts(where: str, settings: Settings, paths: Paths, folder: Path) -> None:
    (write if where == "file" else journal)(folder, HALT)
    assert earlier_halt(settings, paths, TODAY) is not None


def test_cleared_halt_blocks_nothing(settings: Settings, paths: Paths, folder: Path) -> None:
    write(folder, HALT, CLEAR)
    journal(folder, HALT, CLEAR)
    assert earlier_halt(settings, paths, TODAY) is None


def test_run_whose_end_of_day_ran_blocks_nothing(settings: Settings, paths: Paths, folder: Path) -> None:
    write(folder, HALT)
    write_state(folder, RunState.CLOSED)
    assert earlier_halt(settings, paths, TODAY) is None


def test_halt_stands_behind_a_date_in_between_that_ended_well(settings: Settings, paths: Paths, folder: Path) -> None:
    write(folder, HALT)
    write_state(folder.parent / "2024-01-16-1", RunState.ENDED)
    write_state(folder.parent / "2024-01-17-1", RunState.CLOSED)
    line = earlier_halt(settings, paths, date(2024, 1, 18))
    assert line is not None
    assert "2024-01-15-crash-1" in line.measured
    write(folder, CLEAR)
    assert earlier_halt(settings, paths, date(2024, 1, 18)) is None


def test_journal_that_cannot_be_read_counts_as_a_halt_with_the_way_out(settings: Settings, paths: Paths, folder: Path) -> None:
    (folder / "journal.db").write_bytes(b"no database at all" * 100)
    line = earlier_halt(settings, paths, TODAY)
    assert line is not None
    assert "JOURNAL-UNREADABLE" in line.measured
    assert f"restore {folder / 'journal.db'}" in line.advice
    assert "velox eod --config" in line.advice
    write_state(folder, RunState.CLOSED)
    assert earlier_halt(settings, paths, TODAY) is None


def test_more_earlier_runs_than_are_looked_at_refuse_the_day(
    settings: Settings, paths: Paths, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(earlier_halts, "RUNS_MAX", 1)
    assert earlier_halt(settings, paths, date(2024, 1, 18)) is None
    write_state(folder.parent / "2024-01-16-1", RunState.ENDED)
    line = earlier_halt(settings, paths, date(2024, 1, 18))
    assert line is not None
    assert "2 runs of earlier days have no end of day" in line.measured
    assert "--date 2024-01-15 --scenario crash" in line.advice


def test_end_of_day_that_never_ran_or_left_a_step_undone_is_a_warning_with_the_command(
    settings: Settings, paths: Paths, folder: Path
) -> None:
    line = unended_day(settings, paths, TODAY)
    assert line is not None
    assert line.verdict is Verdict.WARNED
    assert "the end of day of 2024-01-15 (run 2024-01-15-crash-1) never ran" in line.measured
    assert "eod --config" in line.advice
    assert "--date 2024-01-15 --scenario crash" in line.advice
    write_state(folder, RunState.CLOSED)
    assert unended_day(settings, paths, TODAY) is None
    step = {"step": "archive", "state": "FAILED", "text": "no room", "wall_ms": 1, "data": {}}
    body = {"run_id": "2024-01-15-crash-1", "trading_date": "2024-01-15", "last_word": {}, "steps": {"archive": step}}
    write_json(folder / RECORD_FILE, body)
    line = unended_day(settings, paths, TODAY)
    assert line is not None
    assert "is not complete: archive failed" in line.measured
    assert unended_day(settings, paths, YESTERDAY) is None


def test_own_date_and_later_ones_are_not_asked(settings: Settings, paths: Paths, folder: Path) -> None:
    write(folder, HALT)
    assert earlier_halt(settings, paths, YESTERDAY) is None
    assert earlier_halt(settings, paths, date(2024, 1, 12)) is None


def test_market_open_refuses_the_day_and_takes_its_pass_away_until_the_halt_is_cleared(
    settings: Settings, paths: Paths, folder: Path
) -> None:
    environ = {"VELOX__VAR": str(paths.var), "VELOX__LOGS__LEVEL": "INFO"}
    day = open_day(DayRequest(config=settings.source, date=TODAY, scenario="calm"), environ)
    passed = [ItemResult(item="fixed_lot_size", title="Lot", verdict=Verdict.PASSED, measured="1", advice="")]
    assert arm_day(day, passed) == TODAY.isoformat()
    assert check_day_pass(day.settings, day.paths, TODAY) == ""
    write(folder, HALT)
    with pytest.raises(ChecklistFailed, match="its end of day never ran"):
        arm_day(day, passed)
    assert "the last checklist refused" in check_day_pass(day.settings, day.paths, TODAY)
    write(folder, CLEAR)
    assert arm_day(day, passed) == TODAY.isoformat()
