"""`velox reset` where it is refused: what it advises, and what it leaves as it was."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

from velox_core.control import FileControl
from velox_core.domain.errors import JournalUnavailable
from velox_core.domain.halts import HaltKind, HaltRecord
from velox_core.domain.time import ist_midnight_ms
from velox_core.operations.reset import ResetOutcome, begun_on, request_reset, while_it_runs
from velox_core.runs import RunState, write_state
from velox_core.settings import Paths, Settings

Load = Callable[..., Settings]
NOON_MS = ist_midnight_ms(date(2024, 1, 15)) + 12 * 3_600_000


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


def latched(halt_id: str, kind: HaltKind, by: str) -> HaltRecord:
    return HaltRecord(halt_id=halt_id, kind=kind, trading_date=date(2024, 1, 15), reason="why", by=by, at_ms=NOON_MS)


FLATTENS = (latched("m1", HaltKind.MANUAL, "asha"), latched("m2", HaltKind.MANUAL, "asha"))


def test_reset_lists_what_it_cleared_each_thing_once_with_all_its_ids() -> None:
    outcome = ResetOutcome(run_id="r", cleared=("m1", "m2", "ledger-only"), refusal="", exit_code=0, halts=FLATTENS)
    assert outcome.sentence == "run r: 3 halts cleared, none stands any more"
    first, second = outcome.listing
    assert first.startswith("  cleared: MANUAL by asha (velox flatten, everything is closed), at 12:00:00: why (2 times")
    assert first.endswith("[m1, m2]")
    assert second == "  cleared: ledger-only"
    assert [halt["halt_id"] for halt in outcome.to_json()["halts"]] == ["m1", "m2"]


def test_reset_that_is_refused_lists_what_stands_and_how_each_ends() -> None:
    loss = latched("l", HaltKind.LOSS, "engine")
    refused = ResetOutcome(run_id="r", cleared=(), refusal="reset refused: l", exit_code=1, halts=(loss, *FLATTENS))
    assert refused.sentence == "reset refused: l"
    first, second = refused.listing
    assert first.startswith("  stands: LOSS by engine")
    assert "Ends with the end of day of 2024-01-15" in first
    assert second.endswith("Ends with velox reset once the broker says flat, or with the end of day  [m1, m2]")


def test_reset_opens_a_run_on_the_data_it_was_begun_on(paths: Paths) -> None:
    folder = paths.var / "replay" / "primary" / "2024-01-15-1"
    write_state(folder, RunState.BEGUN)
    assert begun_on(folder) is None
    FileControl(folder).publish({"state": "ENDED", "data": "/somewhere/else/bars"})
    assert begun_on(folder) == Path("/somewhere/else/bars")
