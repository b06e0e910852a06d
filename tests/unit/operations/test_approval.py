"""A day that a person must approve: what arms it, what does not, and what ends a yes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

from velox_core.domain.errors import EXIT_CHECKLIST_FAILED, ConfigError
from velox_core.operations.account_journal import account_scope, open_reader, open_records
from velox_core.operations.approval import Approval, record_answer, standing_approval
from velox_core.operations.checklist import ItemResult, Verdict
from velox_core.operations.day import Day, DayRequest, open_day
from velox_core.operations.day_pass import check_day_pass
from velox_core.operations.market_open import ChecklistFailed, NotApproved, approve_day, arm_day, wait_for_approval
from velox_core.settings import Paths, Settings

ASKS = "\n  checklist: {approval: {required: true, minutes: 1}}\n"
DATE = date(2024, 1, 16)
PASSED = [ItemResult(item="fixed_lot_size", title="Lot", verdict=Verdict.PASSED, measured="1", advice="")]
REFUSED = [ItemResult(item="redis", title="Redis", verdict=Verdict.FAILED, measured="gone", advice="start it")]
SettingsWith = Callable[..., Settings]


def day_of(settings: Settings, paths: Paths) -> Day:
    return open_day(DayRequest(config=settings.source, date=DATE, scenario="calm"), {"VELOX__VAR": str(paths.var)})


@pytest.fixture
def day(settings_with: SettingsWith, paths: Paths) -> Day:
    return day_of(settings_with(extra=ASKS), paths)


def answers(day: Day) -> tuple[bool, str, str]:
    with open_reader(day.settings, day.paths) as reader:
        row = reader.approval(account_scope(day.settings).key, DATE)
    assert row is not None
    return row.approved, row.by, row.note


def test_day_without_an_approval_is_not_armed_and_says_how_to_approve_it(day: Day) -> None:
    with pytest.raises(NotApproved, match=r"nobody approved it.*check --config \S+ --date 2024-01-16 --approve-as") as caught:
        arm_day(day, PASSED)
    assert caught.value.exit_code == EXIT_CHECKLIST_FAILED
    assert "nobody approved it" in check_day_pass(day.settings, day.paths, DATE)


def test_day_that_asks_nobody_is_armed_without_one(settings_with: SettingsWith, paths: Paths) -> None:
    day = day_of(settings_with(), paths)
    assert wait_for_approval(day, PASSED) is False
    assert arm_day(day, PASSED) == "2024-01-16"
    assert check_day_pass(day.settings, day.paths, DATE) == ""


def test_approved_day_is_armed_with_name_and_note_in_its_pass(day: Day) -> None:
    assert wait_for_approval(day, PASSED) is True
    assert approve_day(day, PASSED, by=" Asha ", note="results day, small size") is True
    assert wait_for_approval(day, PASSED) is False  # nobody is asked twice
    assert arm_day(day, PASSED) == "2024-01-16"
    assert check_day_pass(day.settings, day.paths, DATE) == ""
    with open_reader(day.settings, day.paths) as reader:
        found = reader.day_pass(account_scope(day.settings).key, DATE)
    assert found is not None
    assert (found.approved_by, found.approval_note) == ("Asha", "results day, small size")
    assert found.approved_wall_ms is not None
    assert found.approved_wall_ms <= found.armed_wall_ms


def test_waiting_takes_an_older_pass_away(day: Day) -> None:
    approve_day(day, PASSED, by="Asha", note="")
    arm_day(day, PASSED)
    record_answer(day.settings, day.paths, DATE, approved=False, by="Ravi", note="not today")
    assert wait_for_approval(day, PASSED) is True
    assert "nobody approved it" in check_day_pass(day.settings, day.paths, DATE)


def test_no_after_a_yes_counts(day: Day) -> None:
    approve_day(day, PASSED, by="Asha", note="")
    record_answer(day.settings, day.paths, DATE, approved=False, by="", note="nobody answered")
    assert standing_approval(day.settings, day.paths, DATE) is None
    with pytest.raises(NotApproved):
        arm_day(day, PASSED)


def test_refusal_by_the_checklist_ends_the_yes_before_it(day: Day) -> None:
    approve_day(day, PASSED, by="Asha", note="")
    with pytest.raises(ChecklistFailed):
        arm_day(day, REFUSED)
    assert answers(day) == (False, "market_open", "refused by the checklist")
    with pytest.raises(NotApproved):
        arm_day(day, PASSED)


def test_nobody_is_asked_about_a_day_that_is_refused_anyway_nor_can_approve_it(day: Day) -> None:
    assert wait_for_approval(day, REFUSED) is False
    assert approve_day(day, REFUSED, by="Asha", note="") is False
    assert not (day.paths.var / "simulated").exists()


def test_approval_of_another_configuration_or_date_does_not_count(day: Day, settings_with: SettingsWith, paths: Paths) -> None:
    approve_day(day, PASSED, by="Asha", note="")
    assert standing_approval(day.settings, day.paths, date(2024, 1, 17)) is None
    changed = day_of(settings_with(extra=ASKS, max_daily_loss="1999"), paths)
    assert standing_approval(changed.settings, changed.paths, DATE) is None
    with pytest.raises(NotApproved):
        arm_day(changed, PASSED)


def test_pass_that_carries_no_approval_is_refused_whoever_wrote_it(day: Day) -> None:
    with open_records(day.settings, day.paths) as records:
        records.save_day_pass(
            scope_key=account_scope(day.settings).key,
            trading_date=DATE,
            config_hash=day.settings.config_hash,
            armed_by="market_open",
            armed_wall_ms=1,
        )
    assert "nobody approved it" in check_day_pass(day.settings, day.paths, DATE)


@pytest.mark.parametrize(
    ("name", "note"), [("", ""), ("   ", ""), ("a" * 65, ""), ("two\nlines", ""), ("Asha", "n" * 501), ("Asha", "a\tb")]
)
def test_answer_without_a_name_or_with_text_that_is_no_line_is_refused(day: Day, name: str, note: str) -> None:
    with pytest.raises(ConfigError, match="approval"):
        approve_day(day, PASSED, by=name, note=note)
    assert standing_approval(day.settings, day.paths, DATE) is None


def test_approving_where_nothing_asks_for_it_is_a_mistake_that_is_told(settings_with: SettingsWith, paths: Paths) -> None:
    with pytest.raises(ConfigError, match="no day waits for an approval"):
        approve_day(day_of(settings_with(), paths), PASSED, by="Asha", note="")


def test_standing_approval_says_who_what_and_when(day: Day) -> None:
    assert standing_approval(day.settings, day.paths, DATE) is None
    approve_day(day, PASSED, by="Asha", note="ok")
    found = standing_approval(day.settings, day.paths, DATE)
    assert found is not None
    assert found == Approval(by="Asha", note="ok", at_wall_ms=found.at_wall_ms)


def test_journal_of_before_approvals_is_brought_up_when_the_day_opens(day: Day, tmp_path: Path) -> None:
    from sqlalchemy import create_engine

    from velox_core.journal.migrate import upgrade

    folder = day.paths.var / "simulated" / "primary"
    folder.mkdir(parents=True)
    engine = create_engine(f"sqlite:///{folder / 'journal.db'}")
    upgrade(engine, "0003")
    engine.dispose()
    assert wait_for_approval(day, PASSED) is True
    approve_day(day, PASSED, by="Asha", note="")
    assert arm_day(day, PASSED) == "2024-01-16"


def test_no_that_comes_after_the_day_was_armed_ends_its_pass(day: Day) -> None:
    approve_day(day, PASSED, by="Asha", note="")
    arm_day(day, PASSED)
    record_answer(day.settings, day.paths, DATE, approved=False, by="Ravi", note="not today")
    assert "nobody approved it" in check_day_pass(day.settings, day.paths, DATE)
