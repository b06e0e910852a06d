"""`velox reset` where it is refused: what it advises, and what it leaves as it was."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from velox_core.domain.errors import JournalUnavailable
from velox_core.operations.reset import request_reset, while_it_runs
from velox_core.runs import RunState, write_state
from velox_core.settings import Paths, Settings

Load = Callable[..., Settings]


def test_reset_refused_by_a_running_engine_does_not_say_to_run_it_again() -> None:
    said = "reset refused: not flat (1 TCS); run the engine again first, it squares off"
    shown = while_it_runs(said, 4)
    assert shown.startswith("reset refused: not flat (1 TCS); its engine runs")
    assert "again first" not in shown
    assert while_it_runs("reset refused: a LOSS halt", 1) == "reset refused: a LOSS halt"


def test_reset_of_a_run_whose_journal_is_gone_is_an_operating_error_and_creates_none(settings_with: Load, paths: Paths) -> None:
    folder = paths.var / "replay" / "primary" / "2024-01-15-1"
    write_state(folder, RunState.BEGUN)
    with pytest.raises(JournalUnavailable) as caught:
        request_reset(settings_with(), paths, reason="over", by="me", wait_seconds=0.0)
    assert caught.value.exit_code == 1
    assert not (folder / "journal.db").exists()
