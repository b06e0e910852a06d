"""A run's report from its journal: where the page lies, and what it says when the day's prices cannot be had any more."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import date
from pathlib import Path

import psutil
import pytest

from velox_core.domain.errors import JournalUnavailable, VeloxError
from velox_core.domain.events import EventKind
from velox_core.domain.scope import Scope
from velox_core.journal.run import RunIdentity
from velox_core.journal.sql import SqlJournal
from velox_core.operations import drawing
from velox_core.operations.drawing import Drawer, get_ready_ahead, scratch_folder
from velox_core.operations.json_file import write_json
from velox_core.operations.recorded import RecordedRun
from velox_core.operations.session_report import begin_report, equity_picture, make_report, page_path, tell_session
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
    assert "worst -₹3.00" in made.page.read_text(encoding="utf-8")
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


@pytest.fixture
def drawer(paths: Paths) -> Iterator[Drawer]:
    made = Drawer(scratch_folder(paths))
    yield made
    made.close()


def test_drawing_process_draws_what_this_process_would(
    settings: Settings, paths: Paths, recorded: RecordedRun, drawer: Drawer
) -> None:
    scratch, others = scratch_folder(paths), dict(drawing._spare)  # what a flow of another test in this process left
    get_ready_ahead(scratch)
    first = drawing._spare[scratch]
    get_ready_ahead(scratch)  # one is enough
    assert drawing._spare == {**others, scratch: first}
    begun = begin_report(settings, paths, recorded, drawer)
    assert drawing._spare == others
    made = make_report(settings, paths, recorded, drawer=drawer, begun=begun)
    assert made.picture.startswith(b"\x89PNG")
    drawn = drawing.draw(made.report, made.story, scratch_folder(paths))
    assert (made.page.read_text(encoding="utf-8"), made.picture) == (drawn.page, drawn.picture)


@pytest.mark.parametrize("when", ["before it is asked", "while it draws"])
def test_report_is_drawn_here_when_the_drawing_process_dies(
    when: str, settings: Settings, paths: Paths, recorded: RecordedRun, drawer: Drawer
) -> None:
    drawer.get_ready()
    assert drawer.pid
    os.kill(drawer.pid, signal.SIGKILL if when == "before it is asked" else signal.SIGSTOP)  # else it may be done at once
    begun = begin_report(settings, paths, recorded, drawer)
    if when == "while it draws":
        os.kill(drawer.pid, signal.SIGKILL)
    made = make_report(settings, paths, recorded, drawer=drawer, begun=begun)
    assert "worst -₹3.00" in made.page.read_text(encoding="utf-8")
    assert made.picture == b""
    assert equity_picture(made, paths).startswith(b"\x89PNG")


def test_report_of_a_machine_that_starts_no_process_is_drawn_here(
    settings: Settings, paths: Paths, recorded: RecordedRun, drawer: Drawer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object, **__: object) -> None:
        raise OSError(11, "no more processes")

    monkeypatch.setattr("subprocess.Popen", none)
    made = make_report(settings, paths, recorded, drawer=drawer)
    assert "worst -₹3.00" in made.page.read_text(encoding="utf-8")


def test_drawing_that_hangs_is_given_up_and_its_process_is_ended(
    settings: Settings, paths: Paths, recorded: RecordedRun, drawer: Drawer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drawing, "DRAWING_SECONDS_MAX", 0.2)
    drawer.get_ready()
    process = psutil.Process(drawer.pid)
    os.kill(drawer.pid, signal.SIGSTOP)
    with pytest.raises(VeloxError, match="velox report"):
        make_report(settings, paths, recorded, drawer=drawer)
    assert not process.is_running()
