"""A run's report from its journal: where the page lies, and what it says when the day's prices cannot be had any more."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from datetime import date
from pathlib import Path

import pytest

from velox_core.domain.errors import JournalUnavailable, VeloxError
from velox_core.domain.events import EventKind
from velox_core.domain.scope import Scope
from velox_core.journal.run import RunIdentity
from velox_core.journal.sql import SqlJournal
from velox_core.operations.json_file import write_json
from velox_core.operations.recorded import RecordedRun
from velox_core.operations.session_report import make_report, page_path, tell_session
from velox_core.operations.status import STATUS_FILE
from velox_core.run_stores import journal_url
from velox_core.runs import RunState, run_folder, write_state
from velox_core.settings import Paths, Settings

Load = Callable[..., Settings]
DAY = date(2024, 1, 15)
OPEN_MS = 1_705_290_300_000


@pytest.fixture
def settings(settings_with: Load) -> Settings:
    return settings_with()


@pytest.fixture
def recorded(settings: Settings, paths: Paths) -> RecordedRun:
    """A run with one mark in its journal, on the data of the configuration."""
    run = run_folder(paths.var, Scope(broker_type="simulated", account="primary"), "2024-01-15-1")
    write_state(run.folder, RunState.ENDED)
    identity = RunIdentity(scope_key=run.scope.key, trading_date=DAY, run_id=run.run_id, config_hash=settings.config_hash)
    with closing(SqlJournal(journal_url(settings, run), identity)) as journal:
        journal.append(EventKind.MARK, OPEN_MS, {"realised": 0, "open": -250, "charges": 50})
        journal.commit()
    tell(run.folder, data=str(settings.feed.path), source="tcs_2024-01-15.csv")
    return RecordedRun(run=run, trading_date=DAY)


def tell(folder: Path, *, data: str, source: str) -> None:
    write_json(folder / STATUS_FILE, {"data": data, "scenario": "", "source": source, "trading_date": "2024-01-15"})


def test_make_report_writes_the_page_below_var_and_reads_the_days_prices(
    settings: Settings, paths: Paths, recorded: RecordedRun
) -> None:
    made = make_report(settings, paths, recorded)
    assert made.page == page_path(settings, paths, recorded) == paths.var / "reports" / "primary" / "2024-01-15-1.html"
    page = made.page.read_text(encoding="utf-8")
    assert "worst -₹3.00" in page
    assert made.picture in page
    assert (made.story.no_prices, made.story.worst) == ("", (OPEN_MS, -300))
    assert f"`{made.page}`" in made.markdown
    assert [path.name for path in made.page.parent.iterdir()] == [made.page.name]


@pytest.mark.parametrize(
    ("data", "source", "why"),
    [("/absent/tcs.csv", "tcs_2024-01-15.csv", "cannot be read"), ("", "another.csv", "the run was on another.csv")],
)
def test_tell_session_without_its_prices_says_why_and_tells_the_rest(
    data: str, source: str, why: str, settings: Settings, paths: Paths, recorded: RecordedRun
) -> None:
    tell(recorded.folder, data=data, source=source)
    _, story = tell_session(settings, paths, recorded)
    assert why in story.no_prices
    assert story.worst == (OPEN_MS, -300)


def test_tell_session_of_a_run_without_a_status_or_a_journal(settings: Settings, paths: Paths, recorded: RecordedRun) -> None:
    (recorded.folder / STATUS_FILE).unlink()
    assert "does not say" in tell_session(settings, paths, recorded)[1].no_prices
    (recorded.folder / "journal.db").unlink()
    with pytest.raises(JournalUnavailable):
        tell_session(settings, paths, recorded)


def test_make_report_to_a_place_that_cannot_be_written_says_so(
    settings: Settings, paths: Paths, recorded: RecordedRun, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(VeloxError, match="cannot be written"):
        make_report(settings, paths, recorded, output=tmp_path / "file" / "page.html")
