"""What an answer to the approval's form does to a yes that came another way. No server: the form's answer is given."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import pytest

from tasks import approval
from tasks.approval import ask_approval
from velox_core.operations.approval import record_answer, standing_approval
from velox_core.operations.checklist import ItemResult
from velox_core.operations.day import Day, DayRequest, open_day

ROOT = Path(__file__).resolve().parents[3]
ASKS = "\n  checklist: {approval: {required: true, minutes: 1}}\n"
SILENCE = "nobody approved it within 1 minutes"


@pytest.fixture
def day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Day:
    text = (ROOT / "config" / "system_simulated.yaml").read_text(encoding="utf-8")
    path = tmp_path / "system.yaml"
    path.write_text(text.replace("data/tcs", str(ROOT / "data" / "tcs")) + ASKS, encoding="utf-8")

    async def nobody(*_: object) -> tuple[None, str]:
        return None, SILENCE

    def keep(day: Day, *, approved: bool, by: str, note: str) -> None:
        record_answer(day.settings, day.paths, day.trading_date, approved=approved, by=by, note=note)

    def hold(day: Day, results: Sequence[ItemResult]) -> bool:
        return True

    monkeypatch.setattr(approval, "_answer", nobody)
    monkeypatch.setattr(approval, "keep_answer", keep)
    monkeypatch.setattr(approval, "hold_day", hold)
    environ = {"VELOX__VAR": str(tmp_path / "var")}
    return open_day(DayRequest(config=path, date=date(2024, 1, 15), scenario="calm"), environ)


def test_form_that_nobody_answered_takes_no_yes_back_that_came_another_way(day: Day) -> None:
    record_answer(day.settings, day.paths, day.trading_date, approved=True, by="Asha", note="by telephone")
    assert asyncio.run(ask_approval(day, [])) is None
    found = standing_approval(day.settings, day.paths, day.trading_date)
    assert found is not None
    assert found.by == "Asha"


def test_form_that_nobody_answered_is_a_no_where_nobody_said_yes(day: Day) -> None:
    state = asyncio.run(ask_approval(day, []))
    assert state is not None
    assert state.name == "NotApproved"
    assert standing_approval(day.settings, day.paths, day.trading_date) is None
